//! What the two clients of a local network say to each other, and what came of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::child::Child;
use super::network::{LocalError, LocalNetwork};

/// Share of the emission clock that short messages take; the rest is for the file and for cover.
const MESSAGE_SHARE: u32 = 3;
/// How long nothing may arrive before what is missing counts as lost.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a client may take to connect.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// Clients are called this in reports.
pub(super) const NAMES: [&str; 2] = ["alice", "bob"];

/// A message from queue to arrival. Times are nanoseconds since 1970, durations nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Journey {
    pub(super) queued: u64,
    pub(super) emitted: Option<u64>,
    pub(super) delays: u64,
    pub(super) received: Option<u64>,
    pub(super) held: u64,
    pub(super) copies: u32,
    pub(super) packets: u32,
}

impl Journey {
    /// From queue to arrival.
    pub(super) fn latency(&self) -> Option<u64> {
        // Known together: the event that tells when it left tells when it was queued.
        self.emitted?;
        Some(self.received?.saturating_sub(self.queued))
    }

    /// The wait for the emission clock and for the downlink's slot.
    pub(super) fn waits(&self) -> Option<u64> {
        Some(self.emitted?.saturating_sub(self.queued) + self.held)
    }

    /// What neither delays nor waits explain. Clocks of two processes may differ by a hair, so it may be negative.
    pub(super) fn overhead(&self) -> Option<i128> {
        Some(i128::from(self.latency()?) - i128::from(self.delays) - i128::from(self.waits()?))
    }
}

/// A file from one client to the other.
#[derive(Clone, Debug)]
pub(super) struct FileJourney {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) sha256_sent: String,
    pub(super) sha256_received: Option<String>,
    pub(super) copies: u32,
    pub(super) packets: (u32, u32),
    pub(super) seconds: Option<f64>,
}

/// One of the two clients.
#[derive(Debug)]
struct Party {
    child: Child,
    address: String,
    home: PathBuf,
    stats: Option<Value>,
}

