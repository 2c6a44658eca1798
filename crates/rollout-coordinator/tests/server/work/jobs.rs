//! A job from its submission to its last result.

use super::*;

/// Submits until the id is free.
async fn accepted_in_the_end(client: &Remote, job: JobId, spec: &JobSpec, params: &[String]) {
    let trying = async {
        loop {
            let answer = client.submit(job, spec, given(params)).await.unwrap();
            if let Submitted::Accepted { resumed, .. } = answer {
                return assert!(!resumed);
            }
            sleep(TICK).await;
        }
    };
    soon(trying).await;
}

#[tokio::test]
async fn a_job_goes_from_its_client_over_a_worker_back_byte_for_byte() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    accepted(&client.submit(job, &spec(3), None).await.unwrap());
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 8 }).await;
    let leases = worker.granted().await;
    assert_eq!(leases.len(), 3);
    let mut follow = client.follow(job, 0).await.unwrap();
    worker.done(job, &leases, |lease| result(&format!("{{\"n\" : {}.0}}", lease.item))).await;
    let (mut items, mut standings) = (Vec::new(), 0);
    let finished = loop {
        match soon(follow.next()).await.unwrap().unwrap() {
            Followed::Committed { seq, items: batch } => {
                assert_eq!(seq, 1);
                items.extend(batch);
            }
            Followed::Standing(_) => standings += 1,
            Followed::Finished(standing) => break standing,
            Followed::Stopping => panic!("nobody stops"),
        }
    };
    assert!(standings > 0, "how it stands is told from the beginning");
    assert_eq!((finished.done, finished.pending, finished.leased, finished.seq), (3, 0, 0, 1));
    for committed in &items {
        let Final::Result(raw) = &committed.end else { panic!("{committed:?}") };
        assert_eq!(raw.get(), format!("{{\"n\" : {}.0}}", committed.item));
    }
    assert_eq!(items.len(), 3);
    assert!(soon(follow.next()).await.unwrap().is_none());
    let status = client.status().await.unwrap();
    assert_eq!(status.run_id, fleet.coordinator.run_id());
    assert_eq!((status.workers.len(), status.jobs.len(), status.term), (1, 1, 1));
    assert_eq!((status.workers[0].worker_id, status.jobs[0].job), (worker.id, job));
    let again = client.submit(job, &spec(3), None).await.unwrap();
    assert!(matches!(again, Submitted::Accepted { resumed: true, .. }), "{again:?}");
    let other = client.submit(job, &spec(4), None).await.unwrap();
    assert!(matches!(other, Submitted::Changed { .. }), "{other:?}");
    client.cancel(job).await.unwrap();
    assert!(matches!(client.cancel(job).await, Err(CallError::NotFound { .. })));
}

