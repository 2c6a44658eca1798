//! What the heart makes known: who the process is now, and whether it may act.

use rollout_core::Incarnation;
use tokio::sync::watch;

/// The newest of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pulse {
    pub(crate) incarnation: Incarnation,
    /// None while the process is not registered.
    pub(crate) epoch: Option<u64>,
    /// Nothing is begun or committed meanwhile.
    pub(crate) fenced: bool,
    /// The connections that the heart has registered or resumed on so far.
    pub(crate) links: u64,
}

/// The heart's end. It waits for nobody.
#[derive(Debug)]
pub(crate) struct Publisher(watch::Sender<Pulse>);

impl Publisher {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        let pulse = Pulse { incarnation, epoch: None, fenced: false, links: 0 };
        Self(watch::Sender::new(pulse))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Pulse> {
        self.0.subscribe()
    }

    /// The process is registered, or was resumed, on a new connection.
    pub(crate) fn registered(&self, incarnation: Incarnation, epoch: u64) {
        self.0.send_modify(|pulse| {
            (pulse.incarnation, pulse.epoch) = (incarnation, Some(epoch));
            pulse.links += 1;
        });
    }

    /// Its epoch is over.
    pub(crate) fn over(&self) {
        self.0.send_modify(|pulse| pulse.epoch = None);
    }

    pub(crate) fn fence(&self, fenced: bool) {
        self.0.send_modify(|pulse| pulse.fenced = fenced);
    }
}
