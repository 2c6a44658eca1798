//! A library that misbehaves in every way that can be contained, for the tests.

#![expect(clippy::panic, reason = "panicking is its purpose")]

use std::panic::panic_any;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rollout_plugin_sdk::{Call, Error, Host, Level, Method, Plugin, Reply, export_plugin};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Where to misbehave: `error`, `panic`, `hang`, or a file, for an error as long as it is there.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    create: String,
    shutdown: String,
    drop: String,
}

struct Hostile {
    config: Config,
    host: Host,
    calls: u64,
}

/// Panics when it is dropped, and so does what that panic throws.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            panic_any(Bomb(self.0 - 1));
        }
    }
}

fn misbehave(how: &str) -> Result<(), Error> {
    match how {
        "error" => Err(Error::new("on purpose")),
        "panic" => panic!("on purpose"),
        "hang" => {
            sleep(Duration::from_millis(1500));
            Ok(())
        }
        file if Path::new(file).is_file() => Err(Error::new("the file is there")),
        _ => Ok(()),
    }
}

impl Plugin for Hostile {
    type Config = Config;
    const METHODS: &[Method] = &[
        Method::new("echo", "the params and the payload, unchanged"),
        Method::new("count", "how many calls the instance has had"),
        Method::new("fail", "an error with a source"),
        Method::new("panic", "panics"),
        Method::new("bomb", "panics with a payload whose drop panics"),
        Method::new("sleep", "sleeps for so many milliseconds, whatever happens"),
        Method::new("wait", "waits until it is cancelled, and logs that"),
        Method::new("large", "a payload of so many bytes"),
        Method::new("parts", "so many parts, each with as many bytes as its number"),
        Method::new("endless", "parts until nobody wants them, and logs that"),
        Method::new("heavy", "a part of so many bytes"),
        Method::new("progress", "twice the sign that it is not stuck"),
        Method::new("panic_if", "panics if the params say so"),
        Method::new("forgotten", "is in the list and nowhere else"),
    ];

    fn create(config: Config, host: Host) -> Result<Self, Error> {
        misbehave(&config.create)?;
        Ok(Self { config, host, calls: 0 })
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Reply, Error> {
        self.calls += 1;
        match call.method() {
            "echo" => Ok(Reply::new(call.params::<&RawValue>()?)?.with_payload(call.payload())),
            "count" => Reply::new(&self.calls),
            "fail" => Ok(Reply::new(&"x".parse::<u8>()?)?),
            "panic" => panic!("on purpose"),
            "bomb" => panic_any(Bomb(3)),
            "sleep" => {
                sleep(Duration::from_millis(call.params()?));
                Reply::new(&true)
            }
            "wait" => {
                while !call.cancelled() {
                    sleep(Duration::from_millis(1));
                }
                self.host.log(Level::Warn, "hostile::wait", "cancelled");
                Err(Error::cancelled())
            }
            "parts" => {
                let count: usize = call.params()?;
                for n in 0..count {
                    call.part(Reply::new(&n)?.with_payload(vec![7; n]))?;
                }
                Reply::new(&count)
            }
            "endless" => {
                while call.part(Reply::new("on")?).is_ok() {}
                self.host.log(Level::Warn, "hostile::endless", "cancelled");
                Err(Error::cancelled())
            }
            "heavy" => {
                call.part(Reply::new(&())?.with_payload(vec![7; call.params()?]))?;
                Reply::new(&())
            }
            "progress" => {
                call.progress();
                call.progress();
                call.part(Reply::new(&1)?)?;
                call.progress();
                Reply::new(&())
            }
            "panic_if" => {
                if call.params()? {
                    panic!("on purpose");
                }
                Reply::new(&false)
            }
            "large" => Ok(Reply::new(&())?.with_payload(vec![7; call.params()?])),
            _ => Err(call.unknown_method()),
        }
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.host.log(Level::Info, "hostile", "shutdown");
        misbehave(&self.config.shutdown)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = misbehave(&self.config.drop);
    }
}

export_plugin!(Hostile);
