//! Calls and words that are forbidden, beside those of clippy.toml, and the places where they are
//! not.

use crate::tree::{Complaint, Tree, words};

/// Something that no code holds outside its rooms.
struct Ban {
    /// The word, or words.
    word: &'static str,
    /// Why not.
    why: &'static str,
    /// The starts of paths where it is all the same.
    rooms: &'static [&'static str],
    /// Whether tests may.
    tests: bool,
}

const BANS: &[Ban] = &[
    Ban {
        word: "println!",
        why: "standard output may be closed, and then it panics: write, and look at the result",
        rooms: &["crates/rollout-cli/build.rs"],
        tests: true,
    },
    Ban {
        word: "print!",
        why: "standard output may be closed, and then it panics: write, and look at the result",
        rooms: &[],
        tests: true,
    },
    Ban {
        word: "process::exit",
        why: "nothing is dropped: return an exit code from main",
        // A second signal means at once.
        rooms: &["crates/rollout-harness/src/interrupt.rs"],
        tests: false,
    },
    Ban {
        word: "unbounded_channel",
        why: "queues are bounded, with a policy for when they are full",
        // One word for each start and end of a process, of a thread that is waited for: it must not
        // wait in its turn.
        rooms: &["crates/rollout-cli/src/run/fleet.rs"],
        tests: true,
    },
    Ban {
        word: "mpsc::channel()",
        why: "queues are bounded, with a policy for when they are full: sync_channel",
        // The one counts what waits and drops lines, the other has a semaphore before it.
        rooms: &["crates/rollout-cli/src/stream.rs", "crates/rollout-plugin-host/src/cdylib.rs"],
        tests: true,
    },
    Ban {
        word: "#[ignore]",
        why: "a test that is not run claims nothing: say why it is there",
        rooms: &[],
        tests: false,
    },
    Ban {
        word: "#[allow(",
        why: "#[expect(…, reason)] says why, and when it is no longer needed",
        rooms: &[],
        tests: false,
    },
    Ban {
        word: "#![allow(",
        why: "#![expect(…, reason)] says why, and when it is no longer needed",
        rooms: &[],
        tests: false,
    },
    Ban {
        word: "unimplemented!",
        why: "what is not there yet is not there: no stubs",
        rooms: &[],
        tests: false,
    },
    Ban {
        word: "static mut",
        why: "a static that can change is an atomic or behind a lock",
        rooms: &[],
        tests: false,
    },
    Ban {
        word: "catch_unwind",
        why: "panics are caught where foreign code is called, and nowhere else",
        rooms: &["crates/rollout-plugin-sdk/", "crates/rollout-plugin-host/"],
        tests: false,
    },
];

/// Forbidden words outside their rooms.
pub(crate) fn calls(tree: &Tree) -> Vec<Complaint> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let banned = BANS.iter().filter(|ban| !ban.rooms.iter().any(|r| file.path.starts_with(r)));
        for ban in banned {
            let code = if ban.tests { &file.product } else { &file.code };
            let whole = code.match_indices(ban.word).map(|(at, _)| at).filter(|&at| {
                let before = at.checked_sub(1).map(|before| code.as_bytes()[before]);
                !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            });
            let what = format!("`{}`: {}", ban.word, ban.why);
            found.extend(whole.map(|at| Complaint::at(file, at, what.clone())));
        }
    }
    found
}

/// The crates that may hold `unsafe` code; tests/tests/dependency_direction.rs sees to the lints.
const UNSAFE: [&str; 4] = [
    "crates/rollout-plugin-abi/",
    "crates/rollout-plugin-sdk/",
    "crates/rollout-plugin-host/",
    "crates/rollout-process/",
];

/// `unsafe` outside its rooms: also where a build for another system would compile it first.
pub(crate) fn unsafe_code(tree: &Tree) -> Vec<Complaint> {
    let outside = tree.rust().filter(|file| !UNSAFE.iter().any(|room| file.path.starts_with(room)));
    let what = "`unsafe` outside rollout-plugin-abi, -sdk, -host and rollout-process";
    let all = outside.flat_map(|file| words(&file.code, "unsafe").map(move |at| (file, at)));
    all.map(|(file, at)| Complaint::at(file, at, what)).collect()
}
