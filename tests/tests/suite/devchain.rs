//! `tombola devchain` as a process: what whoever starts it waits for, how it ends, what of a chain outlives it, and what an
//! operator is told.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tombola_chain::devchain::Genesis;
use tombola_chain::ops::Operator;
use tombola_chain::{EvmConfig, Wallet};
use tombola_tests::eventually;
use tombola_tests::process::{Process, is_log_line, run};

const CHAIN_ID: u64 = 31_337;

/// Number and hash of a block.
type Head = (u64, String);

struct Chain {
    process: Process,
    url: String,
    /// What it said when it was ready.
    line: String,
}

impl Chain {
    fn start(arguments: &[&str]) -> Self {
        let arguments = [&["devchain", "--listen", "127.0.0.1:0", "--exit-with-stdin"], arguments].concat();
        let mut process = Process::tombola("devchain", &arguments);
        let line = process.line().unwrap_or_else(|| {
            process.wait();
            panic!("it ends instead of being ready: {}", process.stderr())
        });
        let (_, rest) = line.split_once(" at ").unwrap();
        let (url, _) = rest.split_once(',').unwrap();
        Self { process, url: url.to_owned(), line }
    }

    /// Goes on with the chain of a file.
    fn with_state(state: &Path, save_every: &str) -> Self {
        Self::start(&["--state", state.to_str().unwrap(), "--save-every", save_every])
    }

    /// A result, asked as any program would ask.
    fn ask(&self, method: &str, params: &Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build();
        let request = ureq::Agent::new_with_config(config).post(&self.url);
        let answer = request.header("content-type", "application/json").send(body);
        let text = answer.unwrap().body_mut().read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    fn head(&self) -> Head {
        self.block("latest").unwrap()
    }

    fn block(&self, which: &str) -> Option<Head> {
        let block = self.ask("eth_getBlockByNumber", &json!([which, false]));
        let number = u64::from_str_radix(block["number"].as_str()?.trim_start_matches("0x"), 16).unwrap();
        Some((number, block["hash"].as_str().unwrap().to_owned()))
    }

    /// An empty block.
    fn mine(&self) -> Head {
        self.ask("evm_mine", &json!([]));
        self.head()
    }

    /// A block with a transaction of the first endowed account.
    fn deploy(&self) -> Head {
        let genesis = Genesis { chain_id: CHAIN_ID, seed: "tombola".into(), accounts: 10, time: 0 };
        let wallet = Arc::new(Wallet::from_bytes(&genesis.key(0)).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let operator = Operator::new(&EvmConfig::new(&self.url), CHAIN_ID, wallet).unwrap();
        runtime.block_on(operator.deploy_token(6)).unwrap();
        self.head()
    }

    /// It is asked to end, and does, without a word.
    fn end(mut self) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        let words = self.process.stderr();
        assert_eq!(status.code(), Some(0), "{words}");
        assert!(words.lines().all(is_log_line), "{words}");
        assert_eq!(self.process.rest(), [""; 0], "one line is all that it says");
    }
}

fn state() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.json");
    (folder, path)
}

/// The head of the chain that is in a file.
fn kept(state: &Path) -> Option<String> {
    let file: Value = serde_json::from_slice(&std::fs::read(state).ok()?).expect("the file is always whole");
    Some(file["hash"].as_str().unwrap().to_owned())
}

fn wait_until_kept(state: &Path, head: &Head) {
    eventually("the chain is in its file", || (kept(state).as_ref() == Some(&head.1)).then_some(()));
}

#[test]
fn a_chain_says_that_it_is_ready_answers_and_ends_in_order() {
    let chain = Chain::start(&["--chain-id", "4242", "--accounts", "3"]);
    assert_eq!(chain.line, format!("development chain 4242 at {}, block 0, 3 accounts", chain.url));
    assert_eq!(chain.ask("eth_chainId", &json!([])), "0x1092");
    assert_eq!(chain.ask("eth_accounts", &json!([])).as_array().unwrap().len(), 3);
    assert_eq!(chain.mine().0, 1);
    let address = chain.url.strip_prefix("http://").unwrap().to_owned();
    chain.end();
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    let mut interrupted = Chain::start(&[]);
    interrupted.process.signal(Signal::INT);
    assert_eq!(interrupted.process.wait().code(), Some(0));
}

#[test]
fn empty_blocks_come_at_their_interval() {
    let chain = Chain::start(&["--block-time", "50ms"]);
    eventually("there are blocks that nobody asked for", || (chain.head().0 >= 3).then_some(()));
    chain.end();
}

