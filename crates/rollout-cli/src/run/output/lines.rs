//! One item's line: how it is written, and which item it is.

use std::io::Write;

use rollout_transport::work::{Committed, Final};
use serde::Serialize;

/// A dead letter, as a line.
#[derive(Serialize)]
struct Dead<'a> {
    item: u64,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceback: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_tail: Option<&'a str>,
    failures: u32,
    losses: u32,
}

pub(super) const fn is_dead(committed: &Committed) -> bool {
    matches!(committed.end, Final::Dead { .. })
}

/// Appends the line. Writing to memory does not fail, and there are no maps in it.
pub(super) fn write(committed: &Committed, to: &mut Vec<u8>) {
    let item = committed.item;
    let _ = match &committed.end {
        Final::Result(raw) => writeln!(to, "{{\"item\":{item},\"result\":{}}}", raw.get()),
        Final::Blob(blob) => writeln!(
            to,
            "{{\"item\":{item},\"result\":{{\"$blob\":{{\"sha256\":\"{}\",\"bytes\":{}}}}}}}",
            blob.sha256, blob.bytes
        ),
        Final::Dead { failure, failures, losses } => {
            let dead = Dead {
                item,
                code: &failure.code,
                message: &failure.message,
                traceback: failure.traceback.as_deref(),
                stderr_tail: failure.stderr_tail.as_deref(),
                failures: *failures,
                losses: *losses,
            };
            let _ = serde_json::to_writer(&mut *to, &dead);
            writeln!(to)
        }
    };
}

/// Which item a whole line is of.
pub(super) fn item(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"}\n")?.strip_prefix(b"{\"item\":")?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = line.split_at_checked(digits)?;
    if rest.first() != Some(&b',') {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
