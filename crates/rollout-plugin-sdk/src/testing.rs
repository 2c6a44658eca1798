//! A plugin called in a test, without a worker: through the entries that a worker calls, on the
//! test's own thread.
//!
//! ```
//! use rollout_plugin_sdk::testing::{Code, Failure, TestHost};
//! # use rollout_plugin_sdk::{Call, Error, Host, Method, NoConfig, Plugin, Reply};
//! # struct Shout;
//! # impl Plugin for Shout {
//! #     type Config = NoConfig;
//! #     const METHODS: &[Method] = &[Method::new("shout", "the text in capitals")];
//! #     fn create(_: NoConfig, _: Host) -> Result<Self, Error> {
//! #         Ok(Self)
//! #     }
//! #     fn call(&mut self, call: &Call<'_>) -> Result<Reply, Error> {
//! #         match call.method() {
//! #             "shout" => Reply::new(&call.params::<String>()?.to_uppercase()),
//! #             _ => Err(call.unknown_method()),
//! #         }
//! #     }
//! # }
//!
//! # fn main() -> Result<(), Failure> {
//! let mut host = TestHost::<Shout>::new(&serde_json::json!({}))?;
//! assert_eq!(host.call("shout", "hello")?.result, "HELLO");
//! assert_eq!(host.call("shout", &7).unwrap_err().code, Code::BadParams);
//! host.shutdown()
//! # }
//! ```

mod instance;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rollout_plugin_abi::{self as abi, Slice};
use serde::Serialize;
use serde_json::Value;

use crate::{Level, Plugin};
use instance::{Instance, read};

/// Stands in for the worker of one plugin.
///
/// As with a worker, a panic is a failure with the code [`Code::Panicked`], and the next call finds
/// a new instance; a method that is not in [`Plugin::METHODS`] is not called. There are no limits and
/// no deadlines: a call takes as long as it takes.
pub struct TestHost<P: Plugin> {
    config: Vec<u8>,
    calls: u64,
    cancelled: Arc<AtomicU32>,
    logs: Logs,
    /// `None` between a panic and the next call.
    instance: Option<Instance<P>>,
}

/// What a call brought back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The result.
    pub result: Value,
    /// The bytes beside it.
    pub payload: Vec<u8>,
}

/// A record that the plugin logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How much it matters.
    pub level: Level,
    /// The part of the plugin that spoke.
    pub target: String,
    /// What it said.
    pub message: String,
}

/// The records of one host's plugin.
#[derive(Debug, Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<Log>>>);

/// Which kind of failure; named as the worker's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The plugin's own error.
    User,
    /// The parameters, or the configuration, don't fit.
    BadParams,
    /// The plugin has no such method.
    UnknownMethod,
    /// The call was given up because it was cancelled.
    Cancelled,
    /// The plugin's code panicked.
    Panicked,
    /// The answer is nothing that a worker takes, such as JSON nested too deeply.
    Malformed,
}

/// Why a call, or the plugin, failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which kind.
    pub code: Code,
    /// What the plugin said; for a panic its text and place.
    pub message: String,
}

/// Cancels calls, from any thread.
#[derive(Debug, Clone)]
pub struct Canceller(Arc<AtomicU32>);

impl<P: Plugin> TestHost<P> {
    /// Makes the plugin with this `[config]`.
    ///
    /// # Errors
    /// When the plugin can't be made from it.
    pub fn new(config: &(impl Serialize + ?Sized)) -> Result<Self, Failure> {
        let mut host = Self {
            config: to_json(config)?,
            calls: 0,
            cancelled: Arc::default(),
            logs: Logs::default(),
            instance: None,
        };
        host.instance = Some(Instance::create(&host.config, &host.logs)?);
        Ok(host)
    }

    /// Calls a method.
    ///
    /// # Errors
    /// The plugin's; also that of making it anew after a panic.
    pub fn call(
        &mut self,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> Result<Answer, Failure> {
        self.call_with(method, params, b"")
    }

    /// Calls a method with bytes beside the parameters.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_with(
        &mut self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        payload: &[u8],
    ) -> Result<Answer, Failure> {
        self.stream(method, params, payload).1
    }

