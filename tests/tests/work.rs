//! Work from end to end: a real coordinator, real workers and plugins, and a client on the wire.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_acceptance::{Actor, Stage, edit_toml, set, text};
use rollout_core::job::item_seed;
use rollout_core::{JobId, JobSpec, WorkerId};
use rollout_harness::binaries::workspace_root;
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
        let stage = Stage::new();
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
