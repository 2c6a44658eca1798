//! `rollout run` and `rollout resume`: a job over a fleet, from its file to its results.
//!
//! This process owns the output directory and follows the coordinator's ledger. Coordinator and
//! workers are processes of their own: this one's children, or a fleet that runs already.

pub(crate) mod args;
mod client;
pub(crate) mod dir;
pub(crate) mod error;
mod fleet;
mod output;
mod params;
mod progress;
mod report;
pub(crate) mod request;
mod session;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rollout_core::{ExitCode, JobId};
use rollout_transport::{Identity, Tls};

use crate::error::{CliError, plain};
use crate::run::args::{ResumeArgs, RunArgs};
use crate::run::client::{Client, Job};
use crate::run::dir::{Holds, Lock, Record, RunDir, write_json, write_whole};
use crate::run::error::RunError;
use crate::run::fleet::{Fleet, Make};
use crate::run::output::Output;
use crate::run::progress::Progress;
pub(crate) use crate::run::progress::{count, span};
use crate::run::report::{End, Report};
use crate::run::request::{Plan, Request, absolute};
use crate::run::session::{Ended, Session};
use crate::signals::Signals;

/// A running fleet that is never reached is given up after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a last word to a running fleet may take.
const LAST_WORD: Duration = Duration::from_secs(5);
/// A drain may take as long as an item and a last word, but not longer than this.
const MOST_DRAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs a job.
pub(crate) fn run(args: &RunArgs) -> Result<(), CliError> {
    let request = Request::from_args(args)?;
    let plan = request.plan()?;
    let out = match args.out.clone().or_else(|| plan.out.clone()) {
        Some(out) => out,
        None => free_default(&plan.spec.name)?,
    };
    let dir = RunDir::new(absolute(&out)?);
    check_free(&dir, &out)?;
    dir.make()?;
    let lock = dir.take()?;
    // Somebody may have been quicker.
    check_free(&dir, &out)?;
    let record = Record {
        job: JobId::generate(),
        spec: plan.spec.clone(),
        request,
        began: report::now(),
        took_ms: 0.0,
    };
    write_json(&dir.record(), &record)?;
    Run { dir, shown: out, plan, record, _lock: lock }.go(args.how.json)
}

/// Goes on with a run.
pub(crate) fn resume(args: &ResumeArgs) -> Result<(), CliError> {
    let dir = RunDir::new(absolute(&args.dir)?);
    if !dir.path().is_dir() {
        return Err(RunError::NoRun(args.dir.clone()).into());
    }
    if matches!(dir.holds()?, Holds::Nothing | Holds::Foreign) {
        return Err(RunError::NoRun(args.dir.clone()).into());
    }
    let lock = dir.take()?;
    if dir.holds()? == Holds::Finished {
        return finished_before(&dir, &args.dir);
    }
    let record = dir.read_record()?.ok_or_else(|| RunError::NoRun(args.dir.clone()))?;
    if args.how.workers.is_some() && record.request.fleet.is_some() {
        return Err(RunError::WorkersOfFleet.into());
    }
    let mut plan = record.request.plan()?;
    let differences = record.spec.differences(&plan.spec);
    if !differences.is_empty() {
        let differences = differences.join(", ");
        return Err(RunError::Changed { dir: args.dir.clone(), differences }.into());
    }
    plan.spec.name.clone_from(&record.spec.name);
    let mut record = Record { spec: plan.spec.clone(), ..record };
    if args.how.workers.is_some() {
        record.request.workers = args.how.workers;
    }
    dir.make()?;
    dir.remove_report()?;
    write_json(&dir.record(), &record)?;
    Run { dir, shown: args.dir.clone(), plan, record, _lock: lock }.go(args.how.json)
}

fn check_free(dir: &RunDir, shown: &Path) -> Result<(), RunError> {
    match dir.holds()? {
        Holds::Nothing => Ok(()),
        Holds::Unfinished if dir.is_taken() => Err(RunError::Busy(shown.to_owned())),
        Holds::Unfinished => Err(RunError::Unfinished(shown.to_owned())),
        Holds::Finished => Err(RunError::Finished(shown.to_owned())),
        Holds::Foreign => Err(RunError::Foreign(shown.to_owned())),
    }
}

/// `runs/NAME`, or with a number behind it if that holds a finished run.
fn free_default(name: &str) -> Result<PathBuf, RunError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let name: String = name.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches('.');
    let first = Path::new("runs").join(if name.is_empty() { "job" } else { name });
    let mut path = first.clone();
    for number in 2.. {
        if RunDir::new(&path).holds()? != Holds::Finished {
            break;
        }
        path = first.with_file_name(format!("{name}-{number}"));
    }
    Ok(path)
}

