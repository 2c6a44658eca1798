//! Results that are too large for a row of the ledger.

use rollout_core::hex;
use sha2::{Digest, Sha256};

use super::*;

#[tokio::test]
async fn a_large_result_counts_only_once_its_bytes_are_there() {
    let rig = Rig::new(1);
    let work = rig.work();
    let job = submit(&work, spec(1)).await;
    let mut hand = rig.worker(0).await;
    let bytes = vec![b'x'; 100_000];
    let sha256 = hex(&Sha256::digest(&bytes));
    let blob = rollout_transport::work::Blob { sha256: sha256.clone(), bytes: 100_000 };
    for uploaded in [false, true] {
        if uploaded {
            let mut upload = work.blobs().begin(&sha256).unwrap();
            upload.write(&bytes).unwrap();
            assert_eq!(upload.finish().unwrap(), 100_000);
        }
        hand.want(1).await;
        let lease = hand.granted().await[0];
        hand.done(job, vec![Said { lease, end: End::Blob(blob.clone()) }]).await;
        hand.acked().await;
        let standing = work.status().await.unwrap().1[0].standing.clone();
        assert_eq!(standing.done, u64::from(uploaded));
        assert_eq!(standing.failures, 0, "its item is not to blame for bytes that have gone");
    }
    let mut wrong = work.blobs().begin(&sha256).unwrap();
    wrong.write(b"other bytes").unwrap();
    assert!(matches!(wrong.finish(), Err(BlobError::Digest { .. })));
    assert!(work.blobs().begin("../coordinator.redb").is_err());
    let left = std::fs::read_dir(rig.dir.path().join("coordinator.blobs")).unwrap().count();
    assert_eq!(left, 1, "what was refused leaves nothing");
}

#[tokio::test]
async fn a_large_result_that_is_asked_for_counts_as_new_when_the_old_ones_go() {
    let rig = Rig::new(1);
    let blobs = rig.work().blobs().clone();
    let sha256 = hex(&Sha256::digest(b"a result"));
    let mut upload = blobs.begin(&sha256).unwrap();
    upload.write(b"a result").unwrap();
    upload.finish().unwrap();
    let old = SystemClock.wall() - 2 * BLOB_AGE;
    blobs.read(&sha256).unwrap().unwrap().set_modified(old).unwrap();
    assert_eq!(blobs.keep(&sha256).unwrap(), Some(8));
    let before = SystemClock.wall() - BLOB_AGE;
    assert_eq!(blobs.sweep(&HashSet::new(), before).unwrap(), 0);
    blobs.read(&sha256).unwrap().unwrap().set_modified(old).unwrap();
    assert_eq!(blobs.sweep(&HashSet::new(), before).unwrap(), 1);
    assert_eq!(blobs.keep(&sha256).unwrap(), None);
}

#[tokio::test]
async fn a_cancelled_job_takes_no_large_result_along_that_another_commits() {
    let mut rig = Rig::new(1);
    let work = rig.work();
    let (first, second) = (submit(&work, spec(1)).await, submit(&work, spec(1)).await);
    let mut hand = rig.worker(0).await;
    let sha256 = hex(&Sha256::digest(b"the same"));
    let mut upload = work.blobs().begin(&sha256).unwrap();
    upload.write(b"the same").unwrap();
    upload.finish().unwrap();
    hand.want(2).await;
    let leases = [hand.granted().await[0], hand.granted().await[0]];
    let said = |lease| {
        let blob = rollout_transport::work::Blob { sha256: sha256.clone(), bytes: 8 };
        vec![Said { lease, end: End::Blob(blob) }]
    };
    hand.done(first, said(leases[0])).await;
    hand.acked().await;
    // The cancellation is taken in while the other commit may still be on its way.
    hand.done(second, said(leases[1])).await;
    work.cancel(first).await.unwrap();
    assert_eq!(follow(&work, second).await.len(), 1);
    assert!(work.blobs().read(&sha256).unwrap().is_some(), "a commit refers to it");
    drop(work);
    rig.restart().await;
    assert!(rig.work().blobs().read(&sha256).unwrap().is_some(), "after a restart, too");
}

#[tokio::test]
async fn what_is_too_large_for_a_row_is_a_failure_of_its_item_and_every_row_can_be_followed() {
    let rig = Rig::new(1);
    let work = rig.work();
    let limits = JobLimits { max_attempts: 1, ..spec(1).limits };
    let job = submit(&work, JobSpec { limits, ..spec(64) }).await;
    let mut hand = rig.worker(0).await;
    let mut done = 0;
    while done < 64 {
        hand.want(8).await;
        let leases = hand.granted().await;
        done += leases.len();
        let end = |lease: Lease| match lease.item {
            0 => End::Result(raw(format!("\"{}\"", "x".repeat(100_000)))),
            // Six bytes each in a line of JSON.
            _ => End::Failed(Failure {
                code: "odd".into(),
                message: "\u{1}".repeat(100_000),
                traceback: Some("\u{1}".repeat(100_000)),
                stderr_tail: Some("ö\u{1}".repeat(100_000)),
            }),
        };
        let said = leases.into_iter().map(|lease| Said { lease, end: end(lease) }).collect();
        hand.done(job, said).await;
        assert_eq!(hand.acked().await, (hand.seq, vec![]));
    }
    let (mut follow, mut ended) = (work.follow(job, 0).await.unwrap(), 0);
    while let Some(line) = timeout(PATIENCE, follow.next()).await.unwrap().unwrap() {
        let length = serde_json::to_vec(&line).unwrap().len();
        assert!(length <= rollout_transport::work::MAX_LINE, "{length} bytes");
        let Followed::Committed { items, .. } = line else { continue };
        ended += items.len();
        for committed in items.iter().filter(|committed| committed.item == 0) {
            let Final::Dead { failure, .. } = &committed.end else { panic!("counted") };
            assert_eq!(failure.code, "result_too_large");
        }
    }
    assert_eq!(ended, 64);
}
