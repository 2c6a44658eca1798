//! The judge judged: made-up runs that are as they have to be, and each of them with one thing wrong.

use rollout_core::{JobId, PluginId, RunId, TimeBudget, WorkerId};

use super::*;
use crate::judge::Outcome;
use crate::log::Log;
use crate::record::{Fault, Life, Process, Role, What};
use crate::work::results::tests::lines;
use crate::work::schedule::{Act, Step};

const JOB: Job = Job { items: 8, seed: 7 };

const fn s(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000_000)
}

/// A coordinator's log that is being made up.
struct Says {
    text: String,
    job: JobId,
}

impl Says {
    fn event(&mut self, at: Mono, worker: Option<WorkerId>, topic: &str, attrs: &str) {
        let worker = worker.map(|id| format!("\"worker_id\":\"{id}\",")).unwrap_or_default();
        self.text += &format!(
            "{{\"seq\":1,\"ts\":\"2023-11-14T22:13:20.000001Z\",\"mono_ns\":{},\"level\":\"info\",\
             \"kind\":\"event\",\"topic\":\"{topic}\",\"run_id\":null,{worker}\"attrs\":{{{attrs}}}}}\n",
            at.0
        );
    }

    fn leased(&mut self, at: Mono, worker: WorkerId, first: u64, last: u64) {
        let items = last - first + 1;
        let attrs = format!(
            "\"job\":\"{}\",\"epoch\":1,\"items\":{items},\"ranges\":[[{first},{last}]]",
            self.job
        );
        self.event(at, Some(worker), "items_leased", &attrs);
    }

    fn committed(&mut self, at: Mono, first: u64, last: u64, dead: u64) {
        let items = last - first + 1;
        let attrs = format!(
            "\"job\":\"{}\",\"seq\":1,\"items\":{items},\"dead\":{dead},\
             \"ranges\":[[{first},{last}]]",
            self.job
        );
        self.event(at, None, "items_committed", &attrs);
    }

    fn released(&mut self, at: Mono, worker: WorkerId, first: u64, last: u64) {
        let items = last - first + 1;
        let attrs = format!(
            "\"job\":\"{}\",\"cause\":\"worker_suspected\",\"items\":{items},\
             \"ranges\":[[{first},{last}]]",
            self.job
        );
        self.event(at, Some(worker), "items_redispatched", &attrs);
    }
}

fn life(from: u64, to: u64, signal: Option<i32>) -> Life {
    let code = signal.is_none().then_some(0);
    Life { pid: 7, began: s(from), ended: Some(Ended { at: s(to), code, signal }) }
}

fn process(name: &str, role: Role, lives: Vec<Life>, log: &str) -> Process {
    let name = name.into();
    Process { name, role, lives, log: Log::from(log), stderr: String::new() }
}

fn fault(target: &str, what: What, began: u64, ended: Option<u64>) -> Fault {
    Fault { target: target.into(), what, began: s(began), ended: ended.map(s) }
}

fn seen(processes: Vec<Process>, faults: Vec<Fault>, runs: &[(u64, i32, u64)]) -> Seen {
    let record = Record {
        title: "a test".into(),
        run: RunId::generate(),
        timing: TimeBudget::default(),
        began: s(0),
        ended: s(100),
        processes,
        faults,
        harness_late: Duration::ZERO,
        leftovers: Vec::new(),
    };
    let runs = runs.iter().map(|(item, pid, at)| Execution { item: *item, pid: *pid, at: s(*at) });
    Seen {
        record,
        began: s(1),
        ended: Some(Ended { at: s(60), code: Some(0), signal: None }),
        stderr: String::new(),
        trouble: None,
        results: Some(lines(JOB).concat().into_bytes()),
        dead: Vec::new(),
        executions: Ok(runs.collect()),
    }
}

fn undisturbed() -> Seen {
    let w1 = WorkerId::generate();
    let mut says = Says { text: String::new(), job: JobId::generate() };
    says.leased(s(2), w1, 0, 7);
    says.committed(s(50), 0, 7, 0);
    let runs: Vec<_> = (0..8).map(|item| (item, 70, 3 + item)).collect();
    let processes = vec![
        process("coord", Role::Coordinator, vec![life(0, 90, None)], &says.text),
        process("w1", Role::Worker { id: w1 }, vec![life(0, 80, None)], ""),
    ];
    seen(processes, Vec::new(), &runs)
}

