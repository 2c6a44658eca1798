//! Builds what a run needs, with cargo, and takes the paths from cargo's own messages.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use nix::sys::signal::Signal;
use rollout_process::{Exit, Io, Ladder, Spawn, SpawnError, Stream, WatchConfig, Watched};
use serde::Deserialize;

use crate::Interrupt;

/// The root of the workspace that this harness was built from.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The cargo that runs this, or the one on the path.
#[must_use]
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What cargo sets for the programs it runs. Handed on to another cargo these make the
/// dependencies that look at them seem changed, and a cached build a cold one.
fn set_by_cargo(key: &str) -> bool {
    const PREFIXES: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_", "CARGO_CRATE_"];
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || matches!(key, "CARGO_BIN_NAME" | "CARGO_PRIMARY_PACKAGE" | "CARGO_TARGET_TMPDIR")
}

/// A command of the cargo that runs this, in the workspace, as a person would have typed it.
#[must_use]
pub fn cargo_command() -> Spawn {
    let inherited = env::vars_os().filter_map(|(key, _)| key.into_string().ok());
    inherited
        .filter(|key| set_by_cargo(key))
        .fold(Spawn::new(cargo()).current_dir(workspace_root()), Spawn::env_remove)
}

/// `spawn` with what Python needs to find the sidecar SDK and the examples. A workspace whose path
/// holds a colon cannot be put on a search path.
#[must_use]
pub fn with_python(spawn: Spawn) -> Spawn {
    let python = ["python/examples", "python"].map(|dir| workspace_root().join(dir));
    match env::join_paths(python) {
        Ok(path) => spawn.env("PYTHONPATH", path),
        Err(_) => spawn,
    }
}

/// A cargo profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `dev`.
    Dev,
    /// `release`.
    Release,
}

impl Profile {
    /// The profile of this harness itself.
    #[must_use]
    pub const fn own() -> Self {
        if cfg!(debug_assertions) { Self::Dev } else { Self::Release }
    }
}

/// The variable by which the program that [`build_faulty`] gives is told its faults.
pub const FAULTS: &str = "ROLLOUT_FAULTS";

/// What cargo built.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The program `rollout`.
    pub rollout: PathBuf,
    /// The sample library.
    pub cdylib: PathBuf,
}

/// Why a build gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo could not be started.
    #[error("cargo cannot be run; install it from https://rustup.rs")]
    Spawn(#[from] SpawnError),
    /// Cargo ran and failed.
    #[error("`cargo {command}` {exit}:\n{output}")]
    Failed {
        /// Its arguments.
        command: String,
        /// How it ended.
        exit: Exit,
        /// The last it wrote to standard error.
        output: String,
    },
    /// Cargo succeeded and named no such file.
    #[error("`cargo {command}` built no {what}; is the target renamed?")]
    Missing {
        /// Its arguments.
        command: String,
        /// What was to be built.
        what: &'static str,
    },
    /// Someone asked the harness to stop.
    #[error("stopped by {0}")]
    Interrupted(Signal),
}

/// Builds the program and the sample library with `profile`; `on_line` hears what cargo has to say
/// meanwhile.
///
/// # Errors
/// When cargo fails, or the interrupt comes.
pub fn build(
    profile: Profile,
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(&str),
) -> Result<Binaries, BuildError> {
    let rollout = program(profile, interrupt, on_line)?;
    let release = release(profile);
    let manifest = workspace_root().join("plugins/rust_cdylib_sample/Cargo.toml");
    let target = workspace_root().join("target/plugins");
    let (manifest, target) = (manifest.to_string_lossy(), target.to_string_lossy());
    let library = ["--manifest-path", &*manifest, "--target-dir", &*target];
    let cdylib = build_one(&[&library, release].concat(), Artifact::Library, interrupt, on_line)?;
    Ok(Binaries { rollout, cdylib })
}

