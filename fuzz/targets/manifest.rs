//! A plugin's manifest.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rollout_plugin_host::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::manifest(bytes));
