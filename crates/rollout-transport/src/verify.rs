//! How a process verifies its peers, and what it says of those that fail.
//!
//! A peer is who its certificate's SAN URI says, if the chain holds under the CA and the role is
//! the right one for its side of the connection. Names and addresses identify nobody, so a
//! coordinator is the same under each of its addresses.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, RootCertStore, SignatureScheme,
};

use crate::certs::CertError;
use crate::identity::Identity;
use crate::x509::X509;

/// Verifies the other side, on either side.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Peers {
    pub(crate) fn new(cas: &[CertificateDer<'static>], file: &Path) -> Result<Self, CertError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for ca in cas {
            roots.add(ca.clone()).map_err(|_| CertError::Unreadable(file.to_owned()))?;
        }
        let roots = Arc::new(roots);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .clear_root_hint_subjects()
                .build()
                .map_err(|_| CertError::Unreadable(file.to_owned()))?;
        Ok(Self { provider, roots, clients })
    }

    pub(crate) fn check_own(
        &self,
        identity: &Identity,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), Error> {
        let (leaf, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let now = unix_time(now);
        match identity {
            Identity::Coordinator => self.check_server(leaf, rest, now),
            Identity::Worker(_) | Identity::Client(_) => {
                self.clients.verify_client_cert(leaf, rest, now).map(drop)
            }
        }
    }

    fn check_server(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, rest, now, algorithms)
    }
}

/// A reading of the wall clock, as TLS counts.
pub(crate) fn unix_time(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_server(leaf, rest, now).map_err(|error| Unproven::chain(leaf, &error))?;
        match identity_of(leaf) {
            Some(Identity::Coordinator) => Ok(ServerCertVerified::assertion()),
            other => Err(Unproven::role(other)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = self.clients.verify_client_cert(leaf, rest, now);
        chain.map_err(|error| Unproven::chain(leaf, &error))?;
        match identity_of(leaf) {
            Some(Identity::Worker(_) | Identity::Client(_)) => Ok(ClientCertVerified::assertion()),
            other => Err(Unproven::role(other)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

pub(crate) fn identity_of(leaf: &CertificateDer<'_>) -> Option<Identity> {
    X509::parse(leaf).ok()?.identity()
}

/// Why a peer is not let in, as it travels inside a TLS error.
#[derive(Debug)]
pub(crate) struct Unproven {
    /// Set when the certificate holds and only its role is the wrong one.
    pub(crate) identity: Option<Identity>,
    /// Whether it is the role, rather than the certificate.
    pub(crate) is_role: bool,
    pub(crate) why: String,
}

impl Unproven {
    fn chain(leaf: &CertificateDer<'_>, error: &Error) -> Error {
        let claim = identity_of(leaf)
            .map_or_else(String::new, |identity| format!(" (it claims to be for {identity})"));
        let why = format!("{}{claim}", explain(error));
        Self { identity: None, is_role: is_purpose(error), why }.into()
    }

    fn role(identity: Option<Identity>) -> Error {
        let why = match &identity {
            Some(found) => format!("it is for {found}, which has no business on this side"),
            None => "it names no identity of rollout".to_owned(),
        };
        Self { identity, is_role: true, why }.into()
    }

    /// The reason inside an error, if it is one of these.
    pub(crate) fn of(error: &Error) -> Option<&Self> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref()
            }
            _ => None,
        }
    }
}

impl From<Unproven> for Error {
    fn from(unproven: Unproven) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(unproven))))
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Unproven {}

fn is_purpose(error: &Error) -> bool {
    use CertificateError::{InvalidPurpose, InvalidPurposeContext};
    matches!(error, Error::InvalidCertificate(InvalidPurpose | InvalidPurposeContext { .. }))
}

/// What is wrong with a certificate, for people.
pub(crate) fn explain(error: &Error) -> String {
    use CertificateError as C;
    let text = match error {
        _ if is_purpose(error) => "it was issued for another role",
        Error::NoCertificatesPresented => "there is none",
        Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "it was issued by another CA"
        }
        Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => "it has expired",
        Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            "it is not valid yet (is a clock wrong?)"
        }
        _ => return Unproven::of(error).map_or_else(|| error.to_string(), |u| u.why.clone()),
    };
    text.to_owned()
}

/// Whether an alert from the peer is about the certificate it was shown, or was not.
pub(crate) fn is_about_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::AccessDenied
            | A::BadCertificate
            | A::CertificateExpired
            | A::CertificateRequired
            | A::CertificateRevoked
            | A::CertificateUnknown
            | A::DecryptError
            | A::UnknownCA
            | A::UnsupportedCertificate
    )
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer,
        KeyPair, SanType,
    };
    use rollout_core::{Clock, SystemClock};

    use super::*;

    const WORKER: &str = "spiffe://rollout/worker/01ARZ3NDEKTSV4RRFFQ69G5FAV";
    const COORDINATOR: &str = "spiffe://rollout/coordinator";

    /// What a verifier for one CA says of a leaf of it, as a client's and as a server's.
    fn judged(uri: &str, usages: &[Usage]) -> [Result<(), Unproven>; 2] {
        let (ca_key, leaf_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_der = ca.self_signed(&ca_key).unwrap().into();
        let mut leaf = CertificateParams::default();
        leaf.extended_key_usages = usages.to_vec();
        leaf.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let leaf = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key)).unwrap();
        let peers = Peers::new(&[ca_der], Path::new("ca.pem")).unwrap();
        let since = SystemClock.wall().duration_since(UNIX_EPOCH).unwrap();
        let now = UnixTime::since_unix_epoch(since);
        let name = ServerName::try_from("anything.example").unwrap();
        let taken = |error: Error| {
            let Unproven { identity, is_role, why } = Unproven::of(&error).unwrap();
            Unproven { identity: identity.clone(), is_role: *is_role, why: why.clone() }
        };
        [
            peers.verify_client_cert(leaf.der(), &[], now).map(drop).map_err(taken),
            peers.verify_server_cert(leaf.der(), &[], &name, &[], now).map(drop).map_err(taken),
        ]
    }

    #[test]
    fn each_role_is_good_for_its_side_whatever_the_host_name() {
        let [client, server] = judged(WORKER, &[Usage::ClientAuth]);
        assert!(client.is_ok() && server.unwrap_err().is_role);
        let [client, server] = judged(COORDINATOR, &[Usage::ServerAuth]);
        assert!(client.unwrap_err().is_role && server.is_ok());
    }

    #[test]
    fn a_certificate_for_both_usages_still_has_one_role() {
        let both = [Usage::ClientAuth, Usage::ServerAuth];
        let [client, server] = judged(WORKER, &both);
        let refused = server.unwrap_err();
        assert!(client.is_ok() && refused.is_role && refused.identity.is_some());
        let [client, server] = judged(COORDINATOR, &both);
        assert!(server.is_ok());
        assert_eq!(client.unwrap_err().identity, Some(Identity::Coordinator));
    }

    #[test]
    fn a_certificate_of_the_right_ca_without_an_identity_is_nobodys() {
        for verdict in
            judged("https://rollout/coordinator", &[Usage::ClientAuth, Usage::ServerAuth])
        {
            let refused = verdict.unwrap_err();
            assert!(refused.is_role && refused.identity.is_none(), "{refused}");
        }
    }
}
