//! What a run showed: as JSON for programs, as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use tombola_node::metrics::{FRAME_LENGTHS_TOTAL, PACKETS_DROPPED_TOTAL};

use super::ledger::{Journey, Kind, Ledger, Load, NAMES};
use super::money::Tickets;
use super::network::LocalNetwork;
use super::scrape;

/// The whole report. A dotted name in the documentation is a path of nested objects here.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    messages: Messages,
    replies: Replies,
    retransmissions: u64,
    file: File,
    latency_ms: Latency,
    overhead_ms: Quantiles,
    cover: Cover,
    links: Links,
    drops: BTreeMap<String, u64>,
    processes: usize,
    duration_s: f64,
    first_delivery_s: Option<f64>,
    cpu_cores: f64,
    node_rss_mib_max: f64,
    /// There when everything was claimed; never in a network without payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    tickets: Option<Tickets>,
    #[serde(skip)]
    replies_expected: u64,
    #[serde(skip)]
    directions: [Direction; 2],
    #[serde(skip)]
    hops: u8,
    #[serde(skip)]
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Messages {
    sent: u64,
    delivered: u64,
    lost: u64,
    duplicated: u64,
}

#[derive(Debug, Serialize)]
struct Replies {
    sent: u64,
    delivered: u64,
}

#[derive(Debug, Serialize)]
struct File {
    bytes: u64,
    packets: u32,
    seconds: Option<f64>,
    sha256_sent: String,
    sha256_received: Option<String>,
}

#[derive(Debug, Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p99: f64,
    /// Mean of the sums of the delays that were drawn.
    expected_mean: f64,
    /// Mean of the waits for the emission clock and for the downlink's slot.
    waits_mean: f64,
    /// What theory predicts: delays and waits.
    predicted_mean: f64,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

#[derive(Debug, Serialize)]
struct Cover {
    /// Share of cover (main clock, loops, drops) in what the two clients emitted.
    share: f64,
    real: u64,
    cover: u64,
    loops: u64,
    drops: u64,
}

#[derive(Debug, Serialize)]
struct Links {
    /// Every length that any receiver read a frame of.
    frame_lengths: Vec<u64>,
    /// How many frames of each.
    frames: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Direction {
    sent: usize,
    delivered: usize,
    latency_mean: f64,
    predicted_mean: f64,
}

/// What was measured outside of the clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) duration: Duration,
    pub(super) cpu_cores: f64,
    pub(super) node_rss_max: u64,
}

impl Report {
    /// Puts everything together. The nodes must still run: their counters are read.
    pub(super) fn new(network: &LocalNetwork, ledger: &Ledger, load: Load, measured: Measured) -> Self {
        let all = |kind| (0..2).flat_map(move |sender| ledger.sent(kind, sender));
        let accepted = |kind| all(kind).filter(|journey| journey.accepted).count() as u64;
        let delivered = |kind| all(kind).filter(|journey| journey.received.is_some()).count() as u64;
        let messages = (accepted(Kind::Message), delivered(Kind::Message));
        let replies = (accepted(Kind::Reply), delivered(Kind::Reply));
        let lost = |(accepted, delivered): (u64, u64)| accepted.saturating_sub(delivered);
        let duplicated: u64 = [Kind::Message, Kind::Reply, Kind::File]
            .into_iter()
            .flat_map(all)
            .map(|journey| u64::from(journey.copies.saturating_sub(1)))
            .sum();
        // Figures are about the same messages, whichever they are about.
        let measurable: Vec<&Journey> =
            all(Kind::Message).filter(|journey| journey.latency().is_some()).collect();
        let latency = millis(measurable.iter().filter_map(|journey| journey.latency()));
        let delays = millis(measurable.iter().map(|journey| journey.delays));
        let waits = millis(measurable.iter().filter_map(|journey| journey.waits()));
        let overhead = measurable.iter().filter_map(|journey| journey.overhead());
        let overhead = sorted(overhead.map(|ns| ns as f64 / 1e6).collect());
        let (frames, drops) = read_nodes(network, ledger);
        Self {
            messages: Messages {
                sent: messages.0,
                delivered: messages.1,
                lost: lost(messages) + lost(replies),
                duplicated,
            },
            replies: Replies { sent: replies.0, delivered: replies.1 },
            retransmissions: sum_of(ledger, "/retransmissions"),
            file: File {
                bytes: ledger.file.bytes,
                packets: ledger.file.packets.1,
                seconds: ledger.file.seconds,
                sha256_sent: ledger.file.sha256_sent.clone(),
                sha256_received: ledger.file.sha256_received.clone(),
            },
            latency_ms: Latency {
                mean: mean(&latency),
                p50: quantile(&latency, 0.5),
                p99: quantile(&latency, 0.99),
                expected_mean: mean(&delays),
                waits_mean: mean(&waits),
                predicted_mean: mean(&delays) + mean(&waits),
            },
            overhead_ms: Quantiles { p50: quantile(&overhead, 0.5), p99: quantile(&overhead, 0.99) },
            cover: Cover::of(ledger),
            links: Links {
                frame_lengths: frames.keys().copied().collect(),
                frames: frames.iter().map(|(length, count)| (length.to_string(), *count)).collect(),
            },
            drops,
            processes: network.nodes().count() + NAMES.len(),
            duration_s: measured.duration.as_secs_f64(),
            first_delivery_s: ledger.first_delivery.map(|first| first.as_secs_f64()),
            cpu_cores: measured.cpu_cores,
            node_rss_mib_max: measured.node_rss_max as f64 / f64::from(1 << 20),
            tickets: None,
            replies_expected: 2 * u64::from(load.replies.min(load.messages)),
            directions: [0, 1].map(|direction| Direction::of(ledger, direction)),
            hops: network.network().parameters().layers,
            problems: ledger.problems().to_vec(),
        }
    }