/// `w1` has the items 0 to 3, has run two of them and given one result when it is killed at 10 s; the
/// others go to `w2` at 11 s. `w2` is frozen from 20 to 30 s, the coordinator dies at 40 s, a sidecar
/// at 45 s.
fn disturbed() -> Seen {
    let [w1, w2] = [WorkerId::generate(), WorkerId::generate()];
    let mut says = Says { text: String::new(), job: JobId::generate() };
    says.leased(s(2), w1, 0, 3);
    says.leased(s(2), w2, 4, 7);
    says.committed(s(5), 0, 0, 0);
    says.released(s(11), w1, 1, 3);
    says.leased(s(11), w2, 1, 3);
    says.committed(s(12), 4, 6, 0);
    says.committed(s(48), 1, 3, 0);
    says.committed(s(50), 7, 7, 0);
    let runs = [
        (0, 71, 3),
        (1, 71, 4),
        (4, 72, 3),
        (5, 72, 4),
        (6, 72, 5),
        (7, 72, 6),
        (1, 72, 12),
        (2, 72, 13),
        (3, 72, 14),
    ];
    let kill = Some(9);
    let processes = vec![
        process(
            "coord",
            Role::Coordinator,
            vec![life(0, 40, kill), life(41, 90, None)],
            &says.text,
        ),
        process("w1", Role::Worker { id: w1 }, vec![life(0, 10, kill), life(15, 80, None)], ""),
        process("w2", Role::Worker { id: w2 }, vec![life(0, 80, None)], ""),
    ];
    let faults = vec![
        fault("w1", What::Kill, 10, None),
        fault("w1", What::Restart, 15, None),
        fault("w2", What::Stop, 20, Some(30)),
        fault("coord", What::Kill, 40, None),
        fault("coord", What::Restart, 41, None),
        fault("w2", What::KillSidecars, 45, None),
    ];
    seen(processes, faults, &runs)
}

fn schedule() -> Schedule {
    let absence = Duration::from_secs(1);
    let acts = [
        Act::KillWorker { fresh: false, absence },
        Act::Freeze { length: Duration::from_secs(10) },
        Act::KillCoordinator { absence },
        Act::KillSidecar,
    ];
    let step = |(n, act)| Step { at: Duration::from_secs(n), place: 0, act };
    Schedule { seed: 1, workers: 2, steps: (1..).zip(acts).map(step).collect() }
}

fn case() -> Case {
    Case {
        job: JOB,
        undisturbed: undisturbed(),
        disturbed: Some((schedule(), disturbed())),
        bounds: Bounds::default(),
    }
}

/// The checks that do not pass.
fn complaints(case: &Case) -> Vec<String> {
    let judgement = judge(case);
    let wrong = judgement.checks.iter().filter(|check| check.outcome != Outcome::Pass);
    let names: Vec<_> = wrong.map(|check| check.name.to_string()).collect();
    assert_eq!(judgement.outcome == Outcome::Pass, names.is_empty());
    names
}

fn with(change: impl FnOnce(&mut Schedule, &mut Seen)) -> Vec<String> {
    let mut case = case();
    if let Some((schedule, seen)) = &mut case.disturbed {
        change(schedule, seen);
    }
    complaints(&case)
}

fn edit(seen: &mut Seen, edit: impl FnOnce(&mut Vec<String>)) {
    let mut lines = lines(JOB);
    edit(&mut lines);
    seen.results = Some(lines.concat().into_bytes());
}

#[test]
fn two_runs_that_are_as_they_have_to_be_pass_and_say_what_was_looked_at() {
    assert_eq!(complaints(&case()), [""; 0]);
    let judgement = judge(&case());
    let detail = |name| judgement.check(name).unwrap().detail.clone();
    assert_eq!(
        detail("disturbed-results"),
        "8 items, 9 executions: 0 lost, 0 duplicate, 0 invented"
    );
    assert_eq!(detail("hit-work"), "1 of 1 killed workers had items, 3 in all");
    assert!(detail("faults").starts_with("1 workers killed, 1 sidecars, 1 coordinators, 1 frozen"));
}

#[test]
fn a_missing_a_doubled_and_a_changed_result_are_each_seen_twice_over() {
    let both = ["disturbed-results", "identical"];
    assert_eq!(with(|_, seen| edit(seen, |lines| drop(lines.remove(5)))), both);
    assert_eq!(with(|_, seen| edit(seen, |lines| lines.insert(5, lines[5].clone()))), both);
    let changed = |lines: &mut Vec<String>| lines[5] = lines[6].replace(":6,", ":5,");
    assert_eq!(with(|_, seen| edit(seen, changed)), both);
    assert_eq!(with(|_, seen| edit(seen, |lines| lines.swap(1, 2))), both);
    assert_eq!(with(|_, seen| seen.results = None), both);
}

#[test]
fn a_result_that_is_the_same_in_both_runs_and_wrong_is_seen() {
    let mut case = case();
    let changed = |lines: &mut Vec<String>| lines[5] = lines[6].replace(":6,", ":5,");
    edit(&mut case.undisturbed, changed);
    edit(&mut case.disturbed.as_mut().unwrap().1, changed);
    assert_eq!(complaints(&case), ["undisturbed-results", "disturbed-results"]);
}

