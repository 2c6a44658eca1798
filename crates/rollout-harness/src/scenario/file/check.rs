//! From the keys of a file to a scenario that makes sense, or to what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rollout_core::Body;
use toml::Value;

use super::raw;
use super::{
    Action, Awaited, Bound, COORD, Claim, Count, Due, END, Expect, Pattern, Player, READY,
    Scenario, Step, Verb, WITHIN, Wait, Want, When, Window,
};
use crate::scenario::sample;

/// What is wrong, and at which key.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) at: String,
    pub(super) why: String,
}

type Checked<T> = Result<T, Wrong>;

fn wrong<T>(at: impl Into<String>, why: impl Into<String>) -> Checked<T> {
    Err(Wrong { at: at.into(), why: why.into() })
}

/// The names that may be referred to so far.
struct Names {
    players: Vec<Player>,
    instants: BTreeSet<String>,
}

impl Names {
    fn player(&self, at: &str, name: &str) -> Checked<&Player> {
        match self.players.iter().find(|player| player.name == name) {
            Some(player) => Ok(player),
            None => wrong(at, format!("there is no process `{name}`")),
        }
    }

    fn worker(&self, at: &str, name: &str) -> Checked<()> {
        let player = self.player(at, name)?;
        if player.name == COORD { wrong(at, format!("`{name}` is no worker")) } else { Ok(()) }
    }

    fn instant(&self, at: &str, name: Option<String>) -> Checked<Option<String>> {
        match name {
            Some(name) if !self.instants.contains(&name) => {
                let known: Vec<_> = self.instants.iter().map(String::as_str).collect();
                wrong(at, format!("`{name}` names no instant; there are: {}", known.join(", ")))
            }
            name => Ok(name),
        }
    }

    fn name(&mut self, at: &str, name: &str) -> Checked<()> {
        if self.instants.insert(name.to_owned()) {
            return Ok(());
        }
        wrong(at, format!("`{name}` is a name already; give it another `name` or `label`"))
    }
}

pub(super) fn scenario(name: String, raw: raw::Scenario) -> Checked<Scenario> {
    let raw::Scenario { about, by_hand, timing, coordinator, workers, steps, expect } = raw;
    if let Some(Err(error)) = timing.map(|timing| timing.validate_cross_fields()) {
        return wrong("timing", error.to_string());
    }
    let raw::Coordinator { config, faults, disk } = coordinator;
    let coordinator = Player { name: COORD.to_owned(), config, faults, disk, ..Player::default() };
    let mut names = Names {
        players: vec![coordinator.clone()],
        instants: [READY, END].map(str::to_owned).into(),
    };
    for (number, worker) in workers.into_iter().enumerate() {
        let worker = player(&format!("workers[{number}]"), worker, &names)?;
        names.players.push(worker);
    }
    let steps = numbered("steps", steps, |at, raw| step(at, raw, &mut names))?;
    if expect.is_empty() {
        return wrong("expect", "a scenario that expects nothing shows nothing");
    }
    let expect = numbered("expect", expect, |at, raw| expectation(at, raw, &mut names))?;
    let workers = names.players.split_off(1);
    Ok(Scenario { name, about, by_hand, timing, coordinator, workers, steps, expect })
}

fn numbered<R, T>(
    key: &str,
    raw: Vec<R>,
    mut check: impl FnMut(&str, R) -> Checked<T>,
) -> Checked<Vec<T>> {
    raw.into_iter().enumerate().map(|(n, raw)| check(&format!("{key}[{n}]"), raw)).collect()
}

fn player(at: &str, raw: raw::Worker, names: &Names) -> Checked<Player> {
    let raw::Worker { name, config, faults, disk, link, plugins, id_of, late } = raw;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(plain) {
        return wrong(format!("{at}.name"), format!("`{name}` cannot be the name of a file"));
    }
    if names.players.iter().any(|player| player.name == name) {
        return wrong(format!("{at}.name"), format!("there are two processes `{name}`"));
    }
    if let Some(other) = &id_of {
        names.worker(&format!("{at}.id_of"), other)?;
    }
    Ok(Player { name, config, faults, disk, link, plugins, id_of, late })
}

fn step(at: &str, raw: raw::Step, names: &mut Names) -> Checked<Step> {
    let raw::Step { label, at: instant, after, wait, verb, to, by } = raw;
    let when = match (instant, after) {
        (Some(_), Some(_)) => return wrong(at, "`at` and `after` exclude each other"),
        (Some(at), None) => When::At(at.0),
        (None, Some(after)) => When::After(after.0),
        (None, None) => When::Next,
    };
    let wait = wait.map(|wait| awaited(&format!("{at}.wait"), wait, names)).transpose()?;
    let action = match (verb, to) {
        (Some(verb), Some(to)) => Some(action(at, verb, to, by.map(|by| by.0), names)?),
        (Some(_), None) => return wrong(at, "`do` needs `to`, the process"),
        (None, Some(_)) => return wrong(at, "`to` needs `do`"),
        (None, None) => None,
    };
    if wait.is_none() && action.is_none() && when == When::Next {
        return wrong(at, "it neither waits nor does anything");
    }
    if let Some(label) = &label {
        names.name(at, label)?;
    }
    Ok(Step { label, when, wait, action })
}

