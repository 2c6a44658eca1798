//! Who has to make room: handshakes that take long when others wait, and a peer's own connections
//! beyond its share.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;

/// The handshakes under way. There are so many places; while none is free and somebody waits, the
/// oldest handshake is cut once its peer has had its `patience`. A fleet that connects all at once
/// therefore waits its turn, and peers that hold a place for nothing lose it.
pub(crate) struct Crowd {
    places: Arc<Semaphore>,
    patience: Duration,
    /// In the order of those instants; those that have ended are left out when they come to the
    /// front, or when they have become many.
    entered: VecDeque<(Instant, Arc<Handshake>)>,
    most: usize,
}

/// What a crowd knows of a handshake.
#[derive(Default)]
struct Handshake {
    /// Cancelled when it has to make room, and when it has ended.
    cut: CancellationToken,
    turn: Mutex<Turn>,
}

/// What a handshake waits for.
#[derive(Default, Clone, Copy)]
enum Turn {
    /// Its peer, since it came.
    #[default]
    Coming,
    /// A thread that is busy with others: that is not its peer's doing.
    Waiting,
    /// Its peer, since then.
    Begun(Instant),
}

/// A handshake's place.
pub(crate) struct Entry {
    handshake: Arc<Handshake>,
    _place: OwnedSemaphorePermit,
}

impl Entry {
    /// Cancelled when it has to make room.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.handshake.cut
    }

    /// Waits for `turn`, which is not counted.
    pub(crate) async fn wait_turn<T>(&mut self, turn: impl Future<Output = T>) -> T {
        self.handshake.now(Turn::Waiting);
        let come = turn.await;
        self.handshake.now(Turn::Begun(Instant::now()));
        come
    }
}

/// Tells the crowd that it has ended.
impl Drop for Entry {
    fn drop(&mut self) {
        self.handshake.cut.cancel();
    }
}

impl Handshake {
    fn now(&self, turn: Turn) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }

    /// Since when it waits for its peer, if it does not since `known`.
    fn later_than(&self, known: Instant) -> Option<Instant> {
        match *self.turn.lock().unwrap_or_else(PoisonError::into_inner) {
            Turn::Coming => None,
            Turn::Waiting => Some(Instant::now()),
            Turn::Begun(since) => Some(since).filter(|since| *since > known),
        }
    }
}

impl Crowd {
    pub(crate) fn new(places: usize, patience: Duration) -> Self {
        let most = places.saturating_mul(2).max(64);
        let places = Arc::new(Semaphore::new(places));
        Self { places, patience, entered: VecDeque::new(), most }
    }

    /// Waits for a place.
    pub(crate) async fn enter(&mut self) -> Entry {
        let place = self.place().await;
        if self.entered.len() >= self.most {
            self.entered.retain(|(_, handshake)| !handshake.cut.is_cancelled());
        }
        let handshake = Arc::<Handshake>::default();
        self.entered.push_back((Instant::now(), Arc::clone(&handshake)));
        Entry { handshake, _place: place }
    }

    async fn place(&mut self) -> OwnedSemaphorePermit {
        loop {
            while self.entered.front().is_some_and(|(_, it)| it.cut.is_cancelled()) {
                self.entered.pop_front();
            }
            let Some((since, oldest)) = self.entered.front() else {
                return acquire(&self.places).await;
            };
            let patience = sleep_until(*since + self.patience);
            tokio::select! {
                biased;
                place = acquire(&self.places) => return place,
                () = oldest.cut.cancelled() => continue,
                () = patience => {}
            }
            let later = oldest.later_than(*since);
            let Some((_, oldest)) = self.entered.pop_front() else { continue };
            match later {
                Some(since) => self.wait_longer(since, oldest),
                None => {
                    oldest.cut.cancel();
                    return acquire(&self.places).await;
                }
            }
        }
    }

    /// Whoever began before those who came later gives way before them.
    fn wait_longer(&mut self, since: Instant, handshake: Arc<Handshake>) {
        let at = self.entered.partition_point(|(before, _)| *before <= since);
        self.entered.insert(at, (since, handshake));
    }
}

/// The crowd alone holds the semaphore besides its permits, and never closes it.
async fn acquire(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match Arc::clone(places).acquire_owned().await {
        Ok(place) => place,
        Err(_) => std::future::pending().await,
    }
}

/// How many connections each proven peer has open.
#[derive(Clone)]
pub(crate) struct Seats {
    taken: Arc<Mutex<HashMap<Identity, usize>>>,
    most: usize,
}

