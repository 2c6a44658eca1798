//! The items of one job. Only those that were granted and have not ended have a record; the others
//! are a cursor (not granted yet) and a bit (ended).

use std::collections::{BTreeMap, BTreeSet};

use rollout_core::job::JobLimits;
use rollout_core::{Mono, WorkerId};
use rollout_transport::work::{Lease, Token};

use super::ended::Ended;
use super::words::{Accepted, Suspect, Trouble, What};

/// An item that was granted and has not ended.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// Who has it, or had it last.
    holder: WorkerId,
    /// In which epoch.
    epoch: u64,
    /// Its grant, or its last sign of progress.
    since: Mono,
    attempt: u32,
    trouble: Trouble,
    leased: bool,
}

/// Neighbouring items taken to be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) attempt: u32,
    pub(super) suspect: Suspect,
}

/// An outcome that counts.
pub(super) struct Counted {
    pub(super) accepted: Accepted,
    /// Since when the lease ran, if it still did.
    pub(super) since: Option<Mono>,
}

/// The items of a job.
#[derive(Debug, Default)]
pub(super) struct Items {
    total: u64,
    /// The first item that was never granted.
    fresh: u64,
    ended: Ended,
    open: BTreeMap<u64, Open>,
    /// Open items that wait, by how far they are suspected; the lowest goes first.
    waiting: [BTreeSet<u64>; 3],
    pub(super) leased: u64,
    pub(super) done: u64,
    pub(super) dead: u64,
}

impl Items {
    pub(super) fn new(total: u64) -> Self {
        Self { total, ..Self::default() }
    }

    /// How many wait, single ones included.
    pub(super) fn pending(&self) -> u64 {
        self.total - self.fresh + self.waiting.iter().map(|set| set.len() as u64).sum::<u64>()
    }

    /// How many wait that any worker may take.
    pub(super) fn takeable(&self) -> u64 {
        self.pending() - self.singles()
    }

    pub(super) fn singles(&self) -> u64 {
        self.waiting[Suspect::Single as usize].len() as u64
    }

    pub(super) fn finished(&self) -> bool {
        self.done + self.dead == self.total
    }

    /// Takes the next items for `worker`, at most `max`: those that wait again, then fresh ones.
    pub(super) fn take(&mut self, now: Mono, worker: (WorkerId, u64), max: u32) -> Option<Span> {
        for suspect in [Suspect::No, Suspect::Alone] {
            if let Some(span) = self.take_waiting(now, worker, suspect, max) {
                return Some(span);
            }
        }
        let count = u32::try_from(self.total - self.fresh).unwrap_or(u32::MAX).min(max);
        if count == 0 {
            return None;
        }
        let first = self.fresh;
        let trouble = Trouble::default();
        let (holder, epoch) = worker;
        let open = Open { holder, epoch, since: now, attempt: 1, trouble, leased: true };
        self.open.extend((first..first + u64::from(count)).map(|item| (item, open)));
        self.fresh += u64::from(count);
        self.leased += u64::from(count);
        Some(Span { first, count, attempt: 1, suspect: Suspect::No })
    }

    /// Takes the one item that is to be a worker's only lease.
    pub(super) fn take_single(&mut self, now: Mono, worker: (WorkerId, u64)) -> Option<Span> {
        self.take_waiting(now, worker, Suspect::Single, 1)
    }

    fn take_waiting(
        &mut self,
        now: Mono,
        (holder, epoch): (WorkerId, u64),
        suspect: Suspect,
        max: u32,
    ) -> Option<Span> {
        let first = *self.waiting[suspect as usize].first()?;
        let attempt = self.open.get(&first)?.attempt + 1;
        let mut count = 0;
        while count < max {
            let item = first + u64::from(count);
            let Some(open) = self.open.get_mut(&item).filter(|open| open.attempt + 1 == attempt)
            else {
                break;
            };
            if !self.waiting[suspect as usize].remove(&item) {
                break;
            }
            *open = Open { holder, epoch, since: now, attempt, leased: true, ..*open };
            count += 1;
        }
        self.leased += u64::from(count);
        Some(Span { first, count, attempt, suspect })
    }