#[test]
fn the_same_results_in_other_bytes_are_not_identical() {
    let spaced = |lines: &mut Vec<String>| lines[5] = lines[5].replace(":5,", ": 5,");
    assert_eq!(with(|_, seen| edit(seen, spaced)), ["identical"]);
}

#[test]
fn a_result_of_an_item_that_nobody_ran_is_invented() {
    let never = |_: &mut Schedule, seen: &mut Seen| {
        seen.executions.as_mut().unwrap().retain(|run| run.item != 7);
    };
    assert_eq!(with(never), ["disturbed-results"]);
    let torn = |_: &mut Schedule, seen: &mut Seen| seen.executions = Err("3 7".into());
    assert!(with(torn).contains(&"disturbed-results".to_owned()));
}

#[test]
fn a_dead_letter_and_a_client_that_complains_are_seen() {
    assert_eq!(with(|_, seen| seen.dead = b"{\"item\":3}\n".to_vec()), ["disturbed-dead"]);
    let undone = Ended { at: s(60), code: Some(75), signal: None };
    assert_eq!(with(|_, seen| seen.ended = Some(undone)), ["disturbed-ended"]);
    assert_eq!(with(|_, seen| seen.ended = None), ["disturbed-ended"]);
    assert_eq!(with(|_, seen| seen.trouble = Some("w2 exited".into())), ["disturbed-ended"]);
}

#[test]
fn a_fault_that_did_not_happen_or_did_not_last_fails() {
    for missing in [What::Kill, What::Stop, What::KillSidecars, What::Restart] {
        let found = with(|_, seen| {
            let at = seen.record.faults.iter().rposition(|fault| fault.what == missing).unwrap();
            seen.record.faults.remove(at);
        });
        assert!(found.contains(&"faults".to_owned()), "{missing:?}: {found:?}");
    }
    assert_eq!(with(|_, seen| seen.record.faults[2].ended = Some(s(29))), ["faults"]);
    let more = |schedule: &mut Schedule, _: &mut Seen| {
        let step = schedule.steps[3];
        schedule.steps.push(step);
    };
    assert_eq!(with(more), ["faults"]);
}

#[test]
fn a_run_that_ends_before_its_schedule_fails() {
    // The last fault falls after the last commit, though before the client's end.
    assert_eq!(with(|_, seen| seen.record.faults[5].began = s(55)), ["outlasted"]);
    // A fault after the client's end is none.
    let late = with(|_, seen| seen.record.faults[5].began = s(70));
    assert_eq!(late, ["faults"]);
    assert!(with(|_, seen| seen.record.faults.clear()).contains(&"outlasted".to_owned()));
}

#[test]
fn a_kill_that_took_nothing_along_shows_nothing() {
    assert_eq!(with(|_, seen| seen.record.faults[0].began = s(1)), ["hit-work"]);
}

#[test]
fn an_item_that_is_committed_twice_is_seen_in_the_coordinators_log() {
    let twice = |_: &mut Schedule, seen: &mut Seen| {
        let mut says = Says { text: String::new(), job: JobId::generate() };
        says.committed(s(49), 2, 2, 0);
        seen.record.processes[0].log.feed(says.text.as_bytes());
    };
    assert_eq!(with(twice), ["disturbed-ledger"]);
    assert_eq!(
        with(|_, seen| seen.record.processes[0].log = Log::default()),
        ["disturbed-ledger", "outlasted", "hit-work"]
    );
}

#[test]
fn a_process_that_ends_as_it_should_not_or_leaves_something_is_seen() {
    let exits = ["disturbed-exits"];
    let code = |code| Some(Ended { at: s(80), code: Some(code), signal: None });
    assert_eq!(with(|_, seen| seen.record.processes[2].lives[0].ended = code(70)), exits);
    assert_eq!(with(|_, seen| seen.record.processes[2].lives[0].ended = None), exits);
    assert_eq!(with(|_, seen| seen.record.leftovers.push("w1.db is locked".into())), exits);
    let killed = |_: &mut Schedule, seen: &mut Seen| {
        seen.record.faults.push(fault("w2", What::Kill, 79, None));
        seen.record.processes[2].lives[0].ended = life(0, 80, Some(9)).ended;
    };
    assert_eq!(with(killed), exits, "it had to be killed in the end");
}

