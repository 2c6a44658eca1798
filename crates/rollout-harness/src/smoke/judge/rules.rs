//! The claims that a smoke run has to bear out, by name.

use rollout_core::{Body, Level, WorkerId};
use rollout_process::Exit;

use super::{Evidence, Finding, Rule, WorkerWitness, timing};

const fn rule(name: &'static str, find: fn(&Evidence) -> Finding) -> Rule {
    Rule { name, excusable: false, find }
}

/// A claim that a starved machine may break.
const fn excusable(name: &'static str, find: fn(&Evidence) -> Finding) -> Rule {
    Rule { name, excusable: true, find }
}

pub(super) const ALL: &[Rule] = &[
    excusable("timeline", timeline),
    rule("failed-once", failed_once),
    rule("not-early", timing::not_early),
    excusable("in-time", timing::in_time),
    rule("epoch", epoch),
    rule("grep", grep),
    rule("plugins", plugins),
    excusable("w2-beats", timing::w2_beats),
    excusable("w2-untouched", w2_untouched),
    rule("w2-deregistered", w2_deregistered),
    rule("exits", exits),
    rule("clean", clean),
    rule("logs", logs),
    rule("dev-ca", dev_ca),
    rule("nothing-left", nothing_left),
];

fn holds(ok: bool, detail: String) -> Finding {
    Some(if ok { Ok(detail) } else { Err(detail) })
}

/// All that is wrong, or what to say if nothing is.
fn none_of(wrong: Vec<String>, fine: impl FnOnce() -> String) -> Finding {
    Some(if wrong.is_empty() { Ok(fine()) } else { Err(wrong.join("; ")) })
}

fn timeline(evidence: &Evidence) -> Finding {
    let wrong = evidence.steps.iter().filter_map(|report| {
        let complaint = report.complaint()?;
        let first = complaint.lines().next().unwrap_or_default();
        Some(format!("{}: {first}", report.step.title()))
    });
    none_of(wrong.collect(), || format!("{} steps inside their budgets", evidence.steps.len()))
}

fn failed_once(evidence: &Evidence) -> Finding {
    evidence.kill?;
    let ours = timing::failures(evidence).count();
    let others: Vec<_> = evidence
        .coordinator
        .log
        .events()
        .filter(|event| event.body.topic() == "worker_failed")
        .filter_map(|event| event.worker_id.filter(|id| *id != evidence.w1.id))
        .map(|id| name(evidence, id))
        .collect();
    let mut detail = format!("worker_failed names w1 {ours} times");
    if !others.is_empty() {
        detail = format!("{detail} and also {}", others.join(", "));
    }
    if ours == 1 && others.is_empty() {
        detail = format!("worker_failed names w1 ({}) once and nobody else", evidence.w1.id);
    }
    holds(ours == 1 && others.is_empty(), detail)
}

fn name(evidence: &Evidence, id: WorkerId) -> String {
    if id == evidence.w2.id { "w2".to_owned() } else { id.to_string() }
}

fn epoch(evidence: &Evidence) -> Finding {
    let (_, failed) = timing::failures(evidence).next()?;
    let mut registered = evidence.about(evidence.w1.id).filter_map(|event| match &event.body {
        Body::WorkerRegistered(registered) => Some(registered.epoch),
        _ => None,
    });
    let last = registered.next_back();
    let detail = match last {
        Some(epoch) if epoch == failed.epoch => format!("{epoch}, as w1 registered"),
        Some(epoch) => format!("worker_failed says {}, w1 registered with {epoch}", failed.epoch),
        None => format!("worker_failed says {}, w1 never registered", failed.epoch),
    };
    holds(last == Some(failed.epoch), detail)
}

/// What `grep -E 'worker_failed.*<w1>'` prints.
fn grep(evidence: &Evidence) -> Finding {
    evidence.kill?;
    let id = evidence.w1.id.to_string();
    let lines = evidence.coordinator.log.lines().iter();
    let hits = lines
        .filter(|line| line.raw.split_once("worker_failed").is_some_and(|(_, r)| r.contains(&id)))
        .count();
    holds(hits == 1, format!("grep 'worker_failed.*{id}' prints {hits} lines, one is due"))
}

fn plugins(evidence: &Evidence) -> Finding {
    evidence.kill?;
    let mut wrong = Vec::new();
    for (worker, WorkerWitness { seen, .. }) in [("w1", &evidence.w1), ("w2", &evidence.w2)] {
        for plugin in &evidence.plugins {
            let loaded = seen.log.events().find_map(|event| match &event.body {
                Body::PluginLoaded(loaded) if loaded.name == *plugin => Some(loaded.plugin_id),
                _ => None,
            });
            let probed = seen.log.events().any(|event| match &event.body {
                Body::PluginProbed(probed) => {
                    probed.name == *plugin && Some(probed.plugin_id) == loaded
                }
                _ => false,
            });
            match (loaded, probed) {
                (Some(_), true) => {}
                (Some(_), false) => wrong.push(format!("{plugin} on {worker} answered no call")),
                (None, _) => wrong.push(format!("{plugin} is not loaded on {worker}")),
            }
        }
    }
    if evidence.plugins.is_empty() {
        wrong.push("the workers were given no plugin".to_owned());
    }
    none_of(wrong, || {
        let names = evidence.plugins.join(", ");
        format!("{names}: loaded on both workers, and answered")
    })
}

