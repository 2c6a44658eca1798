//! A coordinator with workers and no plugins, on timings that let a test see the whole course.

use std::path::PathBuf;

use rollout_core::{Body, Event, Mono, WorkerId};

use crate::{Actor, Stage, edit_toml, set, text};

/// 100 ms beats, a fence of 1 s, and a deadline of 1.8 s.
#[must_use]
pub fn quick() -> Stage {
    Stage::new().with_timing(100, 1_000, 1_600, 100)
}

/// The worker's file of the stage, with the coordinator's address and a database of its own.
fn config(stage: &Stage, name: &str, address: &str) -> PathBuf {
    let file = stage.fixtures().join("worker.toml");
    let own = stage.fixtures().join(format!("{name}.toml"));
    edit_toml(&file, |table| set(table, &["coordinator"], address));
    std::fs::copy(&file, &own).expect("the fixture is there");
    own
}

/// Starts a worker on the stage's worker file.
#[must_use]
pub fn worker(stage: &Stage, name: &str, address: &str, rest: &[&str]) -> Actor {
    let config = text(&config(stage, name, address));
    stage.start(name, &[&["worker", "run", "--config", &config], rest].concat())
}

/// Starts one more worker beside others: its database is its own.
#[must_use]
pub fn another(stage: &Stage, name: &str, address: &str) -> Actor {
    let config = config(stage, name, address);
    let database = format!("./data/smoke/{name}.db");
    edit_toml(&config, |table| set(table, &["storage"], &database));
    stage.start(name, &["worker", "run", "--config", &text(&config)])
}

/// Waits until the worker is registered: its id and epoch.
pub fn registered(actor: &mut Actor) -> (WorkerId, u64) {
    let event = actor.event("worker_registered");
    let Body::WorkerRegistered(body) = &event.body else { unreachable_body(&event) };
    (event.worker_id.unwrap_or_else(|| unreachable_body(&event)), body.epoch)
}

/// Waits for the worker's first beat after `since`.
pub fn beats(coordinator: &mut Actor, id: WorkerId, since: Mono) -> Event {
    let beat = |event: &Event| event.worker_id == Some(id) && event.mono > since;
    coordinator.event_where("worker_heartbeat", beat)
}

/// Starts the stage's coordinator again, on the port it had.
#[must_use]
pub fn again(stage: &Stage, name: &str, address: &str) -> Actor {
    let file = stage.fixtures().join("coordinator.toml");
    edit_toml(&file, |table| set(table, &["listen"], address));
    stage.start(name, &["coordinator", "run", "--config", &text(&file)])
}

/// An event whose topic is not its body's.
///
/// # Panics
/// Always.
pub fn unreachable_body(event: &Event) -> ! {
    panic!("the topic and the body differ: {event:?}")
}
