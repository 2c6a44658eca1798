//! What is to go wrong in this process, for scenarios and chaos: faults that cannot be injected from
//! outside. Compiled with the feature `faults` alone, which no shipped binary has.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::ConfigError;

/// The faults of a process, the text of one TOML file. By default there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Added to the wall clock, and to no other: `"+1h"`, `"-250ms"`.
    pub clock_offset: Offset,
    /// The worker's self-fence; off, it never falls.
    pub fence: Switch,
    /// The coordinator's check of epochs and incarnations; off, whoever speaks is believed.
    pub epoch_check: Switch,
    /// The coordinator's credit for its own stalls.
    pub stall_credit: Switch,
    /// The control file of the store's disk, looked at before every write and sync. It says `stall`,
    /// `full` or `error`; absent or empty, the disk is healthy.
    pub disk: Option<PathBuf>,
}

/// Whether a protection works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// As it ships.
    #[default]
    On,
    /// Switched off, to show that it is needed.
    Off,
}

impl Switch {
    /// Whether it is switched off.
    #[must_use]
    pub const fn is_off(self) -> bool {
        matches!(self, Self::Off)
    }
}

/// A signed duration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offset {
    behind: bool,
    by: Duration,
}

impl Offset {
    /// The instant that a clock with this offset shows for `true_time`.
    fn shift(self, true_time: SystemTime) -> SystemTime {
        let shifted = if self.behind {
            true_time.checked_sub(self.by)
        } else {
            true_time.checked_add(self.by)
        };
        shifted.unwrap_or(true_time)
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let (behind, by) = match text.split_at_checked(1) {
            Some(("+", by)) => (false, by),
            Some(("-", by)) => (true, by),
            _ => return Err(D::Error::custom(format!("`{text}` has no sign: \"+1h\" or \"-1h\""))),
        };
        let by = humantime::parse_duration(by).map_err(|e| {
            D::Error::custom(format!("`{text}` is not a signed duration such as \"+1h\": {e}"))
        })?;
        Ok(Self { behind, by })
    }
}

impl Faults {
    /// Reads the text of a file of faults.
    ///
    /// # Errors
    /// What is wrong with it: syntax, an unknown key, a value.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Ok(toml::from_str(text)?)
    }
}

static INSTALLED: OnceLock<Faults> = OnceLock::new();

/// Makes these the faults of this process, from now on and for good. Whether they are: the first
/// to come are kept.
pub fn install(faults: Faults) -> bool {
    INSTALLED.set(faults).is_ok()
}

fn installed() -> Option<&'static Faults> {
    INSTALLED.get()
}

/// What this process's wall clock shows at `true_time`.
pub(crate) fn wall(true_time: SystemTime) -> SystemTime {
    installed().map_or(true_time, |faults| faults.clock_offset.shift(true_time))
}

/// Whether the worker's fence never falls.
#[must_use]
pub fn fence_is_off() -> bool {
    installed().is_some_and(|faults| faults.fence.is_off())
}

/// Whether the coordinator believes whoever speaks.
#[must_use]
pub fn epoch_check_is_off() -> bool {
    installed().is_some_and(|faults| faults.epoch_check.is_off())
}

/// Whether the coordinator gives no credit for its own stalls.
#[must_use]
pub fn stall_credit_is_off() -> bool {
    installed().is_some_and(|faults| faults.stall_credit.is_off())
}

/// The control file of the store's disk.
#[must_use]
pub fn disk() -> Option<&'static Path> {
    installed().and_then(|faults| faults.disk.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_has_no_faults_and_a_full_one_has_them_all() {
        assert_eq!(Faults::parse("").unwrap(), Faults::default());
        let all = "clock_offset = \"-1h\"\nfence = \"off\"\nepoch_check = \"off\"\n\
                   stall_credit = \"off\"\ndisk = \"d\"\n";
        let expected = Faults {
            clock_offset: Offset { behind: true, by: Duration::from_secs(3_600) },
            fence: Switch::Off,
            epoch_check: Switch::Off,
            stall_credit: Switch::Off,
            disk: Some("d".into()),
        };
        assert_eq!(Faults::parse(all).unwrap(), expected);
    }

    #[test]
    fn an_unknown_key_an_unknown_word_and_an_offset_without_sign_or_unit_are_refused() {
        for (bad, word) in [
            ("colour = 1", "colour"),
            ("fence = \"broken\"", "broken"),
            ("clock_offset = \"1h\"", "has no sign"),
            ("clock_offset = \"\"", "has no sign"),
            ("clock_offset = \"+1\"", "not a signed duration"),
        ] {
            let error = Faults::parse(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn an_offset_moves_the_wall_clock_either_way() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(43_200);
        let at = |text: &str| {
            let faults = Faults::parse(&format!("clock_offset = \"{text}\"")).unwrap();
            faults.clock_offset.shift(noon)
        };
        assert_eq!(at("+1h"), noon + Duration::from_secs(3_600));
        assert_eq!(at("-250ms"), noon - Duration::from_millis(250));
        assert_eq!(Offset::default().shift(noon), noon);
    }
}
