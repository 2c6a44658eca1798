//! The run's line to the coordinator: it submits the job, follows it, and comes back for as long as
//! the job lives.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use rollout_core::{JobId, JobSpec};
use rollout_transport::work::{Blob, Committed, Final, Followed, Standing, Status, Submitted};
use rollout_transport::{CallError, ConnectError, Remote, Tls, WireError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::run::dir::sync_dir;
use crate::run::error::RunError;
use crate::run::params;

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Steps that wait for the run; then nothing more is read.
const QUEUE: usize = 4;
/// Pieces of parameters that wait to be sent.
const PIECES: usize = 16;
const LEAST_WAIT: Duration = Duration::from_millis(50);
const MOST_WAIT: Duration = Duration::from_secs(1);

/// What a run hears of its job.
#[derive(Debug)]
pub(crate) enum Step {
    /// The coordinator has the job.
    Joined {
        /// It had it before.
        resumed: bool,
        standing: Standing,
        /// The coordinator's term, if it tells.
        term: Option<u64>,
    },
    /// The coordinator is not there at the moment.
    Away(String),
    Line(Followed),
    /// There is no use in trying again.
    Failed(RunError),
}

/// What is submitted.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) spec: JobSpec,
    pub(crate) params: Option<PathBuf>,
    /// Where large results go.
    pub(crate) blobs: PathBuf,
}

/// The line. Dropping it lets the coordinator go.
pub(crate) struct Client {
    pub(crate) steps: mpsc::Receiver<Step>,
    paused: watch::Sender<bool>,
    address: watch::Sender<Option<String>>,
    tls: Tls,
    job: JobId,
    task: JoinSet<()>,
}

impl Client {
    /// Follows the job from the commit after `after`. A coordinator that was never reached within
    /// `patience` is given up; one that was, never.
    pub(crate) fn start(
        address: Option<String>,
        tls: Tls,
        job: Job,
        after: u64,
        patience: Option<Duration>,
    ) -> Self {
        let (outbox, steps) = mpsc::channel(QUEUE);
        let (paused, wanted) = watch::channel(false);
        let (address, addresses) = watch::channel(address);
        let id = job.id;
        let courier = Courier {
            addresses,
            tls: tls.clone(),
            job,
            after,
            wanted,
            outbox,
            patience,
            accepted: false,
            joined: false,
        };
        let mut task = JoinSet::new();
        task.spawn(courier.run());
        Self { steps, paused, address, tls, job: id, task }
    }

    /// The coordinator listens here.
    pub(crate) fn listens(&self, address: String) {
        self.address.send_replace(Some(address));
    }

    /// Nothing more is to be granted.
    pub(crate) fn pause(&self) {
        self.paused.send_replace(true);
    }

    async fn remote(&self) -> Result<Remote, RunError> {
        let address = self.address.borrow().clone().unwrap_or_default();
        Ok(Remote::open(&address, &self.tls, CONNECT).await?)
    }

    /// How the coordinator's workers and jobs stand.
    pub(crate) async fn status(&self) -> Result<Status, RunError> {
        Ok(self.remote().await?.status().await?)
    }

    /// Pauses the job before everything ends.
    pub(crate) async fn pause_now(&self) -> Result<(), RunError> {
        self.remote().await?.pause(self.job).await?;
        Ok(())
    }

    /// Pauses the job that nobody follows from here on, whether it was heard of before or not.
    pub(crate) async fn pause_last(&mut self) -> Result<(), RunError> {
        // What is under way is cut off, lest it lets the job run afterwards.
        self.task.shutdown().await;
        self.pause_now().await
    }

    /// Removes the job, whose results are all here, from the coordinator.
    pub(crate) async fn remove(&self) -> Result<(), RunError> {
        match self.remote().await?.cancel(self.job).await {
            Ok(_) | Err(CallError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Why a connection is over.
enum Over {
    /// To be tried again.
    Lost(String),
    Unreached(ConnectError),
    Final(RunError),
    /// Every batch has come, or nobody listens any more.
    Done,
}

impl From<CallError> for Over {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Lost { why } => Self::Lost(why),
            error => Self::Final(error.into()),
        }
    }
}

impl From<WireError> for Over {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Lost(_) | WireError::Truncated => Self::Lost(error.to_string()),
            error => Self::Final(CallError::Protocol { why: error.to_string() }.into()),
        }
    }
}

impl From<RunError> for Over {
    fn from(error: RunError) -> Self {
        Self::Final(error)
    }
}

struct Courier {
    addresses: watch::Receiver<Option<String>>,
    tls: Tls,
    job: Job,
    after: u64,
    wanted: watch::Receiver<bool>,
    outbox: mpsc::Sender<Step>,
    patience: Option<Duration>,
    /// The coordinator has the job.
    accepted: bool,
    /// This connection has got so far.
    joined: bool,
}

impl Courier {
    async fn run(mut self) {
        let began = Instant::now();
        let mut wait = LEAST_WAIT;
        loop {
            let Some(address) = self.address().await else { return };
            self.joined = false;
            let step = match self.connection(&address).await {
                Err(Over::Done) | Ok(()) => return,
                Err(Over::Final(error)) => Step::Failed(error),
                Err(Over::Unreached(error @ ConnectError::Refused { .. })) => {
                    Step::Failed(error.into())
                }
                Err(Over::Unreached(error))
                    if !self.accepted && self.patience.is_some_and(|p| began.elapsed() >= p) =>
                {
                    Step::Failed(error.into())
                }
                Err(Over::Unreached(error)) => Step::Away(error.to_string()),
                Err(Over::Lost(why)) => Step::Away(why),
            };
            let failed = matches!(step, Step::Failed(_));
            if self.outbox.send(step).await.is_err() || failed {
                return;
            }
            wait = if self.joined { LEAST_WAIT } else { (wait * 2).min(MOST_WAIT) };
            sleep(wait).await;
        }
    }