    /// What the network was worth.
    pub(super) fn set_tickets(&mut self, tickets: Tickets) {
        self.tickets = Some(tickets);
    }

    /// What went wrong, if anything did.
    pub(super) fn failure(&self) -> Option<String> {
        let mut wrong = self.problems.clone();
        if self.messages.lost > 0 {
            let all = self.messages.sent + self.replies.sent;
            wrong.push(format!("{} of {all} messages and replies were lost", self.messages.lost));
        }
        if self.replies.sent < self.replies_expected {
            wrong.push(format!("{} of {} replies were sent", self.replies.sent, self.replies_expected));
        }
        if self.messages.duplicated > 0 {
            wrong.push(format!("{} messages arrived more than once", self.messages.duplicated));
        }
        match &self.file.sha256_received {
            None => wrong.push("the file did not arrive".to_owned()),
            Some(hash) if *hash != self.file.sha256_sent => wrong.push("the file arrived changed".to_owned()),
            Some(_) => {}
        }
        if self.links.frame_lengths.len() != 1 {
            wrong.push(format!("frames of several lengths were received: {:?}", self.links.frame_lengths));
        }
        wrong.extend(self.tickets.iter().flat_map(Tickets::problems));
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }

    /// A table for people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let hops = self.hops;
        let _ = writeln!(
            text,
            "\n  from    to      through          sent  delivered  lost   latency   theory says"
        );
        for (direction, row) in self.directions.iter().enumerate() {
            let _ = writeln!(
                text,
                "  {:<7} {:<7} {hops} mixes + 2 gw  {:>5}  {:>9}  {:>4}  {:>6.0} ms  {:>8.0} ms",
                NAMES[direction],
                NAMES[1 - direction],
                row.sent,
                row.delivered,
                row.sent - row.delivered.min(row.sent),
                row.latency_mean,
                row.predicted_mean,
            );
        }
        let replies = &self.replies;
        if self.replies_expected > 0 {
            let _ = writeln!(
                text,
                "  both    ways    reply blocks     {:>5}  {:>9}  {:>4}",
                replies.sent,
                replies.delivered,
                replies.sent.saturating_sub(replies.delivered),
            );
        }
        let file = &self.file;
        let equal = file.sha256_received.as_ref() == Some(&file.sha256_sent);
        let _ = writeln!(
            text,
            "  {:<7} {:<7} a file of {} bytes in {} packets: {}",
            NAMES[0],
            NAMES[1],
            file.bytes,
            file.packets,
            match (equal, file.seconds) {
                (true, Some(seconds)) => format!("arrived unchanged after {seconds:.1} s"),
                (true, None) => "arrived unchanged".to_owned(),
                (false, _) => "DID NOT ARRIVE AS IT WAS SENT".to_owned(),
            }
        );
        let l = &self.latency_ms;
        let _ = writeln!(
            text,
            "\n  A message took {:.0} ms on average (half of them less than {:.0} ms, 99 % less than {:.0} ms). Theory: {:.0} ms of",
            l.mean, l.p50, l.p99, l.expected_mean
        );
        let _ = writeln!(
            text,
            "  random delays in the mix nodes, {:.0} ms of waiting for a slot; what remains is the network's own: {:.1} ms.",
            l.waits_mean, self.overhead_ms.p50
        );
        let _ = writeln!(
            text,
            "  {:.0} % of what the two clients sent was cover traffic; every one of {} frames on every link had {} bytes.",
            self.cover.share * 100.0,
            self.links.frames.values().sum::<u64>(),
            self.links.frame_lengths.iter().map(u64::to_string).collect::<Vec<_>>().join(" or "),
        );
        let _ = writeln!(
            text,
            "  {} packets were sent again because nothing had acknowledged them in time.",
            self.retransmissions
        );
        let _ = writeln!(
            text,
            "  {} processes, {:.1} s, {:.2} processor cores in all, at most {:.0} MiB of memory for a node.",
            self.processes, self.duration_s, self.cpu_cores, self.node_rss_mib_max
        );
        text
    }
}

