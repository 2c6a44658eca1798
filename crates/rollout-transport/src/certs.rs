//! Certificates on disk: made on first use or by hand, and what a file says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use rollout_core::{Clock, SystemClock, hex};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

use crate::ca::Ca;
use crate::files::LockedDir;
use crate::identity::Identity;
use crate::tls::Tls;
use crate::x509::X509;

#[cfg(test)]
mod tests;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A certificate that ends within this is due for renewal.
pub const RENEW_BEFORE: Duration = DAY.saturating_mul(30);

pub(crate) const CA_CERT: &str = "ca.pem";
pub(crate) const CA_KEY: &str = "ca.key";

/// Where a process finds its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// This process's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    pub(crate) fn in_dir(dir: &Path, identity: &Identity) -> Self {
        let stem = stem(identity);
        Self {
            ca: dir.join(CA_CERT),
            cert: dir.join(format!("{stem}.pem")),
            key: dir.join(format!("{stem}.key")),
        }
    }
}

pub(crate) fn stem(identity: &Identity) -> String {
    match identity {
        Identity::Coordinator => "coordinator".to_owned(),
        Identity::Worker(id) => format!("worker-{id}"),
        Identity::Client(name) => format!("client-{name}"),
    }
}

/// Why a certificate cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file or directory cannot be read, written or locked.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM of the expected kind.
    #[error("{} holds no {what} in PEM form", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the parser said.
        #[source]
        source: pem::Error,
    },
    /// A certificate or key cannot be understood.
    #[error("{} is not a certificate or key that can be read", .0.display())]
    Unreadable(PathBuf),
    /// A private key that others may read.
    #[error("{} may be read by others (mode {mode:04o}): chmod 600 it", path.display())]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key is of no known kind, or not that of the certificate.
    #[error("{} is not the private key of {}", key.display(), cert.display())]
    Key {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// The certificate names no identity of rollout.
    #[error(
        "{} names no identity: it needs exactly one SAN URI, such as \
         spiffe://rollout/worker/<ULID> (`rollout cert issue` makes one)", .0.display()
    )]
    NoIdentity(PathBuf),
    /// The certificate does not hold against the CA.
    #[error("{} is not a valid certificate under {}: {why}", cert.display(), ca.display())]
    Untrusted {
        /// The certificate's file.
        cert: PathBuf,
        /// The CA's file.
        ca: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate is another's.
    #[error("{} is for {found}, not for {wanted}", cert.display())]
    WrongIdentity {
        /// The certificate's file.
        cert: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Whose it should be.
        wanted: Identity,
    },
    /// There is no CA key to issue with, and no usable certificate either.
    #[error(
        "{} has no usable certificate for {identity} and no ca.key to issue one with: run \
         `rollout cert issue` where ca.key is, and copy the three files here", dir.display()
    )]
    NoIssuer {
        /// The directory.
        dir: PathBuf,
        /// Whose certificate is wanted.
        identity: Identity,
        /// What is wrong with the one there.
        #[source]
        source: Box<CertError>,
    },
    /// `ca.pem` and `ca.key` are not a pair.
    #[error(
        "ca.pem and ca.key in {} are not a pair made by rollout: restore the right ones, or \
         remove both and every certificate beside them", .0.display()
    )]
    ForeignCa(PathBuf),
    /// There is no CA to issue with.
    #[error("{} has no ca.key: make a CA with `rollout cert init`, or name the directory of one", .0.display())]
    NoCa(PathBuf),
    /// There is a CA already.
    #[error("{} is there already: another CA would cut off all that it has issued", .0.display())]
    CaExists(PathBuf),
    /// A host is neither a DNS name nor an address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Host(String),
    /// The certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// The TLS stack does not accept its settings.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CertError {
    move |source| CertError::Io { doing, path: path.to_owned(), source }
}

/// Makes sure that `dir` has a certificate for `identity`, and the CA for it if need be; what is
/// there and good is kept.
///
/// Safe between processes that start at once on an empty directory: one makes the CA, and calls
/// `on_new_ca` with its path. A directory without `ca.key` is only read.
///
/// # Errors
/// When a file cannot be read or written, a key is exposed to others, the CA's files are not a
/// pair, or there is neither a usable certificate nor a key to issue one with.
pub fn dev_identity(
    dir: &Path,
    identity: &Identity,
    hosts: &[String],
    on_new_ca: &mut dyn FnMut(&Path),
) -> Result<TlsFiles, CertError> {
    dev_identity_at(dir, identity, hosts, on_new_ca, SystemClock.wall())
}

