//! The table of the scenarios there are.

use rollout_core::chain;
use rollout_harness::Interrupt;

use super::Made;
use crate::{complain, scenario};

/// Their names, and what each shows.
pub(super) fn table(_: &Interrupt) -> Result<Vec<Made>, u8> {
    let scenarios = scenario::all().map_err(|error| {
        complain(&chain(&error));
        error.exit_code()
    })?;
    let mut text = "| scenario | what it shows |\n| --- | --- |\n".to_owned();
    for it in scenarios {
        let hand = if it.by_hand { " (by hand)" } else { "" };
        text.push_str(&format!("| `{}`{hand} | {} |\n", it.name, it.about));
    }
    Ok(vec![Made::Section { path: "docs/src/scenarios.md", name: "scenarios", text }])
}
