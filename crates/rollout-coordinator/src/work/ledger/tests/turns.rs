//! What workers do, and what the ledger makes of it, held against what the model knows.

use super::*;

impl World {
    /// Liveness never takes a verdict back: only a new epoch follows on a failure.
    pub(super) fn stand(&mut self, w: usize, newer: u64, standing: Standing) {
        let (epoch, before, up) = self.standing[w];
        if before == Standing::Failed && newer == 0 {
            return;
        }
        let gone = newer > 0 || standing == Standing::Failed;
        let known = &self.items;
        if standing == Standing::Ready && before == Standing::Suspected && !gone {
            self.taken[w].retain(|key| known[key].ends == 0);
        }
        let held = known.iter().filter(|(_, k)| k.leased && k.holds(w)).map(|(key, _)| *key);
        let in_hand: BTreeSet<_> = held.chain(self.taken[w].iter().copied()).collect();
        let losses: BTreeMap<_, _> =
            known.iter().filter(|(_, k)| k.ends == 0).map(|(key, k)| (*key, k.losses)).collect();
        self.standing[w] = (epoch + newer, standing, up && !gone);
        if gone {
            self.credit[w] = 0;
        }
        let mut out = Vec::new();
        self.ledger.worker(self.now, worker_id(w), epoch + newer, standing, &mut out);
        self.carry_out(out);
        if gone {
            let held = self.items.values().filter(|k| k.leased && k.holds(w));
            assert_eq!(held.count(), 0, "the leases of an epoch end with it");
            for known in self.items.values_mut().filter(|k| k.holds(w)) {
                known.disowned = true;
            }
            self.taken[w].clear();
        }
        // A crash counts against what was in its hands, when it is known to be one, and only there.
        let only = u32::from(gone && in_hand.len() == 1);
        for (key, before) in losses {
            let blamed = u32::from(in_hand.contains(&key)) * only;
            assert_eq!(self.items[&key].losses, before + blamed, "{key:?} of {in_hand:?}");
            let (job, item) = key;
            if gone && in_hand.contains(&key) && self.items[&key].ends == 0 {
                assert_ne!(self.ledger.jobs[&job].items.suspect(item), Suspect::No, "{key:?}");
            }
        }
    }

    pub(super) fn open(&mut self, w: usize) {
        let (epoch, standing, _) = self.standing[w];
        let opened = self.ledger.stream_up(worker_id(w), epoch, ["sample".to_owned()]);
        let may = standing != Standing::Failed && self.knows(w);
        assert_eq!(opened.is_ok(), may, "{standing:?}");
        let Ok(grants) = opened else { return };
        (self.standing[w].2, self.credit[w]) = (true, 0);
        let said: u64 = grants.iter().map(|grant| u64::from(grant.count)).sum();
        let held = self.items.values().filter(|k| k.leased && k.holds(w)).count();
        assert_eq!(said, held as u64, "a new stream is told all that the worker has");
    }

    /// The ledger hears of a worker with its first standing.
    fn knows(&self, w: usize) -> bool {
        self.ledger.workers.contains_key(&worker_id(w))
    }

    pub(super) fn pick(&self, at: usize) -> Option<(usize, u64, JobId, Lease)> {
        // Mostly recent ones, so that something comes of it.
        let recent = self.seen.len().min(20);
        let from = if at.is_multiple_of(4) { 0 } else { self.seen.len() - recent };
        let among = &self.seen[from..];
        (!among.is_empty()).then(|| among[(at / 4) % among.len()])
    }

