//! How a run stands, as a text. Pure.

use std::time::Duration;

use serde_json::{Value, json};

/// How a run stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) items: u64,
    pub(crate) done: u64,
    pub(crate) dead: u64,
    /// Items that are in the hands of workers.
    pub(crate) leased: u64,
    /// Attempts that came to nothing.
    pub(crate) retries: u64,
    pub(crate) workers: u64,
    /// Items a second.
    pub(crate) rate: Option<f64>,
    /// What is unusual at the moment.
    pub(crate) notice: Option<String>,
}

const LEAST_BAR: usize = 8;
const MOST_BAR: usize = 30;

impl View {
    fn ended(&self) -> u64 {
        self.done + self.dead
    }

    fn percent(&self) -> u64 {
        (u128::from(self.ended()) * 100 / u128::from(self.items.max(1))) as u64
    }

    fn eta(&self) -> Option<Duration> {
        let rate = self.rate.filter(|rate| *rate > 0.0)?;
        let left = self.items.saturating_sub(self.ended()) as f64 / rate;
        Duration::try_from_secs_f64(left).ok()
    }

    /// What stands behind the bar, the most important first.
    fn facts(&self) -> Vec<String> {
        let mut facts = vec![format!("{}/{}", count(self.ended()), count(self.items))];
        if let Some(notice) = &self.notice {
            facts.push(notice.clone());
            return facts;
        }
        facts.extend(self.rate.map(|rate| format!("{}/s", pace(rate))));
        facts.extend(self.eta().map(|eta| format!("ETA {}", clock(eta))));
        facts.push(many(self.workers, "worker", "workers"));
        facts.push(many(self.retries, "retry", "retries"));
        facts.push(format!("{} dead", count(self.dead)));
        facts
    }

    /// One line of at most `width` columns.
    pub(crate) fn bar(&self, width: usize) -> String {
        let name: String = self.name.chars().take(20).collect();
        let mut facts = self.facts();
        loop {
            let rest = format!("{:>3}%  {}", self.percent(), facts.join("  "));
            let room = width.saturating_sub(name.chars().count() + rest.chars().count() + 5);
            if room >= LEAST_BAR {
                return format!("{name}  [{}] {rest}", self.filled(room.min(MOST_BAR)));
            }
            if rest.chars().count() + 2 + name.chars().count() <= width {
                return format!("{name}  {rest}");
            }
            if facts.len() == 1 {
                return rest.chars().take(width).collect();
            }
            // The last fact but the dead letters: those are never left out before the others.
            let least = facts.len().saturating_sub(2).max(1);
            facts.remove(least);
        }
    }

    fn filled(&self, width: usize) -> String {
        let share = self.ended() as f64 / self.items.max(1) as f64;
        let full = ((width as f64 * share) as usize).min(width);
        let head = if full == width { "" } else { ">" };
        let rest = width - full - head.len();
        format!("{}{head}{}", "=".repeat(full), " ".repeat(rest))
    }

    /// A line of a log.
    pub(crate) fn line(&self) -> String {
        let mut facts = self.facts();
        let first = facts.remove(0).replace('/', " of ");
        format!("{}: {first} items ({}%), {}", self.name, self.percent(), facts.join(", "))
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "type": "progress", "name": self.name, "items": self.items, "done": self.done,
            "dead": self.dead, "leased": self.leased, "retries": self.retries,
            "workers": self.workers, "items_per_s": self.rate,
            "eta_s": self.eta().map(|eta| eta.as_secs_f64()), "notice": self.notice,
        })
    }
}

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn many(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

fn pace(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { count(rate.round() as u64) }
}

/// A time as on a clock.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        1..100 => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{} days", count(hours / 24)),
    }
}

/// A time in words.
pub(crate) fn span(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..100 => format!("{seconds} s"),
        _ => clock(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            name: "cartpole".into(),
            items: 100_000,
            done: 44_990,
            dead: 10,
            leased: 64,
            retries: 3,
            workers: 2,
            rate: Some(1234.4),
            notice: None,
        }
    }

    #[test]
    fn a_bar_fits_into_its_width_whatever_that_is() {
        assert_eq!(
            view().bar(79),
            "cartpole   45%  45,000/100,000  1,234/s  ETA 0:44  2 workers  10 dead"
        );
        let wide = view().bar(119);
        assert_eq!(
            wide,
            "cartpole  [=============>                ]  45%  45,000/100,000  1,234/s  ETA 0:44  \
             2 workers  3 retries  10 dead"
        );
        for width in 0..140 {
            let bar = view().bar(width);
            assert!(bar.chars().count() <= width, "{width}: {bar}");
        }
        let all = View { done: 100_000, dead: 0, ..view() };
        assert!(all.bar(119).contains(&format!("[{}] 100%", "=".repeat(MOST_BAR))));
    }

    #[test]
    fn a_line_says_the_same_in_words() {
        assert_eq!(
            view().line(),
            "cartpole: 45,000 of 100,000 items (45%), 1,234/s, ETA 0:44, 2 workers, 3 retries, \
             10 dead"
        );
        let away = View { notice: Some("coordinator away for 3 s".into()), ..view() };
        assert_eq!(
            away.line(),
            "cartpole: 45,000 of 100,000 items (45%), coordinator away for 3 s"
        );
        assert_eq!(away.json()["items_per_s"], 1234.4);
    }

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(
            [0, 999, 1000, 1234567].map(count),
            ["0", "999", "1,000", "1,234,567"].map(String::from)
        );
        assert_eq!([pace(0.25), pace(99.5)], ["0.2", "100"]);
        let clocks = [5, 65, 3_725, 400_000_000].map(|s| clock(Duration::from_secs(s)));
        assert_eq!(clocks, ["0:05", "1:05", "1:02:05", "4,629 days"]);
        let spans = [1_250, 12_000, 125_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["1.2 s", "12 s", "2:05"]);
        assert_eq!(
            (many(1, "retry", "retries"), many(2, "retry", "retries")),
            ("1 retry".into(), "2 retries".into())
        );
    }

    #[test]
    fn nothing_is_known_of_the_rest_before_there_is_a_rate() {
        let fresh = View { rate: None, ..view() };
        assert!(!fresh.line().contains("ETA"));
        let stuck = View { rate: Some(0.0), ..view() };
        assert!(stuck.eta().is_none() && stuck.line().contains("0.0/s"));
    }
}
