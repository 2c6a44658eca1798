//! Jobs as their clients have them: submitted, changed, paused, cancelled.

use rollout_core::hex;
use sha2::{Digest, Sha256};

use super::*;

#[tokio::test]
async fn parameters_are_checked_and_come_with_the_grant_after_a_restart_too() {
    let mut rig = Rig::new(1);
    let params: Vec<Box<RawValue>> = (0..600).map(|i| raw(format!("{{\"n\":{i}}}"))).collect();
    let lines: String = params.iter().map(|param| format!("{}\n", param.get())).collect();
    let digest = hex(&Sha256::digest(lines));
    let mut with = JobSpec { has_params: true, params_sha256: digest, ..spec(600) };
    let job = JobId::generate();
    let give = |params: Vec<Box<RawValue>>| {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(params).unwrap();
        receiver
    };
    let short = rig.work().submit(job, with.clone(), give(params[..599].to_vec())).await.unwrap();
    assert!(matches!(short, Submitted::Invalid { .. }), "{short:?}");
    let mut changed = params.clone();
    changed[3] = raw("0");
    let other = rig.work().submit(JobId::generate(), with.clone(), give(changed)).await.unwrap();
    assert!(matches!(other, Submitted::Invalid { .. }), "{other:?}");
    let taken = rig.work().submit(job, with.clone(), give(params)).await.unwrap();
    assert!(matches!(taken, Submitted::Accepted { resumed: false, .. }), "{taken:?}");
    rig.restart().await;
    let mut hand = rig.worker(0).await;
    while hand.params.len() < 600 {
        hand.want(8).await;
        let leases = hand.granted().await;
        hand.done(job, leases.into_iter().map(result).collect()).await;
    }
    for (item, param) in &hand.params {
        assert_eq!(param.get(), format!("{{\"n\":{item}}}"));
    }
    with.seed = 8;
    let answer = rig.work().submit(job, with, mpsc::channel(1).1).await.unwrap();
    let Submitted::Changed { differences } = answer else { panic!("{answer:?}") };
    assert_eq!(differences, ["seed"]);
}

#[tokio::test]
async fn large_parameters_come_in_several_lines_and_too_large_ones_are_refused_by_their_line() {
    let rig = Rig::new(1);
    let work = rig.work();
    let of = |bytes: usize| raw(format!("\"{}\"", "x".repeat(bytes - 2)));
    let with = |params: &[Box<RawValue>]| {
        let lines: String = params.iter().map(|param| format!("{}\n", param.get())).collect();
        let params_sha256 = hex(&Sha256::digest(lines));
        JobSpec { has_params: true, params_sha256, ..spec(params.len() as u64) }
    };
    let give = |params: Vec<Box<RawValue>>| {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(params).unwrap();
        receiver
    };
    let params = vec![of(9), of(rollout_transport::work::MAX_PARAMS + 1), of(9)];
    let answer = work.submit(JobId::generate(), with(&params), give(params)).await.unwrap();
    let Submitted::Invalid { detail } = answer else { panic!("{answer:?}") };
    assert!(detail.contains("line 2 have 1048577 bytes"), "{detail}");
    let sizes = [9, 100_000, 100_000, 100_000, rollout_transport::work::MAX_PARAMS, 9, 9, 200_000];
    let params: Vec<_> = sizes.map(of).into();
    let spec = with(&params);
    let answer = work.submit(JobId::generate(), spec, give(params)).await.unwrap();
    assert!(matches!(answer, Submitted::Accepted { .. }), "{answer:?}");
    let mut hand = rig.worker(0).await;
    hand.want(8).await;
    let mut lines = Vec::new();
    while hand.params.len() < sizes.len() {
        lines.push(hand.granted().await.len());
    }
    assert_eq!(lines, [3, 1, 1, 3]);
    assert!(hand.params.values().map(|param| param.get().len()).eq(sizes));
}

#[tokio::test]
async fn a_submission_dropped_at_any_point_leaves_its_id_free() {
    let rig = Rig::new(1);
    let work = rig.work();
    let with = JobSpec { has_params: true, ..spec(1) };
    let job = JobId::generate();
    for polls in 0..6 {
        // Parameters that never come: it is dropped wherever it has got to by then.
        let (sender, params) = mpsc::channel(1);
        let mut submission = Box::pin(work.submit(job, with.clone(), params));
        for _ in 0..polls {
            let poll = std::future::poll_fn(|context| {
                std::task::Poll::Ready(submission.as_mut().poll(context).is_ready())
            });
            assert!(!poll.await);
            // Answered by then, with nobody who has looked.
            work.status().await.unwrap();
        }
        drop((submission, sender));
        // A full inbox must not keep the id taken either.
        let mut waiting = Vec::new();
        while let Ok(permit) = work.inbox.try_reserve() {
            let (reply, answer) = oneshot::channel();
            permit.send(Input::Status(reply));
            waiting.push(answer);
            if waiting.len() == handle::QUEUE {
                break;
            }
        }
    }
    let (_, none) = mpsc::channel(1);
    let taken = work.submit(job, spec(1), none).await.unwrap();
    assert!(matches!(taken, Submitted::Accepted { resumed: false, .. }), "{taken:?}");
}

#[tokio::test]
async fn a_paused_job_grants_nothing_and_a_cancelled_one_is_gone_after_a_restart() {
    let mut rig = Rig::new(1);
    let work = rig.work();
    let (paused, other) = (submit(&work, spec(8)).await, submit(&work, spec(8)).await);
    assert!(work.pause(paused).await.unwrap().paused);
    let mut hand = rig.worker(0).await;
    hand.want(100).await;
    let leases = hand.granted().await;
    assert_eq!(leases.len(), 8);
    hand.done(other, leases.into_iter().map(result).collect()).await;
    assert_eq!(hand.acked().await, (1, vec![]), "they were the other job's");
    assert_eq!(work.resume(paused).await.unwrap().leased, 0);
    assert_eq!(hand.granted().await.len(), 8);
    let mut follow = work.follow(paused, 0).await.unwrap();
    work.cancel(paused).await.unwrap();
    let end = loop {
        match follow.next().await {
            Ok(Some(Followed::Standing(_))) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(WorkError::NoJob(_))), "{end:?}");
    drop((work, follow));
    rig.restart().await;
    let (_, jobs) = rig.work().status().await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.job).collect::<Vec<_>>(), [other]);
}

#[tokio::test]
async fn a_worker_is_told_the_new_limits_of_a_resumed_job_at_once() {
    let rig = Rig::new(1);
    let work = rig.work();
    let job = submit(&work, spec(8)).await;
    let mut hand = rig.worker(0).await;
    hand.want(8).await;
    hand.granted().await;
    let limits = JobLimits { progress_timeout: Duration::from_secs(1), ..spec(8).limits };
    let (_, none) = mpsc::channel(1);
    work.submit(job, JobSpec { limits: limits.clone(), ..spec(8) }, none).await.unwrap();
    let WorkDown::Job { job: told, limits: new, .. } = hand.next().await else { panic!() };
    assert_eq!((told, new), (job, limits));
}
