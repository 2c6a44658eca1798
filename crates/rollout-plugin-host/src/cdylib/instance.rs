//! One instance of a library's plugin, and every call across the C ABI.

use std::ffi::c_void;
use std::sync::Arc;
use std::{ptr, slice};

use bytes::Bytes;
use rollout_core::Mono;
use rollout_plugin_abi::{self as abi, Buf, Slice};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::callbacks::{self, Batch, Context, text};
use super::load::Functions;
use super::{Shared, Ticket};
use crate::call::{Failed, Input, Item, Reply, clip};
use crate::error::{Cause, Executed};
use crate::json;
use crate::manifest::Limits;

/// A live instance; dropping it destroys it. It is created, used and dropped on one thread, unless its
/// library says that it is thread-safe.
pub(super) struct Instance {
    functions: Functions,
    raw: *mut c_void,
    /// Read by the plugin until `destroy` has returned; owned by this value, see `Drop`.
    host: *mut abi::Host,
    context: *mut Context,
}

// SAFETY: the executor gives an instance to a second thread only if the library says that it may.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Instance {
    /// Makes an instance.
    pub(super) fn create(
        functions: Functions,
        config: &str,
        shared: &Arc<Shared>,
    ) -> Result<Self, Cause> {
        let context = Box::into_raw(Box::new(Context::new(shared)));
        let host = Box::into_raw(Box::new(abi::Host {
            struct_size: size_of::<abi::Host>() as u64,
            ctx: context.cast(),
            log: Some(callbacks::log),
            progress: Some(callbacks::progress),
            part: Some(callbacks::part),
        }));
        let mut owned = Self { functions, raw: ptr::null_mut(), host, context };
        let mut error = Given::empty();
        let config = Slice::of(config.as_bytes());
        // SAFETY: the arguments are what the ABI says; `host` lives until `owned` is dropped.
        let code =
            unsafe { (functions.create)(host, config, &raw mut owned.raw, &raw mut error.0) };
        if code == abi::OK {
            return Ok(owned);
        }
        owned.free_host();
        std::mem::forget(owned);
        let told = error.told();
        Err(match code {
            abi::PANIC => Cause::Panicked { message: format!("{} (in create)", told.message) },
            _ => Cause::Refused { message: told.message },
        })
    }

    fn context(&self) -> &Context {
        // SAFETY: from `Box::into_raw`, and freed only with this value.
        unsafe { &*self.context }
    }

    /// Makes a call, or those of a batch, and waits for it, however long it takes. The ids from
    /// `first` on are theirs.
    pub(super) fn answer(
        &self,
        first: u64,
        input: &Input,
        ticket: &Arc<Ticket>,
    ) -> Result<Reply, Failed> {
        let items = input.items();
        let _entered = self.context().enter(first, items.len() as u64, ticket);
        match input {
            Input::One(item) => self.call(first, item, ticket),
            Input::Batch(_) => match self.functions.call_batch {
                Some(function) => self.batch(function, first, items, ticket),
                None => self.one_by_one(first, items, ticket),
            },
        }
    }

    fn call(&self, id: u64, item: &Item, ticket: &Ticket) -> Result<Reply, Failed> {
        let limits = &self.context().shared().limits;
        let call = to_abi(id, item, ticket);
        let mut reply = abi::Reply::EMPTY;
        // SAFETY: `raw` is live and on a thread of its own or thread-safe; `call` and what it points
        // to live until the function returns, because `item` and `ticket` do.
        let code = unsafe { (self.functions.call)(self.raw, &raw const call, &raw mut reply) };
        let (result, payload) = (Given(reply.result), Given(reply.payload));
        if code == abi::OK {
            return answer(&result, &payload, limits)
                .map_err(|cause| Failed::new(cause, Executed::Yes));
        }
        Err(failure(code, result.told(), ticket, limits))
    }

    /// For a library that takes no batches.
    fn one_by_one(&self, first: u64, items: &[Item], ticket: &Ticket) -> Result<Reply, Failed> {
        for (n, item) in items.iter().enumerate() {
            if ticket.is_cancelled() {
                let message = "given up before all items were called".into();
                return Err(Failed::new(Cause::Cancelled { message }, Executed::No));
            }
            let done = self.call(first + n as u64, item, ticket);
            if let Err(Failed { cause: Cause::Panicked { .. }, .. }) = done {
                return done;
            }
            ticket.inbox.item(n, done);
        }
        Ok(nothing())
    }

    fn batch(
        &self,
        function: abi::CallBatchFn,
        first: u64,
        items: &[Item],
        ticket: &Ticket,
    ) -> Result<Reply, Failed> {
        let shared = self.context().shared();
        let numbered = items.iter().zip(first..);
        let calls: Vec<abi::Call> = numbered.map(|(item, id)| to_abi(id, item, ticket)).collect();
        let pointers: Vec<*const abi::Call> = calls.iter().map(ptr::from_ref).collect();
        let batch = Batch { ticket, shared };
        let sink = abi::Sink {
            struct_size: size_of::<abi::Sink>() as u64,
            ctx: (&raw const batch).cast_mut().cast(),
            item: Some(callbacks::item),
        };
        let count = pointers.len() as u64;
        // SAFETY: as for `call`; the sink and the pointers live until the function returns.
        let code = unsafe { function(self.raw, pointers.as_ptr(), count, &raw const sink) };
        if code == abi::OK {
            return Ok(nothing());
        }
        let told = Told { message: "the batch was given up".into(), traceback: None };
        Err(failure(code, told, ticket, &shared.limits))
    }

    /// Prepares the instance's end, and destroys it.
    pub(super) fn shutdown(self, deadline: Mono) -> Result<(), Cause> {
        let mut error = Given::empty();
        // SAFETY: `raw` is live and on its thread.
        let code = unsafe { (self.functions.shutdown)(self.raw, deadline.0, &raw mut error.0) };
        let told = error.told();
        match code {
            abi::OK => Ok(()),
            abi::PANIC => {
                Err(Cause::Panicked { message: format!("{} (in shutdown)", told.message) })
            }
            _ => Err(Cause::User { message: told.message, traceback: told.traceback }),
        }
    }

    fn free_host(&self) {
        // SAFETY: both are from `Box::into_raw` in `create`, freed once: here, right before this
        // value goes, and when no instance uses them any more.
        unsafe {
            drop(Box::from_raw(self.host));
            drop(Box::from_raw(self.context));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: `raw` is live, on its thread, and not used again.
        unsafe { (self.functions.destroy)(self.raw) };
        self.free_host();
    }
}

