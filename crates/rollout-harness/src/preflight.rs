//! What a run needs on the machine: cargo, a C compiler, and Python 3.11 or newer.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rollout_process::{Io, Spawn};

/// The exit code of a command that stops because of a failed preflight.
pub const EXIT_CODE: u8 = 3;

/// The oldest Python that the sidecars run on.
const OLDEST_PYTHON: (u32, u32) = (3, 11);
/// How long a tool may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

const CARGO_ADVICE: &str = "install Rust from https://rustup.rs and re-run";
const COMPILER_ADVICE: &str = "install one (apt install gcc, dnf install gcc, xcode-select --install) or name yours in CC, \
     and re-run";
const PYTHON_ADVICE: &str = "install a newer interpreter (brew install python@3.13, pyenv install \
                             3.13.3, or your distro's python3.11 package) and re-run";

/// Where tools are looked for.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The search path.
    pub path: OsString,
    /// The cargo to use, if one is named.
    pub cargo: Option<OsString>,
    /// The C compiler to use, if one is named.
    pub cc: Option<OsString>,
}

impl Machine {
    /// This one, as the environment describes it.
    #[must_use]
    pub fn this() -> Self {
        Self {
            path: env::var_os("PATH").unwrap_or_default(),
            cargo: env::var_os("CARGO"),
            cc: env::var_os("CC").filter(|cc| !cc.is_empty()),
        }
    }

    fn find(&self, name: &OsStr) -> Option<PathBuf> {
        let runs = |file: &PathBuf| {
            file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        if Path::new(name).components().count() > 1 {
            return Some(PathBuf::from(name)).filter(runs);
        }
        env::split_paths(&self.path).map(|dir| dir.join(name)).find(runs)
    }

    /// The first line that `name --version` prints.
    fn version(&self, name: &OsStr) -> Result<String, String> {
        let shown = name.display();
        let file = self.find(name).ok_or_else(|| format!("{shown} is not on the PATH"))?;
        let run = Spawn::new(&file)
            .arg("--version")
            .env("PATH", &self.path)
            .stdout(Io::Pipe)
            .stderr(Io::Pipe)
            .output(Some(PATIENCE));
        let output = run.map_err(|e| format!("{} does not run: {e}", file.display()))?;
        if !output.exit.success() {
            return Err(format!("`{} --version` {}", file.display(), output.exit));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }
}

/// What is to be said about one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The tool.
    pub tool: &'static str,
    /// Its version, or what is wrong and what to do.
    pub found: Result<String, String>,
}

/// Looks at the tools, all at the same time.
#[must_use]
pub fn check(machine: &Machine) -> Vec<Finding> {
    type Look = fn(&Machine) -> Result<String, String>;
    let tools: [(&str, Look); 3] =
        [("cargo", cargo), ("C compiler", c_compiler), ("python3", python)];
    thread::scope(|scope| {
        let looks = tools.map(|(tool, look)| (tool, scope.spawn(move || look(machine))));
        looks
            .into_iter()
            .map(|(tool, look)| {
                let found = look.join().unwrap_or_else(|_| Err("the check itself failed".into()));
                Finding { tool, found }
            })
            .collect()
    })
}

fn cargo(machine: &Machine) -> Result<String, String> {
    let name = machine.cargo.as_deref().unwrap_or(OsStr::new("cargo"));
    machine.version(name).map_err(|why| format!("{why}; {CARGO_ADVICE}"))
}

/// `CC` may carry arguments after the program, as in `ccache gcc`.
fn c_compiler(machine: &Machine) -> Result<String, String> {
    let named = machine.cc.as_ref().and_then(|cc| cc.to_str()?.split_whitespace().next());
    let names = named.map_or(vec!["cc", "gcc", "clang"], |name| vec![name]);
    names
        .iter()
        .find_map(|name| machine.version(OsStr::new(name)).ok())
        .ok_or_else(|| format!("none of {} runs; {COMPILER_ADVICE}", names.join(", ")))
}

fn python(machine: &Machine) -> Result<String, String> {
    let version =
        machine.version(OsStr::new("python3")).map_err(|why| format!("{why}; {PYTHON_ADVICE}"))?;
    let (major, minor) = OLDEST_PYTHON;
    match number(&version) {
        Some(found) if found >= OLDEST_PYTHON => Ok(version),
        Some(_) => Err(format!("{version} is older than {major}.{minor}; {PYTHON_ADVICE}")),
        None => Err(format!("`python3 --version` says `{version}`; {PYTHON_ADVICE}")),
    }
}

/// Major and minor of `Python 3.11.7`.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("Python ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(tools: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        for (name, says) in tools {
            let file = dir.path().join(name);
            fs::write(&file, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = dir.path().as_os_str().to_owned();
        (dir, Machine { path, cargo: None, cc: None })
    }

    #[test]
    fn a_machine_with_all_three_passes() {
        let (_dir, machine) = machine(&[
            ("cargo", "cargo 1.95.0"),
            ("clang", "clang 20"),
            ("python3", "Python 3.11.0"),
        ]);
        let found: Vec<_> = check(&machine).into_iter().map(|f| f.found.unwrap()).collect();
        assert_eq!(found, ["cargo 1.95.0", "clang 20", "Python 3.11.0"]);
    }

    #[test]
    fn an_old_python_is_refused_with_its_version_and_what_to_install() {
        for (says, found) in [("Python 3.10.14", "3.10.14"), ("Python 2.7", "2.7"), ("?", "?")] {
            let (_dir, machine) = machine(&[("python3", says)]);
            let error = python(&machine).unwrap_err();
            assert!(error.contains(found) && error.contains("pyenv install 3.13.3"), "{error}");
        }
        let (_dir, newer) = machine(&[("python3", "Python 3.14.0rc1")]);
        assert!(python(&newer).is_ok());
        let (_dir, newest) = machine(&[("python3", "Python 4.0.1")]);
        assert!(python(&newest).is_ok());
    }

    #[test]
    fn a_bare_machine_is_told_about_each_missing_tool() {
        let (_dir, machine) = machine(&[]);
        let findings = check(&machine);
        for (finding, advice) in findings.iter().zip(["rustup.rs", "CC", "brew install"]) {
            let error = finding.found.as_ref().unwrap_err();
            assert!(error.contains(advice), "{}: {error}", finding.tool);
        }
    }

    #[test]
    fn a_compiler_named_in_cc_is_the_one_that_counts() {
        let (_dir, mut machine) = machine(&[("gcc", "gcc 15"), ("mycc", "mycc 1")]);
        machine.cc = Some("mycc -m64".into());
        assert_eq!(c_compiler(&machine).unwrap(), "mycc 1");
        machine.cc = Some("nocc".into());
        assert!(c_compiler(&machine).unwrap_err().contains("nocc"));
    }
}
