//! Just enough of Rust's grammar to tell code from comments and literals, and to see where an item
//! ends. Everything else is left to the compiler and to clippy.

use std::ops::Range;

/// The text with comments and literals blanked: the same length, the same lines.
pub(crate) fn code(text: &str) -> String {
    let mut code = text.to_owned();
    let mut at = 0;
    while at < text.len() {
        let end = [comment, string, character].iter().find_map(|ends| ends(text, at));
        if let Some(end) = end {
            blank(&mut code, at..end);
        }
        at = end.unwrap_or(at + 1);
    }
    code
}

/// Puts blanks in place of all but line ends. A range covers whole characters.
pub(crate) fn blank(code: &mut String, range: Range<usize>) {
    let blanks: String =
        code[range.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    code.replace_range(range, &blanks);
}

/// Where the comment that begins here ends.
fn comment(text: &str, at: usize) -> Option<usize> {
    let bytes = &text.as_bytes()[at..];
    if bytes.starts_with(b"//") {
        return Some(at + bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len()));
    }
    if !bytes.starts_with(b"/*") {
        return None;
    }
    let (mut depth, mut end) = (0_usize, 0);
    while end < bytes.len() {
        match &bytes[end..] {
            [b'/', b'*', ..] => (depth, end) = (depth + 1, end + 2),
            [b'*', b'/', ..] => (depth, end) = (depth - 1, end + 2),
            _ => end += 1,
        }
        if depth == 0 {
            break;
        }
    }
    Some(at + end)
}

/// Where the string that begins here, raw or not, ends.
fn string(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let named = at > 0 && is_name(bytes[at - 1]);
    let prefix = ["br", "cr", "r", "b", "c", ""].iter().find(|prefix| {
        let after = text.as_bytes()[at..].strip_prefix(prefix.as_bytes());
        let opens = after.is_some_and(|after| match prefix.ends_with('r') {
            true => after.iter().find(|&&b| b != b'#') == Some(&b'"'),
            false => after.starts_with(b"\""),
        });
        opens && (prefix.is_empty() || !named)
    })?;
    let mut end = at + prefix.len();
    if prefix.ends_with('r') {
        let hashes = bytes[end..].iter().take_while(|&&b| b == b'#').count();
        let close = format!("\"{}", "#".repeat(hashes));
        let body = end + hashes + 1;
        let found = bytes[body..].windows(close.len()).position(|w| w == close.as_bytes());
        return Some(found.map_or(text.len(), |found| body + found + close.len()));
    }
    loop {
        end += 1;
        match bytes.get(end) {
            Some(b'\\') => end += 1,
            Some(b'"') => return Some(end + 1),
            Some(_) => {}
            None => return Some(text.len()),
        }
    }
}

/// Where the character that begins here ends; a lifetime is none.
fn character(text: &str, at: usize) -> Option<usize> {
    let inner = text.as_bytes()[at..].strip_prefix(b"'")?;
    if inner.starts_with(b"\\") {
        let close = inner.iter().skip(2).position(|&b| b == b'\'')?;
        return Some(at + 1 + 2 + close + 1);
    }
    let long = text.get(at + 1..)?.chars().next()?.len_utf8();
    (inner.get(long) == Some(&b'\'')).then_some(at + 1 + long + 1)
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The items that are for tests alone, with their attributes.
pub(crate) fn test_items(code: &str) -> Vec<Range<usize>> {
    let marks = ["#[cfg(test)]", "#[cfg(all(test"];
    let starts = marks.iter().flat_map(|mark| code.match_indices(mark));
    starts.map(|(at, _)| at..item_end(code, at + 1)).collect()
}

/// Of an item `mod name;` the name, or what its `#[path]` says.
pub(crate) fn module(item: &str) -> Option<String> {
    let (attributes, name) = item.strip_suffix(';')?.rsplit_once("mod ")?;
    if let Some((_, path)) = attributes.split_once("#[path = \"") {
        return path.split_once('"').map(|(path, _)| path.to_owned());
    }
    name.bytes().all(is_name).then(|| name.to_owned())
}

/// Where the item that begins here ends: behind its `;`, or behind its body.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return at + 1,
            b'{' if depth == 0 => return body_end(code, at),
            _ => {}
        }
    }
    code.len()
}

/// Where the braces that open here are closed.
fn body_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// A function with a body.
pub(crate) struct Function<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Where its `fn` stands.
    pub(crate) at: usize,
    /// How many lines it takes from there to its end.
    pub(crate) lines: usize,
}

/// The functions in code.
pub(crate) fn functions(code: &str) -> impl Iterator<Item = Function<'_>> {
    super::words(code, "fn").filter_map(|at| {
        let rest = code[at + 2..].trim_start();
        let name = &rest[..rest.bytes().position(|b| !is_name(b)).unwrap_or(rest.len())];
        let end = item_end(code, at + 2);
        let body = code[..end].ends_with('}') && !name.is_empty();
        let lines = 1 + code[at..end].matches('\n').count();
        body.then_some(Function { name, at, lines })
    })
}
