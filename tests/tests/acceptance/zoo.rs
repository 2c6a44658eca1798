//! Hostile sidecars, each given to a real worker: it ends in the stated words within its bound,
//! leaves no process, and workers without it go on.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rollout_acceptance::{Actor, Stage, edit_toml, set, text};
use rollout_core::event::PluginExited;
use rollout_core::{Body, Event, WorkerId};
use rollout_harness::binaries::workspace_root;
use rollout_harness::processes;

/// Beyond the limits that an animal's manifest sets: starting and ending a worker on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// An animal that a worker refuses to start with: its name, the words that the worker leaves with
/// (one of them, where there are several), and the limit of its manifest that has to pass first.
struct Animal(&'static str, &'static str, Duration);

const AT_ONCE: Duration = Duration::ZERO;
const START_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

const REFUSED: [Animal; 15] = [
    Animal("exits_before_ready", "it exited with 3", AT_ONCE),
    // Whether the call was on its way at that moment is chance.
    Animal("exits_after_ready", "it exited with 4|it failed too often", AT_ONCE),
    Animal("hangs_at_import", "not ready within `limits.start_timeout` (3s)", START_TIMEOUT),
    Animal("never_replies", "no answer within 2s", CALL_TIMEOUT),
    Animal("ignores_cancel_and_sigterm", "no answer within 2s", CALL_TIMEOUT),
    Animal("wrong_id", "which is not under way", AT_ONCE),
    Animal("truncated_frame", "it closed its socket", AT_ONCE),
    Animal("claims_4_gib", "4294967295 bytes is over `limits.max_frame`", AT_ONCE),
    Animal("endless_stderr_line", "no answer within 2s", CALL_TIMEOUT),
    Animal("deep_json", "nested deeper than 100 levels", AT_ONCE),
    Animal("forks_children", "it exited with 7", AT_ONCE),
    Animal("closes_its_socket", "it closed its socket", AT_ONCE),
    Animal("segfaults", "it was killed by signal 11", AT_ONCE),
    Animal("out_of_memory", "MemoryError", AT_ONCE),
    Animal("crash_loop", "it exited with 6", AT_ONCE),
];

/// Whether a process has ended as its animal does.
type Ends = fn(&PluginExited) -> bool;

/// Animals that answer a worker's probe and bite then, each with how its process ends.
const UNASKED: [(&str, Ends); 11] = [
    ("wrong_id", stopped),
    ("old_id", stopped),
    ("truncated_frame", stopped),
    ("claims_4_gib", stopped),
    ("deep_json", stopped),
    ("floods_parts", stopped),
    ("closes_its_socket", stopped),
    ("forks_children", |exited| exited.code == Some(7)),
    ("segfaults", |exited| exited.signal == Some(11)),
    ("out_of_memory", |exited| exited.code == Some(1)),
    ("crash_loop", |exited| exited.code == Some(6)),
];

/// Animals whose bite is that they do nothing, or nothing that ends them.
const SILENT: [&str; 3] = ["never_replies", "ignores_cancel_and_sigterm", "endless_stderr_line"];

/// The worker has ended it, with as much force as it took.
fn stopped(exited: &PluginExited) -> bool {
    matches!(exited.signal, Some(9 | 15))
}

/// The animals that are odd but honest.
const SERVED: [&str; 2] = ["byte_at_a_time", "floods_stdout"];

/// The animal's manifest, so that the worker calls `bite` as its probe and every process of the
/// animal adds its id to a file; both paths.
fn caged(stage: &Stage, animal: &str) -> (PathBuf, PathBuf) {
    caged_with(stage, animal, "bite", |_| {})
}

/// The same with another probe and other changes.
fn caged_with(
    stage: &Stage,
    animal: &str,
    probe: &str,
    change: impl Fn(&mut toml::Table),
) -> (PathBuf, PathBuf) {
    let zoo = workspace_root().join("python/zoo");
    let manifest = stage.root().join(format!("{animal}.toml"));
    let pids = stage.root().join(format!("{animal}.pids"));
    fs::copy(zoo.join(format!("{animal}.toml")), &manifest).unwrap();
    edit_toml(&manifest, |table| {
        set(table, &["entry", "sidecar", "cwd"], &text(&zoo));
        set(table, &["entry", "sidecar", "env", "ZOO_PIDS"], &text(&pids));
        set(table, &["probe", "method"], probe);
        change(table);
    });
    (manifest, pids)
}

fn worker(stage: &Stage, name: &str, id: WorkerId, manifests: &[PathBuf]) -> Actor {
    let config = text(&stage.fixtures().join("worker.toml"));
    let (id, manifests) = (id.to_string(), manifests.iter().map(|path| text(path)));
    let manifests: Vec<_> = manifests.collect();
    let storage = text(&stage.root().join(format!("{name}.db")));
    let own = stage.root().join(format!("{name}.toml"));
    fs::copy(config, &own).unwrap();
    edit_toml(&own, |table| set(table, &["storage"], &storage));
    let own = text(&own);
    let mut args = vec!["worker", "run", "--config", &own, "--worker-id", &id];
    args.extend(manifests.iter().flat_map(|manifest| ["--plugin", manifest.as_str()]));
    stage.start(name, &args)
}

