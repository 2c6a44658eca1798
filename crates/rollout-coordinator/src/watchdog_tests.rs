//! The watchdog by example, and with liveness in virtual time: a fleet whose coordinator is stopped
//! again and again, in the order in which the engine does things.

use std::collections::VecDeque;

use proptest::prelude::*;
use rollout_core::{Incarnation, TimeBudget, WorkerId};

use super::*;
use crate::liveness::{Effect, Liveness, Registration};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn only_lateness_over_the_tolerance_is_a_stall_and_all_of_it_counts() {
    let (mut watchdog, mut now) = (Watchdog::new(Mono(0)), Mono(0));
    for (pause_ms, credit_ms) in [(0, 0), (50, 0), (300, 0), (301, 301)] {
        now += ms(pause_ms);
        assert_eq!(watchdog.look(now), ms(credit_ms), "{pause_ms}");
        if credit_ms == 0 {
            watchdog.pulse(now, now);
        }
        assert_eq!(watchdog.report(), None);
    }
}

#[test]
fn a_stall_ends_with_a_pulse_sent_since_and_is_reported_once_with_all_that_was_credited() {
    let mut watchdog = Watchdog::new(Mono(0));
    let mut now = Mono(0) + ms(7_000);
    assert_eq!(watchdog.look(now), ms(7_000));
    for sent in [ms(40), ms(7_000)] {
        assert!(watchdog.is_stalled(), "a pulse of before says nothing");
        now += ms(40);
        assert_eq!(watchdog.look(now), ms(40));
        assert_eq!(watchdog.report(), None);
        watchdog.pulse(now, Mono(0) + sent);
    }
    assert!(watchdog.is_stalled(), "what came with the pulse is handled first");
    assert_eq!(watchdog.look(now + ms(1)), ms(1));
    assert_eq!(watchdog.report(), Some(ms(7_081)));
    assert!(!watchdog.is_stalled());
    assert_eq!((watchdog.look(now + ms(51)), watchdog.report()), (ms(0), None));
}

#[test]
fn one_stop_after_another_without_a_pulse_between_is_said_while_it_goes_on() {
    let (mut watchdog, mut now) = (Watchdog::new(Mono(0)), Mono(0));
    let mut reported = Vec::new();
    for _ in 0..10 {
        now += ms(450);
        assert_eq!(watchdog.look(now), ms(450));
        reported.extend(watchdog.report());
    }
    assert_eq!(reported, [ms(1_800), ms(1_350), ms(1_350)]);
}

#[test]
fn connections_that_are_not_served_are_a_stall_however_often_the_engine_looks() {
    let (mut watchdog, mut now) = (Watchdog::new(Mono(0)), Mono(0));
    let (mut credited, mut reported) = (Duration::ZERO, Vec::new());
    for _ in 0..300 {
        now += ms(10);
        credited += watchdog.look(now);
        reported.extend(watchdog.report());
    }
    assert_eq!(credited, ms(3_000));
    assert_eq!(reported.len(), 2, "it is said while it goes on: {reported:?}");
    watchdog.pulse(now, now);
    credited += watchdog.look(now);
    reported.extend(watchdog.report());
    assert_eq!(reported.iter().sum::<Duration>(), credited);
}

/// Pulses that come so far apart while the engine looks every 10 ms; all that is reported.
fn pulses(watchdog: &mut Watchdog, now: &mut Mono, apart: Duration, span: Duration) -> Duration {
    let (end, mut pulsed) = (*now + span, *now);
    let (mut credited, mut reported) = (Duration::ZERO, Duration::ZERO);
    while *now < end {
        *now += ms(10);
        credited += watchdog.look(*now);
        reported += watchdog.report().unwrap_or_default();
        if *now >= pulsed + apart {
            pulsed = *now;
            watchdog.pulse(*now, *now);
        }
    }
    assert!(credited.saturating_sub(reported) <= UNSAID + apart, "{credited:?}, {reported:?}");
    reported
}

#[test]
fn connections_that_are_late_for_ever_hold_verdicts_for_a_minute_and_then_have_to_prove_themselves()
{
    let (mut watchdog, mut now) = (Watchdog::new(Mono(0)), Mono(0));
    for apart in [ms(400), ms(3_000), ms(86_400_000)] {
        let held = pulses(&mut watchdog, &mut now, apart, ms(600_000));
        assert!(held >= LONGEST_HOLD && held <= LONGEST_HOLD + apart.min(ms(1_000)), "{held:?}");
        assert!(!watchdog.is_stalled());
        let held = pulses(&mut watchdog, &mut now, apart.min(ms(5_000)), ms(600_000));
        assert_eq!(held, Duration::ZERO, "until they are served in time, nothing is held");
        // What the engine itself was stopped for counts as ever, and is said at once.
        now += ms(7_000);
        assert_eq!(watchdog.look(now), ms(7_000));
        assert_eq!(watchdog.report(), Some(ms(7_000)));
        assert_eq!(pulses(&mut watchdog, &mut now, ms(50), LONGEST_HOLD - ms(1_000)), ms(0));
        assert_eq!(pulses(&mut watchdog, &mut now, ms(400), ms(2_000)), ms(0), "not all of it");
        assert_eq!(pulses(&mut watchdog, &mut now, ms(50), ms(2_000)), ms(0));
    }
}

