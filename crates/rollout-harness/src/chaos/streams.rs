//! What a process wrote, life by life: each life is a stream of its own, numbered from 1.

use rollout_core::{Event, Mono};

use crate::log::Line;
use crate::record::{Life, Process};

/// The stream of one life.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    /// The life, if one began before its first line.
    pub(super) life: Option<&'a Life>,
    /// Its events, in the order in which they were written.
    pub(super) events: Vec<Event>,
    /// What is wrong with it, in words.
    pub(super) wrong: Vec<String>,
}

/// Who is killed may leave half a line, to which the next life's first one is appended.
fn salvage(line: &Line) -> Option<Event> {
    let start = line.raw.rfind("{\"seq\":1,").filter(|start| *start > 0)?;
    serde_json::from_str(&line.raw[start..]).ok()
}

/// The streams of a process, in the order of its lives; a life that wrote nothing has none.
pub(super) fn streams(process: &Process) -> Vec<Stream<'_>> {
    let mut streams: Vec<Stream<'_>> = Vec::new();
    let mut torn: Option<String> = None;
    for line in process.log.lines() {
        let salvaged = line.event.is_err().then(|| salvage(line)).flatten();
        let cut = salvaged.is_some().then(|| line.raw.clone());
        match line.event.as_ref().ok().cloned().or(salvaged) {
            Some(event) => {
                if event.seq == 1 || streams.is_empty() {
                    let life = life_at(process, event.mono);
                    close(streams.last_mut(), cut.or_else(|| torn.take()));
                    streams.push(Stream { life, events: Vec::new(), wrong: Vec::new() });
                }
                if let Some(stream) = streams.last_mut() {
                    stream.wrong.extend(torn.take().map(|line| unreadable(&line)));
                    stream.push(event);
                }
            }
            None => {
                let before = torn.replace(line.raw.clone());
                if let (Some(before), Some(stream)) = (before, streams.last_mut()) {
                    stream.wrong.push(unreadable(&before));
                }
            }
        }
    }
    close(streams.last_mut(), process.log.torn().or(torn));
    streams
}

fn unreadable(line: &str) -> String {
    let head: String = line.chars().take(60).collect();
    format!("`{head}` is no event")
}

/// The last line of a stream: only SIGKILL may tear it.
fn close(stream: Option<&mut Stream<'_>>, torn: Option<String>) {
    if let (Some(stream), Some(torn)) = (stream, torn) {
        let killed = stream.life.is_some_and(was_killed);
        if !killed {
            stream.wrong.push(unreadable(&torn));
        }
    }
}

/// Whether SIGKILL ended it.
pub(super) fn was_killed(life: &Life) -> bool {
    life.ended.as_ref().is_some_and(|ended| ended.signal == Some(nix::libc::SIGKILL))
}

/// The life that `at` is in: the last that began before.
pub(super) fn life_at(process: &Process, at: Mono) -> Option<&Life> {
    process.lives.iter().rev().find(|life| life.began <= at)
}

impl Stream<'_> {
    fn push(&mut self, event: Event) {
        let due = self.events.last().map_or(1, |last| last.seq + 1);
        if event.seq != due {
            self.wrong.push(format!("seq {} stands where {due} was due", event.seq));
        }
        self.events.push(event);
    }
}