    async fn address(&mut self) -> Option<String> {
        self.addresses.wait_for(Option::is_some).await.ok()?.clone()
    }

    async fn connection(&mut self, address: &str) -> Result<(), Over> {
        let remote = Remote::open(address, &self.tls, CONNECT).await.map_err(Over::Unreached)?;
        if !self.accepted {
            self.submit(&remote).await?;
        }
        let id = self.job.id;
        let no_job = |error| match error {
            CallError::NotFound { .. } => Over::Final(RunError::NoJob(id)),
            error => error.into(),
        };
        let mut lines = remote.follow(id, self.after).await.map_err(no_job)?;
        self.joined = true;
        self.steer(&remote).await?;
        loop {
            let line = tokio::select! {
                line = lines.next() => line?,
                changed = self.wanted.changed() => {
                    changed.map_err(|_| Over::Done)?;
                    self.steer(&remote).await?;
                    continue;
                }
            };
            let Some(line) = line else { return Err(Over::Lost("it has hung up".to_owned())) };
            self.pass_on(&remote, line).await?;
        }
    }

    /// Submits the job, which is there already when it is resumed.
    async fn submit(&mut self, remote: &Remote) -> Result<(), Over> {
        let (params, sending) = match self.job.params.clone() {
            None => (None, None),
            Some(path) => {
                let (pieces, queue) = mpsc::channel(PIECES);
                let mut sending = JoinSet::new();
                sending.spawn_blocking(move || params::send(&path, &pieces));
                (Some(queue), Some(sending))
            }
        };
        let submitted = remote.submit(self.job.id, &self.job.spec, params).await;
        if let Some(mut sending) = sending
            && let Some(Ok(Err(error))) = sending.join_next().await
        {
            return Err(error.into());
        }
        let (resumed, standing) = match submitted? {
            Submitted::Accepted { resumed, standing } => (resumed, standing),
            Submitted::Changed { differences } => {
                let why =
                    format!("it has one of this id, and these differ: {}", differences.join(", "));
                return Err(RunError::Invalid(why).into());
            }
            Submitted::Invalid { detail } => return Err(RunError::Invalid(detail).into()),
        };
        if resumed && standing.seq < self.after {
            let why = format!("it has {} commits, and {} are here", standing.seq, self.after);
            return Err(RunError::Disagree(why).into());
        }
        if !resumed {
            self.after = 0;
        }
        self.accepted = true;
        // For people alone.
        let term = remote.status().await.ok().map(|status| status.term);
        self.say(Step::Joined { resumed, standing, term }).await
    }

    /// Lets the job run, or pauses it, as it is wanted now.
    async fn steer(&mut self, remote: &Remote) -> Result<(), Over> {
        let paused = *self.wanted.borrow_and_update();
        let steered = match paused {
            true => remote.pause(self.job.id).await,
            false => remote.resume(self.job.id).await,
        };
        // How it stands comes with the commits.
        Ok(steered.map(|_| ())?)
    }

    async fn pass_on(&mut self, remote: &Remote, line: Followed) -> Result<(), Over> {
        let after = match &line {
            Followed::Committed { seq, items } => {
                for item in items {
                    self.fetch(remote, item).await?;
                }
                // The line that refers to a file is marked as here for good.
                if items.iter().any(|item| matches!(item.end, Final::Blob(_))) {
                    sync_dir(&self.job.blobs)?;
                }
                *seq
            }
            Followed::Stopping => return Err(Over::Lost("it is stopping".to_owned())),
            Followed::Standing(_) | Followed::Finished(_) => self.after,
        };
        let finished = matches!(line, Followed::Finished(_));
        self.say(Step::Line(line)).await?;
        self.after = after;
        if finished { Err(Over::Done) } else { Ok(()) }
    }

    async fn say(&self, step: Step) -> Result<(), Over> {
        self.outbox.send(step).await.map_err(|_| Over::Done)
    }

    /// Brings a large result here, before the line that refers to it.
    async fn fetch(&self, remote: &Remote, item: &Committed) -> Result<(), Over> {
        let Final::Blob(Blob { sha256, .. }) = &item.end else { return Ok(()) };
        // The name becomes a path.
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            let why = format!("`{sha256}` is no SHA-256");
            return Err(CallError::Protocol { why }.into());
        }
        let path = self.job.blobs.join(sha256);
        if path.exists() {
            return Ok(());
        }
        let part = path.with_extension("part");
        let mut file = File::create(&part).map_err(RunError::file("write", &part))?;
        let mut pieces = remote.get_blob(sha256).await?;
        while let Some(piece) = pieces.next().await? {
            file.write_all(&piece).map_err(RunError::file("write", &part))?;
        }
        file.sync_all().map_err(RunError::file("write", &part))?;
        fs::rename(&part, &path).map_err(RunError::file("write", &path))?;
        Ok(())
    }
}
