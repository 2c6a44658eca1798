//! What the book and the README tell a reader to type is typed here: every command of this project
//! has to be one that its program takes, and every block is carried out, save those that say why not.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests: a panic fails the test")]

#[path = "book/blocks.rs"]
mod blocks;
#[path = "book/commands.rs"]
mod commands;
#[path = "book/session.rs"]
mod session;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use rollout_acceptance::built;
use rollout_harness::binaries::workspace_root;
use rollout_process::{Io, Spawn};

use blocks::{Block, Note};
use commands::Own;
use session::Session;

/// So many blocks may say that they are not carried out.
const SKIPPED: usize = 25;

/// The program behind `cargo xtask`, built once.
fn xtask() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(session::build_xtask)
}

/// The chapters and the README, by their names.
fn chapters() -> Vec<(String, String)> {
    let book = workspace_root().join("docs/src");
    let files = fs::read_dir(book).expect("the book is there").flatten().map(|entry| entry.path());
    let chapters = files.filter(|path| path.extension().is_some_and(|ext| ext == "md"));
    let mut all: Vec<_> = chapters.chain([workspace_root().join("README.md")]).collect();
    all.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("the chapter can be read"))
    };
    all.into_iter().map(read).collect()
}

/// The blocks of every chapter.
fn book() -> Vec<(String, Vec<Block>)> {
    let read = |(name, text): (String, String)| {
        let (blocks, _) = blocks::read(&text).unwrap_or_else(|why| panic!("{name}, {why}"));
        (name, blocks)
    };
    chapters().into_iter().map(read).collect()
}