/// A run that has ended ends again in the same way.
fn finished_before(dir: &RunDir, shown: &Path) -> Result<(), CliError> {
    let report = dir.read_report()?.unwrap_or_default();
    sweep(dir);
    let number = |key: &str| report.pointer(&format!("/counts/{key}")).and_then(|n| n.as_u64());
    let (done, dead) = (number("done").unwrap_or(0), number("dead").unwrap_or(0));
    eprintln!(
        "rollout: {} is finished: {} results, {} dead letters",
        shown.display(),
        count(done),
        count(dead)
    );
    if dead > 0 { Err(RunError::LeftUndone.into()) } else { Ok(()) }
}

/// Removes what only an unfinished run needs. What stays is swept when somebody looks again.
fn sweep(dir: &RunDir) {
    let _ = fs::remove_file(dir.partial());
    let _ = fs::remove_dir_all(dir.state());
    // Only if nothing is in it.
    let _ = fs::remove_dir(dir.blobs());
}

/// A run that this process works on.
struct Run {
    dir: RunDir,
    /// The directory as it was named.
    shown: PathBuf,
    plan: Plan,
    record: Record,
    _lock: Lock,
}

impl Run {
    fn go(mut self, json: bool) -> Result<(), CliError> {
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CliError::Runtime)?;
        runtime.block_on(self.serve(json, began))
    }

    async fn serve(&mut self, json: bool, began: Instant) -> Result<(), CliError> {
        let mut signals = Signals::listen().map_err(CliError::Runtime)?;
        let output = Output::open(&self.dir, self.plan.spec.items)?;
        let tls = self.tls()?;
        let fleet = self.start_fleet()?;
        let at = self.record.request.fleet.as_ref();
        let (address, patience) = (at.map(|at| at.coordinator.clone()), at.map(|_| PATIENCE));
        let job = Job {
            id: self.record.job,
            spec: self.plan.spec.clone(),
            params: self.plan.params.clone(),
            blobs: self.dir.blobs(),
        };
        let client = Client::start(address, tls, job, output.seq(), patience);
        let progress = Progress::new(json);
        let mut session = Session::new(self.plan.spec.clone(), output, progress, client, fleet);
        if self.record.request.fleet.is_some() && self.plan.workers.is_some() {
            session.progress.note("[workers] has no effect on a running fleet");
        }
        let ended = session.run(&mut signals).await;
        session.progress.clear();
        self.record.took_ms += began.elapsed().as_secs_f64() * 1e3;
        self.conclude(session, ended, &mut signals).await
    }

    fn tls(&self) -> Result<Tls, CliError> {
        match &self.record.request.fleet {
            Some(at) => at.certificate(),
            None => own_tls(&self.dir),
        }
    }

    fn start_fleet(&self) -> Result<Option<Fleet>, CliError> {
        let Some(plugin) = &self.plan.plugin else { return Ok(None) };
        let mut manifest = plugin.manifest.clone();
        if let Some(text) = &plugin.rewritten {
            manifest = self.dir.state().join("plugin.toml");
            write_whole(&manifest, |out| out.write_all(text.as_bytes()))?;
        }
        let asked = self.record.request.workers.map(usize::from).or(self.plan.workers);
        let processors = || thread::available_parallelism().map_or(1, NonZero::get);
        let make = Make {
            dir: self.dir.clone(),
            manifest,
            workers: asked.unwrap_or_else(processors),
            drain_timeout: (self.plan.spec.limits.item_timeout + LAST_WORD).min(MOST_DRAIN),
        };
        Ok(Some(Fleet::start(make)?))
    }

    /// Writes what there is, ends the processes, and says how it ended.
    async fn conclude(
        &self,
        mut session: Session,
        ended: Result<Ended, CliError>,
        signals: &mut Signals,
    ) -> Result<(), CliError> {
        let hurried = matches!(ended, Ok(Ended::Hurried));
        if let Some(fleet) = &mut session.fleet {
            // They end while the results are written.
            fleet.drain();
        }
        let written = session.output.mark().and_then(|()| self.write(&session, &ended));
        if let Some(fleet) = session.fleet.take()
            && !hurried
        {
            tokio::select! {
                () = fleet.stop() => {}
                // Dropped, it kills.
                _ = signals.next() => {}
            }
        }
        if self.record.request.fleet.is_some() && !matches!(ended, Ok(Ended::Finished)) {
            tokio::select! {
                // A fleet that is not there has nothing to pause.
                _ = tokio::time::timeout(LAST_WORD, session.client.pause_last()) => {}
                _ = signals.next() => {}
            }
        }
        let report = match (written, &ended) {
            (Ok(report), _) => report,
            // What came first is what is to be mended.
            (Err(_), Err(_)) => return ended.map(|_| ()),
            (Err(error), Ok(_)) => return Err(error.into()),
        };
        if report.finished {
            if self.record.request.fleet.is_some() {
                self.remove(&mut session).await;
            }
            sweep(&self.dir);
        }
        let text = self.summary(&session, &report);
        session.progress.end(&text, &serde_json::to_value(&report).unwrap_or_default());
        match ended {
            Err(error) => Err(error),
            Ok(_) if report.exit == ExitCode::Success.code() => Ok(()),
            Ok(_) => Err(RunError::LeftUndone.into()),
        }
    }

    fn write(
        &self,
        session: &Session,
        ended: &Result<Ended, CliError>,
    ) -> Result<Report, RunError> {
        let counts = session.output.counts();
        let finished = matches!(ended, Ok(Ended::Finished));
        if finished {
            session.output.write_results(&self.dir.results())?;
        }
        session.output.write_dead(&self.dir.dead())?;
        let (exit, why) = match ended {
            Ok(Ended::Finished) if counts.dead == 0 => (ExitCode::Success, None),
            Ok(Ended::Finished) => (ExitCode::Unfinished, Some("dead letters".to_owned())),
            Ok(Ended::Paused(signal)) => {
                (ExitCode::Unfinished, Some(format!("stopped by {signal}")))
            }
            Ok(Ended::Hurried) => (ExitCode::Unfinished, Some("stopped by a second signal".into())),
            Err(error) => (error.exit_code(), Some(error.to_string())),
        };
        let end = End { exit, finished, why };
        let report = Report::new(&self.record, counts, &session.standing, session.term, end);
        if !finished {
            write_json(&self.dir.record(), &self.record)?;
        }
        write_json(&self.dir.report(), &report)?;
        Ok(report)
    }

    /// Removes a job whose results are all here from a running fleet.
    async fn remove(&self, session: &mut Session) {
        let removed = tokio::time::timeout(LAST_WORD, session.client.remove()).await;
        if !matches!(removed, Ok(Ok(()))) {
            let job = self.record.job;
            session.progress.note(&format!("the fleet's coordinator may still have job {job}"));
        }
    }

    fn summary(&self, session: &Session, report: &Report) -> String {
        let counts = session.output.counts();
        let (items, ended) = (self.plan.spec.items, counts.done + counts.dead);
        let took = Duration::from_secs_f64(self.record.took_ms / 1e3);
        let standing = &session.standing;
        let retries = standing.failures + standing.losses + standing.redispatched;
        let mut text = format!(
            "{}: {} of {} items done in {}, {} retried, {} dead\n",
            self.plan.spec.name,
            count(counts.done),
            count(items),
            span(took),
            count(retries),
            count(counts.dead)
        );
        let mut file = |what: &str, path: PathBuf| {
            let name = path.file_name().unwrap_or_default();
            text.push_str(&format!("  {what:<13} {}\n", self.shown.join(name).display()));
        };
        match report.finished {
            true => file("results", self.dir.results()),
            false => file("so far", self.dir.partial()),
        }
        if counts.dead > 0 {
            file("dead letters", self.dir.dead());
            text.push_str(&first_dead(&self.dir.dead()).unwrap_or_default());
        }
        if !report.finished {
            text.push_str(&format!(
                "  {} items left; go on with: rollout resume {}\n",
                count(items - ended),
                self.shown.display()
            ));
        }
        text
    }
}

/// The first dead letter in a line, for whoever wonders why there are any.
fn first_dead(path: &Path) -> Option<String> {
    /// As much of its message as fits.
    const WIDTH: usize = 100;
    let mut line = String::new();
    BufReader::new(fs::File::open(path).ok()?).read_line(&mut line).ok()?;
    let dead: serde_json::Value = serde_json::from_str(&line).ok()?;
    let message = dead["message"].as_str()?.lines().next()?;
    let shown = plain(&message.chars().take(WIDTH).collect::<String>());
    Some(format!("  {:<13} item {}: {shown}\n", "the first", dead["item"]))
}

/// The certificate of a run with its own fleet, whose authority is in its directory.
pub(crate) fn own_tls(dir: &RunDir) -> Result<Tls, CliError> {
    let identity = Identity::Client("rollout".to_owned());
    let files = rollout_transport::certs::dev_identity(&dir.tls(), &identity, &[], &mut |_| {})?;
    Ok(Tls::load(&files)?)
}
