//! The store on real files: durability across processes' lives, grouping, order, and refusals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::sync::mpsc;

use proptest::prelude::*;
use rollout_core::WorkerId;
use rollout_storage::{Priority, StorageError, Store, Table};
use tempfile::tempdir;

const NUMBERS: Table<u64, String> = Table::new("numbers");
const WORKERS: Table<WorkerId, u64> = Table::new("workers");
const TERM: Table<(), u64> = Table::new("term");

/// Keeps the writer inside a transaction until the returned gate is opened or dropped.
fn hold(store: &Store) -> mpsc::Sender<()> {
    let (release, gate) = mpsc::channel::<()>();
    let (entered, is_in) = mpsc::channel();
    store.submit(
        Priority::Control,
        move |_| {
            entered.send(()).unwrap();
            let _ = gate.recv();
            Ok(())
        },
        |_| (),
    );
    is_in.recv().unwrap();
    release
}

#[test]
fn what_was_acknowledged_is_there_after_reopening() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("deep/er/s.db");
    let worker = WorkerId::generate();
    let store = Store::open(&path).unwrap();
    store
        .write(move |batch| {
            batch.put(TERM, &(), &7)?;
            batch.put(WORKERS, &worker, &3)?;
            batch.put(NUMBERS, &1, &"one".to_owned())?;
            batch.put(NUMBERS, &2, &"two".to_owned())
        })
        .unwrap();
    store.write(|batch| batch.remove(NUMBERS, &1)).unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.get(TERM, &()).unwrap(), Some(7));
    assert_eq!(store.scan(WORKERS).unwrap(), [(worker, 3)]);
    assert_eq!(store.get(NUMBERS, &1).unwrap(), None);
    assert_eq!(store.scan(NUMBERS).unwrap(), [(2, "two".to_owned())]);
}

#[test]
fn a_table_never_written_is_empty() {
    let dir = tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).unwrap();
    assert_eq!(store.get(TERM, &()).unwrap(), None);
    assert_eq!(store.scan(WORKERS).unwrap(), []);
}

#[test]
fn of_what_arrives_during_a_commit_control_writes_go_first() {
    let dir = tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).unwrap();
    let (order, seen) = mpsc::channel();
    let release = hold(&store);
    for n in 0..50u64 {
        let (priority, order) =
            (if n % 2 == 0 { Priority::Background } else { Priority::Control }, order.clone());
        let value = n.to_string();
        store.submit(
            priority,
            move |batch| {
                order.send(n).unwrap();
                batch.put(NUMBERS, &n, &value)
            },
            |result| result.unwrap(),
        );
    }
    drop(release);
    store.write(|_| Ok(())).unwrap();
    drop(order);
    drop(store);
    let seen: Vec<u64> = seen.iter().collect();
    let expected: Vec<u64> = (1..50).step_by(2).chain((0..50).step_by(2)).collect();
    assert_eq!(seen, expected);
    assert_eq!(Store::open(&dir.path().join("s.db")).unwrap().scan(NUMBERS).unwrap().len(), 50);
}

#[test]
fn dropping_the_store_writes_what_was_submitted_and_calls_back() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s.db");
    let store = Store::open(&path).unwrap();
    let (done, outcomes) = mpsc::channel();
    for n in 0..200 {
        let done = done.clone();
        store.submit(
            Priority::Background,
            move |batch| batch.put(NUMBERS, &n, &String::new()),
            move |result| done.send(result.is_ok()).unwrap(),
        );
    }
    drop((store, done));
    assert_eq!(outcomes.iter().filter(|ok| *ok).count(), 200);
    assert_eq!(Store::open(&path).unwrap().scan(NUMBERS).unwrap().len(), 200);
}

#[test]
fn what_arrives_during_a_commit_shares_the_next_one_and_fails_with_it() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s.db");
    let store = Store::open(&path).unwrap();
    let release = hold(&store);
    let (done, outcomes) = mpsc::channel();
    let (failing, second) = (path.clone(), done.clone());
    store.submit(
        Priority::Control,
        |batch| batch.put(TERM, &(), &1),
        move |result| done.send(result).unwrap(),
    );
    store.submit(
        Priority::Control,
        |_| Err(StorageError::Overloaded { path: failing, queued: 7 }),
        move |result| second.send(result).unwrap(),
    );
    drop(release);
    let mut errors = outcomes.iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(errors.len(), 2);
    errors.push(store.write(|batch| batch.put(TERM, &(), &2)).unwrap_err());
    // Whoever comes later is told the first reason, not only that there was one.
    for error in errors {
        assert!(matches!(*error, StorageError::Overloaded { queued: 7, .. }), "{error}");
    }
    drop(store);
    assert_eq!(Store::open(&path).unwrap().get(TERM, &()).unwrap(), None);
}

