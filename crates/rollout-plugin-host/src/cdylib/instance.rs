//! One instance of a library's plugin, and every call across the C ABI.

use std::ffi::c_void;
use std::sync::Arc;
use std::{ptr, slice};

use bytes::Bytes;
use rollout_core::{Level, Mono};
use rollout_plugin_abi::{self as abi, Buf, Slice};
use serde::Deserialize;

use super::Job;
use super::load::Functions;
use crate::call::{Failed, Input, Reply, check_size, clip};
use crate::error::{Cause, Executed};
use crate::event::{HostEvent, OnEvent};
use crate::json;
use crate::manifest::Limits;

/// A live instance. It is created, used and dropped on one thread; dropping it destroys it.
pub(super) struct Instance {
    functions: Functions,
    raw: *mut c_void,
    /// Read by the plugin until `destroy` has returned; owned by this value, see `Drop`.
    host: *mut abi::Host,
    context: *mut Context,
}

/// What the plugin's log records are passed on with.
struct Context {
    plugin: Arc<str>,
    on_event: OnEvent,
}

impl Instance {
    /// Makes an instance.
    pub(super) fn create(
        functions: Functions,
        config: &str,
        plugin: &Arc<str>,
        on_event: &OnEvent,
    ) -> Result<Self, Cause> {
        let context = Context { plugin: Arc::clone(plugin), on_event: Arc::clone(on_event) };
        let context = Box::into_raw(Box::new(context));
        let host = Box::into_raw(Box::new(abi::Host {
            struct_size: size_of::<abi::Host>() as u64,
            ctx: context.cast(),
            log: Some(log),
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

    /// Makes one call and waits for it, however long it takes.
    pub(super) fn call(&mut self, id: u64, job: &Job, limits: &Limits) -> Result<Reply, Failed> {
        let Input::One(item) = &job.call.input else {
            let cause = Cause::BadParams { message: "libraries take no batches yet".into() };
            return Err(Failed::new(cause, Executed::No));
        };
        let call = abi::Call {
            struct_size: size_of::<abi::Call>() as u64,
            call_id: id,
            method: Slice::of(job.call.method.as_bytes()),
            params: Slice::of(item.params.get().as_bytes()),
            payload: Slice::of(&item.payload),
            deadline_mono_ns: job.deadline.0,
            cancelled: &raw const job.ticket.cancelled,
        };
        let mut reply = abi::Reply::EMPTY;
        // SAFETY: `raw` is live and on its thread; `call` and what it points to live until the
        // function returns, because `job` does.
        let code = unsafe { (self.functions.call)(self.raw, &raw const call, &raw mut reply) };
        let (result, payload) = (Given(reply.result), Given(reply.payload));
        if code == abi::OK {
            return answer(&result, &payload, limits)
                .map_err(|cause| Failed::new(cause, Executed::Yes));
        }
        Err(failure(code, result.told(), job, limits))
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

fn answer(result: &Given, payload: &Given, limits: &Limits) -> Result<Reply, Cause> {
    let (result, payload) = (result.bytes(), payload.bytes());
    check_size("the answer", result.len().saturating_add(payload.len()), limits)?;
    let result = json::raw(result)
        .map_err(|wrong| Cause::Malformed { message: format!("its result is {wrong}") })?;
    Ok(Reply { result, payload: Bytes::copy_from_slice(payload) })
}

fn failure(code: i32, told: Told, job: &Job, limits: &Limits) -> Failed {
    let Told { message, traceback } = told;
    let (cause, executed) = match code {
        abi::USER_ERROR => (Cause::User { message, traceback }, Executed::Yes),
        abi::BAD_PARAMS => (Cause::BadParams { message }, Executed::Yes),
        abi::UNKNOWN_METHOD => (Cause::UnknownMethod { known: Vec::new() }, Executed::No),
        abi::CANCELLED => (Cause::Cancelled { message }, Executed::Maybe),
        abi::DEADLINE => (Cause::Deadline { limit: job.call.timeout }, Executed::Maybe),
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
struct Given(Buf);

/// An error as a plugin words it.
#[derive(Deserialize)]
struct Told {
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

    fn told(&self) -> Told {
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

/// # Safety
/// As the ABI has it: `context` is the one handed to the instance, the slices can be read.
unsafe extern "C" fn log(context: *mut c_void, level: u32, target: Slice, message: Slice) {
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
    (context.on_event)(HostEvent::Log {
        plugin: Arc::clone(&context.plugin),
        level,
        target: text(target),
        message: text(message),
    });
}

fn text(bytes: &[u8]) -> String {
    clip(String::from_utf8_lossy(bytes).into_owned())
}
