//! The chapter on the command line: what the programs say when they are asked for help, each
//! command under a heading of its own.

use std::env;
use std::path::Path;
use std::time::Duration;

use rollout_harness::Interrupt;
use rollout_harness::binaries::{self, Profile};
use rollout_process::{Io, Spawn};

use super::Made;
use crate::complain;

/// How long a program may take to say what it can do.
const PATIENCE: Duration = Duration::from_secs(20);

const HEAD: &str = "\
# The command line

What `--help` says, of `rollout` and of `cargo xtask`, made by `cargo xtask generate`.
";

/// The chapter.
pub(super) fn chapter(interrupt: &Interrupt) -> Result<Vec<Made>, u8> {
    let failed = |why: String| {
        complain(&why);
        1
    };
    let program = binaries::program(Profile::own(), interrupt, &mut |_| {});
    let program = program.map_err(|error| failed(error.to_string()))?;
    let own = env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut text = HEAD.to_owned();
    for (name, program) in [("rollout", &*program), ("cargo xtask", &*own)] {
        describe(name, program, &[], &mut text).map_err(failed)?;
    }
    Ok(vec![Made::File { path: "docs/src/cli.md", text }])
}

/// Adds what a command says of itself, and then each of its own commands.
fn describe(name: &str, program: &Path, args: &[&str], text: &mut String) -> Result<(), String> {
    let help = help(program, args)?;
    let level = "#".repeat(2 + args.len().min(2));
    let title = [&[name], args].concat().join(" ");
    text.push_str(&format!("\n{level} {title}\n\n```text\n{help}```\n"));
    for command in commands(&help) {
        describe(name, program, &[args, &[command]].concat(), text)?;
    }
    Ok(())
}

/// The long help, a hundred columns wide whatever the terminal.
fn help(program: &Path, args: &[&str]) -> Result<String, String> {
    let spawn = Spawn::new(program).args(args).arg("--help").env("COLUMNS", "100");
    let spawn = spawn.stdin(Io::Null).stdout(Io::Pipe).stderr(Io::Pipe);
    let output = spawn.output(Some(PATIENCE)).map_err(|error| error.to_string())?;
    if !output.exit.success() {
        return Err(format!("`{} {} --help` {}", program.display(), args.join(" "), output.exit));
    }
    let help = String::from_utf8_lossy(&output.stdout);
    Ok(help.trim_end().lines().map(|line| format!("{}\n", line.trim_end())).collect())
}

/// The commands that a help names, but for `help` itself.
fn commands(help: &str) -> impl Iterator<Item = &str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let named = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let line = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
        line.split_whitespace().next()
    });
    named.filter(|command| *command != "help")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_a_help_is_found_and_nothing_else() {
        let help = "It runs.\n\nUsage: it <COMMAND>\n\nCommands:\n  run   Runs\n          and on\n  \
                    stop  Stops\n  help  Print this\n\nOptions:\n  -h, --help  Print help\n";
        assert_eq!(commands(help).collect::<Vec<_>>(), ["run", "stop"]);
        assert_eq!(commands("Usage: it [OPTIONS]\n\nOptions:\n  -h  Help\n").count(), 0);
    }
}