/// How fine virtual time is.
const STEP: Duration = ms(5);
const ACK_TIMEOUT: Duration = ms(1_000);
const CONNECT_TIMEOUT: Duration = ms(1_000);

#[derive(Debug, Clone, Copy)]
enum Link {
    Up,
    /// A handshake that began then.
    Connecting(Mono),
    /// Until then it waits.
    Pausing(Mono),
    /// The worker is dead.
    Dead,
}

#[derive(Debug, Clone, Copy)]
enum Said {
    Beat { session: u64 },
    Resume { session: u64 },
    End { session: u64 },
}

/// A worker, with what it has sent and nobody has read.
struct Simulated {
    id: WorkerId,
    process: Incarnation,
    link: Link,
    session: u64,
    next_beat: Mono,
    unacknowledged: Option<Mono>,
    socket: VecDeque<Said>,
    /// As the coordinator sees it.
    heard_session: u64,
    accepted: Mono,
    dies: Option<Mono>,
    failed: bool,
}

impl Simulated {
    /// What the worker does at `now`.
    fn live(&mut self, now: Mono, served: bool, jitter: u64) {
        if self.dies.is_some_and(|dies| now >= dies) && !matches!(self.link, Link::Dead) {
            self.hang_up(Link::Dead);
        }
        match self.link {
            Link::Up if self.unacknowledged.is_some_and(|at| now >= at + ACK_TIMEOUT) => {
                self.hang_up(Link::Pausing(now + ms(25)));
            }
            Link::Up if now >= self.next_beat => {
                self.socket.push_back(Said::Beat { session: self.session });
                self.unacknowledged.get_or_insert(now);
                self.next_beat = now + ms(490 + jitter % 20);
            }
            Link::Connecting(_) if served => {
                self.session += 1;
                (self.link, self.next_beat) = (Link::Up, now);
                self.socket.push_back(Said::Resume { session: self.session });
            }
            Link::Connecting(since) if now >= since + CONNECT_TIMEOUT => {
                self.link = Link::Pausing(now + ms(250 + jitter % 250));
            }
            Link::Pausing(until) if now >= until => self.link = Link::Connecting(now),
            _ => {}
        }
    }

    fn hang_up(&mut self, to: Link) {
        if matches!(self.link, Link::Up) {
            self.socket.push_back(Said::End { session: self.session });
        }
        (self.link, self.unacknowledged) = (to, None);
    }
}

/// A coordinator and its fleet.
struct World {
    now: Mono,
    liveness: Liveness,
    watchdog: Watchdog,
    workers: Vec<Simulated>,
    /// When the coordinator runs again after a stop, and when it last sent a pulse.
    continued: Mono,
    pulse_sent: Mono,
    /// The connections are served no more often than so, and were served then.
    round: Duration,
    served: Mono,
    inbox: VecDeque<Option<(usize, Said)>>,
    reported: Vec<Duration>,
    /// How often somebody was suspected who is not to die.
    suspected: usize,
    random: u64,
}

