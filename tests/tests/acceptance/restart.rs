//! A coordinator that is killed and started again on the same files and the same port.

use std::time::Duration;

use rollout_acceptance::Actor;
use rollout_acceptance::fleet::{
    again, another, beats, quick, registered, unreachable_body, worker,
};
use rollout_core::event::{Body, CoordinatorStarted};
use rollout_core::{Clock, Mono, SystemClock, WorkerId};
use rollout_process::Signal;

/// The promise is a second; this is for a machine that is busy.
const SERVES_AGAIN: Duration = Duration::from_secs(3);
/// From the last accepted beat, or a restart, to the verdict, with the timing of [`quick`].
const DEADLINE: Duration = Duration::from_millis(1_800);
/// So long after a restart all that it has to say of the dead is said.
const OVER: Duration = Duration::from_millis(3_000);

fn kill(actor: &Actor) {
    actor.child.handle().signal_main(Signal::SIGKILL);
    assert_eq!(actor.exit().signal, Some(9));
}

fn started(actor: &mut Actor) -> (Mono, CoordinatorStarted) {
    let event = actor.event("coordinator_started");
    let Body::CoordinatorStarted(body) = &event.body else { unreachable_body(&event) };
    (event.mono, body.clone())
}

#[test]
fn a_worker_fences_itself_while_the_coordinator_is_gone_and_resumes_unfailed_when_it_is_back() {
    let stage = quick();
    let (coordinator, address) = stage.coordinator();
    let mut worker = worker(&stage, "w", &address, &[]);
    let (id, epoch) = registered(&mut worker);
    let fenced_before = worker.events("worker_fenced");
    assert_eq!(fenced_before, [], "an acknowledged worker is not fenced");
    kill(&coordinator);
    let fenced = worker.event("worker_fenced");
    let Body::WorkerFenced(body) = &fenced.body else { unreachable_body(&fenced) };
    assert_eq!(body.reason, "unacknowledged");
    assert!(body.unacknowledged_ms >= 1_000.0, "not before its time: {body:?}");

    let mut again = again(&stage, "again", &address);
    let (at, body) = started(&mut again);
    assert_eq!((body.term, body.known_workers), (2, 1));
    let resumed = worker.event("worker_resumed");
    assert_eq!(resumed.worker_id, Some(id));
    let beat = beats(&mut again, id, at);
    let Body::WorkerHeartbeat(body) = &beat.body else { unreachable_body(&beat) };
    assert_eq!(body.epoch, epoch, "the same process keeps its epoch");
    worker.stop();
    let _ = again.event("worker_deregistered");
    for topic in ["worker_failed", "worker_suspected"] {
        assert_eq!(again.events(topic), [], "nobody pays for the coordinator's absence");
    }
    again.stop();
}

#[test]
fn killed_again_and_again_it_serves_at_once_in_a_new_term_and_every_worker_stays() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let mut workers = [worker(&stage, "w1", &address, &[]), another(&stage, "w2", &address)];
    let ids = [0, 1].map(|n| registered(&mut workers[n]).0);
    let _ = ids.map(|id| beats(&mut coordinator, id, Mono(0)));
    for term in 2..=4 {
        kill(&coordinator);
        let killed = SystemClock.now();
        coordinator = again(&stage, &format!("term{term}"), &address);
        let (at, body) = started(&mut coordinator);
        assert_eq!((body.term, body.known_workers, &body.listen_addr), (term, 2, &address));
        let served = at.since(killed);
        assert!(served < SERVES_AGAIN, "serving again after {served:?}");
        for id in ids {
            let beat = beats(&mut coordinator, id, at);
            let Body::WorkerHeartbeat(body) = &beat.body else { unreachable_body(&beat) };
            assert_eq!(body.epoch, 1);
        }
        for topic in ["worker_failed", "worker_suspected", "worker_registered"] {
            assert_eq!(coordinator.events(topic), [], "in term {term}");
        }
    }
    for worker in &mut workers {
        assert_eq!(worker.events("worker_registered").len(), 1);
        assert_eq!(worker.events("worker_resumed").len(), 3);
    }
}

/// The verdict on the worker's first epoch, one deadline after `listens`.
fn verdict(coordinator: &mut Actor, dead: WorkerId, listens: Mono) {
    let failed = coordinator.event("worker_failed");
    assert_eq!(failed.worker_id, Some(dead));
    let Body::WorkerFailed(body) = &failed.body else { unreachable_body(&failed) };
    assert_eq!(body.epoch, 1);
    let after = failed.mono.since(listens);
    let deadline = DEADLINE + Duration::from_secs_f64(body.credited_ms / 1e3);
    assert!(after >= deadline && after < deadline + Duration::from_secs(1), "after {after:?}");
}

#[test]
fn a_worker_that_died_meanwhile_is_failed_one_deadline_after_the_restart_and_once() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let mut workers = [worker(&stage, "w1", &address, &[]), another(&stage, "w2", &address)];
    let [alive, dead] = [0, 1].map(|n| registered(&mut workers[n]).0);
    let _ = [alive, dead].map(|id| beats(&mut coordinator, id, Mono(0)));
    kill(&coordinator);
    kill(&workers[1]);
    let mut second = again(&stage, "second", &address);
    let (listens, _) = started(&mut second);
    verdict(&mut second, dead, listens);
    let suspected = second.events("worker_suspected");
    assert_eq!(suspected.len(), 1, "the dead one alone: {suspected:?}");
    let grace = suspected[0].mono.since(listens);
    assert!(grace >= Duration::from_secs(1), "suspected {grace:?} after the start");
    // Its registration is answered when it is on disk, and so is the verdict, which came before.
    let mut newcomer = another(&stage, "w3", &address);
    let _ = registered(&mut newcomer);
    kill(&second);
    let mut third = again(&stage, "third", &address);
    let (at, body) = started(&mut third);
    assert_eq!((body.term, body.known_workers), (3, 2), "the dead one is known to have failed");
    let _ = beats(&mut third, alive, at + OVER);
    assert_eq!(third.events("worker_failed"), []);
}

#[test]
fn a_coordinator_killed_right_behind_a_verdict_remembers_it_or_says_it_once_more() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let mut workers = [worker(&stage, "w1", &address, &[]), another(&stage, "w2", &address)];
    let [alive, dead] = [0, 1].map(|n| registered(&mut workers[n]).0);
    kill(&workers[1]);
    assert_eq!(coordinator.event("worker_failed").worker_id, Some(dead));
    kill(&coordinator);
    let mut second = again(&stage, "second", &address);
    let (listens, body) = started(&mut second);
    match body.known_workers {
        // It was on disk.
        1 => {
            let _ = beats(&mut second, alive, listens + OVER);
            assert_eq!(second.events("worker_failed"), []);
        }
        2 => {
            verdict(&mut second, dead, listens);
            let _ = beats(&mut second, alive, listens + OVER);
            assert_eq!(second.events("worker_failed").len(), 1, "the dead one alone, and once");
        }
        other => panic!("{other} known workers"),
    }
}
