//! What the plugin notes of each execution, outside of all that is judged.

use rollout_core::Mono;

/// One execution of an item, as of its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execution {
    /// The item.
    pub item: u64,
    /// The sidecar's process.
    pub pid: i32,
    /// When it began.
    pub at: Mono,
}

impl Execution {
    /// Reads `item pid nanoseconds` from each line. A line is one write, so that each that is there
    /// is whole.
    ///
    /// # Errors
    /// The first line that is not such a one.
    pub fn read(text: &str) -> Result<Vec<Self>, String> {
        let line = |line: &str| {
            let mut words = line.split(' ');
            let read = Self {
                item: words.next()?.parse().ok()?,
                pid: words.next()?.parse().ok()?,
                at: Mono(words.next()?.parse().ok()?),
            };
            words.next().is_none().then_some(read)
        };
        text.lines().map(|text| line(text).ok_or_else(|| text.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_item_a_process_and_an_instant_and_nothing_else() {
        let read = Execution::read("3 17 1000\n0 18 2000\n").unwrap();
        assert_eq!(read[0], Execution { item: 3, pid: 17, at: Mono(1_000) });
        assert_eq!(read.len(), 2);
        for torn in ["3 17", "3 17 x", "3 17 1 1", ""] {
            assert_eq!(Execution::read(&format!("{torn}\n")), Err(torn.to_owned()));
        }
    }
}
