//! Which calls occupy a library's threads, and which of them do not return.
//!
//! A call that goes on for `limits.cancel_grace` after its deadline, or after it was given up, is
//! reported once. The plugin is
//! wedged as long as such calls occupy every thread that it may have.

use std::sync::Arc;
use std::time::Duration;

use rollout_core::{Clock, Mono, SystemClock};
use tokio::time::sleep;

use super::{Shared, Ticket};
use crate::event::HostEvent;

/// The threads, by number.
pub(super) struct Occupants {
    grace: Duration,
    threads: Vec<Option<Occupant>>,
}

struct Occupant {
    ticket: Arc<Ticket>,
    reported: bool,
}

impl Occupants {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, threads: vec![None] }
    }

    /// How many threads there may be. Known once the library is loaded.
    pub(super) fn set_threads(&mut self, most: usize) {
        self.threads.resize_with(most, || None);
    }

    pub(super) const fn threads(&self) -> usize {
        self.threads.len()
    }

    pub(super) fn enter(&mut self, thread: usize, ticket: &Arc<Ticket>) {
        if let Some(place) = self.threads.get_mut(thread) {
            *place = Some(Occupant { ticket: Arc::clone(ticket), reported: false });
        }
    }

    pub(super) fn leave(&mut self, thread: usize) {
        if let Some(place) = self.threads.get_mut(thread) {
            *place = None;
        }
    }

    /// A method that does not return, when none of the threads will take another call.
    pub(super) fn stuck(&self, now: Mono) -> Option<String> {
        let overdue = |occupant: &Occupant| occupant.ticket.over() + self.grace <= now;
        let mut methods = None;
        for thread in &self.threads {
            let occupant = thread.as_ref().filter(|occupant| overdue(occupant))?;
            methods.get_or_insert(&occupant.ticket.method);
        }
        methods.cloned()
    }

    /// A method that runs.
    pub(super) fn any(&self) -> Option<String> {
        self.threads.iter().flatten().map(|occupant| occupant.ticket.method.clone()).next()
    }

    /// Tells every call that nobody waits for it any more.
    pub(super) fn cancel(&self) {
        for Occupant { ticket, .. } in self.threads.iter().flatten() {
            ticket.abandon();
            ticket.inbox.close();
        }
    }

    /// The methods that are to be reported now, and when the next one is.
    fn overdue(&mut self, now: Mono) -> (Vec<String>, Option<Mono>) {
        let (mut due, mut next) = (Vec::new(), None);
        let grace = self.grace;
        for occupant in self.threads.iter_mut().flatten().filter(|occupant| !occupant.reported) {
            let at = occupant.ticket.over() + grace;
            if at <= now {
                occupant.reported = true;
                due.push(occupant.ticket.method.clone());
            } else if occupant.ticket.is_cancelled() {
                next = Some(next.map_or(at, |next: Mono| next.min(at)));
            }
        }
        (due, next)
    }
}

/// Reports calls that do not return. Runs as long as the library is there; it wakes when a running call
/// was given up, and when that call's time is over.
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        let now = SystemClock.now();
        let (due, next) = shared.occupants().overdue(now);
        for method in due {
            (shared.on_event)(HostEvent::Wedged { plugin: Arc::clone(&shared.name), method });
        }
        let wait = async {
            match next {
                Some(at) => sleep(at.since(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.abandoned.notified() => {}
            () = wait => {}
        }
    }
}
