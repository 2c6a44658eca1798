//! What a sidecar that announces a frame of 4 GiB costs this process.

use std::fs;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::cost;
use crate::error::BenchError;
use crate::report::{Asked, Figure, Group, Unit};
use crate::stage::{Stage, in_workspace};

/// The memory that is taken on top, at most, while a sidecar answers with a header that lies; beside one
/// that answers a call which nobody made.
pub(super) async fn measure(stage: &Stage, rounds: usize) -> Result<Group, BenchError> {
    let (mut values, mut beside) = (Vec::new(), Vec::new());
    // What comes first takes memory that stays: it is not counted.
    for round in 0..=rounds {
        let lied = bitten(stage, "claims_4_gib", "too_large").await?;
        let wrong = bitten(stage, "wrong_id", "malformed").await?;
        if round > 0 {
            values.extend(lied);
            beside.extend(wrong);
        }
    }
    let figure = Figure {
        name: "resident memory, more by",
        unit: Unit::Size,
        values,
        beside,
        asked: Asked::None,
    };
    Ok(Group {
        title: "This process while a sidecar announces 4 GiB".into(),
        beside: "while a sidecar answers a call that nobody made",
        figures: vec![figure],
    })
}

/// Calls an animal of the zoo: by how many bytes this process's memory grew at most, if the system
/// says so.
async fn bitten(
    stage: &Stage,
    animal: &str,
    want: &'static str,
) -> Result<Option<f64>, BenchError> {
    let plugin = stage.start(&in_workspace(&format!("python/zoo/{animal}.toml"))).await?;
    let before = reset().and_then(|()| resident("VmRSS:"));
    let answer = plugin.call("bite", RawValue::NULL, Bytes::new(), None).await;
    let most = resident("VmHWM:");
    let got = answer.map_or_else(|error| error.code().to_owned(), |_| "an answer".into());
    plugin.shutdown().await?;
    if got != want {
        return Err(BenchError::Ending { want, got });
    }
    Ok(before.zip(most).map(|(before, most)| (most - before).max(0.0)))
}

/// Has Linux forget the most that this process has taken.
fn reset() -> Option<()> {
    fs::write("/proc/self/clear_refs", "5").ok()
}

/// A line of what Linux says of this process's memory, in bytes.
fn resident(line: &str) -> Option<f64> {
    cost::status(i32::try_from(std::process::id()).ok()?, line)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn memory_that_was_taken_and_given_back_is_seen() {
        let before = reset().and_then(|()| resident("VmRSS:")).unwrap();
        drop(black_box(vec![1u8; 64 << 20]));
        let most = resident("VmHWM:").unwrap();
        assert!(most - before > f64::from(60 << 20), "{before} to {most}");
    }
}
