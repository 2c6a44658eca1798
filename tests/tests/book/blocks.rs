//! What stands in the fences of a chapter, and what is said about it after the language.
//!
//! A fence of `sh` is a script, one of `console` is commands after `$ ` with what they print. What a
//! reader does not see follows the language: `file: PATH` (the text is that file), `until: TEXT` (it
//! goes on meanwhile, and has come far enough once it has printed the text), `exit: N` (how the last
//! command ends), `skip: REASON` (it is not run here).

/// What is said about a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// It is run, and succeeds.
    Plain,
    /// It is the text of this file.
    File(String),
    /// It goes on, and is there once it has printed this.
    Until(String),
    /// Its last command ends with this code.
    Exit(i32),
    /// It is not run, for this reason.
    Skip(String),
}

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// The line of its first fence, from 1.
    pub line: usize,
    /// The first word after the fence.
    pub lang: String,
    /// The rest of that line.
    pub note: Note,
    /// What is between the fences.
    pub text: String,
}

impl Block {
    /// Whether there is something to type in it.
    pub(crate) fn is_commands(&self) -> bool {
        ["sh", "console"].contains(&&*self.lang)
    }

    /// The lines to be typed, without what is printed; of a program's help, its examples.
    pub(crate) fn typed(&self) -> String {
        match &*self.lang {
            "sh" => self.text.clone(),
            "console" => self.dialogue().into_iter().map(|(command, _)| command + "\n").collect(),
            "text" => self.text.lines().filter_map(example).collect(),
            _ => String::new(),
        }
    }

    /// The commands of a console, each with the lines that it prints.
    pub(crate) fn dialogue(&self) -> Vec<(String, Vec<String>)> {
        let mut dialogue: Vec<(String, Vec<String>)> = Vec::new();
        let mut goes_on = false;
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), dialogue.last_mut()) {
                (_, Some((command, _))) if goes_on => *command += &format!("\n{line}"),
                (Some(command), _) => dialogue.push((command.to_owned(), Vec::new())),
                (None, Some((_, printed))) => printed.push(line.to_owned()),
                (None, None) => panic!("a console begins with a command: {line}"),
            }
            let typed = dialogue.last().is_some_and(|(_, printed)| printed.is_empty());
            goes_on = typed && line.ends_with('\\');
        }
        dialogue
    }
}

/// The blocks of a chapter, and the lines of code that look like commands and are in none.
pub(crate) fn read(chapter: &str) -> Result<(Vec<Block>, Vec<usize>), String> {
    let (mut blocks, mut loose) = (Vec::new(), Vec::new());
    let mut open: Option<Block> = None;
    for (at, line) in chapter.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(info), None) => {
                let (lang, note) = info.split_once(' ').unwrap_or((info, ""));
                let note = note_of(note).map_err(|why| format!("line {}: {why}", at + 1))?;
                let (lang, text) = (lang.to_owned(), String::new());
                open = Some(Block { line: at + 1, lang, note, text });
            }
            (None, Some(mut block)) => {
                block.text += &format!("{line}\n");
                open = Some(block);
            }
            (None, None) if is_loose(line) => loose.push(at + 1),
            (None, None) => {}
        }
    }
    match open {
        Some(block) => Err(format!("line {}: the fence is never closed", block.line)),
        None => Ok((blocks, loose)),
    }
}

fn note_of(note: &str) -> Result<Note, String> {
    if note.is_empty() {
        return Ok(Note::Plain);
    }
    let value = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let known = match note.split_once(": ").unwrap_or((note, "")) {
        ("file", path) => value(path).map(Note::File),
        ("until", text) => value(text).map(Note::Until),
        ("exit", code) => code.parse().ok().map(Note::Exit),
        ("skip", reason) => value(reason).map(Note::Skip),
        _ => None,
    };
    known.ok_or_else(|| format!("`{note}` is not file:, until:, exit: or skip: with its value"))
}

/// An example in a program's help, as a line of a script.
fn example(line: &str) -> Option<String> {
    let line = line.trim_start();
    let line =
        ["Example:", "Examples:"].iter().find_map(|it| line.strip_prefix(it)).unwrap_or(line);
    let line = line.trim_start();
    let command = ["rollout ", "cargo xtask "].iter().any(|start| line.starts_with(start));
    command.then(|| format!("{}\n", line.trim_end_matches('\\')))
}

/// Whether a line is indented code that somebody could type.
fn is_loose(line: &str) -> bool {
    let code = line.strip_prefix("    ").map(|code| code.trim_start().trim_start_matches("$ "));
    code.is_some_and(|code| {
        // Words that are far apart are a drawing.
        let drawn = code.split('#').next().is_some_and(|code| code.trim_end().contains("   "));
        !drawn && ["rollout ", "cargo ", "target/"].iter().any(|start| code.starts_with(start))
    })
}
