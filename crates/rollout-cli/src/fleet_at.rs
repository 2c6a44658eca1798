//! A fleet that runs already: where it is, and the certificate to speak to it with.

use std::path::PathBuf;

use rollout_core::config::TlsSource;
use rollout_transport::{Identity, Tls};
use serde::{Deserialize, Serialize};

use crate::cert;
use crate::error::CliError;
use crate::run::error::RunError;
use crate::run::request::absolute;

/// A coordinator that runs already, and the certificate to speak to it with.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct FleetArgs {
    /// Use the fleet of this coordinator, as host:port or https://host:port
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) coordinator: Option<String>,
    /// A directory whose CA makes the certificate if it is not there yet
    #[arg(long, value_name = "DIR", requires = "coordinator", conflicts_with_all = ["ca", "cert", "key"])]
    pub(crate) tls_dir: Option<PathBuf>,
    /// The CA's certificate
    #[arg(long, value_name = "FILE", requires_all = ["coordinator", "cert", "key"])]
    pub(crate) ca: Option<PathBuf>,
    /// A certificate for /client/NAME
    #[arg(long, value_name = "FILE", requires_all = ["coordinator", "ca", "key"])]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires_all = ["coordinator", "ca", "cert"])]
    pub(crate) key: Option<PathBuf>,
}

/// A fleet that runs already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FleetAt {
    /// As `host:port`.
    pub(crate) coordinator: String,
    tls_dir: Option<PathBuf>,
    files: Option<[PathBuf; 3]>,
}

impl FleetAt {
    /// The fleet that the flags name, if they do.
    pub(crate) fn from_args(args: &FleetArgs) -> Result<Option<Self>, CliError> {
        let Some(address) = &args.coordinator else { return Ok(None) };
        let bare = address.strip_prefix("https://").unwrap_or(address).trim_end_matches('/');
        let good = bare.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        });
        if !good {
            return Err(RunError::Address(address.clone()).into());
        }
        let tls_dir = args.tls_dir.as_deref().map(absolute).transpose()?;
        let files = match (&args.ca, &args.cert, &args.key) {
            (Some(ca), Some(cert), Some(key)) => {
                Some([absolute(ca)?, absolute(cert)?, absolute(key)?])
            }
            _ => None,
        };
        if tls_dir.is_none() && files.is_none() {
            return Err(RunError::NoCertificate.into());
        }
        Ok(Some(Self { coordinator: bare.to_owned(), tls_dir, files }))
    }

    /// The certificate to speak to it with.
    pub(crate) fn certificate(&self) -> Result<Tls, CliError> {
        let source = &self.tls();
        let identity = match (cert::configured_identity(source)?, source) {
            (Some(identity @ Identity::Client(_)), _) => identity,
            (found, TlsSource::Files { cert, .. }) => {
                return Err(CliError::WrongIdentity {
                    path: cert.clone(),
                    found: found.map_or_else(|| "nobody".to_owned(), |found| found.to_string()),
                    wanted: "client".to_owned(),
                });
            }
            _ => Identity::Client("rollout".to_owned()),
        };
        cert::own(source, &identity, &[])
    }

    fn tls(&self) -> TlsSource {
        match (&self.tls_dir, &self.files) {
            (_, Some([ca, cert, key])) => {
                TlsSource::Files { ca: ca.clone(), cert: cert.clone(), key: key.clone() }
            }
            (dir, None) => TlsSource::Dir(dir.clone().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_url() {
        for (text, good) in [
            ("https://host:50051", Some("host:50051")),
            ("https://host:50051/", Some("host:50051")),
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("http://host:1", None),
            ("host", None),
        ] {
            let args = FleetArgs {
                coordinator: Some(text.into()),
                tls_dir: Some("tls".into()),
                ..FleetArgs::default()
            };
            let found = FleetAt::from_args(&args).ok().flatten().map(|at| at.coordinator);
            assert_eq!(found.as_deref(), good, "{text}");
        }
    }
}
