//! A reader who types a chapter, from the root of a copy of the project.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rollout_acceptance::built;
use rollout_harness::binaries::{cargo_command, workspace_root};
use rollout_process::{Child, Io, Ladder, Spawn};
use tempfile::TempDir;

use super::blocks::{Block, Note};
use super::xtask;

/// How long a block may take, and what goes on meanwhile until it is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stands in for `cargo`: everything is built already.
const CARGO: &str = "#!/bin/sh
case $1 in
xtask) shift; exec '{xtask}' \"$@\" ;;
run) while [ \"$1\" != -- ]; do shift; done; shift; exec '{rollout}' \"$@\" ;;
build) exit 0 ;;
*) echo \"cargo $1 is not for this test\" >&2; exit 64 ;;
esac
";

/// The directory, and what goes on in it.
#[derive(Debug)]
pub(crate) struct Session {
    dir: TempDir,
    /// What chapters call 127.0.0.1. Chapters that listen on one port are typed at the same time.
    address: String,
    going_on: Vec<Child>,
}

impl Session {
    pub(crate) fn new() -> Self {
        let address = match cfg!(target_os = "linux") {
            true => alias(),
            false => "127.0.0.1".to_owned(),
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let session = Self { dir, address, going_on: Vec::new() };
        session.furnish();
        session
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Links to what is in the project, but for what is made, and for fixtures that name the port.
    fn furnish(&self) {
        let root = workspace_root();
        let made = ["target", "data", "runs", "tests", "plugins", ".git"];
        // What a path leads up and out of must not be a link.
        for to in [".", "tests", "plugins", "plugins/c_sample"] {
            let from = root.join(to);
            fs::create_dir_all(self.path(to)).expect("a new directory");
            for entry in fs::read_dir(from).expect("the project can be read").flatten() {
                let name = entry.file_name();
                let done = made.iter().chain(&["smoke", "c_sample"]);
                if !done.clone().any(|done| name == *done) {
                    symlink(entry.path(), self.path(to).join(name)).expect("a new link");
                }
            }
        }
        for dir in ["bin", "tests/smoke", "target/plugins", "target/release", "target/debug"] {
            fs::create_dir_all(self.path(dir)).expect("a new directory");
        }
        for name in ["coordinator.toml", "worker.toml"] {
            let text = fs::read_to_string(root.join("tests/smoke").join(name));
            self.write(&format!("tests/smoke/{name}"), &text.expect("the fixture is there"));
        }
        for (from, to) in [
            (root.join("tests/smoke/plugins"), "tests/smoke/plugins"),
            (root.join("target/plugins/debug"), "target/plugins/debug"),
            (built().rollout.clone(), "target/release/rollout"),
            (built().rollout.clone(), "target/debug/rollout"),
            (built().rollout.clone(), "bin/rollout"),
        ] {
            symlink(from, self.path(to)).expect("a new link");
        }
        let cargo = CARGO
            .replace("{xtask}", &xtask().to_string_lossy())
            .replace("{rollout}", &built().rollout.to_string_lossy());
        self.write("bin/cargo", &cargo);
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path("bin/cargo"), executable).expect("it was just written");
    }

    /// The text with this session's address in it.
    fn here(&self, text: &str) -> String {
        text.replace("127.0.0.1", &self.address)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap_or(&path)).expect("a new directory");
        fs::write(path, self.here(text)).expect("it can be written");
    }

    /// Carries out a block, or says what is wrong with it.
    pub(crate) fn play(&mut self, block: &Block) -> Result<(), String> {
        match &block.note {
            Note::File(path) => self.write(path, &block.text),
            _ if !block.is_commands() => {}
            Note::Skip(_) => {}
            Note::Until(text) => self.start(&block.typed(), text)?,
            Note::Plain | Note::Exit(_) if block.lang == "sh" => {
                self.run(&block.text, wanted(&block.note), &[])?;
            }
            Note::Plain | Note::Exit(_) => {
                let dialogue = block.dialogue();
                let last = dialogue.len() - 1;
                for (n, (command, printed)) in dialogue.iter().enumerate() {
                    let code = if n == last { wanted(&block.note) } else { 0 };
                    self.run(command, code, printed)?;
                }
            }
        }
        Ok(())
    }

