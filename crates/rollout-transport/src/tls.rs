//! A process's certificate and key in memory, and the TLS settings made of them: TLS 1.3 only, with
//! ring, certificates on both sides, no tickets and no server names.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rollout_core::{Clock, SystemClock};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, Error, ServerConfig};

use crate::certs::{CertError, TlsFiles, io_error, parse};
use crate::identity::Identity;
use crate::verify::{Peers, explain, unix_time};

const ALPN: &[u8] = b"h2";

/// A loaded certificate with its key and the CA it holds under. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    identity: Identity,
    not_after: SystemTime,
    own: Arc<CertifiedKey>,
    peers: Arc<Peers>,
    client: Arc<ClientConfig>,
}

/// The process's one wall clock: against it the other side's certificate is checked too.
#[derive(Debug)]
struct Wall;

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(SystemClock.wall()))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads and checks a process's files: the key is its owner's alone and belongs to the
    /// certificate, and the certificate names an identity and holds under the CA now.
    ///
    /// # Errors
    /// The first of these that is not so, naming the file.
    pub fn load(files: &TlsFiles) -> Result<Self, CertError> {
        Self::load_at(files, SystemClock.wall())
    }

    pub(crate) fn load_at(files: &TlsFiles, now: SystemTime) -> Result<Self, CertError> {
        let chain = read_chain(&files.cert)?;
        let peers = Arc::new(Peers::new(&read_chain(&files.ca)?, &files.ca)?);
        let leaf = chain.first().ok_or_else(|| CertError::Unreadable(files.cert.clone()))?;
        let parsed = parse(&files.cert, leaf)?;
        let own = own_key(files, chain.clone())?;
        let identity =
            parsed.identity().ok_or_else(|| CertError::NoIdentity(files.cert.clone()))?;
        peers.check_own(&identity, &chain, now).map_err(|error| CertError::Untrusted {
            cert: files.cert.clone(),
            ca: files.ca.clone(),
            why: explain(&error),
        })?;
        let client = client_config(&own, &peers).map_err(CertError::Setup)?;
        Ok(Self { identity, not_after: parsed.not_after, own, peers, client })
    }

    /// Who this is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the certificate ceases to be valid.
    #[must_use]
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether the certificate ends within `period` of `now`, or has ended.
    #[must_use]
    pub fn expires_within(&self, period: Duration, now: SystemTime) -> bool {
        self.not_after < now + period
    }

    pub(crate) fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        let peers = Arc::clone(&self.peers);
        let own = Arc::new(SingleCertAndKey::from((*self.own).clone()));
        let provider = Arc::clone(&self.peers.provider);
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(Wall))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(peers)
            .with_cert_resolver(own);
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Sessions are long: a ticket would be memory and bytes that nobody uses.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

fn client_config(own: &Arc<CertifiedKey>, peers: &Arc<Peers>) -> Result<Arc<ClientConfig>, Error> {
    let verifier: Arc<dyn ServerCertVerifier> = peers.clone();
    let provider = Arc::clone(&peers.provider);
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Wall))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from((**own).clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let content = fs::read(path).map_err(io_error("read", path))?;
    let bad = |source| CertError::Pem { path: path.to_owned(), what: "certificate", source };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&content).collect::<Result<_, _>>().map_err(bad)?;
    if chain.is_empty() {
        return Err(bad(pem::Error::NoItemsFound));
    }
    Ok(chain)
}

/// Reads a private key's file, if it is its owner's alone.
pub(crate) fn read_private(path: &Path) -> Result<String, CertError> {
    let mut file = fs::File::open(path).map_err(io_error("read", path))?;
    let metadata = file.metadata().map_err(io_error("read", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CertError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = String::new();
    file.read_to_string(&mut content).map_err(io_error("read", path))?;
    Ok(content)
}

fn own_key(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Arc<CertifiedKey>, CertError> {
    let pem = read_private(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|source| CertError::Pem {
        path: files.key.clone(),
        what: "private key",
        source,
    })?;
    let provider = rustls::crypto::ring::default_provider();
    let own = CertifiedKey::from_der(chain, key, &provider).map_err(|source| CertError::Key {
        key: files.key.clone(),
        cert: files.cert.clone(),
        source,
    })?;
    Ok(Arc::new(own))
}
