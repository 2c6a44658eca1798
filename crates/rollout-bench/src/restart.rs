//! The suite `restart`: a coordinator that is killed with a whole fleet connected, and started again
//! at once on what it had written; beside a bare server that has nothing to remember. Before, the
//! fleet was started by hand, a few at a time: nobody waited for anybody, and so that is the floor.

use std::collections::HashSet;
use std::time::Duration;

use rollout_core::{Clock, Mono, SystemClock, TimeBudget, WorkerId, percentile};
use tokio::time::{sleep, timeout};

use crate::args::FleetArgs;
use crate::cost::Cost;
use crate::error::BenchError;
use crate::fleet::ANY_PORT;
use crate::fleet::crew::{Crew, Member};
use crate::fleet::load::Load;
use crate::fleet::server::{Said, Server};
use crate::report::{Asked, Curve, Figure, Group, Report, Unit};
use crate::say;

/// From the last session's opening to the kill: every worker has beaten by then.
const SETTLE: Duration = Duration::from_secs(2);
/// How long is waited for a fleet to come back: who is away then, counts as away.
const LONG: Duration = Duration::from_secs(30);
/// So many workers die with the coordinator, and as many when half the fleet is back.
const DEAD: usize = 10;

/// What a restart gave: seconds since the kill, and what should not have happened.
struct Round {
    /// From nothing until all were there, when they were started a few at a time.
    by_hand: f64,
    serving: f64,
    first: f64,
    half: f64,
    last: f64,
    /// Processor time until then, of the server since its start and of the generator since the kill.
    server: f64,
    generator: f64,
    away: f64,
    refused: f64,
    anew: f64,
    fenced: f64,
    judged: Judged,
}

/// What was said of the dead, and of the living.
#[derive(Default)]
struct Judged {
    /// The greatest overshoot of a verdict.
    late: f64,
    missing: f64,
    wrong: f64,
    /// Time that was credited to those who were not back.
    credited: f64,
}

/// Measures each size in turn with the bare server.
pub(crate) async fn measure(args: &FleetArgs) -> Result<Report, BenchError> {
    rollout_process::raise_open_files().map_err(BenchError::io("no limit of open files"))?;
    let dir = tempfile::Builder::new().prefix("rollout-").tempdir();
    let dir = dir.map_err(BenchError::io("no temporary directory"))?;
    let largest = args.workers.iter().copied().max().unwrap_or_default();
    say("making certificates");
    let crew = Crew::make(dir.path(), largest)?;
    let mut sizes = Vec::new();
    for &size in &args.workers {
        let members = crew.members.get(..size).unwrap_or(&crew.members);
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for round in 0..args.output.rounds.get() {
            let stage = dir.path().join(format!("{size}-{round}"));
            std::fs::create_dir(&stage).map_err(BenchError::io("no temporary directory"))?;
            say(&format!("{size} workers, coordinator"));
            let start = async |listen| {
                Server::coordinator(&args.rollout, &crew.coordinator, &stage, listen).await
            };
            ours.push(one(start, members, true).await?);
            say(&format!("{size} workers, bare server"));
            let start = async |listen| Server::bare(&crew.coordinator, listen).await;
            bare.push(one(start, members, false).await?);
        }
        sizes.push((size, ours, bare));
    }
    let groups = sizes.iter().map(|(size, ours, bare)| group(*size, ours, bare)).collect();
    let rounds = args.output.rounds.get();
    Ok(Report { suite: "restart", rounds, groups, notes: Vec::new(), curves: curves(&sizes) })
}

/// Kills the server under a fleet, starts it on the same port, and waits until everybody is back, or
/// has had the time, and every deadline from before has passed.
async fn one(
    start: impl AsyncFn(std::net::SocketAddr) -> Result<Server, BenchError>,
    members: &[Member],
    judges: bool,
) -> Result<Round, BenchError> {
    let server = start(ANY_PORT).await?;
    let (addr, begun) = (server.addr, SystemClock.now());
    let mut load = Load::open(addr.to_string(), members).await?;
    let by_hand = SystemClock.now().since(begun).as_secs_f64();
    sleep(SETTLE).await;
    let [_, unanswered, anew] = load.mishaps();
    let dead = if judges { DEAD.min(members.len() / 4) } else { 0 };
    let own = || Cost::own().ok_or(BenchError::NoCost);
    let (killed, own_before) = (SystemClock.now(), own()?);
    let mut cut: HashSet<_> = load.cut(0..dead).into_iter().collect();
    server.kill();
    load.none_open(LONG).await?;
    load.record();
    let mut server = start(addr).await?;
    let serving = server.since;
    // Nobody waits longer; what is late is a figure.
    let _ = load.open_at_least(members.len() / 2, LONG).await;
    cut.extend(load.cut(dead..2 * dead));
    let _ = load.all_open(LONG).await;
    let (all, cost, own_after) = (SystemClock.now(), server.cost()?, own()?);
    let away = members.len() - cut.len() - load.sessions().min(members.len() - cut.len());
    let mut opened = load.recorded().opened;
    opened.sort();
    let until = TimeBudget::default().deadline(all);
    let judged = if judges { verdicts(&mut server, cut, until).await? } else { Judged::default() };
    let since = |at: Option<Mono>| at.map_or(f64::NAN, |at| at.since(killed).as_secs_f64());
    let [_, unanswered_now, anew_now] = load.mishaps();
    Ok(Round {
        by_hand,
        serving: since(Some(serving)),
        first: since(percentile(&opened, 0)),
        half: since(percentile(&opened, 50)),
        last: since(percentile(&opened, 100)),
        server: cost.cpu,
        generator: own_after.cpu - own_before.cpu,
        away: away as f64,
        refused: (unanswered_now - unanswered) as f64,
        anew: (anew_now - anew) as f64,
        fenced: load.fenced() as f64,
        judged,
    })
}

