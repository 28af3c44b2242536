//! Anvil, another chain for development, as a process that can be killed, and changed behind everybody's back.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::hand::free_port;

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Anvil {
    child: Option<Child>,
    arguments: Vec<String>,
    pub port: u16,
}

/// That of `TOMBOLA_ANVIL`, else the one that is installed for the contracts, else one in the path.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("TOMBOLA_ANVIL") {
        return named.into();
    }
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/node_modules/@foundry-rs");
    // Of the packages for all platforms npm has installed that for this one.
    let packages = std::fs::read_dir(packages).into_iter().flatten().flatten();
    let programs = packages.map(|package| package.path().join("bin/anvil"));
    programs.into_iter().find(|program| program.is_file()).unwrap_or_else(|| "anvil".into())
}

impl Anvil {
    /// Starts it with these arguments, on a port that it keeps.
    pub fn start(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut anvil = Self { child: None, arguments, port: free_port() };
        anvil.again();
        anvil
    }

    /// Starts it again, after its end.
    pub fn again(&mut self) {
        let program = program();
        let mut child = Command::new(&program)
            .args(["--port", &self.port.to_string(), "--hardfork", "osaka"])
            .args(&self.arguments)
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
        while !lines.next().expect("anvil ended").unwrap().starts_with("Listening on ") {}
        // Else it would wait in `write` some time.
        std::thread::spawn(move || lines.for_each(drop));
        self.child = Some(child);
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It is asked to end; then its file, if it has one, is written.
    pub fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        for _ in 0..1200 {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "anvil: {status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = child.kill();
        panic!("anvil does not end within two minutes");
    }

    /// A result, asked as any program would ask.
    pub fn ask(&self, method: &str, params: &Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build();
        let request = ureq::Agent::new_with_config(config).post(self.url());
        let answer = request.header("content-type", "application/json").send(body);
        let text = answer.unwrap().body_mut().read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Number of the last block.
    pub fn head(&self) -> u64 {
        let head = self.ask("eth_blockNumber", &json!([]));
        u64::from_str_radix(head.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        self.kill();
    }
}
