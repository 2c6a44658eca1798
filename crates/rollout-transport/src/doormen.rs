//! The threads that shake hands.
//!
//! A handshake is half a dozen operations on elliptic curves, and a fleet that comes back after its
//! coordinator's restart asks for thousands at once. They are made on threads of their own, so that
//! those who are back already beat in time, and on as many cores as there are.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// More of them shake hands faster than one thread then serves who has come in.
const MOST: usize = 4;

/// The threads. Dropping them waits until they have ended.
#[derive(Debug)]
pub(crate) struct Doormen {
    men: Vec<JoinHandle<()>>,
    doors: Vec<Door>,
    queue: Queue,
    dismissed: CancellationToken,
}

/// Where one of them stands.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// What is spawned here runs on its thread.
    pub(crate) handle: Handle,
    /// One at a time.
    turn: Arc<Semaphore>,
    begun: Arc<Semaphore>,
    queue: Queue,
}

/// A place among the handshakes that have begun, for as long as it lives.
pub(crate) struct Begun {
    _place: Option<OwnedSemaphorePermit>,
}

/// Those who have come and are not let in yet because the server is busy with others.
#[derive(Debug, Clone, Default)]
pub struct Queue(Arc<AtomicUsize>);

impl Queue {
    /// Whether there is anybody.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.0.load(Relaxed) > 0
    }

    /// One more, for as long as it waits for `outcome`.
    pub(crate) async fn count<F: Future>(&self, outcome: F) -> F::Output {
        struct Waiter<'a>(&'a AtomicUsize);
        impl Drop for Waiter<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        self.0.fetch_add(1, Relaxed);
        let _waiter = Waiter(&self.0);
        outcome.await
    }
}

impl Door {
    /// Waits, in the order of coming, until not too many handshakes have begun, and the thread has
    /// nothing to do for them. However many come, those under way are few and soon done: nobody's
    /// patience ends over one that is half made, and peers that share a processor get through with
    /// their part.
    pub(crate) async fn turn(&self) -> Begun {
        let turn = async {
            // Nobody closes it.
            let begun = Arc::clone(&self.begun).acquire_owned().await.ok();
            let _turn = self.turn.acquire().await.ok();
            // The runtime comes back to it once no task is ready, or after some dozens.
            yield_now().await;
            Begun { _place: begun }
        };
        self.queue.count(turn).await
    }
}

impl Begun {
    /// Gives the place to others after `patience`: what is not done by then is its peer's doing, and
    /// may keep nobody from beginning. Does not return.
    pub(crate) async fn yield_after(self, patience: Duration) {
        sleep(patience).await;
        drop(self);
        pending().await
    }
}

impl Doormen {
    /// One on each core, within reason, and all together begin so many handshakes at once.
    pub(crate) fn start(most: usize) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let dismissed = CancellationToken::new();
        let (queue, begun) = (Queue::default(), Arc::new(Semaphore::new(most)));
        let mut doormen = Self { men: Vec::new(), doors: Vec::new(), queue, dismissed };
        for _ in 0..count {
            let runtime = Builder::new_current_thread().enable_time().build()?;
            let (handle, turn) = (runtime.handle().clone(), Arc::new(Semaphore::new(1)));
            let (stop, queue) = (doormen.dismissed.clone(), doormen.queue.clone());
            let begun = Arc::clone(&begun);
            let man = thread::Builder::new().name("doorman".into());
            let man = man.spawn(move || runtime.block_on(stop.cancelled()))?;
            doormen.men.push(man);
            doormen.doors.push(Door { handle, turn, begun, queue });
        }
        Ok(doormen)
    }

    /// Who waits at all of them.
    pub(crate) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// All doors, for whoever sends the newcomers there.
    pub(crate) fn doors(&self) -> Vec<Door> {
        self.doors.clone()
    }
}

impl Drop for Doormen {
    fn drop(&mut self) {
        self.dismissed.cancel();
        for man in self.men.drain(..) {
            // One that panicked has said so.
            let _ = man.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc::channel;
    use std::task::Poll;

    use super::*;

    /// Is not ready, and is at once.
    async fn ready_again() {
        let mut before = false;
        let again = poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if std::mem::replace(&mut before, true) { Poll::Ready(()) } else { Poll::Pending }
        });
        again.await;
    }

    #[test]
    fn who_comes_waits_for_those_who_have_begun() {
        let doormen = Doormen::start(2).unwrap();
        let door = doormen.doors().remove(0);
        let (tell, said) = channel();
        let handle = door.handle.clone();
        handle.clone().spawn(async move {
            let (newcomer, begun) = (tell.clone(), tell);
            handle.spawn(async move {
                door.turn().await;
                newcomer.send("newcomer").unwrap();
            });
            // Each makes the next ready, as a handshake's messages do.
            handle.spawn(async move {
                for _ in 0..10 {
                    begun.send("begun").unwrap();
                    ready_again().await;
                }
            });
        });
        let said: Vec<_> = said.iter().collect();
        assert_eq!(said.len(), 11);
        assert_eq!(said.last(), Some(&"newcomer"), "{said:?}");
    }

    #[test]
    fn who_waits_is_counted_until_it_is_let_in_or_gives_up() {
        let queue = Queue::default();
        let waiting = queue.count(std::future::pending::<()>());
        assert!(!queue.waits(), "nobody has come yet");
        let mut waiting = Box::pin(waiting);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert!(queue.waits());
        drop(waiting);
        assert!(!queue.waits());
    }
}
