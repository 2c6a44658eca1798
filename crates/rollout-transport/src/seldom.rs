//! A future beside another in one task that is polled only when it was woken itself.
//!
//! A connection is polled several times for each beat, and what ends it besides its socket happens
//! once in its life: to ask each time whether it has happened costs locks, and lines of the cache
//! that nothing else needs.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The future and its bell.
pub(crate) struct Seldom<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    /// Rings the bell.
    ringer: Waker,
    /// The task, as the bell knows it.
    task: Option<Waker>,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<F> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        // It has not been polled, so it is to be.
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: Mutex::new(None) });
        let ringer = Waker::from(Arc::clone(&bell));
        Self { future: Box::pin(future), bell, ringer, task: None }
    }
}

impl<F> std::fmt::Debug for Seldom<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seldom").finish_non_exhaustive()
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // Before the bell is looked at: who rings it from now on wakes this task.
        if this.task.as_ref().is_none_or(|task| !task.will_wake(cx.waker())) {
            let mut task = this.bell.task.lock().unwrap_or_else(PoisonError::into_inner);
            *task = Some(cx.waker().clone());
            this.task.clone_from(&task);
        }
        if !this.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.bell.rung.swap(false, Ordering::AcqRel);
        let outcome = this.future.as_mut().poll(&mut Context::from_waker(&this.ringer));
        if outcome.is_ready() {
            // What a future answers after its end is its own affair.
            this.bell.rung.store(true, Ordering::Release);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_for_its_own_sake_alone_and_misses_nothing() {
        let (event, polls) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (Arc::clone(&event), Arc::clone(&polls));
        let seldom = Seldom::new(async move {
            for _ in 0..2 {
                let mut told = std::pin::pin!(told.notified());
                poll_fn(|cx| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    told.as_mut().poll(cx)
                })
                .await;
            }
        });
        let mut seldom = std::pin::pin!(seldom);
        for _ in 0..100 {
            tokio::select! {
                biased;
                () = seldom.as_mut() => panic!("nothing has happened"),
                () = yield_now() => {}
            }
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        event.notify_one();
        // From another task, while this one waits for nothing else.
        let later = async {
            yield_now().await;
            event.notify_one();
        };
        let both = async { tokio::join!(seldom.as_mut(), later) };
        timeout(Duration::from_secs(20), both).await.unwrap();
        assert!(polls.load(Ordering::Relaxed) <= 5);
    }

    #[tokio::test]
    async fn who_asks_again_after_the_end_is_answered() {
        let over = tokio_util::sync::CancellationToken::new();
        let mut seldom = Seldom::new(over.cancelled());
        over.cancel();
        for _ in 0..3 {
            timeout(Duration::from_secs(20), &mut seldom).await.unwrap();
        }
    }

    #[tokio::test]
    async fn it_wakes_the_task_that_polled_it_last() {
        let event = Arc::new(Notify::new());
        let told = Arc::clone(&event);
        let mut seldom = Seldom::new(async move { told.notified().await });
        let first = poll_fn(|_| {
            Poll::Ready(Pin::new(&mut seldom).poll(&mut Context::from_waker(Waker::noop())))
        });
        assert!(first.await.is_pending());
        let (done, ()) = tokio::join!(timeout(Duration::from_secs(20), seldom), async {
            yield_now().await;
            event.notify_one();
        });
        done.unwrap();
    }
}
