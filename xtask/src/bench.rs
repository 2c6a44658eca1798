//! `cargo xtask bench`: builds with the release profile, then runs `rollout-bench`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf, absolute};

use rollout_core::ExitCode;
use rollout_harness::binaries::{self, BuildError, Example, Profile, workspace_root};
use rollout_harness::{Interrupt, preflight};

use crate::args::{BenchAllArgs, BenchArgs, BenchCommand, BenchWorkArgs};
use crate::cargo::cargo;
use crate::complain;
use crate::prepare::built;

/// Rounds of what takes little time.
const MANY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
/// Of what takes more.
const SOME: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// Runs a suite; the exit code.
pub(crate) fn run(command: &BenchCommand, interrupt: &Interrupt) -> u8 {
    if !crate::preflight::passes() {
        return preflight::EXIT_CODE;
    }
    let suite = Suites { interrupt };
    match command {
        BenchCommand::Plugin(args) => suite.plugin(args),
        BenchCommand::Work(args) => {
            let own = work_options(args);
            suite.work(own, &args.bench)
        }
        BenchCommand::Liveness(args) => suite.liveness(args),
        BenchCommand::Fleet(args) => {
            let (workers, seconds) = (args.workers.clone(), args.seconds);
            let seconds = seconds.map(|seconds| seconds.to_string());
            let own = [("--workers", workers), ("--seconds", seconds)];
            suite.fleet("fleet", &own, &args.bench)
        }
        BenchCommand::Restart(args) => {
            suite.fleet("restart", &[("--workers", args.workers.clone())], &args.bench)
        }
        BenchCommand::Ledger(args) => suite.run("ledger", Vec::new(), SOME, args),
        BenchCommand::Build(args) => suite.run("build", Vec::new(), NonZeroUsize::MIN, args),
        BenchCommand::All(args) => suite.all(args),
    }
}

/// What the suites have in common.
struct Suites<'a> {
    interrupt: &'a Interrupt,
}

impl Suites<'_> {
    fn plugin(&self, args: &BenchArgs) -> u8 {
        match built(self.plugins()) {
            Ok(given) => self.run("plugin", given, MANY, args),
            Err(code) => code,
        }
    }

    fn work(&self, own: Vec<String>, args: &BenchArgs) -> u8 {
        match built(self.jobs()) {
            Ok(given) => self.run("work", [given, own].concat(), SOME, args),
            Err(code) => code,
        }
    }

    fn liveness(&self, args: &BenchArgs) -> u8 {
        match built(self.example(Example::Program, ("rollout-coordinator", "simulate"))) {
            Ok(simulate) => self.run("liveness", options([("--simulate", simulate)]), SOME, args),
            Err(code) => code,
        }
    }

    fn fleet(&self, suite: &str, own: &[(&str, Option<String>)], args: &BenchArgs) -> u8 {
        let built = built(binaries::program(Profile::Release, self.interrupt, &mut |_| {}));
        let mut given = match built {
            Ok(rollout) => options([("--rollout", rollout)]),
            Err(code) => return code,
        };
        for (option, value) in own {
            given.extend(value.iter().flat_map(|value| [(*option).to_owned(), value.clone()]));
        }
        self.run(suite, given, SOME, args)
    }

    /// Every suite, whatever has become of the one before, but for one that was interrupted.
    fn all(&self, all: &BenchAllArgs) -> u8 {
        type Suite = fn(&Suites<'_>, &BenchArgs) -> u8;
        let suites: [(&str, Suite); 6] = [
            ("liveness", |this, args| this.liveness(args)),
            ("ledger", |this, args| this.run("ledger", Vec::new(), SOME, args)),
            ("fleet", |this, args| this.fleet("fleet", &[], args)),
            ("restart", |this, args| this.fleet("restart", &[], args)),
            ("plugin", |this, args| this.plugin(args)),
            ("work", |this, args| this.work(Vec::new(), args)),
        ];
        let mut worst = 0;
        for (name, suite) in suites {
            let file = |end| all.dir.as_ref().map(|dir| dir.join(format!("{name}.{end}")));
            let (json, svg) = (file("json"), file("svg"));
            let code =
                suite(self, &BenchArgs { rounds: all.rounds, json, svg, record: all.record });
            if self.interrupt.requested().is_some() {
                return code;
            }
            worst = worst.max(code);
        }
        worst
    }

    fn run(&self, suite: &str, given: Vec<String>, rounds: NonZeroUsize, args: &BenchArgs) -> u8 {
        let mut run = words("run --quiet --release --locked --package rollout-bench --");
        run.push(suite.to_owned());
        run.extend(given);
        run.extend(["--rounds".into(), args.rounds.unwrap_or(rounds).to_string()]);
        if args.record {
            run.extend(["--record".into(), text(&workspace_root().join("docs"))]);
        }
        for (option, file) in [("--json", &args.json), ("--svg", &args.svg)] {
            // Cargo is run in the workspace, wherever this was started.
            let Some(file) = file.as_ref().map(absolute).transpose().unwrap_or_else(|_| {
                complain(&format!("{option} has no file"));
                Some(PathBuf::new())
            }) else {
                continue;
            };
            if file.as_os_str().is_empty() {
                return ExitCode::Usage.code();
            }
            run.extend([option.into(), text(&file)]);
        }
        let run: Vec<_> = run.iter().map(String::as_str).collect();
        cargo(&run, self.interrupt)
    }

    /// The options that say where what is measured of plugins lies.
    fn plugins(&self) -> Result<Vec<String>, BuildError> {
        let built = binaries::build(Profile::Release, self.interrupt, &mut |_| {})?;
        let sleeper = self.library("hostile")?;
        Ok(options([
            ("--rollout", built.rollout),
            ("--cdylib", built.cdylib),
            ("--sleeper", sleeper),
        ]))
    }

    /// The same of jobs.
    fn jobs(&self) -> Result<Vec<String>, BuildError> {
        let rollout = binaries::program(Profile::Release, self.interrupt, &mut |_| {})?;
        Ok(options([("--rollout", rollout), ("--noop", self.library("noop")?)]))
    }

    /// A library that is measured.
    fn library(&self, name: &str) -> Result<PathBuf, BuildError> {
        self.example(Example::Library, ("rollout-plugin-host", name))
    }

    fn example(&self, kind: Example, of: (&str, &str)) -> Result<PathBuf, BuildError> {
        binaries::example(kind, of, Profile::Release, self.interrupt, &mut |_| {})
    }
}

fn options<const N: usize>(options: [(&str, PathBuf); N]) -> Vec<String> {
    let both = |(option, path): (&str, PathBuf)| [option.to_owned(), text(&path)];
    options.into_iter().flat_map(both).collect()
}

/// What of a job is measured.
fn work_options(args: &BenchWorkArgs) -> Vec<String> {
    let mut own = vec!["--items".to_owned(), args.items.to_string()];
    own.extend(args.only.iter().flat_map(|part| ["--only".to_owned(), part.clone()]));
    own
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
