//! Manifests: what to run and within which limits. Unknown keys are refused, relative paths are
//! relative to the manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use rollout_core::budget::MAX_DURATION;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::call::MaxFrame;
use crate::error::{Cause, PluginError};
use crate::json;

/// A plugin's manifest, read and checked.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The plugin's name, which the plugin itself must confirm.
    pub name: String,
    /// The plugin's version, which the plugin itself must confirm.
    pub version: String,
    /// What to run.
    pub entry: Entry,
    /// What to call once at start.
    pub probe: Option<Probe>,
    /// The limits it runs within.
    pub limits: Limits,
    /// What happens when it ends unasked or panics.
    pub restart: Restart,
    /// Handed to the plugin at start.
    pub config: Map<String, Value>,
}

/// What a manifest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A library in the worker's process.
    Cdylib(CdylibEntry),
    /// A process of its own.
    Sidecar(SidecarEntry),
}

/// The table `[entry.cdylib]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CdylibEntry {
    /// The library; in the file a stem, to which the system's prefix and suffix are added.
    #[cfg_attr(feature = "schema", schemars(transform = crate::schema::stem))]
    pub path: PathBuf,
    /// SHA-256 that the library must have, in hex.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::schema::SHA256)))]
    pub sha256: Option<String>,
}

/// The table `[entry.sidecar]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SidecarEntry {
    /// The program and its arguments. A program with a slash in it is a path, one without is looked
    /// up in `PATH`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub command: Vec<String>,
    /// The working directory; the manifest's own if it is not given.
    #[serde(default)]
    pub cwd: PathBuf,
    /// Variables to set.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables to pass on from the worker, beside `PATH` and `HOME`.
    #[serde(default)]
    pub env_allow: Vec<String>,
}

/// The table `[probe]`.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The method to call.
    pub method: String,
    /// Its parameters; an empty object if they are not given.
    pub params: Box<RawValue>,
}

/// The table `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How long the plugin may take until it is ready.
    #[serde(with = "rollout_core::duration::AsText")]
    pub start_timeout: Duration,
    /// How long a call may take, whatever its caller would allow it. If it is not given, a call may
    /// take as long as its caller says, and 60 s if that says nothing.
    #[serde(deserialize_with = "given_duration")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<rollout_core::duration::AsText>"))]
    call_timeout: Option<Duration>,
    /// How long a sidecar may go on with a call that was given up before it is killed, and a library
    /// with one whose deadline has passed before it is `wedged`.
    #[serde(with = "rollout_core::duration::AsText")]
    pub cancel_grace: Duration,
    /// How long shutting down may take.
    #[serde(with = "rollout_core::duration::AsText")]
    pub shutdown_grace: Duration,
    /// How many calls may be at the plugin at the same time.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_IN_FLIGHT)))]
    pub max_in_flight: usize,
    /// The largest call or answer in bytes: JSON and payload together. A sidecar may set a smaller one.
    #[cfg_attr(feature = "schema", schemars(range(min = MaxFrame::LEAST, max = MAX_MAX_FRAME)))]
    pub max_frame: usize,
    /// How many bytes of memory each of a sidecar's processes may take for its data; no limit of its
    /// own if it is not given.
    #[cfg_attr(feature = "schema", schemars(range(min = MEMORY.0, max = MEMORY.1)))]
    pub memory: Option<usize>,
    /// How many files each of a sidecar's processes may have open; as many as the worker if it is not
    /// given.
    #[cfg_attr(feature = "schema", schemars(range(min = OPEN_FILES.0, max = OPEN_FILES.1)))]
    pub open_files: Option<usize>,
}

/// How long a call may take if neither the manifest nor its caller says so.
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The bounds of counts and sizes.
const MAX_IN_FLIGHT: usize = 65_536;
const MAX_MAX_FRAME: usize = 1 << 30;
const MEMORY: (usize, usize) = (1 << 20, 1 << 50);
const OPEN_FILES: (usize, usize) = (16, 1 << 20);
const MAX_CRASHES: usize = 1000;

fn given_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    rollout_core::duration::deserialize(from).map(Some)
}

impl Limits {
    /// How long a call may take whose caller would give it so long.
    #[must_use]
    pub fn call_timeout(&self, wanted: Option<Duration>) -> Duration {
        match (self.call_timeout, wanted) {
            (Some(most), Some(wanted)) => wanted.min(most),
            (given, wanted) => given.or(wanted).unwrap_or(DEFAULT_CALL_TIMEOUT),
        }
    }

    pub(crate) const fn frame(&self) -> MaxFrame {
        MaxFrame::of_manifest(self.max_frame)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(10),
            call_timeout: None,
            cancel_grace: Duration::from_secs(5),
            shutdown_grace: Duration::from_secs(2),
            max_in_flight: 64,
            max_frame: 16 * 1024 * 1024,
            memory: None,
            open_files: None,
        }
    }
}

