//! `docs-build`: what the book's build does not look at: links, and chapters that nothing leads to.

use std::collections::BTreeSet;

use crate::tree::{Complaint, File, Tree};

/// The book's table of contents, and where its chapters are.
const SUMMARY: &str = "docs/src/SUMMARY.md";
const CHAPTERS: &str = "docs/src/";

/// Links to nothing, in the book and beside it, and chapters that are not in the table of contents.
pub(crate) fn links(tree: &Tree) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut listed = BTreeSet::new();
    for file in tree.files().filter(|file| file.path.ends_with(".md")) {
        for (at, target) in targets(&file.text) {
            if let Err(why) = leads_somewhere(tree, file, target) {
                found.push(Complaint::at(file, at, format!("the link to `{target}`: {why}")));
            }
            if file.path == SUMMARY {
                listed.insert(format!("{CHAPTERS}{target}"));
            }
        }
    }
    let chapters = tree
        .files()
        .map(|file| &*file.path)
        .filter(|path| path.starts_with(CHAPTERS) && path.ends_with(".md") && *path != SUMMARY);
    let lost = chapters.filter(|path| !listed.contains(*path));
    found
        .extend(lost.map(|path| Complaint::of(path, format!("is a chapter that {SUMMARY} lacks"))));
    found
}

/// The text with code blanked, in blocks and in lines: the same length.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut prose = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        let code = fence || inside || line.starts_with("    ");
        let mut quoted = false;
        prose.extend(line.chars().flat_map(|c| {
            quoted ^= c == '`';
            let keep = c == '\n' || !(code || quoted || c == '`');
            let blanks = if keep { 0 } else { c.len_utf8() };
            keep.then_some(c).into_iter().chain(std::iter::repeat_n(' ', blanks))
        }));
    }
    prose
}

/// The targets of `[text](target)`, each with its position.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let prose = prose(text);
    let starts = prose.match_indices("](").map(|(at, mark)| at + mark.len());
    starts.filter_map(|at| Some((at, &text[at..at + prose[at..].find(')')?]))).collect()
}

fn leads_somewhere(tree: &Tree, from: &File, target: &str) -> Result<(), String> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { from.path.clone() } else { resolve(&from.path, path)? };
    if !tree.has(&path) {
        return Err(format!("there is no {path}"));
    }
    let heading = |file: &File| headings(&file.text).any(|slug| slug == anchor);
    if !anchor.is_empty() && !tree.get(&path).is_some_and(heading) {
        return Err(format!("{path} has no such heading"));
    }
    Ok(())
}

/// A relative path from a file, from the root.
fn resolve(from: &str, path: &str) -> Result<String, String> {
    let mut parts: Vec<_> = from.split('/').collect();
    parts.pop();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop().ok_or("leads out of the project")?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The anchors that headings get, as mdBook and code forges make them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let mut inside = false;
    let lines = text.lines().filter(move |line| {
        inside ^= line.starts_with("```");
        !inside && line.starts_with('#')
    });
    lines.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[cfg(test)]
mod tests;
