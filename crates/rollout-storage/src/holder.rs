//! Who has a file open, where the system tells: Linux does, through `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The first other process found with the file open, as `process 123 (rollout)`.
pub(crate) fn of(path: &Path) -> Option<String> {
    let wanted = fs::metadata(path).ok()?;
    let me = std::process::id();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = pid != me
            && fs::read_dir(entry.path().join("fd")).ok()?.flatten().any(|fd| {
                fs::metadata(fd.path())
                    .is_ok_and(|m| m.dev() == wanted.dev() && m.ino() == wanted.ino())
            });
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        holds.then(|| format!("process {pid} ({})", name.trim()))
    })
}
