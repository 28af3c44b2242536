//! `tombola account`: what owners of clients and operators of nodes do with their money, with real processes on a development
//! chain; and mix nodes that fill the reserves of their own accounts.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tombola::local::{Chain, LocalNetwork, Options};
use tombola_chain::devchain::Genesis;
use tombola_chain::keystore::{Keystore, Password, Work};
use tombola_chain::ops::{Contracts, EscrowTerms, Operator};
use tombola_chain::{EvmConfig, Wallet};
use tombola_node::clock::unix_now;
use tombola_tests::process::{Outcome, Process, run};
use tombola_tests::{Metrics, PATIENCE, eventually};
use tombola_tickets::{Address, PriceClass, UnixSeconds, WinProbability};

const CHAIN_ID: u64 = 31_337;
const DAY: u32 = 86_400;
const TOKEN: u128 = 1_000_000;
const ETHER: u128 = 1_000_000_000_000_000_000;

/// A chain, contracts, and a document of one mix node and one gateway, which do not run.
struct World {
    runtime: tokio::runtime::Runtime,
    _chain: Process,
    url: String,
    rich: Operator,
    contracts: Contracts,
    folder: tempfile::TempDir,
    authority: String,
}

/// Whoever has an account: its folder, and what names it.
struct Owner {
    account: Address,
    folder: PathBuf,
    arguments: [String; 2],
    /// Of a node.
    identity: String,
}

