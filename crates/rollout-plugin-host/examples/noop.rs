//! A library whose method does nothing, for what a call or an item costs beside the work in it.

use rollout_plugin_sdk::{Call, Error, Host, Method, NoConfig, Plugin, Reply, export_plugin};

struct Noop;

impl Plugin for Noop {
    type Config = NoConfig;
    const METHODS: &[Method] = &[Method::new("run", "null, whatever the params are")];

    fn create(_: NoConfig, _: Host) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Reply, Error> {
        match call.method() {
            "run" => Ok(Reply::new(&())?),
            _ => Err(call.unknown_method()),
        }
    }
}

export_plugin!(Noop);
