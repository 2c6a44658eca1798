//! The events of work: ranges and counts, never a line for each item.

use std::borrow::Cow;

use rollout_core::JobId;
use rollout_core::event::{
    Body, CommitRejected, ItemDeadLettered, ItemsCommitted, ItemsLeased, ItemsRedispatched,
};
use rollout_transport::work::{Committed, Failure, Final, Stale, Token};

use super::ledger::words::{Cause, Grant, Trouble};
use super::store::spans;

/// Items as ranges, first and last included.
fn ranges(items: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    spans(items).into_iter().map(|(first, count)| (first, first + (count - 1))).collect()
}

pub(crate) fn leased(grants: &[Grant]) -> Option<Body> {
    let Grant { job, epoch, .. } = *grants.first()?;
    let all = grants.iter().flat_map(|g| g.first..g.first + u64::from(g.count));
    let items = grants.iter().map(|g| u64::from(g.count)).sum();
    Some(ItemsLeased { job, epoch, items, ranges: ranges(all) }.into())
}

pub(crate) fn committed(job: JobId, seq: u64, items: &[Committed]) -> Body {
    let dead = items.iter().filter(|item| matches!(item.end, Final::Dead { .. })).count() as u64;
    let ranges = ranges(items.iter().map(|committed| committed.item));
    ItemsCommitted { job, seq, items: items.len() as u64, dead, ranges }.into()
}

/// One event for each token that was stale.
pub(crate) fn rejected(job: JobId, epoch: u64, stale: &[Stale]) -> Vec<Body> {
    let of = |token: Token, word: &'static str| {
        let items: Vec<u64> =
            stale.iter().filter(|s| s.token == token).map(|s| s.lease.item).collect();
        let count = items.len() as u64;
        let stale = Cow::Borrowed(word);
        (count > 0).then(|| {
            CommitRejected { job, epoch, stale, items: count, ranges: ranges(items) }.into()
        })
    };
    let tokens = [
        (Token::State, "state"),
        (Token::Attempt, "attempt"),
        (Token::Epoch, "epoch"),
        (Token::Job, "job"),
    ];
    tokens.into_iter().filter_map(|(token, word)| of(token, word)).collect()
}

pub(crate) fn redispatched(job: JobId, cause: Cause, leases: &[(u64, u32)]) -> Body {
    let ranges = ranges(leases.iter().map(|(item, _)| *item));
    let cause = Cow::Borrowed(cause.word());
    ItemsRedispatched { job, cause, items: leases.len() as u64, ranges }.into()
}

pub(crate) fn dead(job: JobId, item: u64, trouble: Trouble, failure: &Failure) -> Body {
    ItemDeadLettered {
        job,
        item,
        failures: trouble.failures,
        losses: trouble.losses,
        code: failure.code.clone(),
        message: failure.message.clone(),
    }
    .into()
}
