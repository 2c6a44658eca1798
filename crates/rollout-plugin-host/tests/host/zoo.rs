//! The hostile sidecars of `python/zoo`, called by a host that has a healthy plugin beside them: each
//! ends in the code that its docstring states, inside its bound, and leaves no process; the healthy
//! plugin answers all the while.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rollout_plugin_host::{Executed, Item, Manifest, Plugin, PluginError, Update};
use serde_json::json;
use tokio::task::JoinSet;

use crate::bench::{Bench, LONG, assert_alive, assert_gone, call, failure, python, raw, result};
use crate::cdylib;

const AT_ONCE: Duration = Duration::ZERO;
const START_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// For a busy machine, beyond the limits of an animal's manifest.
const SLACK: Duration = Duration::from_secs(10);

/// As many animals at a time.
const CAGES: usize = 5;

/// When an animal shows what it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before it is ready.
    Start,
    /// When it is called for the first time.
    Call,
    /// When it is called again, after an answer.
    SecondCall,
    /// When it has two calls at the same time, in the second.
    TwoCalls,
    /// When it is given a batch.
    Batch,
}

struct Animal {
    name: &'static str,
    at: At,
    /// The error's code; several where chance decides.
    codes: &'static [&'static str],
    /// Whether the call was executed; again several.
    executed: &'static [Executed],
    /// The limit of its manifest that passes first.
    limit: Duration,
}

const fn animal(name: &'static str, at: At, code: &'static [&'static str]) -> Animal {
    Animal { name, at, codes: code, executed: &[Executed::Maybe], limit: AT_ONCE }
}

const ANIMALS: [Animal; 19] = [
    Animal { executed: &[Executed::No], ..animal("exits_before_ready", At::Start, &["exited"]) },
    Animal {
        executed: &[Executed::No],
        limit: START_TIMEOUT,
        ..animal("hangs_at_import", At::Start, &["timeout"])
    },
    // It may be found gone before the call is sent, for the first or for the fifth time.
    Animal {
        executed: &[Executed::No, Executed::Maybe],
        ..animal("exits_after_ready", At::Call, &["crashed", "breaker_open"])
    },
    Animal { limit: CALL_TIMEOUT, ..animal("never_replies", At::Call, &["deadline"]) },
    Animal { limit: CALL_TIMEOUT, ..animal("ignores_cancel_and_sigterm", At::Call, &["deadline"]) },
    Animal { limit: CALL_TIMEOUT, ..animal("endless_stderr_line", At::Call, &["deadline"]) },
    animal("wrong_id", At::Call, &["malformed"]),
    animal("same_id_twice", At::TwoCalls, &["malformed"]),
    animal("old_id", At::SecondCall, &["malformed"]),
    animal("truncated_frame", At::Call, &["closed"]),
    animal("claims_4_gib", At::Call, &["too_large"]),
    animal("deep_json", At::Call, &["malformed"]),
    animal("floods_parts", At::Call, &["malformed"]),
    animal("item_twice", At::Batch, &["malformed"]),
    animal("forks_children", At::Call, &["crashed"]),
    animal("closes_its_socket", At::Call, &["closed"]),
    animal("segfaults", At::Call, &["crashed"]),
    animal("out_of_memory", At::Call, &["crashed"]),
    animal("crash_loop", At::Call, &["crashed"]),
];

/// The animals that are odd but honest: they are served.
const HONEST: [&str; 2] = ["byte_at_a_time", "floods_stdout"];

fn zoo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/zoo")
}

/// The animal's manifest, and the file to which each of its processes adds its id.
fn caged(bench: &Bench, name: &str) -> (Manifest, PathBuf) {
    let pids = bench.dir.path().join(format!("{name}.pids"));
    let text = fs::read_to_string(zoo().join(format!("{name}.toml"))).unwrap();
    let here = format!("[entry.sidecar]\ncwd = {:?}\nenv = {{ ZOO_PIDS = {pids:?} }}", zoo());
    let text = text.replace("[entry.sidecar]", &here);
    let text = text.replace("[\"python3\",", &format!("[{:?},", python()));
    (Manifest::load(&bench.write(&format!("{name}.toml"), &text)).unwrap(), pids)
}

