//! How a process ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// How the main process of a tree ended.
///
/// Both fields are `None` when the guard was killed before it could tell; see
/// [`guard_lost`](Self::guard_lost).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The number of the signal that killed it, if one did.
    pub signal: Option<i32>,
}

impl Exit {
    /// The end of a process whose guard did not live to report it.
    pub(crate) const LOST: Self = Self { code: None, signal: None };

    /// The end that a raw wait status describes.
    pub(crate) fn from_raw(status: i32) -> Self {
        let status = ExitStatus::from_raw(status);
        Self { code: status.code(), signal: status.signal() }
    }

    /// Whether it exited with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Whether the guard was killed, so that nobody knows how the process ended. On Linux the main
    /// process died with its guard; its descendants may live on.
    #[must_use]
    pub fn guard_lost(&self) -> bool {
        *self == Self::LOST
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with {code}"),
            (None, Some(signal)) => match Signal::try_from(signal) {
                Ok(name) => write!(f, "killed by signal {signal} ({name})"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            (None, None) => f.write_str("lost with its guard"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_reads_as_a_sentence_ends() {
        let shown = |code, signal| Exit { code, signal }.to_string();
        assert_eq!(shown(Some(3), None), "exited with 3");
        assert_eq!(shown(None, Some(9)), "killed by signal 9 (SIGKILL)");
        assert_eq!(shown(None, Some(34)), "killed by signal 34");
        assert_eq!(shown(None, None), "lost with its guard");
    }

    #[test]
    fn only_code_zero_is_a_success() {
        assert!(Exit { code: Some(0), signal: None }.success());
        assert!(!Exit { code: Some(1), signal: None }.success());
        assert!(!Exit { code: None, signal: Some(9) }.success());
        assert!(!Exit::LOST.success());
    }
}
