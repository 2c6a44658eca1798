//! `rollout plugin call`: one method, from the shell.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use rollout_plugin_host::{Manifest, Plugin};

use super::args::CallArgs;
use super::stage;
use crate::config::print;
use crate::error::CliError;

pub(super) fn run(args: &CallArgs) -> Result<(), CliError> {
    let manifest = Manifest::load(&args.manifest)?;
    let payload = args.payload.as_deref().map_or_else(|| Ok(Bytes::new()), read)?;
    stage::run(async |stage| {
        let plugin = Plugin::start(manifest, &stage.host).await?;
        let called = plugin.call(&args.method, &args.params, payload, args.timeout).await;
        let ended = plugin.shutdown().await;
        // The call's own error says more than what may have followed from it.
        let reply = called.map_err(CliError::Call)?;
        print(&format!("{}\n", reply.result.get()))?;
        keep(args.out.as_deref(), &reply.payload)?;
        Ok(ended?)
    })
}

fn read(path: &Path) -> Result<Bytes, CliError> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    };
    read.map(Bytes::from).map_err(|source| CliError::Read { path: path.to_owned(), source })
}

fn keep(out: Option<&Path>, payload: &Bytes) -> Result<(), CliError> {
    let Some(path) = out else {
        if !payload.is_empty() {
            eprintln!("rollout: {} bytes beside the result; --out FILE keeps them", payload.len());
        }
        return Ok(());
    };
    fs::write(path, payload).map_err(|source| CliError::Write { path: path.to_owned(), source })
}