#[tokio::test]
async fn parameters_reach_the_worker_in_whatever_pieces_they_come() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    let lines: Vec<_> = (0..5_000).map(|n| format!("{{\"q\":\"question {n}\"}}\n")).collect();
    let whole = lines.concat();
    let pieces: Vec<_> = whole.as_bytes().chunks(37).map(Bytes::copy_from_slice).collect();
    let (sender, receiver) = mpsc::channel(4);
    let feed = async move {
        for piece in pieces {
            sender.send(piece).await.unwrap();
        }
    };
    let spec = with_params(&lines);
    let submit = client.submit(job, &spec, Some(receiver));
    let (answer, ()) = soon(async { tokio::join!(submit, feed) }).await;
    accepted(&answer.unwrap());
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 10 }).await;
    assert!(matches!(worker.hear().await, Some(WorkDown::Job { .. })));
    let Some(WorkDown::Grant { first: 0, params: Some(params), .. }) = worker.hear().await else {
        panic!("no grant with parameters")
    };
    let found: Vec<_> = params.iter().map(|param| format!("{}\n", param.get())).collect();
    assert_eq!(found, lines[..found.len()]);
    assert!(!found.is_empty());
    // Resumed, the parameters are not wanted, and what was sent of them disturbs nobody.
    for _ in 0..3 {
        let again = client.submit(job, &spec, given(&lines)).await.unwrap();
        assert!(matches!(again, Submitted::Accepted { resumed: true, .. }), "{again:?}");
    }
    assert_eq!(client.status().await.unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_submission_is_said_and_its_id_stays_free() {
    let fleet = Fleet::new("");
    let client = fleet.client().await;
    let good: Vec<_> = (0..3).map(|n| format!("{n}\n")).collect();
    let spec = with_params(&good);
    let refused = |answer: Result<Submitted, CallError>, wanted: u16, words: &str| match answer {
        Err(CallError::Refused { status, detail }) => {
            assert_eq!(status, wanted, "{detail}");
            assert!(detail.contains(words), "{detail}");
        }
        other => panic!("{other:?}"),
    };
    // An id of its own each: it is free again soon after the answer, not before it.
    let jobs: Vec<_> = std::iter::repeat_with(JobId::generate).take(5).collect();
    let mut left = jobs.iter();
    let mut submit =
        |lines: Vec<String>| client.submit(*left.next().unwrap(), &spec, given(&lines));
    let long = format!("\"{}\"\n", "x".repeat(1 << 20));
    refused(submit(vec!["0\n".into(), long]).await, 413, "longer than");
    refused(submit(vec!["0\n1\n{\n".into()]).await, 400, "not a message");
    refused(submit(vec!["0\n1\n2".into()]).await, 400, "inside a line");
    for (lines, words) in [("0\n1\n", "3 items"), ("0\n1\n3\n", "params_sha256")] {
        match submit(vec![lines.into()]).await.unwrap() {
            Submitted::Invalid { detail } => assert!(detail.contains(words), "{detail}"),
            other => panic!("{other:?}"),
        }
    }
    for job in jobs {
        accepted_in_the_end(&client, job, &spec, &good).await;
    }
}

#[tokio::test]
async fn a_submission_that_is_given_up_or_cut_off_leaves_its_id_free() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let client = fleet.client().await;
    let lines: Vec<_> = (0..3_000).map(|n| format!("[{n:300}]\n")).collect();
    let spec = with_params(&lines);
    for cut in [false, true] {
        let other = fleet.client().await;
        let (sender, receiver) = mpsc::channel(1);
        let mut submit = Box::pin(other.submit(job, &spec, Some(receiver)));
        let half = async {
            for line in &lines[..2_000] {
                sender.send(line.clone().into()).await.unwrap();
            }
            // More than fits in between: the parameters are being read, and the id is taken.
            let answer = client.submit(job, &spec, given(&lines)).await.unwrap();
            assert!(!matches!(answer, Submitted::Accepted { .. }), "two submissions of one id");
        };
        tokio::select! {
            answer = &mut submit => panic!("{answer:?}"),
            () = soon(half) => {}
        }
        drop(submit);
        if cut {
            drop(other);
            accepted_in_the_end(&client, job, &spec, &lines).await;
            continue;
        }
        accepted_in_the_end(&client, job, &spec, &lines).await;
        client.cancel(job).await.unwrap();
        assert!(other.status().await.is_ok(), "the connection is as good as before");
    }
}

#[tokio::test]
async fn there_is_nothing_to_be_done_with_a_job_that_is_not_there() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let client = fleet.client().await;
    let missing = |error: CallError| match error {
        CallError::NotFound { what } => assert!(what.contains(&job.to_string()), "{what}"),
        other => panic!("{other:?}"),
    };
    missing(client.follow(job, 0).await.unwrap_err());
    missing(client.pause(job).await.unwrap_err());
    missing(client.resume(job).await.unwrap_err());
    missing(client.cancel(job).await.unwrap_err());
    accepted(&client.submit(job, &spec(1), None).await.unwrap());
    assert!(client.pause(job).await.unwrap().paused);
    assert!(!client.resume(job).await.unwrap().paused);
}
