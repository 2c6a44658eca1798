//! A session's lines, in both directions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rollout_transport::fuzz;

fuzz_target!(|bytes: &[u8]| {
    fuzz::up(bytes);
    fuzz::down(bytes);
});
