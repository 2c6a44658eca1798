//! The suite `fleet`: what a fleet of real sessions costs the coordinator, how soon its beats are
//! acknowledged and durable, and how late verdicts are; beside a bare server on the same sessions.

pub(crate) mod bare;
pub(crate) mod crew;
pub(crate) mod load;
pub(crate) mod server;
mod session;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rollout_core::{Clock, SystemClock, TimeBudget, percentile};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::args::FleetArgs;
use crate::cost::Cost;
use crate::error::BenchError;
use crate::report::{Asked, Curve, Figure, Group, Report, Unit};
use crate::say;

use self::crew::{Crew, Member};
use self::load::{Load, Samples};
use self::server::{Said, Server};

/// The longest window of the bare server: its costs are steady, and it is watched for no verdicts.
const BASELINE: Duration = Duration::from_secs(60);
/// From the last session's opening to the first measurement.
const SETTLE: Duration = Duration::from_secs(2);
/// Sessions that are cut at once, or half the fleet.
const BURST: usize = 1_000;
/// Sessions that are cut one by one.
const SINGLES: usize = 10;
/// The pause between two of them.
const APART: Duration = Duration::from_millis(130);
/// After its deadline, a verdict that has not come is missing.
const GRACE: Duration = Duration::from_secs(3);

/// Anywhere on this host.
pub(crate) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a round with a server gave.
#[derive(Default)]
struct Round {
    /// Sessions a second, to begin with.
    opening: f64,
    /// Seconds of processor time for a beat.
    beat: f64,
    cores: f64,
    /// Bytes for a worker.
    memory: f64,
    /// The generator's own processor time for a beat.
    own_beat: f64,
    samples: Samples,
    /// How late the verdicts were.
    singles: Vec<f64>,
    burst: Vec<f64>,
    missing: f64,
    wrong: f64,
    mishaps: f64,
    stalled: f64,
}

/// Measures each size in turn with the bare server.
pub(crate) async fn measure(args: &FleetArgs) -> Result<Report, BenchError> {
    rollout_process::raise_open_files().map_err(BenchError::io("no limit of open files"))?;
    let dir = tempfile::Builder::new().prefix("rollout-").tempdir();
    let dir = dir.map_err(BenchError::io("no temporary directory"))?;
    let largest = args.workers.iter().copied().max().unwrap_or_default();
    say("making certificates");
    let crew = Crew::make(dir.path(), largest)?;
    let window = Duration::from_secs(args.seconds);
    let mut sizes = Vec::new();
    for &size in &args.workers {
        let members = crew.members.get(..size).unwrap_or(&crew.members);
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for round in 0..args.output.rounds.get() {
            let stage = dir.path().join(format!("{size}-{round}"));
            std::fs::create_dir(&stage).map_err(BenchError::io("no temporary directory"))?;
            say(&format!("{size} workers, coordinator"));
            let server =
                Server::coordinator(&args.rollout, &crew.coordinator, &stage, ANY_PORT).await?;
            ours.push(coordinator(server, members, window).await?);
            say(&format!("{size} workers, bare server"));
            let server = Server::bare(&crew.coordinator, ANY_PORT).await?;
            let window = window.min(BASELINE);
            bare.push(steady(&server, members, window, async |_| ()).await?.0);
        }
        sizes.push((size, ours, bare));
    }
    let groups = sizes.iter().map(|(size, ours, bare)| group(*size, ours, bare)).collect();
    let rounds = args.output.rounds.get();
    Ok(Report { suite: "fleet", rounds, groups, notes: Vec::new(), curves: curves(&sizes) })
}

/// Opens the fleet and measures a window of steady beats, in which `meanwhile` happens.
async fn steady(
    server: &Server,
    members: &[Member],
    window: Duration,
    meanwhile: impl AsyncFnOnce(&mut Load),
) -> Result<(Round, Load), BenchError> {
    sleep(SETTLE).await;
    let (empty, since) = (server.cost()?, SystemClock.now());
    let mut load = Load::open(server.addr.to_string(), members).await?;
    let opening = members.len() as f64 / SystemClock.now().since(since).as_secs_f64();
    sleep(SETTLE).await;
    let own = || Cost::own().ok_or(BenchError::NoCost);
    let (acks, before, own_before) = (load.acks(), server.cost()?, own()?);
    let (since, end) = (SystemClock.now(), Instant::now() + window);
    load.record();
    meanwhile(&mut load).await;
    sleep_until(end).await;
    let (after, own_after) = (server.cost()?, own()?);
    let (took, samples) = (SystemClock.now().since(since), load.recorded());
    let beats = (load.acks() - acks).max(1) as f64;
    let round = Round {
        opening,
        beat: (after.cpu - before.cpu) / beats,
        cores: (after.cpu - before.cpu) / took.as_secs_f64(),
        memory: (after.resident - empty.resident) / members.len() as f64,
        own_beat: (own_after.cpu - own_before.cpu) / beats,
        samples,
        ..Round::default()
    };
    Ok((round, load))
}