fn to_abi(id: u64, item: &Item, ticket: &Ticket) -> abi::Call {
    abi::Call {
        struct_size: size_of::<abi::Call>() as u64,
        call_id: id,
        method: Slice::of(ticket.method.as_bytes()),
        params: Slice::of(item.params.get().as_bytes()),
        payload: Slice::of(&item.payload),
        deadline_mono_ns: ticket.deadline.0,
        cancelled: &raw const ticket.cancelled,
    }
}

/// The answer to a batch, which has none of its own.
fn nothing() -> Reply {
    Reply { result: RawValue::NULL.to_owned(), payload: Bytes::new() }
}

/// What a plugin gave with [`abi::OK`], if it is what it should be.
pub(super) fn answer(result: &Given, payload: &Given, limits: &Limits) -> Result<Reply, Cause> {
    let (result, payload) = (result.bytes(), payload.bytes());
    limits.frame().check("the answer", result.len().saturating_add(payload.len()))?;
    let result = json::raw(result)
        .map_err(|wrong| Cause::Malformed { message: format!("its result is {wrong}") })?;
    Ok(Reply { result, payload: Bytes::copy_from_slice(payload) })
}

/// What another code says.
pub(super) fn failure(code: i32, told: Told, ticket: &Ticket, limits: &Limits) -> Failed {
    let Told { message, traceback } = told;
    let (cause, executed) = match code {
        abi::USER_ERROR => (Cause::User { message, traceback }, Executed::Yes),
        abi::BAD_PARAMS => (Cause::BadParams { message }, Executed::Yes),
        abi::UNKNOWN_METHOD => (Cause::UnknownMethod { known: Vec::new() }, Executed::No),
        abi::CANCELLED => (Cause::Cancelled { message }, Executed::Maybe),
        abi::DEADLINE => (Cause::Deadline { limit: ticket.within }, Executed::Maybe),
        abi::BUSY => (Cause::Overloaded { limit: limits.max_in_flight }, Executed::No),
        abi::PANIC => (Cause::Panicked { message }, Executed::Maybe),
        other => {
            let message = format!("it returned the code {other}, which means nothing");
            (Cause::Malformed { message }, Executed::Maybe)
        }
    };
    Failed::new(cause, executed)
}

/// Bytes that the plugin gave away; released when dropped.
pub(super) struct Given(pub(super) Buf);

/// An error as a plugin words it.
#[derive(Deserialize)]
pub(super) struct Told {
    message: String,
    traceback: Option<String>,
}

impl Given {
    const fn empty() -> Self {
        Self(Buf::EMPTY)
    }

    fn bytes(&self) -> &[u8] {
        if self.0.ptr.is_null() {
            return &[];
        }
        // SAFETY: the plugin gave `len` readable bytes, which are its own no more.
        unsafe { slice::from_raw_parts(self.0.ptr, self.0.len as usize) }
    }

    pub(super) fn told(&self) -> Told {
        let told: Result<Told, _> = serde_json::from_slice(self.bytes());
        let Told { message, traceback } = told.unwrap_or_else(|_| Told {
            message: match text(self.bytes()) {
                text if text.is_empty() => "it did not say why".into(),
                text => text,
            },
            traceback: None,
        });
        Told { message: clip(message), traceback: traceback.map(clip) }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: the plugin's own function on the plugin's own buffer, once.
            unsafe { release(&raw mut self.0) };
        }
    }
}
