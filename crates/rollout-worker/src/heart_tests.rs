//! The heart against clocks and threads that stand still.

use std::future::pending;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::SystemTime;

use rollout_core::config::Limits;
use rollout_core::event::{Body, Emit};
use rollout_core::{Clock, Level, WorkerId};
use rollout_storage::Store;
use rollout_transport::{Handler, Identity, Refusal, Server, Session, certs};
use serde_json::{Map, Value};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};

use super::*;

/// A clock that is set, as that of a machine which was suspended.
#[derive(Default)]
struct Set(AtomicU64);

impl Clock for Set {
    fn now(&self) -> Mono {
        Mono(0)
    }

    fn boot(&self) -> Mono {
        Mono(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Body>>);

impl Emit for Recorder {
    fn emit(&self, _: Mono, _: Option<WorkerId>, body: Body) {
        self.0.lock().unwrap().push(body);
    }

    fn log(&self, _: Mono, _: Option<WorkerId>, _: Level, _: String, _: Map<String, Value>) {}

    fn lead(&self, _: RunId) {}
}

#[tokio::test]
async fn whoever_waits_for_a_link_is_fenced_as_soon_as_its_machine_wakes_from_a_suspend() {
    let (clock, events) = (Arc::new(Set::default()), Arc::new(Recorder::default()));
    let worker = WorkerId::generate();
    let voice = Voice { worker, clock: clock.clone(), emit: events.clone() };
    let mut fence = Fence::new(Duration::from_secs(3_000));
    fence.registered(Mono(0));
    let wakes = async {
        sleep(Duration::from_millis(30)).await;
        clock.0.store(3_600_000_000_000, Ordering::Relaxed);
        while events.0.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let pulse = Publisher::new(Incarnation::generate());
    let waits = watching(&mut fence, (&voice, &pulse), pending::<()>());
    let outcome = timeout(Duration::from_secs(20), async {
        tokio::select! {
            () = waits => {}
            () = wakes => {}
        }
    });
    outcome.await.expect("the fence falls long before its timer would");
    let said = events.0.lock().unwrap();
    assert!(matches!(&said[..], [Body::WorkerFenced(body)] if body.reason == "unacknowledged"));
    assert!(pulse.subscribe().borrow().fenced);
}

/// Tells of each beat, and acknowledges it when it may.
struct Acknowledging {
    heard: mpsc::Sender<u64>,
    may: Semaphore,
}

impl Handler for Acknowledging {
    async fn session(&self, mut session: Session) {
        while let Ok(Some(line)) = session.up.next().await {
            let Up::Beat { beat, .. } = line else { continue };
            let _ = self.heard.send(beat).await;
            let Ok(once) = self.may.acquire().await else { return };
            once.forget();
            let _ = session.down.send(Down::Ack { beat, durable: beat }).await;
        }
    }

    fn refused(&self, _: SocketAddr, _: Option<&Identity>, _: &Refusal) {}
}

fn alone() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A coordinator on a thread of its own until `stop` is over; where it listens.
fn serve(
    tls: Tls,
    handler: Arc<Acknowledging>,
    stop: oneshot::Receiver<()>,
) -> (JoinHandle<()>, String) {
    let (told, addr) = std::sync::mpsc::channel();
    let serves = async move {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(port, tls, Limits::default(), handler).unwrap();
        told.send(server.local_addr().to_string()).unwrap();
        let _ = stop.await;
    };
    (std::thread::spawn(move || alone().block_on(serves)), addr.recv().unwrap())
}

#[test]
fn a_heart_that_was_late_itself_reads_what_has_arrived_before_it_judges_its_link() {
    let dir = tempfile::tempdir().unwrap();
    let tls = |identity| {
        let files = certs::dev_identity(&dir.path().join("tls"), &identity, &[], &mut |_| ());
        Tls::load(&files.unwrap()).unwrap()
    };
    let worker = WorkerId::generate();
    let (heard, mut beats) = mpsc::channel(8);
    let handler = Arc::new(Acknowledging { heard, may: Semaphore::new(0) });
    let (stop, stopped) = oneshot::channel();
    let (server, coordinator) = serve(tls(Identity::Coordinator), handler.clone(), stopped);
    let clock = Arc::new(Set::default());
    let (intend, intent) = watch::channel(Intent::Serve);
    let emit = Arc::new(Recorder::default());
    let mut heart = Heart::new(Parts {
        coordinator,
        run_id: None,
        budget: TimeBudget::default(),
        start_timeout: Duration::from_secs(20),
        plugins: Vec::new(),
        tls: tls(Identity::Worker(worker)),
        memory: Memory::new(Store::open(&dir.path().join("w.db")).unwrap()),
        voice: Voice { worker, clock: clock.clone(), emit },
        intent,
    });
    let starves = async {
        assert_eq!(beats.recv().await, Some(1));
        handler.may.add_permits(1);
        // The whole thread is late; meanwhile the acknowledgement arrives.
        std::thread::sleep(Duration::from_millis(500));
        clock.0.store(1_500_000_000, Ordering::Relaxed);
        intend.send_replace(Intent::Serve);
        assert_eq!(beats.recv().await, Some(2), "on the same link");
        clock.0.store(3_000_000_000, Ordering::Relaxed);
        intend.send_replace(Intent::Serve);
    };
    let lost = alone().block_on(async {
        let link = heart.connect().await.unwrap();
        let both = async { tokio::join!(heart.beat_over(link), starves).0 };
        timeout(Duration::from_secs(20), both).await
    });
    // Nobody acknowledges the second.
    assert!(matches!(lost, Ok(Ok(Next::Again))));
    drop(stop);
    server.join().unwrap();
}
