//! What was asked for, and the job that comes of it: flags, job file, manifest and parameters.
//!
//! The request is recorded, so that resuming reads everything again and finds what has changed since.

use std::fs;
use std::path::{Path, PathBuf};

use rollout_core::job::file::{Items, JobFile, JobTable};
use rollout_core::{JobSpec, hex};
use rollout_plugin_host::Manifest;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config;
use crate::error::CliError;
use crate::fleet_at::FleetAt;
use crate::run::args::RunArgs;
use crate::run::error::RunError;
use crate::run::params;

/// What was asked for; its paths are absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Request {
    job: Option<PathBuf>,
    plugin: Option<String>,
    method: Option<String>,
    count: Option<u64>,
    params: Option<PathBuf>,
    seed: Option<u64>,
    pub(crate) workers: Option<u16>,
    pub(crate) fleet: Option<FleetAt>,
}

/// The job, ready to be submitted.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: JobSpec,
    /// The file of its items' parameters, if they have some.
    pub(crate) params: Option<PathBuf>,
    /// The plugin as this machine's workers are to load it.
    pub(crate) plugin: Option<PluginHere>,
    /// As many workers as the job file asks for.
    pub(crate) workers: Option<usize>,
    /// The directory that the job file names.
    pub(crate) out: Option<PathBuf>,
}

/// A plugin that workers of this machine load.
#[derive(Debug)]
pub(crate) struct PluginHere {
    /// Its manifest.
    pub(crate) manifest: PathBuf,
    /// Its manifest with the job's own configuration, to be written where it is needed.
    pub(crate) rewritten: Option<String>,
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, RunError> {
    std::path::absolute(path).map_err(RunError::file("find", path))
}

impl Request {
    /// What the flags ask for.
    pub(crate) fn from_args(args: &RunArgs) -> Result<Self, CliError> {
        let path = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
        let fleet = FleetAt::from_args(&args.fleet)?;
        let plugin = match &args.plugin {
            Some(plugin) if fleet.is_none() || is_path(plugin) => {
                Some(absolute(Path::new(plugin))?.to_string_lossy().into_owned())
            }
            plugin => plugin.clone(),
        };
        Ok(Self {
            job: path(&args.job)?,
            plugin,
            method: args.method.clone(),
            count: args.count,
            params: path(&args.params)?,
            seed: args.seed,
            workers: args.how.workers,
            fleet,
        })
    }

    /// Reads everything that the job consists of.
    pub(crate) fn plan(&self) -> Result<Plan, CliError> {
        let (file, here) = self.file()?;
        let mut table = file.job;
        self.overrule(&mut table);
        let here = |path: &Path| here.join(path);
        let mut spec = table.spec();
        let plugin = self.plugin(&table.plugin, &here, file.config, &mut spec)?;
        if table.name.is_none() {
            spec.name.clone_from(&spec.plugin);
        }
        let params = match &table.items {
            Items::Count(_) => None,
            Items::Params(path) => Some(here(path)),
        };
        if let Some(path) = &params {
            let scanned = params::scan(path)?;
            (spec.items, spec.params_sha256) = (scanned.items, scanned.sha256);
        }
        spec.validate().map_err(RunError::from)?;
        let out = file.output.dir.map(|dir| here(&dir));
        Ok(Plan { spec, params, plugin, workers: file.workers.count, out })
    }

    /// The job file, and what its paths are relative to; the flags alone, if there is none.
    fn file(&self) -> Result<(JobFile, PathBuf), CliError> {
        if let Some(path) = &self.job {
            let here = path.parent().unwrap_or(Path::new("/")).to_owned();
            return Ok((config::parse(path, JobFile::parse)?, here));
        }
        let items = match (self.count, &self.params) {
            (Some(count), _) => Items::Count(count),
            (None, Some(path)) => Items::Params(path.clone()),
            (None, None) => return Err(RunError::NoItems.into()),
        };
        let job = JobTable::new(self.plugin.clone().unwrap_or_default(), items);
        let file = JobFile {
            job,
            config: toml::Table::new(),
            output: Default::default(),
            workers: Default::default(),
        };
        Ok((file, PathBuf::from("/")))
    }

    fn overrule(&self, table: &mut JobTable) {
        if let Some(plugin) = &self.plugin {
            table.plugin.clone_from(plugin);
        }
        if let Some(method) = &self.method {
            table.method.clone_from(method);
        }
        if let Some(count) = self.count {
            table.items = Items::Count(count);
        }
        if let Some(params) = &self.params {
            table.items = Items::Params(params.clone());
        }
        if let Some(seed) = self.seed {
            table.seed = seed;
        }
    }

