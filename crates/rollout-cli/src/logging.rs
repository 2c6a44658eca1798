//! Tracing records as events of kind `log`, on the one stream.

use std::fmt;

use rollout_core::event::{Emit, Level};
use rollout_core::{Clock, SystemClock};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, filter::filter_fn};

use crate::stream::Voice;

/// Sends every record of rollout's own to the stream, from `info` upwards. Those of its libraries
/// are about what peers do, one for each time, and a peer could fill a disk with them; what matters
/// of that is an event.
pub(crate) fn install(voice: Voice) {
    let ours = filter_fn(|record| {
        *record.level() <= tracing::Level::INFO && record.target().starts_with("rollout")
    });
    let subscriber = Registry::default().with(ToStream(voice).with_filter(ours));
    // Only a second installation fails, and there is one a process.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct ToStream(Voice);

impl<S: Subscriber> Layer<S> for ToStream {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        fields.attrs.insert("target".into(), event.metadata().target().into());
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::Trace,
        };
        self.0.log(SystemClock.now(), None, level, fields.message, fields.attrs);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    attrs: Map<String, Value>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.attrs.insert(name.to_owned(), value)),
        }
    }
}
