//! A directory with a plugin and a job in it, and `rollout` run there as a process of its own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rollout_process::{Child, Exit, Io, Signal, Spawn, Stream, WatchConfig, Watched};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Items take `sleep_ms`, those in `fail` raise, those in `large` are of 100,000 bytes.
const PLUGIN: &str = r#"
import time
from rollout_plugin import JobItem, Plugin, method, run

class Tried(Plugin):
    name = "tried"
    version = "0.1.0"

    @method
    def run(self, params, call):
        item = JobItem(params)
        time.sleep(self.config.get("sleep_ms", 0) / 1000)
        if item.number in self.config.get("fail", []):
            raise ValueError(f"item {item.number} does not work")
        if item.number in self.config.get("large", []):
            return "x" * 100_000
        return {"item": item.number, "seed": item.seed, "params": item.params}

run(Tried)
"#;

pub(crate) struct Stage {
    dir: TempDir,
}

impl Stage {
    /// A job of so many items, with more lines for its table, and a table of configuration.
    pub(crate) fn new(items: u64, job: &str, config: &str) -> Self {
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
        let manifest = format!(
            "[plugin]\nname = \"tried\"\nversion = \"0.1.0\"\n[entry.sidecar]\n\
             command = [\"python3\", \"tried.py\"]\nenv = {{ PYTHONPATH = {:?} }}\n\
             [limits]\nmax_in_flight = 2\n[config]\n{config}\n",
            python.display().to_string()
        );
        stage.write("tried.py", PLUGIN);
        stage.write("plugin.toml", &manifest);
        stage.job(items, job);
        stage
    }

    pub(crate) fn job(&self, items: u64, more: &str) {
        let job = format!(
            "[job]\nplugin = \"plugin.toml\"\nitems = {items}\nbatch = 4\n{more}\n\
             [workers]\ncount = 2\n"
        );
        self.write("job.toml", &job);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    fn spawn(&self, args: &[&str]) -> Spawn {
        Spawn::new(assert_cmd::cargo::cargo_bin!("rollout")).current_dir(self.dir.path()).args(args)
    }

    /// Runs it to its end: the exit code, and both outputs.
    pub(crate) fn rollout(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let output = self.spawn(args).stderr(Io::Pipe).output(Some(PATIENCE)).unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
        assert!(!output.timed_out, "{args:?} does not end: {err}");
        (output.exit.code, out, err)
    }

    /// Runs it to an end with this exit code; what it wrote to standard error.
    pub(crate) fn exits(&self, code: i32, args: &[&str]) -> String {
        let (found, _, err) = self.rollout(args);
        assert_eq!(found, Some(code), "{args:?}: {err}");
        err
    }

    /// Starts it.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let child = self.spawn(args).stderr(Io::Pipe).stdout(Io::Pipe).spawn().unwrap();
        Running::new(child)
    }

    /// Starts this program here.
    pub(crate) fn start_program(&self, program: &Path, args: &[&str]) -> Running {
        let spawn = Spawn::new(program).current_dir(self.dir.path()).args(args);
        Running::new(spawn.stderr(Io::Pipe).stdout(Io::Pipe).spawn().unwrap())
    }

    /// Starts it with its standard output in a file.
    pub(crate) fn start_into(&self, name: &str, args: &[&str]) -> Running {
        let out = fs::File::create(self.path(name)).unwrap();
        let child = self.spawn(args).stderr(Io::Pipe).stdout(Io::File(out)).spawn().unwrap();
        Running::new(child)
    }

    /// Waits until a file has this text in it.
    pub(crate) fn await_text(&self, name: &str, text: &str) {
        let began = Instant::now();
        while !fs::read_to_string(self.path(name)).unwrap_or_default().contains(text) {
            assert!(began.elapsed() < PATIENCE, "{name} has no {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a file has so many lines.
    pub(crate) fn await_lines(&self, name: &str, lines: usize) {
        let began = Instant::now();
        loop {
            let text = fs::read_to_string(self.path(name)).unwrap_or_default();
            if text.lines().count() >= lines {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{name} has {} lines", text.lines().count());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Every process that names this stage, in its arguments or as its directory.
    pub(crate) fn processes(&self) -> Vec<String> {
        let here = self.dir.path().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let pid = entry.file_name().to_string_lossy().parse::<u32>();
            if pid.is_ok_and(|pid| pid != std::process::id())
                && (line.contains(&here) || cwd.starts_with(&here))
            {
                found.push(line);
            }
        }
        found
    }

    /// Kills one process of this stage whose arguments have these words.
    pub(crate) fn kill_one(&self, words: &str) {
        let began = Instant::now();
        let here = self.dir.path().to_string_lossy().into_owned();
        loop {
            for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                if line.contains(words) && line.contains(&here) {
                    let pid = entry.file_name();
                    let kill = Spawn::new("kill").arg("-KILL").arg(pid);
                    assert!(kill.output(Some(PATIENCE)).unwrap().exit.success());
                    return;
                }
            }
            assert!(began.elapsed() < PATIENCE, "there is no `{words}`");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until no process is left.
    pub(crate) fn await_nobody(&self) {
        let began = Instant::now();
        while !self.processes().is_empty() {
            assert!(began.elapsed() < PATIENCE, "still there: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// `rollout` as it runs.
pub(crate) struct Running {
    watched: Watched,
    said: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Running {
    fn new(child: Child) -> Self {
        let said = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let heard = std::sync::Arc::clone(&said);
        let on_line = move |stream, line: &str| {
            if stream == Stream::Stderr {
                let mut heard = heard.lock().unwrap();
                heard.push_str(line);
                heard.push('\n');
            }
        };
        let watched = child.watch(WatchConfig::default(), on_line, |_, _| {}).unwrap();
        Self { watched, said }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.watched.handle().signal_main(signal);
    }

    /// How it ends, and what it said.
    pub(crate) fn end(&self) -> (Exit, String) {
        let exit = self.watched.wait_timeout(PATIENCE);
        let said = self.said.lock().unwrap().clone();
        (exit.unwrap_or_else(|| panic!("does not end: {said}")), said)
    }
}

/// `rollout` that its test kills with SIGKILL, and nothing but it: its children have to see to
/// themselves. The guard of this test's own process would end them.
pub(crate) fn kill_alone(stage: &Stage, args: &[&str], once: impl FnOnce()) {
    // A shell in between is what the guard ends; what it has started is in the background.
    let program = assert_cmd::cargo::cargo_bin!("rollout").display().to_string();
    let mut words = vec!["-c", "\"$@\" 2>/dev/null & echo $! > pid; wait $!; sleep 600", "sh"];
    words.push(&program);
    words.extend(args);
    let shell = Spawn::new("sh").current_dir(stage.dir.path()).args(words).spawn().unwrap();
    once();
    let pid = stage.read("pid");
    let kill = Spawn::new("kill").args(["-KILL", pid.trim()]).output(Some(PATIENCE)).unwrap();
    assert!(kill.exit.success());
    let began = Instant::now();
    let mine = |line: &String| line.starts_with("sh -c") || line.starts_with("sleep");
    while stage.processes().iter().any(|line| !mine(line)) {
        assert!(began.elapsed() < PATIENCE, "still there: {:?}", stage.processes());
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(shell);
}
