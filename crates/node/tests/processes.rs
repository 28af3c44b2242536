//! What only a real process shows: signals, the end of standard input, the death of a parent, and what a log looks like.
//!
//! Each test starts this test binary again with one of the `child_*` functions, which do nothing unless they are asked to.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a failure must stop the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tombola_node::logging::{self, LogFormat};
use tombola_node::shutdown::Shutdown;

const ASKED: &str = "TOMBOLA_TEST_CHILD";

/// This binary, to run `function` alone; its standard streams are pipes.
fn command(function: &str, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", function, "--nocapture", "--test-threads=1"]).env(ASKED, argument);
    command.env_remove(logging::FILTER_VARIABLE);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn asked() -> Option<String> {
    std::env::var(ASKED).ok()
}

/// Reads lines until one contains `mark`, and returns it.
fn wait_for(output: &mut impl BufRead, mark: &str) -> String {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "ended without {mark:?}: {all}");
        if line.contains(mark) {
            return line;
        }
        all.push_str(&line);
    }
}

fn wait_for_end(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "the child does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Waits for its end and says what brought it. With the argument "hang" it does not end even then.
#[test]
fn child_waits() {
    let Some(argument) = asked() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let shutdown = Shutdown::new();
    runtime.block_on(async { shutdown.on_signals() }).unwrap();
    if argument == "stdin" {
        shutdown.on_stdin_closed().unwrap();
    }
    println!("\nready");
    let cause = runtime.block_on(shutdown.triggered());
    println!("\nended: {cause}");
    std::io::stdout().flush().unwrap();
    if argument == "hang" {
        std::thread::sleep(Duration::from_secs(600));
    }
}

/// Starts `child_waits` with a pipe of which it holds the other end, and never does anything again.
#[test]
fn child_has_a_child() {
    if asked().is_none() {
        return;
    }
    let mut child =
        command("child_waits", "stdin").stdout(Stdio::inherit()).stderr(Stdio::inherit()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(600));
    wait_for_end(&mut child);
}

/// Writes lines of which a log must show some.
#[test]
fn child_logs() {
    let Some(format) = asked() else { return };
    logging::init(format.parse().unwrap(), None).unwrap();
    tracing::info!(target: "tombola_protocol::relay", links = 3, "ours at info");
    tracing::debug!(target: "tombola_protocol::relay", "ours at debug");
    tracing::info!(target: "libp2p_swarm", "theirs at info");
    tracing::warn!(target: "libp2p_swarm", "theirs at warn");
    assert!(logging::init(LogFormat::Text, None).is_err(), "only once");
}

#[test]
fn signals_end_a_process_and_say_which() {
    for (signal, expected) in
        [(Signal::TERM, "ended: terminated (SIGTERM)"), (Signal::INT, "ended: interrupted (SIGINT)")]
    {
        let mut child = command("child_waits", "signals").spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        wait_for(&mut output, "ready");
        kill_process(pid(&child), signal).unwrap();
        wait_for(&mut output, expected);
        // What follows is the test harness; it must be able to write.
        output.read_to_string(&mut String::new()).unwrap();
        assert!(wait_for_end(&mut child).success());
    }
}

#[test]
fn a_second_signal_ends_a_process_that_hangs() {
    let mut child = command("child_waits", "hang").spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "ready");
    kill_process(pid(&child), Signal::TERM).unwrap();
    wait_for(&mut output, "ended");
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(143));
}

#[test]
fn the_end_of_standard_input_ends_a_process() {
    let mut child = command("child_waits", "stdin").spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "ready");
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"what is written does not matter\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none(), "as long as the pipe is open it goes on");
    drop(input);
    wait_for(&mut output, "ended: standard input was closed");
    output.read_to_string(&mut String::new()).unwrap();
    assert!(wait_for_end(&mut child).success());
}

#[test]
fn without_the_flag_the_end_of_standard_input_means_nothing() {
    let mut child = command("child_waits", "signals").spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "ready");
    drop(child.stdin.take());
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none());
    kill_process(pid(&child), Signal::TERM).unwrap();
    wait_for(&mut output, "ended: terminated");
    output.read_to_string(&mut String::new()).unwrap();
    wait_for_end(&mut child);
}

#[test]
fn the_sudden_death_of_a_parent_ends_its_child() {
    let mut parent = command("child_has_a_child", "").spawn().unwrap();
    let mut output = BufReader::new(parent.stdout.take().unwrap());
    wait_for(&mut output, "ready");
    kill_process(pid(&parent), Signal::KILL).unwrap();
    wait_for_end(&mut parent);
    wait_for(&mut output, "ended: standard input was closed");
    // The grandchild held the writing end of this pipe too: its end is the end of the pipe.
    output.read_to_string(&mut String::new()).unwrap();
}

/// Whether `text` is a time in whole seconds, `2026-03-21T14:05:09Z`.
fn is_whole_seconds(text: &str) -> bool {
    text.len() == 20
        && text.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            10 => byte == b'T',
            13 | 16 => byte == b':',
            19 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

fn log_of(format: &str) -> Vec<String> {
    let output = command("child_logs", format).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    text.lines().filter(|line| line.contains(" at ")).map(str::to_owned).collect()
}

#[test]
fn a_log_shows_ours_at_info_and_the_libraries_at_warn_with_coarse_times() {
    let lines = log_of("text");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(is_whole_seconds(lines[0].split(' ').next().unwrap()), "{lines:?}");
    assert!(!lines[0].contains('\x1b'), "no colours in a pipe: {lines:?}");
    assert!(lines[0].contains("ours at info links=3") && lines[1].contains("theirs at warn"), "{lines:?}");
}

#[test]
fn a_json_log_is_one_object_per_line() {
    let lines = log_of("json");
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in &lines {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        let (_, rest) = line.split_once("\"timestamp\":\"").unwrap();
        assert!(is_whole_seconds(rest.split('"').next().unwrap()), "{line}");
    }
}
