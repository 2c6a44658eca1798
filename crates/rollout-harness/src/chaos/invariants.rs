//! What must hold whatever is done to a fleet: a pure function from a record to checks.
//!
//! Two sides meet here. What the processes say is the [`Story`]; what really was is the [`Truth`],
//! from the harness's own instants. Each check says how much it looked at; one that every run has
//! something for fails when it finds nothing, the others are left out then.

mod deaths;
mod fences;
mod order;
mod returns;
mod suspicion;
mod verdicts;

use std::time::Duration;

use rollout_core::duration::as_ms;
use rollout_core::{Body, Mono};
use serde::Serialize;

use super::story::Story;
use super::truth::Truth;
use crate::judge::{Check, LATENESS_LIMIT, late, lost};
use crate::record::{Process, Record};

/// What a scheduler may cost that is not late enough to be reported as a stall.
pub const SLACK: Duration = Duration::from_millis(250);
/// A coordinator suspects who hangs up within this.
pub const SUSPECTED_WITHIN: Duration = Duration::from_millis(100);

/// How a record comes out.
pub type Judgement = crate::judge::Judgement<Figures>;

/// What was counted and measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// Beats that the coordinators accepted.
    pub beats: usize,
    /// Terms.
    pub terms: usize,
    /// Verdicts.
    pub verdicts: usize,
    /// From each deadline to its verdict, in milliseconds, in order of size.
    pub overshoot_ms: Vec<f64>,
    /// From each hanging up to its suspicion, in milliseconds, in order of size.
    pub suspicion_ms: Vec<f64>,
}

/// What a rule finds: that its claim holds, or not, or (`None`) that there is nothing to look at.
type Finding = Option<Result<String, String>>;

/// What the rules look at.
struct Case<'a> {
    record: &'a Record,
    truth: Truth<'a>,
    story: Story<'a>,
}

/// A claim about a record.
struct Rule {
    name: &'static str,
    excuse: Excuse,
    find: fn(&Case<'_>) -> Finding,
}

/// What excuses a failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excuse {
    Nothing,
    /// That the harness was late. Not what the coordinator says of itself: that would excuse all
    /// that it does wrong.
    Harness,
    /// Any sign that the machine was starved.
    Starving,
}

const fn rule(name: &'static str, find: fn(&Case<'_>) -> Finding) -> Rule {
    Rule { name, excuse: Excuse::Nothing, find }
}

/// A claim that a starved machine may break.
const fn excusable(name: &'static str, find: fn(&Case<'_>) -> Finding) -> Rule {
    Rule { name, excuse: Excuse::Starving, find }
}

const RULES: &[Rule] = &[
    rule("streams", order::streams),
    rule("terms", order::terms),
    rule("epochs", order::epochs),
    rule("stale-beats", order::stale_beats),
    rule("ghosts", order::ghosts),
    rule("durable", order::durable),
    rule("recovery-pairs", order::pairs),
    rule("deaths", deaths::deaths),
    rule("failed-once", verdicts::once),
    rule("not-early", verdicts::not_early),
    excusable("in-time", verdicts::in_time),
    rule("none-missing", verdicts::none_missing),
    Rule { name: "no-false-failure", excuse: Excuse::Harness, find: verdicts::no_false_failure },
    rule("stall-credit", verdicts::stall_credit),
    excusable("fenced-first", fences::fenced_first),
    excusable("fence-in-time", fences::in_time),
    excusable("no-false-fence", fences::no_false_fence),
    excusable("suspected-in-time", suspicion::in_time),
    excusable("serves", returns::serves),
    excusable("comes-back", returns::comes_back),
    rule("exits", order::exits),
    rule("nothing-left", order::nothing_left),
];

/// Judges a record.
///
/// A starved machine (the harness was late, the coordinator reports a stall that nobody caused, a
/// stream lost lines) makes it inconclusive, and excuses only what starving can cause.
#[must_use]
pub fn judge(record: &Record) -> Judgement {
    let truth = Truth::of(record);
    let story = Story::of(record, &truth);
    let case = Case { record, truth, story };
    let starved = case.starved();
    let mut checks = vec![Check::conditions(&starved, || case.calm())];
    checks.extend(RULES.iter().filter_map(|rule| {
        let excused = case.excuses(rule, &starved);
        Some(Check::found(rule.name, (rule.find)(&case)?, excused))
    }));
    Judgement::of(checks, case.figures())
}

/// All that is wrong, a few of many, or what to say if nothing is.
fn none_of(wrong: Vec<String>, fine: impl FnOnce() -> String) -> Finding {
    const SHOWN: usize = 4;
    if wrong.is_empty() {
        return Some(Ok(fine()));
    }
    let more = match wrong.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let shown: Vec<_> = wrong.into_iter().take(SHOWN).collect();
    Some(Err(shown.join("; ") + &more))
}

