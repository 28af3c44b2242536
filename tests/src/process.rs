//! One process of a test: its lines, its words on standard error, its end. It does not outlive the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{PATIENCE, tombola};

/// A running process, ended when it is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `tombola` with arguments.
    pub fn tombola<S: AsRef<std::ffi::OsStr>>(name: &str, args: &[S]) -> Self {
        Self::spawn(name, Command::new(tombola()).args(args))
    }

    /// Starts a command.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .env_remove("TOMBOLA_LOG")
            .env_remove("TOMBOLA_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let (mut source, words) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = source.read(&mut chunk) {
                words.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, stdin, lines, stderr, reader: Some(reader) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has written to standard error.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).unwrap_or_else(|error| {
            panic!("{} takes no input: {error}", self.name);
        });
    }

    /// The next line of standard output; `None` at its end.
    pub fn line(&mut self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("{} says nothing more; its errors:\n{}", self.name, self.stderr()),
        }
    }

    /// The lines that it has written by now, without waiting for more.
    pub fn lines_so_far(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Kills it with SIGKILL and waits for its end; the lines that it had still written.
    pub fn kill(&mut self) -> Vec<String> {
        self.signal(Signal::KILL);
        self.wait();
        self.rest()
    }

    /// The next line that satisfies the condition.
    pub fn line_where(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = self.line() {
            if wanted(&line) {
                return line;
            }
            assert!(Instant::now() < deadline, "{}: waited in vain for {what}", self.name);
        }
        panic!("{} ended before {what}; its errors:\n{}", self.name, self.stderr());
    }

    /// The next event (a line of JSON) of this kind.
    pub fn event(&mut self, kind: &str) -> Value {
        let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
        parse(&self.line_where(&format!("the event {kind:?}"), |line| parse(line)["event"] == kind))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end. It may be a whole network that first has to earn something, and is paid then.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.wait_at_most(4 * PATIENCE);
        let status = status.unwrap_or_else(|| panic!("{} does not end:\n{}", self.name, self.stderr()));
        // What it wrote last is read once its pipe is at its end.
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        status
    }

    fn wait_at_most(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Everything else that it writes until it ends.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.line()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.close_input();
        if self.wait_at_most(Duration::from_secs(10)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What came of a command that ends by itself.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `tombola` with these arguments to its end.
pub fn run<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(args: &[S]) -> Outcome {
    let mut process = Process::tombola(&format!("tombola {args:?}"), args);
    let status = process.wait();
    let stdout = process.rest().join("\n");
    Outcome { code: status.code(), stdout, stderr: process.stderr() }
}

impl Outcome {
    /// The command has done what it should; its standard output.
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The command has failed as an operator's mistake should: exit code 1, nothing on standard output, and as the last
    /// thing on standard error one line with all of these words. Returns the line.
    pub fn refusal(self, words: &[&str]) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let messages: Vec<&str> = self.stderr.lines().filter(|line| !is_log_line(line)).collect();
        let [message] = messages[..] else { panic!("not one line: {self:?}") };
        assert!(message.starts_with("tombola: "), "{message}");
        for word in words {
            assert!(message.contains(word), "{word:?} is missing in: {message}");
        }
        message.to_owned()
    }
}

/// Log lines begin with the year.
pub fn is_log_line(line: &str) -> bool {
    let line = strip_colours(line);
    line.len() > 20 && line.as_bytes()[..4].iter().all(u8::is_ascii_digit) && line.as_bytes()[4] == b'-'
}

fn strip_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}
