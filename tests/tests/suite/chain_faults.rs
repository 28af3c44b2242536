//! The chain behind a network that pays is another one's, and fails: nodes go on, recover by themselves, and are paid to the
//! last unit.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tombola::local::Chain;
use tombola_tests::anvil::Anvil;
use tombola_tests::gate::{Gate, State};
use tombola_tests::hand::quick;
use tombola_tests::kills::World;
use tombola_tests::nodes::PaidNetwork;
use tombola_tests::process::Process;

/// Blocks that must follow before something counts.
const CONFIRMATIONS: u64 = 2;
/// What must happen here takes seconds, or a minute after an outage.
const BOUND: Duration = Duration::from_secs(600);
/// How long the chain is out of reach.
const OUTAGE: Duration = Duration::from_secs(60);

/// A network with two clients that keep writing to each other, and its chain.
struct Scene {
    anvil: Anvil,
    gate: Gate,
    world: World<PaidNetwork>,
    escrow: String,
    /// The first block of this process of anvil.
    oldest: u64,
    /// When the next message is due.
    next: Instant,
    sent: usize,
}

impl Scene {
    fn start(state: &str) -> Self {
        // A block for each transaction, so that everything is soon there, and one each second, so that blocks follow.
        let blocks = ["--block-time", "1", "--mixed-mining"];
        let anvil =
            Anvil::start(&[&blocks[..], &["--state", state, "--preserve-historical-states"]].concat());
        let gate = Gate::new(anvil.port);
        let url = format!("http://127.0.0.1:{}", gate.port);
        let chain = Chain::At { url, funder: None, confirmations: CONFIRMATIONS };
        let network = PaidNetwork::start(2, 1, 1, quick(2), chain);
        let escrow = network.escrow().to_lowercase();
        let world = World::around(network, &["gateway 1", "gateway 1"]);
        Self { anvil, gate, world, escrow, oldest: 0, next: Instant::now(), sent: 0 }
    }

    /// Messages flow until the condition holds.
    fn flow_until<T>(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + BOUND;
        let mut looked = Instant::now();
        loop {
            self.world.look();
            if Instant::now() >= self.next {
                self.next += Duration::from_millis(500);
                let from = self.sent % 2;
                if self.world.book.may_send(from) {
                    self.world.send_text(from, 1 - from, 0);
                    self.sent += 1;
                }
            }
            if looked.elapsed() > Duration::from_millis(100) {
                looked = Instant::now();
                if let Some(answer) = condition(self) {
                    return answer;
                }
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}");
        }
    }

    fn flow_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.flow_until("time passes", |_| (Instant::now() >= until).then_some(()));
    }

    /// Claims in blocks from this one on: number of the block, who sent it, hash. When a network runs nobody else calls the
    /// escrow.
    fn claims(&self, from: u64) -> Vec<Claim> {
        let mut claims = Vec::new();
        for number in from..=self.anvil.head() {
            let block = self.anvil.ask("eth_getBlockByNumber", &json!([format!("0x{number:x}"), true]));
            let calls = block["transactions"].as_array().into_iter().flatten();
            for call in calls.filter(|call| call["to"] == self.escrow.as_str()) {
                let word = |name: &str| call[name].as_str().unwrap().to_owned();
                claims.push(Claim { block: number, sender: word("from"), hash: word("hash") });
            }
        }
        claims
    }

    /// Waits for a claim in this block or a later one, of this sender if one is named.
    fn claim(&mut self, what: &str, from: u64, sender: Option<&str>) -> Claim {
        self.flow_until(what, |scene| {
            scene.claims(from).into_iter().find(|claim| sender.is_none_or(|sender| claim.sender == sender))
        })
    }

    /// The last blocks are replaced by empty ones, and as many.
    ///
    /// Anvil itself goes back to blocks of an earlier process, but without the code of contracts, so these cannot be lost.
    fn lose(&self, blocks: u64) {
        let head = self.anvil.head();
        assert!(head >= self.oldest + blocks, "block {} is older than this process of anvil", head - blocks);
        self.anvil.ask("anvil_reorg", &json!([blocks, []]));
        let code = self.anvil.ask("eth_getCode", &json!([self.escrow, "latest"]));
        assert_ne!(code, "0x", "anvil has lost the escrow with {blocks} blocks of {head}");
    }

    fn is_there(&self, claim: &Claim) -> bool {
        self.anvil.ask("eth_getTransactionReceipt", &json!([claim.hash])) != Value::Null
    }
}

struct Claim {
    block: u64,
    sender: String,
    hash: String,
}

