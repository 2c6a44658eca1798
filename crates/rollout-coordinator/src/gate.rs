//! What a session's beats pass before they are acknowledged.
//!
//! The session's own task acknowledges a beat as soon as it is on its way to the engine, which books
//! it later, together with others. For a worker this is the same as if the engine had booked it at
//! once, since a verdict closes the gate first, and closes it only when the engine has booked all
//! that has passed: whoever is acknowledged is not declared failed for want of that beat.

use std::sync::atomic::{AtomicU64, Ordering};

const CLOSED: u64 = 1;
const BEAT: u64 = 2;

/// The gate of one session.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// The beats that have passed, and in the lowest bit whether the gate is closed.
    passed: AtomicU64,
    /// The newest beat that is on disk.
    durable: AtomicU64,
}

impl Gate {
    /// Lets a beat pass, which then has to reach the engine. False once the gate is closed.
    pub(crate) fn pass(&self) -> bool {
        #[cfg(feature = "faults")]
        if rollout_core::faults::epoch_check_is_off() {
            self.passed.fetch_add(BEAT, Ordering::AcqRel);
            return true;
        }
        let open = |passed| (passed & CLOSED == 0).then_some(passed + BEAT);
        self.passed.fetch_update(Ordering::AcqRel, Ordering::Acquire, open).is_ok()
    }

    /// Closes it, unless more beats than the `booked` have passed. Whether it is closed, and nothing
    /// that has passed is still on its way.
    pub(crate) fn close_after(&self, booked: u64) -> bool {
        #[cfg(feature = "faults")]
        if rollout_core::faults::epoch_check_is_off() {
            // The beats of whichever session are booked as this one's.
            return true;
        }
        let passed = booked * BEAT;
        let closing = self.passed.compare_exchange(
            passed,
            passed | CLOSED,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        closing.is_ok() || closing.is_err_and(|found| found == passed | CLOSED)
    }

    /// Closes it. What has passed and is not booked yet still counts, unless another session has taken
    /// the place of this one.
    pub(crate) fn close(&self) {
        self.passed.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// The newest beat that is on disk; 0 before the first.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Relaxed)
    }

    /// A beat is on disk.
    pub(crate) fn is_durable(&self, beat: u64) {
        self.durable.store(beat, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn it_closes_once_all_that_passed_is_booked_and_then_nothing_passes() {
        let gate = Gate::default();
        assert!(gate.pass() && gate.pass());
        assert!(!gate.close_after(0) && !gate.close_after(1));
        assert!(gate.pass());
        assert!(gate.close_after(3) && gate.close_after(3));
        assert!(!gate.pass());
    }

    #[test]
    fn closed_by_the_session_it_lets_nothing_pass_and_what_has_passed_is_still_waited_for() {
        let gate = Gate::default();
        assert!(gate.pass());
        gate.close();
        assert!(!gate.pass());
        assert!(!gate.close_after(0) && gate.close_after(1));
    }

    /// As a session and the engine use it, on two threads. The session waits until its beat is booked,
    /// so that the next one passes just when the gate is to be closed.
    #[test]
    fn nothing_that_passed_is_left_unbooked_when_it_closes() {
        for _ in 0..1_000 {
            let (gate, (tell, told), (done, next)) =
                (Gate::default(), mpsc::channel(), mpsc::channel());
            thread::scope(|scope| {
                let gate = &gate;
                scope.spawn(move || {
                    while gate.pass() {
                        tell.send(()).unwrap();
                        while next.try_recv() == Err(mpsc::TryRecvError::Empty) {
                            thread::yield_now();
                        }
                    }
                    drop(tell);
                });
                let mut booked = 0;
                while booked < 5 || !gate.close_after(booked) {
                    for () in told.recv().into_iter().chain(told.try_iter()) {
                        booked += 1;
                        done.send(()).unwrap();
                    }
                }
                drop(done);
                assert_eq!(told.iter().count(), 0, "acknowledged, and counted for nothing");
            });
        }
    }
}
