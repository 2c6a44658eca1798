//! Puts the SDKs' sources into the binary, so that `rollout plugin new` needs neither this repository
//! nor a registry for them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where the sources are, from this crate: a name, a directory to start from, and what to take there.
const SDKS: [(&str, &str, &[&str]); 2] = [
    ("PYTHON", "../../python", &["rollout_plugin"]),
    (
        "RUST",
        "../..",
        &[
            "Cargo.toml",
            "crates/rollout-plugin-abi/Cargo.toml",
            "crates/rollout-plugin-abi/include",
            "crates/rollout-plugin-abi/src",
            "crates/rollout-plugin-sdk/Cargo.toml",
            "crates/rollout-plugin-sdk/src",
        ],
    ),
];

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("sdk.rs");
    let mut code = String::new();
    for (name, root, parts) in SDKS {
        let mut files = Vec::new();
        for part in parts {
            let path = Path::new(root).join(part);
            println!("cargo::rerun-if-changed={}", path.display());
            if path.exists() {
                collect(&path, &mut files)?;
            }
        }
        files.sort();
        let _ = writeln!(code, "/// Sources by their paths.\nconst {name}: &[(&str, &str)] = &[");
        for file in files {
            let short = file.strip_prefix(root).unwrap_or(&file);
            let from =
                format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?})", Path::new("/").join(&file));
            let _ = writeln!(code, "    ({short:?}, include_str!({from})),");
        }
        code.push_str("];\n");
    }
    fs::write(out, code)
}

/// The file, or every source file below the directory.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let known =
            path.extension().is_some_and(|it| ["py", "typed", "rs", "h"].iter().any(|k| it == *k));
        if path.is_dir() || known {
            collect(&path, files)?;
        }
    }
    Ok(())
}