    /// Checks what `worker`, of the current `epoch`, says has become of an item, and counts it.
    ///
    /// A result is taken from whoever had the item last, even after its lease is over, as long as
    /// nobody else was granted it since.
    pub(super) fn outcome(
        &mut self,
        worker: WorkerId,
        epoch: u64,
        lease: Lease,
        what: What,
        limits: &JobLimits,
    ) -> Result<Counted, Token> {
        let item = lease.item;
        if item >= self.total {
            return Err(Token::Job);
        }
        if self.ended.contains(item) {
            return Err(Token::State);
        }
        let open = self.open.get(&item).copied().ok_or(Token::Attempt)?;
        let current = open.attempt == lease.attempt && open.holder == worker;
        if current && open.epoch != epoch {
            return Err(Token::Epoch);
        }
        if !current || (what != What::Result && !open.leased) {
            return Err(Token::Attempt);
        }
        let since = open.leased.then_some(open.since);
        let mut trouble = open.trouble;
        match what {
            What::Result => {
                self.end(item);
                self.done += 1;
                return Ok(Counted { accepted: Accepted::Done, since });
            }
            What::Failed => trouble.failures += 1,
            What::Lost { alone } => {
                trouble.losses += u32::from(alone);
                trouble.suspect = trouble.suspect.max(Suspect::Alone);
            }
        }
        let accepted = self.again_or_dead(item, trouble, limits);
        Ok(Counted { accepted, since })
    }

    /// The lease is over without an outcome; `failed` says that the item is to blame.
    pub(super) fn release(
        &mut self,
        item: u64,
        failed: bool,
        limits: &JobLimits,
    ) -> Option<Accepted> {
        let mut trouble = self.open.get(&item).filter(|open| open.leased)?.trouble;
        trouble.failures += u32::from(failed);
        Some(self.again_or_dead(item, trouble, limits))
    }

    /// A crash took the item along: it may be the reason, and `only` says that no other can be. If
    /// another worker has it by now, it may go on: a result counts, whatever it has been through.
    pub(super) fn blame(&mut self, item: u64, only: bool, limits: &JobLimits) -> Option<Accepted> {
        let open = self.open.get_mut(&item)?;
        let mut trouble = open.trouble;
        trouble.losses += u32::from(only);
        trouble.suspect = match trouble.suspect {
            Suspect::No if !only => Suspect::Alone,
            _ => Suspect::Single,
        };
        if open.leased {
            open.trouble = trouble;
            return Some(Accepted::Again(trouble));
        }
        self.waiting[open.trouble.suspect as usize].remove(&item);
        Some(self.again_or_dead(item, trouble, limits))
    }

    fn again_or_dead(&mut self, item: u64, trouble: Trouble, limits: &JobLimits) -> Accepted {
        if trouble.failures >= limits.max_attempts || trouble.losses >= limits.max_losses {
            self.end(item);
            self.dead += 1;
            return Accepted::Dead(trouble);
        }
        if let Some(open) = self.open.get_mut(&item) {
            self.leased -= u64::from(open.leased);
            open.leased = false;
            open.trouble = trouble;
            self.waiting[trouble.suspect as usize].insert(item);
        }
        Accepted::Again(trouble)
    }

    fn end(&mut self, item: u64) {
        if let Some(open) = self.open.remove(&item) {
            self.leased -= u64::from(open.leased);
            if !open.leased {
                self.waiting[open.trouble.suspect as usize].remove(&item);
            }
        }
        self.ended.insert(item);
    }

    /// The lease is alive.
    pub(super) fn progress(&mut self, now: Mono, worker: WorkerId, item: u64) {
        if let Some(open) =
            self.open.get_mut(&item).filter(|open| open.leased && open.holder == worker)
        {
            open.since = now;
        }
    }

