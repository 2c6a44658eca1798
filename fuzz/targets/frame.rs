//! The stream of a sidecar: frames, and the messages in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rollout_plugin_host::fuzz;

fuzz_target!(|bytes: &[u8]| {
    let _ = fuzz::sent(bytes, 4096);
});
