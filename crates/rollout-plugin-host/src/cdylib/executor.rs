//! A library's own thread: loads it, then answers one call after the other. All of the plugin's code
//! runs here, so that whatever it does it can only stop its own calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

use super::instance::Instance;
use super::load::Loaded;
use super::{Command, Job, Ready, Running, Setup};
use crate::error::{Cause, Executed};
use crate::plugin::{Failed, Reply};

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
                let ended = executor.instance.and_then(|instance| instance.shutdown(deadline));
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
    /// An error is what kept it from being made anew after a panic.
    instance: Result<Instance, Cause>,
}

impl<'a> Executor<'a> {
    fn new(setup: &'a Setup) -> Result<(Self, Ready), Cause> {
        let loaded = Loaded::open(&setup.entry, &setup.private_dir)?;
        loaded.confirmed.check(&setup.manifest)?;
        let ready =
            Ready { methods: loaded.confirmed.methods.clone(), digest: loaded.digest.clone() };
        let instance = Ok(instantiate(setup, &loaded)?);
        Ok((Self { setup, loaded, calls: 0, instance }, ready))
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
        // Nobody may wait for it any more.
        let _ = job.reply.send(done);
    }

    fn execute(&mut self, job: &Job) -> Result<Reply, Failed> {
        self.calls += 1;
        let instance = match &mut self.instance {
            Ok(instance) => instance,
            Err(cause) => {
                let message = format!("it panicked and could not be made anew: {cause}");
                return Err(Failed::new(Cause::Crashed { message, exited: None }, Executed::No));
            }
        };
        let done = instance.call(self.calls, job, &self.setup.shared.limits);
        if let Err(Failed { cause: Cause::Panicked { .. }, .. }) = done {
            // The old one goes first: the two never live at the same time.
            self.instance = Err(Cause::Closed { message: "it is being made anew" });
            self.instance = instantiate(self.setup, &self.loaded);
        }
        done
    }
}

fn instantiate(setup: &Setup, loaded: &Loaded) -> Result<Instance, Cause> {
    let config = serde_json::Value::Object(setup.manifest.config.clone()).to_string();
    Instance::create(loaded.functions, &config, &setup.shared.name, &setup.shared.on_event)
}
