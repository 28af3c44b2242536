//! One node of a running network: its process, and what becomes of it when that ends.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tombola_node::metrics::{FRAME_LENGTHS_TOTAL, PACKETS_DROPPED_TOTAL};
use tombola_topology::Role;

use super::child::Child;
use super::network::LocalError;
use super::plan::PlannedNode;
use super::scrape::{self, Samples};

/// How long a node may take until it listens.
const LISTEN_PATIENCE: Duration = Duration::from_secs(60);
/// How often a node is started again within [`WINDOW`] before that is given up.
const RESTARTS: usize = 10;
/// The time in which restarts are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// The first restart is immediate, the second within a minute waits so long, each further one twice as long as the one
/// before: a node that cannot start at once, for example because its port is still taken, gets some time.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest pause before a restart.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often counters are read, so that not all of them are gone with a process that is killed.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// What is known of a running node.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Such as "mix 2.1" or "gateway 1".
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its process; another one after a restart.
    pub pid: u32,
    /// Where it serves metrics; another port after a restart.
    pub metrics: SocketAddr,
}

/// A node that had ended runs again.
#[derive(Clone, Debug)]
pub struct Restart {
    /// Which.
    pub name: String,
    /// How it had ended, such as "was killed (signal 9)".
    pub how: String,
    /// Its new process.
    pub pid: u32,
    /// Where that serves metrics.
    pub metrics: SocketAddr,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, how, pid, metrics } = self;
        write!(f, "{name} {how}; started again (process {pid}, http://{metrics}/metrics)")
    }
}

/// Where a node's process is in its life.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Up,
    /// Ended; to be started again at this instant.
    Ended(Instant),
    /// Started again at this instant, not listening yet.
    Starting(Instant),
}

/// A node and its process.
#[derive(Debug)]
pub(super) struct Node {
    planned: PlannedNode,
    info: NodeInfo,
    process: Child,
    phase: Phase,
    /// How it ended last.
    how: String,
    /// When it ended, within the last [`WINDOW`].
    ends: VecDeque<Instant>,
    /// Counters of its earlier processes.
    before: Samples,
    /// Counters of this process, when they were read last.
    last: Samples,
    counted: Instant,
}

/// What starts a process for a node.
pub(super) type Start<'a> = &'a mut dyn FnMut(&PlannedNode) -> Result<Child, LocalError>;

