//! What is asked of a run.

use std::collections::BTreeSet;

use rollout_core::{Body, Event, Mono};
use rollout_process::Signal;

use super::{Figures, Seen, View, check};
use crate::judge::{Check, LATENESS_LIMIT, Outcome};
use crate::leftovers::is_socket;
use crate::record::{Fault, Life, Process, Record, What};
use crate::work::results::{Job, Wrong};
use crate::work::schedule::{Act, Counts, Schedule};

type Finding = Result<String, String>;

/// How much shorter than it was to be a freeze may be: it is looked for a few times in that.
const FREEZE_SLACK: std::time::Duration = std::time::Duration::from_millis(50);

/// What holds of every run, whatever was done to it.
pub(super) fn of_run(name: &str, job: Job, view: &View<'_>) -> Vec<Check> {
    let rules: [(&str, Finding); 5] = [
        ("ended", ended(view)),
        ("results", results(job, view)),
        ("dead", dead(view)),
        ("ledger", ledger(job, view)),
        ("exits", exits(view)),
    ];
    rules.map(|(rule, finding)| check(format!("{name}-{rule}"), finding)).into()
}

/// The client ends by itself, with 0.
fn ended(view: &View<'_>) -> Finding {
    let Seen { trouble, ended, stderr, .. } = view.seen;
    let said = stderr.trim();
    if let Some(trouble) = trouble {
        return Err(format!("{trouble}\n{said}"));
    }
    let exit = ended.as_ref().ok_or("the client had to be killed")?.exit();
    let took = view.took().as_secs_f64();
    if exit.success() {
        Ok(format!("the client exited with 0 after {took:.3} s"))
    } else {
        Err(format!("the client {exit} after {took:.3} s\n{said}"))
    }
}

/// Every item has its one result, and it is the right one.
fn results(job: Job, view: &View<'_>) -> Finding {
    let Seen { results, executions, .. } = view.seen;
    let executions =
        executions.as_ref().map_err(|line| format!("`{line}` is no note of an execution"))?;
    let text = results.as_ref().ok_or("there is no results.jsonl")?;
    let executed: BTreeSet<u64> = executions.iter().map(|execution| execution.item).collect();
    let wrong = Wrong::find(job, text, &executed);
    let words = format!("{} items, {} executions: {}", job.items, executions.len(), wrong.words());
    if wrong.is_nothing() { Ok(words) } else { Err(words) }
}

/// No item is given up.
fn dead(view: &View<'_>) -> Finding {
    let lines = String::from_utf8_lossy(&view.seen.dead);
    match (lines.lines().next(), view.ledger.dead) {
        (None, 0) => Ok("no dead letter".into()),
        (None, dead) => Err(format!("the coordinator says that {dead} items are dead letters")),
        (Some(first), _) => Err(format!("{} dead letters: {first}", lines.lines().count())),
    }
}

/// The coordinator says of no item that it has come to its end twice.
fn ledger(job: Job, view: &View<'_>) -> Finding {
    let ledger = &view.ledger;
    if let Some(item) = ledger.twice.first() {
        let times = ledger.twice.len();
        return Err(format!("{times} items were committed twice, the first is {item}"));
    }
    if let Some(item) = ledger.items.keys().find(|item| **item >= job.items) {
        return Err(format!("item {item} is none of the job"));
    }
    if ledger.ended == 0 {
        return Err("the coordinator says of no commit".into());
    }
    Ok(format!(
        "{} granted, {} committed, {} refused as stale",
        ledger.granted, ledger.ended, ledger.stale
    ))
}

