//! A library that is called from several threads at a time, for the tests.

#![expect(clippy::panic, reason = "panicking is its purpose")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rollout_plugin_sdk::{
    Call, Error, Host, Level, Method, NoConfig, Reply, ThreadSafePlugin, export_plugin,
};
use serde_json::value::RawValue;

struct Threads {
    host: Host,
    calls: AtomicUsize,
    inside: AtomicUsize,
}

impl ThreadSafePlugin for Threads {
    type Config = NoConfig;
    const METHODS: &[Method] = &[
        Method::new("echo", "the params, unchanged"),
        Method::new("count", "how many calls the instance has had"),
        Method::new("meet", "returns when so many calls of it have been under way at a time"),
        Method::new("wait", "waits until it is cancelled"),
        Method::new("sleep", "sleeps for so many milliseconds, whatever happens"),
        Method::new("panic", "panics"),
    ];

    fn create(_: NoConfig, host: Host) -> Result<Self, Error> {
        Ok(Self { host, calls: AtomicUsize::new(0), inside: AtomicUsize::new(0) })
    }

    fn call(&self, call: &Call<'_>) -> Result<Reply, Error> {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        match call.method() {
            "echo" => Reply::new(call.params::<&RawValue>()?),
            "count" => Reply::new(&calls),
            "meet" => {
                let all: usize = call.params()?;
                self.inside.fetch_add(1, Ordering::SeqCst);
                while self.inside.load(Ordering::SeqCst) < all {
                    if call.cancelled() {
                        return Err(Error::cancelled());
                    }
                    sleep(Duration::from_millis(1));
                }
                Reply::new(&calls)
            }
            "wait" => {
                while !call.cancelled() {
                    sleep(Duration::from_millis(1));
                }
                Err(Error::cancelled())
            }
            "sleep" => {
                sleep(Duration::from_millis(call.params()?));
                Reply::new(&calls)
            }
            "panic" => panic!("on purpose"),
            _ => Err(call.unknown_method()),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.host.log(Level::Info, "threads", "dropped");
    }
}

export_plugin!(thread_safe Threads);