fn action(
    at: &str,
    verb: raw::Verb,
    to: String,
    by: Option<Duration>,
    names: &Names,
) -> Checked<Action> {
    use raw::Verb as Raw;
    let verb = match (verb, by) {
        (Raw::Delay, Some(by)) => Verb::Delay(by),
        (Raw::Delay, None) => return wrong(at, "`delay` needs `by`"),
        (_, Some(_)) => return wrong(at, "`by` belongs to `do = \"delay\"`"),
        (Raw::Start, None) => Verb::Start,
        (Raw::Kill, None) => Verb::Kill,
        (Raw::Terminate, None) => Verb::Terminate,
        (Raw::Stop, None) => Verb::Stop,
        (Raw::Continue, None) => Verb::Continue,
        (Raw::KillSidecars, None) => Verb::KillSidecars,
        (Raw::Cut, None) => Verb::Cut,
        (Raw::BlackHole, None) => Verb::BlackHole,
        (Raw::Heal, None) => Verb::Heal,
        (Raw::DiskStall, None) => Verb::DiskStall,
        (Raw::DiskFull, None) => Verb::DiskFull,
        (Raw::DiskError, None) => Verb::DiskError,
        (Raw::DiskHeal, None) => Verb::DiskHeal,
    };
    let player = names.player(&format!("{at}.to"), &to)?;
    let link = matches!(verb, Verb::Cut | Verb::BlackHole | Verb::Delay(_) | Verb::Heal);
    let disk = matches!(verb, Verb::DiskStall | Verb::DiskFull | Verb::DiskError | Verb::DiskHeal);
    if link && !player.link {
        return wrong(format!("{at}.to"), format!("`{to}` has no link: set `link = true`"));
    }
    if disk && !player.disk {
        return wrong(format!("{at}.to"), format!("the disk of `{to}` is real: set `disk = true`"));
    }
    Ok(Action { verb, to })
}

fn awaited(at: &str, raw: raw::Wait, names: &Names) -> Checked<Wait> {
    let raw::Wait { event, from, worker, attrs, count, since, exit, within } = raw;
    let within = within.map_or(WITHIN, |within| within.0);
    let what = match (event, exit) {
        (Some(topic), None) => Awaited::Event {
            pattern: pattern(at, topic, from, worker, attrs, names)?,
            count: count.unwrap_or(1),
            since: names.instant(&format!("{at}.since"), since)?,
        },
        (None, Some(process)) => {
            names.player(&format!("{at}.exit"), &process)?;
            Awaited::Exit(process)
        }
        _ => return wrong(at, "it waits for either an `event` or an `exit`"),
    };
    Ok(Wait { what, within })
}

fn pattern(
    at: &str,
    topic: String,
    from: Option<String>,
    worker: Option<String>,
    attrs: BTreeMap<String, Value>,
    names: &Names,
) -> Checked<Pattern> {
    if !Body::TOPICS.contains(&topic.as_str()) {
        return wrong(at, format!("no process writes `{topic}`"));
    }
    let from = from.unwrap_or_else(|| COORD.to_owned());
    names.player(&format!("{at}.from"), &from)?;
    if let Some(worker) = &worker {
        names.worker(&format!("{at}.worker"), worker)?;
    }
    let known = sample::attributes(&topic);
    let checked = attrs.into_iter().map(|(key, value)| {
        if !known.contains_key(&key) {
            let known: Vec<_> = known.keys().map(String::as_str).collect();
            let known = known.join(", ");
            return wrong(
                format!("{at}.where"),
                format!("`{topic}` has no attribute `{key}`, but {known}"),
            );
        }
        Ok((key.clone(), want(&format!("{at}.where.{key}"), value)?))
    });
    let attrs = checked.collect::<Checked<_>>()?;
    Ok(Pattern { from, topic, worker, attrs })
}

fn want(at: &str, value: Value) -> Checked<Want> {
    let Value::Table(table) = value else {
        return match serde_json::to_value(value) {
            Ok(value) => Ok(Want::Is(value)),
            Err(error) => wrong(at, error.to_string()),
        };
    };
    let (mut least, mut most) = (None, None);
    for (key, value) in table {
        let number = match value {
            Value::Integer(number) => Some(number as f64),
            Value::Float(number) => Some(number),
            _ => None,
        };
        match (key.as_str(), number) {
            ("at_least", Some(number)) => least = Some(number),
            ("at_most", Some(number)) => most = Some(number),
            _ => return wrong(at, format!("`{key}`: a range has numbers `at_least`, `at_most`")),
        }
    }
    Ok(Want::Between(least, most))
}

