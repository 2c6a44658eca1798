//! A library's own thread: loads it, then answers one call after the other. All of the plugin's code
//! runs here, so that whatever it does it can only stop its own calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use rollout_core::{Clock, SystemClock};
use tokio::sync::oneshot;

use super::instance::Instance;
use super::load::Loaded;
use super::{Command, Job, Ready, Running, Setup};
use crate::breaker::Breaker;
use crate::call::{Failed, Reply};
use crate::error::{Cause, Executed};
use crate::event::HostEvent;

/// The thread's whole life. It ends when told to, or when nobody can call it any more.
pub(super) fn run(
    setup: &Setup,
    ready: oneshot::Sender<Result<Ready, Cause>>,
    commands: &Receiver<Command>,
) {
    let mut executor = match Executor::new(setup) {
        Ok((executor, told)) => {
            if ready.send(Ok(told)).is_err() {
                return;
            }
            executor
        }
        Err(cause) => {
            let _ = ready.send(Err(cause));
            return;
        }
    };
    for command in commands {
        match command {
            Command::Call(job) => executor.answer(job),
            Command::Stop { deadline, done } => {
                let ended =
                    executor.instance.map_or(Ok(()), |instance| instance.shutdown(deadline));
                let _ = done.send(ended);
                return;
            }
        }
    }
}

struct Executor<'a> {
    setup: &'a Setup,
    loaded: Loaded,
    calls: u64,
    breaker: Breaker,
    /// None after a panic, until it is made anew.
    instance: Option<Instance>,
}

impl<'a> Executor<'a> {
    fn new(setup: &'a Setup) -> Result<(Self, Ready), Cause> {
        let loaded = Loaded::open(&setup.entry, &setup.private_dir)?;
        loaded.confirmed.check(&setup.manifest)?;
        let ready =
            Ready { methods: loaded.confirmed.methods.clone(), digest: loaded.digest.clone() };
        let instance = Some(instantiate(setup, &loaded)?);
        let breaker = Breaker::new(setup.manifest.restart.clone());
        Ok((Self { setup, loaded, calls: 0, breaker, instance }, ready))
    }

    fn answer(&mut self, job: Job) {
        let shared = &self.setup.shared;
        if shared.stopping.load(Ordering::Acquire) {
            let closed = Cause::Closed { message: "it was shut down" };
            let _ = job.reply.send(Err(Failed::new(closed, Executed::No)));
            return;
        }
        if !job.ticket.begin() {
            return;
        }
        shared.set_running(Some(Running {
            method: job.call.method.clone(),
            deadline: job.deadline,
            ticket: Arc::clone(&job.ticket),
            reported: false,
        }));
        let done = self.execute(&job);
        self.setup.shared.set_running(None);
        let Job { reply, place, .. } = job;
        // First, so that whoever has the answer may call again.
        drop(place);
        // Nobody may wait for it any more.
        let _ = reply.send(done);
    }

    fn execute(&mut self, job: &Job) -> Result<Reply, Failed> {
        let no = |cause| Failed::new(cause, Executed::No);
        if !self.breaker.is_closed() {
            let admitted = self.breaker.admit(SystemClock.now());
            admitted.map_err(|until| no(Cause::breaker_open(until)))?;
        }
        self.calls += 1;
        let (calls, limits) = (self.calls, &self.setup.shared.limits);
        let done = self.instance().map_err(no)?.call(calls, job, limits);
        if let Err(Failed { cause: Cause::Panicked { .. }, .. }) = done {
            // The old one goes first: the two never live at the same time.
            self.instance = None;
            self.crashed();
            // If that fails the next call tries again, and says why not.
            self.instance = instantiate(self.setup, &self.loaded).ok();
        } else {
            self.breaker.answered();
        }
        done
    }

    /// The instance to call, made anew if need be.
    fn instance(&mut self) -> Result<&mut Instance, Cause> {
        if self.instance.is_none() {
            let made = instantiate(self.setup, &self.loaded).map_err(|cause| {
                let message = format!("it panicked and could not be made anew: {cause}");
                Cause::Crashed { message, exited: None }
            });
            self.instance = Some(made.inspect_err(|_| self.crashed())?);
        }
        self.instance.as_mut().ok_or_else(super::gone)
    }

    fn crashed(&mut self) {
        let now = SystemClock.now();
        if let Some(until) = self.breaker.crashed(now) {
            let plugin = Arc::clone(&self.setup.shared.name);
            let event = HostEvent::BreakerOpened { plugin, wait: until.since(now) };
            (self.setup.shared.on_event)(event);
        }
    }
}

fn instantiate(setup: &Setup, loaded: &Loaded) -> Result<Instance, Cause> {
    let config = serde_json::Value::Object(setup.manifest.config.clone()).to_string();
    Instance::create(loaded.functions, &config, &setup.shared.name, &setup.shared.on_event)
}
