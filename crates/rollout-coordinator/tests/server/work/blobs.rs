//! Results too large for a line.

use std::time::Instant;

use rollout_transport::work::Blob;

use super::*;

#[tokio::test]
async fn a_blob_is_there_under_the_name_of_its_bytes_and_under_no_other() {
    let fleet = Fleet::new("");
    let (client, worker) = (fleet.client().await, fleet.worker().await);
    let bytes: Vec<_> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (bytes, name) = (Bytes::from(bytes.clone()), sha256(&bytes));
    let wrong = sha256(b"something else");
    match worker.remote.put_blob(&wrong, bytes.clone()).await {
        Err(CallError::Refused { status: 400, detail }) => {
            assert!(detail.contains("SHA-256"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.get_blob(&wrong).await, Err(CallError::NotFound { .. })));
    for _ in 0..2 {
        worker.remote.put_blob(&name, bytes.clone()).await.unwrap();
    }
    let (mut stream, mut read) = (client.get_blob(&name).await.unwrap(), Vec::new());
    while let Some(piece) = soon(stream.next()).await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(read == bytes);
    // An upload that is given up leaves nothing.
    let names = || std::fs::read_dir(fleet.dir.path().join("coord.blobs")).unwrap().count();
    assert_eq!(names(), 1);
}

#[tokio::test]
async fn a_result_in_a_blob_is_committed_and_its_client_is_told_where_it_is() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    accepted(&client.submit(job, &spec(1), None).await.unwrap());
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 1 }).await;
    let leases = worker.granted().await;
    let bytes = Bytes::from(vec![b'7'; 100_000]);
    let blob = Blob { sha256: sha256(&bytes), bytes: 100_000 };
    worker.remote.put_blob(&blob.sha256, bytes).await.unwrap();
    worker.done(job, &leases, |_| End::Blob(blob.clone())).await;
    let mut follow = client.follow(job, 0).await.unwrap();
    loop {
        match soon(follow.next()).await.unwrap().unwrap() {
            Followed::Committed { items, .. } => {
                assert!(matches!(&items[0].end, Final::Blob(found) if *found == blob));
                break;
            }
            Followed::Standing(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn hundreds_of_blobs_a_second_are_no_flood() {
    let fleet = Fleet::new("");
    let worker = fleet.worker().await;
    let begun = Instant::now();
    // Each is asked for and not sent: 1,500 requests, far more than 100 a second.
    let bytes = Bytes::from_static(b"a blob");
    let name = sha256(&bytes);
    for _ in 0..1_500 {
        soon(worker.remote.put_blob(&name, bytes.clone())).await.unwrap();
    }
    assert!(begun.elapsed() < PATIENCE);
    assert!(!fleet.events.topics(worker.id).contains(&"worker_rejected"));
}
