//! Identifiers: ULIDs that the type system keeps apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// A text that is not a ULID: 26 characters of Crockford's base 32.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: a ULID of 26 characters (0-9 and A-Z without I, L, O, U)")]
pub struct IdError {
    kind: &'static str,
    text: String,
}

macro_rules! ulid_newtype {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Ulid);

        impl $name {
            /// A new id: this millisecond and 80 random bits.
            #[must_use]
            pub fn generate() -> Self {
                Self(Ulid::generate())
            }

            /// The id with exactly these 16 bytes, as [`to_bytes`](Self::to_bytes) gave them.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }

            /// The 16 bytes of the id, big-endian, so that they sort as the text does.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::schema::text($kind, crate::schema::ULID)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Ulid::from_string(text)
                    .map(Self)
                    .map_err(|_| IdError { kind: $kind, text: text.to_owned() })
            }
        }
    };
}

ulid_newtype!(
    /// One run of a fleet: a coordinator and all that ever registers with it.
    RunId,
    "run id"
);
ulid_newtype!(
    /// One job: a method, called once for each of its items.
    JobId,
    "job id"
);
ulid_newtype!(
    /// One worker, across all the processes that ever carry its certificate.
    WorkerId,
    "worker id"
);
ulid_newtype!(
    /// One plugin as loaded by one worker process.
    PluginId,
    "plugin id"
);
ulid_newtype!(
    /// One process of a worker, drawn at its start: the same incarnation resumes, a new one
    /// registers.
    Incarnation,
    "incarnation"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_bytes_and_json() {
        let id = WorkerId::generate();
        assert_eq!(id.to_string().parse::<WorkerId>(), Ok(id));
        assert_eq!(WorkerId::from_bytes(id.to_bytes()), id);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        assert_eq!(id.to_string().len(), 26);
    }

    #[test]
    fn two_ids_differ() {
        assert_ne!(RunId::generate(), RunId::generate());
    }

    #[test]
    fn a_bad_id_is_named_with_what_it_should_have_been() {
        let error = "w1".parse::<WorkerId>().unwrap_err().to_string();
        assert!(error.contains("`w1` is not a worker id"), "{error}");
    }
}
