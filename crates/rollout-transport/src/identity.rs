//! Who a certificate speaks for: one SAN URI, `spiffe://rollout/<role>`.

use std::fmt;
use std::str::FromStr;

use rollout_core::WorkerId;

const TRUST_DOMAIN: &str = "spiffe://rollout";
const MAX_CLIENT_NAME: usize = 64;

/// The one identity of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The coordinator of a fleet.
    Coordinator,
    /// One worker.
    Worker(WorkerId),
    /// A person or program that talks to the coordinator, by name.
    Client(String),
}

/// A text that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an identity: /coordinator, /worker/<ULID>, or /client/<name> (1 to 64 of \
     a-z, A-Z, 0-9, `.`, `_`, `-`)"
)]
pub struct IdentityError(String);

impl Identity {
    /// The SAN URI that carries this identity.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{TRUST_DOMAIN}{self}")
    }

    /// The identity that a SAN URI carries.
    ///
    /// # Errors
    /// When the URI is of another trust domain or names no known role.
    pub fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        uri.strip_prefix(TRUST_DOMAIN)
            .and_then(Self::from_path)
            .ok_or_else(|| IdentityError(uri.to_owned()))
    }

    /// Exactly what [`fmt::Display`] writes is read, so that an identity has one spelling.
    fn from_path(path: &str) -> Option<Self> {
        let identity = match path.strip_prefix('/')?.split_once('/') {
            None => (path == "/coordinator").then_some(Self::Coordinator)?,
            Some(("worker", id)) => Self::Worker(id.parse().ok()?),
            Some(("client", name)) => client_name(name).then(|| Self::Client(name.to_owned()))?,
            Some(_) => return None,
        };
        (identity.to_string() == path).then_some(identity)
    }
}

fn client_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    (1..=MAX_CLIENT_NAME).contains(&name.len()) && name.bytes().all(allowed)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("/coordinator"),
            Self::Worker(id) => write!(f, "/worker/{id}"),
            Self::Client(name) => write!(f, "/client/{name}"),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::from_path(text).ok_or_else(|| IdentityError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    #[test]
    fn every_identity_survives_its_uri_and_its_path() {
        for identity in [
            Identity::Coordinator,
            Identity::Worker(ULID.parse().unwrap()),
            Identity::Client("ann.b-c_1".into()),
        ] {
            assert_eq!(Identity::from_uri(&identity.uri()), Ok(identity.clone()));
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
        let worker = Identity::Worker(ULID.parse().unwrap());
        assert_eq!(worker.uri(), format!("spiffe://rollout/worker/{ULID}"));
    }

    #[test]
    fn nothing_else_is_an_identity() {
        let long = format!("/client/{}", "x".repeat(65));
        let lower = format!("/worker/{}", ULID.to_lowercase());
        for bad in [
            "",
            "/",
            "/coordinator/",
            "coordinator",
            "/worker/",
            "/worker/1",
            "/client/",
            "/client/a b",
            "/client/a/b",
            "/root/x",
            &long,
            &lower,
        ] {
            assert!(Identity::from_path(bad).is_none(), "{bad}");
        }
        assert!(Identity::from_uri("spiffe://other/coordinator").is_err());
        assert!(Identity::from_uri("/coordinator").is_err());
    }
}
