//! Configuration files, as types: what the keys are, which are optional, and what must hold
//! between them. Reading the file is the caller's business.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::budget::{BudgetError, TimeBudget};
use crate::ids::{IdError, RunId};

/// Why a configuration text is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, an unknown or missing key, or a value of the wrong type.
    #[error(transparent)]
    Syntax(#[from] toml::de::Error),
    /// A rule between two durations is broken.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// Neither or both ways to a certificate are given.
    #[error("name either `tls_dir`, or all of `ca`, `cert` and `key`: {0}")]
    Tls(&'static str),
    /// A value is outside its range.
    #[error("`{key}` ({value}) must be {must}")]
    Range {
        /// The key, with its table.
        key: &'static str,
        /// The value found.
        value: String,
        /// What would be accepted.
        must: &'static str,
    },
    /// An id is malformed.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Where a process finds its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSource {
    /// A directory whose CA makes the certificate if it is not there yet.
    Dir(PathBuf),
    /// Files made elsewhere; no CA key is needed.
    Files {
        /// The CA's certificate.
        ca: PathBuf,
        /// This process's certificate.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// What the keys `tls_dir`, `ca`, `cert` and `key`, the same in both files, amount to.
fn tls_source([dir, ca, cert, key]: [&Option<PathBuf>; 4]) -> Result<TlsSource, ConfigError> {
    match [dir, ca, cert, key].map(Clone::clone) {
        [Some(dir), None, None, None] => Ok(TlsSource::Dir(dir)),
        [None, Some(ca), Some(cert), Some(key)] => Ok(TlsSource::Files { ca, cert, key }),
        [None, None, None, None] => Err(ConfigError::Tls("none of them is there")),
        [Some(_), ..] => Err(ConfigError::Tls("`tls_dir` stands beside the others")),
        [None, ..] => Err(ConfigError::Tls("some of the three are missing")),
    }
}

/// Which `worker_heartbeat` events the coordinator writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HeartbeatEvents {
    /// For every accepted beat.
    #[default]
    All,
    /// For a worker's first beat in each epoch.
    First,
    /// For no beat.
    None,
}

/// The `[events]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// Which `worker_heartbeat` events are written.
    pub worker_heartbeat: HeartbeatEvents,
    /// For so long after a `worker_rejected` event further ones of its reason are only counted; `0s`
    /// to `60s`, and `0s` writes each.
    #[serde(with = "crate::duration::AsText")]
    pub worker_rejected_interval: Duration,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            worker_heartbeat: HeartbeatEvents::default(),
            worker_rejected_interval: Duration::from_secs(1),
        }
    }
}

impl EventsConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let interval = self.worker_rejected_interval;
        if interval <= Duration::from_secs(60) {
            return Ok(());
        }
        Err(ConfigError::Range {
            key: "events.worker_rejected_interval",
            value: humantime::format_duration(interval).to_string(),
            must: "0s to 60s",
        })
    }
}

/// The most that a count of `[limits]` may be.
const MAX_COUNT: usize = 1_000_000;
/// The bounds of `limits.max_line`, in bytes.
const MIN_LINE: usize = 1024;
const MAX_LINE: usize = 1 << 20;

/// The `[limits]` table of the coordinator: what one peer, or all of them, may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections open at once, those still shaking hands included; a worker that works has two.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_COUNT)))]
    pub max_connections: usize,
    /// Connections open at once with the certificate of one and the same peer.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_COUNT)))]
    pub max_connections_per_peer: usize,
    /// TLS handshakes under way at once.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_COUNT)))]
    pub max_handshakes: usize,
    /// Workers with a running deadline at once.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_COUNT)))]
    pub max_workers: usize,
    /// The longest line of the session stream, in bytes.
    #[cfg_attr(feature = "schema", schemars(range(min = MIN_LINE, max = MAX_LINE)))]
    pub max_line: usize,
    /// How long what the peer does of a TLS handshake may take, `10ms` to `60s`; a fifth of it while
    /// others wait for a place.
    #[serde(with = "crate::duration::AsText")]
    pub handshake_timeout: Duration,
    /// How long a connection may take to its first request's headers, and a session from there to its
    /// registration; `10ms` to `60s`.
    #[serde(with = "crate::duration::AsText")]
    pub header_timeout: Duration,
    /// The time between two registrations of one worker in the long run, of which 20 may come at once;
    /// `10ms` to `60s`.
    #[serde(with = "crate::duration::AsText")]
    pub registration_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 24_000,
            max_connections_per_peer: 16,
            max_handshakes: 1_000,
            max_workers: 10_000,
            max_line: 16 * 1024,
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(5),
            registration_interval: Duration::from_millis(500),
        }
    }
}

