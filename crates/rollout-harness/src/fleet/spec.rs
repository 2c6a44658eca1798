//! What a process of a fleet is to be.

use std::path::PathBuf;

use rollout_core::{RunId, TimeBudget, WorkerId};
use toml::{Table, Value};

use crate::fixtures::Layout;
use crate::record::Role;

/// A process of a fleet before it is started.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name: that of its files, too.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its configuration.
    pub config: Config,
    /// The manifests of its plugins, as it is to see them.
    pub plugins: Vec<PathBuf>,
    /// How it gets to the coordinator.
    pub reach: Reach,
    /// What is wrong with it from the start: the keys of a file of faults. It then runs the program
    /// built with the feature `faults`.
    pub faults: Table,
    /// Whether its disk can be made to fail. It then runs that program, too.
    pub disk: bool,
    /// Whether it may end by itself.
    pub may_exit: bool,
}

/// A process's configuration.
#[derive(Debug, Clone)]
pub enum Config {
    /// The fleet's own, with these keys set in it; tables are merged.
    Over(Table),
    /// This one. Only the coordinator's address is set in it, where that is taken from a free port.
    Whole(Table),
}

/// How a worker gets to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By its address.
    Direct,
    /// Through a link of its own, which can be cut.
    Link,
    /// As its configuration says.
    Configured,
}

impl Spec {
    /// The coordinator, under the name `coord`.
    #[must_use]
    pub fn coordinator() -> Self {
        Self {
            name: "coord".into(),
            role: Role::Coordinator,
            config: Config::Over(Table::new()),
            plugins: Vec::new(),
            reach: Reach::Configured,
            faults: Table::new(),
            disk: false,
            may_exit: false,
        }
    }

    /// A worker with a new id and no plugins, directly at the coordinator.
    #[must_use]
    pub fn worker(name: &str) -> Self {
        Self {
            name: name.into(),
            role: Role::Worker { id: WorkerId::generate() },
            reach: Reach::Direct,
            ..Self::coordinator()
        }
    }

    /// Whether it needs the program built with the feature `faults`.
    pub(super) fn is_faulty(&self) -> bool {
        self.disk || !self.faults.is_empty()
    }

    /// Its configuration, but for the coordinator's address.
    pub(super) fn table(&self, layout: &Layout, run: RunId, timing: &TimeBudget) -> Table {
        let over = match &self.config {
            Config::Whole(table) => return table.clone(),
            Config::Over(over) => over,
        };
        let path = |name: &str| layout.relative(name).to_string_lossy().into_owned();
        let mut table = Table::new();
        let mut set = |key: &str, value: String| table.insert(key.into(), value.into());
        set("run_id", run.to_string());
        set("storage", path(&format!("{}.db", self.name)));
        set("tls_dir", path("tls"));
        match self.role {
            Role::Coordinator => set("listen", "127.0.0.1:0".into()),
            Role::Worker { .. } => set("sidecar_dir", path("sidecars")),
        };
        // The four durations serialize to texts.
        let timing = Table::try_from(timing).unwrap_or_default();
        table.insert("timing".into(), timing.into());
        merge(&mut table, over);
        table
    }
}

/// Sets the keys of `over` in `table`, tables key by key.
fn merge(table: &mut Table, over: &Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_set_over_a_configuration_replaces_its_keys_and_no_others() {
        let mut spec = Spec::worker("w1");
        spec.config = Config::Over(
            "start_timeout = \"1s\"\n[timing]\nheartbeat_interval = \"9s\"".parse().unwrap(),
        );
        let layout = Layout { root: Path::new("/r").into(), dir: "data/x".into() };
        let table = spec.table(&layout, RunId::generate(), &TimeBudget::default());
        assert_eq!(table["storage"].as_str(), Some("data/x/w1.db"));
        assert_eq!(table["start_timeout"].as_str(), Some("1s"));
        assert_eq!(table["timing"]["heartbeat_interval"].as_str(), Some("9s"));
        assert_eq!(table["timing"]["coordinator_failure_timeout"].as_str(), Some("5s"));
    }
}
