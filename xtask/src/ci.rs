//! `cargo xtask ci`: the jobs of continuous integration, each by its name, the same here as there.

use std::time::{Duration, Instant};

use rollout_harness::{Interrupt, preflight};
use rollout_process::{Io, Spawn};

use crate::args::{CiArgs, Job};
use crate::cargo::{cargo, run as run_program};
use crate::tree::Complaint;
use crate::{book, commits, complain, say, tidy, unused};

/// How long a tool may take to say its version.
const PATIENCE: Duration = Duration::from_secs(20);

/// A part of a job.
enum Step {
    /// What a person can type after `cargo`.
    Cargo(&'static [&'static str]),
    /// A program that comes neither with the system nor with cargo.
    Tool(&'static Tool, &'static [&'static str]),
    /// A check of our own.
    Own(&'static str, fn(&CiArgs) -> u8),
}

/// A program that is built from its published source.
struct Tool {
    program: &'static str,
    install: &'static [&'static str],
}

/// Built without optimisation: it runs for a second, and builds for minutes.
const CARGO_DENY: Tool = Tool {
    program: "cargo-deny",
    install: &["install", "--locked", "--debug", "cargo-deny@0.20.2"],
};
const MDBOOK: Tool = Tool {
    program: "mdbook",
    install: &[
        "install",
        "--locked",
        "--debug",
        "--no-default-features",
        "--features=search",
        "mdbook@0.5.4",
    ],
};

/// What a job consists of. Every command takes the lock file as it is.
const fn steps(job: Job) -> &'static [Step] {
    use Step::{Cargo, Own, Tool};
    match job {
        Job::Commitlint => &[Own("commit messages", commitlint)],
        Job::DocsTestPolicy => &[Own("what comes with changes of behaviour", docs_test_policy)],
        Job::UnusedDeps => &[Own("dependencies that no code names", unused_deps)],
        Job::Lint => &[
            Cargo(&["fmt", "--all", "--check"]),
            Cargo(&["fmt", "--manifest-path=plugins/rust_cdylib_sample/Cargo.toml", "--check"]),
            Cargo(&["fmt", "--manifest-path=fuzz/Cargo.toml", "--check"]),
            Cargo(&["xtask", "tidy"]),
            Cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny=warnings"]),
            Cargo(&[
                "clippy",
                "--locked",
                "--package=rollout-cli",
                "--features=faults",
                "--",
                "--deny=warnings",
            ]),
            Cargo(&[
                "clippy",
                "--locked",
                "--package=rollout-plugin-host",
                "--features=schema",
                "--example=schemas",
                "--",
                "--deny=warnings",
            ]),
            Cargo(&[
                "clippy",
                "--locked",
                "--manifest-path=plugins/rust_cdylib_sample/Cargo.toml",
                "--target-dir=target/plugins",
                "--all-targets",
                "--",
                "--deny=warnings",
            ]),
        ],
        Job::Deny => &[Tool(&CARGO_DENY, &["--locked", "check", "bans", "licenses", "sources"])],
        Job::ArchitectureLint => &[Cargo(&[
            "test",
            "--locked",
            "--package=rollout-acceptance",
            "--test=dependency_direction",
        ])],
        Job::SchemaDrift => &[Cargo(&["xtask", "generate", "--check"])],
        Job::RustdocCheck => &[Cargo(&[
            "--config=build.rustdocflags=['--deny=warnings']",
            "doc",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ])],
        Job::DocsBuild => &[
            Own("links of the book", links),
            Tool(&MDBOOK, &["build", "docs", "--dest-dir=target/book"]),
        ],
        Job::Test => &[Cargo(&["xtask", "preflight"]), Cargo(&["test", "--locked"])],
        Job::Smoke => &[Cargo(&["xtask", "smoke"])],
    }
}

fn commitlint(args: &CiArgs) -> u8 {
    told(&commits::conventional(args.range.as_deref()))
}

