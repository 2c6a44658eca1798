//! One instance of a plugin, called as a worker calls it.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};
use std::{mem, ptr};

use rollout_plugin_abi::{self as abi, Buf, Slice};
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Code, Failure, Log, Logs};
use crate::export::{self, Exclusive};
use crate::{Level, Plugin};

/// The deepest nesting of JSON that a worker lets through.
const MAX_DEPTH: usize = 100;

/// A live instance, destroyed when dropped. Its pointers keep it on its thread.
pub(super) struct Instance<P: Plugin> {
    raw: *mut c_void,
    host: *mut Offered,
    plugin: PhantomData<P>,
}

/// What the plugin is offered, with what its function needs.
struct Offered {
    host: abi::Host,
    logs: Logs,
    parts: Mutex<Vec<Answer>>,
}

impl<P: Plugin> Instance<P> {
    pub(super) fn create(config: &[u8], logs: &Logs) -> Result<Self, Failure> {
        let host = abi::Host {
            struct_size: size_of::<abi::Host>() as u64,
            ctx: ptr::null_mut(),
            log: Some(log),
            progress: Some(progress),
            part: Some(part),
        };
        let (logs, parts) = (logs.clone(), Mutex::default());
        let offered = Box::into_raw(Box::new(Offered { host, logs, parts }));
        let (mut raw, mut error) = (ptr::null_mut(), Given(Buf::EMPTY));
        // SAFETY: as the ABI has it; `offered` is freed below, or after `destroy`.
        let code = unsafe {
            (*offered).host.ctx = offered.cast();
            let host = &raw const (*offered).host;
            export::create::<Exclusive<P>>(host, Slice::of(config), &raw mut raw, &raw mut error.0)
        };
        if code == abi::OK {
            return Ok(Self { raw, host: offered, plugin: PhantomData });
        }
        // SAFETY: from `Box::into_raw`; no instance uses it.
        drop(unsafe { Box::from_raw(offered) });
        Err(failure(code, &error))
    }

    pub(super) fn call(&self, call: &abi::Call) -> Result<Answer, Failure> {
        let mut reply = abi::Reply::EMPTY;
        // SAFETY: as the ABI has it: live, on its thread, and `call` lives until this returns.
        let code = unsafe { export::call::<Exclusive<P>>(self.raw, call, &raw mut reply) };
        answer(code, &Given(reply.result), &Given(reply.payload))
    }

    /// The parts that came since the last look.
    pub(super) fn parts(&self) -> Vec<Answer> {
        // SAFETY: lives until this is dropped.
        let offered = unsafe { &*self.host };
        mem::take(&mut *offered.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a batch of calls; the answer to each. A call that has none gets the batch's own failure.
    pub(super) fn batch(&self, calls: &[abi::Call]) -> Vec<Result<Answer, Failure>> {
        let pointers: Vec<*const abi::Call> = calls.iter().map(ptr::from_ref).collect();
        let answers = Mutex::new(vec![None; calls.len()]);
        let sink = abi::Sink {
            struct_size: size_of::<abi::Sink>() as u64,
            ctx: (&raw const answers).cast_mut().cast(),
            item: Some(item),
        };
        let count = calls.len() as u64;
        // SAFETY: as for `call`.
        let code = unsafe {
            export::call_batch::<Exclusive<P>>(self.raw, pointers.as_ptr(), count, &raw const sink)
        };
        let missing = || match code {
            abi::OK => Failure { code: Code::Malformed, message: "it has no answer".into() },
            code => Failure { code: kind(code), message: "the batch was given up".into() },
        };
        let answers: Answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(missing()))).collect()
    }

    pub(super) fn shutdown(&self) -> Result<(), Failure> {
        let mut error = Given(Buf::EMPTY);
        // SAFETY: as the ABI has it: live, and on its thread.
        match unsafe { export::shutdown::<Exclusive<P>>(self.raw, 0, &raw mut error.0) } {
            abi::OK => Ok(()),
            code => Err(failure(code, &error)),
        }
    }
}

