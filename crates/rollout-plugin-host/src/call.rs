//! What both boundaries share: a call, its answer or failure, and what a plugin says of itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Cause, Executed, PluginError};
use crate::inbox::Inbox;
use crate::manifest::Manifest;

/// What a call brought back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The result, byte for byte as the plugin wrote it.
    pub result: Box<RawValue>,
    /// The bytes beside it; empty when there are none.
    pub payload: Bytes,
}

/// A method, as a plugin lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Method {
    /// Its name.
    pub name: String,
}

/// One item of a batch.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its parameters.
    pub params: Box<RawValue>,
    /// The bytes beside them.
    pub payload: Bytes,
}

impl Item {
    /// Its size as limits count it.
    pub(crate) fn size(&self) -> usize {
        self.params.get().len().saturating_add(self.payload.len())
    }
}

/// A call on its way to a plugin.
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) input: Input,
    pub(crate) timeout: Duration,
    /// Where what comes before the answer goes.
    pub(crate) inbox: Arc<Inbox>,
}

/// What a call is about.
pub(crate) enum Input {
    One(Item),
    Batch(Vec<Item>),
}

impl Input {
    pub(crate) fn items(&self) -> &[Item] {
        match self {
            Self::One(item) => std::slice::from_ref(item),
            Self::Batch(items) => items,
        }
    }

    /// Its size as limits count it.
    pub(crate) fn size(&self) -> usize {
        self.items().iter().fold(0, |size, item| size.saturating_add(item.size()))
    }
}

/// A call that failed, before it is known to the caller as a [`PluginError`].
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) cause: Cause,
    pub(crate) executed: Executed,
}

impl Failed {
    pub(crate) fn new(cause: Cause, executed: Executed) -> Self {
        Self { cause, executed }
    }

    /// The error for a call of `method`.
    pub(crate) fn at(self, plugin: &str, method: &str) -> PluginError {
        let Self { cause, executed } = self;
        PluginError { executed, method: Some(method.to_owned()), ..cause.at(plugin) }
    }
}

/// The longest text of a plugin that is passed on: a log record's, an error's, a traceback's.
const MAX_TEXT: usize = 16 * 1024;

/// A plugin's text, without what is beyond the limit.
pub(crate) fn clip(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

/// What a plugin says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Confirmed {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) methods: Vec<Method>,
}

impl Confirmed {
    /// Refuses a plugin that is not the one that its manifest names.
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<(), Cause> {
        let Self { name, version, .. } = self;
        if (name, version) == (&manifest.name, &manifest.version) {
            return Ok(());
        }
        let message = format!(
            "the manifest names `{} {}`, but it says that it is `{name} {version}`",
            manifest.name, manifest.version
        );
        Err(Cause::Refused { message })
    }
}

/// How large a call or an answer may be, in bytes, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxFrame {
    pub(crate) bytes: usize,
    pub(crate) key: &'static str,
}

impl MaxFrame {
    /// The smallest that anybody may set: errors and log records have to fit.
    pub(crate) const LEAST: usize = 4096;

    /// The manifest's.
    pub(crate) const fn of_manifest(bytes: usize) -> Self {
        Self { bytes, key: "limits.max_frame" }
    }

    /// The smaller of this and the plugin's own, if it has one.
    pub(crate) fn or_the_plugins(self, own: Option<usize>) -> Self {
        match own {
            Some(bytes) if bytes < self.bytes => Self { bytes, key: "max_frame of `ready`" },
            _ => self,
        }
    }

    /// Refuses what is larger.
    pub(crate) fn check(self, what: &'static str, got: usize) -> Result<(), Cause> {
        if got <= self.bytes { Ok(()) } else { Err(self.exceeded(what, got as u64)) }
    }

    pub(crate) const fn exceeded(self, what: &'static str, got: u64) -> Cause {
        Cause::TooLarge { what, limit: self.bytes, got, key: self.key }
    }
}
