//! Nodes of a local network that are killed are started again, and a node that cannot run is not started for ever.

use std::collections::BTreeMap;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tombola::local::{LocalError, LocalNetwork, NodeInfo, Options, Restart};
use tombola_tests::hand::quick;
use tombola_tests::process::Process;
use tombola_tests::{Metrics, PATIENCE, eventually, tombola};

/// A mix node and a gateway.
fn network() -> LocalNetwork {
    let options = Options {
        layers: 1,
        width: 1,
        gateways: 1,
        parameters: Some(quick(1)),
        binary: Some(tombola().to_owned()),
        ..Options::default()
    };
    LocalNetwork::start(&options).unwrap()
}

fn node(network: &LocalNetwork, name: &str) -> NodeInfo {
    network.nodes().find(|node| node.name == name).unwrap().clone()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

/// Looks after the network until so many nodes were started again.
fn supervise(network: &mut LocalNetwork, count: usize) -> Vec<Restart> {
    let mut restarts = Vec::new();
    eventually("nodes are started again", || {
        restarts.extend(network.supervise().unwrap());
        (restarts.len() >= count).then_some(())
    });
    restarts
}

fn linked(node: &NodeInfo, least: f64) {
    eventually(&format!("{} is linked", node.name), || {
        (Metrics::of(node.metrics).sum("tombola_links_connected") >= least).then_some(())
    });
}

#[test]
fn killed_nodes_are_started_again_and_find_each_other() {
    let mut network = network();
    let before = ["mix 1.1", "gateway 1"].map(|name| node(&network, name));
    assert_eq!(network.supervise().unwrap().len(), 0);
    // Both at once; twice, so that a restarted one is looked after as well.
    for _ in 0..2 {
        for info in ["mix 1.1", "gateway 1"].map(|name| node(&network, name)) {
            kill(info.pid);
        }
        let restarts: BTreeMap<String, Restart> =
            supervise(&mut network, 2).into_iter().map(|restart| (restart.name.clone(), restart)).collect();
        assert_eq!(restarts.len(), 2, "{restarts:?}");
        for (name, restart) in &restarts {
            assert!(restart.to_string().starts_with(&format!("{name} was killed (signal 9); started again")));
            let now = node(&network, name);
            assert_eq!((now.pid, now.metrics), (restart.pid, restart.metrics));
            assert!(before.iter().all(|old| old.pid != now.pid));
        }
        network.check().unwrap();
        // A neighbour and an account: both ends know the other's new process, on the old ports.
        linked(&node(&network, "mix 1.1"), 2.0);
        linked(&node(&network, "gateway 1"), 1.0);
    }
    assert_eq!(network.supervise().unwrap().len(), 0);
}

#[test]
fn a_test_can_kill_a_node_and_decide_when_it_comes_back() {
    let mut network = network();
    let before = node(&network, "mix 1.1");
    network.kill("mix 1.1").unwrap();
    let error = network.check().unwrap_err();
    assert!(error.to_string().contains("mix 1.1 was killed (signal 9)"), "{error}");
    let restart = network.restart("mix 1.1").unwrap();
    assert_ne!(restart.pid, before.pid);
    network.check().unwrap();
    linked(&node(&network, "mix 1.1"), 2.0);
    // One that runs is killed first.
    let again = network.restart("mix 1.1").unwrap();
    assert_ne!(again.pid, restart.pid);
    linked(&node(&network, "mix 1.1"), 2.0);

    for result in [network.kill("mix 7.7"), network.restart("mix 7.7").map(drop)] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("mix 7.7") && error.contains("mix 1.1, gateway 1"), "{error}");
    }
}

#[test]
fn a_node_that_cannot_run_ends_the_network_with_its_last_words() {
    let mut network = network();
    // Its key is gone: whoever starts it again meets the same error.
    std::fs::remove_file(network.folder().join("mix-1.1").join("link.key")).unwrap();
    network.kill("mix 1.1").unwrap();
    let begun = Instant::now();
    let error = loop {
        match network.supervise() {
            Ok(restarts) => assert!(restarts.is_empty(), "{restarts:?}"),
            Err(error) => break error,
        }
        assert!(begun.elapsed() < PATIENCE, "it is started for ever");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let LocalError::Died { name, how, last_words } = error else { panic!("{error}") };
    assert_eq!(name, "mix 1.1");
    assert!(how.contains("exit status: 1"), "{how}");
    assert!(last_words.contains("link.key") && last_words.contains("no such key file"), "{last_words}");
}

/// What a person sees at the terminal.
#[test]
fn a_held_network_says_what_it_started_again() {
    let size = ["--layers", "1", "--width", "1", "--gateways", "1", "--mean-delay", "20ms"];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, [1; 100]).unwrap();
    let traffic = ["--messages", "1", "--replies", "0", "--file", file.path().to_str().unwrap()];
    let rates = ["--main-interval", "10ms", "--downlink-interval", "5ms"];
    let mut process = Process::tombola(
        "tombola",
        &[&size[..], &traffic, &rates, &["--hold", "--exit-with-stdin"]].concat(),
    );
    process.line_where("the end of the traffic", |line| line.contains("stays up until Ctrl-C"));
    let command = process.line_where("how to make a client", |line| line.contains("tombola client --home"));
    let words: Vec<&str> = command.split_whitespace().collect();
    let document = words[words.iter().position(|&word| word == "--network").unwrap() + 1];
    let document = std::fs::read_to_string(document).unwrap();
    assert!(document.contains("\"10ms\"") && document.contains("\"5ms\""), "{document}");
    let listed = process.line_where("the mix node", |line| line.trim_start().starts_with("mix 1.1"));
    let pid = listed.split_whitespace().skip_while(|&word| word != "process").nth(1).unwrap();
    kill(pid.parse().unwrap());
    process.line_where("the notice", |line| {
        line.starts_with("mix 1.1 was killed (signal 9); started again (process ")
    });
    process.close_input();
    assert!(process.wait().success(), "{}", process.stderr());
}
