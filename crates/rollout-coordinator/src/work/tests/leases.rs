//! Leases over their lives: results, crashes, suspicion, and a new term in between.

use rollout_storage::StorageError;
use rollout_transport::work::Token;

use super::*;

#[tokio::test]
async fn results_come_out_once_each_and_in_the_order_of_the_ledger() {
    let rig = Rig::new(1);
    let work = rig.work();
    let job = submit(&work, spec(100)).await;
    let mut hand = rig.worker(0).await;
    let mut done = 0;
    while done < 100 {
        hand.want(8).await;
        let outcomes: Vec<Said> = hand.granted().await.into_iter().map(result).collect();
        done += outcomes.len();
        hand.done(job, outcomes).await;
        assert_eq!(hand.acked().await, (hand.seq, vec![]));
    }
    let items = follow(&work, job).await;
    assert_eq!(items.len(), 100);
    for (item, end) in items {
        let Final::Result(result) = end else { panic!("{end:?}") };
        assert_eq!(result.get(), item.to_string());
    }
    assert!(rig.count("items_leased") > 0 && rig.count("items_committed") > 0);
    assert_eq!(rig.count("commit_rejected") + rig.count("items_redispatched"), 0);
}

#[tokio::test]
async fn a_new_term_keeps_the_leases_and_takes_what_was_not_acknowledged_once() {
    let mut rig = Rig::new(1);
    let job = submit(&rig.work(), spec(16)).await;
    let mut hand = rig.worker(0).await;
    hand.want(16).await;
    let first = hand.granted().await;
    let second = hand.granted().await;
    hand.done(job, first.iter().copied().map(result).collect()).await;
    assert_eq!(hand.acked().await.0, 1);
    rig.restart().await;
    let mut again = rig.worker(0).await;
    assert_eq!(again.granted().await, second, "what it still has is said again, and no more");
    again.done(job, first.iter().copied().map(result).collect()).await;
    assert_eq!(again.acked().await, (1, vec![]), "taken in before: no second commit");
    again.seq = 1;
    again.done(job, second.iter().copied().map(result).collect()).await;
    assert_eq!(again.acked().await, (2, vec![]));
    assert_eq!(follow(&rig.work(), job).await.len(), 16);
    assert_eq!(rig.count("commit_rejected"), 0);
}

/// A clock that a test puts forward.
#[derive(Default)]
struct Forward(std::sync::atomic::AtomicU64);

impl Clock for Forward {
    fn now(&self) -> Mono {
        let ahead = self.0.load(std::sync::atomic::Ordering::SeqCst);
        SystemClock.now() + Duration::from_millis(ahead)
    }

    fn boot(&self) -> Mono {
        self.now()
    }

    fn wall(&self) -> std::time::SystemTime {
        SystemClock.wall()
    }
}

#[tokio::test]
async fn an_item_is_not_blamed_for_the_silence_of_a_slow_disk() {
    for slow in [true, false] {
        let mut rig = Rig::new(1);
        let clock = Arc::new(Forward::default());
        rig.thread.take().unwrap().stop().await.unwrap().unwrap();
        rig.start_with(Arc::clone(&clock) as _);
        let work = rig.work();
        let limits =
            JobLimits { progress_timeout: Duration::from_millis(1), ..JobLimits::default() };
        let job = submit(&work, JobSpec { limits, ..spec(1) }).await;
        let mut hand = rig.worker(0).await;
        hand.want(1).await;
        hand.granted().await;
        let (release, held) = std::sync::mpsc::channel::<()>();
        if slow {
            let hold = move |_: &mut rollout_storage::Batch<'_>| {
                let _ = held.recv();
                Ok(())
            };
            work.store.submit(rollout_storage::Priority::Control, hold, |_| ());
        }
        let mut pausing = tokio::task::JoinSet::new();
        pausing.spawn({
            let work = work.clone();
            async move { work.pause(job).await.unwrap() }
        });
        if !slow {
            assert!(pausing.join_next().await.unwrap().unwrap().paused);
        }
        // Eight seconds, none of which looks as if the thread itself had been stopped.
        for _ in 0..40 {
            clock.0.fetch_add(200, std::sync::atomic::Ordering::SeqCst);
            work.status().await.unwrap();
        }
        drop(release);
        while let Some(standing) = pausing.join_next().await {
            assert!(standing.unwrap().paused);
        }
        let standing = work.status().await.unwrap().1[0].standing.clone();
        assert_eq!((standing.leased, standing.failures), (u64::from(slow), u64::from(!slow)));
    }
}

#[tokio::test]
async fn the_log_of_leases_stays_short_while_a_job_runs_and_a_new_term_goes_on_from_it() {
    const ITEMS: u64 = 12_000;
    let mut rig = Rig::new(1);
    let limits = JobLimits { batch: 1, ..JobLimits::default() };
    let job = submit(&rig.work(), JobSpec { limits, ..spec(ITEMS) }).await;
    let (mut done, mut seq, mut longest) = (0, 0, 0);
    while done < ITEMS {
        let mut hand = rig.worker(0).await;
        hand.seq = seq;
        hand.want(600).await;
        let term = (done + ITEMS / 3).min(ITEMS);
        while done < term {
            let leases = hand.granted().await;
            done += leases.len() as u64;
            hand.done(job, leases.into_iter().map(result).collect()).await;
            hand.want(1).await;
            if done.is_multiple_of(500) {
                longest = longest.max(store::lease_rows(&rig.work().store, job));
            }
        }
        seq = hand.seq;
        // What a stream that is cut has not acknowledged is to be said again.
        while hand.acked().await.0 < seq {}
        drop(hand);
        rig.restart().await;
    }
    assert!((1_000..6_000).contains(&longest), "{longest} rows");
    assert_eq!(follow(&rig.work(), job).await.len() as u64, ITEMS);
    assert_eq!(rig.count("commit_rejected"), 0);
}