impl Limits {
    fn validate(&self) -> Result<(), ConfigError> {
        let counts = [
            ("limits.max_connections", self.max_connections, 1..=MAX_COUNT, "1 to 1000000"),
            (
                "limits.max_connections_per_peer",
                self.max_connections_per_peer,
                1..=MAX_COUNT,
                "1 to 1000000",
            ),
            ("limits.max_handshakes", self.max_handshakes, 1..=MAX_COUNT, "1 to 1000000"),
            ("limits.max_workers", self.max_workers, 1..=MAX_COUNT, "1 to 1000000"),
            ("limits.max_line", self.max_line, MIN_LINE..=MAX_LINE, "1024 to 1048576 bytes"),
        ];
        for (key, value, range, must) in counts {
            if !range.contains(&value) {
                return Err(ConfigError::Range { key, value: value.to_string(), must });
            }
        }
        for (key, value) in [
            ("limits.handshake_timeout", self.handshake_timeout),
            ("limits.header_timeout", self.header_timeout),
            ("limits.registration_interval", self.registration_interval),
        ] {
            if value < Duration::from_millis(10) || value > Duration::from_secs(60) {
                let value = humantime::format_duration(value).to_string();
                return Err(ConfigError::Range { key, value, must: "10ms to 60s" });
            }
        }
        Ok(())
    }
}

/// The coordinator's file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::one_certificate))]
#[serde(deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// The address and port to listen on; port 0 takes a free one, and `coordinator_started` says which.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::schema::ADDRESS_PORT)))]
    pub listen: SocketAddr,
    /// The database file; one per process.
    pub storage: PathBuf,
    /// The run to lead, a ULID; by default the one in the database, or a new one. `--run-id` overrides
    /// it; another run's database is refused.
    pub run_id: Option<RunId>,
    /// A directory with a certificate authority, made on first use, that makes this process's
    /// certificate.
    tls_dir: Option<PathBuf>,
    /// In place of `tls_dir`, with `cert` and `key`: the authority's certificate, made elsewhere.
    ca: Option<PathBuf>,
    /// In place of `tls_dir`, with `ca` and `key`: this process's certificate, made elsewhere.
    cert: Option<PathBuf>,
    /// In place of `tls_dir`, with `ca` and `cert`: the certificate's private key.
    key: Option<PathBuf>,
    /// The time budget, the same in both files.
    #[serde(default)]
    pub timing: TimeBudget,
    /// What is written to the event stream.
    #[serde(default)]
    pub events: EventsConfig,
    /// What peers may cost.
    #[serde(default)]
    pub limits: Limits,
}

impl CoordinatorConfig {
    /// Reads and validates the text of a coordinator's file.
    ///
    /// # Errors
    /// The first thing wrong with it: syntax, an unknown key, a value, a rule between two fields.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        config.validate_cross_fields()?;
        Ok(config)
    }

    fn validate_cross_fields(&self) -> Result<(), ConfigError> {
        self.timing.validate_cross_fields()?;
        self.limits.validate()?;
        self.events.validate()?;
        self.tls().map(drop)
    }

    /// Where the coordinator's certificate comes from.
    ///
    /// # Errors
    /// When neither or both ways are named; never after [`parse`](Self::parse).
    pub fn tls(&self) -> Result<TlsSource, ConfigError> {
        tls_source([&self.tls_dir, &self.ca, &self.cert, &self.key])
    }
}

/// A worker's file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::one_certificate))]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// The coordinator's address, `host:port`.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::schema::HOST_PORT)))]
    pub coordinator: String,
    /// The database file; one per process.
    pub storage: PathBuf,
    /// Where the sockets of sidecar plugins are made.
    pub sidecar_dir: PathBuf,
    /// The run to join, a ULID; by default whichever the coordinator leads. Another run is refused.
    pub run_id: Option<RunId>,
    /// A directory with a certificate authority, made on first use, that makes this process's
    /// certificate.
    tls_dir: Option<PathBuf>,
    /// In place of `tls_dir`, with `cert` and `key`: the authority's certificate, made elsewhere.
    ca: Option<PathBuf>,
    /// In place of `tls_dir`, with `ca` and `key`: this process's certificate, made elsewhere.
    cert: Option<PathBuf>,
    /// In place of `tls_dir`, with `ca` and `cert`: the certificate's private key.
    key: Option<PathBuf>,
    /// How long the first registration may take; then the worker exits 69.
    #[serde(with = "crate::duration::AsText", default = "default_start_timeout")]
    pub start_timeout: Duration,
    /// How long SIGTERM may take in all, beside the plugins' own `shutdown_grace`. What runs is
    /// given back when two fifths of it are left, at most two seconds, to say so and to deregister.
    #[serde(with = "crate::duration::AsText", default = "default_drain_timeout")]
    pub drain_timeout: Duration,
    /// The time budget, the same in both files.
    #[serde(default)]
    pub timing: TimeBudget,
}

const fn default_start_timeout() -> Duration {
    Duration::from_secs(30)
}

const fn default_drain_timeout() -> Duration {
    Duration::from_secs(5)
}

