//! The fleet, the coordinator's stops, and what is checked.

mod judge;

use std::fs;
use std::time::{Duration, Instant};

use rollout_coordinator::liveness::{Effect, Liveness, Registration, Stale, Suspicion};
use rollout_coordinator::watchdog::{TICK, TOLERATED, Watchdog};
use rollout_core::{Incarnation, Mono, TimeBudget, WorkerId};

use crate::meter::{Meter, reading};

/// How fine virtual time is, and how often the coordinator looks.
const STEP: Duration = Duration::from_millis(1);
/// The shortest and the longest stop of the coordinator; some are too short to be a stall.
const STOP_MS: [u64; 2] = [100, 9_100];
/// How long somebody is cut off, at least and at most.
const CUT_MS: [u64; 2] = [200, 10_200];
/// No faults at the end, so that every verdict has come: it may have a stop to wait for, then the
/// deadline, and what waited in the sockets.
const CALM: Duration = Duration::from_millis(STOP_MS[1] + 5_750 + 1_150);
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
    /// Storing each beat's instant in an array, in the same order.
    pub(crate) storing: Duration,
    pub(crate) took: Duration,
    pub(crate) beats: u64,
    pub(crate) ticks: u64,
    pub(crate) bytes: u64,
    /// Of verdicts that no stop made late.
    pub(crate) overshoot: Duration,
    /// Of those that fell into a stop too short to be a stall.
    pub(crate) stopped_overshoot: Duration,
    pub(crate) killed: u64,
    /// Killed ones that have failed, and so have been replaced.
    pub(crate) replaced: u64,
    pub(crate) cut: u64,
    pub(crate) failed: u64,
    pub(crate) suspected: u64,
    pub(crate) recovered: u64,
    /// Stops that are a stall, whenever the last pulse was.
    pub(crate) stops: u64,
    /// Those that are one only if it was some time ago.
    pub(crate) doubtful: u64,
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
    /// When it last looked at the deadlines, and all that had been credited then.
    looked: (Mono, Duration),
    stopped_until: Mono,
    next_stop: Mono,
    pulsed: Mono,
    credited: Duration,
    /// What it said that it was stopped for.
    said: Duration,
    random: u64,
    /// Where beats are stored that are not looked at.
    stored: Vec<Mono>,
    meters: Meters,
    report: Report,
}

#[derive(Debug, Default)]
struct Meters {
    beating: Meter,
    ticking: Meter,
    storing: Meter,
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
            end: now + Duration::from_secs(options.seconds) + CALM,
            budget,
            liveness: Liveness::new(budget, capacity),
            watchdog: Watchdog::new(now),
            workers: Vec::new(),
            ring: vec![Vec::new(); RING],
            sockets: Vec::new(),
            looked: (now, Duration::ZERO),
            stopped_until: now,
            next_stop: now + ms(5_000),
            pulsed: now,
            credited: Duration::ZERO,
            said: Duration::ZERO,
            random: options.seed.wrapping_mul(2) + 1,
            stored: vec![now; capacity],
            meters: Meters::default(),
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

    fn between(&mut self, [least, most]: [u64; 2]) -> u64 {
        least + self.below(most - least)
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
            if self.end.since(self.now) > CALM {
                self.inject();
            }
            self.beat();
            if self.now >= self.stopped_until {
                self.coordinate();
            }
        }
        self.report.took = started.elapsed();
        let (meters, reading) = (&self.meters, reading());
        self.report.beating = meters.beating.total(reading);
        self.report.ticking = meters.ticking.total(reading);
        self.report.storing = meters.storing.total(reading);
        self.report.longest_tick = meters.ticking.longest();
        self.judge();
        self.report
    }

    /// Kills, cuts and stops, a few of each every second.
    fn inject(&mut self) {
        let workers = self.workers.len() as u64;
        for _ in 0..1 + workers / 1_000_000 {
            let n = self.below(workers);
            let index = usize::try_from(n).unwrap_or(0);
            let (kind, silent) = (self.below(20), ms(self.between(CUT_MS)));
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
            let listens = self.now >= self.stopped_until && !self.watchdog.is_stalled();
            if silent.as_millis() % 2 == 0 && listens {
                let (n, epoch) = (id(index as u32), self.workers[index].epoch);
                let lost = self.liveness.disconnected(n, epoch.into());
                self.report.suspected += u64::from(lost.is_some());
            }
        }
        if self.now >= self.next_stop {
            let stopped = ms(self.between(STOP_MS));
            self.stopped_until = self.now + stopped;
            self.next_stop = self.stopped_until + ms(2_000 + self.below(8_000));
            self.report.stops += u64::from(stopped > TICK + TOLERATED);
            self.report.doubtful += u64::from(stopped > TOLERATED && stopped <= TICK + TOLERATED);
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
        if let Some(stall) = self.watchdog.report() {
            self.report.stalls += 1;
            self.said += stall;
        }
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
        self.meters.ticking.time(|| {
            self.liveness.expire(now, |id, epoch, effect| effects.push((id, epoch, effect)));
        });
        self.report.ticks += 1;
        for (id, epoch, effect) in effects {
            match effect {
                Effect::Suspected(Suspicion::MissedBeats) => self.report.suspected += 1,
                Effect::Failed { overdue, overshoot, credited } => {
                    self.verdict(id, epoch, (overdue, overshoot, credited));
                }
                other => self.wrong(format!("{id}: {other:?} out of nothing")),
            }
        }
        self.looked = (now, self.credited);
    }

    fn hear(&mut self, heard: &[u32]) {
        let now = self.now;
        // As the engine has them: in its inbox, one after the other.
        let said = |n: &u32| (id(*n), u64::from(self.workers[*n as usize].epoch));
        let inbox: Vec<_> = heard.iter().map(said).collect();
        let (mut recovered, mut stale) = (0, Vec::new());
        self.meters.beating.time(|| {
            for (place, (worker, epoch)) in inbox.iter().enumerate() {
                match self.liveness.beat(now, *worker, *epoch) {
                    Ok(None | Some(Effect::Ready)) => {}
                    Ok(_) => recovered += 1,
                    Err(why) => stale.push((heard[place], why)),
                }
            }
        });
        self.meters.storing.time(|| {
            for &n in heard {
                self.stored[n as usize] = now;
            }
        });
        self.report.recovered += recovered;
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
        let failed = self.workers[n as usize].failed;
        if why != Stale::Failed || !failed {
            self.wrong(format!("{} is {why:?}, failed: {failed}", id(n)));
        }
        self.register_anew(n);
    }

    fn register_anew(&mut self, n: u32) {
        let (now, credited) = (self.now, self.credited);
        let worker = &mut self.workers[n as usize];
        worker.epoch += 1;
        (worker.failed, worker.accepted, worker.credited) = (false, now, credited);
        let epoch = worker.epoch;
        let outcome = self.liveness.register(now, id(n), process(n, epoch), None);
        if outcome != (Registration::New { epoch: epoch.into() }) {
            self.wrong(format!("{} registers: {outcome:?}", id(n)));
        }
        self.liveness.answered(now, id(n), epoch.into());
    }

    /// A dead worker that has failed is replaced under its id.
    fn replace(&mut self, n: u32) {
        self.report.replaced += 1;
        self.workers[n as usize].fate = Fate::Alive;
        self.register_anew(n);
        let first = self.below(500) + 1;
        self.plan(n, first);
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
