//! A coordinator's events, read over the wire, and followed from one connection and one coordinator
//! to the next.

use std::collections::{HashSet, VecDeque};
use std::io::{self, BufWriter, Stdout, Write};
use std::time::Duration;

use rollout_core::chain;
use rollout_transport::{CallError, ConnectError, LineStream, Remote, Tls, WireError};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};

use super::Trouble;
use crate::error::CliError;
use crate::fleet_at::FleetAt;
use crate::run::args::EventsArgs;
use crate::run::error::RunError;
use crate::signals::Signals;

/// How long the coordinator may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// The waits between two attempts at a connection double from the one to the other.
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(5);
/// As many lines as a coordinator keeps: no older one comes again.
const KEPT: usize = 4096;

type Lines = LineStream<Box<RawValue>>;

/// How reading came to its end.
enum Over {
    /// A signal, or there is no more to read.
    Done,
    /// The coordinator is gone, or has said goodbye.
    Away(RunError),
    /// Trying again does not help.
    Final(Trouble),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Final(Trouble::Out(error))
    }
}

pub(super) fn run(args: &EventsArgs, fleet: &FleetAt) -> Result<(), Trouble> {
    let failed = |error| Trouble::Other(Box::new(CliError::Runtime(error)));
    let tls = fleet.certificate().map_err(|error| Trouble::Other(Box::new(error)))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let signals = Signals::listen().map_err(failed)?;
        let reader = Reader {
            address: &fleet.coordinator,
            tls,
            args,
            signals,
            seen: Seen::default(),
            out: BufWriter::new(io::stdout()),
        };
        reader.read().await
    })
}

struct Reader<'a> {
    address: &'a str,
    tls: Tls,
    args: &'a EventsArgs,
    signals: Signals,
    seen: Seen,
    out: BufWriter<Stdout>,
}

impl Reader<'_> {
    async fn read(mut self) -> Result<(), Trouble> {
        // Until the first answer, what is wrong is said at once: the address may be mistyped.
        let (mut answered, mut wait) = (false, LEAST);
        loop {
            let over = match self.open(answered).await {
                // With the connection what is open on it would be cut.
                Ok((_connection, lines)) => {
                    (answered, wait) = (true, LEAST);
                    self.copy(lines).await
                }
                Err(over) => over,
            };
            match over {
                Over::Done => return Ok(()),
                Over::Final(trouble) => return Err(trouble),
                Over::Away(error) if !answered || !self.args.follow => return Err(error.into()),
                Over::Away(error) if wait == LEAST => {
                    let text = format!("rollout: {}; trying again\n", chain(&error));
                    // Nobody may be there to be told.
                    let _ = io::stderr().write_all(text.as_bytes());
                }
                Over::Away(_) => {}
            }
            tokio::select! {
                _ = self.signals.next() => return Ok(()),
                () = sleep(wait) => wait = (wait * 2).min(MOST),
            }
        }
    }

    async fn open(&mut self, again: bool) -> Result<(Remote, Lines), Over> {
        let asked = async {
            let remote = Remote::open(self.address, &self.tls, ANSWER).await?;
            let lines = remote.events(&self.args.topics, self.args.follow).await?;
            Ok((remote, lines))
        };
        let asked = tokio::select! {
            _ = self.signals.next() => return Err(Over::Done),
            asked = timeout(ANSWER, asked) => asked,
        };
        let timed_out = || ConnectError::Timeout { addr: self.address.to_owned(), after: ANSWER };
        let asked: Result<_, RunError> = asked.unwrap_or_else(|_| Err(timed_out().into()));
        asked.map_err(|error| match error {
            RunError::Connect(ConnectError::Refused { .. }) => Over::Final(error.into()),
            RunError::Connect(_) | RunError::Call(CallError::Lost { .. }) => Over::Away(error),
            // The place of the connection that was lost may not be free yet.
            RunError::Call(CallError::Refused { status: 409, .. }) if again => Over::Away(error),
            error => Over::Final(error.into()),
        })
    }

    /// Writes what comes, until it ends.
    async fn copy(&mut self, mut lines: Lines) -> Over {
        let over = loop {
            let line = tokio::select! {
                biased;
                line = lines.next() => line,
                flushed = flush(&mut self.out) => match flushed {
                    // There is nothing at hand.
                    Ok(()) => tokio::select! {
                        _ = self.signals.next() => break Over::Done,
                        line = lines.next() => line,
                    },
                    Err(error) => break error.into(),
                },
            };
            match line {
                Ok(Some(line)) => {
                    if let Err(error) = self.write(line.get()) {
                        break error.into();
                    }
                }
                Ok(None) if !self.args.follow => break Over::Done,
                Ok(None) => break away("it is stopping".to_owned()),
                Err(error @ (WireError::Lost(_) | WireError::Truncated)) => {
                    break away(error.to_string());
                }
                Err(error) => {
                    let why = error.to_string();
                    break Over::Final(RunError::from(CallError::Protocol { why }).into());
                }
            }
        };
        match self.out.flush() {
            Err(error) if !matches!(over, Over::Final(_)) => error.into(),
            _ => over,
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.args.follow && self.seen.before(line) {
            return Ok(());
        }
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }
}

/// Ready at once; polled only if no line is.
async fn flush(out: &mut impl Write) -> io::Result<()> {
    out.flush()
}

fn away(why: String) -> Over {
    Over::Away(CallError::Lost { why }.into())
}

/// What makes a line of an event stream that line and no other: its number among its process's,
/// and the instant of the host's clock. A coordinator that was started again counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
struct Mark {
    seq: u64,
    mono_ns: u64,
}

/// The newest lines that were written. A new connection begins with all that the coordinator has
/// kept.
#[derive(Debug, Default)]
struct Seen {
    marks: HashSet<Mark>,
    order: VecDeque<Mark>,
}

impl Seen {
    /// Whether the line came before; from now on it did.
    fn before(&mut self, line: &str) -> bool {
        // A line without these is of the reading, not of the stream.
        let Ok(mark) = serde_json::from_str::<Mark>(line) else { return false };
        if !self.marks.insert(mark) {
            return true;
        }
        self.order.push_back(mark);
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.marks.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, mono_ns: u64) -> String {
        format!("{{\"seq\":{seq},\"ts\":\"…\",\"mono_ns\":{mono_ns},\"topic\":\"log\"}}")
    }

    #[test]
    fn a_line_is_known_again_and_one_of_a_newer_coordinator_is_not_taken_for_it() {
        let mut seen = Seen::default();
        for seq in 1..=5 {
            assert!(!seen.before(&line(seq, 100 + seq)));
        }
        assert!((2..=5).all(|seq| seen.before(&line(seq, 100 + seq))));
        assert!(!seen.before(&line(6, 106)));
        // Started again, and once more after the host was.
        assert!(!seen.before(&line(1, 500)) && seen.before(&line(1, 500)));
        assert!(!seen.before(&line(1, 7)));
        let missed = "{\"type\":\"missed\",\"lines\":3}";
        assert!(!seen.before(missed) && !seen.before(missed));
    }

    #[test]
    fn as_many_lines_are_remembered_as_may_come_again_and_no_more() {
        let mut seen = Seen::default();
        let last = 3 * KEPT as u64;
        assert!((1..=last).all(|seq| !seen.before(&line(seq, seq))));
        assert_eq!((seen.order.len(), seen.marks.len()), (KEPT, KEPT));
        assert!((last - KEPT as u64 + 1..=last).all(|seq| seen.before(&line(seq, seq))));
    }
}