/// The table `[restart]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Restart {
    /// The pause between a sidecar's first end and its next start; doubled for each one that follows.
    #[serde(with = "rollout_core::duration::AsText")]
    pub backoff_initial: Duration,
    /// The longest such pause, and how long the plugin is left alone after too many.
    #[serde(with = "rollout_core::duration::AsText")]
    pub backoff_max: Duration,
    /// How many ends or panics within `window` are too many.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_CRASHES)))]
    pub max_crashes: usize,
    /// How long one counts.
    #[serde(with = "rollout_core::duration::AsText")]
    pub window: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            backoff_initial: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            max_crashes: 5,
            window: Duration::from_secs(60),
        }
    }
}

/// A plugin's manifest: what to run, and within which limits.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::no_sidecar_keys))]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// Who it is, which the plugin itself must confirm.
    plugin: Identity,
    /// What to run: either a library or a process.
    entry: Entries,
    /// What to call once at start.
    probe: Option<ProbeTable>,
    /// The limits it runs within.
    #[serde(default)]
    limits: Limits,
    /// What happens when it ends unasked or panics.
    #[serde(default)]
    restart: Restart,
    /// Handed to the plugin at start.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "rollout_core::schema::Table"))]
    config: toml::Table,
}

/// The table `[plugin]`.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Identity {
    /// The plugin's name: 1 to 64 letters, digits, `_`, `-`, `.` or `+`.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::schema::NAME)))]
    name: String,
    /// The plugin's version: of the same characters.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::schema::NAME)))]
    version: String,
}

/// The table `[entry]`, which has one table.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::one_entry))]
#[serde(deny_unknown_fields)]
struct Entries {
    /// A library in the worker's process.
    cdylib: Option<CdylibEntry>,
    /// A process of its own.
    sidecar: Option<SidecarEntry>,
}

/// The table `[probe]`.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct ProbeTable {
    /// The method to call.
    method: String,
    /// Its parameters; an empty object if they are not given.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "rollout_core::schema::Table"))]
    params: toml::Table,
}

impl Manifest {
    /// Reads and checks a manifest. The library or the program that it names is not looked at yet.
    ///
    /// # Errors
    /// When the file can't be read, or the first thing that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, PluginError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let not_found = |source| Cause::NotFound { path: path.to_owned(), source }.at(&name);
        let text = fs::read_to_string(path).map_err(not_found)?;
        // Absolute, because a sidecar has a working directory of its own.
        let here = std::path::absolute(path).map_err(not_found)?;
        let here = here.parent().unwrap_or(Path::new("/"));
        Self::parse(&text, here).map_err(|wrong| wrong.into_cause(path).at(&name))
    }

    pub(crate) fn parse(text: &str, here: &Path) -> Result<Self, Wrong> {
        let file: File = toml::from_str(text)?;
        check_name("plugin.name", &file.plugin.name)?;
        check_name("plugin.version", &file.plugin.version)?;
        check_limits(&file.limits)?;
        check_restart(&file.restart)?;
        let entry = match (file.entry.cdylib, file.entry.sidecar) {
            (Some(cdylib), None) => {
                refuse_sidecar_keys(&toml::from_str(text)?)?;
                Entry::Cdylib(check_cdylib(cdylib, here)?)
            }
            (None, Some(sidecar)) => Entry::Sidecar(check_sidecar(sidecar, here)?),
            _ => return Err(Wrong::value("write either [entry.cdylib] or [entry.sidecar]")),
        };
        let probe = file.probe.map(check_probe).transpose()?;
        let config = json::from_toml(file.config).map_err(|what| format!("config.{what}"))?;
        let File { plugin: Identity { name, version }, limits, restart, .. } = file;
        Ok(Self { name, version, entry, probe, limits, restart, config })
    }
}

/// What is wrong with a manifest's text.
#[derive(Debug)]
pub(crate) struct Wrong {
    message: String,
    unknown_field: bool,
}

impl Wrong {
    fn value(message: impl Into<String>) -> Self {
        Self { message: message.into(), unknown_field: false }
    }

    fn into_cause(self, path: &Path) -> Cause {
        let (path, message) = (path.to_owned(), self.message);
        if self.unknown_field {
            Cause::UnknownField { path, message }
        } else {
            Cause::Invalid { path, message }
        }
    }
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self::value(message)
    }
}

impl From<toml::de::Error> for Wrong {
    fn from(error: toml::de::Error) -> Self {
        let unknown_field = error.message().starts_with("unknown field");
        Self { message: error.to_string().trim_end().to_owned(), unknown_field }
    }
}