fn w2_untouched(evidence: &Evidence) -> Finding {
    evidence.kill?;
    let mut wrong: Vec<_> = evidence
        .about(evidence.w2.id)
        .chain(evidence.w2.seen.log.events())
        .map(|event| event.body.topic())
        .filter(|topic| {
            ["suspected", "recovered", "failed", "fenced", "rejected", "resumed"]
                .iter()
                .any(|word| topic.strip_prefix("worker_") == Some(word))
        })
        .map(|topic| format!("{topic}(w2)"))
        .collect();
    let topics = evidence.about(evidence.w2.id).map(|event| event.body.topic());
    let registered = topics.filter(|topic| *topic == "worker_registered").count();
    if registered != 1 {
        wrong.push(format!("w2 registered {registered} times"));
    }
    none_of(wrong, || "w2 registered once, was never suspected, fenced or failed".to_owned())
}

fn w2_deregistered(evidence: &Evidence) -> Finding {
    let stop = evidence.w2_stop?;
    let left: Vec<_> = evidence
        .coordinator
        .log
        .events()
        .filter(|event| matches!(event.body, Body::WorkerDeregistered(_)))
        .collect();
    match left.as_slice() {
        [event] if event.worker_id == Some(evidence.w2.id) && event.mono >= stop => {
            let took = event.mono.since(stop).as_secs_f64() * 1e3;
            Some(Ok(format!("w2 deregistered {took:.0} ms after its SIGTERM")))
        }
        [event] if event.worker_id == Some(evidence.w2.id) => {
            Some(Err("w2 deregistered before it was asked to end".to_owned()))
        }
        [] => Some(Err("no worker_deregistered for w2".to_owned())),
        _ => Some(Err(format!("{} worker_deregistered, one is due: for w2", left.len()))),
    }
}

fn exits(evidence: &Evidence) -> Finding {
    let clean = Exit { code: Some(0), signal: None };
    let killed = Exit { code: None, signal: Some(9) };
    let w1 = if evidence.kill.is_some() { killed } else { clean };
    let mut wrong = Vec::new();
    for ((name, seen), due) in evidence.processes().into_iter().zip([clean, w1, clean]) {
        if let Some(exit) = seen.exit.filter(|exit| *exit != due) {
            wrong.push(format!("{name} {exit}, not as due: {due}"));
        }
        for event in seen.log.events() {
            if let Body::PluginExited(exited) = &event.body
                && !exited.expected
            {
                wrong.push(format!("the sidecar of {} ended under {name}", exited.name));
            }
        }
    }
    none_of(wrong, || "w1 died of the kill, coordinator and w2 exited with 0".to_owned())
}

/// No panic, no error save the one that is the point of the run, and nothing on standard error save
/// the announcement of the CA.
fn clean(evidence: &Evidence) -> Finding {
    let mut wrong = Vec::new();
    for (name, seen) in evidence.processes() {
        let raw = seen.log.lines().iter().map(|line| line.raw.as_str());
        let panics = raw.filter(|line| line.contains("panicked at"));
        let said = seen.stderr.lines().filter(|line| Some(*line) != evidence.ca_line.as_deref());
        wrong.extend(panics.chain(said).map(|line| format!("{name}: {line}")));
        for event in seen.log.events().filter(|event| event.level == Level::Error) {
            let awaited = matches!(event.body, Body::WorkerFailed(_))
                && event.worker_id == Some(evidence.w1.id);
            if !awaited {
                let text = event.message.as_deref().unwrap_or_default();
                wrong.push(format!("{name}: error line {} {text}", event.body.topic()));
            }
        }
    }
    none_of(wrong, || "no panic and no error line, save worker_failed(w1)".to_owned())
}

/// Every line is an event of this run, and none is missing; only the killed worker may have been
/// cut off within a line.
fn logs(evidence: &Evidence) -> Finding {
    let mut wrong = Vec::new();
    let mut lines = 0;
    for (name, seen) in evidence.processes() {
        lines += seen.log.lines().len();
        for (number, line) in (1..).zip(seen.log.lines()) {
            match &line.event {
                Err(why) => wrong.push(format!("{name}.log:{number} is no event: {why}")),
                Ok(event) if event.run_id.is_some_and(|run| run != evidence.run) => {
                    wrong.push(format!("{name}.log:{number} is of another run"));
                }
                Ok(event) if event.seq != number => {
                    wrong.push(format!("{name}.log:{number} has seq {}", event.seq));
                }
                Ok(_) => {}
            }
        }
        if seen.log.torn().is_some() && name != "w1" {
            wrong.push(format!("{name}.log ends within a line"));
        }
    }
    none_of(wrong, || format!("{lines} lines, each an event of this run, none missing"))
}

fn dev_ca(evidence: &Evidence) -> Finding {
    let due = evidence.ca_line.as_ref()?;
    evidence.kill?;
    let said = evidence.processes().map(|(_, seen)| seen.stderr.matches(due.as_str()).count());
    holds(
        said == [1, 0, 0],
        match said {
            [1, 0, 0] => format!("the coordinator said once: {due}"),
            [c, a, b] => format!("`{due}` on standard error: coord {c}, w1 {a}, w2 {b} times"),
        },
    )
}

fn nothing_left(evidence: &Evidence) -> Finding {
    none_of(evidence.leftovers.clone(), || "no process, socket or lock".to_owned())
}