    /// What the item has been through, if it is open.
    pub(super) fn trouble(&self, item: u64) -> Option<Trouble> {
        self.open.get(&item).map(|open| open.trouble)
    }

    /// Whether it waits again after a grant, for any worker.
    pub(super) fn waits_again(&self) -> bool {
        [Suspect::No, Suspect::Alone].iter().any(|s| !self.waiting[*s as usize].is_empty())
    }

    /// When the item was granted, or last heard of.
    pub(super) fn since(&self, item: u64) -> Option<Mono> {
        self.open.get(&item).map(|open| open.since)
    }

    /// The item's fencing token.
    pub(super) fn attempt(&self, item: u64) -> Option<u32> {
        self.open.get(&item).map(|open| open.attempt)
    }

    /// How far the item is suspected.
    pub(super) fn suspect(&self, item: u64) -> Suspect {
        self.open.get(&item).map_or(Suspect::No, |open| open.trouble.suspect)
    }

    /// From the records: an item that has ended.
    pub(super) fn restore_end(&mut self, item: u64, dead: bool) {
        if item < self.total && self.ended.insert(item) {
            self.done += u64::from(!dead);
            self.dead += u64::from(dead);
        }
    }

    /// From the records, after all ends and in order: a grant.
    pub(super) fn restore_grant(&mut self, now: Mono, worker: (WorkerId, u64), span: Span) {
        let (holder, epoch) = worker;
        let end = (span.first + u64::from(span.count)).min(self.total);
        for item in span.first..end {
            if self.ended.contains(item) {
                continue;
            }
            let trouble = self.open.get(&item).map_or(Trouble::default(), |open| open.trouble);
            let open =
                Open { holder, epoch, since: now, attempt: span.attempt, trouble, leased: true };
            self.open.insert(item, open);
        }
        self.fresh = self.fresh.max(end);
    }

    /// From the records: a lease that was over.
    pub(super) fn restore_release(&mut self, item: u64) {
        if let Some(open) = self.open.get_mut(&item) {
            open.leased = false;
        }
    }

    /// From the records: every item below was granted once.
    pub(super) fn restore_fresh(&mut self, fresh: u64) {
        self.fresh = self.fresh.max(fresh.min(self.total));
    }

    /// From the records, after the leases: what an item has been through.
    pub(super) fn restore_trouble(&mut self, item: u64, trouble: Trouble) {
        if let Some(open) = self.open.get_mut(&item) {
            open.trouble = trouble;
        }
    }

    /// The first item that was never granted, the open ones as spans of one holder and attempt, and
    /// which of them wait.
    pub(super) fn snapshot(&self) -> (u64, Vec<(WorkerId, u64, Span)>, Vec<u64>) {
        let mut spans: Vec<(WorkerId, u64, Span)> = Vec::new();
        for (&item, open) in &self.open {
            let Open { holder, epoch, attempt, .. } = *open;
            match spans.last_mut() {
                Some((of, at, span))
                    if (*of, *at, span.attempt) == (holder, epoch, attempt)
                        && span.first + u64::from(span.count) == item =>
                {
                    span.count += 1;
                }
                _ => {
                    let span = Span { first: item, count: 1, attempt, suspect: Suspect::No };
                    spans.push((holder, epoch, span));
                }
            }
        }
        let waiting = self.open.iter().filter(|(_, open)| !open.leased).map(|(item, _)| *item);
        (self.fresh, spans, waiting.collect())
    }

    /// Closes a restoration: the leases that still run, with their holders.
    pub(super) fn restored(&mut self) -> Vec<(WorkerId, u64)> {
        let mut running = Vec::new();
        for (item, open) in &self.open {
            if open.leased {
                running.push((open.holder, *item));
            } else {
                self.waiting[open.trouble.suspect as usize].insert(*item);
            }
        }
        self.leased = running.len() as u64;
        running
    }
}
