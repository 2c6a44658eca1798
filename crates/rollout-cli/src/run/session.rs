//! One session of a run: from a job that is recorded to its end, or to whatever stops it first.

use std::collections::BTreeSet;
use std::time::Duration;

use rollout_core::JobSpec;
use rollout_transport::work::{Followed, Standing};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::CliError;
use crate::run::client::{Client, Step};
use crate::run::error::RunError;
use crate::run::fleet::{Fleet, News};
use crate::run::output::Output;
use crate::run::progress::{Progress, View, span};
use crate::signals::Signals;

/// How often what is in the files is brought to the disk.
const MARK: Duration = Duration::from_secs(1);
/// How long a last word to the coordinator may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How a session ends that does not fail.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Every item has come to its end, and its line is here.
    Finished,
    /// It was asked to stop, and what workers had in hand is here.
    Paused(&'static str),
    /// It was asked twice.
    Hurried,
}

/// Everything of a run that goes on.
pub(crate) struct Session {
    pub(crate) spec: JobSpec,
    pub(crate) output: Output,
    pub(crate) progress: Progress,
    pub(crate) client: Client,
    /// The processes, if they are this run's own.
    pub(crate) fleet: Option<Fleet>,
    pub(crate) standing: Standing,
    pub(crate) term: Option<u64>,
    away: Option<Instant>,
    /// Since when no worker can run the job.
    nobody: Option<Instant>,
    /// The signal that asked to stop.
    stopping: Option<&'static str>,
    /// No worker has anything in hand any more.
    drained: bool,
    mark_due: Instant,
}

impl Session {
    pub(crate) fn new(
        spec: JobSpec,
        output: Output,
        progress: Progress,
        client: Client,
        fleet: Option<Fleet>,
    ) -> Self {
        Self {
            spec,
            output,
            progress,
            client,
            fleet,
            standing: Standing::default(),
            term: None,
            away: None,
            nobody: None,
            stopping: None,
            drained: false,
            mark_due: Instant::now() + MARK,
        }
    }