    pub(super) fn answer(&mut self, at: usize, what: u8) {
        let Some((w, epoch, job, lease)) = self.pick(at) else { return };
        let what = match what {
            0 | 1 => What::Failed,
            2 => What::Lost { alone: true },
            3 => What::Lost { alone: false },
            _ => What::Result,
        };
        // Now and then a newer process answers for what an older one had.
        let epoch = if at.is_multiple_of(3) { self.standing[w].0 } else { epoch };
        let current = self.standing[w].0 == epoch && self.knows(w);
        if current && self.standing[w].1 != Standing::Failed {
            self.taken[w].remove(&(job, lease.item));
        }
        let known = self.items.get_mut(&(job, lease.item)).unwrap();
        let last = known.grants.last().unwrap();
        let expected = current
            && known.ends == 0
            && !known.disowned
            && (last.attempt, last.worker, last.epoch) == (lease.attempt, worker_id(w), epoch)
            && (what == What::Result || known.leased);
        let outcome = self.ledger.outcome(self.now, worker_id(w), epoch, job, lease, what);
        assert_eq!(outcome.is_ok(), expected, "{what:?} of {lease:?}: {outcome:?} {known:?}");
        let tally = self.tallies.get_mut(&job).unwrap();
        tally.stale += u64::from(outcome.is_err());
        let Ok(accepted) = outcome else { return };
        known.leased = false;
        known.failures += u32::from(what == What::Failed);
        known.losses += u32::from(what == What::Lost { alone: true });
        let over = known.failures >= 3 || known.losses >= 4;
        match accepted {
            Accepted::Done => {
                assert_eq!(what, What::Result, "no failure becomes a result");
                known.ends += 1;
                self.ended.push((job, lease.item, false));
            }
            Accepted::Again(trouble) => {
                assert!(!over && what != What::Result);
                assert_eq!((trouble.failures, trouble.losses), (known.failures, known.losses));
                self.troubles.insert((job, lease.item), trouble);
                let (worker, item, cause) = (worker_id(w), lease.item, Cause::Tried);
                self.log.push(Record::Release { job, worker, item, cause });
            }
            Accepted::Dead(trouble) => {
                assert!(over && what != What::Result);
                assert_eq!((trouble.failures, trouble.losses), (known.failures, known.losses));
                known.ends += 1;
                self.ended.push((job, lease.item, true));
            }
        }
    }

    pub(super) fn give_back(&mut self, at: usize) {
        let Some((w, epoch, job, lease)) = self.pick(at) else { return };
        if self.standing[w].0 == epoch && self.knows(w) {
            self.taken[w].remove(&(job, lease.item));
        }
        let mut out = Vec::new();
        self.ledger.give_back(worker_id(w), epoch, job, &[lease], &mut out);
        self.carry_out(out);
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Granted(grant) => self.granted(grant),
                Effect::Released { job, worker, leases, cause } => {
                    for (item, attempt) in leases {
                        let known = self.items.get_mut(&(job, item)).unwrap();
                        let last = known.grants.last().unwrap();
                        assert_eq!((last.worker, last.attempt), (worker, attempt));
                        if known.ends == 0 {
                            assert!(known.leased, "only a lease can be over");
                            self.log.push(Record::Release { job, worker, item, cause });
                        }
                        known.leased = false;
                        let taken = !matches!(cause, Cause::Returned | Cause::NoProgress);
                        self.tallies.get_mut(&job).unwrap().redispatched += u64::from(taken);
                        if cause == Cause::Suspected {
                            let w = (0..WORKERS).find(|w| worker_id(*w) == worker).unwrap();
                            self.taken[w].insert((job, item));
                        }
                    }
                }
                Effect::Troubled { job, item, trouble } => {
                    let known = self.items.get_mut(&(job, item)).unwrap();
                    known.note(trouble);
                    // Whoever has it by now may finish it.
                    assert!(trouble.failures < 3 && (trouble.losses < 4 || known.leased));
                    self.troubles.insert((job, item), trouble);
                }
                Effect::Settled { job, worker, .. } => {
                    self.log.push(Record::Settled { job, worker });
                }
                Effect::Dead { job, item, trouble, .. } => {
                    let known = self.items.get_mut(&(job, item)).unwrap();
                    known.note(trouble);
                    assert!(trouble.failures >= 3 || trouble.losses >= 4);
                    known.ends += 1;
                    self.ended.push((job, item, true));
                }
            }
        }
        self.check();
    }

    fn granted(&mut self, grant: Grant) {
        let w = (0..WORKERS).find(|w| worker_id(*w) == grant.worker).unwrap();
        assert_eq!(self.standing[w], (grant.epoch, Standing::Ready, true), "may be granted work");
        assert!(grant.count <= 5, "at most a batch");
        assert!(grant.count <= self.credit[w], "within the credit");
        self.credit[w] -= grant.count;
        for item in grant.first..grant.first + u64::from(grant.count) {
            let known = self.items.get_mut(&(grant.job, item)).unwrap();
            assert!(!known.leased && known.ends == 0, "item {item} was free");
            let before = known.grants.last().map_or(0, |last| last.attempt);
            assert_eq!(grant.attempt, before + 1, "an attempt never repeats");
            assert!(known.losses == 0 || grant.alone, "a suspect is retried alone");
            known.grants.push(grant);
            (known.leased, known.disowned) = (true, false);
            self.taken[w].remove(&(grant.job, item));
            let lease = Lease { item, attempt: grant.attempt };
            self.seen.push((w, grant.epoch, grant.job, lease));
        }
        self.log.push(Record::Grant(grant));
    }
}
