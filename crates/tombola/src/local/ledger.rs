//! What was seen of every message between the two clients, from the events of both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Clients are called this in reports.
pub(super) const NAMES: [&str; 2] = ["alice", "bob"];

/// What a message is, by the tag with which it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Reply,
    File,
}

impl Kind {
    pub(super) fn tag(self) -> &'static str {
        match self {
            Kind::Message => "message",
            Kind::Reply => "reply",
            Kind::File => "file",
        }
    }

    fn of_tag(tag: &str) -> Option<Self> {
        [Kind::Message, Kind::Reply, Kind::File].into_iter().find(|kind| kind.tag() == tag)
    }
}

/// A message from queue to arrival. Times are nanoseconds since 1970, durations nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Journey {
    pub(super) kind: Option<Kind>,
    /// Its sender has said that it accepted it.
    pub(super) accepted: bool,
    pub(super) queued: u64,
    /// When it left for the first time.
    pub(super) emitted: Option<u64>,
    pub(super) delays: u64,
    /// When a packet of it was sent again for the first time, if that happened.
    pub(super) repeated: Option<u64>,
    pub(super) received: Option<u64>,
    pub(super) held: u64,
    pub(super) copies: u32,
    pub(super) acknowledged: bool,
}

impl Journey {
    /// From queue to arrival. Nobody can say it of a message that was sent again before it arrived: which of the two
    /// packets it was that arrived is not known.
    pub(super) fn latency(&self) -> Option<u64> {
        // Known together: the event that tells when it left tells when it was queued.
        self.emitted?;
        let received = self.received?;
        let once = self.repeated.is_none_or(|repeated| received <= repeated);
        once.then(|| received.saturating_sub(self.queued))
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
    pub(super) packets: (u32, u32),
    pub(super) seconds: Option<f64>,
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Messages in each direction.
    pub(super) messages: u32,
    /// How many of them ask for a reply.
    pub(super) replies: u32,
    /// Mean interval of a client's emission clock.
    pub(super) main_interval: Duration,
}

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Ledger {
    begun: Instant,
    /// By sender, then by id.
    journeys: [BTreeMap<String, Journey>; 2],
    pub(super) file: FileJourney,
    pub(super) first_delivery: Option<Duration>,
    /// A client that confirms what has arrived says so of everything.
    confirms: bool,
    happened: u64,
    stats: [Option<Value>; 2],
    problems: Vec<String>,
}

impl Ledger {
    pub(super) fn new(file: FileJourney, begun: Instant) -> Self {
        Self {
            begun,
            journeys: Default::default(),
            file,
            first_delivery: None,
            confirms: false,
            happened: 0,
            stats: Default::default(),
            problems: Vec::new(),
        }
    }

    /// Messages of one kind from one client.
    pub(super) fn sent(&self, kind: Kind, sender: usize) -> impl Iterator<Item = &Journey> {
        self.journeys[sender].values().filter(move |journey| journey.kind == Some(kind))
    }

    /// How many messages of one kind from one client have arrived.
    pub(super) fn delivered(&self, kind: Kind, sender: usize) -> usize {
        self.sent(kind, sender).filter(|journey| journey.received.is_some()).count()
    }

    /// Counts of one client, as it gave them last.
    pub(super) fn stats(&self, party: usize) -> Option<&Value> {
        self.stats[party].as_ref()
    }

    /// What clients complained about.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// A number that grows whenever anything happens to a message: it is accepted, a packet of it leaves, again or for the
    /// first time, some of it arrives, it is acknowledged.
    pub(super) fn progress(&self) -> u64 {
        self.happened
    }

    /// Whether everything has arrived, and its senders know.
    pub(super) fn is_complete(&self, load: Load) -> bool {
        let expected = [
            (Kind::Message, load.messages, 2),
            (Kind::Reply, load.replies.min(load.messages), 2),
            (Kind::File, 1, 1),
        ];
        let confirmed = |journey: &Journey| journey.acknowledged || (!self.confirms && load.replies == 0);
        expected.into_iter().all(|(kind, count, senders)| {
            (0..senders).all(|sender| {
                self.sent(kind, sender).count() == count as usize
                    && self.sent(kind, sender).all(|journey| {
                        journey.accepted
                            && journey.emitted.is_some()
                            && journey.received.is_some()
                            && confirmed(journey)
                    })
            })
        })
    }

