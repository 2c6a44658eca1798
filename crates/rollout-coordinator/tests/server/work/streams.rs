//! Streams that begin wrongly, that nobody reads, and that end with the coordinator.

use rollout_core::job::JobLimits;
use rollout_transport::work::MAX_LINE;

use super::*;

#[tokio::test]
async fn a_stream_of_work_that_begins_wrongly_is_refused_and_says_why() {
    let fleet = Fleet::new("[events]\nworker_rejected_interval = \"0s\"\n");
    let worker = fleet.worker().await;
    let WorkUp::Hello { incarnation, epoch, plugins, .. } = worker.hello() else { panic!() };
    let hello = |worker_id, epoch| {
        let plugins = plugins.clone();
        WorkUp::Hello { worker_id, incarnation, epoch, plugins }
    };
    let long = WorkUp::Done {
        seq: 1,
        job: JobId::generate(),
        outcomes: vec![Outcome {
            lease: Lease { item: 0, attempt: 1 },
            end: result(&format!("\"{}\"", "x".repeat(MAX_LINE))),
        }],
    };
    let many = WorkUp::Progress { job: JobId::generate(), items: vec![0; 100_001] };
    let named = |plugins| WorkUp::Hello { worker_id: worker.id, incarnation, epoch, plugins };
    for (lines, words, event) in [
        (vec![hello(WorkerId::generate(), epoch)], "the certificate is worker", true),
        (vec![WorkUp::Want { items: 1 }], "not a hello", true),
        (vec![hello(worker.id, epoch + 1)], "epoch", false),
        (vec![hello(worker.id, epoch), long], "longer than", true),
        (vec![hello(worker.id, epoch), many], "a line of 100001 items", true),
        (vec![named(vec!["p".into(); 65])], "plugins", true),
        (vec![named(vec!["p".repeat(257)])], "plugins", true),
    ] {
        let events = || {
            let topics = fleet.events.topics(worker.id);
            topics.iter().filter(|topic| **topic == "worker_rejected").count()
        };
        let before = events();
        let remote = fleet.remote(&Identity::Worker(worker.id)).await;
        let mut link = remote.work().await.unwrap();
        for line in lines {
            soon(link.up.send(line)).await.unwrap();
        }
        match soon(link.down.next()).await.unwrap() {
            Some(WorkDown::Refused { detail }) => assert!(detail.contains(words), "{detail}"),
            other => panic!("{other:?}"),
        }
        assert!(soon(link.down.next()).await.unwrap().is_none(), "{words}");
        let told = async {
            while events() != before + usize::from(event) {
                sleep(TICK).await;
            }
        };
        soon(told).await;
    }
}

#[tokio::test]
async fn a_follower_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    let limits = JobLimits { batch: 1, ..JobLimits::default() };
    accepted(&client.submit(job, &JobSpec { limits, ..spec(400) }, None).await.unwrap());
    let mut slow = client.follow(job, 0).await.unwrap();
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 400 }).await;
    // Far more than all windows and queues between.
    let large = format!("\"{}\"", "x".repeat(30_000));
    let (mut left, mut items) = (400, Vec::new());
    while left > 0 {
        match worker.hear().await {
            Some(WorkDown::Grant { attempt, first, count, .. }) => {
                for item in first..first + u64::from(count) {
                    left -= 1;
                    worker.seq += 1;
                    let outcome = Outcome { lease: Lease { item, attempt }, end: result(&large) };
                    let (seq, outcomes) = (worker.seq, vec![outcome]);
                    worker.say(WorkUp::Done { seq, job, outcomes }).await;
                }
            }
            Some(WorkDown::Job { .. } | WorkDown::Ack { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let quick = fleet.client().await;
    let mut follow = quick.follow(job, 0).await.unwrap();
    loop {
        match soon(follow.next()).await.unwrap() {
            Some(Followed::Finished(standing)) => break assert_eq!(standing.done, 400),
            Some(_) => {}
            None => panic!("ended before the job"),
        }
    }
    let mut next = 1;
    loop {
        match soon(slow.next()).await.unwrap() {
            Some(Followed::Committed { seq, items: batch }) => {
                assert_eq!(seq, next, "without gaps");
                next += 1;
                items.extend(batch.into_iter().map(|committed| committed.item));
            }
            Some(Followed::Standing(_)) => {}
            Some(Followed::Finished(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    items.sort_unstable();
    assert_eq!(items, (0..400).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_is_connected_hears_that_the_coordinator_stops() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    accepted(&client.submit(job, &spec(2), None).await.unwrap());
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 1 }).await;
    worker.granted().await;
    let silent = fleet.worker().await;
    let mut follow = client.follow(job, 0).await.unwrap();
    let params: Vec<_> = (0..10).map(|n| format!("{n}\n")).collect();
    let (open, receiver) = mpsc::channel(1);
    let spec = with_params(&params);
    let coming = JobId::generate();
    let submit = client.submit(coming, &spec, Some(receiver));
    let begun = async {
        loop {
            match client.submit(coming, &spec, given(&[])).await.unwrap() {
                Submitted::Invalid { detail } if detail.contains("somebody else") => return,
                Submitted::Invalid { .. } => sleep(TICK).await,
                other => panic!("{other:?}"),
            }
        }
    };
    let stop = async {
        // Both have begun when they are asked to end.
        assert!(matches!(soon(follow.next()).await, Ok(Some(Followed::Standing(_)))));
        soon(begun).await;
        fleet.coordinator.stop("test").await.unwrap();
        loop {
            match soon(follow.next()).await.unwrap() {
                Some(Followed::Standing(_)) => {}
                other => break assert!(matches!(other, Some(Followed::Stopping)), "{other:?}"),
            }
        }
        assert!(soon(follow.next()).await.unwrap().is_none());
    };
    let (answer, ()) = tokio::join!(submit, stop);
    drop(open);
    match answer {
        Err(CallError::Lost { why }) => assert!(why.contains("stopping"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(worker.hear().await, Some(WorkDown::Stopping)));
    assert!(worker.hear().await.is_none());
    let mut down = silent.link.down;
    assert!(matches!(soon(down.next()).await.unwrap(), Some(WorkDown::Stopping)));
    soon(client.closed()).await;
    assert!(matches!(client.status().await, Err(CallError::Lost { .. })));
}
