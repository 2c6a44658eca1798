//! Work from end to end: a real coordinator, real workers and plugins, and a client on the wire.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_acceptance::{Actor, Stage, edit_toml, set, text};
use rollout_core::job::item_seed;
use rollout_core::{JobId, JobSpec, WorkerId};
use rollout_harness::binaries::workspace_root;
use rollout_process::{Io, Signal, Spawn};
use rollout_transport::work::{Final, Followed, Standing, Submitted};
use rollout_transport::{Identity, Remote, Tls, certs};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Longer than any job here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);
const SEED: u64 = 7;

/// A coordinator, and what it takes to add workers and jobs.
struct Fleet {
    stage: Stage,
    coordinator: Actor,
    address: String,
}

impl Fleet {
    fn new() -> Self {
        Self::on(Stage::new())
    }

    fn on(stage: Stage) -> Self {
        let (coordinator, address) = stage.coordinator();
        edit_toml(&stage.fixtures().join("worker.toml"), |table| {
            set(table, &["coordinator"], &address);
        });
        Self { stage, coordinator, address }
    }

    fn worker(&self, name: &str, id: WorkerId, manifests: &[&Path]) -> Actor {
        let own = self.stage.root().join(format!("{name}.toml"));
        fs::copy(self.stage.fixtures().join("worker.toml"), &own).unwrap();
        let storage = text(&self.stage.root().join(format!("{name}.db")));
        edit_toml(&own, |table| set(table, &["storage"], &storage));
        let (own, id) = (text(&own), id.to_string());
        let manifests: Vec<_> = manifests.iter().map(|path| text(path)).collect();
        let mut args = vec!["worker", "run", "--config", &own, "--worker-id", &id];
        args.extend(manifests.iter().flat_map(|manifest| ["--plugin", manifest.as_str()]));
        self.stage.start(name, &args)
    }

    /// A sidecar with these methods; `more` is the rest of its manifest.
    fn plugin(&self, name: &str, body: &str, more: &str) -> PathBuf {
        let sdk = workspace_root().join("python");
        let body = body.replace('\n', "\n    ");
        let code = format!(
            "import asyncio, os, sys, time\n\
             from rollout_plugin import JobItem, Plugin, method, run\n\
             class It(Plugin):\n    name = '{name}'\n    version = '1'\n    {body}\nrun(It)\n"
        );
        fs::write(self.stage.root().join(format!("{name}.py")), code).unwrap();
        let manifest = format!(
            "[plugin]\nname = '{name}'\nversion = '1'\n[entry.sidecar]\n\
             command = ['python3', '{name}.py']\nenv = {{ PYTHONPATH = '{}' }}\n{more}",
            text(&sdk)
        );
        let path = self.stage.root().join(format!("{name}-plugin.toml"));
        fs::write(&path, manifest).unwrap();
        path
    }

    async fn remote(&self) -> Remote {
        let identity = Identity::Client("test".into());
        let dir = self.stage.artifact("tls");
        let files = certs::dev_identity(&dir, &identity, &[], &mut |_| ()).unwrap();
        Remote::open(&self.address, &Tls::load(&files).unwrap(), LONG).await.unwrap()
    }

    /// Submits a job, and waits for its end.
    async fn run(&self, spec: &JobSpec) -> Outcome {
        let remote = self.remote().await;
        let job = submit(&remote, spec).await;
        outcome(&remote, job).await
    }

    fn stop(self) {
        self.coordinator.stop();
    }
}

fn spec(plugin: &str, method: &str, items: u64) -> JobSpec {
    let params_sha256 =
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned();
    JobSpec {
        name: "a test".into(),
        plugin: plugin.into(),
        method: method.into(),
        items,
        has_params: false,
        params_sha256,
        plugin_digest: String::new(),
        seed: SEED,
        limits: Default::default(),
    }
}

async fn submit(remote: &Remote, spec: &JobSpec) -> JobId {
    let job = JobId::generate();
    let answer = remote.submit(job, spec, None).await.unwrap();
    assert!(matches!(answer, Submitted::Accepted { resumed: false, .. }), "{answer:?}");
    job
}

/// What became of a job.
struct Outcome {
    items: BTreeMap<u64, Final>,
    standing: Standing,
}

impl Outcome {
    fn result(&self, item: u64) -> Value {
        match &self.items[&item] {
            Final::Result(result) => serde_json::from_str(result.get()).unwrap(),
            other => panic!("item {item}: {other:?}"),
        }
    }