fn expectation(at: &str, raw: raw::Expect, names: &mut Names) -> Checked<Expect> {
    let set = raw.set();
    let only = |allowed: &[&str], kind: &str| match set.iter().find(|key| !allowed.contains(key)) {
        Some(key) => wrong(at, format!("`{key}` does not belong to `{kind}`")),
        None => Ok(()),
    };
    const EVENTS: [&str; 5] = ["from", "worker", "where", "since", "until"];
    let given = raw.name.clone();
    let (name, claim) = match (&raw.event, &raw.none, &raw.exit, &raw.stderr) {
        (Some(topic), None, None, None) => {
            let bounds = ["count", "at_least", "not_before", "not_after"];
            only(&[&EVENTS[..], &bounds].concat(), "event")?;
            let topic = topic.clone();
            (called(&topic, &raw.worker), events(at, topic, raw, names)?)
        }
        (None, Some(topic), None, None) => {
            only(&EVENTS, "none")?;
            let topic = topic.clone();
            let (name, window) = (called(&topic, &raw.worker), window(at, &raw, names)?);
            let pattern = pattern(at, topic, raw.from, raw.worker, raw.attrs, names)?;
            (format!("no {name}"), Claim::None { pattern, window })
        }
        (None, None, Some(process), None) => {
            only(&["life", "code", "signal"], "exit")?;
            names.player(&format!("{at}.exit"), process)?;
            (format!("exit of {process}"), exit(at, process.clone(), &raw)?)
        }
        (None, None, None, Some(process)) => {
            only(&["contains"], "stderr")?;
            names.player(&format!("{at}.stderr"), process)?;
            let contains = raw.contains.clone().filter(|text| !text.is_empty());
            let Some(contains) = contains else { return wrong(at, "`stderr` needs `contains`") };
            let process = process.clone();
            (format!("stderr of {process}"), Claim::Stderr { process, contains })
        }
        _ => return wrong(at, "it expects one of `event`, `none`, `exit`, `stderr`"),
    };
    let name = given.unwrap_or(name);
    names.name(at, &name)?;
    Ok(Expect { name, claim })
}

fn called(topic: &str, worker: &Option<String>) -> String {
    worker.as_ref().map_or_else(|| topic.to_owned(), |worker| format!("{topic}({worker})"))
}

fn window(at: &str, raw: &raw::Expect, names: &Names) -> Checked<Window> {
    let since = names.instant(&format!("{at}.since"), raw.since.clone())?;
    let until = names.instant(&format!("{at}.until"), raw.until.clone())?;
    Ok(Window { since, until })
}

fn events(at: &str, topic: String, raw: raw::Expect, names: &Names) -> Checked<Claim> {
    let count = match (raw.count, raw.at_least) {
        (Some(_), Some(_)) => return wrong(at, "`count` and `at_least` exclude each other"),
        (Some(0), None) | (None, Some(0)) => return wrong(at, "none are expected with `none`"),
        (Some(count), None) => Count::Exactly(count),
        (None, Some(count)) => Count::AtLeast(count),
        (None, None) => Count::Exactly(1),
    };
    let window = window(at, &raw, names)?;
    let not_before = match raw.not_before.as_deref() {
        None => None,
        Some("deadline") if raw.worker.is_none() => {
            return wrong(format!("{at}.not_before"), "a deadline is a worker's: name a `worker`");
        }
        Some("deadline") => Some(Bound::Deadline),
        Some(text) => match Value::from(text).try_into::<raw::Span>() {
            Ok(time) => Some(Bound::After(time.0)),
            Err(error) => {
                let why = format!("`{text}` is neither `deadline` nor a duration: {error}");
                return wrong(format!("{at}.not_before"), why);
            }
        },
    };
    let not_after = raw.not_after.map(|time| time.0);
    let relative = not_after.is_some() || matches!(not_before, Some(Bound::After(_)));
    if relative && window.since.is_none() {
        return wrong(at, "`not_before` and `not_after` count from `since`: name an instant");
    }
    let pattern = pattern(at, topic, raw.from, raw.worker, raw.attrs, names)?;
    Ok(Claim::Event { pattern, count, window, not_before, not_after })
}

fn exit(at: &str, process: String, raw: &raw::Expect) -> Checked<Claim> {
    let due = match (raw.code, raw.signal) {
        (Some(code), None) => Due::Code(code),
        (None, Some(signal)) => Due::Signal(signal),
        _ => return wrong(at, "`exit` needs either a `code` or a `signal`"),
    };
    if raw.life == Some(0) {
        return wrong(at, "`life` counts from 1");
    }
    Ok(Claim::Exit { process, life: raw.life, due })
}
