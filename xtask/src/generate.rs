//! `cargo xtask generate`: files, and parts of chapters, that are made from the code.
//!
//! They are checked in, so that they can be read without a build, and a change of what they tell shows
//! in the commit that makes it. `--check`, which is the job `schema-drift`, says where they differ.

mod cli;
mod picture;
mod scenarios;
mod schemas;
mod section;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rollout_harness::Interrupt;
use rollout_harness::binaries::workspace_root;

use crate::args::GenerateArgs;
use crate::say;
use crate::tree::Complaint;

/// A text that is made, and where it belongs. Paths are from the root, with slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Made {
    /// A whole file.
    File { path: &'static str, text: String },
    /// What stands in a file between the markers of this name: [`section::replace`].
    Section { path: &'static str, name: &'static str, text: String },
}

/// Makes texts from the code, or says why it cannot and gives the exit code.
type Generator = fn(&Interrupt) -> Result<Vec<Made>, u8>;

/// All generators.
const GENERATORS: [Generator; 4] =
    [schemas::make, cli::chapter, picture::time_budget, scenarios::table];

/// Makes everything, and writes what differs from what there is, or says so; the exit code.
pub(crate) fn run(args: &GenerateArgs, interrupt: &Interrupt) -> u8 {
    let mut made = Vec::new();
    for generator in GENERATORS {
        match generator(interrupt) {
            Ok(texts) => made.extend(texts),
            Err(code) => return code,
        }
    }
    let complaints = settle(&workspace_root(), &made, args.check);
    for complaint in &complaints {
        say(&format!("{complaint}\n"));
    }
    u8::from(!complaints.is_empty())
}

/// Brings the files below `root` up to date, or only looks at them; what is wrong.
fn settle(root: &Path, made: &[Made], only_check: bool) -> Vec<Complaint> {
    let (texts, mut complaints) = wanted(root, made);
    for (path, text) in texts {
        if fs::read_to_string(root.join(path)).is_ok_and(|there| there == text) {
            continue;
        }
        if only_check {
            let what = "differs from what the code says: run `cargo xtask generate`";
            complaints.push(Complaint::of(path, what));
            continue;
        }
        match fs::write(root.join(path), text) {
            Ok(()) => say(&format!("wrote {path}\n")),
            Err(error) => {
                complaints.push(Complaint::of(path, format!("cannot be written: {error}")))
            }
        }
    }
    complaints
}

/// What each file is to hold, and sections that have no place.
fn wanted<'a>(root: &Path, made: &'a [Made]) -> (BTreeMap<&'a str, String>, Vec<Complaint>) {
    let (mut texts, mut complaints) = (BTreeMap::new(), Vec::new());
    for made in made {
        let (path, name, text) = match made {
            Made::File { path, text } => {
                texts.insert(*path, text.clone());
                continue;
            }
            Made::Section { path, name, text } => (*path, name, text),
        };
        let there = match texts.remove(path) {
            Some(there) => Ok(there),
            None => fs::read_to_string(root.join(path))
                .map_err(|error| format!("cannot be read: {error}")),
        };
        match there.and_then(|there| section::replace(&there, name, text)) {
            Ok(text) => drop(texts.insert(path, text)),
            Err(what) => complaints.push(Complaint::of(path, what)),
        }
    }
    (texts, complaints)
}

#[cfg(test)]
mod tests;