/// The two clients and everything that was seen of them.
#[derive(Debug)]
pub(super) struct Traffic {
    parties: [Party; 2],
    begun: Instant,
    /// By direction (0: from the first client to the second), then by id.
    pub(super) messages: [BTreeMap<String, Journey>; 2],
    file_id: Option<String>,
    pub(super) file: FileJourney,
    pub(super) first_delivery: Option<Duration>,
    problems: Vec<String>,
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Messages in each direction.
    pub(super) messages: u32,
    /// Mean interval of a client's emission clock.
    pub(super) main_interval: Duration,
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
            parties.push(Party { child, address: String::new(), home, stats: None });
        }
        let [first, second] = <[Party; 2]>::try_from(parties).expect("one party for each of the two names");
        let bytes =
            std::fs::read(file).map_err(|source| LocalError::Folder { path: file.to_owned(), source })?;
        let mut traffic = Self {
            parties: [first, second],
            begun,
            messages: Default::default(),
            file_id: None,
            file: FileJourney {
                path: file.to_owned(),
                bytes: bytes.len() as u64,
                sha256_sent: hex::encode(Sha256::digest(&bytes)),
                sha256_received: None,
                copies: 0,
                packets: (0, 0),
                seconds: None,
            },
            first_delivery: None,
            problems: Vec::new(),
        };
        for party in &mut traffic.parties {
            party.address = wait_ready(&mut party.child)?;
        }
        Ok(traffic)
    }

    /// Sends everything and waits until it has arrived, or nothing has for a while. `show` is called several times a
    /// second; when it says so, it stops early.
    pub(super) fn run(
        &mut self,
        load: Load,
        network: &mut LocalNetwork,
        show: &mut dyn FnMut(&Self) -> bool,
    ) -> Result<(), LocalError> {
        let interval = load.main_interval * MESSAGE_SHARE;
        let start = Instant::now();
        let file_begun = Instant::now();
        let to = self.parties[1].address.clone();
        let path = self.file.path.display().to_string();
        self.parties[0]
            .child
            .tell(&json!({ "send": { "to": to, "file": path, "tag": "file" } }).to_string())?;
        let mut sent = 0;
        let mut last_news = Instant::now();
        let mut before = self.arrived();
        loop {
            while sent < load.messages && start.elapsed() >= interval * sent {
                for (from, name) in NAMES.iter().enumerate() {
                    let to = self.parties[1 - from].address.clone();
                    let text = format!("message {} from {name}", sent + 1);
                    let command = json!({ "send": { "to": to, "text": text, "tag": "message" } });
                    self.parties[from].child.tell(&command.to_string())?;
                }
                sent += 1;
                last_news = Instant::now();
            }
            self.take_events(Duration::from_millis(10))?;
            if self.file.sha256_received.is_some() && self.file.seconds.is_none() {
                self.file.seconds = Some(file_begun.elapsed().as_secs_f64());
            }
            let now = self.arrived();
            if now != before {
                before = now;
                last_news = Instant::now();
            }
            if !show(self) {
                return Ok(());
            }
            network.check()?;
            if sent == load.messages && (self.is_complete(load.messages) || last_news.elapsed() > SILENCE) {
                return Ok(());
            }
        }
    }

    /// Asks both clients for their counts and takes what they still have to say.
    pub(super) fn finish(&mut self) -> Result<(), LocalError> {
        for party in &mut self.parties {
            party.child.tell(&json!({ "stats": {} }).to_string())?;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.parties.iter().any(|party| party.stats.is_none()) && Instant::now() < deadline {
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

    /// Counts of one client, as it gave them last.
    pub(super) fn stats(&self, party: usize) -> Option<&Value> {
        self.parties[party].stats.as_ref()
    }

    /// Process ids of the clients.
    pub(super) fn pids(&self) -> [u32; 2] {
        [self.parties[0].child.pid(), self.parties[1].child.pid()]
    }

    /// Folders of the clients.
    pub(super) fn homes(&self) -> [&Path; 2] {
        [&self.parties[0].home, &self.parties[1].home]
    }

    /// What clients complained about.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Messages that arrived, in one direction.
    pub(super) fn delivered(&self, direction: usize) -> usize {
        self.messages[direction].values().filter(|journey| journey.received.is_some()).count()
    }

    fn arrived(&self) -> (usize, usize, u32) {
        (self.delivered(0), self.delivered(1), self.file.packets.0)
    }

    fn is_complete(&self, messages: u32) -> bool {
        let whole = |direction: usize| {
            let journeys = &self.messages[direction];
            journeys.len() == messages as usize
                && journeys.values().all(|journey| journey.received.is_some() && journey.emitted.is_some())
        };
        whole(0) && whole(1) && self.file.sha256_received.is_some()
    }

    fn take_events(&mut self, patience: Duration) -> Result<(), LocalError> {
        for party in 0..2 {
            let mut wait = patience / 2;
            while let Some(line) = self.parties[party].child.line(wait)? {
                wait = Duration::ZERO;
                if let Ok(event) = serde_json::from_str(&line) {
                    self.take_event(party, &event);
                }
            }
        }
        Ok(())
    }

    fn take_event(&mut self, party: usize, event: &Value) {
        let number = |key: &str| event[key].as_u64().unwrap_or_default();
        let id = event["id"].as_str().unwrap_or_default();
        match event["event"].as_str() {
            Some("queued") if event["tag"] == "file" => self.file_id = Some(id.to_owned()),
            Some("queued") => drop(self.messages[party].entry(id.to_owned()).or_default()),
            // A file that fits one packet is still no message.
            Some("emitted") if number("count") == 1 && self.file_id.as_deref() != Some(id) => {
                let journey = self.messages[party].entry(id.to_owned()).or_default();
                journey.queued = number("queued_ns");
                journey.emitted = Some(number("emitted_ns"));
                journey.delays = number("delays_ns");
                journey.packets = 1;
            }
            Some("progress") => {
                self.file.packets = (to_u32(number("have")), to_u32(number("count")));
            }
            Some("received") if event["sha256"].is_string() => {
                self.file.copies += 1;
                self.file.sha256_received = event["sha256"].as_str().map(str::to_owned);
                self.file.packets = (to_u32(number("packets")), to_u32(number("packets")));
            }
            Some("received") => self.take_message(1 - party, id, number("received_ns"), number("held_ns")),
            Some("stats") => self.parties[party].stats = Some(event.clone()),
            Some("error" | "unreadable") => {
                self.problems.push(format!("{}: {}", NAMES[party], event["message"].as_str().unwrap_or("?")));
            }
            _ => {}
        }
    }

    fn take_message(&mut self, direction: usize, id: &str, received: u64, held: u64) {
        let begun = self.begun;
        self.first_delivery.get_or_insert_with(|| begun.elapsed());
        // The receiver's line may be read before the sender's.
        let journey = self.messages[direction].entry(id.to_owned()).or_default();
        journey.copies += 1;
        journey.received.get_or_insert(received);
        journey.held = held;
    }
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
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
