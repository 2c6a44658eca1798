//! The files of a run against what was committed, wherever they are cut.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rollout_transport::work::{Blob, Failure, Final};
use serde_json::value::RawValue;
use tempfile::tempdir;

use super::*;

fn result(item: u64, text: &str) -> Committed {
    Committed { item, end: Final::Result(RawValue::from_string(text.into()).unwrap()) }
}

fn dead(item: u64) -> Committed {
    let failure = Failure {
        code: "user".into(),
        message: "no\nluck".into(),
        traceback: Some("at line 1".into()),
        stderr_tail: None,
    };
    Committed { item, end: Final::Dead { failure, failures: 3, losses: 1 } }
}

fn dir_in(path: &Path) -> RunDir {
    let dir = RunDir::new(path);
    fs::create_dir_all(dir.state()).unwrap();
    dir
}

fn finished(output: &Output, dir: &RunDir) -> (String, String) {
    output.write_results(&dir.results()).unwrap();
    output.write_dead(&dir.dead()).unwrap();
    (fs::read_to_string(dir.results()).unwrap(), fs::read_to_string(dir.dead()).unwrap())
}

#[test]
fn lines_are_exact_and_come_out_in_the_order_of_items() {
    let temp = tempdir().unwrap();
    let dir = dir_in(temp.path());
    let mut output = Output::open(&dir, 4).unwrap();
    let blob = Blob { sha256: "ab".into(), bytes: 70_000 };
    output.take(1, &[result(3, "{\"a\" : 1.0}"), dead(1)]).unwrap();
    output.take(2, &[Committed { item: 2, end: Final::Blob(blob) }, result(0, "null")]).unwrap();
    assert_eq!(
        finished(&output, &dir),
        (
            "{\"item\":0,\"result\":null}\n\
             {\"item\":2,\"result\":{\"$blob\":{\"sha256\":\"ab\",\"bytes\":70000}}}\n\
             {\"item\":3,\"result\":{\"a\" : 1.0}}\n"
                .to_owned(),
            "{\"item\":1,\"code\":\"user\",\"message\":\"no\\nluck\",\"traceback\":\"at line 1\",\
             \"failures\":3,\"losses\":1}\n"
                .to_owned()
        )
    );
    assert_eq!(output.counts(), Counts { done: 3, dead: 1 });
}

#[test]
fn an_item_that_comes_twice_or_is_none_and_a_gap_are_refused() {
    let temp = tempdir().unwrap();
    let mut output = Output::open(&dir_in(temp.path()), 2).unwrap();
    output.take(1, &[result(0, "1")]).unwrap();
    assert!(matches!(output.take(3, &[]), Err(RunError::Disagree(_))));
    assert!(matches!(output.take(2, &[result(0, "1")]), Err(RunError::Disagree(_))));
    assert!(matches!(output.take(2, &[dead(2)]), Err(RunError::Disagree(_))));
}

/// What a ledger holds: commits of a few items each, in any order, some dead, some long.
fn ledger() -> impl Strategy<Value = Vec<Vec<Committed>>> {
    let items = prop::collection::vec((any::<bool>(), 0usize..3), 1..60);
    items.prop_flat_map(|items| {
        let ends: Vec<_> = items.into_iter().enumerate().collect();
        (Just(ends).prop_shuffle(), 1usize..7).prop_map(|(ends, size)| {
            let end = |(item, (fails, long)): &(usize, (bool, usize))| match fails {
                true => dead(*item as u64),
                false => result(*item as u64, &format!("\"{}\"", "x".repeat(long * 40_000))),
            };
            ends.chunks(size).map(|chunk| chunk.iter().map(end).collect()).collect()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn wherever_a_kill_cuts_the_files_the_end_is_the_same(
        commits in ledger(),
        marks in prop::collection::vec(any::<bool>(), 60),
        stop in any::<prop::sample::Index>(),
        cut in any::<Option<prop::sample::Index>>(),
        cut_dead in any::<Option<prop::sample::Index>>(),
    ) {
        let items = commits.iter().map(Vec::len).sum::<usize>() as u64;
        let temp = tempdir().unwrap();
        let (whole, killed) = (dir_in(&temp.path().join("a")), dir_in(&temp.path().join("b")));
        let mut undisturbed = Output::open(&whole, items).unwrap();
        let feed = |output: &mut Output, until: usize| {
            for (at, commit) in commits.iter().enumerate().take(until).skip(output.seq() as usize) {
                output.take(at as u64 + 1, commit).unwrap();
                if marks[at] {
                    output.mark().unwrap();
                }
            }
        };
        feed(&mut undisturbed, commits.len());
        let mut first = Output::open(&killed, items).unwrap();
        feed(&mut first, stop.index(commits.len() + 1));
        let kept = first.marked;
        drop(first);
        // A kill loses nothing that was written; a power cut may lose what was not marked, or more.
        for (path, cut) in [(killed.partial(), cut), (killed.dead_partial(), cut_dead)] {
            let Some(cut) = cut else { continue };
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(cut.index(len as usize + 1) as u64).unwrap();
        }
        let mut again = Output::open(&killed, items).unwrap();
        prop_assert!(again.seq() == kept.seq || again.seq() == 0);
        feed(&mut again, commits.len());
        prop_assert_eq!(again.counts(), undisturbed.counts());
        let model: BTreeMap<u64, Vec<u8>> = commits.iter().flatten().filter(|c| !lines::is_dead(c))
            .map(|c| { let mut line = Vec::new(); lines::write(c, &mut line); (c.item, line) })
            .collect();
        let (results, letters) = finished(&again, &killed);
        prop_assert_eq!(results.as_bytes(), model.into_values().flatten().collect::<Vec<_>>());
        prop_assert_eq!((results, letters), finished(&undisturbed, &whole));
    }
}

#[test]
fn a_file_that_is_not_what_the_mark_says_is_begun_again() {
    let temp = tempdir().unwrap();
    let dir = dir_in(temp.path());
    let mut output = Output::open(&dir, 2).unwrap();
    output.take(1, &[result(0, "1")]).unwrap();
    output.mark().unwrap();
    drop(output);
    assert_eq!(Output::open(&dir, 2).unwrap().seq(), 1);
    fs::write(dir.partial(), vec![0; fs::read(dir.partial()).unwrap().len()]).unwrap();
    let again = Output::open(&dir, 2).unwrap();
    assert_eq!((again.seq(), again.counts()), (0, Counts::default()));
}
