//! Looks at the processes of this machine, to see from outside that none is left.

use std::collections::BTreeSet;
use std::io;

/// A process, told apart from a later one with the same number by when it began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it began, as the system writes it.
    pub began: String,
    /// What it calls itself.
    pub name: String,
}

/// A process and its parent's number.
type Row = (Process, i32);

/// The processes `roots` and all that descend from them, as far as they run now.
///
/// # Errors
/// When the system does not tell.
pub fn trees(roots: &[i32]) -> io::Result<BTreeSet<Process>> {
    let rows = system::rows()?;
    let mut pids: BTreeSet<_> = roots.iter().copied().collect();
    loop {
        let known = pids.len();
        pids.extend(
            rows.iter()
                .filter(|row| pids.contains(&row.1))
                .map(|row| row.0.pid)
                .collect::<Vec<_>>(),
        );
        if pids.len() == known {
            break;
        }
    }
    Ok(rows.into_iter().filter(|row| pids.contains(&row.0.pid)).map(|row| row.0).collect())
}

/// The parent of a process, if it runs now.
///
/// # Errors
/// When the system does not tell.
pub fn parent(pid: i32) -> io::Result<Option<i32>> {
    Ok(system::rows()?.into_iter().find(|row| row.0.pid == pid).map(|row| row.1))
}

/// The children of the processes `parents`, as far as they run now.
///
/// # Errors
/// When the system does not tell.
pub fn children(parents: &[i32]) -> io::Result<Vec<Process>> {
    let rows = system::rows()?.into_iter();
    Ok(rows.filter(|row| parents.contains(&row.1)).map(|row| row.0).collect())
}

/// Those of `processes` that still run.
///
/// # Errors
/// When the system does not tell.
pub fn still_running(processes: &BTreeSet<Process>) -> io::Result<Vec<Process>> {
    let same = |row: &Process| processes.iter().any(|p| (p.pid, &p.began) == (row.pid, &row.began));
    Ok(system::rows()?.into_iter().map(|row| row.0).filter(same).collect())
}

/// The processes by way of `/proc`. A zombie does not run.
#[cfg(target_os = "linux")]
mod system {
    use std::{fs, io};

    use super::{Process, Row};

    pub(super) fn rows() -> io::Result<Vec<Row>> {
        let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // One that ends meanwhile cannot be read, and does not run.
        Ok(pids
            .filter_map(|pid: i32| row(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
            .collect())
    }

    /// Reads `pid (name) state ppid … began`; the name may hold anything, parentheses too.
    fn row(pid: i32, stat: &str) -> Option<Row> {
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = rest.split_whitespace();
        let runs = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
        let parent = fields.next()?.parse().ok()?;
        let began = fields.nth(17)?.to_owned();
        runs.then_some((Process { pid, began, name }, parent))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_name_with_parentheses_does_not_shift_the_fields() {
            let stat = "7 (a) b (c) S 3 7 7 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4242 99 100";
            let (process, parent) = row(7, stat).unwrap();
            assert_eq!(
                (process.name.as_str(), process.began.as_str(), parent),
                ("a) b (c", "4242", 3)
            );
            assert_eq!(row(7, &stat.replace(") S ", ") Z ")), None);
        }
    }
}

/// The processes by way of `ps`. A zombie does not run.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::time::Duration;

    use rollout_process::{Io, Spawn};

    use super::{Process, Row};

    pub(super) fn rows() -> io::Result<Vec<Row>> {
        let ps = Spawn::new("ps").args(["-A", "-o", "pid=,ppid=,state=,lstart=,comm="]);
        let output =
            ps.stdout(Io::Pipe).output(Some(Duration::from_secs(5))).map_err(io::Error::other)?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(row).collect())
    }

    /// Reads `pid ppid state Mon Nov 23 12:00:00 2026 name`.
    fn row(line: &str) -> Option<Row> {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [pid, parent, state, rest @ ..] = fields.as_slice() else { return None };
        let (began, name) = rest.split_at_checked(5)?;
        let process =
            Process { pid: pid.parse().ok()?, began: began.join(" "), name: name.join(" ") };
        (!state.starts_with('Z')).then_some((process, parent.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::process::id;
    use std::time::Duration;

    use rollout_process::Spawn;

    use super::*;

    #[test]
    fn a_child_is_in_the_tree_while_it_runs_and_not_after() {
        let own = i32::try_from(id()).unwrap();
        let child = Spawn::new("sleep").arg("60").spawn().unwrap();
        let tree = trees(&[child.pid()]).unwrap();
        let guard = parent(child.pid()).unwrap().unwrap();
        assert!(children(&[guard]).unwrap().iter().any(|p| p.pid == child.pid()));
        assert_eq!(parent(i32::MAX).unwrap(), None);
        assert!(tree.iter().any(|p| p.pid == child.pid() && p.name.contains("sleep")), "{tree:?}");
        assert!(!tree.iter().any(|p| p.pid == own));
        assert!(trees(&[own]).unwrap().is_superset(&tree));
        assert!(!still_running(&tree).unwrap().is_empty());
        child.handle().kill();
        assert!(child.wait_timeout(Duration::from_secs(10)).is_some());
        assert_eq!(still_running(&tree).unwrap(), []);
    }
}
