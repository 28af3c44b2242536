//! However a local network ends, nothing of it is left.
//!
//! A run gets a folder for temporary files of its own; the variable that names it is in the environment of every process
//! that descends from the run, so none can hide, whatever its parent has become. A port that a process has bound goes with
//! the process.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tombola_tests::process::Process;
use tombola_tests::{eventually, tombola};

/// Processes whose environment names this folder for temporary files.
fn processes_of(folder: &Path) -> Vec<u32> {
    let variable = format!("TMPDIR={}", folder.display()).into_bytes();
    let numbers = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let number = entry.file_name().to_str()?.parse::<u32>().ok()?;
        // Not readable: somebody else's, or gone meanwhile. A zombie has none.
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        environment.split(|&byte| byte == 0).any(|entry| entry == variable).then_some(number)
    });
    numbers.collect()
}

/// Processes whose parent is `parent`.
fn children_of(parent: u32) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let number = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The program's name, in parentheses, may contain anything.
        let after_name = stat.rsplit_once(") ")?.1;
        (after_name.split(' ').nth(1)? == parent.to_string()).then_some(number)
    });
    numbers.collect()
}

struct Run {
    process: Process,
    folder: TempDir,
}

impl Run {
    /// 3 mix nodes, 1 gateway.
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().with_extension("file");
        std::fs::write(&file, [7; 1000]).unwrap();
        let mut command = Command::new(tombola());
        command.args(["--width", "1", "--gateways", "1", "--mean-delay", "20ms", "--replies", "0", "--file"]);
        command.arg(&file).args(more).env("TMPDIR", folder.path());
        Self { process: Process::spawn("tombola", &mut command), folder }
    }

    /// Lets it run until the nodes are linked, and looks at what there is.
    fn wait_up(&mut self) {
        self.process.line_where("the links", |line| line.contains("All links are up"));
        // 3 mix nodes, a gateway, 2 clients, the chain, the keeper.
        let children = children_of(self.process.pid());
        assert_eq!(children.len(), 8, "{children:?}");
        let all = processes_of(self.folder.path());
        assert!(children.iter().all(|child| all.contains(child)), "{children:?} {all:?}");
        assert_eq!(self.files().len(), 1, "{:?}", self.files());
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Nothing is left, at once: the process that has ended did not end before.
    fn assert_clean(&self) {
        assert_eq!(processes_of(self.folder.path()), Vec::<u32>::new());
        assert_eq!(self.files(), Vec::<PathBuf>::new());
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.folder.path().with_extension("file"));
    }
}

#[test]
fn a_run_that_ends_by_itself_leaves_nothing() {
    let mut run = Run::start(&["--messages", "2"]);
    run.wait_up();
    assert_eq!(run.process.wait().code(), Some(0), "{}", run.process.stderr());
    run.assert_clean();
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    // With all the time in the world, so that the signal comes first.
    let mut run = Run::start(&["--messages", "2", "--hold"]);
    run.wait_up();
    run.process.line_where("the end of the traffic", |line| line.contains("stays up until Ctrl-C"));
    run.process.signal(Signal::INT);
    assert_eq!(run.process.wait().code(), Some(0), "{}", run.process.stderr());
    run.assert_clean();
}

#[test]
fn a_run_that_is_terminated_in_its_traffic_leaves_nothing() {
    let mut run = Run::start(&["--messages", "10000"]);
    run.wait_up();
    run.process.signal(Signal::TERM);
    assert_eq!(run.process.wait().code(), Some(1), "{}", run.process.stderr());
    assert!(run.process.stderr().contains("tombola: interrupted"), "{}", run.process.stderr());
    run.assert_clean();
}

#[test]
fn a_run_that_is_interrupted_while_it_starts_leaves_nothing() {
    let mut run = Run::start(&["--messages", "2"]);
    run.process.line_where("the first line", |line| line.starts_with("Starting"));
    run.process.signal(Signal::INT);
    assert_eq!(run.process.wait().code(), Some(1), "{}", run.process.stderr());
    run.assert_clean();
}

/// Nodes that were started again included.
#[test]
fn a_run_that_is_killed_leaves_nothing() {
    let mut run = Run::start(&["--messages", "10000"]);
    run.wait_up();
    let role = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        line.split(|&byte| byte == 0).nth(1).map(|word| String::from_utf8_lossy(word).into_owned())
    };
    let node =
        children_of(run.process.pid()).into_iter().find(|&pid| role(pid).as_deref() == Some("mixnode"));
    kill_process(Pid::from_raw(i32::try_from(node.unwrap()).unwrap()).unwrap(), Signal::KILL).unwrap();
    run.process.line_where("the notice", |line| line.contains("was killed (signal 9); started again"));
    run.process.signal(Signal::KILL);
    assert_eq!(run.process.wait().code(), None);
    // What is left notices by itself, and the keeper clears up.
    eventually("all processes end", || processes_of(run.folder.path()).is_empty().then_some(()));
    run.assert_clean();
}
