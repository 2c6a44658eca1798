//! What the figures were taken on.

use std::fs;
use std::thread::available_parallelism;
use std::time::Duration;

use rollout_core::{Clock, SystemClock};
use rollout_process::{Io, Spawn};
use serde_json::{Value, json};

/// A machine and the source that was measured on it.
pub(crate) struct Machine {
    cores: usize,
    cpu: Option<String>,
    memory_mib: Option<u64>,
    system: Option<String>,
    /// How many processes wanted to run over the last minute, before anything was measured.
    load: Option<f64>,
    commit: Option<String>,
    unix_ms: u64,
}

impl Machine {
    /// This one, now. What the system does not say is left out.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        let number = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
        Self {
            cores: available_parallelism().map_or(1, usize::from),
            cpu: read("/proc/cpuinfo").and_then(|text| value(&text, "model name")),
            memory_mib: read("/proc/meminfo")
                .and_then(|text| number(&value(&text, "MemTotal")?))
                .map(|kib| kib / 1024),
            system: read("/proc/sys/kernel/osrelease").map(|text| format!("Linux {}", text.trim())),
            load: read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
            commit: commit(),
            unix_ms: SystemClock.unix_ms(),
        }
    }

    /// For people, one line.
    pub(crate) fn line(&self) -> String {
        let mut parts = vec![format!("{} cores", self.cores)];
        parts.extend(self.cpu.clone());
        parts.extend(self.memory_mib.map(|mib| format!("{} GiB", mib.div_ceil(1024))));
        parts.extend(self.system.clone());
        parts.extend(self.load.map(|load| format!("load {load}")));
        parts.extend(self.commit.clone());
        parts.join(", ")
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "line": self.line(),
            "cores": self.cores,
            "cpu": self.cpu,
            "memory_mib": self.memory_mib,
            "system": self.system,
            "load": self.load,
            "commit": self.commit,
            "unix_ms": self.unix_ms,
        })
    }
}

/// The value of the first line `key : value`.
fn value(text: &str, key: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim().to_owned())
}

/// The commit that is checked out, and whether there is more than that.
fn commit() -> Option<String> {
    let git = Spawn::new("git")
        .args(["describe", "--always", "--dirty", "--exclude", "*"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Io::Null);
    let output = git.output(Some(Duration::from_secs(5))).ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.exit.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let text = "model\t\t: 17\nmodel name\t: Some CPU: fast\nMemTotal:  42 kB\n";
        assert_eq!(value(text, "model name").as_deref(), Some("Some CPU: fast"));
        assert_eq!(value(text, "MemTotal").as_deref(), Some("42 kB"));
        assert_eq!(value(text, "name"), None);
    }

    #[test]
    fn a_machine_says_at_least_how_many_cores_it_has() {
        let machine = Machine::here();
        assert!(machine.line().contains("cores") && machine.json()["cores"].as_u64() > Some(0));
    }
}
