//! A worker against a coordinator that listens and never registers anybody.

use std::future::pending;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rollout_core::config::Limits;
use rollout_core::event::{Body, Emit};
use rollout_core::{Level, Mono, RunId, SystemClock, WorkerConfig, WorkerId};
use rollout_storage::Store;
use rollout_transport::{Handler, Identity, Refusal, Server, Session, Tls, certs};
use rollout_worker::{Setup, WorkerError, run};
use serde_json::{Map, Value};
use tokio::time::timeout;

struct Silent;

impl Emit for Silent {
    fn emit(&self, _: Mono, _: Option<WorkerId>, body: Body) {
        assert_ne!(body.topic(), "worker_registered");
    }

    fn log(&self, _: Mono, _: Option<WorkerId>, _: Level, _: String, _: Map<String, Value>) {}

    fn lead(&self, _: RunId) {}
}

/// Ends every session at once, or keeps it without a word.
struct Useless {
    keeps: bool,
}

impl Handler for Useless {
    async fn session(&self, session: Session) {
        if self.keeps {
            pending::<()>().await;
        }
        drop(session);
    }

    fn refused(&self, _: SocketAddr, _: Option<&Identity>, _: &Refusal) {}
}

#[tokio::test]
async fn a_worker_that_is_never_answered_gives_up_after_its_start_timeout() {
    for keeps in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let tls = |identity| {
            let tls_dir = dir.path().join("tls");
            let files = certs::dev_identity(&tls_dir, &identity, &[], &mut |_| ()).unwrap();
            Tls::load(&files).unwrap()
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let handler = Arc::new(Useless { keeps });
        let server = Server::start(port, tls(Identity::Coordinator), Limits::default(), handler);
        let server = server.unwrap();
        let text = format!(
            "coordinator = \"{}\"\nstorage = \"-\"\nsidecar_dir = \"-\"\ntls_dir = \"-\"\n\
             start_timeout = \"300ms\"\n",
            server.local_addr()
        );
        let worker = WorkerId::generate();
        let setup = Setup {
            config: WorkerConfig::parse(&text).unwrap(),
            worker,
            tls: tls(Identity::Worker(worker)),
            store: Store::open(&dir.path().join("w.db")).unwrap(),
            plugins: Vec::new(),
            clock: Arc::new(SystemClock),
            emit: Arc::new(Silent),
        };
        let outcome = timeout(Duration::from_secs(10), run(setup, pending())).await;
        match outcome.unwrap_or_else(|_| panic!("it still tries (session kept: {keeps})")) {
            Err(WorkerError::Unreachable { after, .. }) => {
                assert_eq!(after, Duration::from_millis(300));
            }
            other => panic!("{other:?}"),
        }
    }
}
