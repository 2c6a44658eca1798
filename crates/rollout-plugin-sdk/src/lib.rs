//! Write a rollout plugin in Rust: implement [`Plugin`], name it in [`export_plugin!`], build a
//! `cdylib`. Panics in a plugin's code become errors; `panic = "abort"` is refused at compile time.
//!
//! It is the safe side of `rollout-plugin-abi` and nothing else: it loads nothing and starts nothing.
//! [`testing`] calls a plugin in its own tests, without a worker.
//!
//! ```
//! use rollout_plugin_sdk::{Call, Error, Host, Method, NoConfig, Plugin, Reply, export_plugin};
//!
//! struct Shout;
//!
//! impl Plugin for Shout {
//!     type Config = NoConfig;
//!     const METHODS: &[Method] = &[Method::new("shout", "the text in capitals")];
//!
//!     fn create(_: NoConfig, _: Host) -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//!
//!     fn call(&mut self, call: &Call<'_>) -> Result<Reply, Error> {
//!         match call.method() {
//!             "shout" => Reply::new(&call.params::<String>()?.to_uppercase()),
//!             _ => Err(call.unknown_method()),
//!         }
//!     }
//! }
//!
//! export_plugin!(Shout);
//! ```

mod buf;
mod call;
#[doc(hidden)]
pub mod export;
mod host;
mod panic;
pub mod testing;

pub use call::{Answers, Call, Error, Reply};
pub use host::{Host, Level};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A plugin: made once from its configuration, then called one call at a time, always on the same
/// thread.
pub trait Plugin: Sized + 'static {
    /// The manifest's `[config]`; [`NoConfig`] for none.
    type Config: DeserializeOwned;

    /// The methods that [`call`](Self::call) answers.
    const METHODS: &[Method];

    /// Makes the plugin. Also called after a panic in [`call`](Self::call), to replace the instance.
    ///
    /// # Errors
    /// Whatever keeps it from working; the worker then does not start.
    fn create(config: Self::Config, host: Host) -> Result<Self, Error>;

    /// Answers a call. A call that may take long looks at [`Call::cancelled`] now and then.
    ///
    /// # Errors
    /// The plugin's own; [`Call::unknown_method`] for a method that is not in
    /// [`METHODS`](Self::METHODS).
    fn call(&mut self, call: &Call<'_>) -> Result<Reply, Error>;

    /// Answers several calls of one method at once; each has its own answer. For a plugin that can
    /// do more with many than one after the other.
    fn call_batch(&mut self, calls: &[Call<'_>], answers: &Answers<'_>) {
        for (n, call) in calls.iter().enumerate() {
            if !answers.answer(n, self.call(call)) {
                return;
            }
        }
    }

    /// Prepares the end; the instance is dropped afterwards.
    ///
    /// # Errors
    /// What could not be put in order.
    fn shutdown(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A plugin that is called from several threads at a time: as many as `limits.max_in_flight` allows,
/// started as they are needed. Otherwise as a [`Plugin`]. After a panic a new instance takes the
/// calls that come then, while the old one ends with those that it has.
pub trait ThreadSafePlugin: Send + Sync + Sized + 'static {
    /// The manifest's `[config]`; [`NoConfig`] for none.
    type Config: DeserializeOwned;

    /// The methods that [`call`](Self::call) answers.
    const METHODS: &[Method];

    /// Makes the plugin.
    ///
    /// # Errors
    /// As [`Plugin::create`].
    fn create(config: Self::Config, host: Host) -> Result<Self, Error>;

    /// Answers a call.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    fn call(&self, call: &Call<'_>) -> Result<Reply, Error>;

    /// Answers several calls of one method at once, as [`Plugin::call_batch`] does.
    fn call_batch(&self, calls: &[Call<'_>], answers: &Answers<'_>) {
        for (n, call) in calls.iter().enumerate() {
            if !answers.answer(n, self.call(call)) {
                return;
            }
        }
    }

    /// Prepares the end, when no call is under way any more.
    ///
    /// # Errors
    /// As [`Plugin::shutdown`].
    fn shutdown(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A method as the plugin lists it.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
}

impl Method {
    /// A method and what it does, in a sentence.
    #[must_use]
    pub const fn new(name: &'static str, doc: &'static str) -> Self {
        Self { name, doc }
    }
}

/// The configuration of a plugin that has none: any key is refused.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// The book's chapter: its code is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/src/plugin-rust.md")]
struct Book;
