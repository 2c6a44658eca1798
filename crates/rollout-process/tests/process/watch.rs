//! A watched child's lines, tail and end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollout_process::{Exit, Io, Ladder, Signal, Spawn, Stream, WatchConfig, Watched};

use crate::support::{LONG, alive, eventually, sh};

#[derive(Debug, PartialEq)]
enum Seen {
    Line(Stream, String),
    Exit(Exit, String),
}

fn watch(spawn: Spawn, config: WatchConfig) -> (Watched, Receiver<Seen>) {
    let (lines, seen) = mpsc::channel();
    let exit = lines.clone();
    let watched = spawn
        .stdout(Io::Pipe)
        .stderr(Io::Pipe)
        .spawn()
        .unwrap()
        .watch(
            config,
            move |stream, line| lines.send(Seen::Line(stream, line.to_owned())).unwrap(),
            move |end, tail| exit.send(Seen::Exit(end, tail)).unwrap(),
        )
        .unwrap();
    (watched, seen)
}

fn line(stream: Stream, text: &str) -> Seen {
    Seen::Line(stream, text.to_owned())
}

#[test]
fn every_line_comes_before_the_end_which_comes_once() {
    let (watched, seen) =
        watch(sh("echo one; echo two; printf end; exit 4"), WatchConfig::default());
    let exit = Exit { code: Some(4), signal: None };
    assert_eq!(watched.wait(), exit);
    let expected = ["one", "two", "end"].map(|text| line(Stream::Stdout, text));
    let seen: Vec<Seen> = seen.try_iter().collect();
    assert_eq!(seen[..3], expected);
    assert_eq!(seen[3..], [Seen::Exit(exit, String::new())]);
}

#[test]
fn what_is_still_in_the_pipe_when_the_tree_is_gone_is_handed_out() {
    let child = sh("echo first; yes | head -n 20000").stdout(Io::Pipe).spawn().unwrap();
    let pid = child.pid();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let on_line = move |_: Stream, _: &str| {
        if counter.fetch_add(1, Ordering::Relaxed) == 0 {
            eventually("the child's end", || !alive(pid));
        }
    };
    let watched = child.watch(WatchConfig::default(), on_line, |_, _| ()).unwrap();
    assert!(watched.wait().success());
    assert_eq!(count.load(Ordering::Relaxed), 20_001);
}

#[test]
fn the_tail_is_the_last_lines_of_stderr_alone() {
    let config = WatchConfig { tail_lines: 2, ..WatchConfig::default() };
    let (watched, seen) =
        watch(sh("for i in 1 2 3; do echo e$i >&2; done; echo out; exit 1"), config);
    let exit = watched.wait();
    assert_eq!(seen.try_iter().last(), Some(Seen::Exit(exit, "e2\ne3".to_owned())));
}

#[test]
fn an_endless_line_is_cut_and_does_not_stall_the_child() {
    let config = WatchConfig { max_line: 100, ..WatchConfig::default() };
    let script = "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo next";
    let (watched, seen) = watch(sh(script), config);
    assert!(watched.wait().success());
    assert_eq!(seen.recv().unwrap(), line(Stream::Stdout, &"x".repeat(100)));
    assert_eq!(seen.recv().unwrap(), line(Stream::Stdout, "next"));
}

#[test]
fn a_line_is_handed_out_while_the_child_runs_on() {
    let (watched, seen) = watch(sh("echo ready; exec sleep 1000"), WatchConfig::default());
    assert_eq!(seen.recv_timeout(LONG).unwrap(), line(Stream::Stdout, "ready"));
    assert_eq!(watched.try_wait(), None);
    assert!(alive(watched.pid()));
}

#[test]
fn a_child_that_closes_its_streams_is_still_waited_for() {
    let (watched, seen) = watch(sh("exec >&- 2>&-; exec sleep 1000"), WatchConfig::default());
    assert_eq!(watched.wait_timeout(Duration::from_millis(50)), None);
    assert!(seen.try_recv().is_err());
    watched.handle().signal(Signal::SIGKILL);
    assert_eq!(watched.wait().signal, Some(9));
}

#[test]
fn an_input_that_nobody_took_is_at_its_end() {
    let (watched, seen) = watch(Spawn::new("cat").stdin(Io::Pipe), WatchConfig::default());
    let exit = watched.wait();
    assert!(exit.success());
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), [Seen::Exit(exit, String::new())]);
}

#[test]
fn dropping_it_kills_the_tree_and_returns_after_on_exit() {
    let (watched, seen) =
        watch(sh("setsid -f sleep 1000; exec sleep 1000"), WatchConfig::default());
    let pid = watched.pid();
    drop(watched);
    assert!(!alive(pid));
    assert!(matches!(seen.try_recv(), Ok(Seen::Exit(..))));
}

#[test]
fn stop_returns_after_on_exit() {
    let script = "trap 'echo bye; exit 2' TERM; echo ready; sleep 1000 & wait";
    let (watched, seen) = watch(sh(script), WatchConfig::default());
    assert_eq!(seen.recv_timeout(LONG).unwrap(), line(Stream::Stdout, "ready"));
    let exit = watched.stop(Ladder { grace: LONG });
    assert_eq!(exit.code, Some(2));
    let expected = [line(Stream::Stdout, "bye"), Seen::Exit(exit, String::new())];
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_callback_that_panics_kills_the_tree_and_lets_nobody_wait_for_ever() {
    let child = sh("echo line; exec sleep 1000").stdout(Io::Pipe).spawn().unwrap();
    let pid = child.pid();
    let on_line = |_: Stream, _: &str| panic!("on purpose");
    let watched = child.watch(WatchConfig::default(), on_line, |_, _| ()).unwrap();
    assert_eq!(watched.wait().signal, Some(9));
    assert!(!alive(pid));
}

#[test]
fn it_may_be_dropped_by_its_own_callback() {
    let slot = Arc::new(Mutex::new(None));
    let (done, dropped) = mpsc::channel();
    let child = sh("read line").stdin(Io::Pipe).stdout(Io::Pipe);
    let mut child = child.spawn().unwrap();
    let stdin = child.take_stdin();
    let own = Arc::clone(&slot);
    let on_exit = move |_, _: String| {
        drop(own.lock().unwrap().take());
        done.send(()).unwrap();
    };
    *slot.lock().unwrap() = Some(child.watch(WatchConfig::default(), |_, _| (), on_exit).unwrap());
    drop(stdin);
    dropped.recv_timeout(LONG).unwrap();
    assert!(slot.lock().unwrap().is_none());
}
