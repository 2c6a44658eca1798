//! Draws a schedule: a lane for each process and for each link, every lane one thing after the
//! other, the lanes beside each other.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rollout_core::{Mono, TimeBudget};

use super::{Act, Schedule, ScheduleError, Step, Target};

/// What is drawn from a seed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The same seed, the same schedule.
    pub seed: u64,
    /// How many workers there are.
    pub workers: usize,
    /// How long the run lasts.
    pub length: Duration,
    /// Everybody's time budget.
    pub timing: TimeBudget,
    /// Whether disks can be stalled.
    pub disk: bool,
    /// Whether workers have sidecars.
    pub sidecars: bool,
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The time from the last beat of a worker to its failure.
pub(super) fn deadline(timing: &TimeBudget) -> Duration {
    timing.deadline(Mono(0)).since(Mono(0))
}

/// The end of a run, in which nothing is done any more: every deadline passes.
pub(super) fn quiet(timing: &TimeBudget) -> Duration {
    deadline(timing) + ms(1_000)
}

impl Plan {
    /// Draws the schedule.
    ///
    /// # Errors
    /// When a number is out of its range, or the time budget is not sound.
    pub fn draw(&self) -> Result<Schedule, ScheduleError> {
        let Self { seed, workers, length, timing, .. } = *self;
        let mut schedule = Schedule { seed, workers, length, timing, steps: Vec::new() };
        schedule.check()?;
        schedule.steps = self.steps();
        Ok(schedule)
    }

    fn steps(&self) -> Vec<Step> {
        let until = self.length.saturating_sub(quiet(&self.timing));
        let mut steps = Vec::new();
        let mut free = vec![ms(300); self.workers + 1];
        self.opening(until, &mut steps, &mut free);
        self.coordinator(until, free[0], &mut steps);
        for (number, from) in (1..).zip(free.into_iter().skip(1)) {
            self.process(number, from, until, &mut steps);
            self.link(number, from, until, &mut steps);
        }
        steps.sort_by_key(|step: &Step| step.at);
        steps
    }

    /// What a run must have so that no broken promise survives it: a worker that is cut off beyond
    /// its deadline, with a coordinator that runs; one that is frozen beyond it; one that dies and
    /// is awaited in vain; one that dies just before the coordinator is stopped for longer than any
    /// deadline; and a coordinator that dies. Left out where there is no time for it. `free` says
    /// from when the lanes are free.
    fn opening(&self, until: Duration, steps: &mut Vec<Step>, free: &mut [Duration]) {
        let deadline = deadline(&self.timing);
        let stop = ms(200) + deadline + ms(2_000);
        let resume = stop + deadline + ms(700);
        let kill = resume + ms(2_200);
        let start = kill + ms(200);
        if start > until {
            return;
        }
        let back = deadline + ms(1_000);
        let first = self.lane(0).random_range(0..self.workers);
        for (place, (done, act), (undone, undo)) in [
            (0, (ms(200), Act::BlackHole), (back, Act::Heal)),
            (1, (ms(400), Act::Stop), (back, Act::Continue)),
            (2, (ms(600), Act::Kill), (back, Act::Start)),
            (3, (stop - ms(300), Act::Kill), (kill - ms(300), Act::Start)),
        ] {
            // With three workers, the same one dies twice.
            let place = if self.workers == 3 { place.min(2) } else { place };
            if place >= self.workers {
                break;
            }
            let number = (first + place) % self.workers + 1;
            let target = Target::Worker(number);
            steps.extend([Step { at: done, target, act }, Step { at: undone, target, act: undo }]);
            free[number] = kill;
        }
        let target = Target::Coordinator;
        steps.extend([
            Step { at: stop, target, act: Act::Stop },
            Step { at: resume, target, act: Act::Continue },
            Step { at: kill, target, act: Act::Kill },
            Step { at: start, target, act: Act::Start },
        ]);
        free[0] = start + deadline;
    }