#[test]
fn a_socket_may_be_left_by_a_worker_that_was_killed_while_its_sidecar_started_and_no_other() {
    let left = |seen: &mut Seen| {
        let first = "sidecars/1 is left".to_owned();
        seen.record.leftovers = vec![first];
    };
    // w1 has said of no plugin that it is there.
    assert_eq!(with(|_, seen| left(seen)), [""; 0]);
    let mut says = Says { text: String::new(), job: JobId::generate() };
    let plugin = PluginId::generate();
    let attrs = format!(
        "\"plugin_id\":\"{plugin}\",\"name\":\"digests\",\"method\":\"probe\",\"took_ms\":1.0"
    );
    says.event(s(3), None, "plugin_probed", &attrs);
    let up = |seen: &mut Seen| seen.record.processes[1].log.feed(says.text.as_bytes());
    let both = |_: &mut Schedule, seen: &mut Seen| {
        left(seen);
        up(seen);
    };
    assert_eq!(with(both), ["disturbed-exits"]);
    let again = |_: &mut Schedule, seen: &mut Seen| {
        left(seen);
        up(seen);
        seen.record.faults.push(fault("w1", What::KillSidecars, 9, None));
    };
    assert_eq!(with(again), ["faults"], "it was starting again");
}

#[test]
fn an_undisturbed_run_in_which_items_run_twice_fails_unless_the_machine_was_starved() {
    let mut case = case();
    case.undisturbed.executions.as_mut().unwrap().push(Execution { item: 3, pid: 70, at: s(30) });
    assert_eq!(complaints(&case), ["undisturbed-calm"]);
    assert_eq!(judge(&case).outcome, Outcome::Fail);
    case.undisturbed.record.harness_late = Duration::from_secs(1);
    assert_eq!(judge(&case).outcome, Outcome::Inconclusive);
}

/// Puts lines behind the first `before` ones.
fn insert(log: &mut Log, before: usize, text: &str) {
    let mut lines: Vec<_> = log.lines().iter().map(|line| format!("{}\n", line.raw)).collect();
    lines.insert(before, text.to_owned());
    *log = Log::from(lines.concat().as_str());
}

#[test]
fn the_figures_say_how_soon_each_item_of_a_killed_worker_ran_elsewhere() {
    let figures = judge(&case()).figures;
    assert_eq!(figures.leased_ms(true), [1_000.0; 3]);
    assert_eq!(figures.ran_ms(true), [2_000.0, 3_000.0, 4_000.0]);
    assert_eq!(figures.ran_ms(false), [0.0; 0]);
    assert_eq!(figures.redispatched["worker_suspected"], 3);
    // What the next worker loses as well says nothing of this one.
    let mut twice = case();
    let (_, seen) = twice.disturbed.as_mut().unwrap();
    let w2 = seen.record.processes[2].worker().unwrap();
    let w1 = seen.record.processes[1].worker().unwrap();
    let mut says = Says { text: String::new(), job: JobId::generate() };
    says.released(Mono(11_500_000_000), w2, 2, 3);
    says.leased(Mono(11_600_000_000), w1, 2, 3);
    insert(&mut seen.record.processes[0].log, 5, &says.text);
    let kill = judge(&twice).figures.kills.remove(0);
    assert_eq!((kill.held, kill.lost_again, kill.ran_ms), (3, 2, vec![2_000.0]));
    // A result that was on its way already is not lost.
    let mut case = case();
    let (_, seen) = case.disturbed.as_mut().unwrap();
    let mut says = Says { text: String::new(), job: JobId::generate() };
    says.committed(Mono(10_001_000_000), 1, 1, 0);
    insert(&mut seen.record.processes[0].log, 3, &says.text);
    assert_eq!(judge(&case).figures.kills[0].held, 2);
}

#[test]
fn bounds_are_asked_of_the_figures_where_they_are_given() {
    let mut case = case();
    case.bounds = Bounds { ran_p99: Some(Duration::from_secs(5)), cost_percent: Some(1.0) };
    assert_eq!(complaints(&case), [""; 0]);
    case.bounds.ran_p99 = Some(Duration::from_secs(3));
    assert_eq!(complaints(&case), ["run-elsewhere"]);
    case.disturbed.as_mut().unwrap().1.ended =
        Some(Ended { at: s(63), code: Some(0), signal: None });
    assert_eq!(complaints(&case), ["run-elsewhere", "cost"]);
    assert!((judge(&case).figures.cost_percent - 100.0 * 3.0 / 59.0).abs() < 1e-9);
}

#[test]
fn a_lease_that_is_said_again_is_neither_a_grant_nor_a_move() {
    let mut case = case();
    let w1 = case.undisturbed.record.processes[1].worker().unwrap();
    let mut says = Says { text: String::new(), job: JobId::generate() };
    says.leased(s(3), w1, 0, 7);
    let log = &mut case.undisturbed.record.processes[0].log;
    insert(log, 1, &says.text);
    insert(log, 3, &says.text);
    assert_eq!(complaints(&case), [""; 0]);
    assert_eq!(Ledger::of(&case.undisturbed.record).granted, 8);
}