/// Builds the program alone; see [`build`].
///
/// # Errors
/// When cargo fails, or the interrupt comes.
pub fn program(
    profile: Profile,
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let program = ["--package", "rollout-cli", "--bin", "rollout"];
    let args = [&program, release(profile)].concat();
    build_one(&args, Artifact::Program, interrupt, on_line)
}

/// What `cargo build` is given for a profile.
const fn release(profile: Profile) -> &'static [&'static str] {
    match profile {
        Profile::Dev => &[],
        Profile::Release => &["--release"],
    }
}

/// What an example is built as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Example {
    /// A program.
    Program,
    /// A dynamic library.
    Library,
}

/// Builds the example `name` of `package`; see [`build`].
///
/// # Errors
/// When cargo fails, or the interrupt comes.
pub fn example(
    kind: Example,
    (package, name): (&str, &str),
    profile: Profile,
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let example = ["--package", package, "--example", name];
    let args = [&example, release(profile)].concat();
    build_one(&args, Artifact::Example(kind), interrupt, on_line)
}

/// Builds the program with the feature `faults`, beside the normal build: into `target/faults`, where
/// it is never taken for the one that ships. It reads the faults of a process from the TOML file that
/// [`FAULTS`] names.
///
/// # Errors
/// As for [`build`].
pub fn build_faulty(
    profile: Profile,
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let target = workspace_root().join("target/faults");
    let target = target.to_string_lossy();
    let program = ["--package", "rollout-cli", "--bin", "rollout"];
    let faults = ["--features", "faults", "--target-dir", &*target];
    let args = [&program[..], &faults, release(profile)].concat();
    build_one(&args, Artifact::Program, interrupt, on_line)
}

/// What is looked for in cargo's messages.
#[derive(Debug, Clone, Copy)]
enum Artifact {
    /// `rollout`.
    Program,
    /// A library that can be loaded.
    Library,
    /// An example.
    Example(Example),
}

impl Artifact {
    const fn what(self) -> &'static str {
        match self {
            Self::Program => "program `rollout`",
            Self::Example(Example::Program) => "program",
            Self::Library | Self::Example(Example::Library) => "dynamic library",
        }
    }

    /// The file, if the message names it.
    fn of(self, message: Message) -> Option<PathBuf> {
        match self {
            Self::Program => {
                let message = message.built("bin")?;
                let rollout = message.target.is_some_and(|target| target.name == "rollout");
                message.executable.filter(|_| rollout)
            }
            Self::Library => message.built("cdylib")?.library(),
            Self::Example(Example::Program) => message.built("example")?.executable,
            Self::Example(Example::Library) => message.built("example")?.library(),
        }
    }
}

/// The part of a message of cargo that says where an artifact lies.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Message {
    /// This message, if it is of a target of this kind that was built.
    fn built(self, kind: &str) -> Option<Self> {
        let target = self.target.as_ref().filter(|_| self.reason == "compiler-artifact")?;
        target.kind.iter().any(|of| of == kind).then_some(self)
    }

    /// The dynamic library among its files.
    fn library(self) -> Option<PathBuf> {
        self.filenames.into_iter().find(|file| {
            file.extension().is_some_and(|extension| extension == env::consts::DLL_EXTENSION)
        })
    }
}

fn build_one(
    args: &[&str],
    artifact: Artifact,
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let build = ["build", "--locked", "--message-format=json-render-diagnostics"];
    let command = [&build, args].concat();
    let mut found = None;
    let (exit, output) = run_cargo(&command, interrupt, &mut |stream, line| match stream {
        Stream::Stdout => {
            let message = serde_json::from_str::<Message>(line).ok();
            found = message.and_then(|message| artifact.of(message)).or_else(|| found.take());
        }
        Stream::Stderr => on_line(line),
    })?;
    let command = command.join(" ");
    if !exit.success() {
        let output = output.lines().filter(|line| !is_status(line)).collect::<Vec<_>>().join("\n");
        return Err(BuildError::Failed { command, exit, output });
    }
    found.ok_or(BuildError::Missing { command, what: artifact.what() })
}