impl Direction {
    fn of(ledger: &Ledger, sender: usize) -> Self {
        let journeys = || ledger.sent(Kind::Message, sender);
        let measurable = || journeys().filter(|journey| journey.latency().is_some());
        let predicted = measurable().filter_map(|journey| Some(journey.delays + journey.waits()?));
        Self {
            sent: journeys().count(),
            delivered: ledger.delivered(Kind::Message, sender),
            latency_mean: mean(&millis(measurable().filter_map(Journey::latency))),
            predicted_mean: mean(&millis(predicted)),
        }
    }
}

impl Cover {
    fn of(ledger: &Ledger) -> Self {
        let [real, cover, loops, drops] =
            ["real", "cover", "loops", "drops"].map(|key| sum_of(ledger, &format!("/emitted/{key}")));
        let all = real + cover + loops + drops;
        let share = if all == 0 { 0.0 } else { (all - real) as f64 / all as f64 };
        Self { share, real, cover, loops, drops }
    }
}

/// A count of both clients together.
fn sum_of(ledger: &Ledger, pointer: &str) -> u64 {
    (0..2).filter_map(|party| ledger.stats(party)?.pointer(pointer)?.as_u64()).sum()
}

/// Frame lengths and drops of all nodes and clients.
fn read_nodes(network: &LocalNetwork, ledger: &Ledger) -> (BTreeMap<u64, u64>, BTreeMap<String, u64>) {
    let mut frames = BTreeMap::new();
    let mut drops = BTreeMap::new();
    for samples in network.counters() {
        for (length, count) in scrape::by_label(&samples, FRAME_LENGTHS_TOTAL, "bytes") {
            if let Ok(length) = length.parse() {
                *frames.entry(length).or_insert(0) += count as u64;
            }
        }
        for (reason, count) in scrape::by_label(&samples, PACKETS_DROPPED_TOTAL, "reason") {
            *drops.entry(reason.to_owned()).or_insert(0) += count as u64;
        }
    }
    for stats in (0..2).filter_map(|party| ledger.stats(party)) {
        for (length, count) in stats["frame_lengths"].as_object().into_iter().flatten() {
            if let (Ok(length), Some(count)) = (length.parse(), count.as_u64()) {
                *frames.entry(length).or_insert(0) += count;
            }
        }
        for (reason, count) in stats["dropped"].as_object().into_iter().flatten() {
            *drops.entry(reason.clone()).or_insert(0) += count.as_u64().unwrap_or_default();
        }
    }
    (frames, drops)
}

fn millis(nanos: impl Iterator<Item = u64>) -> Vec<f64> {
    sorted(nanos.map(|ns| ns as f64 / 1e6).collect())
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The smallest value that at least a share `q` of the sorted values do not exceed.
fn quantile(values: &[f64], q: f64) -> f64 {
    let rank = (q * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&values, 1.0), 100.0);
        assert_eq!(quantile(&[7.0], 0.01), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
