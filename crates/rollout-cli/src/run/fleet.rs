//! The coordinator and the workers that a run starts for itself: processes of this same program, each
//! in a group of its own, replaced when they die, gone when this process is.

mod backoff;
mod files;
mod journal;
mod member;

use std::path::PathBuf;
use std::time::Duration;

use rollout_core::chain;
use rollout_core::ids::WorkerId;
use rollout_process::{Exit, Signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::run::dir::RunDir;
use crate::run::error::RunError;
use crate::run::fleet::files::Files;
use crate::run::fleet::member::{Member, Said, Word};

/// How long processes may take to end when they are asked to, before they are made to.
const GRACE: Duration = Duration::from_secs(5);
/// So often in a row a process may fail to start while nothing has ever worked.
const FIRST_STARTS: u32 = 2;
/// So often in a row once something has.
const LATER_STARTS: u32 = 20;

/// What the run is told of its fleet.
#[derive(Debug)]
pub(crate) enum News {
    /// The coordinator listens here.
    Listens(String),
    /// Something for people to know.
    Note(String),
    /// There is no use in going on.
    Failed(RunError),
    /// Every worker was asked to end, and has.
    Drained,
}

/// What a fleet is made of.
pub(crate) struct Make {
    pub(crate) dir: RunDir,
    /// The manifest that workers load.
    pub(crate) manifest: PathBuf,
    pub(crate) workers: usize,
    /// How long a worker that is to end may take to finish what it has in hand.
    pub(crate) drain_timeout: Duration,
}

/// The processes. Dropping it kills them all.
pub(crate) struct Fleet {
    files: Files,
    coordinator: Member,
    workers: Vec<Member>,
    outbox: mpsc::UnboundedSender<Said>,
    inbox: mpsc::UnboundedReceiver<Said>,
    /// A worker has registered since this fleet was started.
    has_worked: bool,
    draining: bool,
    stopping: bool,
}

impl Fleet {
    /// Starts the coordinator; the workers follow when it listens.
    pub(crate) fn start(make: Make) -> Result<Self, RunError> {
        let ids = files::worker_ids(&make.dir, make.workers)?;
        let files = Files::new(make)?;
        // One word for each start and end of a process, so it stays short.
        let (outbox, inbox) = mpsc::unbounded_channel();
        let member = |place: usize, name: String, id: Option<WorkerId>| {
            Member::new(place, name, id, files.journal(place))
        };
        let coordinator = member(0, "the coordinator".to_owned(), None);
        let workers =
            ids.into_iter().zip(1..).map(|(id, n)| member(n, format!("worker {n}"), Some(id)));
        let mut fleet = Self {
            coordinator,
            workers: workers.collect(),
            files,
            outbox,
            inbox,
            has_worked: false,
            draining: false,
            stopping: false,
        };
        fleet.files.write_coordinator()?;
        fleet.start_coordinator()?;
        Ok(fleet)
    }

    fn start_coordinator(&mut self) -> Result<(), RunError> {
        let args = self.files.coordinator_args();
        self.coordinator.start(&args, &self.outbox)
    }

    /// What happens next. To be cancelled at will.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            let due = self.due();
            let pause = sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                said = self.inbox.recv() => {
                    // This fleet has a sender itself: there is always a next one.
                    if let Some(news) = said.and_then(|said| self.hear(said)) {
                        return news;
                    }
                }
                () = pause, if due.is_some() => if let Some(news) = self.start_due() {
                    return news;
                },
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        if self.stopping {
            return None;
        }
        let workers = self.workers.iter().filter(|_| !self.draining);
        std::iter::once(&self.coordinator).chain(workers).filter_map(|member| member.due).min()
    }

    /// Starts whoever is due. One that cannot be started now is tried again like one that ended.
    fn start_due(&mut self) -> Option<News> {
        let now = Instant::now();
        let most = self.most_starts();
        let is_due = |member: &&mut Member| member.due.is_some_and(|due| due <= now);
        let mut members = std::iter::once(&mut self.coordinator).chain(&mut self.workers);
        let member = members.find(is_due)?;
        let args = match member.place {
            0 => self.files.coordinator_args(),
            place => self.files.worker_args(place, member.id),
        };
        let error = member.start(&args, &self.outbox).err()?;
        if member.ended() >= most {
            return Some(News::Failed(error));
        }
        let wait = member.again();
        let why = chain(&error);
        Some(News::Note(format!("{why}; tried again in {} ms", wait.as_millis())))
    }

    /// How often in a row a process may fail to start.
    const fn most_starts(&self) -> u32 {
        if self.has_worked { LATER_STARTS } else { FIRST_STARTS }
    }

    fn member(&mut self, place: usize) -> Option<&mut Member> {
        match place.checked_sub(1) {
            None => Some(&mut self.coordinator),
            Some(worker) => self.workers.get_mut(worker),
        }
    }

    fn hear(&mut self, said: Said) -> Option<News> {
        match said.word {
            Word::Listens(address) => self.listens(address),
            Word::Registered(id) => {
                self.has_worked = true;
                let worker = self.workers.iter_mut().find(|worker| worker.id == Some(id))?;
                worker.works();
                None
            }
            Word::Ended(exit, tail) => self.ended(said.place, exit, &tail),
        }
    }

    fn listens(&mut self, address: String) -> Option<News> {
        self.coordinator.works();
        if let Err(error) = self.files.listens(&address, self.workers.len()) {
            return Some(News::Failed(error));
        }
        for worker in &mut self.workers {
            if worker.is_new() && !self.draining && !self.stopping {
                worker.due = Some(Instant::now());
            }
        }
        Some(News::Listens(address))
    }

    fn ended(&mut self, place: usize, exit: Exit, tail: &str) -> Option<News> {
        let (has_worked, most) = (self.has_worked, self.most_starts());
        let stopping = self.stopping || (self.draining && place > 0);
        let member = self.member(place)?;
        let failed = member.ended();
        if stopping {
            let gone = self.workers.iter().all(|worker| !worker.runs());
            return (self.draining && gone && !self.stopping).then_some(News::Drained);
        }
        if failed >= most || (failed > 0 && !has_worked && is_final(exit)) {
            let (who, exit, code) = (member.name.clone(), exit.to_string(), exit.code);
            let said = tail.trim_end();
            let said = said.strip_prefix("rollout: ").unwrap_or(said).to_owned();
            return Some(News::Failed(RunError::CannotStart { who, exit, code, said }));
        }
        let wait = member.again();
        Some(News::Note(format!(
            "{} {exit}; another starts in {} ms",
            member.name,
            wait.as_millis()
        )))
    }

    /// Asks every worker to end: it finishes what it has begun, and gives the rest back.
    pub(crate) fn drain(&mut self) {
        // Asked a second time, a worker drops what it has in hand.
        if self.draining {
            return;
        }
        self.draining = true;
        for worker in &mut self.workers {
            worker.due = None;
            worker.signal(Signal::SIGTERM);
        }
        if self.workers.iter().all(|worker| !worker.runs()) {
            // Somebody waits for the word.
            let word = Word::Ended(Exit { code: Some(0), signal: None }, String::new());
            let _ = self.outbox.send(Said { place: 1, word });
        }
    }

    /// Ends every process: the workers first, so that the coordinator sees them leave.
    pub(crate) async fn stop(mut self) {
        self.drain();
        self.stopping = true;
        self.await_ends(|fleet| fleet.workers.iter().all(|worker| !worker.runs())).await;
        self.workers.clear();
        self.coordinator.signal(Signal::SIGTERM);
        self.await_ends(|fleet| !fleet.coordinator.runs()).await;
        self.files.closed();
    }

    async fn await_ends(&mut self, gone: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + GRACE;
        while !gone(self) {
            let Ok(Some(said)) = timeout_at(deadline, self.inbox.recv()).await else { return };
            self.hear(said);
        }
    }
}

/// Whether an exit code means that the next start will end in the same way.
fn is_final(exit: Exit) -> bool {
    use rollout_core::ExitCode as Code;
    let same = |code: &Code| exit.code == Some(i32::from(code.code()));
    [Code::Usage, Code::BadData, Code::NoInput, Code::CannotCreate, Code::Refused, Code::Config]
        .iter()
        .any(same)
}
