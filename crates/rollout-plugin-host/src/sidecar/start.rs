//! Starting a sidecar: socket, process, handshake, and whatever ends that early.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollout_process::{Io, Resource, Spawn, SpawnError, WatchConfig};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::calls::QUEUED;
use super::frame::{Frame, FrameError};
use super::halves::split;
use super::link::{LAST_BREATH, LAST_WORDS, Link};
use super::process::{Child, Process, Shared, encode};
use super::python;
use super::socket::Socket;
use super::wire::{FromPlugin, HelloLimits, PROTO, Ready, ToPlugin};
use crate::call::{Confirmed, MaxFrame, Method};
use crate::error::{Cause, Exited};
use crate::event::{HostConfig, HostEvent, OnEvent};
use crate::inbox::WINDOW;
use crate::manifest::{Limits, Manifest, SidecarEntry};

/// A sidecar's output is read by the line, and this much of a line is kept.
const WATCH: WatchConfig = WatchConfig { max_line: 8 * 1024, tail_lines: 20 };

/// A process that was started and is not ready yet. Dropping it ends it.
pub(super) struct Starting<'a> {
    manifest: &'a Manifest,
    host: &'a HostConfig,
    name: Arc<str>,
    socket: Socket,
    token: String,
    child: Child,
}

impl<'a> Starting<'a> {
    /// Starts the process, which takes no time worth a deadline. If this is dropped before it is done
    /// there may be a process for a moment longer.
    pub(super) async fn launch(
        entry: &SidecarEntry,
        manifest: &'a Manifest,
        host: &'a HostConfig,
    ) -> Result<Self, Cause> {
        let name: Arc<str> = manifest.name.as_str().into();
        let (socket, token) =
            (listen(&host.sidecar_dir)?, format!("{:032x}", rand::random::<u128>()));
        let launch = Launch {
            entry: entry.clone(),
            environment: environment(entry, socket.path(), &token),
            name: Arc::clone(&name),
            on_event: Arc::clone(&host.on_event),
            limits: manifest.limits.clone(),
        };
        let started = spawn_blocking(move || launch.child()).await;
        let child = started.map_err(|error| cannot("its thread failed", error))??;
        Ok(Self { manifest, host, name, socket, token, child })
    }

    /// Waits until the process is ready and has all the methods that callers know of. When this fails,
    /// nothing of it is left.
    pub(super) async fn ready(
        self,
        known: &[Method],
        deadline: Instant,
        trial: bool,
    ) -> Result<(Process, Link, Vec<Method>), Cause> {
        let Self { manifest, host, name, socket, token, mut child } = self;
        let limit = manifest.limits.start_timeout;
        let shaken = {
            let mut shake = pin!(handshake(socket, &token, manifest, &name, &host.on_event));
            tokio::select! {
                biased;
                shaken = &mut shake => shaken,
                exited = child.exited() => match timeout(LAST_WORDS, shake).await {
                    Ok(Err(said @ (Cause::Refused { .. } | Cause::AbiMismatch { .. }))) => Err(said),
                    _ => Err(Cause::Exited(exited)),
                },
                () = sleep_until(deadline) => Err(Cause::Timeout { limit, stderr_tail: None }),
            }
        };
        let shaken = shaken.and_then(|(stream, ready)| {
            has_all(known, &ready)?;
            let halves = split(stream).map_err(|error| cannot("its socket failed", error))?;
            Ok((halves, ready))
        });
        let (halves, ready) = match shaken {
            Ok(shaken) => shaken,
            Err(cause) => return Err(give_up(child, cause).await),
        };
        let limits = manifest.limits.clone();
        let places = limits.max_in_flight.min(ready.max_in_flight.unwrap_or(usize::MAX)).max(1);
        let frames = limits.frame().or_the_plugins(ready.max_frame);
        let takes = (places, frames);
        let shared = Arc::new(Shared::new(name, limits, &host.on_event, takes, trial));
        // More never wait: those of each place, a pong and the shutdown.
        let (outgoing, queue) = mpsc::channel(QUEUED * places + 2);
        let process = Process { shared: Arc::clone(&shared), outgoing: outgoing.clone() };
        Ok((process, Link { shared, child, halves, outgoing, queue }, ready.methods))
    }
}

