//! The smallest useful cdylib plugin: it answers with what it was asked.

use rollout_plugin_sdk::{Call, Error, Host, Method, NoConfig, Plugin, Reply, export_plugin};
use serde_json::value::RawValue;

struct Sample;

impl Plugin for Sample {
    type Config = NoConfig;
    const METHODS: &[Method] = &[Method::new("echo", "the params and the payload, unchanged")];

    fn create(_: NoConfig, _: Host) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Reply, Error> {
        match call.method() {
            "echo" => Ok(Reply::new(call.params::<&RawValue>()?)?.with_payload(call.payload())),
            _ => Err(call.unknown_method()),
        }
    }
}

export_plugin!(Sample);

#[cfg(test)]
mod tests;
