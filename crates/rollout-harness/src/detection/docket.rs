//! What is known of each worker's death, and whether the coordinator said what it has to say.

use std::collections::BTreeMap;

use rollout_core::duration::as_ms;
use rollout_core::{Body, Event, Mono, TimeBudget, WorkerId};

/// How a worker fares, as far as is known from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Started; its first beat is awaited.
    Awaited,
    /// It beats.
    Living {
        /// Its epoch.
        epoch: u64,
    },
    /// It was killed.
    Killed {
        /// The epoch that is to fail.
        epoch: u64,
        /// When.
        at: Mono,
        /// Whether it has been suspected since.
        suspected: bool,
    },
    /// Its failure was reported.
    Failed,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Workers killed.
    pub kills: usize,
    /// From each kill to `worker_suspected`, in milliseconds.
    pub suspected_ms: Vec<f64>,
    /// From each kill to `worker_failed`, in milliseconds.
    pub failed_ms: Vec<f64>,
    /// From each (credited) deadline to `worker_failed`, in milliseconds.
    pub overshoot_ms: Vec<f64>,
    /// Stalls that the coordinator reported of itself.
    pub stalls: usize,
    /// Promises that were broken, in words.
    pub wrong: Vec<String>,
}

/// The judge of a fleet whose workers are killed.
#[derive(Debug)]
pub struct Docket {
    budget: TimeBudget,
    workers: BTreeMap<WorkerId, (Phase, Mono)>,
    report: Report,
}

impl Docket {
    /// An empty one, for workers with this budget.
    #[must_use]
    pub fn new(budget: TimeBudget) -> Self {
        Self { budget, workers: BTreeMap::new(), report: Report::default() }
    }

    /// The worker is started.
    pub fn awaits(&mut self, id: WorkerId) {
        self.workers.insert(id, (Phase::Awaited, Mono::default()));
    }

    /// The worker was killed at `at`.
    pub fn killed(&mut self, id: WorkerId, at: Mono) {
        self.report.kills += 1;
        if let Some((phase, _)) = self.workers.get_mut(&id)
            && let Phase::Living { epoch } = *phase
        {
            *phase = Phase::Killed { epoch, at, suspected: false };
        }
    }

    /// How the worker fares; of one that was never started, as if it were awaited.
    #[must_use]
    pub fn phase(&self, id: WorkerId) -> Phase {
        self.workers.get(&id).map_or(Phase::Awaited, |(phase, _)| *phase)
    }

    /// What is known so far.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Everything that was to come has come.
    #[must_use]
    pub fn finish(self) -> Report {
        self.report
    }

    /// Something was not as it has to be.
    pub fn wrong(&mut self, what: String) {
        self.report.wrong.push(what);
    }

    /// Takes an event of the coordinator.
    pub fn hear(&mut self, event: &Event) {
        let complaint = match (&event.body, event.worker_id) {
            (Body::CoordinatorStalled(_), _) => {
                self.report.stalls += 1;
                None
            }
            (Body::WorkerHeartbeat(beat), Some(id)) => {
                self.beat(id, beat.epoch, event.mono);
                None
            }
            (Body::WorkerSuspected(body), Some(id)) => {
                let late = (body.reason != "connection_lost").then_some("its socket was closed");
                self.suspected(id, body.epoch, event.mono).or(late)
            }
            (Body::WorkerFailed(body), Some(id)) => {
                let said = (body.epoch, body.overshoot_ms, body.credited_ms);
                self.failed(id, said, event.mono)
            }
            _ => None,
        };
        if let Some(complaint) = complaint {
            self.wrong(format!("{complaint}: {event:?}"));
        }
    }

    fn beat(&mut self, id: WorkerId, epoch: u64, at: Mono) {
        if let Some((phase, beat)) = self.workers.get_mut(&id) {
            *beat = at;
            if *phase == Phase::Awaited {
                *phase = Phase::Living { epoch };
            }
        }
    }