/// Does a piece of work for each item on a few threads; what failed.
fn on_threads<T: Send>(work: Vec<T>, task: impl Fn(T) -> Result<(), String> + Sync) -> Vec<String> {
    let (work, failed) = (Mutex::new(work), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let next = work.lock().expect("no one panicked").pop();
                    let Some(next) = next else { break };
                    if let Err(why) = task(next) {
                        failed.lock().expect("no one panicked").push(why);
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no one panicked")
}

#[test]
fn commands_stand_in_fences_where_they_are_tried() {
    for (name, text) in chapters() {
        let (_, loose) = blocks::read(&text).unwrap_or_else(|why| panic!("{name}, {why}"));
        assert!(loose.is_empty(), "{name}: put these lines into a fence of sh: {loose:?}");
    }
}

#[test]
fn every_command_of_the_book_is_one_that_its_program_takes() {
    let mut own = Vec::new();
    for (name, blocks) in book() {
        for block in &blocks {
            let simple = commands::simple(&block.typed());
            let here = simple.iter().filter_map(|words| Own::of(words));
            own.extend(here.map(|own| (format!("{name}:{}", block.line), own)));
        }
    }
    assert!(own.len() > 80, "{}", own.len());
    let failed =
        on_threads(own, |(place, own)| takes(&own).map_err(|why| format!("{place}: {why}")));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Whether the program knows all of it: the help that is asked for last is given only if what stands
/// before it could be read.
fn takes(own: &Own) -> Result<(), String> {
    let (program, args) = match own {
        Own::Rollout(args) => (&*built().rollout, args),
        Own::Xtask(args) => (xtask(), args),
        Own::Test(args) => return has_test(args),
    };
    let spawn = Spawn::new(program).args(args).arg("--help").stdout(Io::Null).stderr(Io::Pipe);
    let output = spawn.output(Some(Duration::from_secs(60))).map_err(|error| error.to_string())?;
    match output.exit.success() {
        true => Ok(()),
        false => Err(format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Whether a package has the test that `cargo test` is told to run.
fn has_test(args: &[String]) -> Result<(), String> {
    let after = |flags: &[&str]| {
        let at = args.iter().position(|arg| flags.contains(&&**arg));
        at.and_then(|at| args.get(at + 1))
    };
    let Some(package) = after(&["-p", "--package"]) else { return Ok(()) };
    let dir = match &**package {
        "rollout-acceptance" => "tests/tests".to_owned(),
        name => format!("crates/{name}/tests"),
    };
    let dir = workspace_root().join(dir);
    let target = after(&["--test"]);
    if let Some(target) = target
        && ![format!("{target}.rs"), format!("{target}/main.rs")]
            .iter()
            .any(|it| dir.join(it).exists())
    {
        return Err(format!("{package} has no test program {target}"));
    }
    let mut texts = String::new();
    for path in walk(&dir) {
        texts += &format!("mod {};\n", path.file_stem().unwrap_or_default().to_string_lossy());
        texts += &fs::read_to_string(path).map_err(|error| error.to_string())?;
    }
    let defined = texts
        .lines()
        .map(str::trim_start)
        .filter(|line| ["fn ", "async fn ", "mod "].iter().any(|start| line.starts_with(start)));
    let filters = args.iter().filter(|arg| !arg.starts_with('-') && !arg.contains('='));
    for name in filters.filter(|arg| *arg != package && Some(*arg) != target) {
        let mut words = name.split("::").filter(|word| word.parse::<u32>().is_err());
        let is_there = |word| defined.clone().any(|line| line.contains(word));
        if !words.all(is_there) {
            return Err(format!("{package} has no test {name}"));
        }
    }
    Ok(())
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn every_block_of_the_book_does_what_is_said_of_it() {
    let only = std::env::var("ROLLOUT_CHAPTER").ok();
    let chapters: Vec<_> = book()
        .into_iter()
        .filter(|(name, blocks)| {
            let played = |block: &Block| block.is_commands() && !skipped(block);
            blocks.iter().any(played) && only.as_ref().is_none_or(|only| only == name)
        })
        .collect();
    let failed = on_threads(chapters, |(name, blocks)| {
        let mut session = Session::new();
        for block in &blocks {
            session.play(block).map_err(|why| format!("{name}:{}: {why}", block.line))?;
        }
        Ok(())
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

fn skipped(block: &Block) -> bool {
    matches!(block.note, Note::Skip(_))
}

#[test]
fn few_blocks_are_skipped_and_each_says_why() {
    let book = book();
    let all = book.iter().flat_map(|(name, blocks)| blocks.iter().map(move |it| (name, it)));
    let commands: Vec<_> = all.filter(|(_, block)| block.is_commands()).collect();
    let skipped: Vec<_> = commands
        .iter()
        .filter_map(|(name, block)| match &block.note {
            Note::Skip(why) => Some(format!("{name}:{}: {why}", block.line)),
            _ => None,
        })
        .collect();
    println!("{} of {}:\n{}", skipped.len(), commands.len(), skipped.join("\n"));
    assert!(skipped.len() <= SKIPPED && commands.len() >= 2 * skipped.len());
}

#[test]
fn a_chapter_that_is_wrong_is_found_out() {
    let told = |text: &str| {
        let (blocks, loose) = blocks::read(text).map_err(|why| why.clone())?;
        if !loose.is_empty() {
            return Err(format!("loose: {loose:?}"));
        }
        for block in &blocks {
            for own in commands::simple(&block.typed()).iter().filter_map(|words| Own::of(words)) {
                takes(&own)?;
            }
        }
        let mut session = Session::new();
        blocks.iter().try_for_each(|block| session.play(block))
    };
    for good in [
        "```console\n$ rollout --version\nrollout 9.9.9\n```",
        "```console exit: 64\n$ rollout plugin new --lang python json\n...\n```",
        "```toml file: a/b.toml\nx = 1\n```\n```sh\ngrep x a/b.toml | cat\n```",
        "```sh until: ready\necho ready; sleep 60\n```\n```sh\ntrue\n```",
        "```sh skip: it takes too long\nfalse\n```",
    ] {
        assert_eq!(told(good), Ok(()), "{good}");
    }
    for (bad, why) in [
        ("```sh\nrollout run --bogus\n```", "--bogus"),
        ("```sh skip: it takes too long\nX=1 cargo xtask smoke --bogus 2>&1 | cat\n```", "--bogus"),
        ("```sh\ncargo run --bin rollout -- walk\n```", "walk"),
        ("```sh skip: long\ncargo test -p rollout-acceptance no_such_test_at_all\n```", "no test"),
        ("```sh\nfalse\ntrue\n```", "and not with 0"),
        ("```sh exit: 75\ntrue\n```", "and not with 75"),
        ("```console\n$ rollout --version\nrollout 9.9.9 of today\n```", "and it prints"),
        ("```sh until: never so\ntrue\n```", "never `never so`"),
        ("```sh slowly\ntrue\n```", "`slowly` is not"),
        ("```sh\ntrue\n", "never closed"),
        ("text\n\n    rollout run job.toml\n", "loose: [3]"),
    ] {
        let found = told(bad).expect_err(bad);
        assert!(found.contains(why), "{bad}: {found}");
    }
}