/// The entry with its program as it will be started, found once for all the processes to come.
pub(super) async fn resolve(entry: &SidecarEntry, limit: Duration) -> Result<SidecarEntry, Cause> {
    let mut entry = entry.clone();
    let resolving = spawn_blocking(move || {
        let environment = inherited(&entry);
        let path = environment.get(&OsString::from("PATH"));
        let path = path.map_or_else(String::new, |path| path.to_string_lossy().into_owned());
        let SidecarEntry { command, cwd, .. } = &mut entry;
        if let Some(program) = command.first_mut() {
            let prepared = |spawn| prepared(spawn, cwd, &environment);
            let found = python::resolve(program, &path, cwd, limit, prepared)?;
            *program = found.to_string_lossy().into_owned();
        }
        Ok(entry)
    });
    resolving.await.map_err(|error| cannot("its thread failed", error))?
}

fn prepared(spawn: Spawn, cwd: &Path, environment: &BTreeMap<OsString, OsString>) -> Spawn {
    let spawn = spawn.env_clear().current_dir(cwd);
    environment.iter().fold(spawn, |spawn, (key, value)| spawn.env(key, value))
}

fn listen(dir: &Path) -> Result<Socket, Cause> {
    Socket::listen(dir)
        .map_err(|error| cannot(&format!("no socket can be made in {}", dir.display()), error))
}