    /// Takes an event of one client. What that client shall do about it, if anything: a message that asks for a reply gets
    /// one.
    pub(super) fn take(&mut self, party: usize, event: &Value) -> Option<Value> {
        let number = |key: &str| event[key].as_u64().unwrap_or_default();
        let id = event["id"].as_str().unwrap_or_default();
        if matches!(
            event["event"].as_str(),
            Some("queued" | "emitted" | "progress" | "received" | "acknowledged")
        ) {
            self.happened += 1;
        }
        match event["event"].as_str() {
            Some("queued") => {
                let journey = self.of(party, id);
                journey.kind = event["tag"].as_str().and_then(Kind::of_tag);
                journey.accepted = true;
            }
            Some("emitted") => {
                let journey = self.of(party, id);
                if number("attempt") > 0 {
                    journey.repeated.get_or_insert(number("emitted_ns"));
                } else if journey.emitted.is_none() {
                    journey.queued = number("queued_ns");
                    journey.emitted = Some(number("emitted_ns"));
                    journey.delays = number("delays_ns");
                }
            }
            Some("acknowledged") => {
                self.confirms = true;
                self.of(party, id).acknowledged = true;
            }
            Some("progress") => {
                self.file.packets = (to_u32(number("have")), to_u32(number("count")));
            }
            Some("received") => return self.received(party, id, event),
            Some("stats") => self.stats[party] = Some(event.clone()),
            Some("expired") => {
                self.problems.push(format!("{}: the message {id} expired", NAMES[party]));
            }
            Some("error" | "unreadable") => {
                self.problems.push(format!("{}: {}", NAMES[party], event["message"].as_str().unwrap_or("?")));
            }
            _ => {}
        }
        None
    }

    fn received(&mut self, party: usize, id: &str, event: &Value) -> Option<Value> {
        let number = |key: &str| event[key].as_u64().unwrap_or_default();
        let kind = if event["sha256"].is_string() {
            Kind::File
        } else if event["reply_to"].is_string() {
            Kind::Reply
        } else {
            Kind::Message
        };
        // The receiver's line may be read before the sender's.
        let journey = self.of(1 - party, id);
        journey.kind = Some(kind);
        journey.copies += 1;
        journey.received.get_or_insert(number("received_ns"));
        journey.held = number("held_ns");
        let first = journey.copies == 1;
        match kind {
            Kind::File => {
                self.file.sha256_received = event["sha256"].as_str().map(str::to_owned);
                self.file.packets = (to_u32(number("packets")), to_u32(number("packets")));
            }
            Kind::Message => {
                let begun = self.begun;
                self.first_delivery.get_or_insert_with(|| begun.elapsed());
            }
            Kind::Reply => {}
        }
        let asks = first && event["replies"] == true;
        asks.then(|| {
            let text = format!("{} has got it", NAMES[party]);
            json!({ "reply": { "id": id, "text": text, "tag": Kind::Reply.tag() } })
        })
    }

    fn of(&mut self, sender: usize, id: &str) -> &mut Journey {
        self.journeys[sender].entry(id.to_owned()).or_default()
    }
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { messages: 1, replies: 1, main_interval: Duration::from_millis(60) };

    fn ledger() -> Ledger {
        let file = FileJourney {
            path: PathBuf::from("file"),
            bytes: 5,
            sha256_sent: "aa".to_owned(),
            sha256_received: None,
            packets: (0, 0),
            seconds: None,
        };
        Ledger::new(file, Instant::now())
    }

    fn queued(id: &str, kind: Kind) -> Value {
        json!({ "event": "queued", "id": id, "tag": kind.tag(), "bytes": 5 })
    }

    fn emitted(id: &str, attempt: u32, at: u64) -> Value {
        json!({ "event": "emitted", "id": id, "index": 0, "count": 1, "attempt": attempt,
                "queued_ns": 1_000, "emitted_ns": at, "delays_ns": 500 })
    }