/// What verdicts there are until a while after `until`, of the dead and of others.
async fn verdicts(
    server: &mut Server,
    mut dead: HashSet<WorkerId>,
    until: Mono,
) -> Result<Judged, BenchError> {
    let mut judged = Judged::default();
    let left = until.since(SystemClock.now()) + Duration::from_secs(1);
    let listening = async {
        loop {
            match server.said.recv().await {
                Some(Said::Failed { worker, overshoot }) if dead.remove(&worker) => {
                    judged.late = judged.late.max(overshoot);
                }
                Some(Said::Failed { .. }) => judged.wrong += 1.0,
                Some(Said::Stalled(seconds)) => judged.credited += seconds,
                Some(_) => {}
                None => return BenchError::ServerEnded,
            }
        }
    };
    if let Ok(ended) = timeout(left, listening).await {
        return Err(ended);
    }
    judged.missing = dead.len() as f64;
    Ok(judged)
}

fn group(size: usize, ours: &[Round], bare: &[Round]) -> Group {
    use Asked::{AtMost, Nothing};
    let figure = |name, asked, pick: fn(&Round) -> f64| {
        let all = |rounds: &[Round]| rounds.iter().map(pick).collect();
        Figure { name, unit: Unit::Time, values: all(ours), beside: all(bare), asked }
    };
    let count = |name, asked, pick: fn(&Round) -> f64| {
        let all = |rounds: &[Round]| rounds.iter().map(pick).collect();
        Figure { name, unit: Unit::Count, values: all(ours), beside: all(bare), asked }
    };
    let alone = |name, unit, asked, pick: fn(&Round) -> f64| {
        let values = ours.iter().map(pick).collect();
        Figure { name, unit, values, beside: Vec::new(), asked }
    };
    let fence = AtMost(TimeBudget::default().worker_self_fence_timeout.as_secs_f64());
    let figures = vec![
        figure("before, started a few at a time", Nothing, |r| r.by_hand),
        figure("serving", AtMost(1.0), |r| r.serving),
        figure("first session back", Nothing, |r| r.first),
        figure("half of those back", Nothing, |r| r.half),
        figure("last one back", fence, |r| r.last),
        figure("processor time until then: server", Nothing, |r| r.server),
        figure("processor time until then: generator", Nothing, |r| r.generator),
        count("away after 30 s", Asked::None, |r| r.away),
        count("attempts that failed", Nothing, |r| r.refused),
        count("workers fenced", Nothing, |r| r.fenced),
        count("registered anew", Asked::None, |r| r.anew),
        alone("verdict on the dead late, greatest", Unit::Time, AtMost(0.25), |r| r.judged.late),
        alone("credited to those who waited", Unit::Time, Nothing, |r| r.judged.credited),
        alone("missing verdicts", Unit::Count, Asked::None, |r| r.judged.missing),
        alone("false verdicts", Unit::Count, Asked::None, |r| r.judged.wrong),
    ];
    let title = format!("SIGKILL of the server of {size} workers, and a start at once: time since");
    Group { title, beside: "a bare hyper server with the same sessions", figures }
}

/// A size, and the rounds with either server.
type Size = (usize, Vec<Round>, Vec<Round>);

fn curves(sizes: &[Size]) -> Vec<Curve> {
    let points = |of: fn(&Size) -> &Vec<Round>| {
        let last = |size: &Size| (size.0 as f64, of(size).iter().map(|round| round.last).collect());
        sizes.iter().map(last).collect()
    };
    let series = vec![
        ("coordinator", points(|(_, ours, _)| ours)),
        ("bare hyper server", points(|(_, _, bare)| bare)),
    ];
    let title = "From SIGKILL until every session is back";
    vec![Curve { title, sizes: "workers", unit: Unit::Time, series }]
}