    /// The code, failures and losses of a dead letter.
    fn dead(&self, item: u64) -> (&str, u32, u32) {
        match &self.items[&item] {
            Final::Dead { failure, failures, losses } => (&failure.code, *failures, *losses),
            other => panic!("item {item}: {other:?}"),
        }
    }
}

/// Follows a job to its end; every item ends once.
async fn outcome(remote: &Remote, job: JobId) -> Outcome {
    let following = async {
        let mut lines = remote.follow(job, 0).await.unwrap();
        let mut ended = BTreeMap::new();
        loop {
            match lines.next().await.unwrap() {
                Some(Followed::Committed { items, .. }) => {
                    for item in items {
                        let twice = ended.insert(item.item, item.end);
                        assert!(twice.is_none(), "item {} ended twice", item.item);
                    }
                }
                Some(Followed::Finished(standing)) => {
                    return Outcome { items: ended, standing };
                }
                Some(Followed::Standing(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    match timeout(LONG, following).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{:?}", remote.status().await),
    }
}

const SQUARE: &str = "\
@method
def square(self, params, call):
    item = JobItem(params)
    return {'square': item.number ** 2, 'seed': item.seed}
";

fn assert_squares(outcome: &Outcome, items: u64) {
    assert_eq!(outcome.items.len() as u64, items);
    for item in 0..items {
        let want = json!({ "square": item * item, "seed": item_seed(SEED, item) });
        assert_eq!(outcome.result(item), want);
    }
}

#[tokio::test]
async fn every_item_of_a_job_has_its_result_once_and_the_worker_ends_in_good_order() {
    let fleet = Fleet::new();
    let plugin = fleet.plugin("maths", SQUARE, "");
    let worker = fleet.worker("w", WorkerId::generate(), &[&plugin]);
    let outcome = fleet.run(&spec("maths", "square", 2_000)).await;
    assert_squares(&outcome, 2_000);
    assert_eq!((outcome.standing.done, outcome.standing.failures), (2_000, 0));
    assert_eq!((outcome.standing.redispatched, outcome.standing.stale), (0, 0));
    worker.stop();
    fleet.stop();
}

/// What goes wrong with an item, by its number; the others are squares.
const MIXED: &str = "\
@method
def square(self, params, call):
    item = JobItem(params)
    if item.number == 3:
        raise ValueError('three')
    if item.number == 5:
        print('five', file=sys.stderr, flush=True)
        os._exit(9)
    if item.number == 7:
        time.sleep(3600)
    return {'square': item.number ** 2, 'seed': item.seed}
";

#[tokio::test]
async fn a_raise_a_crash_and_a_hang_cost_their_own_items_alone() {
    let fleet = Fleet::new();
    let more = "[limits]\ncancel_grace = '300ms'\n[restart]\nmax_crashes = 100\n";
    let plugin = fleet.plugin("maths", MIXED, more);
    let worker = fleet.worker("w", WorkerId::generate(), &[&plugin]);
    let mut job = spec("maths", "square", 200);
    job.limits.max_attempts = 2;
    job.limits.max_losses = 2;
    job.limits.progress_timeout = Duration::from_secs(1);
    let outcome = fleet.run(&job).await;
    assert_eq!(outcome.items.len(), 200);
    for item in (0..200).filter(|item| ![3, 5, 7].contains(item)) {
        assert_eq!(outcome.result(item)["square"], item * item);
    }
    assert_eq!(outcome.dead(3), ("user", 2, 0));
    assert_eq!(outcome.dead(7), ("no_progress", 2, 0));
    assert_eq!(outcome.dead(5), ("crashed", 0, 2));
    assert_eq!((outcome.standing.failures, outcome.standing.losses), (4, 2));
    let Final::Dead { failure, .. } = &outcome.items[&3] else { unreachable!() };
    assert!(failure.traceback.as_ref().is_some_and(|text| text.contains("ValueError: three")));
    let Final::Dead { failure, .. } = &outcome.items[&5] else { unreachable!() };
    assert!(failure.stderr_tail.as_ref().is_some_and(|tail| tail.contains("five")), "{failure:?}");
    worker.stop();
    fleet.stop();
}

const LARGE: &str = "\
@method
def large(self, params, call):
    number = JobItem(params).number
    return str(number) * (70_000 if number % 2 else 100)
";

#[tokio::test]
async fn a_large_result_is_a_blob_of_exactly_its_bytes() {
    let _busy = rollout_acceptance::busy();
    let fleet = Fleet::new();
    let plugin = fleet.plugin("maths", LARGE, "");
    let worker = fleet.worker("w", WorkerId::generate(), &[&plugin]);
    let outcome = fleet.run(&spec("maths", "large", 8)).await;
    let remote = fleet.remote().await;
    for (item, end) in &outcome.items {
        let digit = item.to_string();
        match end {
            Final::Result(result) if item % 2 == 0 => {
                assert_eq!(result.get(), format!("\"{}\"", digit.repeat(100)));
            }
            Final::Blob(blob) if item % 2 == 1 => {
                let mut stream = remote.get_blob(&blob.sha256).await.unwrap();
                let mut bytes = Vec::new();
                while let Some(piece) = stream.next().await.unwrap() {
                    bytes.extend_from_slice(&piece);
                }
                assert_eq!(bytes.len() as u64, blob.bytes);
                assert_eq!(bytes, format!("\"{}\"", digit.repeat(70_000)).as_bytes());
            }
            other => panic!("item {item}: {other:?}"),
        }
    }
    worker.stop();
    fleet.stop();
}

const SLOW: &str = "\
@method
def square(self, params, call):
    item = JobItem(params)
    time.sleep(0.3)
    return {'square': item.number ** 2, 'seed': item.seed}
";

#[tokio::test]
async fn a_worker_that_is_stopped_finishes_what_runs_and_gives_the_rest_back() {
    let fleet = Fleet::new();
    let plugin = fleet.plugin("maths", SLOW, "[limits]\nmax_in_flight = 4\n");
    let first = fleet.worker("w1", WorkerId::generate(), &[&plugin]);
    let remote = fleet.remote().await;
    let job = submit(&remote, &spec("maths", "square", 40)).await;
    done_at_least(&remote, job, 4).await;
    let second = fleet.worker("w2", WorkerId::generate(), &[&plugin]);
    first.stop();
    let outcome = outcome(&remote, job).await;
    assert_squares(&outcome, 40);
    assert_eq!((outcome.standing.failures, outcome.standing.losses), (0, 0));
    second.stop();
    fleet.stop();
}

async fn done_at_least(remote: &Remote, job: JobId, done: u64) {
    let waiting = async {
        loop {
            let status = remote.status().await.unwrap();
            let of = status.jobs.iter().find(|of| of.job == job).unwrap();
            if of.standing.done >= done {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, waiting).await.unwrap();
}

/// A library in C, the sample with a `hang` beside its `echo`.
fn hanging_library(fleet: &Fleet) -> PathBuf {
    let root = fleet.stage.root();
    let source = fs::read_to_string(workspace_root().join("plugins/c_sample/c_sample.c")).unwrap();
    let source = source
        .replace("(void)instance;\n    if", "(void)instance;\n    if (rollout_is(call->method, \"hang\")) for (;;) sleep(1);\n    if")
        .replace("#include <stdlib.h>", "#include <stdlib.h>\n#include <unistd.h>")
        .replace("[{\\\"name\\\":\\\"echo\\\"", "[{\\\"name\\\":\\\"hang\\\"},{\\\"name\\\":\\\"echo\\\"");
    assert!(source.contains("sleep(1)") && source.contains("{\\\"name\\\":\\\"hang"));
    fs::write(root.join("hanging.c"), source).unwrap();
    let library = format!("libhanging{}", std::env::consts::DLL_SUFFIX);
    let include = text(&workspace_root().join("crates/rollout-plugin-abi/include"));
    let output = Spawn::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-I", &include, "-o", &library, "hanging.c"])
        .current_dir(root)
        .stderr(Io::Pipe)
        .output(Some(LONG))
        .unwrap();
    assert!(output.exit.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let manifest = root.join("hanging.toml");
    let text = "[plugin]\nname = 'c_sample'\nversion = '0.1.0'\n[entry.cdylib]\npath = 'hanging'\n\
                [limits]\ncancel_grace = '300ms'\nshutdown_grace = '300ms'\n";
    fs::write(&manifest, text).unwrap();
    manifest
}

#[tokio::test]
async fn a_worker_whose_library_does_not_return_ends_with_70_and_its_other_items_are_run_elsewhere()
{
    let fleet = Fleet::new();
    let library = hanging_library(&fleet);
    let plugin = fleet.plugin("maths", SLOW, "");
    let ends = fleet.worker("w1", WorkerId::generate(), &[&library, &plugin]);
    let remote = fleet.remote().await;
    let squares = submit(&remote, &spec("maths", "square", 400)).await;
    done_at_least(&remote, squares, 1).await;
    let mut hangs = spec("c_sample", "hang", 1);
    hangs.limits.max_attempts = 1;
    hangs.limits.progress_timeout = Duration::from_secs(1);
    let hangs = submit(&remote, &hangs).await;
    let exit = ends.exit();
    assert_eq!(exit.code, Some(70), "{exit}: {}", ends.stderr());
    let said = ends.stderr();
    assert!(said.contains("`hang` of plugin `c_sample` does not return"), "{said}");
    let hung = outcome(&remote, hangs).await;
    assert_eq!(hung.dead(0), ("no_progress", 1, 0));
    let other = fleet.worker("w2", WorkerId::generate(), &[&plugin]);
    let outcome = outcome(&remote, squares).await;
    assert_squares(&outcome, 400);
    assert_eq!((outcome.standing.failures, outcome.standing.losses), (0, 0));
    other.stop();
    fleet.stop();
}

/// Animals that answer a probe, and bite when an item is given to them.
const BITING: [&str; 15] = [
    "wrong_id",
    "same_id_twice",
    "old_id",
    "item_twice",
    "truncated_frame",
    "claims_4_gib",
    "deep_json",
    "floods_parts",
    "closes_its_socket",
    "forks_children",
    "segfaults",
    "out_of_memory",
    "crash_loop",
    "never_replies",
    "ignores_cancel_and_sigterm",
];

#[tokio::test]
async fn whatever_bites_the_worker_goes_on_and_every_item_ends() {
    let _busy = rollout_acceptance::busy();
    let fleet = Fleet::new();
    let zoo = workspace_root().join("python/zoo");
    let mut manifests = vec![fleet.plugin("maths", SQUARE, "")];
    for animal in BITING {
        let manifest = fleet.stage.root().join(format!("{animal}.toml"));
        fs::copy(zoo.join(format!("{animal}.toml")), &manifest).unwrap();
        edit_toml(&manifest, |table| {
            set(table, &["entry", "sidecar", "cwd"], &text(&zoo));
            table.remove("probe");
        });
        manifests.push(manifest);
    }
    let manifests: Vec<&Path> = manifests.iter().map(PathBuf::as_path).collect();
    let worker = fleet.worker("w", WorkerId::generate(), &manifests);
    let remote = fleet.remote().await;
    let mut jobs = Vec::new();
    for animal in BITING {
        let mut spec = spec(animal, "bite", 3);
        spec.limits.max_attempts = 1;
        spec.limits.max_losses = 1;
        spec.limits.progress_timeout = Duration::from_secs(1);
        jobs.push((animal, submit(&remote, &spec).await));
    }
    let squares = fleet.run(&spec("maths", "square", 1_000)).await;
    assert_squares(&squares, 1_000);
    assert_eq!((squares.standing.failures, squares.standing.losses), (0, 0));
    for (animal, job) in jobs {
        let outcome = outcome(&remote, job).await;
        assert_eq!(outcome.items.len(), 3, "{animal}");
        for item in 0..3 {
            // Its first answer is one; what follows it is not.
            if animal == "item_twice" && matches!(outcome.items[&item], Final::Result(_)) {
                continue;
            }
            let (code, failures, losses) = outcome.dead(item);
            assert_eq!(failures + losses, 1, "{animal}: {code}");
        }
    }
    worker.stop();
    fleet.stop();
}

#[tokio::test]
async fn work_goes_on_after_the_coordinator_was_stopped_beyond_the_fence() {
    let fleet = Fleet::on(rollout_acceptance::fleet::quick());
    let plugin = fleet.plugin("maths", SLOW, "[limits]\nmax_in_flight = 4\n");
    let mut worker = fleet.worker("w", WorkerId::generate(), &[&plugin]);
    let remote = fleet.remote().await;
    let job = submit(&remote, &spec("maths", "square", 40)).await;
    done_at_least(&remote, job, 4).await;
    let handle = fleet.coordinator.child.handle();
    handle.signal_main(Signal::SIGSTOP);
    let _ = worker.event("worker_fenced");
    handle.signal_main(Signal::SIGCONT);
    let outcome = outcome(&remote, job).await;
    assert_squares(&outcome, 40);
    assert_eq!((outcome.standing.failures, outcome.standing.losses), (0, 0));
    worker.stop();
    fleet.stop();
}