/// Every process ends as it was made to, and nothing is left of any.
fn exits(view: &View<'_>) -> Finding {
    let record = &view.seen.record;
    let (sockets, mut wrong): (Vec<_>, Vec<_>) =
        record.leftovers.iter().cloned().partition(|found| is_socket(found));
    let starting: usize = record.workers().map(|(worker, _)| killed_in_start(record, worker)).sum();
    wrong.extend(sockets.into_iter().skip(starting));
    let mut lives = 0;
    for process in &record.processes {
        for life in &process.lives {
            lives += 1;
            let killed = record.faults_of(&process.name).find(|fault| kills(fault, life));
            wrong.extend(amiss(process, life, killed, view.end()));
        }
    }
    match wrong.first() {
        None => Ok(format!("{lives} lives of {} processes", record.processes.len())),
        Some(first) => Err(format!("{first} ({} such)", wrong.len())),
    }
}

/// How often a worker was killed while its sidecar started, for the first time or again.
fn killed_in_start(record: &Record, worker: &Process) -> usize {
    let lives = worker.lives.iter().filter(|life| {
        let Some(ended) = life.ended.as_ref().filter(|ended| ended.signal.is_some()) else {
            return false;
        };
        let within = |at: Mono| life.began <= at && at <= ended.at;
        let killed = |fault: &&Fault| fault.what == What::KillSidecars && within(fault.began);
        let since = record.faults_of(&worker.name).filter(killed).map(|fault| fault.began).max();
        let ready = |event: &Event| match event.body {
            Body::PluginProbed(_) => since.is_none(),
            Body::PluginRestarted(_) => since.is_some_and(|since| since <= event.mono),
            _ => false,
        };
        !worker.log.events().any(|event| within(event.mono) && ready(event))
    });
    lives.count()
}

fn kills(fault: &Fault, life: &Life) -> bool {
    let ended = life.ended.as_ref().is_none_or(|ended| fault.began <= ended.at);
    fault.what == What::Kill && life.began <= fault.began && ended
}

fn amiss(process: &Process, life: &Life, killed: Option<&Fault>, end: Mono) -> Option<String> {
    let name = &process.name;
    let Some(ended) = &life.ended else { return Some(format!("{name} did not end when asked")) };
    match killed {
        Some(fault) if fault.began > end => Some(format!("{name} did not end when asked")),
        Some(_) if ended.signal == Some(Signal::SIGKILL as i32) => None,
        _ if ended.exit().success() => None,
        _ => Some(format!("{name} {}: {}", ended.exit(), last_line(&process.stderr))),
    }
}

fn last_line(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default()
}

/// Nothing disturbed the run that was to be undisturbed: every item was run once. Only a machine that
/// did not let it run excuses something else.
pub(super) fn calm(job: Job, view: &View<'_>) -> Check {
    let (runs, ledger) = (view.executions().len() as u64, &view.ledger);
    let detail = format!(
        "{} items, {} granted, {runs} executions, {} redispatched",
        job.items,
        ledger.granted,
        ledger.redispatched.values().sum::<u64>()
    );
    let calm = runs == job.items && ledger.granted == job.items;
    let mut check = check("undisturbed-calm", if calm { Ok(detail) } else { Err(detail) });
    if !calm && starved(view) {
        check.outcome = Outcome::Inconclusive;
    }
    check
}

/// Whether the machine kept the harness, the coordinator or a worker waiting.
fn starved(view: &View<'_>) -> bool {
    let record = &view.seen.record;
    let mut events = record.coordinator().into_iter().flat_map(|it| it.log.events());
    record.harness_late > LATENESS_LIMIT
        || events.any(|event| {
            matches!(event.body, Body::CoordinatorStalled(_) | Body::WorkerSuspected(_))
        })
}

/// The results of both runs are the same bytes.
pub(super) fn identical(undisturbed: &Seen, disturbed: &Seen) -> Check {
    let finding = match (&undisturbed.results, &disturbed.results) {
        (Some(one), Some(other)) if one == other && !one.is_empty() => {
            Ok(format!("results.jsonl is the same, {} bytes", one.len()))
        }
        (Some(one), Some(other)) => {
            let lines = one.split(|b| *b == b'\n').zip(other.split(|b| *b == b'\n'));
            let line = lines.take_while(|(one, other)| one == other).count() + 1;
            Err(format!(
                "results.jsonl differs from line {line} on: {} and {} bytes",
                one.len(),
                other.len()
            ))
        }
        _ => Err("one of the runs has no results.jsonl".into()),
    };
    check("identical", finding)
}

