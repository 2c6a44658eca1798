//! The commands in a script, as far as one has to understand a shell to find those of this project.

/// A simple command: its words, without what sets variables before it and redirects it.
pub(crate) type Words = Vec<String>;

/// The simple commands of a script.
pub(crate) fn simple(script: &str) -> Vec<Words> {
    let mut found = Vec::new();
    let mut words: Words = Vec::new();
    let mut to_file = false;
    for token in tokens(script) {
        match token {
            Token::End => {
                found.extend((!words.is_empty()).then(|| std::mem::take(&mut words)));
                to_file = false;
            }
            Token::Redirect => to_file = true,
            Token::Word(_) if to_file => to_file = false,
            Token::Word(word) if words.is_empty() && is_assignment(&word) => {}
            Token::Word(word) => words.push(word),
        }
    }
    found
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

enum Token {
    Word(String),
    Redirect,
    End,
}

/// Words, quotes removed; a line that ends in `\` goes on.
fn tokens(script: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let script = script.replace("\\\n", " ");
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None) => word.get_or_insert_default().extend(chars.next()),
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            ('\n' | ';' | '|' | '&' | '(' | ')', None) => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(Token::End);
            }
            ('<' | '>', None) => {
                // A number before it is a descriptor.
                tokens.extend(word.take().filter(|it| it.parse::<u8>().is_err()).map(Token::Word));
                tokens.push(Token::Redirect);
                while chars.next_if(|c| ">&".contains(*c)).is_some() {}
            }
            (c, None) if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens.push(Token::End);
    tokens
}

/// One of this project's commands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// Arguments of `rollout`.
    Rollout(Words),
    /// Arguments of `cargo xtask`.
    Xtask(Words),
    /// Arguments of `cargo test`.
    Test(Words),
}

impl Own {
    /// What a simple command is, if it is one of this project's.
    pub(crate) fn of(words: &[String]) -> Option<Self> {
        let (program, rest) = words.split_first()?;
        if program.rsplit('/').next() == Some("rollout") {
            return Some(Self::Rollout(rest.to_vec()));
        }
        let (command, rest) = rest.split_first().filter(|_| program == "cargo")?;
        match &**command {
            "xtask" => Some(Self::Xtask(rest.to_vec())),
            "test" => Some(Self::Test(rest.to_vec())),
            "run" if rest.iter().any(|word| word == "rollout") => {
                let own = rest.iter().skip_while(|word| *word != "--").skip(1);
                Some(Self::Rollout(own.cloned().collect()))
            }
            _ => None,
        }
    }
}