fn cannot(doing: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Cause {
    Cause::Spawn { doing: doing.to_owned(), source: source.into() }
}

/// All that the sidecar inherits, and what its manifest sets.
fn inherited(entry: &SidecarEntry) -> BTreeMap<OsString, OsString> {
    let passed = ["PATH", "HOME"].into_iter().chain(entry.env_allow.iter().map(String::as_str));
    let passed = passed.filter_map(|key| Some((key.into(), std::env::var_os(key)?)));
    let set = entry.env.iter().map(|(key, value)| (key.into(), value.into()));
    passed.chain(set).collect()
}

/// That, and what it is told.
fn environment(entry: &SidecarEntry, socket: &Path, token: &str) -> BTreeMap<OsString, OsString> {
    let mut environment = inherited(entry);
    environment.insert("ROLLOUT_PLUGIN_SOCKET".into(), socket.into());
    environment.insert("ROLLOUT_PLUGIN_TOKEN".into(), token.into());
    environment
}

/// What it takes to start the process, off the async threads.
struct Launch {
    entry: SidecarEntry,
    environment: BTreeMap<OsString, OsString>,
    name: Arc<str>,
    on_event: OnEvent,
    limits: Limits,
}

impl Launch {
    fn child(self) -> Result<Child, Cause> {
        let SidecarEntry { command, cwd, .. } = &self.entry;
        let (program, arguments) = command.split_first().map_or(("", &[][..]), |(p, a)| (p, a));
        let spawn = prepared(Spawn::new(program).args(arguments), cwd, &self.environment);
        let mut spawn = spawn.stdin(Io::Null).stdout(Io::Pipe).stderr(Io::Pipe);
        // Not the address space: threads reserve far more of that than they use.
        let most = |limit: usize| u64::try_from(limit).unwrap_or(u64::MAX);
        if let Some(memory) = self.limits.memory {
            spawn = spawn.limit(Resource::RLIMIT_DATA, most(memory));
        }
        if let Some(open_files) = self.limits.open_files {
            spawn = spawn.limit(Resource::RLIMIT_NOFILE, most(open_files));
        }
        self.watch(spawn).map_err(|error| cannot("the process does not start", error))
    }

    fn watch(&self, spawn: Spawn) -> Result<Child, SpawnError> {
        let (plugin, on_event) = (Arc::clone(&self.name), Arc::clone(&self.on_event));
        let on_line = move |stream, line: &str| {
            on_event(HostEvent::Output { plugin: Arc::clone(&plugin), stream, line: line.into() });
        };
        let (tell, exit) = watch::channel(None);
        let on_exit = move |exit: rollout_process::Exit, stderr_tail| {
            tell.send_replace(Some(Exited { code: exit.code, signal: exit.signal, stderr_tail }));
        };
        Ok(Child { watched: spawn.spawn()?.watch(WATCH, on_line, on_exit)?, exit })
    }
}

/// Greets the first peer and waits for its answer; log records may come before it.
async fn handshake(
    socket: Socket,
    token: &str,
    manifest: &Manifest,
    name: &Arc<str>,
    on_event: &OnEvent,
) -> Result<(UnixStream, Ready), Cause> {
    let limits = &manifest.limits;
    let hello = ToPlugin::Hello {
        proto: [PROTO, PROTO],
        plugin: &manifest.name,
        config: &manifest.config,
        limits: HelloLimits {
            max_frame: limits.max_frame,
            max_in_flight: limits.max_in_flight,
            part_window: WINDOW,
        },
    };
    let hello = encode(&hello, Bytes::new())?;
    let mut stream = socket.accept().await.map_err(|error| cannot("its socket failed", error))?;
    hello.write(&mut stream).await.map_err(|_| HUNG_UP)?;
    loop {
        let frame =
            Frame::read(&mut stream, limits.max_frame).await.map_err(|error| match error {
                FrameError::TooLarge(got) => limits.frame().exceeded("the answer", got),
                FrameError::Io(_) => HUNG_UP,
            })?;
        let frame = frame.ok_or(HUNG_UP)?;
        match FromPlugin::parse(&frame.json).map_err(|message| Cause::Malformed { message })? {
            FromPlugin::Ready(ready) => {
                return check(ready, token, manifest).map(|it| (stream, it));
            }
            FromPlugin::Refuse { message } => return Err(Cause::Refused { message }),
            FromPlugin::Log(record) => on_event(record.event(name)),
            FromPlugin::Pong => {}
            _ => {
                let message = "an answer before it was ready".into();
                return Err(Cause::Malformed { message });
            }
        }
    }
}

const HUNG_UP: Cause = Cause::Closed { message: "it closed its socket before it was ready" };

fn check(ready: Ready, token: &str, manifest: &Manifest) -> Result<Ready, Cause> {
    if ready.token != token {
        let message = "it did not echo ROLLOUT_PLUGIN_TOKEN: another process has connected".into();
        return Err(Cause::Refused { message });
    }
    if ready.proto != PROTO {
        return Err(Cause::AbiMismatch {
            have: format!("{} of the wire", ready.proto),
            want: PROTO.to_string(),
        });
    }
    let Ready { name, version, methods, max_frame, .. } = &ready;
    if let Some(bytes) = max_frame.filter(|bytes| *bytes < MaxFrame::LEAST) {
        let least = MaxFrame::LEAST;
        let message = format!("its max_frame ({bytes} bytes) is less than {least} bytes");
        return Err(Cause::Malformed { message });
    }
    Confirmed { name: name.clone(), version: version.clone(), methods: methods.clone() }
        .check(manifest)?;
    Ok(ready)
}

fn has_all(known: &[Method], ready: &Ready) -> Result<(), Cause> {
    let missing = known.iter().find(|one| ready.methods.iter().all(|has| has.name != one.name));
    missing.map_or(Ok(()), |method| {
        let message = format!("it no longer has the method `{}`", method.name);
        Err(Cause::Refused { message })
    })
}

/// Ends a sidecar that did not become ready, and adds its own words to the reason.
async fn give_up(mut child: Child, cause: Cause) -> Cause {
    if let Cause::Closed { .. } = cause {
        // The process is likely to be ending, and its end says more.
        if let Some(exited) = child.exited_within(LAST_BREATH).await {
            return Cause::Exited(exited);
        }
    }
    child.handle().kill();
    let exited = child.exited().await;
    match cause {
        Cause::Timeout { limit, .. } => {
            Cause::Timeout { limit, stderr_tail: Some(exited.stderr_tail) }
        }
        cause => cause,
    }
}
