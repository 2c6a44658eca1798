//! What the end of a call says about a plugin.

use rollout_plugin_host::{PluginError, Reply};

use super::chain;
use super::report::{Finding, Verdict};

/// How a call of a method that the plugin lists has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    /// It has its result, or an error that the plugin means.
    Good,
    /// There was no answer in time.
    Late,
    /// Its code panicked: contained, but an error would have said more.
    Panicked,
    /// The plugin does not know a method that it lists.
    Unlisted,
    /// The plugin, or its thread, is lost.
    Lost,
}

impl Conduct {
    pub(super) fn of(ended: &Result<Reply, PluginError>) -> Self {
        let Err(error) = ended else { return Self::Good };
        match error.code() {
            "user" | "bad_params" | "too_large" | "cancelled" | "overloaded" => Self::Good,
            "deadline" => Self::Late,
            "panicked" => Self::Panicked,
            "unknown_method" => Self::Unlisted,
            _ => Self::Lost,
        }
    }

    const fn verdict(self) -> Verdict {
        match self {
            Self::Good => Verdict::Pass,
            Self::Late | Self::Panicked => Verdict::Warn,
            Self::Unlisted | Self::Lost => Verdict::Fail,
        }
    }
}

/// What a call says; nothing when it is well.
pub(super) fn complaint(what: &str, ended: &Result<Reply, PluginError>) -> Option<Finding> {
    let conduct = Conduct::of(ended);
    let (Err(error), false) = (ended, conduct == Conduct::Good) else { return None };
    let detail = match conduct {
        Conduct::Panicked => format!("{what}: {}; an error would say more", chain(error)),
        Conduct::Unlisted => format!("{what}: it lists the method, but does not know it"),
        _ => format!("{what}: {} ({})", chain(error), error.code()),
    };
    Some(Finding { verdict: conduct.verdict(), detail })
}

#[cfg(test)]
mod tests {
    use rollout_plugin_host::{Cause, Executed};

    use super::*;

    fn ended(cause: Cause) -> Result<Reply, PluginError> {
        let (plugin, method) = ("p".to_owned(), Some("m".to_owned()));
        Err(PluginError { plugin, method, executed: Executed::Yes, cause: Box::new(cause) })
    }

    fn verdict(cause: Cause) -> Option<Verdict> {
        complaint("`m`", &ended(cause)).map(|found| found.verdict)
    }

    #[test]
    fn an_error_that_the_plugin_means_is_no_complaint_and_a_lost_plugin_is_a_failure() {
        let message = || "x".to_owned();
        assert_eq!(verdict(Cause::User { message: message(), traceback: None }), None);
        assert_eq!(verdict(Cause::BadParams { message: message() }), None);
        assert_eq!(verdict(Cause::Panicked { message: message() }), Some(Verdict::Warn));
        let limit = std::time::Duration::from_secs(1);
        assert_eq!(verdict(Cause::Deadline { limit }), Some(Verdict::Warn));
        assert_eq!(verdict(Cause::UnknownMethod { known: Vec::new() }), Some(Verdict::Fail));
        assert_eq!(verdict(Cause::Malformed { message: message() }), Some(Verdict::Fail));
        let crashed = Cause::Crashed { message: message(), exited: None };
        assert_eq!(verdict(crashed), Some(Verdict::Fail));
    }
}
