//! The checks, in order. Each finds the plugin alive and has to leave it so; where one does not, the
//! next has a plugin started anew.

use std::fs;

use rollout_core::{Clock, Mono, SystemClock};
use rollout_plugin_host::{Manifest, Plugin, PluginError};

use super::super::args::CheckArgs;
use super::super::sample::Sample;
use super::super::stage::Stage;
use super::live::Live;
use super::report::{Finding, Row, Verdict};
use super::{calls, chain, limits};

/// What checks a plugin.
pub(super) struct Suite<'a> {
    manifest: Manifest,
    stage: &'a Stage,
    args: &'a CheckArgs,
    live: Option<Live>,
    rows: Vec<Row>,
}

impl<'a> Suite<'a> {
    pub(super) fn new(manifest: Manifest, stage: &'a Stage, args: &'a CheckArgs) -> Self {
        Self { manifest, stage, args, live: None, rows: Vec::new() }
    }

    pub(super) async fn run(mut self) -> Vec<Row> {
        let detail = format!("`{}` is valid", self.args.manifest.display());
        self.add("manifest", SystemClock.now(), Finding::pass(detail));
        self.start().await;
        self.row("probe", calls::probe).await;
        self.row("unknown method", calls::unknown_method).await;
        self.row("bad params", calls::bad_params).await;
        self.row("max_frame", limits::max_frame).await;
        self.row("concurrency", limits::concurrency).await;
        self.row("deadline", limits::deadline).await;
        self.row("cancel", limits::cancel).await;
        self.shutdown().await;
        self.leftovers();
        self.rows
    }

    fn add(&mut self, check: &'static str, since: Mono, finding: Finding) {
        self.rows.push(Row { check, finding, took: SystemClock.now().since(since) });
    }

    async fn start(&mut self) {
        let since = SystemClock.now();
        let finding = match self.launch().await {
            Ok(names) => {
                let took = SystemClock.now().since(since);
                Finding::pass(format!("ready in {} ms, with {names}", took.as_millis()))
            }
            Err(finding) => finding,
        };
        self.add("start", since, finding);
    }

    /// Starts the plugin; the names of its methods.
    async fn launch(&mut self) -> Result<String, Finding> {
        let told =
            |error: PluginError| Finding::fail(format!("{} ({})", chain(&error), error.code()));
        let plugin = Plugin::start(self.manifest.clone(), &self.stage.host).await.map_err(told)?;
        let listed: Vec<String> = plugin.methods().iter().map(|it| it.name.clone()).collect();
        let Some(sample) = Sample::of(&self.manifest, &plugin) else {
            return Err(Finding::fail("it lists no methods"));
        };
        if let Some(stranger) = self.args.methods.iter().find(|name| !listed.contains(name)) {
            return Err(Finding::fail(format!("it has no method `{stranger}`")));
        }
        let names = listed.join(", ");
        let chosen = &self.args.methods;
        self.live = Some(Live {
            plugin: plugin.into(),
            sample,
            manifest: self.manifest.clone(),
            timeout: self.manifest.limits.call_timeout(Some(self.args.timeout)),
            methods: if chosen.is_empty() { listed } else { chosen.clone() },
        });
        Ok(names)
    }

    /// Runs a check, and sees that the plugin is there afterwards as it was before.
    async fn row(&mut self, name: &'static str, check: impl AsyncFnOnce(&Live) -> Finding) {
        let since = SystemClock.now();
        if self.live.is_none() && (!self.has_run() || self.launch().await.is_err()) {
            self.add(name, since, Finding::skip("it does not run"));
            return;
        }
        let Some(live) = self.live.take() else { return };
        let exits = self.stage.exits().len();
        let mut finding = check(&live).await;
        if finding.verdict != Verdict::Fail
            && let Some(after) = live.settled().await
        {
            finding = after;
        }
        if finding.verdict != Verdict::Fail
            && let Some(exited) = self.stage.exits().get(exits)
        {
            let how = match (exited.code, exited.signal) {
                (Some(code), _) => format!("exited with {code}"),
                (None, Some(signal)) => format!("was killed by signal {signal}"),
                (None, None) => "ended".to_owned(),
            };
            finding = Finding::fail(format!("{}; it {how}", finding.detail));
        }
        if finding.verdict == Verdict::Fail {
            // Its end is not what is checked here.
            let _ = live.plugin.shutdown().await;
        } else {
            self.live = Some(live);
        }
        self.add(name, since, finding);
    }

    /// Whether the plugin has started at all.
    fn has_run(&self) -> bool {
        self.rows.iter().any(|row| row.check == "start" && row.finding.verdict == Verdict::Pass)
    }

    async fn shutdown(&mut self) {
        let since = SystemClock.now();
        if self.live.is_none() && self.has_run() {
            // A failure to start shows as a skipped check.
            let _ = self.launch().await;
        }
        let Some(live) = self.live.take() else {
            return self.add("shutdown", since, Finding::skip("it does not run"));
        };
        let exits = self.stage.exits().len();
        let since = SystemClock.now();
        let done = live.plugin.shutdown().await;
        let took = SystemClock.now().since(since);
        let grace = self.manifest.limits.shutdown_grace;
        let exited = self.stage.exits().get(exits).cloned();
        let finding = match (done, exited) {
            (Err(error), _) => Finding::fail(format!("{} ({})", chain(&error), error.code())),
            (Ok(()), Some(exited)) if exited.signal.is_some() => Finding::fail(format!(
                "it did not go within `limits.shutdown_grace` ({grace:?}) and was killed"
            )),
            (Ok(()), Some(exited)) if exited.code != Some(0) => Finding::warn(format!(
                "it went after {} ms with exit code {}",
                took.as_millis(),
                exited.code.unwrap_or_default()
            )),
            (Ok(()), _) => Finding::pass(format!("gone after {} ms", took.as_millis())),
        };
        self.add("shutdown", since, finding);
    }

    fn leftovers(&mut self) {
        let since = SystemClock.now();
        let files = self.stage.leftovers();
        let finding = match (files.len(), children()) {
            (0, 0) => Finding::pass("no process, no socket and no file"),
            (files, processes) => Finding::fail(format!(
                "{processes} processes, and {files} files in the sidecar directory"
            )),
        };
        self.add("leftovers", since, finding);
    }
}

/// How many child processes this process has, where the system says so (Linux).
fn children() -> usize {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    let of_thread = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children"));
    let lists = threads.filter_map(Result::ok).filter_map(|thread| of_thread(thread).ok());
    lists.map(|list| list.split_whitespace().count()).sum()
}
