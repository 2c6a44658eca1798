//! What fuzzers call: the decoders at the boundaries, with nothing behind them. Not for users.

use std::path::Path;

use crate::json;
use crate::manifest::Manifest;

pub use crate::sidecar::fuzz::{End, Sent, sent};

/// Reads bytes as a manifest.
///
/// # Panics
/// When one is accepted that could not be handed to a plugin.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(manifest) = Manifest::parse(text, Path::new("/here")) else { return };
    let config = serde_json::to_vec(&manifest.config).unwrap_or_default();
    assert!(json::check_depth(&config).is_ok(), "a configuration that no plugin reads");
    if let Some(probe) = manifest.probe {
        assert!(json::check_depth(probe.params.get().as_bytes()).is_ok(), "such a probe");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    const WHOLE: &str = r#"
        [plugin]
        name = "a"
        version = "1"
        [entry.sidecar]
        command = ["sh", "-c", "x"]
        cwd = "d"
        env = { A = "1" }
        env_allow = ["B"]
        [probe]
        method = "m"
        params = { a = [1, { b = 2026-01-02 }] }
        [limits]
        start_timeout = "10s"
        memory = 1048576
        [restart]
        max_crashes = 5
        [config]
        a.b = { c = [1.5, true] }
    "#;

    #[test]
    fn a_manifest_that_is_nested_too_deep_is_refused() {
        for (open, close) in [("[", "]"), ("{ a = ", "}")] {
            for levels in [50, 99, 100, 101, 200, 100_000] {
                let value = format!("{}1{}", open.repeat(levels), close.repeat(levels));
                super::manifest(format!("{WHOLE}\nx = {value}").as_bytes());
            }
        }
        for levels in [99, 101, 10_000] {
            super::manifest(format!("{WHOLE}\n{}x = 1", "a.".repeat(levels)).as_bytes());
            super::manifest(format!("{WHOLE}\n[config.{}x]", "a.".repeat(levels)).as_bytes());
        }
    }

    proptest! {
        #[test]
        fn a_damaged_manifest_never_panics(
            at in any::<prop::sample::Index>(),
            cut in 0usize..10,
            put in prop_oneof![".{0,4}", "[\\[\\]{}=\"'.#\n0-9a-z]{0,8}"],
        ) {
            let mut text: Vec<char> = WHOLE.chars().collect();
            let from = at.index(text.len());
            let to = text.len().min(from + cut);
            text.splice(from..to, put.chars());
            super::manifest(String::from_iter(text).as_bytes());
        }
    }
}