#[test]
fn a_chain_that_ended_in_order_goes_on_where_it_was() {
    let (_folder, state) = state();
    let first = Chain::with_state(&state, "1h");
    first.mine();
    let deployed = first.deploy();
    let genesis = first.block("0x0");
    first.end();
    let second = Chain::with_state(&state, "1h");
    assert!(second.line.contains(", block 2, "), "{}", second.line);
    assert_eq!((second.head(), second.block("0x0")), (deployed.clone(), genesis));
    let last = second.deploy();
    second.end();
    let third = Chain::with_state(&state, "1h");
    assert_eq!(third.head(), last);
    assert_eq!(third.block("0x2"), Some(deployed));
}

#[test]
fn a_chain_that_was_killed_goes_on_where_it_was_last_written() {
    let (_folder, state) = state();
    let mut first = Chain::with_state(&state, "100ms");
    first.mine();
    let written = first.deploy();
    wait_until_kept(&state, &written);
    first.process.kill();
    for _ in 0..2 {
        let mut next = Chain::with_state(&state, "1h");
        assert_eq!(next.head(), written);
        // Never written.
        next.mine();
        next.deploy();
        next.process.kill();
    }
}

#[test]
fn whenever_a_chain_is_killed_its_file_is_whole() {
    let (_folder, state) = state();
    let mut heads: Vec<Head> = Vec::new();
    for kill in 0..6_u64 {
        let mut chain = Chain::with_state(&state, "100ms");
        let (number, hash) = chain.head();
        heads.truncate(usize::try_from(number).unwrap() + 1);
        match heads.last() {
            Some(last) => assert_eq!((number, &hash), (last.0, &last.1), "a chain that never was"),
            None => heads.push((number, hash)),
        }
        // It is written every now and then meanwhile.
        let until = std::time::Instant::now() + Duration::from_millis(250 + 37 * kill);
        while std::time::Instant::now() < until {
            heads.push(chain.mine());
        }
        chain.process.kill();
    }
}

#[test]
fn a_file_has_one_chain_at_a_time() {
    let (_folder, state) = state();
    let first = Chain::with_state(&state, "1h");
    let deployed = first.deploy();
    let path = state.to_str().unwrap();
    let arguments = ["devchain", "--listen", "127.0.0.1:0", "--exit-with-stdin", "--state", path];
    run(&arguments).refusal(&[path, "another process", "--state", "end that one"]);
    assert_eq!(first.head(), deployed, "the one that was first goes on");
    first.end();
    let mut second = Chain::with_state(&state, "1h");
    assert_eq!(second.head(), deployed);
    // A crash leaves no lock behind.
    second.process.kill();
    assert_eq!(Chain::with_state(&state, "1h").head(), deployed);
}

#[test]
fn what_is_wrong_with_the_flags_is_said() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(&["devchain", "--listen", &address]).refusal(&[&address, "in use", "--listen"]);
    let start =
        |more: &[&str]| run(&[&["devchain", "--listen", "127.0.0.1:0", "--exit-with-stdin"], more].concat());
    start(&["--accounts", "1001"]).refusal(&["--accounts", "1000"]);
    start(&["--block-time", "0s"]).refusal(&["--block-time"]);
    start(&["--state", "/nowhere/chain.json"]).refusal(&["--state", "/nowhere/chain.json", "No such file"]);
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let (_folder, state) = state();
    let chain = Chain::with_state(&state, "1h");
    chain.mine();
    chain.deploy();
    chain.end();
    let whole = std::fs::read_to_string(&state).unwrap();
    let path = state.to_str().unwrap();
    let start = |more: &[&str]| {
        let arguments = ["devchain", "--listen", "127.0.0.1:0", "--exit-with-stdin", "--state", path];
        run(&[&arguments, more].concat())
    };
    let refused = |text: &str, words: &[&str]| {
        std::fs::write(&state, text).unwrap();
        start(&[]).refusal(&[&[path], words].concat());
        assert_eq!(std::fs::read_to_string(&state).unwrap(), text, "what can be repaired is not lost");
    };
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut file: Value = serde_json::from_str(&whole).unwrap();
        change(&mut file);
        file.to_string()
    };
    refused(&whole[..whole.len() / 2], &["no state of a development chain", "move this one away"]);
    refused("", &["no state of a development chain"]);
    refused(&changed(&|file| file["format"] = json!("tombola-devchain-9")), &["tombola-devchain-9", "use"]);
    let anew = "move it away to begin anew";
    refused(&changed(&|file| file["hash"] = json!(format!("0x{:064x}", 5))), &["block 2", anew]);
    refused(&changed(&|file| file["blocks"][1][1] = json!("0x1234")), &["block 2", anew]);
    refused(&changed(&|file| file["seed"] = json!("another")), &["block 2", anew]);
    std::fs::write(&state, &whole).unwrap();
    start(&["--chain-id", "5"]).refusal(&["--state", "31337", "5"]);
    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    start(&[]).refusal(&[path, "directory"]);
}
