//! Anvil, another chain for development, as a process.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Ends when it is dropped.
pub(crate) struct Anvil {
    child: Child,
    pub(crate) url: String,
}

/// That of `TOMBOLA_ANVIL`, else the one that is installed for the contracts, else one in the path.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("TOMBOLA_ANVIL") {
        return named.into();
    }
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/node_modules/@foundry-rs");
    // Of the packages for all platforms npm has installed that for this one.
    let packages = std::fs::read_dir(packages).into_iter().flatten().flatten();
    let programs = packages.map(|package| package.path().join("bin/anvil"));
    programs.into_iter().find(|program| program.is_file()).unwrap_or_else(|| "anvil".into())
}

impl Anvil {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let program = program();
        let mut child = Command::new(&program)
            .args(["--port", "0", "--hardfork", "osaka"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; `cargo xtask test` installs anvil, or name one in TOMBOLA_ANVIL",
                    program.display()
                )
            });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("anvil ended").unwrap();
            if let Some(address) = line.strip_prefix("Listening on ") {
                break address.trim().to_owned();
            }
        };
        // Else it would wait in `write` some time.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://{address}") }
    }
}

impl Anvil {
    /// It is asked to end; then its file, if it has one, is written.
    pub(crate) fn end(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        for _ in 0..1200 {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "anvil: {status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("anvil does not end within two minutes");
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