impl Case<'_> {
    /// An instant for people: seconds since the record began.
    fn at(&self, at: Mono) -> String {
        format!("{:.3} s", at.since(self.record.began).as_secs_f64())
    }

    /// The name of a worker.
    fn name(&self, worker: rollout_core::WorkerId) -> String {
        let mut workers = self.record.workers();
        let named = workers.find(|(_, id)| *id == worker);
        named.map_or_else(|| worker.to_string(), |(process, _)| process.name.clone())
    }

    /// The time from the last beat of a worker to its failure.
    fn deadline(&self) -> Duration {
        self.record.timing.deadline(Mono(0)).since(Mono(0))
    }

    /// Whether one and the same coordinator ran, and was not stopped, from `from` to `to`.
    fn served(&self, from: Mono, to: Mono) -> bool {
        let Some(coordinator) = self.record.coordinator() else { return false };
        let runs = |term: &super::story::Term| term.started <= from && to <= term.until;
        self.story.terms.iter().any(runs) && !self.truth.stopped(coordinator).touch(from, to)
    }

    /// How long the coordinator was stopped between two instants.
    fn coordinator_stopped(&self, from: Mono, to: Mono) -> Duration {
        let coordinator = self.record.coordinator();
        coordinator.map(|it| self.truth.stopped(it).within(from, to)).unwrap_or_default()
    }

    /// Whether anything of this kind was done to a worker.
    fn done_to_workers(&self, fits: impl Fn(&Process, &crate::record::Fault) -> bool) -> bool {
        self.record.workers().any(|(process, _)| {
            self.record.faults_of(&process.name).any(|fault| fits(process, fault))
        })
    }

    fn excuses(&self, rule: &Rule, starved: &[String]) -> bool {
        match rule.excuse {
            Excuse::Nothing => false,
            Excuse::Harness => self.record.harness_late > LATENESS_LIMIT,
            Excuse::Starving => !starved.is_empty(),
        }
    }

    /// What kept the record from showing anything, in words.
    fn starved(&self) -> Vec<String> {
        let mut reasons = Vec::from_iter(late(self.record.harness_late));
        let events = self.story.streams.iter().flat_map(|stream| &stream.events);
        for event in events {
            match &event.body {
                Body::CoordinatorStalled(stall) => {
                    let stall = Duration::try_from_secs_f64(stall.ms / 1e3).unwrap_or_default();
                    let unexplained = self.unexplained(event.mono, stall);
                    if unexplained > SLACK * 2 {
                        reasons.push(format!(
                            "the coordinator stalled for {:.0} ms at {}, and nobody had stopped it",
                            as_ms(unexplained),
                            self.at(event.mono)
                        ));
                    }
                }
                Body::LinesDropped(lines) => reasons.push(lost(lines)),
                _ => {}
            }
        }
        reasons
    }

    /// How much of a stall reported at `at` is more than the coordinator was stopped for.
    fn unexplained(&self, at: Mono, stall: Duration) -> Duration {
        let from = at.before(stall + SLACK * 4);
        stall.saturating_sub(self.coordinator_stopped(from, at))
    }

    /// That nothing did.
    fn calm(&self) -> String {
        let late = as_ms(self.record.harness_late);
        format!("no stall that nobody caused, harness at most {late:.0} ms late")
    }

    fn figures(&self) -> Figures {
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values
        };
        let overshoot = self.story.verdicts().map(|(_, failed)| failed.overshoot_ms);
        let overshoot_ms = sorted(overshoot.collect());
        let looked = |promise: &str| self.story.looked.get(promise).copied().unwrap_or_default();
        Figures {
            beats: looked("stale"),
            terms: self.story.terms.len(),
            verdicts: overshoot_ms.len(),
            overshoot_ms,
            suspicion_ms: sorted(suspicion::latencies(self)),
        }
    }

    /// The contradictions of the story that break this promise, or how many things kept it.
    fn told(&self, promise: &'static str, what: &str) -> Finding {
        let wrong = self.story.contradictions.iter().filter(|(broken, _)| *broken == promise);
        let wrong: Vec<_> = wrong.map(|(_, what)| self.named(what)).collect();
        let looked = self.story.looked.get(promise).copied().unwrap_or_default();
        none_of(wrong, || format!("{looked} {what}"))
    }

    /// A text with names in place of ids.
    fn named(&self, text: &str) -> String {
        self.record.workers().fold(text.to_owned(), |text, (process, id)| {
            text.replace(&id.to_string(), &process.name)
        })
    }
}
