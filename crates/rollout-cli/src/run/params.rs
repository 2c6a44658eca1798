//! The parameters of a job's items: a file with one JSON value a line, read once to be counted and
//! hashed, and once more when it is sent.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use bytes::Bytes;
use rollout_core::hex;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::run::error::RunError;

/// The most bytes of one item's parameters.
const MAX_PARAMS: usize = 1 << 20;
/// Lines are sent together up to this many bytes.
const PIECE: usize = 64 * 1024;

/// What a job says of its parameters.
pub(crate) struct Scanned {
    pub(crate) items: u64,
    pub(crate) sha256: String,
}

/// Counts and hashes the parameters, each without the white space around it.
pub(crate) fn scan(path: &Path) -> Result<Scanned, RunError> {
    let (mut digest, mut items) = (Sha256::new(), 0);
    each(path, |value| {
        digest.update(value.as_bytes());
        digest.update(b"\n");
        items += 1;
        Ok(())
    })?;
    if items == 0 || items > rollout_core::job::MAX_ITEMS {
        return Err(RunError::ParamCount { path: path.to_owned(), found: items });
    }
    Ok(Scanned { items, sha256: hex(&digest.finalize()) })
}

/// Sends the parameters in pieces, until all are sent or nobody wants more. Blocks.
pub(crate) fn send(path: &Path, pieces: &mpsc::Sender<Bytes>) -> Result<(), RunError> {
    let mut piece = Vec::new();
    let mut wanted = true;
    each(path, |value| {
        piece.extend_from_slice(value.as_bytes());
        piece.push(b'\n');
        if piece.len() >= PIECE {
            wanted &= pieces.blocking_send(std::mem::take(&mut piece).into()).is_ok();
        }
        Ok(())
    })?;
    if wanted && !piece.is_empty() {
        // Whoever wants no more has its reasons, and says them.
        let _ = pieces.blocking_send(piece.into());
    }
    Ok(())
}

fn each(path: &Path, mut take: impl FnMut(&str) -> Result<(), RunError>) -> Result<(), RunError> {
    let file = File::open(path).map_err(RunError::file("read", path))?;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        if reader.read_until(b'\n', &mut line).map_err(RunError::file("read", path))? == 0 {
            return Ok(());
        }
        let wrong =
            |why: String| RunError::Params { what: path.display().to_string(), line: number, why };
        if line.len() > MAX_PARAMS {
            return Err(wrong(format!("longer than {MAX_PARAMS} bytes")));
        }
        if line.trim_ascii().is_empty() {
            return Err(wrong("empty: write one JSON value a line".to_owned()));
        }
        let value: &RawValue = serde_json::from_slice(&line)
            .map_err(|error| wrong(format!("not one JSON value: {error}")))?;
        take(value.get())?;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.jsonl");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn parameters_are_counted_and_their_digest_is_that_of_what_is_sent() {
        let (_dir, path) = file("{\"a\" : 1}\n  [2]  \r\nnull");
        let scanned = scan(&path).unwrap();
        let (pieces, mut sent) = mpsc::channel(8);
        send(&path, &pieces).unwrap();
        drop(pieces);
        let mut all = Vec::new();
        while let Ok(piece) = sent.try_recv() {
            all.extend_from_slice(&piece);
        }
        assert_eq!(all, b"{\"a\" : 1}\n[2]\nnull\n");
        assert_eq!((scanned.items, scanned.sha256), (3, hex(&Sha256::digest(&all))));
    }

    #[test]
    fn a_line_that_is_not_one_value_is_named() {
        for (text, words) in [
            ("1\n\n2\n", "line 2: empty"),
            ("1\n{\n", "line 2: not one JSON value"),
            ("1 2\n", "line 1: not one JSON value"),
            ("\"\\x\"\n", "line 1: not one JSON value"),
        ] {
            let (_dir, path) = file(text);
            let error = scan(&path).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
        let (_dir, path) = file("");
        assert!(scan(&path).err().unwrap().to_string().contains("has 0 lines"));
        let (_dir, path) = file(&format!("\"{}\"\n", "x".repeat(MAX_PARAMS)));
        assert!(scan(&path).err().unwrap().to_string().contains("longer than"));
    }
}