#[test]
fn a_chain_that_is_restarted_reorganised_and_out_of_reach_costs_nobody_anything() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path().join("state.json").to_str().unwrap());
    let begun = scene.anvil.head() + 1;
    let clock = Instant::now();
    let said = |what: &str| println!("{:>5.1} s  {what}", clock.elapsed().as_secs_f64());
    scene.claim("the first claim", begun, None);
    said("claims are paid");

    // It ends in the middle of everything, and goes on from its file.
    scene.anvil.end();
    scene.flow_for(Duration::from_secs(3));
    scene.anvil.again();
    let again = scene.anvil.head() + 1;
    scene.oldest = again;
    scene.claim("a claim after the restart", again, None);
    said("claims are paid after a restart");

    // A claim was in a block, and never was: nobody counts on it yet.
    let claim = scene.flow_until("a claim in one of the last blocks", |scene| {
        let head = scene.anvil.head();
        if head < scene.oldest + CONFIRMATIONS {
            return None;
        }
        let claim = scene.claims(head).pop()?;
        scene.lose(CONFIRMATIONS);
        (!scene.is_there(&claim)).then_some(claim)
    });
    scene.claim("the claim that was lost comes again", claim.block, Some(&claim.sender));
    said("a claim in a block that was lost was sent again");

    // More blocks are lost than anybody has waited for: what counted as paid was not.
    let final_one = scene.flow_until("a claim counts as paid", |scene| {
        let head = scene.anvil.head();
        let claim = scene.claims(head.saturating_sub(5).max(scene.oldest + 1)).into_iter().next()?;
        if head < claim.block + CONFIRMATIONS + 2 {
            return None;
        }
        // The chain grows while it is asked: if the claim is too deep by now, another one is looked for.
        scene.lose(scene.anvil.head() - claim.block + 1);
        (!scene.is_there(&claim)).then_some(claim)
    });
    scene.claim("the claim comes again", final_one.block, Some(&final_one.sender));
    said("a claim that had counted as paid was sent again");

    // Out of reach: first without an answer, then without anybody who listens.
    let arrived = scene.world.book.arrived();
    scene.gate.set(State::Silent);
    // What had passed the gate before it was shut is in a block by then.
    let shut = scene.anvil.head();
    let head = scene.flow_until("two blocks follow", |scene| {
        let head = scene.anvil.head();
        (head >= shut + 2).then_some(head)
    });
    scene.flow_for(OUTAGE / 2);
    scene.gate.set(State::Refusing);
    scene.flow_for(OUTAGE / 2);
    // That all of them arrive is seen at the end; how soon is decided by the processors.
    scene.flow_until("messages arrive", |scene| (scene.world.book.arrived() > arrived + 20).then_some(()));
    assert_eq!(scene.claims(head + 1).len(), 0, "nobody has reached it");
    scene.gate.set(State::Open);
    let back = scene.anvil.head();
    scene.claim("a claim after the outage", back, None);
    said("claims are paid after an outage");

    scene.world.settle(BOUND);
    let (totals, tickets) = scene.world.settle_up();
    let tickets = tickets.unwrap();
    assert!(tickets.won >= 20 && tickets.redeemed == tickets.won, "{tickets:#?}");
    said(&format!("{} messages, {} winners, all paid", totals.messages, tickets.won));
}

/// What a user does: anvil as it comes, and one command.
#[test]
fn the_local_network_on_anvil_reports_what_everybody_earned() {
    let anvil = Anvil::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let (file, report) = (folder.path().join("file.bin"), folder.path().join("report.json"));
    std::fs::write(&file, [7; 65_536]).unwrap();
    let size = ["--messages", "40", "--replies", "10", "--mean-delay", "50ms", "--main-interval", "20ms"];
    let rest = ["--downlink-interval", "10ms", "--rpc-url", &anvil.url()];
    let paths = ["--file", file.to_str().unwrap(), "--report", report.to_str().unwrap()];
    let mut process = Process::tombola("tombola", &[&size[..], &rest, &paths].concat());
    let deadline = Instant::now() + BOUND;
    while process.is_running() {
        assert!(Instant::now() < deadline, "it does not end:\n{}", process.stderr());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (status, table) = (process.wait(), process.rest().join("\n"));
    assert_eq!(status.code(), Some(0), "{table}\n{}", process.stderr());
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let tickets = &report["tickets"];
    let amount = |name: &str| tickets[name].as_str().unwrap().parse::<u128>().unwrap();
    assert_eq!(tickets["lost"], 0, "{report:#}");
    assert!(tickets["won"].as_u64().unwrap() > 0 && tickets["won"] == tickets["redeemed"], "{report:#}");
    assert!(amount("paid") > 0 && amount("paid") == amount("expected_paid"), "{report:#}");
    assert_eq!(
        amount("deposits_before"),
        amount("deposits_after") + amount("withdrawn") + amount("credited"),
        "{report:#}"
    );
    // Six mix nodes and two gateways: name, tickets, won, paid, tokens earned, paid on, fees.
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.len() == 8 && (row[0] == "mix" || row[0] == "gateway"))
        .collect();
    assert_eq!(rows.len(), 8, "{table}");
    for row in rows {
        let count = |place: usize| row[place].parse::<u64>().unwrap();
        assert!(count(2) > 0 && count(3) > 0 && count(3) == count(4), "{row:?}");
    }
}