#[test]
fn a_panicking_write_leaves_nobody_waiting() {
    let dir = tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).unwrap();
    assert!(store.write(|_| panic!("a caller's defect")).is_err());
    assert!(store.write(|_| Ok(())).is_err());
}

#[test]
fn one_write_too_many_is_refused_and_the_others_are_kept() {
    let dir = tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).unwrap();
    let release = hold(&store);
    let (done, outcomes) = mpsc::channel();
    for _ in 0..65_537 {
        let done = done.clone();
        store.submit(Priority::Background, |_| Ok(()), move |r| done.send(r).unwrap());
    }
    drop(release);
    drop((store, done));
    let refused: Vec<_> = outcomes.iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 1);
    assert!(matches!(*refused[0], StorageError::Overloaded { queued: 65_536, .. }));
}

#[test]
fn a_file_that_is_no_database_is_called_damaged_and_is_left_as_it_was() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s.db");
    let junk = vec![0x5a; 8192];
    fs::write(&path, &junk).unwrap();
    let error = Store::open(&path).err().unwrap();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(fs::read(&path).unwrap(), junk);
}

#[test]
fn a_directory_in_the_way_is_an_io_error_that_names_it() {
    let dir = tempdir().unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_row_of_another_type_is_an_error_that_names_the_table() {
    const WRONG: Table<u64, Vec<u8>> = Table::new("numbers");
    let dir = tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).unwrap();
    store.write(|batch| batch.put(NUMBERS, &1, &"one".to_owned())).unwrap();
    let error = store.scan(WRONG).unwrap_err();
    assert!(error.to_string().contains("table `numbers`"), "{error}");
}

#[test]
fn a_range_is_read_from_its_start_until_it_is_enough_and_removed_with_both_ends() {
    let dir = tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).unwrap();
    let from = |first: u64, most: usize| {
        let mut found = Vec::new();
        let row = |key, _| {
            found.push(key);
            if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        store.range(NUMBERS, &first, row).unwrap();
        found
    };
    assert_eq!(from(0, 9), [0; 0], "a table that is not there is empty");
    store
        .write(|batch| {
            (0..600).step_by(100).try_for_each(|n| batch.put(NUMBERS, &n, &n.to_string()))
        })
        .unwrap();
    assert_eq!(from(200, 9), [200, 300, 400, 500]);
    assert_eq!(from(101, 2), [200, 300]);
    store.write(|batch| batch.remove_range(NUMBERS, &100, &300)).unwrap();
    assert_eq!(from(0, 9), [0, 400, 500]);
}

#[test]
fn a_write_sees_those_before_it_and_one_that_refuses_takes_its_whole_group_along() {
    let dir = tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).unwrap();
    store
        .write(|batch| {
            batch.put(TERM, &(), &1)?;
            assert_eq!(batch.get(TERM, &())?, Some(1));
            Ok(())
        })
        .unwrap();
    let refused = store.write(|batch| {
        batch.put(TERM, &(), &2)?;
        Err(batch.fenced("term 1 is over".into()))
    });
    let error = refused.unwrap_err();
    assert!(error.to_string().contains("s.db` refuses a write: term 1 is over"), "{error}");
    assert_eq!(store.get(TERM, &()).unwrap(), Some(1));
}

#[test]
fn a_second_opener_is_told_that_the_file_is_in_use() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s.db");
    let store = Store::open(&path).unwrap();
    let error = Store::open(&path).err().unwrap();
    assert!(matches!(error, StorageError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains("s.db` is in use by"), "{error}");
    store.write(|batch| batch.put(TERM, &(), &1)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn damage_anywhere_in_the_file_is_an_error_or_is_harmless_never_a_panic(
        at in 0u64..60_000, bytes in prop::collection::vec(any::<u8>(), 1..64), cut in any::<bool>(),
    ) {
        let dir = tempdir().unwrap();
        let path = dir.path().join("s.db");
        let store = Store::open(&path).unwrap();
        store.write(|batch| batch.put(NUMBERS, &1, &"x".repeat(20_000))).unwrap();
        drop(store);
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let at = at % file.metadata().unwrap().len();
        if cut {
            file.set_len(at).unwrap();
        } else {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&bytes).unwrap();
        }
        drop(file);
        if let Ok(store) = Store::open(&path) {
            let _ = store.scan(NUMBERS);
        }
    }
}
