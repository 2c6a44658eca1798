//! Peers by hand: TLS over a blocking socket, and HTTP/2 frames of their own making.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rollout_acceptance::{Stage, text};
use rollout_core::{Incarnation, WorkerId};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long a read or write may take before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const END_HEADERS: u8 = 4;

/// The client's preface and empty SETTINGS.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `POST https://x/v1/session`, without Huffman.
pub(crate) const POST: &[u8] = b"\x83\x87\x41\x01x\x44\x0b/v1/session";

/// A connection whose handshake is done.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// One who can connect.
pub(crate) struct Peer {
    config: Arc<ClientConfig>,
    address: String,
    pub(crate) id: WorkerId,
}

impl Peer {
    /// One with a worker's certificate of the stage's CA.
    pub(crate) fn worker(stage: &Stage, address: &str) -> Self {
        let id = WorkerId::generate();
        let [tls, out] = [stage.artifact("tls"), stage.root().join("peers")].map(|dir| text(&dir));
        let identity = format!("/worker/{id}");
        let args = ["cert", "issue", "--dir", &tls, "--identity", &identity, "--out", &out];
        let issued = stage.start("issue", &args);
        assert_eq!(issued.exit().code, Some(0), "{}", issued.stderr());
        let pem = format!("{out}/worker-{id}.pem");
        let cert = CertificateDer::from_pem_file(pem).unwrap();
        let key = PrivateKeyDer::from_pem_file(format!("{out}/worker-{id}.key")).unwrap();
        let config = trusting(stage).with_client_auth_cert(vec![cert], key).unwrap();
        Self::new(config, address, id)
    }

    /// One without a certificate.
    pub(crate) fn nobody(stage: &Stage, address: &str) -> Self {
        Self::new(trusting(stage).with_no_client_auth(), address, WorkerId::generate())
    }

    fn new(mut config: ClientConfig, address: &str, id: WorkerId) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { config: Arc::new(config), address: address.to_owned(), id }
    }

    pub(crate) fn tcp(&self) -> io::Result<TcpStream> {
        let tcp = TcpStream::connect(&self.address)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    /// Shakes hands; whether the server accepts that, the next read says.
    pub(crate) fn tls(&self) -> io::Result<Tls> {
        let mut tcp = self.tcp()?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(StreamOwned::new(tls, tcp))
    }

    /// Opens a session, and says `line` in it.
    pub(crate) fn say(&self, line: &[u8]) -> io::Result<Tls> {
        let mut tls = self.tls()?;
        tls.write_all(PREFACE)?;
        tls.write_all(&frame(HEADERS, END_HEADERS, 1, POST))?;
        for chunk in line.chunks(16 * 1024) {
            tls.write_all(&frame(DATA, 0, 1, chunk))?;
        }
        tls.flush()?;
        Ok(tls)
    }

    /// What a new process with this certificate says first.
    pub(crate) fn registration(&self) -> String {
        format!(
            "{{\"type\":\"register\",\"worker_id\":\"{}\",\"incarnation\":\"{}\",\
             \"version\":\"0\",\"timing\":{{\"heartbeat_interval_ms\":500.0,\
             \"worker_self_fence_timeout_ms\":4000.0}}}}\n",
            self.id,
            Incarnation::generate()
        )
    }
}

type Trusting = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn trusting(stage: &Stage) -> Trusting {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(stage.artifact("tls/ca.pem")).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads until one of `words` has come: which one; an error if the connection ends before.
pub(crate) fn hear(tls: &mut Tls, words: &[&str]) -> io::Result<usize> {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match tls.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => heard.extend_from_slice(&buffer[..length]),
        }
        let has = |word: &&str| heard.windows(word.len()).any(|part| part == word.as_bytes());
        if let Some(which) = words.iter().position(has) {
            return Ok(which);
        }
    }
}

/// Reads until the server has closed, whichever way it does.
pub(crate) fn until_closed(stream: &mut impl Read) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("still open after {PATIENCE:?}")
            }
            Ok(0) | Err(_) => return,
        }
    }
}
