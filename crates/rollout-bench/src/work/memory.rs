//! The most memory that the processes of a run have had resident, as Linux counts it. Elsewhere there
//! is none.

use std::fs;

use crate::cost::status;

/// The line of a process's status that has its peak.
const PEAK: &str = "VmHWM:";

/// The most of each kind of process so far, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Peaks {
    /// The process that was started.
    pub(super) client: Option<f64>,
    pub(super) coordinator: Option<f64>,
    /// The largest of them.
    pub(super) worker: Option<f64>,
}

impl Peaks {
    /// Looks at `root` and at all that descend from it.
    pub(super) fn look(&mut self, root: i32) {
        raise(&mut self.client, status(root, PEAK));
        for pid in descendants(root) {
            match role(pid).as_deref() {
                Some("coordinator") => raise(&mut self.coordinator, status(pid, PEAK)),
                Some("worker") => raise(&mut self.worker, status(pid, PEAK)),
                _ => {}
            }
        }
    }
}

fn raise(most: &mut Option<f64>, seen: Option<f64>) {
    *most = match (*most, seen) {
        (Some(most), Some(seen)) => Some(most.max(seen)),
        (most, seen) => most.or(seen),
    };
}

fn descendants(root: i32) -> Vec<i32> {
    let (mut all, mut looked) = (children(root), 0);
    // A pid that is given away while this looks may lead back: a tree has an end nevertheless.
    while let Some(pid) = all.get(looked).filter(|_| looked < 1_000) {
        let below = children(*pid);
        all.extend(below);
        looked += 1;
    }
    all
}

/// What the threads of a process have started.
fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.filter_map(|it| fs::read_to_string(it.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map_while(|it| it.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

/// What `rollout` does there, if it is that: the word after the program's name.
fn role(pid: i32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split('\0');
    let program = words.next()?;
    (program.rsplit('/').next() == Some("rollout")).then(|| words.next().map(str::to_owned))?
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rollout_process::Spawn;

    use super::*;

    #[test]
    fn a_process_is_found_below_its_guard_and_measured() {
        let child = Spawn::new("sleep").arg("60").spawn().unwrap();
        let below = descendants(i32::try_from(std::process::id()).unwrap());
        assert!(below.contains(&child.pid()), "{below:?}");
        let mut peaks = Peaks::default();
        // It is a process before it is a program, which has some memory.
        let begun = std::time::Instant::now();
        while peaks.client.is_none_or(|client| client < 1e5) {
            assert!(begun.elapsed().as_secs() < 20, "{peaks:?}");
            std::thread::sleep(std::time::Duration::from_millis(1));
            peaks.look(child.pid());
        }
        assert_eq!((peaks.coordinator, role(child.pid())), (None, None));
        child.handle().kill();
        child.wait();
    }
}
