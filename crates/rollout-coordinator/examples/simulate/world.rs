//! The fleet, the coordinator's stops, and what is checked.

use std::fs;
use std::time::{Duration, Instant};

use rollout_coordinator::liveness::{Effect, Liveness, Registration, Stale, Suspicion};
use rollout_coordinator::watchdog::{TICK, Watchdog};
use rollout_core::{Incarnation, Mono, TimeBudget, WorkerId};

/// How fine virtual time is, and how often the coordinator looks.
const STEP: Duration = Duration::from_millis(1);
/// No faults at the end, so that every verdict has come.
const CALM_MS: u64 = 12_000;
/// Verdicts may be so late, and not a step later.
const TOLERABLE: Duration = Duration::from_millis(50);
/// Waiting beats that are read in a step after a stop.
const READ_IN_A_STEP: usize = 100_000;
/// Beats are planned at most so far ahead.
const RING: usize = 1_024;

/// What to simulate.
pub(crate) struct Options {
    pub(crate) workers: u32,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) registering: Duration,
    pub(crate) beating: Duration,
    pub(crate) ticking: Duration,
    pub(crate) longest_tick: Duration,
    pub(crate) took: Duration,
    pub(crate) beats: u64,
    pub(crate) ticks: u64,
    pub(crate) bytes: u64,
    pub(crate) overshoot: Duration,
    pub(crate) killed: u64,
    pub(crate) cut: u64,
    pub(crate) failed: u64,
    pub(crate) suspected: u64,
    pub(crate) recovered: u64,
    pub(crate) stops: u64,
    pub(crate) stalls: u64,
    /// Promises that were broken, in words.
    pub(crate) wrong: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Alive,
    /// Its beats arrive nowhere until then.
    CutUntil(Mono),
    Dead,
}

#[derive(Debug, Clone, Copy)]
struct Worker {
    fate: Fate,
    epoch: u32,
    /// A beat of it waits for the coordinator to be read.
    waiting: bool,
    failed: bool,
    accepted: Mono,
    /// All that had been credited when that beat was accepted.
    credited: Duration,
}

pub(crate) struct World {
    now: Mono,
    end: Mono,
    budget: TimeBudget,
    liveness: Liveness,
    watchdog: Watchdog,
    workers: Vec<Worker>,
    /// Who beats in which step from now.
    ring: Vec<Vec<u32>>,
    /// Who has a beat in a socket that is not read.
    sockets: Vec<u32>,
    stopped_until: Mono,
    next_stop: Mono,
    pulsed: Mono,
    credited: Duration,
    random: u64,
    report: Report,
}

/// As a ULID is: a moment, here the number, and 80 bits without a pattern.
fn id(n: u32) -> WorkerId {
    let random = (u128::from(n) + 1) * 0x9e37_79b9_7f4a_7c15_f39d;
    WorkerId::from_bytes((u128::from(n) << 80 | random & ((1 << 80) - 1)).to_be_bytes())
}

fn number(id: WorkerId) -> usize {
    (u128::from_be_bytes(id.to_bytes()) >> 80) as usize
}