/// Whether a line only says what cargo is busy with.
fn is_status(line: &str) -> bool {
    let busy = ["Compiling ", "Downloading ", "Downloaded ", "Blocking ", "Updating "];
    busy.iter().any(|word| line.trim_start().starts_with(word))
}

/// Runs cargo, hands its lines on as they come, and gives its exit and the end of its standard
/// error. The queue between is bounded: a full one makes cargo wait.
fn run_cargo(
    args: &[&str],
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(Stream, &str),
) -> Result<(Exit, String), BuildError> {
    let (lines, queue) = sync_channel(256);
    let (ended, end) = sync_channel(1);
    let config = WatchConfig { max_line: 1 << 22, tail_lines: 60 };
    let cargo = cargo_command().args(args).stdout(Io::Pipe).stderr(Io::Pipe).spawn()?.watch(
        config,
        move |stream, line| drop(lines.send((stream, line.to_owned()))),
        move |exit, tail| drop(ended.send((exit, tail))),
    )?;
    follow(&cargo, &queue, interrupt, on_line)?;
    Ok(end.recv().unwrap_or_else(|_| (cargo.wait(), String::new())))
}

/// Hands lines on until there are no more.
fn follow(
    cargo: &Watched,
    queue: &Receiver<(Stream, String)>,
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(Stream, &str),
) -> Result<(), BuildError> {
    loop {
        if let Some(signal) = interrupt.requested() {
            cargo.handle().signal(Signal::SIGTERM);
            // Its lines have to flow for it to end.
            while queue.recv().is_ok() {}
            cargo.stop(Ladder { grace: Duration::from_secs(2) });
            return Err(BuildError::Interrupted(signal));
        }
        match queue.recv_timeout(Duration::from_millis(50)) {
            Ok((stream, line)) => on_line(stream, &line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, name: &str, executable: &str) -> Message {
        let line = format!(
            "{{\"reason\":\"compiler-artifact\",\"target\":{{\"kind\":[\"{kind}\"],\
             \"name\":\"{name}\"}},\"executable\":{executable},\
             \"filenames\":[\"/t/x.rlib\",\"/t/lib{name}.{}\"],\"fresh\":true}}",
            env::consts::DLL_EXTENSION
        );
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn the_paths_are_those_that_cargo_names_and_no_others() {
        let (program, library) = (Artifact::Program, Artifact::Library);
        let [runs, loads] = [Example::Program, Example::Library].map(Artifact::Example);
        let rollout = || message("bin", "rollout", "\"/t/rollout\"");
        assert_eq!(program.of(rollout()), Some("/t/rollout".into()));
        assert_eq!(program.of(message("bin", "xtask", "\"/t/xtask\"")), None);
        assert_eq!(program.of(message("lib", "rollout", "null")), None);
        let found = library.of(message("cdylib", "sample", "null")).unwrap();
        assert_eq!(found, Path::new("/t/libsample").with_extension(env::consts::DLL_EXTENSION));
        assert_eq!(library.of(message("lib", "sample", "null")), None);
        assert_eq!(loads.of(message("example", "sample", "null")), Some(found));
        assert_eq!(loads.of(message("cdylib", "sample", "null")), None);
        let simulate = message("example", "simulate", "\"/t/simulate\"");
        assert_eq!(runs.of(simulate), Some("/t/simulate".into()));
        assert_eq!(runs.of(rollout()), None);
        let finished = r#"{"reason":"build-finished","success":true}"#;
        assert_eq!(program.of(serde_json::from_str(finished).unwrap()), None);
    }

    #[test]
    fn the_workspace_root_holds_the_lock_file() {
        assert!(workspace_root().join("Cargo.lock").is_file());
    }

    #[test]
    fn a_failing_cargo_shows_what_it_said() {
        let args = ["--no-such-option"];
        let error = build_one(&args, Artifact::Program, &Interrupt::default(), &mut |_| {});
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("--no-such-option") && text.contains("unexpected argument"),
            "{text}"
        );
    }
}