fn docs_test_policy(args: &CiArgs) -> u8 {
    told(&commits::documented_or_tested(args.range.as_deref()))
}

fn unused_deps(_: &CiArgs) -> u8 {
    tidy::report(unused::dependencies)
}

fn links(_: &CiArgs) -> u8 {
    tidy::report(book::links)
}

fn told(complaints: &[Complaint]) -> u8 {
    for complaint in complaints {
        say(&format!("{complaint}\n"));
    }
    u8::from(!complaints.is_empty())
}

/// Runs one job, or all of them, with their output as it comes; the exit code. A job ends with its
/// first step that fails; the other jobs are run all the same.
pub(crate) fn run(args: &CiArgs, interrupt: &Interrupt) -> u8 {
    let jobs = args.job.map_or_else(Job::all, |job| vec![job]);
    let mut summary = String::new();
    let mut failed = None;
    for job in jobs {
        let start = Instant::now();
        let code = run_job(job, args, interrupt);
        let (mark, took) = (if code == 0 { "✓" } else { "✗" }, start.elapsed().as_secs_f64());
        summary.push_str(&format!("  {mark} {:<18} {took:>6.1} s\n", job.name()));
        failed = failed.or((code != 0).then_some(code));
        if interrupt.requested().is_some() {
            break;
        }
    }
    say(&format!("\n{summary}"));
    failed.unwrap_or(0)
}

fn run_job(job: Job, args: &CiArgs, interrupt: &Interrupt) -> u8 {
    for step in steps(job) {
        let (what, code) = match step {
            Step::Cargo(command) => {
                let what = format!("cargo {}", command.join(" "));
                say(&format!("\n$ {what}\n"));
                (what, cargo(command, interrupt))
            }
            Step::Tool(tool, command) => {
                let what = format!("{} {}", tool.program, command.join(" "));
                say(&format!("\n$ {what}\n"));
                (what, tool.run(command, args.install, interrupt))
            }
            Step::Own(what, check) => {
                say(&format!("\n{}: {what}\n", job.name()));
                ((*what).to_owned(), check(args))
            }
        };
        if code != 0 {
            complain(&format!("the job {} failed: {what}", job.name()));
            return code;
        }
    }
    0
}

impl Tool {
    fn run(&self, args: &[&str], install: bool, interrupt: &Interrupt) -> u8 {
        if !self.is_there() {
            if !install {
                let command = self.install.join(" ");
                complain(&format!("there is no {}; get it by: cargo {command}", self.program));
                return preflight::EXIT_CODE;
            }
            let code = cargo(self.install, interrupt);
            if code != 0 || !self.is_there() {
                complain(&format!("{} was not to be had", self.program));
                return if code == 0 { preflight::EXIT_CODE } else { code };
            }
        }
        let root = rollout_harness::binaries::workspace_root();
        run_program(Spawn::new(self.program).args(args).current_dir(root), interrupt)
    }

    fn is_there(&self) -> bool {
        let asked = Spawn::new(self.program).arg("--version").stderr(Io::Null);
        asked.output(Some(PATIENCE)).is_ok_and(|output| output.exit.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_every_job_takes_the_lock_file_as_it_is() {
        for job in Job::all() {
            assert!(!steps(job).is_empty(), "{}", job.name());
            for step in steps(job) {
                let Step::Cargo(command) = step else { continue };
                let exempt = ["fmt", "xtask"].contains(&command[0]);
                assert!(exempt || command.contains(&"--locked"), "{command:?}");
            }
        }
        for tool in [&CARGO_DENY, &MDBOOK] {
            assert!(tool.install.contains(&"--locked"));
        }
    }

    #[test]
    fn a_tool_that_is_missing_is_named_with_the_way_to_get_it() {
        let none = Tool { program: "no-such-tool-of-rollout", install: &["install", "--locked"] };
        assert!(!none.is_there());
        assert_eq!(none.run(&[], false, &Interrupt::default()), preflight::EXIT_CODE);
    }
}
