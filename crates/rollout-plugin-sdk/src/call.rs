//! A call as a plugin sees it, and what it answers.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use rollout_plugin_abi as abi;
use serde::{Deserialize, Serialize};

use crate::Host;
use crate::buf::give;

/// One call: a method, its parameters, the bytes beside them.
#[derive(Debug)]
pub struct Call<'a> {
    id: u64,
    host: &'a Host,
    method: &'a str,
    params: &'a [u8],
    payload: &'a [u8],
    cancelled: Option<&'a AtomicU32>,
    /// A call belongs to the thread it came on.
    not_send: PhantomData<*const ()>,
}

impl<'a> Call<'a> {
    /// # Safety
    /// `raw` keeps the ABI's promises for `'a`.
    pub(crate) unsafe fn from_raw(raw: &'a abi::Call, host: &'a Host) -> Result<Self, Error> {
        // SAFETY: the caller's promise.
        let (method, params, payload, cancelled) = unsafe {
            (raw.method.bytes(), raw.params.bytes(), raw.payload.bytes(), raw.cancelled.as_ref())
        };
        let method = str::from_utf8(method)?;
        let id = raw.call_id;
        Ok(Self { id, host, method, params, payload, cancelled, not_send: PhantomData })
    }

    /// The method's name.
    #[must_use]
    pub const fn method(&self) -> &'a str {
        self.method
    }

    /// The parameters, read as a `T`.
    ///
    /// # Errors
    /// `bad_params`, which says what does not fit.
    pub fn params<T: Deserialize<'a>>(&self) -> Result<T, Error> {
        serde_json::from_slice(self.params).map_err(|error| Error::bad_params(error.to_string()))
    }

    /// The bytes beside the parameters.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether nobody waits for the answer any more: the call was given up or its deadline passed.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.cancelled.is_some_and(|flag| flag.load(Ordering::Acquire) != 0)
    }

    /// Sends a part of what the call brings back, before its reply. Waits while the caller is too far
    /// behind. In a batch, and for a caller that wants the reply alone, it is dropped.
    ///
    /// # Errors
    /// When nobody waits for the call any more: to be passed on with `?`. When the part is larger
    /// than `limits.max_frame`, or has no JSON form.
    pub fn part(&self, part: Reply) -> Result<(), Error> {
        self.host.part(self.id, part)
    }

    /// Says that the call is not stuck, however long it takes.
    pub fn progress(&self) {
        self.host.progress(self.id);
    }

    /// The error for a method that the plugin does not have.
    #[must_use]
    pub fn unknown_method(&self) -> Error {
        Error { code: abi::UNKNOWN_METHOD, message: format!("no method `{}`", self.method) }
    }
}

/// Where the answers to a batch's calls go.
#[derive(Debug)]
pub struct Answers<'a> {
    sink: &'a abi::Sink,
    /// It belongs to the thread that the batch came on.
    not_send: PhantomData<*const ()>,
}

impl<'a> Answers<'a> {
    /// # Safety
    /// `sink` keeps the ABI's promises for `'a`.
    pub(crate) const unsafe fn from_raw(sink: &'a abi::Sink) -> Self {
        Self { sink, not_send: PhantomData }
    }

    /// Answers the batch's call number `n`. False when nobody waits for the batch any more, or there
    /// is no such call, or it has had its answer.
    pub fn answer(&self, n: usize, answer: Result<Reply, Error>) -> bool {
        let Some(item) = self.sink.item else { return false };
        let (code, result, payload) = match answer {
            Ok(Reply { result, payload }) => (abi::OK, give(result), give(payload)),
            Err(error) => (error.code, give(error.to_json()), abi::Buf::EMPTY),
        };
        // SAFETY: the sink is the host's and the batch lasts; the buffers are given away.
        unsafe { item(self.sink.ctx, n as u64, code, result, payload) == abi::OK }
    }
}

/// What a call brings back, or a part of it.
#[derive(Debug)]
pub struct Reply {
    pub(crate) result: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Reply {
    /// A reply with this result.
    ///
    /// # Errors
    /// When it has no JSON form.
    pub fn new(result: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        Ok(Self { result: serde_json::to_vec(result)?, payload: Vec::new() })
    }

    /// The same with bytes beside it.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }
}

/// Why a call, or the plugin, failed. Any standard error becomes one with `?`.
#[derive(Debug)]
pub struct Error {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl Error {
    /// The plugin's own error.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: abi::USER_ERROR, message: message.into() }
    }

    /// The parameters don't fit.
    #[must_use]
    pub fn bad_params(message: impl Into<String>) -> Self {
        Self { code: abi::BAD_PARAMS, message: message.into() }
    }

    /// The call was given up because [`Call::cancelled`] said so.
    #[must_use]
    pub fn cancelled() -> Self {
        Self { code: abi::CANCELLED, message: "given up on request".into() }
    }

    /// The error as it crosses the line.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::json!({ "message": self.message }).to_string().into_bytes()
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::new(message)
    }
}
