//! What a running process has taken of the machine, as the system counts it.

use std::fs;

/// Processor time and memory of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Seconds of processor time of all its threads since it began, the kernel's part included.
    pub(crate) cpu: f64,
    /// Bytes that are resident.
    pub(crate) resident: f64,
}

impl Cost {
    /// Of the process with this pid so far, where the system says so.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { cpu: cpu(pid)?, resident: status(pid, "VmRSS:")? })
    }

    /// Of this process so far.
    pub(crate) fn own() -> Option<Self> {
        i32::try_from(std::process::id()).ok().and_then(Self::of)
    }
}

/// The threads' times on a processor, in nanoseconds; a thread that has ended is not counted, so
/// they are taken from processes whose threads stay.
fn cpu(pid: i32) -> Option<f64> {
    let mut total = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // One that has just ended.
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        total += text.split(' ').next()?.parse::<f64>().ok()?;
    }
    Some(total / 1e9)
}

/// A line of what Linux says of a process's memory, in bytes.
pub(crate) fn status(pid: i32, line: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let text = status.lines().find_map(|it| it.strip_prefix(line))?;
    let kib: f64 = text.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rollout_core::{Clock, SystemClock};

    use super::*;

    /// Other tests measure this process's memory, so none is taken here.
    #[test]
    fn work_is_seen_and_memory_is_what_a_process_has() {
        let (before, since) = (Cost::own().unwrap(), SystemClock.now());
        let mut after = before;
        // On a busy machine it may be long until there was some.
        while after.cpu - before.cpu < 0.01 {
            assert!(SystemClock.now().since(since).as_secs() < 20, "{before:?} to {after:?}");
            after = Cost::own().unwrap();
        }
        assert!(after.resident > 1e6, "{after:?}");
    }
}