/// A round with a coordinator: while the fleet beats, some are cut one by one, and then many at
/// once.
async fn coordinator(
    mut server: Server,
    members: &[Member],
    window: Duration,
) -> Result<Round, BenchError> {
    let most = BURST.min(members.len() / 2);
    let singles = SINGLES.min(most / 2);
    let mut cut = Vec::new();
    let one_by_one = async |load: &mut Load| {
        for n in 0..singles {
            sleep(APART).await;
            cut.extend(load.cut(n..n + 1));
        }
    };
    let (mut round, mut load) = steady(&server, members, window, one_by_one).await?;
    let cut: HashSet<_> = cut.into_iter().collect();
    let burst: HashSet<_> = load.cut(singles..singles + most).into_iter().collect();
    let budget = TimeBudget::default();
    let long = budget.heartbeat_interval + budget.tolerance() + GRACE;
    let all = async {
        while round.singles.len() + round.burst.len() < cut.len() + burst.len() {
            match server.said.recv().await {
                Some(Said::Failed { worker, overshoot }) if cut.contains(&worker) => {
                    round.singles.push(overshoot);
                }
                Some(Said::Failed { worker, overshoot }) if burst.contains(&worker) => {
                    round.burst.push(overshoot);
                }
                Some(Said::Failed { .. }) => round.wrong += 1.0,
                Some(Said::Stalled(seconds)) => round.stalled += seconds,
                Some(_) => {}
                None => return Err(BenchError::ServerEnded),
            }
        }
        Ok(())
    };
    // Verdicts that are missing are a figure.
    timeout(long, all).await.unwrap_or(Ok(()))?;
    let verdicts = round.singles.len() + round.burst.len();
    round.missing = (cut.len() + burst.len() - verdicts) as f64;
    round.mishaps = (load.mishaps().iter().sum::<u64>() + load.fenced()) as f64;
    drop(load);
    Ok(round)
}

/// A percentile of what one round measured; none if there was nothing.
fn at(mut values: Vec<f64>, percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    percentile(&values, percent)
}

fn group(size: usize, ours: &[Round], bare: &[Round]) -> Group {
    use Asked::{AtMost, Nothing};
    let figure = |name, unit, asked, pick: fn(&Round) -> Option<f64>| {
        let values = ours.iter().filter_map(pick).collect();
        let beside = bare.iter().filter_map(pick).collect();
        Figure { name, unit, values, beside, asked }
    };
    let alone = |name, unit, asked, pick: fn(&Round) -> Option<f64>| {
        let values = ours.iter().filter_map(pick).collect();
        Figure { name, unit, values, beside: Vec::new(), asked }
    };
    let (time, count) = (Unit::Time, Unit::Count);
    let ms = |ms: f64| AtMost(ms / 1e3);
    let figures = vec![
        figure("processor time a beat", time, AtMost(20e-6), |r| Some(r.beat)),
        figure("processor", Unit::Cores, AtMost(1.0), |r| Some(r.cores)),
        figure("memory a worker", Unit::Size, AtMost(40.0 * 1024.0), |r| Some(r.memory)),
        figure("acknowledged, p50", time, Nothing, |r| at(r.samples.acks.clone(), 50)),
        figure("acknowledged, p99", time, ms(20.0), |r| at(r.samples.acks.clone(), 99)),
        figure("acknowledged, greatest", time, Nothing, |r| at(r.samples.acks.clone(), 100)),
        alone("durable, p50", time, Nothing, |r| at(r.samples.durable.clone(), 50)),
        alone("durable, p99", time, Nothing, |r| at(r.samples.durable.clone(), 99)),
        alone("verdict late, 1 cut, p99", time, ms(10.0), |r| at(r.singles.clone(), 99)),
        alone("verdict late, many, p99", time, ms(250.0), |r| at(r.burst.clone(), 99)),
        alone("verdict late, many, max", time, ms(250.0), |r| at(r.burst.clone(), 100)),
        alone("false verdicts", count, Asked::None, |r| Some(r.wrong)),
        alone("missing verdicts", count, Asked::None, |r| Some(r.missing)),
        alone("lost or fenced sessions", count, Asked::None, |r| Some(r.mishaps)),
        alone("coordinator stood still", time, Asked::None, |r| Some(r.stalled)),
        figure("sessions opened", Unit::Rate, Nothing, |r| Some(r.opening)),
        figure("generator late, p99", time, Nothing, |r| at(r.samples.late.clone(), 99)),
        figure("generator, a beat", time, Nothing, |r| Some(r.own_beat)),
    ];
    let title = format!("{size} workers that beat every 500 ms");
    Group { title, beside: "a bare hyper server that answers the same sessions", figures }
}

/// A size, and the rounds with either server.
type Size = (usize, Vec<Round>, Vec<Round>);

fn curves(sizes: &[Size]) -> Vec<Curve> {
    let curve = |title, unit, pick: fn(&Round) -> Option<f64>| {
        let points = |of: fn(&Size) -> &Vec<Round>| {
            let point = |size: &Size| (size.0 as f64, of(size).iter().filter_map(pick).collect());
            sizes.iter().map(point).collect()
        };
        let series = vec![
            ("coordinator", points(|(_, ours, _)| ours)),
            ("bare hyper server", points(|(_, _, bare)| bare)),
        ];
        Curve { title, sizes: "workers", unit, series }
    };
    vec![
        curve("Processor time a beat", Unit::Time, |r| Some(r.beat)),
        curve("Memory a worker", Unit::Size, |r| Some(r.memory)),
        curve("Acknowledgement, p99", Unit::Time, |r| at(r.samples.acks.clone(), 99)),
    ]
}
