//! What is said once it is on disk.

use std::collections::HashMap;
use std::sync::Arc;

use rollout_core::{JobId, JobSpec, WorkerId};
use rollout_storage::StorageError;
use rollout_transport::work::{LINE_TARGET, WorkDown};
use serde_json::value::RawValue;

use super::{Engine, Outcome};
use crate::work::handle::StreamId;
use crate::work::ledger::words::Grant;
use crate::work::report;
use crate::work::store::{self, CHUNK};
use crate::work::tx::After;

/// The parameters of a chunk of items.
pub(super) type Params = Vec<Box<RawValue>>;
/// Bytes of chunks that are kept for the next grants.
const KEPT: usize = 32 << 20;

/// Chunks of parameters that were read not long ago.
#[derive(Default)]
pub(super) struct Cache {
    chunks: HashMap<(JobId, u64), Arc<Params>>,
    bytes: usize,
}

impl Cache {
    /// The job is removed.
    pub(super) fn remove(&mut self, job: JobId) {
        self.chunks.retain(|(of, _), _| *of != job);
        self.bytes = self.chunks.values().map(|chunk| bytes(chunk)).sum();
    }

    fn insert(&mut self, key: (JobId, u64), params: Arc<Params>) {
        if self.bytes > KEPT {
            self.chunks.clear();
            self.bytes = 0;
        }
        self.bytes += bytes(&params);
        self.chunks.insert(key, params);
    }
}

fn bytes(params: &[Box<RawValue>]) -> usize {
    params.iter().map(|param| param.get().len() + size_of::<Box<RawValue>>()).sum()
}

impl Engine {
    /// Does what was to follow.
    pub(super) fn tell(&mut self, after: Vec<After>) -> Outcome {
        let mut leased: Vec<Grant> = Vec::new();
        for step in after {
            match step {
                After::Grant(stream, grant) => {
                    leased.push(grant);
                    self.send_grant(stream, grant).map_err(Arc::new)?;
                }
                After::Ack { worker, stream, seq, stale } => {
                    self.send(worker, Some(stream), WorkDown::Ack { seq, stale });
                }
                After::Revoke { worker, job, leases } => {
                    self.send(worker, None, WorkDown::Revoke { job, leases });
                }
                After::Limits(job) => self.send_limits(job),
                After::Event(worker, body) => self.emit.emit(self.clock.now(), worker, body),
                After::Reply(reply) => reply(),
            }
        }
        leased.sort_by_key(|grant| (grant.worker, grant.job));
        for grants in leased.chunk_by(|a, b| (a.worker, a.job) == (b.worker, b.job)) {
            if let Some(body) = report::leased(grants) {
                self.emit.emit(self.clock.now(), Some(grants[0].worker), body);
            }
        }
        Ok(())
    }

    /// Sends to the worker's stream, or to this one alone. One that does not read is given up.
    fn send(&mut self, worker: WorkerId, stream: Option<StreamId>, message: WorkDown) {
        let Some(current) = self.streams.get(&worker) else { return };
        if stream.is_some_and(|stream| stream != current.id) {
            return;
        }
        if current.down.try_send(message).is_err() {
            self.hang_up(worker);
        }
    }

    /// Tells every worker that knows of the job what its limits are now.
    fn send_limits(&mut self, job: JobId) {
        let Some(state) = self.jobs.get(&job) else { return };
        let line = introduction(job, &state.record.spec);
        let told = self.streams.iter().filter(|(_, stream)| stream.told.contains(&job));
        for worker in told.map(|(worker, _)| *worker).collect::<Vec<_>>() {
            self.send(worker, None, line.clone());
        }
    }

    fn send_grant(&mut self, stream: Option<StreamId>, grant: Grant) -> Result<(), StorageError> {
        let Some(state) = self.jobs.get(&grant.job) else { return Ok(()) };
        let has_params = state.record.spec.has_params;
        let job = introduction(grant.job, &state.record.spec);
        let Some(current) = self.streams.get_mut(&grant.worker) else { return Ok(()) };
        if stream != Some(current.id) {
            return Ok(());
        }
        if current.told.insert(grant.job) {
            self.send(grant.worker, stream, job);
        }
        let Grant { worker, job, attempt, mut first, count, alone, .. } = grant;
        if !has_params {
            let params = None;
            self.send(
                worker,
                stream,
                WorkDown::Grant { job, attempt, first, count, alone, params },
            );
            return Ok(());
        }
        for params in lines(self.params_of(&grant)?) {
            let count = u32::try_from(params.len()).unwrap_or(u32::MAX);
            let params = Some(params);
            self.send(
                worker,
                stream,
                WorkDown::Grant { job, attempt, first, count, alone, params },
            );
            first += u64::from(count);
        }
        Ok(())
    }

    fn params_of(&mut self, grant: &Grant) -> Result<Params, StorageError> {
        let mut params = Vec::with_capacity(grant.count as usize);
        let end = grant.first + u64::from(grant.count);
        let mut item = grant.first;
        while item < end {
            let (chunk, from) = (item / CHUNK, item % CHUNK);
            let rows = self.chunk(grant.job, chunk)?;
            let until = (end - chunk * CHUNK).min(CHUNK);
            let range = usize::try_from(from).unwrap_or(0)..usize::try_from(until).unwrap_or(0);
            // A chunk is as long as it was when the job was accepted: its length was checked.
            params.extend(rows.get(range).unwrap_or_default().iter().cloned());
            item = (chunk + 1) * CHUNK;
        }
        Ok(params)
    }

    fn chunk(&mut self, job: JobId, chunk: u64) -> Result<Arc<Params>, StorageError> {
        if let Some(params) = self.params.chunks.get(&(job, chunk)) {
            return Ok(Arc::clone(params));
        }
        let params = Arc::new(store::params(&self.store, job, chunk)?);
        self.params.insert((job, chunk), Arc::clone(&params));
        Ok(params)
    }
}

/// What a worker is told of a job.
fn introduction(job: JobId, spec: &JobSpec) -> WorkDown {
    WorkDown::Job {
        job,
        plugin: spec.plugin.clone(),
        method: spec.method.clone(),
        seed: spec.seed,
        limits: spec.limits.clone(),
    }
}

/// The parameters of a grant in lines of a moderate size.
fn lines(params: Params) -> Vec<Params> {
    let (mut lines, mut size) = (vec![Vec::new()], 0);
    for param in params {
        size += param.get().len() + 1;
        if size > LINE_TARGET && lines.last().is_some_and(|line: &Params| !line.is_empty()) {
            size = param.get().len() + 1;
            lines.push(Vec::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push(param);
        }
    }
    lines
}
