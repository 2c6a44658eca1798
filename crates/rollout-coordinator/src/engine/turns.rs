//! The engine's turns: what came since the last is handled, then the deadlines are looked at and the
//! beats that are due go to the disk.

use std::sync::Arc;
use std::time::Duration;

use rollout_core::Mono;
use rollout_core::duration::as_ms;
use rollout_core::event::CoordinatorStalled;
use rollout_storage::StorageError;
use rollout_transport::Down;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Engine, say_broken, send_from_writer};
use crate::ledger::Durable;
use crate::mailbox::Message;
use crate::skew::Wall;
use crate::watchdog;

/// Messages taken between two looks at the deadlines.
const BATCH: usize = 256;
/// After messages came, the next are taken together for so long: with many workers, waking up for
/// each beat costs more than the beat. Nobody waits for a beat to be booked.
const GATHER: Duration = Duration::from_millis(4);

impl Engine {
    /// Runs until it is stopped or the ledger breaks; then everything submitted is on disk.
    pub(crate) async fn run(mut self) -> Result<(), Arc<StorageError>> {
        let outcome = self.serve().await;
        // The ledger's writer may be waiting for room in here, and is waited for next.
        self.inbox.close();
        let broken = Arc::clone(&self.broken);
        // Nobody else has the store any more: its writer ends with it, and what it still had to
        // write is on disk, or the reason why not is known.
        drop(self);
        outcome?;
        broken.get().map_or(Ok(()), |error| Err(Arc::clone(error)))
    }

    async fn serve(&mut self) -> Result<(), Arc<StorageError>> {
        let longest = watchdog::TICK.min(self.liveness.scan_tick());
        let mut messages = Vec::with_capacity(BATCH);
        let mut gather = false;
        loop {
            self.wall = Wall::read(&*self.clock);
            let now = self.wall.at;
            self.watch(now);
            if let Some(error) = self.broken.get() {
                return Err(Arc::clone(error));
            }
            for message in messages.drain(..) {
                match message {
                    Message::Stop => {
                        self.say_goodbye();
                        return Ok(());
                    }
                    other => self.handle(now, other),
                }
            }
            let stalled = self.watchdog.is_stalled();
            #[cfg(feature = "faults")]
            let stalled = stalled && !rollout_core::faults::stall_credit_is_off();
            if !stalled {
                self.expire(now);
            }
            self.sync_beats(now);
            self.refusals.look(now);
            let wake = self.liveness.next_wake().filter(|_| !stalled);
            let nap = [wake, self.ledger.next_sync()]
                .into_iter()
                .flatten()
                .fold(longest, |nap, wake| nap.min(wake.since(now)));
            // An instant and no duration: whoever is stopped while it gathers is late, and looks.
            let until = Instant::now() + nap;
            if gather {
                sleep(nap.min(GATHER)).await;
            }
            tokio::select! {
                biased;
                received = self.inbox.recv_many(&mut messages, BATCH) => {
                    if received == 0 {
                        return Ok(());
                    }
                    gather = received < BATCH;
                }
                () = sleep_until(until) => gather = false,
            }
        }
    }

    /// Looks whether the coordinator itself was stopped or starved: the time is credited, and
    /// nothing expires before what waited in the sockets has been read.
    fn watch(&mut self, now: Mono) {
        let stall = self.watchdog.look(now);
        #[cfg(feature = "faults")]
        let stall =
            if rollout_core::faults::stall_credit_is_off() { Duration::ZERO } else { stall };
        self.liveness.credit(stall);
        if let Some(stall) = self.watchdog.report() {
            self.emit.emit(now, None, CoordinatorStalled { ms: as_ms(stall) }.into());
        }
        // A stall is credited already.
        let waits = stall.is_zero() && self.queue.waits() && self.liveness.awaits_restored(now);
        let rush = self.rush.look(now, waits);
        self.liveness.credit_restored(rush);
        if let Some(rush) = self.rush.report() {
            self.emit.emit(now, None, CoordinatorStalled { ms: as_ms(rush) }.into());
        }
    }

    fn sync_beats(&mut self, now: Mono) {
        let (outbox, broken) = (self.outbox.clone(), Arc::clone(&self.broken));
        self.ledger.sync_beats(now, move |outcome| match outcome {
            Ok(beats) => send_from_writer(&outbox, Message::Durable(beats)),
            Err(error) => say_broken(&broken, error),
        });
    }

    pub(super) fn durable(&mut self, beats: &Durable) {
        self.ledger.synced();
        for (worker, record) in beats {
            if let Some(connected) =
                self.sessions.get_mut(worker).filter(|c| c.epoch == record.epoch)
            {
                connected.gate.is_durable(record.beat);
            }
        }
    }

    /// Tells every session that the coordinator ends.
    fn say_goodbye(&mut self) {
        for (_, connected) in self.sessions.drain() {
            connected.gate.close();
            let _ = connected.down.try_send(Down::Stopping);
            connected.end.cancel();
        }
    }
}
