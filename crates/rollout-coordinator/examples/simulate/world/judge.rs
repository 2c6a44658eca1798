//! What is checked: each verdict when it falls, and everything in the end.

use std::time::Duration;

use rollout_coordinator::watchdog::{TICK, TOLERATED};
use rollout_core::WorkerId;

use super::{Fate, STEP, World, number};

impl World {
    pub(super) fn verdict(
        &mut self,
        of: WorkerId,
        epoch: u64,
        said: (Duration, Duration, Duration),
    ) {
        self.report.failed += 1;
        let (overdue, overshoot, credited) = said;
        let (looked, credited_then) = self.looked;
        // It was not yet due when the coordinator last looked.
        let late = self.now.since(looked).saturating_sub(self.credited - credited_then);
        let Some(worker) = self.workers.get_mut(number(of)) else {
            return self.wrong(format!("{of} failed, and is nobody"));
        };
        let deadline = self.budget.deadline(worker.accepted) + (self.credited - worker.credited);
        let first = !std::mem::replace(&mut worker.failed, true);
        let sound = self.now > deadline
            && self.now.since(deadline) == overshoot
            && overshoot <= late
            && overdue == self.budget.tolerance() + credited + overshoot
            && credited == self.credited - worker.credited
            && first
            && worker.fate != Fate::Alive
            && u64::from(worker.epoch) == epoch;
        let worker = *worker;
        if !sound {
            self.wrong(format!("{of}, epoch {epoch}: {said:?}, at most {late:?} of {worker:?}"));
        }
        let greatest = match late > STEP {
            true => &mut self.report.stopped_overshoot,
            false => &mut self.report.overshoot,
        };
        *greatest = overshoot.max(*greatest);
        if worker.fate == Fate::Dead {
            self.replace(number(of) as u32);
        }
    }

    /// In the end everybody dead has failed, and nobody else.
    pub(super) fn judge(&mut self) {
        let report = &self.report;
        let (stops, stalls) = (report.stops, report.stalls);
        let most = stops + report.doubtful;
        let missed = report.killed - report.replaced;
        let harmed = self.workers.iter().filter(|w| w.failed).count();
        if missed > 0 || harmed > 0 {
            self.wrong(format!("{missed} dead did not fail, {harmed} alive did"));
        }
        if !(stops..=most).contains(&stalls) {
            self.wrong(format!("{stops} to {most} stops, {stalls} reported"));
        }
        if self.said != self.credited {
            self.wrong(format!("{:?} credited, {:?} reported", self.credited, self.said));
        }
        if self.report.stopped_overshoot > TICK + TOLERATED {
            self.wrong(format!("late by {:?}, no stall", self.report.stopped_overshoot));
        }
        if self.liveness.live() != self.workers.len() {
            self.wrong(format!("{} live of {}", self.liveness.live(), self.workers.len()));
        }
    }

    pub(super) fn wrong(&mut self, what: String) {
        if self.report.wrong.len() < 20 {
            self.report.wrong.push(what);
        }
    }
}