impl<P: Plugin> Drop for Instance<P> {
    fn drop(&mut self) {
        // SAFETY: live, on its thread, and not used again; the host is from `Box::into_raw`, and
        // nobody uses it once `destroy` has returned.
        unsafe {
            export::destroy::<Exclusive<P>>(self.raw);
            drop(Box::from_raw(self.host));
        }
    }
}

/// Bytes that the plugin gave away; released when dropped.
struct Given(Buf);

impl Given {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the plugin gave these readable bytes, which are its own no more.
        unsafe { Slice { ptr: self.0.ptr, len: self.0.len }.bytes() }
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

/// Reads what crosses the line, either way, with the worker's bound.
pub(super) fn read(json: &[u8]) -> Result<Value, String> {
    let value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if depth(&value) > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH} levels"));
    }
    Ok(value)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The answers to a batch's calls, so far.
type Answers = Vec<Option<Result<Answer, Failure>>>;

fn answer(code: i32, result: &Given, payload: &Given) -> Result<Answer, Failure> {
    if code != abi::OK {
        return Err(failure(code, result));
    }
    match read(result.bytes()) {
        Ok(result) => Ok(Answer { result, payload: payload.bytes().to_vec() }),
        Err(message) => Err(Failure { code: Code::Malformed, message }),
    }
}

const fn kind(code: i32) -> Code {
    match code {
        abi::BAD_PARAMS => Code::BadParams,
        abi::UNKNOWN_METHOD => Code::UnknownMethod,
        abi::CANCELLED => Code::Cancelled,
        abi::PANIC => Code::Panicked,
        _ => Code::User,
    }
}

fn failure(code: i32, error: &Given) -> Failure {
    #[derive(Deserialize)]
    struct Told {
        message: String,
    }
    let code = kind(code);
    let told = serde_json::from_slice(error.bytes());
    let message = told.map_or_else(|error| error.to_string(), |Told { message }| message);
    Failure { code, message }
}

/// # Safety
/// As the ABI has it: `context` is the [`Offered`] handed to the instance, the slices can be read.
unsafe extern "C" fn log(context: *mut c_void, level: u32, target: Slice, message: Slice) {
    // SAFETY: the caller's promise.
    let (offered, target, message) =
        unsafe { (&*context.cast::<Offered>(), target.bytes(), message.bytes()) };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let level = match level {
        abi::level::TRACE => Level::Trace,
        abi::level::DEBUG => Level::Debug,
        abi::level::INFO => Level::Info,
        abi::level::WARN => Level::Warn,
        _ => Level::Error,
    };
    offered.logs.add(Log { level, target: text(target), message: text(message) });
}

/// A test needs no such sign.
///
/// # Safety
/// None is needed.
unsafe extern "C" fn progress(_: *mut c_void, _: u64) {}

/// # Safety
/// As the ABI has it: `context` is the [`Offered`] handed to the instance, the buffers are given away.
unsafe extern "C" fn part(context: *mut c_void, _: u64, result: Buf, payload: Buf) -> i32 {
    // SAFETY: the caller's promise.
    let offered = unsafe { &*context.cast::<Offered>() };
    match answer(abi::OK, &Given(result), &Given(payload)) {
        Ok(part) => {
            offered.parts.lock().unwrap_or_else(PoisonError::into_inner).push(part);
            abi::OK
        }
        Err(_) => abi::BAD_PARAMS,
    }
}

/// # Safety
/// As the ABI has it: `context` is the batch's answers, the buffers are given away.
unsafe extern "C" fn item(
    context: *mut c_void,
    index: u64,
    code: i32,
    result: Buf,
    payload: Buf,
) -> i32 {
    // SAFETY: the caller's promise.
    let answers = unsafe { &*context.cast::<Mutex<Answers>>() };
    let answered = answer(code, &Given(result), &Given(payload));
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    match answers.get_mut(index as usize) {
        Some(place @ None) => {
            *place = Some(answered);
            abi::OK
        }
        _ => abi::BAD_PARAMS,
    }
}
