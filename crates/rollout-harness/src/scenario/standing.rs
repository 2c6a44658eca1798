//! What every scenario has to bear out without saying so, and whether the machine let it.

use rollout_core::duration::as_ms;
use rollout_core::{Body, Event, Level};

use super::file::{Claim, Due};
use super::judge::Finding;
use super::{Scenario, Seen};
use crate::judge::{late, lost};
use crate::record::{Fault, Life, Process, What};

/// A claim about every scenario.
pub(super) struct Standing {
    pub(super) name: &'static str,
    pub(super) find: fn(&Scenario, &Seen) -> Finding,
}

pub(super) const ALL: [Standing; 5] = [
    Standing { name: "steps", find: steps },
    Standing { name: "exits", find: exits },
    Standing { name: "clean", find: clean },
    Standing { name: "logs", find: logs },
    Standing { name: "nothing-left", find: nothing_left },
];

fn steps(_: &Scenario, seen: &Seen) -> Finding {
    let failed = seen.steps.iter().find_map(|step| {
        let why = step.result.as_ref().err()?;
        Some(format!("{}: {why}", step.title))
    });
    match failed {
        Some(why) => Finding::late(why),
        None => Finding::Holds(format!("{} steps came to their end", seen.steps.len())),
    }
}

/// Every end that no expectation is about is the one that was caused, and no sidecar ends by itself.
fn exits(scenario: &Scenario, seen: &Seen) -> Finding {
    let mut wrong = Vec::new();
    for process in &seen.record.processes {
        for (number, life) in (1..).zip(&process.lives) {
            if !is_expected(scenario, process, number) {
                wrong.extend(wrong_end(process, life, &seen.record.faults));
            }
        }
        let killed =
            |fault: &Fault| fault.target == process.name && fault.what == What::KillSidecars;
        let killed = seen.record.faults.iter().any(killed);
        let unasked = |event: &Event| matches!(&event.body, Body::PluginExited(it) if !it.expected);
        if !killed && process.log.events().any(unasked) {
            wrong.push(format!("a sidecar of {} ended by itself", process.name));
        }
    }
    Finding::none_of(wrong, || "every process ended as it was made to".to_owned())
}

/// Whether an expectation is about the end of this life.
fn is_expected(scenario: &Scenario, process: &Process, number: usize) -> bool {
    scenario.expect.iter().any(|expect| match &expect.claim {
        Claim::Exit { process: name, life, .. } => {
            *name == process.name && life.unwrap_or(process.lives.len()) == number
        }
        _ => false,
    })
}

fn wrong_end(process: &Process, life: &Life, faults: &[Fault]) -> Option<String> {
    let name = &process.name;
    let Some(ended) = &life.ended else {
        return Some(format!("{name} had not ended when the run was over"));
    };
    let during = |fault: &&Fault| {
        fault.target == *name && life.began <= fault.began && fault.began <= ended.at
    };
    let done = |what: What| faults.iter().filter(during).any(|fault| fault.what == what);
    let exit = ended.exit();
    match (done(What::Terminate), done(What::Kill)) {
        (true, true) => Some(format!("{name} had to be killed after its SIGTERM")),
        (true, false) if !exit.success() => Some(format!("{name} {exit} after its SIGTERM")),
        (false, true) if exit.signal != Some(9) => Some(format!("{name} {exit}, not by SIGKILL")),
        (false, false) => Some(format!("{name} {exit}, and nobody made it end")),
        _ => None,
    }
}

/// No panic, no error line but a verdict, and nothing on standard error but the announcement of a
/// CA, save of a process that an expectation says something else of.
fn clean(scenario: &Scenario, seen: &Seen) -> Finding {
    let mut wrong = Vec::new();
    for process in &seen.record.processes {
        let name = &process.name;
        let said = process.stderr.lines();
        let lines = process.log.lines().iter().map(|line| line.raw.as_str()).chain(said.clone());
        let panics = lines.filter(|line| line.contains("panicked at"));
        wrong.extend(panics.map(|line| format!("{name}: {line}")));
        if complains(scenario, name) {
            continue;
        }
        let said = said.filter(|line| !line.starts_with("Generated dev CA at "));
        wrong.extend(said.map(|line| format!("{name}: {line}")));
        for event in process.log.events().filter(|event| event.level == Level::Error) {
            if !matches!(event.body, Body::WorkerFailed(_)) {
                let text = event.message.as_deref().unwrap_or_default();
                wrong.push(format!("{name}: error line {} {text}", event.body.topic()));
            }
        }
    }
    Finding::none_of(wrong, || "no panic and no complaint".to_owned())
}

/// Whether a process is expected to complain: to end with an error, or to say something.
fn complains(scenario: &Scenario, name: &str) -> bool {
    scenario.expect.iter().any(|expect| match &expect.claim {
        Claim::Exit { process, due, .. } => process == name && *due != Due::Code(0),
        Claim::Stderr { process, .. } => process == name,
        _ => false,
    })
}

/// Every line is an event of this run, none is missing, and only a killed process was cut off
/// within one.
fn logs(_: &Scenario, seen: &Seen) -> Finding {
    let (mut wrong, mut lines) = (Vec::new(), 0);
    for process in &seen.record.processes {
        let name = &process.name;
        let killed = process
            .lives
            .iter()
            .filter(|life| life.ended.as_ref().is_none_or(|ended| ended.signal == Some(9)));
        let mut torn = killed.count();
        let mut due = 1;
        lines += process.log.lines().len();
        for (number, line) in (1..).zip(process.log.lines()) {
            match &line.event {
                Err(_) if torn > 0 => torn -= 1,
                Err(why) => wrong.push(format!("{name}.log:{number} is no event: {why}")),
                Ok(event) if event.run_id.is_some_and(|run| run != seen.record.run) => {
                    wrong.push(format!("{name}.log:{number} is of another run"));
                }
                // Each life counts from the beginning.
                Ok(event) if event.seq != due && event.seq != 1 => {
                    wrong.push(format!("{name}.log:{number} has seq {}, not {due}", event.seq));
                    due = event.seq + 1;
                }
                Ok(event) => due = event.seq + 1,
            }
        }
        if process.log.torn().is_some() && torn == 0 {
            wrong.push(format!("{name}.log ends within a line"));
        }
    }
    Finding::none_of(wrong, || format!("{lines} lines, each an event of this run, none missing"))
}

fn nothing_left(_: &Scenario, seen: &Seen) -> Finding {
    Finding::none_of(seen.record.leftovers.clone(), || "no process, socket or lock".to_owned())
}

/// What kept the machine from keeping time, in words. A stall of a coordinator that was stopped is
/// none of it.
pub(super) fn starved(seen: &Seen) -> Vec<String> {
    let record = &seen.record;
    let mut reasons = Vec::from_iter(late(record.harness_late));
    let Some(coordinator) = record.coordinator() else { return reasons };
    let stopped = record.faults_of(&coordinator.name).any(|fault| fault.what == What::Stop);
    for event in coordinator.log.events() {
        match &event.body {
            Body::CoordinatorStalled(stall) if !stopped => {
                reasons.push(format!("the coordinator stalled for {:.0} ms", stall.ms));
            }
            Body::LinesDropped(lines) => reasons.push(lost(lines)),
            _ => {}
        }
    }
    reasons
}

/// That nothing did.
pub(super) fn calm(seen: &Seen) -> String {
    let late = as_ms(seen.record.harness_late);
    format!("no stall that nobody caused, harness at most {late:.0} ms late")
}