    /// The random numbers of a lane, its own, so that no lane depends on what another drew.
    fn lane(&self, lane: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(lane))
    }

    fn coordinator(&self, until: Duration, from: Duration, steps: &mut Vec<Step>) {
        let mut lane = Lane::new(self.lane(1), Target::Coordinator, from, until);
        let deadline = deadline(&self.timing);
        while lane.pause(deadline, deadline * 4) {
            match lane.random.random_range(0..if self.disk { 8 } else { 6 }) {
                0..3 => {
                    let absence = lane.between(ms(50), ms(1_000));
                    lane.fault(Act::Kill, absence, Act::Start);
                }
                3..6 => {
                    let stop = lane.log_between(ms(200), ms(5_000));
                    lane.fault(Act::Stop, stop, Act::Continue);
                }
                _ => {
                    let stall = lane.between(ms(500), ms(3_000));
                    lane.fault(Act::StallDisk, stall, Act::FreeDisk);
                }
            }
        }
        lane.into_steps(steps);
    }

    fn process(&self, number: usize, from: Duration, until: Duration, steps: &mut Vec<Step>) {
        let random = self.lane(2 * number as u64);
        let mut lane = Lane::new(random, Target::Worker(number), from, until);
        let deadline = deadline(&self.timing);
        while lane.pause(deadline / 3, deadline * 5 / 2) {
            match lane.random.random_range(0..16) {
                0..5 => {
                    let absence = lane.absence(deadline);
                    lane.fault(Act::Kill, absence, Act::Start);
                }
                5..7 => {
                    let absence = lane.between(ms(300), ms(1_500));
                    lane.fault(Act::Terminate, absence, Act::Start);
                }
                7..12 => {
                    let stop = lane.log_between(ms(100), ms(10_000));
                    lane.fault(Act::Stop, stop, Act::Continue);
                }
                12..14 => {
                    let (stop, absence) =
                        (lane.log_between(ms(100), deadline * 2), lane.absence(deadline));
                    lane.act(Act::Stop, stop);
                    lane.fault(Act::Kill, absence, Act::Start);
                }
                14 if self.disk => {
                    let stall = lane.between(ms(500), ms(3_000));
                    lane.fault(Act::StallDisk, stall, Act::FreeDisk);
                }
                _ if self.sidecars => lane.act(Act::KillSidecars, Duration::ZERO),
                _ => {}
            }
        }
        lane.into_steps(steps);
    }

    fn link(&self, number: usize, from: Duration, until: Duration, steps: &mut Vec<Step>) {
        let random = self.lane(2 * number as u64 + 1);
        let mut lane = Lane::new(random, Target::Worker(number), from, until);
        let deadline = deadline(&self.timing);
        while lane.pause(deadline, deadline * 5) {
            let length = lane.log_between(ms(100), deadline * 3);
            let act = match lane.random.random_range(0..10) {
                0..3 => Act::Cut,
                3..7 => Act::BlackHole,
                7..9 => Act::Delay { by: lane.between(ms(1), ms(20)) },
                _ => Act::Delay { by: lane.between(ms(100), ms(800)) },
            };
            lane.fault(act, length, Act::Heal);
        }
        lane.into_steps(steps);
    }
}

/// One thing after the other.
struct Lane {
    random: StdRng,
    target: Target,
    now: Duration,
    until: Duration,
    steps: Vec<Step>,
}

impl Lane {
    fn new(random: StdRng, target: Target, from: Duration, until: Duration) -> Self {
        Self { random, target, now: from, until, steps: Vec::new() }
    }

    /// Nothing for a while; whether there is time for more after it.
    fn pause(&mut self, least: Duration, most: Duration) -> bool {
        let pause = self.between(least, most);
        self.now += pause;
        self.now < self.until
    }

    fn act(&mut self, act: Act, then: Duration) {
        self.steps.push(Step { at: self.now, target: self.target, act });
        self.now = (self.now + then).min(self.until);
    }

    /// Does something and undoes it.
    fn fault(&mut self, act: Act, length: Duration, undo: Act) {
        self.act(act, length);
        self.act(undo, Duration::ZERO);
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + (most.saturating_sub(least)).mul_f64(self.random.random_range(0.0..1.0))
    }

    /// Short ones as likely as long ones, by order of magnitude.
    fn log_between(&mut self, least: Duration, most: Duration) -> Duration {
        let ratio = most.as_secs_f64() / least.as_secs_f64();
        least.mul_f64(ratio.max(1.0).powf(self.random.random_range(0.0..1.0)))
    }

    /// How long a killed worker is not replaced: half of them are back before their deadline.
    fn absence(&mut self, deadline: Duration) -> Duration {
        if self.random.random_range(0.0..1.0) < 0.5 {
            self.between(ms(10), deadline / 4)
        } else {
            self.between(deadline, deadline * 2)
        }
    }

    fn into_steps(self, steps: &mut Vec<Step>) {
        steps.extend(self.steps);
    }
}