fn chain(arguments: &[&str]) -> (Process, String) {
    let arguments = [&["devchain", "--listen", "127.0.0.1:0", "--exit-with-stdin"], arguments].concat();
    let mut process = Process::tombola("devchain", &arguments);
    let line = process.line().unwrap();
    let url = line.split_once(" at ").unwrap().1.split_once(',').unwrap().0.to_owned();
    (process, url)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A key in a folder; its account.
fn keystore(folder: &Path) -> Address {
    let password = Password::generate(&folder.join("chain.password")).unwrap();
    Keystore::new(folder.join("chain.json")).create(&password, Work::Light).unwrap().address()
}

impl World {
    fn new() -> (Self, [Owner; 2]) {
        let (process, url) = chain(&["--block-time", "100ms"]);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let genesis = Genesis { chain_id: CHAIN_ID, seed: "tombola".into(), accounts: 10, time: 0 };
        let wallet = Arc::new(Wallet::from_bytes(&genesis.key(0)).unwrap());
        let rich = Operator::new(&EvmConfig::new(&url), CHAIN_ID, wallet).unwrap();
        let now = u32::try_from(unix_now()).unwrap();
        let (contracts, classes) = runtime.block_on(async {
            let token = rich.deploy_token(6).await.unwrap();
            let terms = EscrowTerms {
                max_ticket_life: 2 * DAY,
                notice_period: 3 * DAY,
                genesis: u64::from(now - 1000),
                epoch_length: 2 * DAY,
                min_stake: 1,
            };
            let contracts = rich.deploy_escrow(token, &terms).await.unwrap();
            let mut classes = Vec::new();
            for _ in 0..3 {
                let class = PriceClass {
                    face_value: 100,
                    win_probability: WinProbability::from_ratio(1, 1000).unwrap(),
                    valid_from: UnixSeconds(now - 500),
                    expiry: UnixSeconds(now + DAY),
                    epoch: 0,
                };
                classes.push(rich.register_class(&contracts, &class).await.unwrap().0);
            }
            (contracts, classes)
        });
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        let secret = home.join("authority/key");
        let authority = run(&["network", "keygen", "--secret", text(&secret)]).success();
        let mut nodes = Vec::new();
        let owners = ["mix", "gateway"].map(|role| {
            let own = home.join(role);
            let entry = run(&["network", "node-keys", "--home", text(&own)]).success();
            let mut entry: Value = serde_json::from_str(&entry).unwrap();
            let account = keystore(&own);
            let ports = [(); 2].map(|()| port());
            let addresses = |port: u16| json!([format!("/ip4/127.0.0.1/tcp/{port}")]);
            entry["role"] = json!(role);
            entry["addresses"] = addresses(ports[0]);
            entry["account"] = json!(format!("{account:?}").to_lowercase());
            let fields = entry.as_object_mut().unwrap();
            if role == "mix" {
                fields.insert("layer".into(), json!(1));
            } else {
                fields.remove("layer");
                fields.insert("client_addresses".into(), addresses(ports[1]));
            }
            let identity = entry["identity"].as_str().unwrap().to_owned();
            nodes.push(entry);
            let config = own.join("node.toml");
            let clients = match role {
                "mix" => String::new(),
                _ => format!("client_listen = [\"/ip4/127.0.0.1/tcp/{}\"]\n", ports[1]),
            };
            let listen = format!("listen = [\"/ip4/127.0.0.1/tcp/{}\"]\n", ports[0]);
            let top = format!(
                "network = \"../network.json\"\nauthority = \"{}\"\nlink_secret = \"link.key\"\nsphinx_secrets = \"sphinx\"\n\
                 metrics = \"127.0.0.1:0\"\n{listen}{clients}{}",
                authority.trim(),
                payment(&url)
            );
            std::fs::write(&config, top).unwrap();
            let arguments = ["--config".to_owned(), text(&config).to_owned()];
            Owner { account, folder: own, arguments, identity }
        });
        let draft = json!({ "network": {
            "format": 1, "name": "accounts", "serial": 1,
            "parameters": {
                "layers": 1, "mean_delay": "50ms", "max_delay": "1s", "main_interval": "48ms", "loop_interval": "2s",
                "drop_interval": "2s", "mix_loop_interval": "2s", "loop_timeout": "30s", "downlink_interval": "40ms",
                "mailbox_packets": 1024, "mailbox_retention": "1d", "clients_per_gateway": 16, "admitted_rate": 1000
            },
            "epochs": [{
                "number": 1, "valid_from": now - 100, "valid_until": now + DAY / 2, "nodes": nodes,
                "payment": {
                    "chain_id": CHAIN_ID,
                    "escrow": format!("{:?}", contracts.escrow).to_lowercase(),
                    "classes": classes,
                }
            }]
        }});
        std::fs::write(home.join("draft.json"), draft.to_string()).unwrap();
        let (draft, out) = (home.join("draft.json"), home.join("network.json"));
        run(&["network", "sign", text(&draft), "--secret", text(&secret), "--out", text(&out)]).success();
        let authority = authority.trim().to_owned();
        (Self { runtime, _chain: process, url, rich, contracts, folder, authority }, owners)
    }

    fn client(&self) -> Owner {
        let folder = self.folder.path().join("client");
        let document = self.folder.path().join("network.json");
        let init = ["client", "--home", text(&folder), "init", "--offline", "--network", text(&document)];
        run(&[&init[..], &["--authority", &self.authority]].concat()).success();
        let account = keystore(&folder);
        let section = payment(&self.url).replace("[payment]\n", "");
        std::fs::write(folder.join("payment.toml"), section).unwrap();
        let arguments = ["--home".to_owned(), text(&folder).to_owned()];
        Owner { account, folder, arguments, identity: String::new() }
    }

    fn give(&self, to: Address, tokens: u128, wei: u128) {
        self.runtime.block_on(async {
            if tokens > 0 {
                self.rich.mint(&self.contracts, to, tokens).await.unwrap();
            }
            if wei > 0 {
                self.rich.send_wei(to, wei.try_into().unwrap()).await.unwrap();
            }
        });
    }

    fn tokens_of(&self, account: Address) -> String {
        self.runtime.block_on(self.rich.balances(&self.contracts, account)).unwrap().tokens.to_string()
    }

    fn ask(&self, method: &str, params: &Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = ureq::post(&self.url).header("content-type", "application/json");
        let answer = request.send(body.to_string()).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()["result"].clone()
    }

    /// Number and time of the last block.
    fn head(&self) -> [u64; 2] {
        let block = self.ask("eth_getBlockByNumber", &json!(["latest", false]));
        let number = |name: &str| block[name].as_str().unwrap().trim_start_matches("0x").to_owned();
        ["number", "timestamp"].map(|name| u64::from_str_radix(&number(name), 16).unwrap())
    }

    /// The chain's time passes, and blocks follow by which that is certain.
    fn pass(&self, seconds: u32) {
        let [_, before] = self.head();
        self.ask("evm_increaseTime", &json!([seconds]));
        let reached = eventually("a block of the new time", || {
            let [number, time] = self.head();
            (time >= before + u64::from(seconds)).then_some(number)
        });
        eventually("blocks follow it", || (self.head()[0] >= reached + 3).then_some(()));
    }
}

fn port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn payment(url: &str) -> String {
    format!(
        "[payment]\nrpc_url = \"{url}\"\nkeystore = \"chain.json\"\npassword = \"chain.password\"\nconfirmations = 2\n\
         poll = \"200ms\"\n"
    )
}

impl Owner {
    fn run(&self, command: &[&str]) -> Outcome {
        let [flag, value] = &self.arguments;
        run(&[&["account"], command, &[flag, value]].concat())
    }

    fn json(&self, command: &[&str]) -> Value {
        let said = self.run(&[command, &["--json"]].concat()).success();
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

#[test]
fn money_goes_in_and_out() {
    let (world, [mix, gateway]) = World::new();
    let empty = gateway.json(&["balance"]);
    assert_eq!(empty["account"], gateway.account.to_string());
    assert_eq!(empty["token"]["decimals"], 6);
    assert_eq!((&empty["tokens"], &empty["gas"]["wei"]), (&json!("0"), &json!("0")));
    assert_eq!(
        (&empty["reserves"], &empty["stake"], &empty["credit"]["total"]),
        (&json!([]), &json!(null), &json!("0"))
    );

    // What is missing is said, and nothing is done.
    let key = gateway.account.to_string();
    gateway.run(&["deposit", "1.5"]).refusal(&[&key, "has 0 TTT", "1.5 TTT are needed"]);
    world.give(gateway.account, 100 * TOKEN, 0);
    gateway.run(&["deposit", "1.5"]).refusal(&[&key, "gas"]);
    world.give(gateway.account, 0, ETHER);
    gateway.run(&["deposit", "1.2345678"]).refusal(&["7 decimals", "TTT has 6"]);
    gateway.run(&["deposit", "0"]).refusal(&["nothing to do"]);
    gateway.run(&["deposit", "1,5"]).refusal(&["1,5", "such as 1.5"]);
    gateway.run(&["deposit", "1.5", "--unit", "smallest"]).refusal(&["1.5"]);
    gateway.run(&["deposit", "100.000001"]).refusal(&["has 100 TTT"]);
    let mistyped = format!("0xA{}", "a".repeat(39));
    gateway.run(&["deposit", "1", "--reserve", &mistyped]).refusal(&[&mistyped, "checksum"]);
    gateway.run(&["deposit", "1", "--reserve", &"1".repeat(64)]).refusal(&["no account", "document"]);
    let (_other, elsewhere) = chain(&["--chain-id", "4242"]);
    let config = std::fs::read_to_string(&gateway.arguments[1]).unwrap();
    std::fs::write(&gateway.arguments[1], config.replace(&world.url, &elsewhere)).unwrap();
    gateway.run(&["deposit", "1"]).refusal(&["4242", "31337"]);
    std::fs::write(&gateway.arguments[1], &config).unwrap();
    assert_eq!(world.tokens_of(gateway.account), (100 * TOKEN).to_string());

    let said = gateway.run(&["deposit", "1.5"]).success();
    assert!(said.contains("deposited 1.5 TTT") && said.contains("deposit    1.5 TTT"), "{said}");
    let done = gateway.json(&["deposit", "500000", "--unit", "smallest"]);
    assert_eq!((&done["deposited"], &done["deposit"]["free"]), (&json!("500000"), &json!("2000000")));
    let done = gateway.json(&["deposit", "7", "--reserve", &mix.identity]);
    assert_eq!(done["reserve"]["recipient"], mix.account.to_string());
    assert_eq!(
        (&done["reserve"]["amount"], &done["reserve"]["node"]),
        (&json!("7000000"), &json!(mix.identity))
    );
    let said = gateway.run(&["balance"]).success();
    for line in ["tokens     91 TTT", "deposit    2 TTT", "reserve    7 TTT for "] {
        assert!(said.contains(line), "{line} is missing in:\n{said}");
    }

    // Out again: the deposit in two steps.
    let given = gateway.json(&["withdraw", "--deposit", "0.5"]);
    assert_eq!((&given["step"], &given["amount"]), (&json!("notice"), &json!("500000")));
    let waiting = gateway.json(&["withdraw", "--deposit"]);
    assert_eq!((&waiting["step"], &waiting["due"]), (&json!("waiting"), &given["due"]));
    gateway.run(&["withdraw", "--deposit", "0.7"]).refusal(&["0.5 TTT", "0.7 TTT", "--cancel"]);
    let balance = gateway.json(&["balance"]);
    assert_eq!(
        (&balance["deposit"]["free"], &balance["deposit"]["under_notice"]),
        (&json!("1500000"), &json!("500000"))
    );
    assert_eq!(balance["deposit"]["leaves_at"], given["due"]);
    assert_eq!(gateway.json(&["withdraw", "--deposit", "--cancel"])["step"], "cancelled");
    gateway.run(&["withdraw", "--deposit", "--cancel"]).refusal(&["nothing", "under notice"]);
    let said = gateway.run(&["withdraw", "--deposit"]).success();
    assert!(said.contains("notice given: 2 TTT") && said.contains(", in "), "{said}");
    assert_eq!(gateway.json(&["withdraw", "--reserve", &mix.identity])["step"], "notice");
    world.pass(3 * DAY + 60);
    let stranger = "0x7777777777777777777777777777777777777777";
    let taken = gateway.json(&["withdraw", "--deposit", "--to", stranger]);
    assert_eq!(
        (&taken["step"], &taken["amount"], &taken["to"]),
        (&json!("taken"), &json!("2000000"), &json!(stranger))
    );
    assert_eq!(world.tokens_of(stranger.parse().unwrap()), "2000000");
    let taken = gateway.json(&["withdraw", "--reserve", &mix.identity]);
    assert_eq!((&taken["step"], &taken["amount"]), (&json!("taken"), &json!("7000000")));
    assert_eq!(world.tokens_of(gateway.account), (98 * TOKEN).to_string());
    gateway.run(&["withdraw", "--reserve", &mix.identity]).refusal(&["no reserve"]);
    gateway.run(&["withdraw"]).refusal(&["no credit"]);
    let sent = gateway.json(&["withdraw", "--tokens", "8", "--to", stranger]);
    assert_eq!(
        (&sent["amount"], world.tokens_of(stranger.parse().unwrap()).as_str()),
        (&json!("8000000"), "10000000")
    );
    let nothing = gateway.json(&["earnings"]);
    assert_eq!((&nothing["won"], &nothing["state"]), (&json!("0"), &json!("stopped")));
}

#[test]
fn a_client_has_an_account_too() {
    let (world, [mix, gateway]) = World::new();
    let client = world.client();
    world.give(client.account, 10 * TOKEN, ETHER);
    let done = client.json(&["deposit", "2.5", "--reserve", "gateway"]);
    assert_eq!(done["reserve"]["recipient"], gateway.account.to_string());
    let balance = client.json(&["balance"]);
    let reserve = &balance["reserves"][0];
    assert_eq!((&reserve["amount"], &reserve["node"]), (&json!("2500000"), &json!(gateway.identity)));
    assert!(
        client.run(&["deposit", "1"]).success().contains("--reserve gateway"),
        "a deposit alone is of no use"
    );
    assert_eq!(client.json(&["earnings"])["state"], "client");
    client.run(&["redeem"]).refusal(&["a client earns nothing"]);
    // Named by its folder in the environment, as for its other commands; and whose account it is has to be said.
    run(&["account", "balance"]).refusal(&["--home", "--config"]);
    std::fs::remove_file(client.folder.join("payment.toml")).unwrap();
    client.run(&["balance"]).refusal(&["payment.toml", "no account"]);
    mix.run(&["redeem"]).refusal(&["never run"]);
    std::fs::remove_file(mix.folder.join("chain.password")).unwrap();
    mix.run(&["balance"]).refusal(&["chain.password"]);
}

struct Mix {
    process: Process,
    metrics: std::net::SocketAddr,
}

impl Mix {
    fn start(owner: &Owner) -> Self {
        let mut process = Process::tombola("mix", &["mixnode", &owner.arguments[0], &owner.arguments[1]]);
        let metrics = process.event("listening")["metrics"].as_str().unwrap().parse().unwrap();
        Self { process, metrics }
    }

    fn wait_for(&self, metric: &str, value: f64) {
        eventually(&format!("{metric} is {value}"), || {
            #[expect(clippy::float_cmp, reason = "small whole numbers")]
            (Metrics::of(self.metrics).sum(metric) == value).then_some(())
        });
    }

    fn end(mut self) -> String {
        self.process.signal(Signal::TERM);
        assert_eq!(self.process.wait().code(), Some(0), "{}", self.process.stderr());
        self.process.stderr()
    }
}

const LACKING: &str = "tombola_account_reserves_lacking";
const TOPPED_UP: &str = "tombola_account_reserves_topped_up_total";

#[test]
fn a_mix_node_fills_the_reserves_of_its_accounts() {
    let (world, [mix, gateway]) = World::new();
    let reserve = || {
        let balance = mix.json(&["balance"]);
        let accounts = balance["loop_accounts"].as_array().unwrap();
        assert_eq!(accounts.len(), 1, "there is one gateway");
        assert_eq!(accounts[0]["recipient"], gateway.account.to_string());
        assert_ne!(accounts[0]["account"], mix.account.to_string(), "no account is the node's own");
        accounts[0]["reserve"].as_str().unwrap().parse::<u128>().unwrap()
    };
    assert_eq!(reserve(), 0);
    // It has nothing: it says so, and goes on when it has got something.
    let poor = Mix::start(&mix);
    poor.wait_for(LACKING, 1.0);
    mix.run(&["redeem"]).refusal(&["the node runs", "by itself"]);
    let words = poor.end();
    assert!(words.contains("run low") && words.contains(&mix.account.to_string()), "{words}");
    assert!(!words.contains(&gateway.identity), "who its loops pay is not for the log: {words}");

    // No more than the operator allows.
    world.give(mix.account, 100 * TOKEN, ETHER);
    let config = std::fs::read_to_string(&mix.arguments[1]).unwrap();
    std::fs::write(&mix.arguments[1], format!("{config}account_reserves = \"1500\"\n")).unwrap();
    let frugal = Mix::start(&mix);
    frugal.wait_for(TOPPED_UP, 1.0);
    assert_eq!(reserve(), 1500, "what is allowed is there");
    frugal.end();
    let frugal = Mix::start(&mix);
    // It has looked, and may do nothing.
    frugal.wait_for(LACKING, 1.0);
    frugal.wait_for(TOPPED_UP, 0.0);
    frugal.end();
    assert_eq!(reserve(), 1500, "also over restarts");

    // Half a day at some 22 packets a second, of which one in a thousand wins 100.
    std::fs::write(&mix.arguments[1], &config).unwrap();
    let rich = Mix::start(&mix);
    rich.wait_for(TOPPED_UP, 1.0);
    rich.wait_for(LACKING, 0.0);
    let filled = reserve();
    assert!((90_000..140_000).contains(&filled), "{filled}");
    rich.end();
    let again = Mix::start(&mix);
    again.wait_for("tombola_chain_reachable", 1.0);
    std::thread::sleep(Duration::from_secs(3));
    again.wait_for(TOPPED_UP, 0.0);
    assert_eq!(reserve(), filled, "what is full is not filled");
    again.end();
    assert_eq!(world.tokens_of(mix.account), (100 * TOKEN - filled).to_string());
}

/// Sums of `earnings`.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    open: u128,
    claimed: u128,
    redeemed: u128,
    credit: u128,
}

impl Owner {
    /// Sums of a node that does not run. What whoever was killed had just sent may get into a block while they are asked
    /// for: then they are asked for again.
    fn stopped(&self) -> Sums {
        eventually("all that was redeemed is credited", || {
            let earnings = self.json(&["earnings"]);
            assert_eq!(earnings["state"], "stopped");
            let sums = sums(&earnings);
            (sums.credit == sums.redeemed).then_some(sums)
        })
    }
}

fn sums(earnings: &Value) -> Sums {
    let number = |value: &Value| value.as_str().unwrap().parse::<u128>().unwrap();
    let of = |name: &str| number(&earnings[name]["amount"]);
    let sums = Sums {
        open: of("open"),
        claimed: of("claimed"),
        redeemed: of("redeemed"),
        credit: number(&earnings["credit"]),
    };
    let won = number(&earnings["won"]);
    assert_eq!(won, sums.open + sums.claimed + sums.redeemed, "{earnings}");
    let issuers = earnings["issuers"].as_array().unwrap();
    assert_eq!(issuers.iter().map(|issuer| number(&issuer["won"])).sum::<u128>(), won);
    let windows = issuers.iter().flat_map(|issuer| issuer["windows"].as_array().unwrap());
    assert_eq!(windows.map(|window| number(&window["amount"])).sum::<u128>(), won);
    sums
}

#[test]
fn a_stopped_node_is_redeemed_whenever_that_is_killed() {
    tombola_client::install_crypto_provider();
    let options = Options { chain: Chain::Own, ..Options::default() };
    let mut network = LocalNetwork::start(&options).unwrap();
    let name = "gateway 1";
    let config = network.folder().join("gateway-1/node.toml");
    let arguments = ["--config".to_owned(), text(&config).to_owned()];
    let folder = network.folder().join("gateway-1");
    let owner = Owner { account: Address::ZERO, folder, arguments, identity: String::new() };

    // While it runs it says what it has won: its mix nodes' loops pay.
    let begun = unix_now();
    let running = loop {
        let earnings = owner.run(&["earnings", "--json"]);
        if earnings.code == Some(0) {
            let earnings: Value = serde_json::from_str(&earnings.stdout).unwrap();
            assert_eq!(earnings["state"], "running");
            if sums(&earnings).open > 0 && earnings["issuers"].as_array().unwrap().len() >= 2 {
                break earnings;
            }
        }
        assert!(unix_now() - begun < 3 * PATIENCE.as_secs(), "it wins nothing: {earnings:?}");
        std::thread::sleep(Duration::from_secs(1));
    };
    owner.run(&["redeem"]).refusal(&["the node runs", "by itself"]);
    std::thread::sleep(Duration::from_secs(20));
    let mut kills = 0;
    let before = loop {
        network.kill(name).unwrap();
        kills += 1;
        let before = owner.stopped();
        // At the instant of the kill everything may have been claimed.
        if before.open > 0 {
            break before;
        }
        assert!(kills < 20, "nothing is ever open: {before:?}");
        network.restart(name).unwrap();
        std::thread::sleep(Duration::from_secs(5));
    };
    let won = before.open + before.claimed + before.redeemed;
    assert!(won >= sums(&running).open, "{before:?}");
    // Whenever it is killed nothing is lost, and nothing paid twice.
    for delay in [0_u64, 5, 20, 50, 90, 140, 200, 300, 450, 700] {
        let command = ["account", "redeem", "--config", text(&config)];
        let mut process = Process::tombola("redeem", &command);
        std::thread::sleep(Duration::from_millis(delay));
        process.kill();
        let between = owner.stopped();
        assert_eq!(between.open + between.claimed + between.redeemed, won, "{delay} ms");
    }
    let last = owner.stopped();
    let done = owner.json(&["redeem"]);
    assert_eq!(done["left"], json!([]));
    assert_eq!(done["redeemed"]["amount"], (last.open + last.claimed).to_string(), "{done}");
    assert_eq!(done["credit"], won.to_string());
    let after = sums(&owner.json(&["earnings"]));
    assert_eq!(after, Sums { open: 0, claimed: 0, redeemed: won, credit: won });
    let again = owner.json(&["redeem"]);
    assert_eq!(again["credit"], won.to_string());
    for nothing in ["redeemed", "redeemed_before"] {
        assert_eq!(again[nothing], json!({ "amount": "0", "windows": [] }));
    }
    let said = owner.run(&["withdraw", "--json"]).success();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["amount"], won.to_string());

    // The node goes on, and loses nothing of it.
    network.restart(name).unwrap();
    eventually("it runs and wins again", || {
        let earnings = owner.run(&["earnings", "--json"]);
        let earnings: Value = serde_json::from_str(&earnings.stdout).ok()?;
        let now = sums(&earnings);
        (earnings["state"] == "running" && now.open + now.claimed > 0 && now.redeemed >= won).then_some(())
    });
    let info = network.nodes().find(|node| node.name == name).unwrap();
    let page = Metrics::of(info.metrics);
    let lost = page.0.lines().find(|line| line.starts_with("tombola_tickets_total{stage=\"lost\"}"));
    assert!(lost.is_some_and(|line| line.ends_with(" 0")), "{lost:?}");
    network.stop();
}