fn check_name(key: &str, name: &str) -> Result<(), Wrong> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Wrong::value(format!(
            "{key} (`{name}`) must be 1 to 64 letters, digits, `_`, `-`, `.` or `+`"
        )));
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), Wrong> {
    check_duration("limits.start_timeout", limits.start_timeout)?;
    if let Some(call_timeout) = limits.call_timeout {
        check_duration("limits.call_timeout", call_timeout)?;
    }
    check_duration("limits.cancel_grace", limits.cancel_grace)?;
    check_duration("limits.shutdown_grace", limits.shutdown_grace)?;
    check_number("limits.max_in_flight", limits.max_in_flight, 1, MAX_IN_FLIGHT)?;
    check_number("limits.max_frame", limits.max_frame, MaxFrame::LEAST, MAX_MAX_FRAME)?;
    if let Some(memory) = limits.memory {
        check_number("limits.memory", memory, MEMORY.0, MEMORY.1)?;
    }
    if let Some(open_files) = limits.open_files {
        check_number("limits.open_files", open_files, OPEN_FILES.0, OPEN_FILES.1)?;
    }
    Ok(())
}

fn check_restart(restart: &Restart) -> Result<(), Wrong> {
    check_duration("restart.backoff_initial", restart.backoff_initial)?;
    check_duration("restart.backoff_max", restart.backoff_max)?;
    check_duration("restart.window", restart.window)?;
    check_number("restart.max_crashes", restart.max_crashes, 1, MAX_CRASHES)?;
    let Restart { backoff_initial, backoff_max, .. } = restart;
    if backoff_initial > backoff_max {
        return Err(Wrong::value(format!(
            "restart.backoff_initial ({backoff_initial:?}) must be at most restart.backoff_max \
             ({backoff_max:?})"
        )));
    }
    Ok(())
}

fn check_duration(key: &str, value: Duration) -> Result<(), Wrong> {
    if value.is_zero() || value > MAX_DURATION {
        return Err(Wrong::value(format!(
            "{key} ({value:?}) must be more than zero and at most a day"
        )));
    }
    Ok(())
}

fn check_number(key: &str, value: usize, least: usize, most: usize) -> Result<(), Wrong> {
    if value < least || value > most {
        return Err(Wrong::value(format!("{key} ({value}) must be from {least} to {most}")));
    }
    Ok(())
}

/// Keys that would have no effect on a library, which shares the worker's process.
pub(crate) const SIDECAR_KEYS: &[(&str, &str)] =
    &[("limits", "memory"), ("limits", "open_files"), ("restart", "backoff_initial")];

fn refuse_sidecar_keys(file: &toml::Table) -> Result<(), Wrong> {
    for (table, key) in SIDECAR_KEYS {
        if file.get(*table).is_some_and(|table| table.get(*key).is_some()) {
            return Err(Wrong::value(format!(
                "{table}.{key} is for sidecars: it has no effect on a library, leave it out"
            )));
        }
    }
    Ok(())
}

fn check_cdylib(entry: CdylibEntry, here: &Path) -> Result<CdylibEntry, Wrong> {
    let stem = entry.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let stem = stem.ok_or_else(|| Wrong::value("entry.cdylib.path is empty"))?;
    if [".so", ".dylib"].iter().any(|suffix| stem.ends_with(suffix)) {
        return Err(Wrong::value(format!(
            "entry.cdylib.path (`{}`) must be a stem: leave out `lib` and the suffix, they are added",
            entry.path.display()
        )));
    }
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(pin) = entry.sha256.as_ref().filter(|pin| !hex(pin)) {
        return Err(Wrong::value(format!("entry.cdylib.sha256 (`{pin}`) must be 64 hex digits")));
    }
    let file = format!("{}{stem}{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let path = here.join(entry.path).with_file_name(file);
    Ok(CdylibEntry { path, sha256: entry.sha256.map(|pin| pin.to_ascii_lowercase()) })
}

fn check_sidecar(mut entry: SidecarEntry, here: &Path) -> Result<SidecarEntry, Wrong> {
    let program = entry.command.first_mut().filter(|program| !program.is_empty());
    let program = program.ok_or_else(|| Wrong::value("entry.sidecar.command is empty"))?;
    if program.contains('/') {
        *program = here.join(&*program).to_string_lossy().into_owned();
    }
    if entry.command.iter().chain(entry.env.values()).any(|text| text.contains('\0')) {
        return Err(Wrong::value("entry.sidecar: a command or variable has a NUL in it"));
    }
    for name in entry.env.keys().chain(&entry.env_allow) {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Wrong::value(format!("entry.sidecar: `{name}` is no variable's name")));
        }
    }
    entry.cwd = here.join(entry.cwd);
    Ok(entry)
}

fn check_probe(probe: ProbeTable) -> Result<Probe, Wrong> {
    let params = json::from_toml(probe.params).map_err(|what| format!("probe.params.{what}"))?;
    let params = serde_json::value::to_raw_value(&params);
    let params = params.map_err(|error| format!("probe.params: {error}"))?;
    Ok(Probe { method: probe.method, params })
}

impl SidecarEntry {
    /// SHA-256 of the command line, in hex.
    pub(crate) fn digest(&self) -> String {
        digest(self.command.join("\0").as_bytes())
    }
}

/// SHA-256 in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    rollout_core::hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests;