    /// Finds the plugin: its name for the job, and for workers of this machine what they load.
    fn plugin(
        &self,
        named: &str,
        here: &impl Fn(&Path) -> PathBuf,
        config: toml::Table,
        spec: &mut JobSpec,
    ) -> Result<Option<PluginHere>, CliError> {
        if self.fleet.is_some() {
            if !config.is_empty() {
                return Err(RunError::ConfigOfFleet.into());
            }
            spec.plugin = match is_path(named) {
                true => Manifest::load(&here(Path::new(named)))?.name,
                false => named.to_owned(),
            };
            return Ok(None);
        }
        let manifest = here(Path::new(named));
        spec.plugin = Manifest::load(&manifest)?.name;
        let text = fs::read_to_string(&manifest).map_err(RunError::file("read", &manifest))?;
        let rewritten = match config.is_empty() {
            true => None,
            false => Some(with_config(&text, &manifest, config)?),
        };
        let digest = Sha256::digest(rewritten.as_deref().unwrap_or(&text).as_bytes());
        spec.plugin_digest = hex(&digest);
        Ok(Some(PluginHere { manifest, rewritten }))
    }
}

/// Whether a plugin is named by its manifest.
fn is_path(plugin: &str) -> bool {
    plugin.contains('/') || plugin.ends_with(".toml")
}

fn table(value: Option<&mut toml::Value>) -> Option<&mut toml::Table> {
    value.and_then(toml::Value::as_table_mut)
}

/// The manifest with `config` over its own, and good from any directory.
fn with_config(text: &str, manifest: &Path, config: toml::Table) -> Result<String, RunError> {
    let damaged = |why: String| RunError::Damaged { path: manifest.to_owned(), why };
    let here = manifest.parent().unwrap_or(Path::new("/"));
    let mut file: toml::Table = toml::from_str(text).map_err(|e| damaged(e.to_string()))?;
    let own = file.entry("config").or_insert_with(|| toml::Table::new().into());
    if let Some(own) = own.as_table_mut() {
        own.extend(config);
    }
    if let Some(entry) = table(file.get_mut("entry")) {
        let at = |path: &str| toml::Value::from(here.join(path).to_string_lossy().into_owned());
        if let Some(cdylib) = table(entry.get_mut("cdylib"))
            && let Some(path) = cdylib.get_mut("path")
        {
            *path = at(path.as_str().unwrap_or_default());
        }
        if let Some(sidecar) = table(entry.get_mut("sidecar")) {
            let cwd = sidecar.get("cwd").and_then(toml::Value::as_str).unwrap_or_default();
            let cwd = at(cwd);
            sidecar.insert("cwd".to_owned(), cwd);
            let command = sidecar.get_mut("command").and_then(toml::Value::as_array_mut);
            if let Some(program) = command.and_then(|command| command.first_mut())
                && program.as_str().is_some_and(|program| program.contains('/'))
            {
                *program = at(program.as_str().unwrap_or_default());
            }
        }
    }
    toml::to_string(&file).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet_at::FleetArgs;

    const MANIFEST: &str = "[plugin]\nname = \"p\"\nversion = \"1\"\n[entry.sidecar]\n\
                            command = [\"./serve\"]\ncwd = \"..\"\n[config]\na = 1\nb = 2\n";

    fn stage(job: &str) -> (tempfile::TempDir, Request) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plugin.toml"), MANIFEST).unwrap();
        fs::write(dir.path().join("job.toml"), job).unwrap();
        let job = Some(dir.path().join("job.toml"));
        (dir, Request { job, ..Request::default() })
    }

    const JOB: &str = "[job]\nplugin = \"plugin.toml\"\nitems = 3\nseed = 1\n";

    #[test]
    fn paths_in_a_job_file_are_relative_to_it_and_flags_take_precedence() {
        let (dir, request) =
            stage(&format!("{JOB}[output]\ndir = \"out\"\n[workers]\ncount = 2\n"));
        let plan = request.plan().unwrap();
        assert_eq!(plan.out, Some(dir.path().join("out")));
        assert_eq!(plan.plugin.unwrap().manifest, dir.path().join("plugin.toml"));
        assert_eq!((plan.spec.name.as_str(), plan.spec.seed, plan.workers), ("p", 1, Some(2)));
        let more = Request { count: Some(9), seed: Some(4), method: Some("m".into()), ..request };
        let spec = more.plan().unwrap().spec;
        assert_eq!((spec.items, spec.seed, spec.method.as_str()), (9, 4, "m"));
    }

    #[test]
    fn items_with_parameters_are_counted_and_hashed() {
        let (dir, request) = stage(&JOB.replace('3', "\"in.jsonl\""));
        fs::write(dir.path().join("in.jsonl"), "1\n2\n").unwrap();
        let first = request.plan().unwrap().spec;
        assert_eq!((first.items, first.has_params), (2, true));
        fs::write(dir.path().join("in.jsonl"), "1\n3\n").unwrap();
        let differences = request.plan().unwrap().spec.differences(&first);
        assert_eq!(differences, ["the items' parameters"]);
    }

    #[test]
    fn a_job_s_own_configuration_lies_over_the_manifest_s_and_makes_it_another_job() {
        let (dir, request) = stage(JOB);
        let plain = request.plan().unwrap().spec;
        fs::write(dir.path().join("job.toml"), format!("{JOB}[config]\nb = 3\n")).unwrap();
        let plan = request.plan().unwrap();
        assert_eq!(plan.spec.differences(&plain), ["the plugin's manifest"]);
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("m.toml"), plan.plugin.unwrap().rewritten.unwrap()).unwrap();
        let moved = Manifest::load(&elsewhere.join("m.toml")).unwrap();
        let own = Manifest::load(&dir.path().join("plugin.toml")).unwrap();
        assert_eq!(moved.entry, own.entry);
        assert_eq!(serde_json::to_string(&moved.config).unwrap(), "{\"a\":1,\"b\":3}");
    }

    #[test]
    fn on_a_running_fleet_a_plugin_has_a_name_and_no_configuration() {
        let coordinator = Some("h:1".into());
        let args = FleetArgs { coordinator, tls_dir: Some("tls".into()), ..FleetArgs::default() };
        let (_dir, request) = stage(JOB);
        let there = Request { fleet: FleetAt::from_args(&args).unwrap(), ..request };
        let plan = there.plan().unwrap();
        assert_eq!((plan.spec.plugin.as_str(), plan.spec.plugin_digest.as_str()), ("p", ""));
        assert!(plan.plugin.is_none());
        let named = Request { plugin: Some("other".into()), ..there };
        assert_eq!(named.plan().unwrap().spec.plugin, "other");
        let (_dir, request) = stage(&format!("{JOB}[config]\nb = 3\n"));
        let there = Request { fleet: named.fleet, ..request };
        assert!(there.plan().unwrap_err().to_string().contains("[config] has no effect"));
    }
}
