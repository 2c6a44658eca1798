//! `rollout plugin new`: a plugin to start from, with the SDK that belongs to this binary.

use std::fs;
use std::io;
use std::path::Path;

use super::args::{Language, NewArgs};
use crate::config::print;
use crate::error::CliError;

include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// Templates by the paths of what they become.
const PYTHON_FILES: [(&str, &str); 5] = [
    ("plugin.toml", include_str!("../../templates/python/plugin.toml.in")),
    ("job.toml", include_str!("../../templates/job.toml.in")),
    ("{{name}}/__init__.py", include_str!("../../templates/python/init.py.in")),
    ("{{name}}/__main__.py", include_str!("../../templates/python/main.py.in")),
    (".gitignore", include_str!("../../templates/python/gitignore.in")),
];
const RUST_FILES: [(&str, &str); 5] = [
    ("plugin.toml", include_str!("../../templates/rust/plugin.toml.in")),
    ("job.toml", include_str!("../../templates/job.toml.in")),
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
    ("src/lib.rs", include_str!("../../templates/rust/lib.rs.in")),
    (".gitignore", include_str!("../../templates/rust/gitignore.in")),
];

/// Names that mean something else where the plugin's code is: keywords, and modules and crates that
/// the plugin's own would hide.
const TAKEN: &str = "\
as async await box break class const continue crate def del dyn elif else enum except extern fn for \
from global if impl import in is lambda let loop macro match mod move mut nonlocal not or pass pub \
raise ref return self static struct super trait try type union unsafe use where while with yield \
abc array ast asyncio base64 code collections contextlib copy dataclasses enum functools glob heapq \
inspect io itertools json locale logging math numbers operator os pickle platform queue random re \
select selectors shutil signal site socket ssl stat string subprocess sys tempfile threading time \
token tokenize traceback types typing uuid warnings weakref \
alloc core std proc_macro test build deps examples incremental vendor src target serde serde_json \
gymnasium numpy rollout_plugin rollout_plugin_abi rollout_plugin_sdk";

pub(super) fn run(args: &NewArgs) -> Result<(), CliError> {
    let dir = &args.dir;
    let name = args.name.clone().unwrap_or_else(|| name_of(dir));
    check_name(&name)?;
    check_empty(dir)?;
    let templates = match args.lang {
        Language::Python => PYTHON_FILES,
        Language::Rust => RUST_FILES,
    };
    let own = templates.iter().map(|(path, text)| filled(path, text, &name));
    let files: Vec<(String, String)> = own.chain(vendored(args.lang)).collect();
    for (path, text) in files {
        write(&dir.join(path), &text)?;
    }
    print(&next_steps(args.lang, dir, &name))
}

/// The directory's own name, as a name for a plugin.
fn name_of(dir: &Path) -> String {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    name.to_lowercase().replace(['-', ' ', '.'], "_")
}

fn check_name(name: &str) -> Result<(), CliError> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let taken = TAKEN.split(' ').any(|word| word == name);
    if !first || !name.chars().all(rest) || name.len() > 64 || taken {
        return Err(CliError::PluginName { name: name.to_owned() });
    }
    Ok(())
}

fn check_empty(dir: &Path) -> Result<(), CliError> {
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CliError::NotEmpty { path: dir.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CliError::Write { path: dir.to_owned(), source }),
    }
}

fn filled(path: &str, text: &str, name: &str) -> (String, String) {
    let fill = |text: &str| text.replace("{{name}}", name).replace("{{class}}", &class(name));
    (fill(path), fill(text))
}

/// A type's name: `my_plugin` becomes `MyPlugin`.
fn class(name: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    };
    name.split('_').map(capital).collect()
}

/// The SDK, below `vendor`.
fn vendored(lang: Language) -> Vec<(String, String)> {
    let sources = match lang {
        Language::Python => PYTHON,
        Language::Rust => RUST,
    };
    let own = |&(path, text): &(&str, &str)| match path {
        "Cargo.toml" => (format!("vendor/{path}"), workspace(text)),
        _ => (format!("vendor/{path}"), text.to_owned()),
    };
    sources.iter().map(own).collect()
}

/// The manifest of this repository's workspace, from which the SDK's crates inherit, for them alone.
fn workspace(text: &str) -> String {
    let line = |line: &str| match line.split_whitespace().next() {
        Some("members") => "members = [\"crates/*\"]\n".to_owned(),
        Some("exclude") => String::new(),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, text))
        .map_err(|source| CliError::Write { path: path.to_owned(), source })
}

fn next_steps(lang: Language, dir: &Path, name: &str) -> String {
    let build = match lang {
        Language::Python => String::new(),
        Language::Rust => format!(
            "  cargo build --release --manifest-path {}\n",
            dir.join("Cargo.toml").display()
        ),
    };
    format!(
        "{}: the plugin `{name}`. Next:\n{build}  rollout plugin check {}\n  rollout run {}\n",
        dir.display(),
        dir.join("plugin.toml").display(),
        dir.join("job.toml").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_python_and_rust_can_use_for_a_module() {
        for good in ["a", "my_plugin", "grader2"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", "2a", "_a", "My", "a-b", "a.b", "ü", "json", "class", "fn", &long] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert_eq!(name_of(Path::new("/tmp/My-plugin.v2")), "my_plugin_v2");
        assert_eq!(class("my__plugin_2"), "MyPlugin2");
    }

    #[test]
    fn both_sdks_are_whole_and_nothing_but_source() {
        let has = |sdk: &[(&str, &str)], path| sdk.iter().any(|(known, _)| *known == path);
        for path in ["rollout_plugin/__init__.py", "rollout_plugin/py.typed"] {
            assert!(has(PYTHON, path), "{path}");
        }
        for path in ["Cargo.toml", "crates/rollout-plugin-abi/src/lib.rs"] {
            assert!(has(RUST, path), "{path}");
        }
        let junk = |(path, _): &&(&str, &str)| path.contains("cache") || path.contains("..");
        assert_eq!(PYTHON.iter().chain(RUST).find(junk), None);
    }

    #[test]
    fn the_vendored_workspace_has_the_sdk_s_crates_and_no_other() {
        let (_, text) = RUST.iter().find(|(path, _)| *path == "Cargo.toml").unwrap();
        let own = workspace(text);
        assert_eq!(own.matches("members").count(), 1);
        assert!(own.contains("[workspace]\n") && own.contains("\nmembers = [\"crates/*\"]\n"));
        assert!(!own.contains("exclude"));
    }
}
