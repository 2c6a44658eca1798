//! Certificates for a fleet, made once a run: one authority, one coordinator, and workers that
//! share a key, since making ten thousand would take longer than what is measured.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rollout_core::{Clock, SystemClock, WorkerId};
use rollout_transport::{Identity, Tls, TlsFiles};

use crate::error::BenchError;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A worker's name, and what it proves it with.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) id: WorkerId,
    pub(crate) tls: Tls,
}

/// A coordinator's files and its fleet.
pub(crate) struct Crew {
    pub(crate) coordinator: TlsFiles,
    pub(crate) members: Vec<Member>,
}

impl Crew {
    /// Makes a fleet of `size` in `dir`, where the coordinator's files stay.
    pub(crate) fn make(dir: &Path, size: usize) -> Result<Self, BenchError> {
        let ca_key = KeyPair::generate()?;
        let mut ca = params("rollout bench CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let maker =
            Maker { dir, key: KeyPair::generate()?, issuer: Issuer::new(ca.clone(), &ca_key) };
        write(&dir.join("ca.pem"), &ca.self_signed(&ca_key)?.pem())?;
        let key = dir.join("leaf.key");
        write(&key, &maker.key.serialize_pem())?;
        let private = fs::set_permissions(&key, Permissions::from_mode(0o600));
        private.map_err(BenchError::io("cannot guard a key"))?;
        let coordinator = maker.issue(&Identity::Coordinator, "coordinator.pem")?;
        let members = (0..size).map(|_| maker.member()).collect::<Result<_, _>>()?;
        Ok(Self { coordinator, members })
    }
}

struct Maker<'a> {
    dir: &'a Path,
    key: KeyPair,
    issuer: Issuer<'a, &'a KeyPair>,
}

impl Maker<'_> {
    /// The file is read at once, and the next member's takes its place.
    fn member(&self) -> Result<Member, BenchError> {
        let id = WorkerId::generate();
        let files = self.issue(&Identity::Worker(id), "worker.pem")?;
        Ok(Member { id, tls: Tls::load(&files)? })
    }

    fn issue(&self, identity: &Identity, name: &str) -> Result<TlsFiles, BenchError> {
        let mut leaf = params(&identity.to_string());
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![match identity {
            Identity::Coordinator => ExtendedKeyUsagePurpose::ServerAuth,
            _ => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        leaf.use_authority_key_identifier_extension = true;
        leaf.subject_alt_names.push(SanType::URI(identity.uri().try_into()?));
        let cert = self.dir.join(name);
        write(&cert, &leaf.signed_by(&self.key, &self.issuer)?.pem())?;
        Ok(TlsFiles { ca: self.dir.join("ca.pem"), cert, key: self.dir.join("leaf.key") })
    }
}

fn params(name: &str) -> CertificateParams {
    let now = SystemClock.wall();
    let mut params = CertificateParams::default();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn write(path: &PathBuf, text: &str) -> Result<(), BenchError> {
    fs::write(path, text).map_err(BenchError::io("cannot write a certificate"))
}
