//! The self-fence: a worker that is not acknowledged stops acting before its coordinator may have
//! given its work away.
//!
//! Pure. Instants are of the clock that counts suspend; an acknowledgement counts from the **send**
//! time of its beat, which is before the coordinator can have accepted it.

use std::collections::VecDeque;
use std::time::Duration;

use rollout_core::Mono;

/// Unacknowledged beats remembered; the link is given up long before there are so many.
const MAX_PENDING: usize = 1_024;

/// What a look at the fence found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Unacknowledged for this long: the worker is fenced from now on.
    Fenced(Duration),
    /// Acknowledged again.
    Lifted,
}

/// Remembers when what was sent, and what was acknowledged of it.
#[derive(Debug)]
pub(crate) struct Fence {
    timeout: Duration,
    /// Send time of the newest acknowledged message; nothing before the first registration.
    acknowledged: Option<Mono>,
    pending: VecDeque<(u64, Mono)>,
    fenced: bool,
}

impl Fence {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, acknowledged: None, pending: VecDeque::new(), fenced: false }
    }

    /// Beat `beat` goes out at `now`.
    pub(crate) fn sent(&mut self, now: Mono, beat: u64) {
        if self.pending.len() == MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back((beat, now));
    }

    /// Beat `beat`, and all before it, are acknowledged.
    pub(crate) fn acknowledge(&mut self, beat: u64) {
        while let Some(&(oldest, sent)) = self.pending.front() {
            if oldest > beat {
                break;
            }
            self.pending.pop_front();
            self.acknowledged = self.acknowledged.max(Some(sent));
        }
    }

    /// A registration sent at `sent` is acknowledged; beats sent on another link never will be.
    pub(crate) fn registered(&mut self, sent: Mono) {
        self.pending.clear();
        self.acknowledged = self.acknowledged.max(Some(sent));
    }

    /// The link is a new one, over which nothing is acknowledged yet: beats sent on the old one
    /// never will be. A resumption moves no deadline, and so no fence.
    pub(crate) fn resumed(&mut self) {
        self.pending.clear();
    }

    /// Send time of the oldest beat that is not acknowledged.
    pub(crate) fn oldest_pending(&self) -> Option<Mono> {
        self.pending.front().map(|(_, sent)| *sent)
    }

    /// How long the worker has not been acknowledged.
    pub(crate) fn unacknowledged(&self, now: Mono) -> Duration {
        self.acknowledged.map_or(Duration::ZERO, |sent| now.since(sent))
    }

    /// When the fence falls if nothing is acknowledged until then.
    pub(crate) fn falls(&self) -> Option<Mono> {
        self.acknowledged.filter(|_| !self.fenced).map(|sent| sent + self.timeout)
    }

    /// What has changed by `now`.
    pub(crate) fn look(&mut self, now: Mono) -> Option<Change> {
        let silent = self.unacknowledged(now);
        let fenced = silent >= self.timeout;
        match (std::mem::replace(&mut self.fenced, fenced), fenced) {
            (false, true) => Some(Change::Fenced(silent)),
            (true, false) => Some(Change::Lifted),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn at(n: u64) -> Mono {
        Mono(0) + ms(n)
    }

    fn registered() -> Fence {
        let mut fence = Fence::new(ms(4_000));
        fence.registered(at(0));
        fence
    }

    #[test]
    fn it_falls_the_timeout_after_the_send_time_of_the_last_acknowledged_beat() {
        let mut fence = registered();
        fence.sent(at(500), 1);
        fence.sent(at(1_000), 2);
        fence.acknowledge(1);
        assert_eq!(fence.falls(), Some(at(4_500)));
        assert_eq!(fence.oldest_pending(), Some(at(1_000)));
        assert_eq!(fence.look(at(4_499)), None);
        assert_eq!(fence.look(at(4_500)), Some(Change::Fenced(ms(4_000))));
        assert_eq!(fence.look(at(9_000)), None, "it falls once");
        assert_eq!(fence.falls(), None);
    }

    #[test]
    fn an_acknowledgement_or_a_resumption_lifts_it() {
        let mut fence = registered();
        assert!(fence.look(at(4_000)).is_some());
        fence.registered(at(4_100));
        assert_eq!(fence.look(at(4_200)), Some(Change::Lifted));
        assert_eq!(fence.look(at(4_300)), None);
    }

    #[test]
    fn a_late_acknowledgement_of_an_old_beat_does_not_lift_it() {
        let mut fence = registered();
        fence.sent(at(100), 1);
        assert!(fence.look(at(4_500)).is_some());
        fence.acknowledge(1);
        assert_eq!(fence.look(at(4_600)), None, "it was sent longer ago than the time-out");
    }

    #[test]
    fn before_the_first_registration_there_is_nothing_to_fence() {
        let mut fence = Fence::new(ms(10));
        assert_eq!(fence.look(at(60_000)), None);
        assert_eq!(fence.falls(), None);
    }

    #[test]
    fn a_resumption_lifts_no_fence_and_moves_none_and_the_next_beat_does() {
        let mut fence = registered();
        fence.sent(at(500), 1);
        fence.resumed();
        assert_eq!((fence.oldest_pending(), fence.falls()), (None, Some(at(4_000))));
        assert_eq!(fence.look(at(4_000)), Some(Change::Fenced(ms(4_000))));
        fence.resumed();
        assert_eq!(fence.look(at(4_100)), None);
        fence.sent(at(4_100), 2);
        fence.acknowledge(2);
        assert_eq!(fence.look(at(4_200)), Some(Change::Lifted));
    }

    proptest! {
        /// Against the definition: fenced iff the newest acknowledged send is that old.
        #[test]
        fn it_is_fenced_exactly_while_the_newest_acknowledged_send_is_too_old(
            steps in prop::collection::vec((1u64..1_500, any::<bool>(), any::<bool>()), 1..100)
        ) {
            let mut fence = registered();
            let (mut now, mut beats, mut newest, mut fenced) = (at(0), Vec::new(), at(0), false);
            for (pause, send, ack) in steps {
                now += ms(pause);
                if send {
                    beats.push(now);
                    fence.sent(now, beats.len() as u64);
                }
                if ack && !beats.is_empty() {
                    fence.acknowledge(beats.len() as u64);
                    newest = newest.max(beats[beats.len() - 1]);
                }
                match fence.look(now) {
                    Some(Change::Fenced(_)) => fenced = true,
                    Some(Change::Lifted) => fenced = false,
                    None => {}
                }
                prop_assert_eq!(fenced, now.since(newest) >= ms(4_000));
            }
        }
    }
}
