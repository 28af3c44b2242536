//! The two clients of a local network, and what they send each other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::child::Child;
use super::ledger::{FileJourney, Kind, Ledger, Load, NAMES};
use super::network::{LocalError, LocalNetwork};
use super::node::Restart;

/// Share of the emission clock that short messages take; the rest is for the file and for cover.
const MESSAGE_SHARE: u32 = 4;
/// How long nothing may happen to any message before what is missing counts as lost.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take to connect.
const READY_PATIENCE: Duration = Duration::from_secs(120);

/// One of the two clients.
#[derive(Debug)]
struct Party {
    child: Child,
    address: String,
    home: PathBuf,
}

/// The two clients and everything that was seen of them.
#[derive(Debug)]
pub(super) struct Traffic {
    parties: [Party; 2],
    pub(super) ledger: Ledger,
}

impl Traffic {
    /// Starts the two clients.
    pub(super) fn start(network: &mut LocalNetwork, file: &Path, begun: Instant) -> Result<Self, LocalError> {
        let mut parties = Vec::new();
        for (gateway, name) in NAMES.iter().enumerate() {
            let home = network.new_client_at(name, Some(gateway))?;
            let save = home.join("received");
            let args = [
                "client".as_ref(),
                "--home".as_ref(),
                home.as_os_str(),
                "run".as_ref(),
                "--save".as_ref(),
                save.as_os_str(),
            ];
            let child = network.spawn(name, &args)?;
            parties.push(Party { child, address: String::new(), home });
        }
        let [first, second] = <[Party; 2]>::try_from(parties).expect("one party for each of the two names");
        let bytes =
            std::fs::read(file).map_err(|source| LocalError::Folder { path: file.to_owned(), source })?;
        let file = FileJourney {
            path: file.to_owned(),
            bytes: bytes.len() as u64,
            sha256_sent: hex::encode(Sha256::digest(&bytes)),
            sha256_received: None,
            packets: (0, 0),
            seconds: None,
        };
        let mut traffic = Self { parties: [first, second], ledger: Ledger::new(file, begun) };
        for party in &mut traffic.parties {
            party.address = wait_ready(&mut party.child)?;
        }
        Ok(traffic)
    }

    /// Sends everything and waits until it has arrived and its senders know, or nothing has happened for a while. Nodes
    /// that end meanwhile are started again. `show` is called several times a second, with what was started again since
    /// the last time; when it says so, this stops early.
    pub(super) fn run(
        &mut self,
        load: Load,
        network: &mut LocalNetwork,
        show: &mut dyn FnMut(&Ledger, &LocalNetwork, &[Restart]) -> bool,
    ) -> Result<(), LocalError> {
        let interval = load.main_interval * MESSAGE_SHARE;
        let start = Instant::now();
        let to = self.parties[1].address.clone();
        let path = self.ledger.file.path.display().to_string();
        let file = json!({ "send": { "to": to, "file": path, "tag": Kind::File.tag() } });
        self.parties[0].child.tell(&file.to_string())?;
        let mut sent = 0;
        let mut last_news = Instant::now();
        let mut before = self.ledger.progress();
        loop {
            while sent < load.messages && start.elapsed() >= interval * sent {
                self.send(sent, sent < load.replies)?;
                sent += 1;
            }
            self.take_events(Duration::from_millis(10))?;
            if self.ledger.file.sha256_received.is_some() && self.ledger.file.seconds.is_none() {
                self.ledger.file.seconds = Some(start.elapsed().as_secs_f64());
            }
            let now = self.ledger.progress();
            if now != before {
                before = now;
                last_news = Instant::now();
            }
            let restarts = network.supervise()?;
            if !show(&self.ledger, network, &restarts) {
                return Ok(());
            }
            if sent == load.messages && (self.ledger.is_complete(load) || last_news.elapsed() > SILENCE) {
                return Ok(());
            }
        }
    }

    /// Sends a message in each direction; `number` counts from 0.
    fn send(&mut self, number: u32, wants_reply: bool) -> Result<(), LocalError> {
        for (from, name) in NAMES.iter().enumerate() {
            let to = self.parties[1 - from].address.clone();
            let text = format!("message {} from {name}", number + 1);
            let mut command = json!({ "send": { "to": to, "text": text, "tag": Kind::Message.tag() } });
            if wants_reply {
                command["send"]["replies"] = json!(1);
            }
            self.parties[from].child.tell(&command.to_string())?;
        }
        Ok(())
    }

    /// Asks both clients for their counts and takes what they still have to say.
    pub(super) fn finish(&mut self) -> Result<(), LocalError> {
        for party in &mut self.parties {
            party.child.tell(&json!({ "stats": {} }).to_string())?;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while (0..2).any(|party| self.ledger.stats(party).is_none()) && Instant::now() < deadline {
            self.take_events(Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Ends both clients.
    pub(super) fn stop(mut self) {
        for party in &mut self.parties {
            party.child.dismiss();
        }
        for party in &mut self.parties {
            party.child.wait();
        }
    }

    /// Process ids of the clients.
    pub(super) fn pids(&self) -> [u32; 2] {
        [self.parties[0].child.pid(), self.parties[1].child.pid()]
    }

    /// Folders of the clients.
    pub(super) fn homes(&self) -> [&Path; 2] {
        [&self.parties[0].home, &self.parties[1].home]
    }

    fn take_events(&mut self, patience: Duration) -> Result<(), LocalError> {
        for (place, party) in self.parties.iter_mut().enumerate() {
            let mut wait = patience / 2;
            while let Some(line) = party.child.line(wait)? {
                wait = Duration::ZERO;
                let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(command) = self.ledger.take(place, &event) {
                    party.child.tell(&command.to_string())?;
                }
            }
        }
        Ok(())
    }
}

fn wait_ready(child: &mut Child) -> Result<String, LocalError> {
    let deadline = Instant::now() + READY_PATIENCE;
    while Instant::now() < deadline {
        let Some(line) = child.line(Duration::from_millis(100))? else { continue };
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if let (Some("ready"), Some(address)) = (event["event"].as_str(), event["address"].as_str()) {
            return Ok(address.to_owned());
        }
    }
    Err(LocalError::Late {
        name: child.name().to_owned(),
        what: "has not connected to its gateway",
        patience: READY_PATIENCE,
        last_words: child.last_words(),
    })
}
