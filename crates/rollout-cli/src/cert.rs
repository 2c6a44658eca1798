//! `rollout cert`: certificates made and inspected by hand; and how a process comes by its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_core::config::TlsSource;
use rollout_core::{Clock, SystemClock};
use rollout_transport::{Identity, Tls, TlsFiles, certs};

use crate::args::{CertInit, CertIssue};
use crate::config::print;
use crate::error::CliError;

/// A warning is due from 30 days before a certificate's end.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The process's own certificate: the configured files, or one that the directory's CA makes.
/// In development, the CA is made as well, and said on standard error.
pub(crate) fn own(
    source: &TlsSource,
    identity: &Identity,
    hosts: &[String],
) -> Result<Tls, CliError> {
    let files = match source {
        TlsSource::Dir(dir) => certs::dev_identity(dir, identity, hosts, &mut |ca| {
            eprintln!("Generated dev CA at {}", ca.display());
        })?,
        TlsSource::Files { ca, cert, key } => {
            TlsFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone() }
        }
    };
    let tls = Tls::load(&files)?;
    if tls.identity() != identity {
        return Err(CliError::WrongIdentity {
            path: files.cert,
            found: tls.identity().to_string(),
            wanted: identity.to_string(),
        });
    }
    if tls.expires_within(WARN_BEFORE, SystemClock.wall()) {
        let until = humantime::format_rfc3339_seconds(tls.not_after());
        tracing::warn!("the certificate `{}` ends on {until}", files.cert.display());
    }
    Ok(tls)
}

/// The identity in the configured certificate, when files are configured.
pub(crate) fn configured_identity(source: &TlsSource) -> Result<Option<Identity>, CliError> {
    match source {
        TlsSource::Dir(_) => Ok(None),
        TlsSource::Files { cert, .. } => Ok(certs::describe(cert)?.identity),
    }
}

pub(crate) fn init(args: &CertInit) -> Result<(), CliError> {
    let ca = certs::init_ca(&args.dir)?;
    print(&format!("{}: a new certificate authority; keep ca.key beside it secret\n", ca.display()))
}

pub(crate) fn issue(args: &CertIssue) -> Result<(), CliError> {
    let TlsFiles { ca, cert, key } =
        certs::issue(&args.dir, &args.identity, &args.hosts, &args.out)?;
    let line = |key: &str, path: &Path| format!("{key:<4} = \"{}\"\n", path.display());
    print(&format!(
        "# {}'s certificate; for its configuration:\n{}{}{}",
        args.identity,
        line("ca", &ca),
        line("cert", &cert),
        line("key", &key)
    ))
}

pub(crate) fn show(files: &[PathBuf]) -> Result<(), CliError> {
    for path in files {
        let info = certs::describe(path)?;
        let role = match (&info.identity, info.is_ca) {
            (_, true) => "certificate authority".to_owned(),
            (Some(identity), false) => identity.to_string(),
            (None, false) => "no rollout identity".to_owned(),
        };
        let hosts = if info.hosts.is_empty() { "none".into() } else { info.hosts.join(", ") };
        print(&format!(
            "{}\n  identity     {role}\n  hosts        {hosts}\n  not before   {}\n  \
             not after    {} ({} days left)\n  sha-256      {}\n",
            path.display(),
            humantime::format_rfc3339_seconds(info.not_before),
            humantime::format_rfc3339_seconds(info.not_after),
            info.days_left,
            info.fingerprint,
        ))?;
    }
    Ok(())
}
