//! The suite `restart`: a coordinator that is killed with a whole fleet connected, and started again
//! at once on what it had written; beside a bare server that has nothing to remember.

use std::time::Duration;

use rollout_core::{Clock, Mono, SystemClock, TimeBudget, percentile};
use tokio::time::{sleep, timeout};

use crate::args::FleetArgs;
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

/// What a restart gave: seconds since the kill, and what should not have happened.
struct Round {
    serving: f64,
    first: f64,
    half: f64,
    last: f64,
    away: f64,
    refused: f64,
    anew: f64,
    fenced: f64,
    wrong: f64,
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
    let addr = server.addr;
    let load = Load::open(addr.to_string(), members).await?;
    sleep(SETTLE).await;
    let [_, _, anew] = load.mishaps();
    let killed = SystemClock.now();
    server.kill();
    load.none_open(LONG).await?;
    load.record();
    let mut server = start(addr).await?;
    let serving = server.since;
    // Nobody waits longer; what is late is a figure.
    let _ = load.all_open(LONG).await;
    let away = members.len() - load.sessions();
    let mut opened = load.recorded().opened;
    opened.sort();
    let budget = TimeBudget::default();
    let wrong = if judges { verdicts(&mut server, budget.deadline(serving)).await? } else { 0.0 };
    let since = |at: Option<Mono>| at.map_or(f64::NAN, |at| at.since(killed).as_secs_f64());
    let [_, refused, anew_now] = load.mishaps();
    Ok(Round {
        serving: since(Some(serving)),
        first: since(percentile(&opened, 0)),
        half: since(percentile(&opened, 50)),
        last: since(percentile(&opened, 100)),
        away: away as f64,
        refused: refused as f64,
        anew: (anew_now - anew) as f64,
        fenced: load.fenced() as f64,
        wrong,
    })
}

/// How many verdicts there are until a while after `deadline`: each is wrong.
async fn verdicts(server: &mut Server, deadline: Mono) -> Result<f64, BenchError> {
    let mut wrong = 0.0;
    let left = deadline.since(SystemClock.now()) + Duration::from_secs(1);
    let counting = async {
        loop {
            match server.said.recv().await {
                Some(Said::Failed { .. }) => wrong += 1.0,
                Some(_) => {}
                None => return BenchError::ServerEnded,
            }
        }
    };
    match timeout(left, counting).await {
        Ok(ended) => Err(ended),
        Err(_) => Ok(wrong),
    }
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
    let fence = AtMost(TimeBudget::default().worker_self_fence_timeout.as_secs_f64());
    let figures = vec![
        figure("serving", AtMost(1.0), |r| r.serving),
        figure("first session back", Nothing, |r| r.first),
        figure("half of those back", Nothing, |r| r.half),
        figure("last one back", fence, |r| r.last),
        count("away after 30 s", Asked::None, |r| r.away),
        count("attempts that failed", Nothing, |r| r.refused),
        count("workers fenced", Asked::None, |r| r.fenced),
        count("registered anew", Asked::None, |r| r.anew),
        count("false verdicts", Asked::None, |r| r.wrong),
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
