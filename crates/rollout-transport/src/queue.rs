//! A bounded queue with one reader that takes no more room than what waits in it.
//!
//! A coordinator has one for each of its sessions, nearly always empty: a channel that sets aside
//! blocks of slots would be the largest part of what an idle worker costs beside its connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// Slots that an empty queue keeps.
const KEPT: usize = 4;

#[derive(Debug)]
struct Queue<T> {
    state: Mutex<State<T>>,
    /// Rung for the senders that wait: there is room again, or no reader.
    freed: Notify,
    limit: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    senders: usize,
    has_reader: bool,
    /// Whom to wake when something comes.
    reader: Option<Waker>,
}

impl<T> Queue<T> {
    /// No holder of this lock runs foreign code.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why something was not queued, and what it was.
pub(crate) enum NotQueued<T> {
    Full(T),
    /// There is no reader any more.
    Closed,
}

/// The sending end. The reader sees the end once its last clone is dropped.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Queue<T>>);

/// A sending end that does not keep the reader waiting.
#[derive(Debug)]
pub(crate) struct WeakSender<T>(Arc<Queue<T>>);

/// The reading end.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Queue<T>>);

/// A queue with room for `limit`.
pub(crate) fn bounded<T>(limit: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { waiting: VecDeque::new(), senders: 1, has_reader: true, reader: None };
    let queue = Arc::new(Queue { state: Mutex::new(state), freed: Notify::new(), limit });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

impl<T> Sender<T> {
    pub(crate) fn try_send(&self, item: T) -> Result<(), NotQueued<T>> {
        let mut state = self.0.lock();
        if !state.has_reader {
            return Err(NotQueued::Closed);
        }
        if state.waiting.len() >= self.0.limit {
            return Err(NotQueued::Full(item));
        }
        state.waiting.push_back(item);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Waits while the queue is full. False when there is no reader.
    pub(crate) async fn send(&self, item: T) -> bool {
        let mut item = item;
        loop {
            // Asked for before it is looked whether there is room: none is overlooked.
            let freed = self.0.freed.notified();
            match self.try_send(item) {
                Ok(()) => return true,
                Err(NotQueued::Closed) => return false,
                Err(NotQueued::Full(back)) => item = back,
            }
            freed.await;
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.0.lock().waiting.len() < self.0.limit
    }

    pub(crate) fn is_closed(&self) -> bool {
        !self.0.lock().has_reader
    }

    /// Returns once there is room, or no reader.
    pub(crate) async fn room(&self) {
        self.until(|state| !state.has_reader || state.waiting.len() < self.0.limit).await;
    }

    /// Returns once there is no reader.
    pub(crate) async fn closed(&self) {
        self.until(|state| !state.has_reader).await;
    }

    async fn until(&self, holds: impl Fn(&State<T>) -> bool) {
        loop {
            let freed = self.0.freed.notified();
            if holds(&self.0.lock()) {
                return;
            }
            freed.await;
        }
    }

    pub(crate) fn downgrade(&self) -> WeakSender<T> {
        WeakSender(Arc::clone(&self.0))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let reader = {
            let mut state = self.0.lock();
            state.senders -= 1;
            if state.senders == 0 { state.reader.take() } else { None }
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> WeakSender<T> {
    /// A sender, unless the last of them has been dropped.
    pub(crate) fn upgrade(&self) -> Option<Sender<T>> {
        let mut state = self.0.lock();
        if state.senders == 0 {
            return None;
        }
        state.senders += 1;
        drop(state);
        Some(Sender(Arc::clone(&self.0)))
    }
}

impl<T> Receiver<T> {
    /// The next; none after the last, once there is no sender.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if !state.waiting.is_empty() {
            return Poll::Ready(self.take(state));
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The next, if it is there.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        self.take(self.0.lock())
    }

    fn take(&self, mut state: MutexGuard<'_, State<T>>) -> Option<T> {
        let item = state.waiting.pop_front()?;
        let was_full = state.waiting.len() + 1 >= self.0.limit;
        if state.waiting.is_empty() && state.waiting.capacity() > KEPT {
            state.waiting = VecDeque::new();
        }
        drop(state);
        if was_full {
            self.0.freed.notify_waiters();
        }
        Some(item)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.lock();
            state.has_reader = false;
            state.reader = None;
            std::mem::take(&mut state.waiting)
        };
        self.0.freed.notify_waiters();
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::*;

    const LONG: std::time::Duration = std::time::Duration::from_secs(20);

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    proptest! {
        /// Against a plain queue; and whoever was told to wait is woken by what ends its waiting.
        #[test]
        fn it_gives_what_was_put_in_and_wakes_its_reader(
            limit in 1usize..9,
            puts in prop::collection::vec(any::<bool>(), 0..120),
        ) {
            let (sender, mut receiver) = bounded(limit);
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(Arc::clone(&woken));
            let (mut model, mut waits) = (VecDeque::new(), false);
            for (n, put) in puts.into_iter().enumerate() {
                let before = woken.0.load(Ordering::Relaxed);
                if put {
                    let taken = sender.try_send(n).is_ok();
                    prop_assert_eq!(taken, model.len() < limit);
                    if taken {
                        model.push_back(n);
                        let woke = woken.0.load(Ordering::Relaxed) > before;
                        prop_assert_eq!(woke, std::mem::take(&mut waits));
                    }
                } else {
                    let got = receiver.poll_recv(&mut Context::from_waker(&waker));
                    waits = model.is_empty();
                    prop_assert_eq!(got, match model.pop_front() {
                        Some(n) => Poll::Ready(Some(n)),
                        None => Poll::Pending,
                    });
                }
                prop_assert_eq!(sender.has_room(), model.len() < limit);
                prop_assert!(receiver.0.lock().waiting.capacity() <= 2 * limit.max(KEPT));
            }
        }
    }

    #[tokio::test]
    async fn a_sender_waits_for_room_and_all_that_wait_get_their_turn() {
        let (sender, mut receiver) = bounded(1);
        let senders = async {
            let (one, other) = (sender.clone(), sender.clone());
            tokio::join!(one.send(1), other.send(2), sender.send(3))
        };
        let reader = async {
            let mut sum = 0;
            for _ in 0..3 {
                sum += std::future::poll_fn(|cx| receiver.poll_recv(cx)).await.unwrap();
            }
            sum
        };
        let both = timeout(LONG, async { tokio::join!(senders, reader) }).await.unwrap();
        assert_eq!(both, ((true, true, true), 6));
    }

    #[tokio::test]
    async fn without_a_reader_nobody_waits_and_nothing_is_kept() {
        let (sender, receiver) = bounded(1);
        let held = Arc::new(());
        assert!(sender.send(Arc::clone(&held)).await);
        let mut waiting = pin!(sender.send(Arc::clone(&held)));
        assert!(timeout(LONG / 2_000, waiting.as_mut()).await.is_err(), "it is full");
        drop(receiver);
        assert!(!timeout(LONG, waiting).await.unwrap());
        timeout(LONG, sender.closed()).await.unwrap();
        timeout(LONG, sender.room()).await.unwrap();
        assert!(sender.is_closed());
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn the_end_comes_after_the_last_and_a_weak_sender_does_not_put_it_off() {
        let (sender, mut receiver) = bounded(4);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let weak = sender.downgrade();
        drop(weak.upgrade());
        let clone = sender.clone();
        assert!(clone.try_send(1).is_ok());
        drop(sender);
        assert_eq!(receiver.try_recv(), Some(1));
        let mut cx = Context::from_waker(&waker);
        assert_eq!(receiver.poll_recv(&mut cx), Poll::Pending);
        drop(clone);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "the reader is told of the end");
        assert!(weak.upgrade().is_none());
        assert_eq!(receiver.poll_recv(&mut cx), Poll::Ready(None));
    }
}