pub(crate) fn dev_identity_at(
    dir: &Path,
    identity: &Identity,
    hosts: &[String],
    on_new_ca: &mut dyn FnMut(&Path),
    now: SystemTime,
) -> Result<TlsFiles, CertError> {
    let dir = LockedDir::open(dir).map_err(io_error("make and lock", dir))?;
    let files = TlsFiles::in_dir(dir.path(), identity);
    let present = load_as(&files, identity, now);
    if files.ca.exists() && !dir.path().join(CA_KEY).exists() {
        return present.map(|_| files).map_err(|source| CertError::NoIssuer {
            dir: dir.path().to_owned(),
            identity: identity.clone(),
            source: Box::new(source),
        });
    }
    let ca = Ca::ensure(&dir, now, on_new_ca)?;
    match present {
        Ok(tls) if !tls.expires_within(RENEW_BEFORE, now) && covers(&files.cert, hosts) => {}
        Err(error @ CertError::Exposed { .. }) => return Err(error),
        _ => ca.issue(&dir, identity, hosts, now)?,
    }
    Ok(files)
}

fn load_as(files: &TlsFiles, wanted: &Identity, now: SystemTime) -> Result<Tls, CertError> {
    let tls = Tls::load_at(files, now)?;
    if tls.identity() == wanted {
        return Ok(tls);
    }
    let (found, wanted) = (tls.identity().clone(), wanted.clone());
    Err(CertError::WrongIdentity { cert: files.cert.clone(), found, wanted })
}

fn covers(cert: &Path, hosts: &[String]) -> bool {
    describe(cert).is_ok_and(|info| hosts.iter().all(|host| info.hosts.contains(host)))
}

/// Makes a CA in `dir` and returns the path of its certificate.
///
/// # Errors
/// When there is one already, or a file cannot be written.
pub fn init_ca(dir: &Path) -> Result<PathBuf, CertError> {
    let dir = LockedDir::open(dir).map_err(io_error("make and lock", dir))?;
    for name in [CA_CERT, CA_KEY] {
        let path = dir.path().join(name);
        if path.exists() {
            return Err(CertError::CaExists(path));
        }
    }
    Ca::ensure(&dir, SystemClock.wall(), &mut |_| ())?;
    Ok(dir.path().join(CA_CERT))
}

/// Issues a certificate from the CA in `dir` into the directory `out`, with a copy of the CA's
/// certificate; one that is there is replaced.
///
/// # Errors
/// When `dir` has no CA of rollout's making, `out` has another CA, a host is malformed, or a file
/// cannot be written.
pub fn issue(
    dir: &Path,
    identity: &Identity,
    hosts: &[String],
    out: &Path,
) -> Result<TlsFiles, CertError> {
    if !dir.join(CA_KEY).exists() {
        return Err(CertError::NoCa(dir.to_owned()));
    }
    let ca = Ca::read(dir)?;
    let out = LockedDir::open(out).map_err(io_error("make and lock", out))?;
    let copy = out.path().join(CA_CERT);
    if fs::read(&copy).ok().as_deref() != Some(ca.pem.as_bytes()) {
        if out.path().join(CA_KEY).exists() {
            return Err(CertError::CaExists(copy));
        }
        out.write_public(CA_CERT, &ca.pem).map_err(io_error("write", &copy))?;
    }
    ca.issue(&out, identity, hosts, SystemClock.wall())?;
    Ok(TlsFiles::in_dir(out.path(), identity))
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertInfo {
    /// Who it speaks for; none for a CA.
    pub identity: Option<Identity>,
    /// The DNS names and addresses in it. rollout itself does not look at them.
    pub hosts: Vec<String>,
    /// When it begins to be valid.
    pub not_before: SystemTime,
    /// When it ceases to be.
    pub not_after: SystemTime,
    /// Whether it may issue others.
    pub is_ca: bool,
    /// The SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// Whole days until `not_after`; negative when it is past.
    pub days_left: i64,
}

/// What the first certificate of a PEM file says; it is not verified.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn describe(file: &Path) -> Result<CertInfo, CertError> {
    let content = fs::read(file).map_err(io_error("read", file))?;
    let der = first(file, &content)?;
    let parsed = parse(file, &der)?;
    Ok(CertInfo {
        identity: parsed.identity(),
        not_before: parsed.not_before,
        not_after: parsed.not_after,
        is_ca: parsed.is_ca,
        fingerprint: hex(digest(&SHA256, &der).as_ref()),
        days_left: days_between(SystemClock.wall(), parsed.not_after),
        hosts: parsed.hosts,
    })
}

fn days_between(now: SystemTime, end: SystemTime) -> i64 {
    let days = |d: Duration| i64::try_from(d.as_secs() / DAY.as_secs()).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => days(left),
        Err(past) => -1 - days(past.duration()),
    }
}

pub(crate) fn parse(file: &Path, der: &[u8]) -> Result<X509, CertError> {
    X509::parse(der).map_err(|_| CertError::Unreadable(file.to_owned()))
}

pub(crate) fn first(file: &Path, content: &[u8]) -> Result<CertificateDer<'static>, CertError> {
    CertificateDer::from_pem_slice(content).map_err(|source| CertError::Pem {
        path: file.to_owned(),
        what: "certificate",
        source,
    })
}