    /// Calls a method; the parts that it sends, and its answer.
    ///
    /// # Errors
    /// The answer's are those of [`call`](Self::call).
    pub fn stream(
        &mut self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        payload: &[u8],
    ) -> (Vec<Answer>, Result<Answer, Failure>) {
        let prepared = to_json(params).and_then(|params| Ok((params, self.instance_for(method)?)));
        let (params, instance) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return (Vec::new(), Err(failure)),
        };
        let answer = instance.call(&self.next_call(method, &params, payload));
        let parts = instance.parts();
        self.keep(instance, std::slice::from_ref(&answer));
        (parts, answer)
    }

    /// Calls a method once for each of the params, as a batch: the answers in their order.
    ///
    /// # Errors
    /// When the params can't be sent, or the plugin can't be made anew after a panic.
    pub fn batch(
        &mut self,
        method: &str,
        params: &[impl Serialize],
    ) -> Result<Vec<Result<Answer, Failure>>, Failure> {
        let params = params.iter().map(to_json).collect::<Result<Vec<_>, _>>()?;
        let instance = self.instance_for(method)?;
        let calls: Vec<_> =
            params.iter().map(|params| self.next_call(method, params, b"")).collect();
        let answers = instance.batch(&calls);
        self.keep(instance, &answers);
        Ok(answers)
    }

    /// The instance, out of its place, made anew if need be.
    fn instance_for(&mut self, method: &str) -> Result<Instance<P>, Failure> {
        check_listed::<P>(method)?;
        match self.instance.take() {
            Some(instance) => Ok(instance),
            None => Instance::create(&self.config, &self.logs),
        }
    }

    fn next_call(&mut self, method: &str, params: &[u8], payload: &[u8]) -> abi::Call {
        self.calls += 1;
        abi::Call {
            struct_size: size_of::<abi::Call>() as u64,
            call_id: self.calls,
            method: Slice::of(method.as_bytes()),
            params: Slice::of(params),
            payload: Slice::of(payload),
            deadline_mono_ns: 0,
            cancelled: Arc::as_ptr(&self.cancelled),
        }
    }

    /// Puts the instance back, unless one of the answers is a panic.
    fn keep(&mut self, instance: Instance<P>, answers: &[Result<Answer, Failure>]) {
        self.cancelled.store(0, Ordering::Release);
        let panicked = |answer: &_| matches!(answer, Err(Failure { code: Code::Panicked, .. }));
        if !answers.iter().any(panicked) {
            self.instance = Some(instance);
        }
    }

    /// What cancels the call that is running, or the next one if none is.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.cancelled))
    }

    /// What the plugin logs, also while it is shut down and dropped.
    #[must_use]
    pub fn logs(&self) -> Logs {
        self.logs.clone()
    }

    /// Shuts the plugin down and drops it. A host that is dropped instead drops the plugin without
    /// its shutdown.
    ///
    /// # Errors
    /// The plugin's.
    pub fn shutdown(mut self) -> Result<(), Failure> {
        self.instance.take().map_or(Ok(()), |instance| instance.shutdown())
    }
}

impl Logs {
    /// What has been logged since the last look, in order.
    #[must_use]
    pub fn take(&self) -> Vec<Log> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, log: Log) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(log);
    }
}

impl<P: Plugin> fmt::Debug for TestHost<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHost").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Canceller {
    /// Cancels.
    pub fn cancel(&self) {
        self.0.store(1, Ordering::Release);
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::BadParams => "bad_params",
            Self::UnknownMethod => "unknown_method",
            Self::Cancelled => "cancelled",
            Self::Panicked => "panicked",
            Self::Malformed => "malformed",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

/// A value of the test as a worker would pass it on.
fn to_json(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, Failure> {
    let bytes = serde_json::to_vec(value).map_err(|error| error.to_string());
    let checked = bytes.and_then(|bytes| read(&bytes).map(|_| bytes));
    checked.map_err(|message| Failure { code: Code::BadParams, message })
}

/// A worker calls no other methods than those in the list.
fn check_listed<P: Plugin>(method: &str) -> Result<(), Failure> {
    if P::METHODS.iter().any(|listed| listed.name == method) {
        return Ok(());
    }
    let listed: Vec<_> = P::METHODS.iter().map(|listed| listed.name).collect();
    let message = format!("`{method}` is not in METHODS, which has: {}", listed.join(", "));
    Err(Failure { code: Code::UnknownMethod, message })
}