    /// Runs to the end.
    pub(crate) async fn run(&mut self, signals: &mut Signals) -> Result<Ended, CliError> {
        loop {
            let tick = self.progress.next().min(self.mark_due);
            let ended = tokio::select! {
                biased;
                signal = signals.next() => self.signal(signal),
                news = next_news(&mut self.fleet) => self.hear(news)?,
                step = self.client.steps.recv() => self.step(step)?,
                () = sleep_until(tick) => {
                    self.tick()?;
                    None
                }
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
            self.check_start().await?;
        }
    }

    fn signal(&mut self, signal: &'static str) -> Option<Ended> {
        if self.stopping.is_some() {
            return Some(Ended::Hurried);
        }
        self.stopping = Some(signal);
        self.client.pause();
        if self.standing == Standing::default() {
            // The job is not under way yet.
            return Some(Ended::Paused(signal));
        }
        self.progress
            .note("stopping: what workers have in hand is finished; once more stops at once");
        None
    }

    fn hear(&mut self, news: News) -> Result<Option<Ended>, CliError> {
        match news {
            News::Listens(address) => self.client.listens(address),
            News::Note(text) => self.progress.note(&text),
            News::Drained => self.drained = true,
            News::Failed(error) => return Err(error.into()),
        }
        Ok(None)
    }

    fn step(&mut self, step: Option<Step>) -> Result<Option<Ended>, CliError> {
        match step {
            None => Err(RunError::Disagree("the line to the coordinator has ended".into()).into()),
            Some(Step::Failed(error)) => Err(error.into()),
            Some(Step::Away(why)) => {
                if self.away.is_none() {
                    self.away = Some(Instant::now());
                    if self.fleet.is_none() {
                        self.progress.note(&format!("the coordinator is away: {why}"));
                    }
                }
                self.nobody = None;
                Ok(None)
            }
            Some(Step::Joined { resumed, standing, term }) => {
                self.away = None;
                self.term = term;
                if !resumed && self.output.seq() > 0 {
                    self.output.clear()?;
                }
                self.stands(standing);
                Ok(None)
            }
            Some(Step::Line(line)) => self.line(line),
        }
    }

    fn line(&mut self, line: Followed) -> Result<Option<Ended>, CliError> {
        if let Some(since) = self.away.take()
            && self.fleet.is_none()
        {
            let after = span(since.elapsed());
            self.progress.note(&format!("the coordinator is back after {after}"));
        }
        match line {
            Followed::Committed { seq, items } => self.output.take(seq, &items)?,
            Followed::Standing(standing) => {
                self.stands(standing);
                return Ok(self.stopped());
            }
            Followed::Finished(standing) => {
                self.stands(standing);
                self.check_counts()?;
                return Ok(Some(Ended::Finished));
            }
            // The line to the coordinator comes back by itself.
            Followed::Stopping => {}
        }
        Ok(None)
    }

    fn stands(&mut self, standing: Standing) {
        if standing.workers > 0 || self.stopping.is_some() {
            self.nobody = None;
        } else {
            self.nobody.get_or_insert_with(Instant::now);
        }
        if standing.paused
            && self.stopping.is_some()
            && !self.standing.paused
            && let Some(fleet) = &mut self.fleet
        {
            fleet.drain();
        }
        self.standing = standing;
    }

    /// Whether everything is here that workers had in hand when it was asked to stop.
    fn stopped(&self) -> Option<Ended> {
        let signal = self.stopping?;
        let idle = self.standing.leased == 0 || self.drained;
        let here = self.output.seq() >= self.standing.seq;
        (self.standing.paused && idle && here).then_some(Ended::Paused(signal))
    }

    fn check_counts(&self) -> Result<(), RunError> {
        let (here, there) = (self.output.counts(), &self.standing);
        let all = here.done + here.dead == self.spec.items;
        if all && (here.done, here.dead) == (there.done, there.dead) {
            return Ok(());
        }
        Err(RunError::Disagree(format!(
            "of {} items {} results and {} dead letters are here, {} and {} there",
            self.spec.items, here.done, here.dead, there.done, there.dead
        )))
    }

    fn tick(&mut self) -> Result<(), RunError> {
        let now = Instant::now();
        if now >= self.mark_due {
            self.output.mark()?;
            self.mark_due = now + MARK;
        }
        if now >= self.progress.next() {
            let view = self.view();
            self.progress.show(&view);
        }
        Ok(())
    }

    fn view(&mut self) -> View {
        let (counts, standing) = (self.output.counts(), &self.standing);
        let notice = match (self.away, self.stopping, standing) {
            (Some(since), ..) if since.elapsed() >= Duration::from_secs(1) => {
                Some(format!("coordinator away for {}", span(since.elapsed())))
            }
            (_, Some(_), _) => Some(format!("stopping, {} items in hand", standing.leased)),
            (_, _, Standing { workers: 0, .. }) if self.output.seq() == 0 => {
                Some("starting".to_owned())
            }
            (_, _, Standing { paused: true, .. }) => Some("paused".to_owned()),
            _ => None,
        };
        let retries = standing.failures + standing.losses + standing.redispatched;
        let (leased, workers) = (standing.leased, standing.workers);
        View {
            name: self.spec.name.clone(),
            items: self.spec.items,
            done: counts.done,
            dead: counts.dead,
            leased,
            retries,
            workers,
            rate: self.progress.rate(counts.done + counts.dead),
            notice,
        }
    }

    /// Gives up when no worker could run the job for too long.
    async fn check_start(&mut self) -> Result<(), RunError> {
        let patience = self.spec.limits.start_timeout;
        if self.nobody.is_none_or(|since| since.elapsed() < patience) {
            return Ok(());
        }
        // Whether it hears that makes no difference to how this ends.
        let _ = timeout(LAST_WORD, self.client.pause_now()).await;
        let status = timeout(LAST_WORD, self.client.status()).await;
        let why = match status {
            Ok(Ok(status)) => {
                let live = status
                    .workers
                    .iter()
                    .filter(|w| w.state != "failed" && w.state != "deregistered");
                let plugins: Vec<_> = live.map(|worker| &worker.plugins).collect();
                let names: BTreeSet<_> =
                    plugins.iter().copied().flatten().map(String::as_str).collect();
                let names: Vec<_> = names.into_iter().collect();
                match (plugins.len(), names.is_empty()) {
                    (0, _) if self.fleet.is_some() => {
                        "its workers are not ready yet: see what they write in `events`".to_owned()
                    }
                    (0, _) => "there is no worker: start some".to_owned(),
                    (n, true) => format!("none of {n} workers has a plugin"),
                    (n, false) => format!(
                        "none of {n} workers has plugin `{}`, they have: {}",
                        self.spec.plugin,
                        names.join(", ")
                    ),
                }
            }
            _ => "the coordinator does not say which plugins workers have".to_owned(),
        };
        let after = humantime::format_duration(patience).to_string();
        Err(RunError::NobodyCan { after, why })
    }
}

async fn next_news(fleet: &mut Option<Fleet>) -> News {
    match fleet {
        Some(fleet) => fleet.next().await,
        None => std::future::pending().await,
    }
}
