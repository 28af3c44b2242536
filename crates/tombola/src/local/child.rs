//! One process of the network. It ends when its standard input ends, so it cannot outlive us.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child as Process, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::network::LocalError;

/// Lines of standard error that are kept for an error message.
const LAST_WORDS: usize = 20;
/// Lines of standard output that may wait for us.
const LINES: usize = 65_536;
/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(8);

/// A running process.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    last_words: Arc<Mutex<VecDeque<String>>>,
}

impl Child {
    /// Starts `binary`. In a process group of its own: Ctrl-C in the terminal reaches us alone, and we end it in order.
    pub(super) fn spawn<A: AsRef<OsStr>>(name: &str, binary: &Path, args: &[A]) -> Result<Self, LocalError> {
        let failed = |source| LocalError::Spawn { name: name.to_owned(), binary: binary.to_owned(), source };
        let mut process = Command::new(binary)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let stdin = process.stdin.take();
        let (sender, lines) = sync_channel(LINES);
        if let Some(stdout) = process.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = process.stderr.take() {
            let words = Arc::clone(&last_words);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
                    if words.len() == LAST_WORDS {
                        words.pop_front();
                    }
                    words.push_back(line);
                }
            });
        }
        Ok(Self { name: name.to_owned(), process, stdin, lines, last_words })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Writes a line to its standard input.
    pub(super) fn tell(&mut self, line: &str) -> Result<(), LocalError> {
        let result = match &mut self.stdin {
            Some(stdin) => writeln!(stdin, "{line}").and_then(|()| stdin.flush()),
            None => Ok(()),
        };
        match result {
            Ok(()) => Ok(()),
            Err(_) => Err(self.died()),
        }
    }

    /// The next line that it writes, if one comes in time.
    pub(super) fn line(&mut self, timeout: Duration) -> Result<Option<String>, LocalError> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.died()),
        }
    }

    /// Whether it still runs.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// What to say about a process that has ended before its time.
    pub(super) fn died(&mut self) -> LocalError {
        LocalError::Died { name: self.name.clone(), how: self.how_it_ended(), last_words: self.last_words() }
    }

    /// How it has ended, such as "was killed (signal 9)".
    pub(super) fn how_it_ended(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut status = self.process.try_wait().ok().flatten();
        while status.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            status = self.process.try_wait().ok().flatten();
        }
        match status.map(|status| (status, status.signal())) {
            None => "says nothing more, but still runs".to_owned(),
            Some((_, Some(signal))) => format!("was killed (signal {signal})"),
            Some((status, None)) => format!("has ended ({status})"),
        }
    }

    /// Kills it with SIGKILL, if it runs, and waits for its end: it has no moment to put anything in order.
    pub(super) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The end of its standard error.
    pub(super) fn last_words(&self) -> String {
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Closes its standard input: the word for it to end.
    pub(super) fn dismiss(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end; kills it if that takes too long.
    pub(super) fn wait(&mut self) -> Option<ExitStatus> {
        self.wait_for(PATIENCE)
    }

    /// As [`wait`](Self::wait), with another patience.
    pub(super) fn wait_for(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.dismiss();
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(Some(status)) => return Some(status),
                Err(_) => return None,
            }
        }
        let _ = self.process.kill();
        self.process.wait().ok()
    }
}

impl Drop for Child {
    /// Whatever went wrong: no process stays behind.
    fn drop(&mut self) {
        self.wait();
    }
}
