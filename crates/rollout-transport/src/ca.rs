//! The CA of a directory: made once, renewed with its key, and what it issues.
//!
//! A CA is named after its own key, so that two CAs are never mistaken for each other, and so that
//! `ca.key` alone is enough to issue. It is renewed with the same key before a leaf could outlive
//! it: leaves issued before stay good.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use ring::digest::{SHA256, digest};
use rollout_core::hex;

use crate::certs::{CA_CERT, CA_KEY, CertError, DAY, TlsFiles, first, io_error, parse, stem};
use crate::files::LockedDir;
use crate::identity::Identity;

pub(crate) const CA_LIFE: Duration = DAY.saturating_mul(3652);
pub(crate) const LEAF_LIFE: Duration = DAY.saturating_mul(365);

/// A CA that can issue.
pub(crate) struct Ca {
    key: KeyPair,
    pub(crate) pem: String,
    not_after: SystemTime,
}

impl Ca {
    /// The CA of the directory. A key without a certificate is from a process that died between
    /// the two, or from a CA due for renewal: it gets one.
    pub(crate) fn ensure(
        dir: &LockedDir,
        now: SystemTime,
        on_new: &mut dyn FnMut(&Path),
    ) -> Result<Self, CertError> {
        let (cert, key) = (dir.path().join(CA_CERT), dir.path().join(CA_KEY));
        if cert.exists() {
            let ca = Self::read(dir.path())?;
            if ca.not_after >= now + LEAF_LIFE {
                return Ok(ca);
            }
        } else if !key.exists() {
            let fresh = KeyPair::generate()?.serialize_pem();
            dir.write_private(CA_KEY, &fresh).map_err(io_error("write", &key))?;
        }
        let key = read_key(&key)?;
        let params = ca_params(&key, now);
        let pem = params.self_signed(&key)?.pem();
        dir.write_public(CA_CERT, &pem).map_err(io_error("write", &cert))?;
        on_new(&cert);
        Ok(Self { key, pem, not_after: params.not_after.into() })
    }

    /// The CA of a directory that has one, key and all.
    pub(crate) fn read(dir: &Path) -> Result<Self, CertError> {
        let path = dir.join(CA_CERT);
        let key = read_key(&dir.join(CA_KEY))?;
        let pem = fs::read_to_string(&path).map_err(io_error("read", &path))?;
        let parsed = parse(&path, first(&path, pem.as_bytes())?.as_ref())?;
        let (not_after, own) = (parsed.not_after, ca_params(&key, parsed.not_before));
        let own = parse(&path, own.self_signed(&key)?.der())?;
        if (parsed.public_key, parsed.subject) != (own.public_key, own.subject) {
            return Err(CertError::ForeignCa(dir.to_owned()));
        }
        Ok(Self { key, pem, not_after })
    }

    /// The key goes first: a certificate without its key is of no use, and a pair that does not
    /// match is issued anew.
    pub(crate) fn issue(
        &self,
        out: &LockedDir,
        identity: &Identity,
        hosts: &[String],
        now: SystemTime,
    ) -> Result<(), CertError> {
        let issuer = Issuer::new(ca_params(&self.key, now), &self.key);
        let mut params = leaf_params(identity, hosts, now)?;
        params.not_after = params.not_after.min(self.not_after.into());
        let key = KeyPair::generate()?;
        let pem = params.signed_by(&key, &issuer)?.pem();
        let files = TlsFiles::in_dir(out.path(), identity);
        let stem = stem(identity);
        out.write_private(&format!("{stem}.key"), &key.serialize_pem())
            .map_err(io_error("write", &files.key))?;
        out.write_public(&format!("{stem}.pem"), &pem).map_err(io_error("write", &files.cert))
    }
}

fn ca_params(key: &KeyPair, now: SystemTime) -> CertificateParams {
    let fingerprint = hex(digest(&SHA256, &key.subject_public_key_info()).as_ref());
    let mut params = validity(now, CA_LIFE);
    params.distinguished_name = common_name(&format!("rollout CA {}", &fingerprint[..16]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(
    identity: &Identity,
    hosts: &[String],
    now: SystemTime,
) -> Result<CertificateParams, CertError> {
    let mut params = validity(now, LEAF_LIFE);
    params.distinguished_name = common_name(&identity.to_string());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match identity {
        Identity::Coordinator => ExtendedKeyUsagePurpose::ServerAuth,
        Identity::Worker(_) | Identity::Client(_) => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names.push(SanType::URI(identity.uri().try_into()?));
    for host in hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(dns_name(host)?.try_into()?),
        });
    }
    Ok(params)
}

fn dns_name(host: &str) -> Result<&str, CertError> {
    let bare = host.strip_prefix("*.").unwrap_or(host);
    match rustls::pki_types::DnsName::try_from(bare) {
        Ok(_) => Ok(host),
        Err(_) => Err(CertError::Host(host.to_owned())),
    }
}

/// Valid from a day back, so that a clock that is behind accepts it too.
fn validity(now: SystemTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - DAY).into();
    params.not_after = (now + life).into();
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn read_key(path: &Path) -> Result<KeyPair, CertError> {
    let pem = crate::tls::read_private(path)?;
    KeyPair::from_pem(&pem).map_err(|_| CertError::Unreadable(path.to_owned()))
}
