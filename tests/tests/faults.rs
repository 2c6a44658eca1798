//! Faults that cannot be injected from outside, on real processes: a failing disk, clocks that are an
//! hour off. The program that can have them is built beside the one that ships, which cannot.

use std::fs;

use rollout_acceptance::{Stage, built, faulty, text};
use rollout_harness::binaries::FAULTS;
use rollout_process::Spawn;

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn the_program_that_ships_has_no_faults_and_does_not_look_for_any() {
    let (ships, has_faults) = (fs::read(&built().rollout).unwrap(), fs::read(faulty()).unwrap());
    for word in [FAULTS, "clock_offset", "stall_credit"] {
        assert!(!contains(&ships, word), "{word} is in the program that ships");
        assert!(contains(&has_faults, word), "{word} is not where it has to be");
    }
    let stage = Stage::new();
    let file = stage.root().join("faults.toml");
    fs::write(&file, "colour = 1\n").unwrap();
    let config = text(&stage.fixtures().join("coordinator.toml"));
    let args = ["config", "check", &config];
    let run = |name: &str, program: &std::path::Path| {
        let spawn = Spawn::new(program).env(FAULTS, &file).args(args);
        stage.run(name, spawn)
    };
    let (deaf, hearing) = (run("deaf", &built().rollout), run("hearing", faulty()));
    assert_eq!(deaf.exit().code, Some(0), "{}", deaf.stderr());
    assert_eq!(hearing.exit().code, Some(78), "{}", hearing.stderr());
    let stderr = hearing.stderr();
    assert!(
        stderr.contains("faults.toml") && stderr.contains("unknown field `colour`"),
        "{stderr}"
    );
}
