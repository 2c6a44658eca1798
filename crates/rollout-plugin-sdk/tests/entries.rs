//! A plugin called as a worker calls it: through the C ABI alone.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::c_void;
use std::mem::offset_of;
use std::panic::panic_any;
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock};

use rollout_plugin_abi::{self as abi, Buf, Slice};
use rollout_plugin_sdk::export::Exclusive;
use rollout_plugin_sdk::{Call, Error, Host, Level, Method, Plugin, Reply, export};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Config {
    refuse: bool,
}

struct Test(Host);

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

impl Plugin for Test {
    type Config = Config;
    const METHODS: &[Method] = &[Method::new("echo", "says it again"), Method::new("bomb", "")];

    fn create(config: Config, host: Host) -> Result<Self, Error> {
        if config.refuse {
            return Err(Error::new("refused"));
        }
        Ok(Self(host))
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Reply, Error> {
        match call.method() {
            "echo" => Ok(Reply::new(&call.params::<Value>()?)?.with_payload(call.payload())),
            "cancelled" => Reply::new(&call.cancelled()),
            "log" => {
                self.0.log(Level::Warn, "target", "message");
                Reply::new(&())
            }
            "keep" => {
                KEPT.set(self.0.clone()).map_err(|_| Error::new("kept already"))?;
                Reply::new(&())
            }
            "part" => {
                call.progress();
                call.part(Reply::new(&1)?)?;
                Reply::new(&())
            }
            "panic" => panic!("on {}", "purpose"),
            "bomb" => panic_any(Bomb),
            _ => Err(call.unknown_method()),
        }
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        Err("x".parse::<u8>().unwrap_err().into())
    }
}

static KEPT: OnceLock<Host> = OnceLock::new();

/// A worker's side of one instance.
struct Worker {
    plugin: &'static abi::RolloutPlugin,
    instance: *mut c_void,
    logged: Arc<Mutex<Vec<String>>>,
}

unsafe extern "C" fn log(ctx: *mut c_void, level: u32, target: Slice, message: Slice) {
    // SAFETY: `ctx` is the worker's list, the slices are the plugin's.
    let (list, target, message) =
        unsafe { (&*ctx.cast::<Mutex<Vec<String>>>(), target.bytes(), message.bytes()) };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    list.lock().unwrap().push(format!("{level} {} {}", text(target), text(message)));
}

/// The bytes, given back.
fn take(mut buf: Buf) -> Vec<u8> {
    // SAFETY: the plugin's own bytes, released once.
    unsafe {
        let bytes = Slice { ptr: buf.ptr, len: buf.len }.bytes().to_vec();
        if let Some(release) = buf.release {
            release(&raw mut buf);
            assert!(buf.ptr.is_null(), "a released buffer is empty");
        }
        bytes
    }
}

impl Worker {
    fn create(config: &str) -> Result<Self, (i32, Value)> {
        static DESCRIPTOR: OnceLock<abi::RolloutPlugin> = OnceLock::new();
        // SAFETY: a descriptor lives for ever.
        let plugin = unsafe { &*export::descriptor::<Exclusive<Test>>(&DESCRIPTOR, "test", "1") };
        let logged = Arc::new(Mutex::new(Vec::new()));
        // Leaked, so that a use after the plugin's end is seen and not undefined.
        let host = Box::leak(Box::new(abi::Host {
            // A worker of version 1.0.
            struct_size: offset_of!(abi::Host, progress) as u64,
            ctx: Arc::into_raw(Arc::clone(&logged)).cast_mut().cast(),
            log: Some(log),
            progress: None,
            part: None,
        }));
        let (mut instance, mut error) = (ptr::null_mut(), Buf::EMPTY);
        let config = Slice::of(config.as_bytes());
        // SAFETY: as the ABI has it.
        let code =
            unsafe { plugin.create.unwrap()(host, config, &raw mut instance, &raw mut error) };
        let error = take(error);
        if code == abi::OK {
            assert_eq!(error, b"");
            return Ok(Self { plugin, instance, logged });
        }
        Err((code, serde_json::from_slice(&error).unwrap()))
    }