fn process(n: u32, epoch: u32) -> Incarnation {
    Incarnation::from_bytes((u128::from(n) << 64 | u128::from(epoch)).to_be_bytes())
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl World {
    pub(crate) fn new(options: &Options) -> Self {
        let (now, budget) = (Mono(1_000_000_000), TimeBudget::default());
        let capacity = options.workers as usize;
        let mut world = Self {
            now,
            end: now + Duration::from_secs(options.seconds) + ms(CALM_MS),
            budget,
            liveness: Liveness::new(budget, capacity),
            watchdog: Watchdog::new(now),
            workers: Vec::new(),
            ring: vec![Vec::new(); RING],
            sockets: Vec::new(),
            stopped_until: now,
            next_stop: now + ms(5_000),
            pulsed: now,
            credited: Duration::ZERO,
            random: options.seed.wrapping_mul(2) + 1,
            report: Report::default(),
        };
        let resident = resident();
        let started = Instant::now();
        for n in 0..options.workers {
            world.liveness.register(now, id(n), process(n, 1), None);
            world.liveness.answered(now, id(n), 1);
        }
        world.report.registering = started.elapsed();
        world.report.bytes = resident_since(resident);
        let (fate, accepted, credited) = (Fate::Alive, now, Duration::ZERO);
        let worker = Worker { fate, epoch: 1, waiting: false, failed: false, accepted, credited };
        world.workers = vec![worker; capacity];
        for n in 0..options.workers {
            let first = world.below(500) + 1;
            world.plan(n, first);
        }
        world
    }

    /// A number below `limit`, by xorshift.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    /// Lets worker `n` beat so many steps from now.
    fn plan(&mut self, n: u32, steps: u64) {
        let step = self.now.0 / 1_000_000 + steps;
        self.ring[usize::try_from(step).unwrap_or(0) % RING].push(n);
    }

    pub(crate) fn run(mut self) -> Report {
        let started = Instant::now();
        while self.now < self.end {
            self.now += STEP;
            if self.end.since(self.now) > ms(CALM_MS) {
                self.inject();
            }
            self.beat();
            if self.now >= self.stopped_until {
                self.coordinate();
            }
        }
        self.report.took = started.elapsed();
        self.judge();
        self.report
    }

    /// Kills, cuts and stops, a few of each every second.
    fn inject(&mut self) {
        let workers = self.workers.len() as u64;
        for _ in 0..1 + workers / 1_000_000 {
            let n = self.below(workers);
            let index = usize::try_from(n).unwrap_or(0);
            let (kind, silent) = (self.below(20), ms(200 + self.below(10_000)));
            if self.workers[index].fate != Fate::Alive {
                continue;
            }
            let fate = match kind {
                0 => Fate::Dead,
                1 => Fate::CutUntil(self.now + silent),
                _ => continue,
            };
            self.report.killed += u64::from(fate == Fate::Dead);
            self.report.cut += u64::from(fate != Fate::Dead);
            self.workers[index].fate = fate;
            // Half of them leave a socket that says so, if the coordinator listens.
            if silent.as_millis() % 2 == 0 && self.now >= self.stopped_until {
                let (n, epoch) = (id(index as u32), self.workers[index].epoch);
                let lost = self.liveness.disconnected(n, epoch.into());
                self.report.suspected += u64::from(lost.is_some());
            }
        }
        if self.now >= self.next_stop {
            let stopped = ms(100 + self.below(9_000));
            self.stopped_until = self.now + stopped;
            self.next_stop = self.stopped_until + ms(2_000 + self.below(8_000));
            self.report.stops += u64::from(stopped > ms(400));
        }
    }

    /// Everybody whose time it is beats, into the sockets.
    fn beat(&mut self) {
        let place = usize::try_from(self.now.0 / 1_000_000).unwrap_or(0) % RING;
        let due = std::mem::take(&mut self.ring[place]);
        for &n in &due {
            let index = n as usize;
            if let Fate::CutUntil(until) = self.workers[index].fate
                && self.now >= until
            {
                self.workers[index].fate = Fate::Alive;
            }
            if self.workers[index].fate == Fate::Dead {
                continue;
            }
            let worker = &mut self.workers[index];
            if worker.fate == Fate::Alive && !std::mem::replace(&mut worker.waiting, true) {
                self.sockets.push(n);
            }
            let next = 490 + self.below(21);
            self.plan(n, next);
        }
        self.ring[place] = due;
        self.ring[place].clear();
    }

    /// What the coordinator's engine does, in its order.
    fn coordinate(&mut self) {
        let now = self.now;
        let credit = self.watchdog.look(now);
        self.liveness.credit(credit);
        self.credited += credit;
        self.report.stalls += u64::from(self.watchdog.report().is_some());
        let read = self.sockets.len().saturating_sub(READ_IN_A_STEP);
        let heard = self.sockets.split_off(read);
        self.hear(&heard);
        if self.sockets.is_empty() && now >= self.pulsed + TICK {
            self.pulsed = now;
            self.watchdog.pulse(now, now);
        }
        if self.watchdog.is_stalled() {
            return;
        }
        let mut effects = Vec::new();
        let started = Instant::now();
        self.liveness.expire(now, |id, epoch, effect| effects.push((id, epoch, effect)));
        let took = started.elapsed();
        self.report.ticking += took;
        self.report.ticks += 1;
        self.report.longest_tick = self.report.longest_tick.max(took);
        for (id, epoch, effect) in effects {
            match effect {
                Effect::Suspected(Suspicion::MissedBeats) => self.report.suspected += 1,
                Effect::Failed { overdue, overshoot, credited } => {
                    self.verdict(id, epoch, (overdue, overshoot, credited));
                }
                other => self.wrong(format!("{id}: {other:?} out of nothing")),
            }
        }
    }

    fn hear(&mut self, heard: &[u32]) {
        let now = self.now;
        let mut stale = Vec::new();
        let started = Instant::now();
        for &n in heard {
            let worker = &self.workers[n as usize];
            match self.liveness.beat(now, id(n), worker.epoch.into()) {
                Ok(None | Some(Effect::Ready)) => {}
                Ok(_) => self.report.recovered += 1,
                Err(why) => stale.push((n, why)),
            }
        }
        self.report.beating += started.elapsed();
        self.report.beats += heard.len() as u64;
        for &n in heard {
            let worker = &mut self.workers[n as usize];
            (worker.waiting, worker.accepted, worker.credited) = (false, now, self.credited);
        }
        for (n, why) in stale {
            self.come_back(n, why);
        }
    }

    /// A worker that was declared failed while it was cut off registers anew.
    fn come_back(&mut self, n: u32, why: Stale) {
        let worker = &mut self.workers[n as usize];
        let failed = std::mem::replace(&mut worker.failed, false);
        worker.epoch += 1;
        let epoch = worker.epoch;
        let outcome = self.liveness.register(self.now, id(n), process(n, epoch), None);
        if why != Stale::Failed || !failed || outcome != (Registration::New { epoch: epoch.into() })
        {
            self.wrong(format!("{} is {why:?}, failed: {failed}; then {outcome:?}", id(n)));
        }
        self.liveness.answered(self.now, id(n), epoch.into());
    }

    fn verdict(&mut self, of: WorkerId, epoch: u64, said: (Duration, Duration, Duration)) {
        self.report.failed += 1;
        let (overdue, overshoot, credited) = said;
        self.report.overshoot = self.report.overshoot.max(overshoot);
        let Some(worker) = self.workers.get_mut(number(of)) else {
            return self.wrong(format!("{of} failed, and is nobody"));
        };
        let deadline = self.budget.deadline(worker.accepted) + (self.credited - worker.credited);
        let sound = self.now > deadline
            && self.now.since(deadline) == overshoot
            && overshoot <= TOLERABLE
            && overdue == self.budget.tolerance() + credited + overshoot
            && credited == self.credited - worker.credited
            && !std::mem::replace(&mut worker.failed, true)
            && worker.fate != Fate::Alive
            && u64::from(worker.epoch) == epoch;
        if !sound {
            let worker = *worker;
            self.wrong(format!("{of}, epoch {epoch}: {said:?} of {worker:?}"));
        }
    }

    /// In the end everybody dead has failed, and nobody else.
    fn judge(&mut self) {
        let dead = |worker: &Worker| worker.fate == Fate::Dead;
        let missed = self.workers.iter().filter(|w| dead(w) && !w.failed).count();
        let harmed = self.workers.iter().filter(|w| !dead(w) && w.failed).count();
        if missed + harmed > 0 {
            self.wrong(format!("{missed} dead did not fail, {harmed} alive did"));
        }
        if self.report.stalls != self.report.stops {
            self.wrong(format!("{} of {} stops reported", self.report.stalls, self.report.stops));
        }
        let alive = self.workers.iter().filter(|w| !dead(w)).count();
        if self.liveness.live() != alive {
            self.wrong(format!("{} live of {alive}", self.liveness.live()));
        }
    }

    fn wrong(&mut self, what: String) {
        if self.report.wrong.len() < 20 {
            self.report.wrong.push(what);
        }
    }
}

/// Bytes of this process in memory, where the system tells.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn resident_since(before: u64) -> u64 {
    resident().saturating_sub(before)
}