/// One of a peer's connections.
pub(crate) struct Seat {
    seats: Seats,
    peer: Identity,
}

impl Seats {
    pub(crate) fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// A seat for `peer`, unless it has as many as it may have.
    pub(crate) fn take(&self, peer: &Identity) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let its = taken.entry(peer.clone()).or_default();
        if *its >= self.most {
            return None;
        }
        *its += 1;
        Some(Seat { seats: self.clone(), peer: peer.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(its) = taken.get_mut(&self.peer) {
            *its -= 1;
            if *its == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(40);

    #[tokio::test]
    async fn the_oldest_handshake_is_cut_after_its_patience_for_one_that_waits_and_no_other() {
        let mut crowd = Crowd::new(2, PATIENCE);
        let begun = Instant::now();
        let (first, second) = (crowd.enter().await, crowd.enter().await);
        let cut = first.cut().clone();
        let leave = async {
            cut.cancelled().await;
            assert!(begun.elapsed() >= PATIENCE, "not before its patience is over");
            sleep(PATIENCE * 2).await;
            drop(first);
        };
        let both = async { tokio::join!(crowd.enter(), leave) };
        let (third, ()) = timeout(Duration::from_secs(20), both).await.unwrap();
        assert!(!second.cut().is_cancelled() && !third.cut().is_cancelled());
    }

    #[tokio::test]
    async fn nobody_is_cut_while_there_is_room_or_nobody_waits() {
        let mut crowd = Crowd::new(2, PATIENCE);
        let (first, second) = (crowd.enter().await, crowd.enter().await);
        sleep(PATIENCE * 2).await;
        assert!(!first.cut().is_cancelled() && !second.cut().is_cancelled());
        drop(second);
        let _third = crowd.enter().await;
        assert!(!first.cut().is_cancelled());
    }

    #[tokio::test]
    async fn who_waits_for_the_server_is_not_cut_and_its_patience_begins_anew_afterwards() {
        let mut crowd = Crowd::new(1, PATIENCE);
        let mut first = crowd.enter().await;
        let cut = first.cut().clone();
        let shake = async {
            first.wait_turn(sleep(PATIENCE * 4)).await;
            assert!(!cut.is_cancelled(), "that was not its peer's doing");
            let begun = Instant::now();
            cut.cancelled().await;
            assert!(begun.elapsed() >= PATIENCE / 2, "{:?}", begun.elapsed());
            drop(first);
        };
        let both = async { tokio::join!(crowd.enter(), shake) };
        timeout(Duration::from_secs(20), both).await.unwrap();
    }

    #[tokio::test]
    async fn the_oldest_gives_way_at_once_though_it_began_after_it_had_come() {
        const LONG: Duration = Duration::from_secs(60 * 60);
        let mut crowd = Crowd::new(3, LONG);
        let mut entries = Vec::new();
        for _ in 0..3 {
            let mut entry = crowd.enter().await;
            entry.wait_turn(std::future::ready(())).await;
            entries.push(entry);
        }
        // As if the first had come, and begun, long before the others.
        let long_ago = |later| Instant::now().checked_sub(LONG * 2).unwrap() + later;
        crowd.entered[0].0 = long_ago(Duration::ZERO);
        entries[0].handshake.now(Turn::Begun(long_ago(PATIENCE)));
        let first = entries.remove(0);
        let leave = async {
            first.cut().cancelled().await;
            drop(first);
        };
        let both = async { tokio::join!(crowd.enter(), leave) };
        let (_entry, ()) = timeout(Duration::from_secs(20), both).await.unwrap();
        assert!(entries.iter().all(|other| !other.cut().is_cancelled()));
    }

    #[tokio::test]
    async fn what_is_remembered_of_ended_handshakes_is_bounded() {
        let mut crowd = Crowd::new(2, PATIENCE);
        let _oldest = crowd.enter().await;
        for _ in 0..10_000 {
            drop(crowd.enter().await);
            assert!(crowd.entered.len() <= crowd.most);
        }
    }

    #[test]
    fn a_peer_has_its_share_and_no_more_and_others_have_theirs() {
        let seats = Seats::new(2);
        let (one, other) = (Identity::Client("a".into()), Identity::Coordinator);
        let held = [seats.take(&one).unwrap(), seats.take(&one).unwrap()];
        assert!(seats.take(&one).is_none());
        let _other = seats.take(&other).unwrap();
        drop(held);
        assert!(seats.take(&one).is_some());
        assert_eq!(seats.taken.lock().unwrap().len(), 1, "who has gone is forgotten");
    }
}