/// What was done while the client ran.
fn during<'a>(view: &'a View<'_>) -> impl Iterator<Item = &'a Fault> {
    let end = view.end();
    view.seen.record.faults.iter().filter(move |fault| fault.began <= end)
}

fn is_coordinator(view: &View<'_>, fault: &Fault) -> bool {
    view.seen.record.coordinator().is_some_and(|it| it.name == fault.target)
}

/// How often what was done.
pub(super) fn done(view: &View<'_>) -> Counts {
    let mut done = Counts::default();
    for fault in during(view) {
        match fault.what {
            What::Kill if is_coordinator(view, fault) => done.coordinator_kills += 1,
            What::Kill => done.kills += 1,
            What::KillSidecars => done.sidecar_kills += 1,
            What::Stop => done.freezes += 1,
            _ => {}
        }
    }
    done
}

/// Everything that was to be done was done, as often and for as long.
pub(super) fn faults(schedule: &Schedule, view: &View<'_>) -> Check {
    check("faults", all_done(schedule, view))
}

fn all_done(schedule: &Schedule, view: &View<'_>) -> Finding {
    let (due, done) = (schedule.counts(), done(view));
    let words = |counts: Counts| {
        let Counts { kills, sidecar_kills, freezes, coordinator_kills } = counts;
        format!(
            "{kills} workers killed, {sidecar_kills} sidecars, {coordinator_kills} coordinators, \
             {freezes} frozen"
        )
    };
    if due != done {
        return Err(format!("{}; to be done: {}", words(done), words(due)));
    }
    let longest = schedule.steps.iter().filter_map(|step| match step.act {
        Act::Freeze { length } => Some(length),
        _ => None,
    });
    let frozen = during(view).filter(|fault| fault.what == What::Stop);
    let short = longest.zip(frozen).find_map(|(due, fault)| {
        let ended = fault.ended.unwrap_or(view.seen.record.ended);
        let lasted = ended.since(fault.began);
        (lasted + FREEZE_SLACK < due).then(|| format!("frozen for {lasted:?} of {due:?}"))
    });
    let restarts = during(view)
        .filter(|fault| fault.what == What::Restart && is_coordinator(view, fault))
        .count();
    if restarts != due.coordinator_kills {
        return Err(format!("the coordinator was started again {restarts} times"));
    }
    short.map_or_else(|| Ok(words(done)), Err)
}

/// The work went on when everything had been done.
pub(super) fn outlasted(view: &View<'_>) -> Check {
    let began = view.seen.record.began;
    let at = |at: Mono| at.since(began).as_secs_f64();
    let last = during(view).map(|fault| fault.ended.unwrap_or(fault.began)).max();
    let finding = match (last, view.ledger.last) {
        (None, _) => Err("nothing was done".to_owned()),
        (Some(last), Some(commit)) if last < commit => Ok(format!(
            "the last fault at {:.3} s, the last commit at {:.3} s",
            at(last),
            at(commit)
        )),
        (Some(last), commit) => {
            let commit =
                commit.map_or_else(|| "none".to_owned(), |commit| format!("{:.3} s", at(commit)));
            Err(format!(
                "the last fault at {:.3} s, the last commit at {commit}: the run is too short",
                at(last)
            ))
        }
    };
    check("outlasted", finding)
}

/// The kills hit work.
pub(super) fn took_along(figures: &Figures) -> Check {
    let hit = figures.kills.iter().filter(|kill| kill.held > 0).count();
    let items: usize = figures.kills.iter().map(|kill| kill.held).sum();
    let words =
        format!("{hit} of {} killed workers had items, {items} in all", figures.kills.len());
    check("hit-work", if hit > 0 { Ok(words) } else { Err(words) })
}