    fn suspected(&mut self, id: WorkerId, of: u64, now: Mono) -> Option<&'static str> {
        match self.workers.get_mut(&id) {
            Some((Phase::Killed { epoch, at, suspected }, _)) if *epoch == of && now >= *at => {
                if std::mem::replace(suspected, true) {
                    return Some("suspected twice");
                }
                self.report.suspected_ms.push(as_ms(now.since(*at)));
                None
            }
            _ => Some("suspected, and nobody killed it"),
        }
    }

    fn failed(
        &mut self,
        id: WorkerId,
        (of, said_ms, credited_ms): (u64, f64, f64),
        now: Mono,
    ) -> Option<&'static str> {
        let Some((phase, beat)) = self.workers.get_mut(&id) else { return Some("of nobody") };
        let Phase::Killed { epoch, at, suspected } = *phase else {
            return Some("failed, and nobody killed it, or once more");
        };
        if epoch != of {
            return Some("failed in another epoch");
        }
        *phase = Phase::Failed;
        let deadline = self.budget.deadline(*beat);
        let late_ms = (now.0 as f64 - deadline.0 as f64) / 1e6 - credited_ms;
        self.report.failed_ms.push(as_ms(now.since(at)));
        self.report.overshoot_ms.push(late_ms);
        if late_ms <= 0.0 {
            return Some("failed too early");
        }
        if (late_ms - said_ms).abs() > 0.01 {
            return Some("the overshoot is not what it says");
        }
        (!suspected).then_some("failed, and was never suspected")
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rollout_core::Level;
    use rollout_core::event::{WorkerFailed, WorkerHeartbeat, WorkerSuspected};

    use super::*;

    const fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    fn worker() -> WorkerId {
        WorkerId::from_bytes([7; 16])
    }

    fn event(ms: u64, body: impl Into<Body>) -> Event {
        Event {
            seq: 1,
            at: SystemTime::UNIX_EPOCH,
            mono: at(ms),
            level: Level::Info,
            run_id: None,
            worker_id: Some(worker()),
            message: None,
            body: body.into(),
        }
    }

    fn suspected(ms: u64) -> Event {
        event(ms, WorkerSuspected { epoch: 3, reason: "connection_lost".into() })
    }

    fn missed(ms: u64) -> Event {
        event(ms, WorkerSuspected { epoch: 3, reason: "missed_beats".into() })
    }

    fn failed(ms: u64, epoch: u64, credited_ms: f64) -> Event {
        let overshoot_ms = (ms as f64) - 6_750.0 - credited_ms;
        let overdue_ms = 5_250.0 + credited_ms + overshoot_ms;
        event(ms, WorkerFailed { epoch, overdue_ms, overshoot_ms, credited_ms })
    }

    /// Beats at 1 s, is killed at 1.2 s, and then these events come.
    fn judged(events: &[Event]) -> Report {
        let mut docket = Docket::new(TimeBudget::default());
        docket.awaits(worker());
        docket.hear(&event(1_000, WorkerHeartbeat { epoch: 3, beat: 1 }));
        assert_eq!(docket.phase(worker()), Phase::Living { epoch: 3 });
        docket.killed(worker(), at(1_200));
        events.iter().for_each(|event| docket.hear(event));
        docket.finish()
    }

    #[test]
    fn a_death_reported_as_promised_is_measured_and_nothing_is_wrong() {
        let report = judged(&[suspected(1_210), failed(6_752, 3, 0.0)]);
        assert_eq!(report.wrong, [""; 0]);
        assert_eq!((report.suspected_ms, report.failed_ms), (vec![10.0], vec![5_552.0]));
        assert_eq!(report.overshoot_ms, [2.0]);
        let report = judged(&[suspected(1_210), failed(7_051, 3, 300.0)]);
        assert_eq!((report.wrong.len(), report.overshoot_ms), (0, vec![1.0]));
    }

    #[test]
    fn whatever_else_the_coordinator_says_is_wrong() {
        let good = [suspected(1_210), failed(6_752, 3, 0.0)];
        let mut overstated = failed(6_752, 3, 0.0);
        if let Body::WorkerFailed(body) = &mut overstated.body {
            body.overshoot_ms += 1.0;
        }
        for (events, complaint) in [
            (vec![suspected(1_210), failed(6_750, 3, 0.0)], "too early"),
            (vec![suspected(1_210), failed(6_800, 3, 100.0)], "too early"),
            (vec![suspected(1_210), failed(6_752, 2, 0.0)], "another epoch"),
            (vec![failed(6_752, 3, 0.0)], "never suspected"),
            (vec![suspected(1_100)], "nobody killed it"),
            (vec![suspected(1_210), suspected(1_220)], "suspected twice"),
            ([&good[..], &[failed(6_753, 3, 0.0)]].concat(), "once more"),
            (vec![suspected(1_210), overstated], "not what it says"),
            (vec![missed(2_500), failed(6_752, 3, 0.0)], "its socket was closed"),
        ] {
            let wrong = judged(&events).wrong;
            assert!(wrong.len() == 1 && wrong[0].contains(complaint), "{complaint}: {wrong:?}");
        }
    }

    #[test]
    fn a_late_beat_of_a_killed_worker_moves_its_deadline() {
        let beat = event(1_201, WorkerHeartbeat { epoch: 3, beat: 2 });
        let wrong = judged(&[beat, suspected(1_210), failed(6_752, 3, 0.0)]).wrong;
        assert!(wrong[0].contains("too early"), "{wrong:?}");
    }
}