    fn call(&self, method: &[u8], params: &str, cancelled: u32) -> (i32, Value, Vec<u8>) {
        let cancelled = AtomicU32::new(cancelled);
        let call = abi::Call {
            struct_size: size_of::<abi::Call>() as u64,
            call_id: 1,
            method: Slice::of(method),
            params: Slice::of(params.as_bytes()),
            payload: Slice::of(b"\0payload"),
            deadline_mono_ns: 0,
            cancelled: &raw const cancelled,
        };
        let mut reply = abi::Reply::EMPTY;
        // SAFETY: as the ABI has it.
        let code =
            unsafe { self.plugin.call.unwrap()(self.instance, &raw const call, &raw mut reply) };
        let result = serde_json::from_slice(&take(reply.result)).unwrap();
        (code, result, take(reply.payload))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: live until here.
        unsafe { self.plugin.destroy.unwrap()(self.instance) };
    }
}

const GOOD: &str = "{\"refuse\":false}";

#[test]
fn a_descriptor_says_what_the_plugin_is() {
    let worker = Worker::create(GOOD).ok().unwrap();
    let plugin = worker.plugin;
    assert_eq!((plugin.magic, plugin.abi_major), (abi::MAGIC, abi::ABI_MAJOR));
    assert_eq!(plugin.struct_size as usize, size_of::<abi::RolloutPlugin>());
    // SAFETY: static.
    let methods: Value = unsafe { serde_json::from_slice(plugin.methods_json.bytes()).unwrap() };
    assert_eq!(methods[0], json!({ "name": "echo", "doc": "says it again" }));
}

#[test]
fn results_payloads_and_errors_cross_the_line() {
    let worker = Worker::create(GOOD).ok().unwrap();
    assert_eq!(worker.call(b"echo", "[1]", 0), (abi::OK, json!([1]), b"\0payload".to_vec()));
    assert_eq!(worker.call(b"cancelled", "null", 0).1, false);
    assert_eq!(worker.call(b"cancelled", "null", 1).1, true);
    assert_eq!(worker.call(b"nope", "null", 0).0, abi::UNKNOWN_METHOD);
    assert_eq!(worker.call(b"echo", "[1", 0).0, abi::BAD_PARAMS);
    assert_eq!(worker.call(b"\xff", "null", 0).0, abi::USER_ERROR);
}

#[test]
fn panics_are_codes_with_text_and_place_even_when_their_payload_panics_in_drop() {
    let worker = Worker::create(GOOD).ok().unwrap();
    let (code, error, payload) = worker.call(b"panic", "null", 0);
    assert_eq!((code, payload.len()), (abi::PANIC, 0));
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("on purpose (") && message.contains("entries.rs:"), "{message}");
    let (code, error, _) = worker.call(b"bomb", "null", 0);
    assert_eq!(code, abi::PANIC);
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("a panic without a text"), "{message}");
}

#[test]
fn a_create_that_fails_says_why() {
    let refused = Worker::create("{\"refuse\":true}").err().unwrap();
    assert_eq!(refused, (abi::USER_ERROR, json!({ "message": "refused" })));
    let (code, error) = Worker::create("{}").err().unwrap();
    assert_eq!(code, abi::BAD_PARAMS);
    assert!(error["message"].as_str().unwrap().contains("missing field `refuse`"), "{error}");
}

#[test]
fn shutdown_reports_its_error() {
    let worker = Worker::create(GOOD).ok().unwrap();
    let mut error = Buf::EMPTY;
    // SAFETY: as the ABI has it.
    let code = unsafe { worker.plugin.shutdown.unwrap()(worker.instance, 0, &raw mut error) };
    assert_eq!(code, abi::USER_ERROR);
    assert!(String::from_utf8(take(error)).unwrap().contains("invalid digit"));
}

#[test]
fn a_host_that_is_kept_is_silent_once_the_plugin_is_destroyed() {
    let worker = Worker::create(GOOD).ok().unwrap();
    let logged = Arc::clone(&worker.logged);
    assert_eq!(worker.call(b"log", "null", 0).0, abi::OK);
    assert_eq!(worker.call(b"keep", "null", 0).0, abi::OK);
    let kept = KEPT.get().unwrap();
    kept.log(Level::Error, "kept", "while it lives");
    drop(worker);
    kept.log(Level::Error, "kept", "after its end");
    assert_eq!(*logged.lock().unwrap(), ["3 target message", "4 kept while it lives"]);
}

#[test]
fn a_worker_that_is_too_old_for_parts_is_sent_none() {
    let worker = Worker::create(r#"{"refuse":false}"#).unwrap();
    let (code, error, _) = worker.call(b"part", "null", 0);
    assert_eq!(code, abi::USER_ERROR);
    assert!(error["message"].as_str().unwrap().contains("too old"), "{error}");
}
