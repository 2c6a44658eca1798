//! Exit codes of every `rollout` command, after BSD's sysexits.

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// It did what it was asked.
    Success = 0,
    /// The command line is wrong.
    Usage = 64,
    /// The input is damaged or not of the promised form.
    BadData = 65,
    /// An input file is missing.
    NoInput = 66,
    /// Something needed is not to be had: a taken port, a locked store, no coordinator.
    Unavailable = 69,
    /// A defect of rollout itself.
    Internal = 70,
    /// An output cannot be created.
    CannotCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// Work is left undone; trying again may finish it.
    Unfinished = 75,
    /// Permission or identity refused.
    Refused = 77,
    /// The configuration is invalid.
    Config = 78,
}

impl ExitCode {
    /// The number the operating system is given.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}