async fn bite(animal: &Animal, plugin: &Plugin) -> PluginError {
    match animal.at {
        At::Start => panic!("{} became ready", animal.name),
        At::Call => failure(plugin, "bite", json!({})).await,
        At::SecondCall => {
            result(plugin, "bite", json!({})).await;
            failure(plugin, "bite", json!({})).await
        }
        At::TwoCalls => {
            let (first, second) = (call(plugin, "bite", json!(1)), call(plugin, "bite", json!(2)));
            let (first, second) = tokio::join!(first, second);
            first.unwrap();
            second.unwrap_err()
        }
        At::Batch => {
            let item = || Item { params: raw(json!({})), payload: Bytes::new() };
            let mut batch = plugin.call_batch("bite", vec![item(), item()], None);
            let first = batch.next().await.unwrap().unwrap();
            assert!(matches!(first, Update::Item(0, Ok(_))), "{first:?}");
            batch.next().await.unwrap().unwrap_err()
        }
    }
}

async fn meet(animal: &Animal, bench: &Bench, healthy: &Plugin) {
    let Animal { name, codes, executed, limit, .. } = animal;
    let (manifest, pids) = caged(bench, name);
    let begin = Instant::now();
    let bitten = async {
        match Plugin::start(manifest, &bench.host).await {
            Err(error) if animal.at == At::Start => (error, None),
            Err(error) => panic!("{name} did not start: {error}"),
            Ok(plugin) => (bite(animal, &plugin).await, Some(plugin)),
        }
    };
    tokio::pin!(bitten);
    let (error, plugin) = loop {
        tokio::select! {
            bitten = &mut bitten => break bitten,
            () = assert_alive(healthy) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let took = begin.elapsed();
    assert!(codes.contains(&error.code()), "{name}: {error}");
    assert!(executed.contains(&error.executed), "{name}: {error}");
    assert!(took >= *limit && took < *limit + SLACK, "{name}: {took:?}");
    assert_alive(healthy).await;
    if let Some(plugin) = plugin {
        let _ = plugin.shutdown().await;
    }
    let named = fs::read_to_string(pids).unwrap();
    assert!(!named.is_empty(), "{name} did not run");
    named.lines().for_each(|pid| assert_gone(pid.parse().unwrap()));
}

#[tokio::test]
async fn every_animal_ends_in_its_code_inside_its_bound_while_another_plugin_answers() {
    let bench = Arc::new(Bench::new());
    let healthy = Arc::new(cdylib::started(&bench, "").await);
    let mut cages = JoinSet::new();
    for first in 0..CAGES {
        let (bench, healthy) = (Arc::clone(&bench), Arc::clone(&healthy));
        cages.spawn(async move {
            for animal in ANIMALS.iter().skip(first).step_by(CAGES) {
                meet(animal, &bench, &healthy).await;
            }
        });
    }
    while let Some(done) = cages.join_next().await {
        done.unwrap();
    }
    healthy.shutdown().await.unwrap();
    assert_eq!(bench.leftovers(), [""; 0]);
}

#[tokio::test]
async fn an_animal_that_is_only_odd_is_served() {
    let bench = Bench::new();
    for name in HONEST {
        let plugin = Plugin::start(caged(&bench, name).0, &bench.host).await.unwrap();
        for _ in 0..2 {
            result(&plugin, "bite", json!({})).await;
        }
        plugin.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn an_animal_in_a_crash_loop_is_left_alone_until_the_breaker_lets_it_try() {
    let bench = Bench::new();
    let plugin = Plugin::start(caged(&bench, "crash_loop").0, &bench.host).await.unwrap();
    let end = Instant::now() + LONG;
    let mut crashes = 0;
    loop {
        match failure(&plugin, "bite", json!({})).await {
            error if error.code() == "crashed" => crashes += 1,
            error if error.code() == "breaker_open" => break,
            error => panic!("{error}"),
        }
        assert!(Instant::now() < end, "{crashes} crashes and no end");
    }
    assert_eq!(crashes, 5);
    plugin.shutdown().await.unwrap();
}

#[test]
fn no_animal_is_left_out() {
    let mut met: Vec<_> = ANIMALS.iter().map(|animal| animal.name).chain(HONEST).collect();
    met.sort_unstable();
    let mut there: Vec<_> = fs::read_dir(zoo())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    there.sort_unstable();
    assert_eq!(met, there);
}