impl World {
    fn new(workers: u8, seed: u64) -> Self {
        let now = Mono(1_000_000_000);
        let mut liveness = Liveness::new(TimeBudget::default(), 100);
        let mut fleet = Vec::new();
        for n in 0..workers {
            let (id, process) = (WorkerId::from_bytes([n; 16]), Incarnation::from_bytes([n; 16]));
            liveness.register(now, id, process, None);
            liveness.answered(now, id, 1);
            fleet.push(Simulated {
                id,
                process,
                link: Link::Up,
                session: 1,
                next_beat: now + ms(u64::from(n) * 17 % 500),
                unacknowledged: None,
                socket: VecDeque::new(),
                heard_session: 1,
                accepted: now,
                dies: None,
                failed: false,
            });
        }
        Self {
            now,
            liveness,
            watchdog: Watchdog::new(now),
            workers: fleet,
            continued: now,
            pulse_sent: now,
            round: STEP,
            served: now,
            inbox: VecDeque::new(),
            reported: Vec::new(),
            suspected: 0,
            random: seed | 1,
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Lets time pass with the coordinator running, or stopped.
    fn pass(&mut self, span: Duration, runs: bool) {
        let end = self.now + span;
        while self.now < end {
            self.now += STEP;
            let served = runs && self.now.since(self.continued) >= ms(15);
            for n in 0..self.workers.len() {
                let jitter = self.random();
                self.workers[n].live(self.now, served, jitter);
            }
            if runs {
                if self.now >= self.served + self.round {
                    self.served = self.now;
                    self.serve_connections();
                }
                self.look();
            } else {
                self.continued = end;
            }
        }
    }

    /// One round of the tasks that read the sockets, and of the one that sends pulses after them.
    fn serve_connections(&mut self) {
        for (n, worker) in self.workers.iter_mut().enumerate() {
            self.inbox.extend(worker.socket.drain(..).map(|said| Some((n, said))));
        }
        if self.now >= self.pulse_sent + TICK {
            self.pulse_sent = self.now;
            self.inbox.push_back(None);
        }
    }

    /// What the engine does, in its order.
    fn look(&mut self) {
        let now = self.now;
        self.liveness.credit(self.watchdog.look(now));
        self.reported.extend(self.watchdog.report());
        for message in std::mem::take(&mut self.inbox) {
            match message {
                None => self.watchdog.pulse(now, now),
                Some((n, said)) => self.hear(n, said),
            }
        }
        if self.watchdog.is_stalled() {
            return;
        }
        let mut verdicts = Vec::new();
        self.liveness.expire(now, |id, _, effect| verdicts.push((id, effect)));
        for (id, effect) in verdicts {
            let worker = self.workers.iter_mut().find(|w| w.id == id).unwrap();
            let Effect::Failed { overdue, overshoot, credited } = effect else {
                self.suspected += usize::from(worker.dies.is_none());
                continue;
            };
            let dies = worker.dies.unwrap_or_else(|| panic!("{id} is alive, and failed"));
            assert!(!worker.failed, "{id} failed twice");
            assert!(now >= dies + ms(5_250), "{:?} after its death", now.since(dies));
            assert_eq!(now.since(worker.accepted + ms(500)), overdue);
            assert_eq!(overdue, ms(5_250) + credited + overshoot);
            worker.failed = true;
        }
    }

    fn hear(&mut self, n: usize, said: Said) {
        let (now, worker) = (self.now, &mut self.workers[n]);
        match said {
            Said::Resume { session } => {
                worker.heard_session = session;
                let outcome = self.liveness.register(now, worker.id, worker.process, Some(1));
                assert_eq!(outcome, Registration::Resumed { epoch: 1 });
            }
            Said::Beat { session } if session == worker.heard_session => {
                assert!(self.liveness.beat(now, worker.id, 1).is_ok());
                worker.accepted = now;
                if worker.session == session {
                    worker.unacknowledged = None;
                }
            }
            Said::End { session } if session == worker.heard_session => {
                let alone = !self.watchdog.is_stalled();
                if alone && self.liveness.disconnected(worker.id, 1).is_some() {
                    self.suspected += usize::from(worker.dies.is_none());
                }
            }
            Said::Beat { .. } | Said::End { .. } => {}
        }
    }
}

#[test]
fn in_a_hundred_stops_of_1_to_60_s_nobody_alive_is_suspected_or_fails_and_each_is_reported() {
    let mut world = World::new(20, 7);
    for stop in 0..100u64 {
        let stopped = ms(1_000 + world.random() % 59_000);
        // From just long enough to come back to a quiet while.
        let runs = ms(1_700 + world.random() % 5_000);
        if stop % 20 == 10 {
            let victim = usize::try_from(stop / 20).unwrap();
            world.workers[victim].dies = Some(world.now + ms(world.random() % 1_000));
        }
        world.pass(stopped, false);
        let before = world.reported.len();
        world.pass(runs, true);
        let reported = &world.reported[before..];
        assert_eq!(reported.len(), 1, "stop {stop} of {stopped:?}: {reported:?}");
        let extra = reported[0].saturating_sub(stopped);
        assert!(reported[0] >= stopped && extra <= ms(200), "{stopped:?}: {reported:?}");
    }
    world.pass(ms(20_000), true);
    assert_eq!(world.workers.iter().filter(|w| w.failed).count(), 5, "the dead, and they alone");
    assert_eq!(world.suspected, 0, "that they gave up a stopped coordinator says nothing");
}

#[test]
fn a_worker_fails_in_time_and_a_minute_though_its_coordinator_serves_connections_late_for_ever() {
    let mut world = World::new(20, 3);
    world.round = ms(400);
    world.pass(ms(3_000), true);
    world.workers[0].dies = Some(world.now);
    world.pass(ms(5_750) + LONGEST_HOLD, true);
    assert!(world.workers[0].failed);
    // Once the hold is used up, who dies is found as if nothing were the matter.
    for victim in 1..5 {
        world.workers[victim].dies = Some(world.now);
        world.pass(ms(6_500), true);
        assert!(world.workers[victim].failed);
    }
    assert_eq!((world.suspected, world.reported.iter().sum()), (0, LONGEST_HOLD));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Starved as by a quota: it runs for a tenth of the time, or more, in slices of any length.
    #[test]
    fn a_coordinator_that_gets_a_tenth_of_a_core_fails_the_dead_and_nobody_else(
        seed in 1u64.., slices in prop::collection::vec((4u64..200, 1u64..=9), 20..120)
    ) {
        let mut world = World::new(10, seed);
        world.workers[0].dies = Some(world.now + ms(seed % 3_000));
        for (slice, share) in slices {
            world.pass(ms(slice * 5 * share), false);
            world.pass(ms(slice * 5), true);
        }
        world.pass(ms(20_000), true);
        prop_assert_eq!(world.workers.iter().filter(|w| w.failed).count(), 1);
    }
}