/// Waits until none of the processes that the file names is there, and that it names one at least.
fn assert_gone(pids: &Path, animal: &str) {
    let named = fs::read_to_string(pids).unwrap();
    assert!(!named.is_empty(), "{animal} did not run");
    let end = Instant::now() + SLACK;
    for pid in named.lines().map(|pid| pid.parse().unwrap()) {
        while processes::parent(pid).unwrap().is_some() {
            assert!(Instant::now() < end, "process {pid} of {animal} lives on");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn assert_refused(stage: &Stage, &Animal(animal, words, limit): &Animal) {
    let (manifest, pids) = caged(stage, animal);
    let begin = Instant::now();
    let refused = worker(stage, &format!("w-{animal}"), WorkerId::generate(), &[manifest]);
    let exit = refused.exit();
    let took = begin.elapsed();
    let said = refused.stderr();
    assert_eq!(exit.code, Some(69), "{animal}: {exit}: {said}");
    assert!(said.contains(&format!("plugin `{animal}`")), "{animal}: {said}");
    assert!(words.split('|').any(|words| said.contains(words)), "{animal}: {said}");
    assert!(took >= limit, "{animal} ended after {took:?}, before its limit");
    assert!(took < limit + SLACK, "{animal} took {took:?}");
    assert_gone(&pids, animal);
}

#[test]
fn every_animal_ends_in_its_words_and_leaves_nothing_while_another_worker_beats_on() {
    let _busy = rollout_acceptance::busy();
    let stage = Stage::new();
    let (mut coordinator, address) = stage.coordinator();
    edit_toml(&stage.fixtures().join("worker.toml"), |table| {
        set(table, &["coordinator"], &address);
    });
    let id = WorkerId::generate();
    let healthy = worker(&stage, "healthy", id, &[]);
    let _ = coordinator.event_where("worker_heartbeat", |event| event.worker_id == Some(id));
    thread::scope(|scope| {
        for cage in REFUSED.chunks(REFUSED.len().div_ceil(3)) {
            let stage = &stage;
            scope.spawn(move || cage.iter().for_each(|animal| assert_refused(stage, animal)));
        }
    });
    for topic in ["worker_suspected", "worker_failed"] {
        assert_eq!(coordinator.events(topic), [], "the healthy worker never missed a beat");
    }
    let left = fs::read_dir(stage.artifact("sidecars")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "no socket is left");
    healthy.stop();
    coordinator.stop();
}

#[test]
fn an_animal_that_is_only_odd_is_served_until_the_worker_stops() {
    let stage = Stage::new();
    let (mut coordinator, address) = stage.coordinator();
    edit_toml(&stage.fixtures().join("worker.toml"), |table| {
        set(table, &["coordinator"], &address);
    });
    for animal in SERVED {
        let (manifest, pids) = caged(&stage, animal);
        let id = WorkerId::generate();
        let serving = worker(&stage, &format!("w-{animal}"), id, &[manifest]);
        let _ = coordinator.event_where("worker_heartbeat", |event| event.worker_id == Some(id));
        serving.stop();
        assert_gone(&pids, animal);
    }
    coordinator.stop();
}

#[test]
fn a_worker_with_the_whole_zoo_beats_on_keeps_its_honest_plugin_and_leaves_nothing() {
    let _busy = rollout_acceptance::busy();
    let stage = Stage::new();
    let (mut coordinator, address) = stage.coordinator();
    edit_toml(&stage.fixtures().join("worker.toml"), |table| {
        set(table, &["coordinator"], &address);
    });
    let unasked =
        |table: &mut toml::Table| set(table, &["entry", "sidecar", "env", "ZOO_UNASKED"], "1");
    let biting = UNASKED.iter().map(|(animal, _)| animal).chain(&SILENT);
    let mut cages: Vec<_> =
        biting.map(|animal| caged_with(&stage, animal, "echo", unasked)).collect();
    cages.push(caged(&stage, SERVED[0]));
    let (manifests, pids): (Vec<_>, Vec<_>) = cages.into_iter().unzip();
    let id = WorkerId::generate();
    let mut keeper = worker(&stage, "keeper", id, &manifests);
    for (animal, ended) in UNASKED {
        let exit = keeper.event_where("plugin_exited", |event| about(event, animal));
        let Body::PluginExited(exited) = &exit.body else { panic!("{exit:?}") };
        assert!(!exited.expected && ended(exited), "{animal}: {exited:?}");
        keeper.event_where("plugin_restarted", |event| about(event, animal));
    }
    let restarted = keeper.event("plugin_restarted").mono;
    let beats_on = |event: &Event| event.worker_id == Some(id) && event.mono > restarted;
    let _ = coordinator.event_where("worker_heartbeat", beats_on);
    for topic in ["worker_suspected", "worker_failed"] {
        assert_eq!(coordinator.events(topic), [], "the keeper never missed a beat");
    }
    let gone = keeper.events("plugin_exited");
    for animal in SILENT.iter().chain(&SERVED[..1]) {
        assert!(!gone.iter().any(|event| about(event, animal)), "{animal} is not to blame");
    }
    keeper.stop();
    coordinator.stop();
    for pids in pids {
        assert_gone(&pids, &text(&pids));
    }
}

fn about(event: &Event, animal: &str) -> bool {
    match &event.body {
        Body::PluginExited(exited) => exited.name == animal,
        Body::PluginRestarted(restarted) => restarted.name == animal,
        _ => false,
    }
}