    fn acknowledged(id: &str) -> Value {
        json!({ "event": "acknowledged", "id": id })
    }

    fn received(id: &str, more: &Value) -> Value {
        let mut event =
            json!({ "event": "received", "id": id, "received_ns": 2_000, "held_ns": 50, "packets": 1 });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    }

    #[test]
    fn a_run_is_complete_when_messages_replies_and_file_have_arrived_and_their_senders_know() {
        let mut ledger = ledger();
        let mut news = ledger.progress();
        let replies = json!({ "text": "m", "replies": true, "reply_to": null });
        let events = [
            (0, queued("file", Kind::File)),
            (0, emitted("file", 0, 1_100)),
            (0, queued("a", Kind::Message)),
            (0, emitted("a", 0, 1_100)),
            (1, received("a", &replies)),
            (1, queued("ra", Kind::Reply)),
            (1, emitted("ra", 0, 1_100)),
            // Before its sender has said anything.
            (0, received("b", &replies)),
            (1, queued("b", Kind::Message)),
            (1, emitted("b", 0, 1_100)),
            (0, queued("rb", Kind::Reply)),
            (0, emitted("rb", 0, 1_100)),
            (1, received("rb", &json!({ "text": "r", "replies": false, "reply_to": "b" }))),
            (0, received("ra", &json!({ "text": "r", "replies": false, "reply_to": "a" }))),
            (1, received("file", &json!({ "sha256": "aa", "replies": false }))),
            (0, acknowledged("a")),
            (1, acknowledged("b")),
            (1, acknowledged("ra")),
            (0, acknowledged("rb")),
            (0, acknowledged("file")),
        ];
        for (party, event) in events {
            assert!(!ledger.is_complete(LOAD), "before {event}");
            let answer = ledger.take(party, &event);
            assert_eq!(answer.is_some(), event["replies"] == true, "{event}");
            if let Some(answer) = answer {
                assert_eq!(
                    (&answer["reply"]["id"], &answer["reply"]["tag"]),
                    (&event["id"], &json!("reply"))
                );
            }
            assert!(ledger.progress() > news, "{event}");
            news = ledger.progress();
        }
        assert!(ledger.is_complete(LOAD));
        assert!(!ledger.is_complete(Load { messages: 2, ..LOAD }));
        assert_eq!(ledger.delivered(Kind::Message, 0), 1);
        assert_eq!(ledger.delivered(Kind::Reply, 1), 1);
        // A second copy is counted, and gets no second reply.
        assert!(ledger.take(1, &received("a", &replies)).is_none());
        assert_eq!(ledger.sent(Kind::Message, 0).next().unwrap().copies, 2);
        assert!(ledger.problems().is_empty());
        ledger.take(0, &json!({ "event": "expired", "id": "a" }));
        assert_eq!(ledger.problems().len(), 1);
    }

    #[test]
    fn a_message_that_was_sent_again_before_it_arrived_has_no_latency() {
        for (again_at, measured) in [(None, true), (Some(1_999), false), (Some(2_001), true)] {
            let mut ledger = ledger();
            ledger.take(0, &queued("a", Kind::Message));
            ledger.take(0, &emitted("a", 0, 1_100));
            if let Some(at) = again_at {
                ledger.take(0, &emitted("a", 1, at));
            }
            ledger.take(1, &received("a", &json!({ "text": "m" })));
            let journey = ledger.sent(Kind::Message, 0).next().unwrap();
            assert_eq!(journey.latency(), measured.then_some(1_000));
            assert_eq!((journey.emitted, journey.delays), (Some(1_100), 500), "the first transmission's");
        }
    }

    #[test]
    fn overhead_is_what_delays_and_waits_do_not_explain() {
        let journey = Journey {
            queued: 1_000,
            emitted: Some(1_100),
            delays: 500,
            received: Some(1_700),
            held: 50,
            copies: 1,
            ..Journey::default()
        };
        assert_eq!(journey.latency(), Some(700));
        assert_eq!(journey.waits(), Some(150));
        assert_eq!(journey.overhead(), Some(50));
        assert_eq!(Journey::default().overhead(), None);
    }
}
