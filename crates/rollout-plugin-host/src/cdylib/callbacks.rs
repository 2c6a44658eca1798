//! What an instance calls back: its log, the progress and the parts of its calls, a batch's answers.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rollout_core::Level;
use rollout_plugin_abi::{self as abi, Buf, Slice};

use super::instance::{Given, answer, failure};
use super::{Shared, Ticket};
use crate::call::{Failed, clip};
use crate::error::Executed;
use crate::event::HostEvent;

/// What the host's functions are called with.
pub(super) struct Context {
    shared: Arc<Shared>,
    /// As many as there are threads.
    under_way: Mutex<Vec<UnderWay>>,
}

/// Calls of one job: those with the ids from the first on.
struct UnderWay {
    first: u64,
    count: u64,
    ticket: Arc<Ticket>,
}

/// For as long as calls are under way.
pub(super) struct Entered<'a> {
    context: &'a Context,
    first: u64,
}

impl Context {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), under_way: Mutex::new(Vec::new()) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn under_way(&self) -> MutexGuard<'_, Vec<UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes calls known under the ids `first..first + count`.
    pub(super) fn enter(&self, first: u64, count: u64, ticket: &Arc<Ticket>) -> Entered<'_> {
        self.under_way().push(UnderWay { first, count, ticket: Arc::clone(ticket) });
        Entered { context: self, first }
    }

    fn ticket(&self, id: u64) -> Option<Arc<Ticket>> {
        let under_way = self.under_way();
        let its = |job: &&UnderWay| (job.first..job.first + job.count).contains(&id);
        under_way.iter().find(its).map(|job| Arc::clone(&job.ticket))
    }

    /// Sends a part; the code for the plugin.
    fn part(&self, id: u64, result: &Given, payload: &Given) -> i32 {
        let Some(ticket) = self.ticket(id).filter(|ticket| !ticket.is_cancelled()) else {
            return abi::CANCELLED;
        };
        let Ok(part) = answer(result, payload, &self.shared.limits) else {
            return abi::BAD_PARAMS;
        };
        let sent = ticket.inbox.part_when_room(part, ticket.deadline);
        if sent { abi::OK } else { abi::CANCELLED }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut under_way = self.context.under_way();
        if let Some(at) = under_way.iter().position(|job| job.first == self.first) {
            under_way.swap_remove(at);
        }
    }
}

/// # Safety
/// As the ABI has it: `context` is the one handed to the instance, the slices can be read.
pub(super) unsafe extern "C" fn log(
    context: *mut c_void,
    level: u32,
    target: Slice,
    message: Slice,
) {
    // SAFETY: the caller's promise.
    let (context, target, message) =
        unsafe { (&*context.cast::<Context>(), target.bytes(), message.bytes()) };
    let level = match level {
        abi::level::TRACE => Level::Trace,
        abi::level::DEBUG => Level::Debug,
        abi::level::INFO => Level::Info,
        abi::level::WARN => Level::Warn,
        _ => Level::Error,
    };
    (context.shared.on_event)(HostEvent::Log {
        plugin: Arc::clone(&context.shared.name),
        level,
        target: text(target),
        message: text(message),
    });
}

/// # Safety
/// As the ABI has it: `context` is the one handed to the instance.
pub(super) unsafe extern "C" fn progress(context: *mut c_void, call_id: u64) {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context.cast::<Context>() };
    if let Some(ticket) = context.ticket(call_id) {
        ticket.inbox.progress();
    }
}

/// # Safety
/// As the ABI has it: `context` is the one handed to the instance, the buffers are given away.
pub(super) unsafe extern "C" fn part(
    context: *mut c_void,
    call_id: u64,
    result: Buf,
    payload: Buf,
) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context.cast::<Context>() };
    context.part(call_id, &Given(result), &Given(payload))
}

/// What a batch's sink is called with.
pub(super) struct Batch<'a> {
    pub(super) ticket: &'a Ticket,
    pub(super) shared: &'a Shared,
}

/// # Safety
/// As the ABI has it: `batch` is the sink's context and the batch lasts, the buffers are given away.
pub(super) unsafe extern "C" fn item(
    batch: *mut c_void,
    index: u64,
    code: i32,
    result: Buf,
    payload: Buf,
) -> i32 {
    // SAFETY: the caller's promise.
    let batch = unsafe { &*batch.cast::<Batch<'_>>() };
    let (result, payload) = (Given(result), Given(payload));
    let limits = &batch.shared.limits;
    let answered = if code == abi::OK {
        answer(&result, &payload, limits).map_err(|cause| Failed::new(cause, Executed::Yes))
    } else {
        Err(failure(code, result.told(), batch.ticket, limits))
    };
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    match batch.ticket.inbox.item(index, answered) {
        false => abi::BAD_PARAMS,
        true if batch.ticket.is_cancelled() => abi::CANCELLED,
        true => abi::OK,
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    clip(String::from_utf8_lossy(bytes).into_owned())
}
