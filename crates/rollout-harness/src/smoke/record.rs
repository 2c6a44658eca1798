//! A smoke run as the record that reports read.

use rollout_core::{Mono, WorkerId};
use rollout_process::Signal;

use super::{Evidence, Run, Witness};
use crate::record::{Fault, Process, Record, Role, What};

impl Run {
    /// What was seen of the run.
    #[must_use]
    pub fn record(&self) -> Record {
        let evidence = &self.evidence;
        let lives = || evidence.processes().into_iter().filter_map(|(_, seen)| seen.life.as_ref());
        let began = lives().map(|life| life.began).min().unwrap_or_default();
        let ends = lives().filter_map(|life| Some(life.ended.as_ref()?.at));
        let last =
            evidence.processes().into_iter().filter_map(|(_, seen)| seen.log.events().last());
        let ended = ends.chain(last.map(|event| event.mono)).max().unwrap_or(began);
        Record {
            title: "smoke: one of two workers is killed".to_owned(),
            run: evidence.run,
            timing: evidence.timing,
            began,
            ended,
            processes: processes(evidence),
            faults: faults(evidence),
            harness_late: evidence.harness_late,
            leftovers: evidence.leftovers.clone(),
        }
    }
}

fn processes(evidence: &Evidence) -> Vec<Process> {
    let worker = |id: WorkerId| Role::Worker { id };
    let roles = [Role::Coordinator, worker(evidence.w1.id), worker(evidence.w2.id)];
    let process = |((name, seen), role): ((&str, &Witness), Role)| Process {
        name: name.to_owned(),
        role,
        lives: seen.life.iter().cloned().collect(),
        log: seen.log.clone(),
        stderr: seen.stderr.clone(),
    };
    evidence.processes().into_iter().zip(roles).map(process).collect()
}

/// The kill, unless the run was a control in which it is left out, and the request to end.
fn faults(evidence: &Evidence) -> Vec<Fault> {
    let killed = evidence.w1.seen.exit.and_then(|exit| exit.signal) == Some(Signal::SIGKILL as i32);
    let fault = |target: &str, what, at: Option<Mono>| {
        at.map(|began| Fault { target: target.to_owned(), what, began, ended: None })
    };
    let kill = fault("w1", What::Kill, evidence.kill.filter(|_| killed));
    kill.into_iter().chain(fault("w2", What::Terminate, evidence.w2_stop)).collect()
}
