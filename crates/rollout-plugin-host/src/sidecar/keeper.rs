//! The task that keeps a sidecar going: does what the supervisor says, and tells callers.

use std::sync::Arc;

use rollout_core::duration::as_ms;
use rollout_core::event::PluginRestarted;
use rollout_core::{Clock, Mono, SystemClock};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Phase;
use super::link::Link;
use super::start::Starting;
use crate::call::Method;
use crate::event::{HostConfig, HostEvent};
use crate::manifest::{Manifest, SidecarEntry};
use crate::supervisor::{Input, State, Supervisor};

/// What the task owns.
pub(super) struct Keeper {
    entry: SidecarEntry,
    manifest: Manifest,
    host: HostConfig,
    methods: Vec<Method>,
    supervisor: Supervisor,
    phase: watch::Sender<Phase>,
    stop: watch::Receiver<bool>,
}

impl Keeper {
    pub(super) fn new(
        entry: SidecarEntry,
        manifest: &Manifest,
        host: &HostConfig,
        methods: &[Method],
        phase: watch::Sender<Phase>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            entry,
            manifest: manifest.clone(),
            host: host.clone(),
            methods: methods.to_vec(),
            supervisor: Supervisor::ready(manifest.restart.clone()),
            phase,
            stop,
        }
    }

    /// The task's whole life; when it ends, nothing of the sidecar is left.
    pub(super) async fn run(mut self, first: Link) {
        let mut link = Some(first);
        while let Some(running) = link {
            let answered = running.run(self.stop.clone()).await;
            let down = SystemClock.now();
            self.ended(answered);
            link = self.next(down).await;
        }
        self.phase.send_replace(Phase::Closed);
    }

    /// The next process, as soon as there is one; none once the worker has asked it to end.
    async fn next(&mut self, down: Mono) -> Option<Link> {
        loop {
            match self.supervisor.state() {
                State::Backoff { until } | State::Open { until } => self.pause(until).await,
                State::Starting => {
                    if let Some(link) = self.start(down).await {
                        return Some(link);
                    }
                }
                State::Ready | State::Draining => return None,
            }
        }
    }

    async fn pause(&mut self, until: Mono) {
        let input = tokio::select! {
            biased;
            () = asked(&mut self.stop) => Input::Stop,
            () = sleep(until.since(SystemClock.now())) => Input::Due,
        };
        self.supervisor.on(SystemClock.now(), input);
    }

    async fn start(&mut self, down: Mono) -> Option<Link> {
        let trial = self.supervisor.on_trial();
        let deadline = Instant::now() + self.manifest.limits.start_timeout;
        // Not cut short, so that after a shutdown there is no process that nobody waited for.
        let launched = Starting::launch(&self.entry, &self.manifest, &self.host).await;
        let started = match launched {
            Err(cause) => Some(Err(cause)),
            Ok(starting) => tokio::select! {
                biased;
                () = asked(&mut self.stop) => None,
                started = starting.ready(&self.methods, deadline, trial) => Some(started),
            },
        };
        match started {
            None => self.supervisor.on(SystemClock.now(), Input::Stop),
            Some(Err(cause)) => {
                let plugin = self.manifest.name.as_str().into();
                let error = cause.at(&self.manifest.name);
                (self.host.on_event)(HostEvent::NotRestarted { plugin, error: Arc::new(error) });
                self.ended(false);
            }
            Some(Ok((process, link, _))) => {
                let now = SystemClock.now();
                self.supervisor.on(now, Input::Ready);
                (self.host.on_event)(HostEvent::Restarted(PluginRestarted {
                    name: self.manifest.name.clone(),
                    crashes: self.supervisor.crashes() as u64,
                    down_ms: as_ms(now.since(down)),
                }));
                self.phase.send_replace(Phase::Ready(Arc::new(process)));
                return Some(link);
            }
        }
        None
    }

    /// The process ended, or did not become ready.
    fn ended(&mut self, answered: bool) {
        let now = SystemClock.now();
        let asked = *self.stop.borrow();
        let unasked = Input::Ended { answered, jitter: rand::random() };
        let input = if asked { Input::Stop } else { unasked };
        self.supervisor.on(now, input);
        match self.supervisor.state() {
            State::Open { until } => {
                self.phase.send_replace(Phase::Open { until });
                let plugin = self.manifest.name.as_str().into();
                (self.host.on_event)(HostEvent::BreakerOpened { plugin, wait: until.since(now) });
            }
            State::Backoff { .. } => drop(self.phase.send_replace(Phase::Restarting)),
            State::Starting | State::Ready | State::Draining => {}
        }
    }
}

/// Waits until the worker asks for the end. An error means that nobody can call any more.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