#[tokio::test]
async fn a_suspected_worker_loses_its_items_to_another_and_its_late_commit_is_refused() {
    let rig = Rig::new(2);
    let work = rig.work();
    let job = submit(&work, spec(4)).await;
    let mut slow = rig.worker(0).await;
    slow.want(4).await;
    let mut late = slow.granted().await;
    late.truncate(2);
    let board = rig.thread.as_ref().unwrap().board();
    board.stands(rig.workers[0].0, 1, Standing::Suspected);
    let mut quick = rig.worker(1).await;
    quick.want(100).await;
    let mut ended = HashSet::new();
    while ended.len() < 4 {
        let leases = quick.granted().await;
        ended.extend(leases.iter().map(|lease| lease.item));
        quick.done(job, leases.into_iter().map(result).collect()).await;
        assert_eq!(quick.acked().await.1, []);
    }
    slow.done(job, late.iter().copied().map(result).collect()).await;
    let (_, stale) = slow.acked().await;
    assert_eq!(stale.iter().map(|s| s.token).collect::<Vec<_>>(), vec![Token::State; 2]);
    // The answer may have been lost with its stream.
    let mut again = rig.worker(0).await;
    again.done(job, late.iter().copied().map(result).collect()).await;
    assert_eq!(again.acked().await, (1, stale), "the same once more");
    assert_eq!(follow(&work, job).await.len(), 4);
    assert_eq!((rig.count("items_redispatched"), rig.count("commit_rejected")), (1, 1));
}

#[tokio::test]
async fn what_a_job_has_been_through_is_known_in_every_later_term_and_what_is_given_back_is_nothing()
 {
    let mut rig = Rig::new(2);
    let work = rig.work();
    let job = submit(&work, spec(5)).await;
    let mut slow = rig.worker(0).await;
    slow.want(5).await;
    let mut leases = slow.granted().await;
    while leases.len() < 5 {
        leases.extend(slow.granted().await);
    }
    // One fails, one crashes, both for good as far as this worker goes, and one is given back.
    let failure =
        Failure { code: "bad".into(), message: "no".into(), traceback: None, stderr_tail: None };
    let end = |lease: Lease| match lease.item {
        0 => Said { lease, end: End::Failed(failure.clone()) },
        _ => Said { lease, end: End::Lost { failure: failure.clone(), alone: true } },
    };
    slow.done(job, leases[..2].iter().copied().map(end).collect()).await;
    assert_eq!(slow.acked().await.1, []);
    slow.sink.send(WorkUp::Return { job, leases: vec![leases[2]] }).await.unwrap();
    // The other two are taken from it, and what it says of one of them then is refused.
    rig.thread.as_ref().unwrap().board().stands(rig.workers[0].0, 1, Standing::Suspected);
    let mut quick = rig.worker(1).await;
    quick.want(100).await;
    let mut again = Vec::new();
    while again.len() < 5 {
        again.extend(quick.granted().await);
    }
    quick.done(job, again.into_iter().map(result).collect()).await;
    assert_eq!(quick.acked().await.1, []);
    slow.done(job, vec![result(leases[3])]).await;
    assert_eq!(slow.acked().await.1.len(), 1);
    let through = async |rig: &Rig| {
        let (_, jobs) = rig.work().status().await.unwrap();
        let [of] = &jobs[..] else { panic!("{jobs:?}") };
        let standing = &of.standing;
        [standing.done, standing.failures, standing.losses, standing.redispatched, standing.stale]
    };
    assert_eq!(through(&rig).await, [5, 1, 1, 2, 1]);
    drop((work, slow, quick));
    for _ in 0..2 {
        rig.restart().await;
        assert_eq!(through(&rig).await, [5, 1, 1, 2, 1]);
    }
}

#[tokio::test]
async fn an_item_that_always_fails_is_a_dead_letter_with_its_error_and_the_others_are_done() {
    let rig = Rig::new(1);
    let work = rig.work();
    let job = submit(&work, spec(3)).await;
    let mut hand = rig.worker(0).await;
    let failure = Failure {
        code: "bad".into(),
        message: "no such level".into(),
        traceback: Some("line 3".into()),
        stderr_tail: None,
    };
    hand.want(3).await;
    let mut answered = 0;
    while answered < 5 {
        let leases = hand.granted().await;
        answered += leases.len();
        let outcome = |lease: Lease| match lease.item {
            1 => Said { lease, end: End::Failed(failure.clone()) },
            _ => result(lease),
        };
        hand.done(job, leases.into_iter().map(outcome).collect()).await;
        hand.want(1).await;
    }
    let items = follow(&work, job).await;
    assert_eq!(items.len(), 3);
    let Final::Dead { failure: last, failures: 3, losses: 0 } = &items[&1] else {
        panic!("{items:?}");
    };
    assert_eq!(last, &failure);
    assert_eq!(rig.count("item_dead_lettered"), 1);
}

#[tokio::test]
async fn a_coordinator_whose_term_is_over_commits_nothing() {
    let mut rig = Rig::new(1);
    let job = submit(&rig.work(), spec(1)).await;
    let mut hand = rig.worker(0).await;
    hand.want(1).await;
    let leases = hand.granted().await;
    let records = Records::new(Arc::clone(&rig.work().store));
    records.begin_term(None).unwrap();
    hand.done(job, leases.into_iter().map(result).collect()).await;
    let ended = timeout(PATIENCE, rig.thread.as_mut().unwrap().ended()).await.unwrap().unwrap();
    assert!(matches!(*ended.unwrap_err(), StorageError::Fenced { .. }));
}