impl Node {
    /// A node whose process was just started. Waits until it listens.
    pub(super) fn new(
        planned: PlannedNode,
        mut process: Child,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Self, LocalError> {
        let metrics = wait_listening(&mut process, interrupted)?;
        let info = NodeInfo { name: planned.name.clone(), role: planned.role, pid: process.pid(), metrics };
        Ok(Self {
            planned,
            info,
            process,
            phase: Phase::Up,
            how: String::new(),
            ends: VecDeque::new(),
            before: Samples::new(),
            last: Samples::new(),
            counted: Instant::now(),
        })
    }

    pub(super) fn info(&self) -> &NodeInfo {
        &self.info
    }

    pub(super) fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// Looks after the process, without waiting for it. Says when it has been started again.
    pub(super) fn supervise(&mut self, start: Start<'_>) -> Result<Option<Restart>, LocalError> {
        match self.phase {
            Phase::Up if !self.process.is_running() => self.ended().map(|()| None),
            Phase::Up => {
                if self.counted.elapsed() >= COUNT_INTERVAL {
                    self.count();
                }
                Ok(None)
            }
            Phase::Ended(at) => {
                if Instant::now() >= at {
                    self.process = start(&self.planned)?;
                    self.phase = Phase::Starting(Instant::now());
                }
                Ok(None)
            }
            Phase::Starting(since) => match self.process.line(Duration::ZERO) {
                Ok(Some(line)) => Ok(metrics_in(&line).map(|metrics| self.is_up(metrics))),
                Ok(None) if since.elapsed() > LISTEN_PATIENCE => Err(late(&self.process)),
                Ok(None) => Ok(None),
                Err(_) => self.ended().map(|()| None),
            },
        }
    }

    /// What it has said since it was up.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        match self.phase {
            Phase::Up => std::iter::from_fn(|| self.process.line(Duration::ZERO).ok().flatten()).collect(),
            Phase::Ended(_) | Phase::Starting(_) => Vec::new(),
        }
    }

    /// Kills the process, if it runs, starts another, and waits until it listens.
    pub(super) fn restart(&mut self, start: Start<'_>) -> Result<Restart, LocalError> {
        self.process.kill();
        self.how = self.process.how_it_ended();
        self.before.append(&mut self.last);
        self.process = start(&self.planned)?;
        self.phase = Phase::Starting(Instant::now());
        let metrics = wait_listening(&mut self.process, &|| false)?;
        Ok(self.is_up(metrics))
    }

    /// Frame lengths and drops, over all its processes. What was counted in the last seconds of a process that was killed
    /// is missing.
    pub(super) fn counters(&self) -> Samples {
        let now = match self.phase {
            Phase::Up => scrape::scrape(self.info.metrics).ok().map(kept),
            _ => None,
        };
        self.before.iter().chain(now.as_ref().unwrap_or(&self.last)).cloned().collect()
    }

    fn count(&mut self) {
        self.counted = Instant::now();
        if let Ok(samples) = scrape::scrape(self.info.metrics) {
            self.last = kept(samples);
        }
    }

    /// Takes note of the end of the process, and decides when there shall be another.
    fn ended(&mut self) -> Result<(), LocalError> {
        self.before.append(&mut self.last);
        let now = Instant::now();
        while self.ends.front().is_some_and(|&end| now.duration_since(end) > WINDOW) {
            self.ends.pop_front();
        }
        if self.ends.len() >= RESTARTS {
            return Err(self.process.died());
        }
        self.phase = Phase::Ended(now + pause(self.ends.len()));
        self.ends.push_back(now);
        self.how = self.process.how_it_ended();
        Ok(())
    }

    fn is_up(&mut self, metrics: SocketAddr) -> Restart {
        self.phase = Phase::Up;
        self.counted = Instant::now();
        (self.info.pid, self.info.metrics) = (self.process.pid(), metrics);
        Restart { name: self.info.name.clone(), how: self.how.clone(), pid: self.info.pid, metrics }
    }
}

/// How long to wait before a node is started that has ended so many times in the last minute.
fn pause(earlier: usize) -> Duration {
    match u32::try_from(earlier).unwrap_or(u32::MAX) {
        0 => Duration::ZERO,
        earlier => PAUSE.saturating_mul(1 << (earlier - 1).min(16)).min(PAUSE_MAX),
    }
}

/// The counters that outlive a process.
fn kept(mut samples: Samples) -> Samples {
    samples.retain(|(name, _)| {
        [FRAME_LENGTHS_TOTAL, PACKETS_DROPPED_TOTAL].iter().any(|kept| name.starts_with(kept))
    });
    samples
}

/// The address in the line by which a node says that it listens.
fn metrics_in(line: &str) -> Option<SocketAddr> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    event["metrics"].as_str()?.parse().ok()
}

fn wait_listening(process: &mut Child, interrupted: &dyn Fn() -> bool) -> Result<SocketAddr, LocalError> {
    let deadline = Instant::now() + LISTEN_PATIENCE;
    while Instant::now() < deadline {
        if interrupted() {
            return Err(LocalError::Interrupted);
        }
        let Some(line) = process.line(Duration::from_millis(100))? else { continue };
        if let Some(metrics) = metrics_in(&line) {
            return Ok(metrics);
        }
    }
    Err(late(process))
}

fn late(process: &Child) -> LocalError {
    LocalError::Late {
        name: process.name().to_owned(),
        what: "did not start",
        patience: LISTEN_PATIENCE,
        last_words: process.last_words(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_slow_down_and_all_of_them_fit_the_window() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1), PAUSE);
        assert!((1..40).all(|n| pause(n) >= pause(n - 1) && pause(n) <= PAUSE_MAX));
        // Else a node that never comes up would be started for ever.
        assert!((0..RESTARTS).map(pause).sum::<Duration>() < WINDOW / 2);
    }
}