impl WorkerConfig {
    /// Reads and validates the text of a worker's file.
    ///
    /// # Errors
    /// The first thing wrong with it: syntax, an unknown key, a value, a rule between two fields.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        config.validate_cross_fields()?;
        Ok(config)
    }

    fn validate_cross_fields(&self) -> Result<(), ConfigError> {
        self.timing.validate_cross_fields()?;
        let well_formed = self.coordinator.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        });
        if !well_formed {
            return Err(ConfigError::Range {
                key: "coordinator",
                value: self.coordinator.clone(),
                must: "host:port, such as \"127.0.0.1:50051\"",
            });
        }
        self.tls().map(drop)
    }

    /// Where the worker's certificate comes from.
    ///
    /// # Errors
    /// When neither or both ways are named; never after [`parse`](Self::parse).
    pub fn tls(&self) -> Result<TlsSource, ConfigError> {
        tls_source([&self.tls_dir, &self.ca, &self.cert, &self.key])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COORDINATOR: &str = "listen = \"127.0.0.1:0\"\nstorage = \"c.db\"\n";
    const WORKER: &str =
        "coordinator = \"localhost:50051\"\nstorage = \"w.db\"\nsidecar_dir = \"s\"\n";

    fn coordinator(rest: &str) -> Result<CoordinatorConfig, ConfigError> {
        CoordinatorConfig::parse(&format!("{COORDINATOR}{rest}"))
    }

    fn worker(rest: &str) -> Result<WorkerConfig, ConfigError> {
        WorkerConfig::parse(&format!("{WORKER}{rest}"))
    }

    #[test]
    fn a_minimal_file_has_the_default_timing() {
        let config = coordinator("tls_dir = \"tls\"").unwrap();
        assert_eq!(config.timing, TimeBudget::default());
        assert_eq!(config.tls().unwrap(), TlsSource::Dir("tls".into()));
        assert_eq!(worker("tls_dir = \"tls\"").unwrap().timing, TimeBudget::default());
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = coordinator("tls_dir = \"t\"\nlisten_adress = 1").unwrap_err().to_string();
        assert!(error.contains("unknown field `listen_adress`"), "{error}");
        let error =
            worker("tls_dir = \"t\"\n[timing]\nheartbeat = \"1s\"").unwrap_err().to_string();
        assert!(error.contains("unknown field `heartbeat`"), "{error}");
    }

    #[test]
    fn a_broken_rule_is_an_error_with_both_fields_and_values() {
        let timing = "tls_dir = \"t\"\n[timing]\nworker_self_fence_timeout = \"6s\"";
        for error in [coordinator(timing).unwrap_err(), worker(timing).unwrap_err()] {
            assert_eq!(
                error.to_string(),
                "worker_self_fence_timeout (6s) must be less than coordinator_failure_timeout (5s)"
            );
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused() {
        let error = worker("tls_dir = \"t\"\nlisten = 1").unwrap_err().to_string();
        assert!(error.contains("unknown field `listen`"), "{error}");
        let error = worker("tls_dir = \"t\"\n[timing]\nheartbeat_interval = \"500\"").unwrap_err();
        assert!(error.to_string().contains("`500` is not a duration"), "{error}");
    }

    #[test]
    fn certificates_come_from_a_directory_or_from_three_files_never_both() {
        let files = "ca = \"ca.pem\"\ncert = \"w.pem\"\nkey = \"w.key\"";
        assert!(matches!(worker(files).unwrap().tls(), Ok(TlsSource::Files { .. })));
        for bad in ["", "ca = \"c\"", "tls_dir = \"t\"\nca = \"c\""] {
            assert!(matches!(worker(bad), Err(ConfigError::Tls(_))), "{bad}");
        }
    }

    #[test]
    fn a_coordinator_address_needs_host_and_port_and_limits_have_ranges() {
        for bad in ["localhost", ":1", "https://h:1", "h:99999"] {
            let text = WORKER.replace("localhost:50051", bad) + "tls_dir = \"t\"";
            let error = WorkerConfig::parse(&text).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("host:port"), "{error}");
        }
        for bad in [
            "max_connections = 0",
            "max_connections_per_peer = 0",
            "max_handshakes = 0",
            "max_line = 10",
            "handshake_timeout = \"2m\"",
            "registration_interval = \"0s\"",
        ] {
            let error = coordinator(&format!("tls_dir = \"t\"\n[limits]\n{bad}")).unwrap_err();
            assert!(matches!(error, ConfigError::Range { .. }), "{error}");
        }
        let rejected = |interval: &str| {
            coordinator(&format!(
                "tls_dir = \"t\"\n[events]\nworker_rejected_interval = \"{interval}\""
            ))
        };
        assert_eq!(rejected("0s").unwrap().events.worker_rejected_interval, Duration::ZERO);
        assert!(matches!(rejected("61s"), Err(ConfigError::Range { .. })));
    }
}