    fn shell(&self, script: &str, output: File) -> Spawn {
        let path = std::env::var("PATH").unwrap_or_default();
        let errors = output.try_clone().expect("a descriptor");
        Spawn::new("sh")
            .args(["-e", "-c", &self.here(script)])
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.dir.path())
            .env_remove("PYTHONPATH")
            .current_dir(self.dir.path())
            .stdout(Io::File(output))
            .stderr(Io::File(errors))
    }

    fn output(&self) -> (PathBuf, File) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("bin/{}.out", NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = File::options().create(true).append(true).open(self.path(&name));
        (self.path(&name), file.expect("a new file"))
    }

    fn run(&self, script: &str, code: i32, printed: &[String]) -> Result<(), String> {
        let (path, file) = self.output();
        let child = self.shell(script, file).spawn().map_err(|error| error.to_string())?;
        let exit = child.wait_timeout(PATIENCE);
        let said = fs::read_to_string(path).unwrap_or_default();
        let Some(exit) = exit else {
            child.stop(Ladder { grace: Duration::ZERO });
            return Err(format!("not done after {PATIENCE:?}:\n{script}\n{said}"));
        };
        if exit.code != Some(code) {
            return Err(format!("{exit}, and not with {code}:\n{script}\n{said}"));
        }
        match shows(printed, &said) {
            true => Ok(()),
            false => Err(format!(
                "the book says that\n{script}\nprints\n{}\nand it prints\n{said}",
                printed.join("\n")
            )),
        }
    }

    fn start(&mut self, script: &str, until: &str) -> Result<(), String> {
        let (path, file) = self.output();
        let child = self.shell(script, file).spawn().map_err(|error| error.to_string())?;
        let start = Instant::now();
        loop {
            let exit = child.try_wait();
            let said = fs::read_to_string(&path).unwrap_or_default();
            if said.contains(until) {
                self.going_on.push(child);
                return Ok(());
            }
            if exit.is_some() || start.elapsed() > PATIENCE {
                return Err(format!("never `{until}` ({exit:?}):\n{script}\n{said}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        while let Some(child) = self.going_on.pop() {
            child.stop(Ladder { grace: Duration::from_secs(5) });
        }
    }
}

fn wanted(note: &Note) -> i32 {
    if let Note::Exit(code) = note { *code } else { 0 }
}

/// A loopback address that no other process takes.
fn alias() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = std::process::id().wrapping_mul(64) + NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, a, b, c] = id.to_be_bytes();
    format!("127.{a}.{b}.{}", c.clamp(2, 253))
}

/// Whether a command's output is as shown. Figures and ids are of the same kind and not the same;
/// `...` is any number of lines, `…` any text in one.
pub(crate) fn shows(shown: &[String], said: &str) -> bool {
    let said: Vec<_> = said.lines().map(plain).collect();
    let shown: Vec<_> = shown.iter().map(|line| plain(line)).collect();
    shown.is_empty() || lines_match(&shown, &said)
}

fn lines_match(shown: &[String], said: &[String]) -> bool {
    match (shown.split_first(), said.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((gap, rest)), there) if gap == "..." => {
            lines_match(rest, said) || there.is_some_and(|(_, later)| lines_match(shown, later))
        }
        (Some((line, rest)), Some((other, later))) => {
            line_matches(line, other) && lines_match(rest, later)
        }
        (Some(_), None) => false,
    }
}

fn line_matches(shown: &str, said: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = said.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        let at = if parts.peek().is_none() {
            rest.ends_with(part).then(|| rest.len() - part.len())
        } else {
            rest.find(part)
        };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// A line with `#` for each figure and id, and one space for several.
fn plain(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let mut plain = String::new();
        for c in word.chars() {
            let figure = c.is_ascii_digit() || (".,".contains(c) && plain.ends_with('#'));
            if !figure {
                plain.push(c);
            } else if !plain.ends_with('#') {
                plain.push('#');
            }
        }
        plain
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Builds `cargo xtask` beside `rollout`.
pub(crate) fn build_xtask() -> PathBuf {
    let release: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    let build = ["build", "--locked", "--quiet", "--package", "xtask"];
    let spawn = cargo_command().args([&build, release].concat()).stderr(Io::Pipe);
    let output = spawn.output(None).expect("cargo is there");
    assert!(output.exit.success(), "{}", String::from_utf8_lossy(&output.stderr));
    built().rollout.parent().unwrap_or(Path::new("")).join("xtask")
}
