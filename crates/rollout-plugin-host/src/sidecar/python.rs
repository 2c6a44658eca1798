//! Finding the real interpreter behind `python3`, so that the process that is started, and killed, is
//! the interpreter and not a script that waits for it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_process::{Io, Spawn};

use crate::error::Cause;

/// The program to start for a command's first word. Only a bare `python…` that leads to a script
/// (the way version managers put themselves in front) is resolved; `prepared` gives that script the
/// environment that the sidecar will have.
pub(super) fn resolve(
    program: &str,
    path: &str,
    cwd: &Path,
    limit: Duration,
    prepared: impl FnOnce(Spawn) -> Spawn,
) -> Result<PathBuf, Cause> {
    let as_given = PathBuf::from(program);
    if !program.starts_with("python") || program.contains('/') {
        return Ok(as_given);
    }
    let Some(found) = look_up(program, path, cwd) else { return Ok(as_given) };
    if !is_script(&found) {
        return Ok(found);
    }
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Cause::Spawn {
        doing: format!("{} does not lead to an interpreter", found.display()),
        source,
    };
    let ask = ["-I", "-S", "-c", "import sys; print(sys.executable)"];
    let asked = prepared(Spawn::new(&found).args(ask)).stderr(Io::Pipe).output(Some(limit));
    let output = asked.map_err(|error| failed(error.into()))?;
    let told = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if output.exit.success() && told.is_absolute() {
        return Ok(told);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("it {}: {}", output.exit, stderr.trim()).into()))
}

/// The first executable file of that name in `path`.
fn look_up(program: &str, path: &str, cwd: &Path) -> Option<PathBuf> {
    let executable = |file: &PathBuf| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|dir| cwd.join(dir).join(program)).find(executable)
}

fn is_script(file: &Path) -> bool {
    let mut start = [0; 2];
    File::open(file).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn script(dir: &Path, text: &str) {
        let file = dir.join("python3");
        fs::write(&file, text).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
    }

    fn resolve_in(dir: &Path, program: &str) -> Result<PathBuf, Cause> {
        resolve(program, dir.to_str().unwrap(), Path::new("/"), LIMIT, |spawn| spawn)
    }

    #[test]
    fn a_script_in_front_is_asked_for_the_interpreter_and_anything_else_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve_in(dir.path(), "python3").unwrap(), Path::new("python3"));
        script(dir.path(), "#!/bin/sh\necho /real/python3\n");
        assert_eq!(resolve_in(dir.path(), "python3").unwrap(), Path::new("/real/python3"));
        assert_eq!(resolve_in(dir.path(), "./python3").unwrap(), Path::new("./python3"));
        assert_eq!(resolve_in(dir.path(), "sh").unwrap(), Path::new("sh"));
        script(dir.path(), "\x7fELF");
        assert_eq!(resolve_in(dir.path(), "python3").unwrap(), dir.path().join("python3"));
    }

    #[test]
    fn a_script_that_does_not_tell_is_an_error_with_what_it_wrote() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "#!/bin/sh\necho no such version >&2; exit 3\n");
        let error = resolve_in(dir.path(), "python3").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "it exited with 3: no such version");
        assert_eq!(error.code(), "spawn");
    }
}
