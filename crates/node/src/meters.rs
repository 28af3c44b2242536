//! Hands what the state machines and links have counted to the metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tombola_link::{LinkStats, Links};
use tombola_protocol::drops::DropCounters;
use tombola_protocol::payment::Payments;

use crate::metrics::{
    CONNECTIONS_REFUSED_TOTAL, DIALS_FAILED_TOTAL, FRAME_LENGTHS_TOTAL, FRAMES_IN_TOTAL, FRAMES_OUT_TOTAL,
    LINK_FRAMES_DROPPED_TOTAL, LINKS_CONNECTED, LINKS_ENDED_TOTAL, PACKETS_DROPPED_TOTAL,
    PAYMENT_SLOWED_NEIGHBOURS, PAYMENT_UNHEARD_TOTAL, PAYMENT_VIOLATIONS_TOTAL, PAYMENT_WAITING_PACKETS,
    TICKET_STORES_IN_TROUBLE, TICKET_VALUE, TICKETS_TOTAL,
};
use crate::shutdown::Shutdown;

/// Drops, by reason. Reasons that never occurred are left out.
pub fn publish_drops(drops: &DropCounters) {
    for (reason, count) in drops.iter().filter(|(_, count)| *count > 0) {
        ::metrics::counter!(PACKETS_DROPPED_TOTAL, "reason" => reason.label()).absolute(count);
    }
}

/// What an account pays and earns.
pub fn publish_payments(payments: &Payments) {
    let counts = payments.counts();
    let sum = payments.ledger().sum();
    for (stage, count) in [
        ("issued", sum.issued),
        ("redeemed", sum.redeemed),
        ("withheld", counts.withheld),
        ("accepted", sum.listed),
        ("signed", sum.batched),
        ("opened", sum.opened),
        ("unopened", sum.unopened),
        ("won", sum.won.tickets),
        ("paid", sum.paid.tickets),
        ("lost", sum.lost.tickets),
        ("expired", sum.expired.tickets),
    ] {
        ::metrics::counter!(TICKETS_TOTAL, "stage" => stage).absolute(count);
    }
    // Counters are of 64 bits, which a few tokens of 18 decimals fill.
    for (stage, value) in [
        ("won", sum.won.value),
        ("paid", sum.paid.value),
        ("lost", sum.lost.value),
        ("expired", sum.expired.value),
        ("spent", sum.spent),
    ] {
        ::metrics::gauge!(TICKET_VALUE, "stage" => stage).set(value as f64);
    }
    ::metrics::counter!(PAYMENT_VIOLATIONS_TOTAL).absolute(counts.violations);
    ::metrics::counter!(PAYMENT_UNHEARD_TOTAL).absolute(counts.unheard);
    ::metrics::gauge!(PAYMENT_WAITING_PACKETS).set(counts.waiting as f64);
    ::metrics::gauge!(PAYMENT_SLOWED_NEIGHBOURS).set(counts.slowed as f64);
}

/// How many of a node's stores of tickets take nothing.
pub fn publish_trouble(stores: usize) {
    ::metrics::gauge!(TICKET_STORES_IN_TROUBLE).set(stores as f64);
}

/// All links of a process. Some come and go with the epochs; what those that went have counted stays in the sums.
#[derive(Clone, Debug, Default)]
pub struct LinkRegistry(Arc<Mutex<Registered>>);

#[derive(Debug, Default)]
struct Registered {
    live: Vec<Links>,
    gone: Totals,
}

impl LinkRegistry {
    /// Counts these links, too.
    pub fn add(&self, links: Links) {
        self.lock().live.push(links);
    }

    /// Ends links in order, and forgets them but for their counts.
    pub async fn end(&self, links: &Links) {
        links.shutdown().await;
        let mut registered = self.lock();
        registered.live.retain(|live| live.identity() != links.identity());
        let stats = links.stats();
        registered.gone.add(&stats);
        // What was connected is not any more.
        registered.gone.up = 0;
    }

    /// Ends all links in order, at the same time.
    pub async fn end_all(&self) {
        let live = self.lock().live.clone();
        let ends: Vec<_> =
            live.into_iter().map(|links| tokio::spawn(async move { links.shutdown().await })).collect();
        for end in ends {
            // A task that panicked has no links any more.
            let _ = end.await;
        }
    }

    /// Publishes the counters of all links once a second, until `shutdown` is triggered.
    pub async fn publish(self, shutdown: Shutdown) {
        loop {
            self.publish_once();
            tokio::select! {
                _ = shutdown.triggered() => break,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        self.publish_once();
    }

    fn publish_once(&self) {
        let registered = self.lock();
        let mut totals = registered.gone.clone();
        registered.live.iter().for_each(|links| totals.add(&links.stats()));
        totals.publish();
    }

    fn lock(&self) -> MutexGuard<'_, Registered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, Default)]
struct Totals {
    up: usize,
    frames_in: u64,
    frames_out: u64,
    failed_dials: u64,
    lengths: BTreeMap<usize, u64>,
    refused: BTreeMap<&'static str, u64>,
    ended: BTreeMap<&'static str, u64>,
    dropped: BTreeMap<&'static str, u64>,
}

impl Totals {
    fn add(&mut self, stats: &LinkStats) {
        self.up += stats.links;
        self.frames_in += stats.frames_in;
        self.frames_out += stats.frames_out;
        self.failed_dials += stats.failed_dials;
        for (length, count) in &stats.received_lengths {
            *self.lengths.entry(*length).or_insert(0) += count;
        }
        add(&mut self.refused, stats.refused.iter().map(|(reason, count)| (reason.as_str(), *count)));
        add(&mut self.ended, stats.ended.iter().map(|(reason, count)| (reason.as_str(), *count)));
        add(&mut self.dropped, stats.dropped.iter().map(|(reason, count)| (reason.as_str(), *count)));
    }

    fn publish(&self) {
        ::metrics::gauge!(LINKS_CONNECTED).set(self.up as f64);
        ::metrics::counter!(FRAMES_IN_TOTAL).absolute(self.frames_in);
        ::metrics::counter!(FRAMES_OUT_TOTAL).absolute(self.frames_out);
        ::metrics::counter!(DIALS_FAILED_TOTAL).absolute(self.failed_dials);
        for (length, count) in &self.lengths {
            ::metrics::counter!(FRAME_LENGTHS_TOTAL, "bytes" => length.to_string()).absolute(*count);
        }
        for (name, counts) in [
            (CONNECTIONS_REFUSED_TOTAL, &self.refused),
            (LINKS_ENDED_TOTAL, &self.ended),
            (LINK_FRAMES_DROPPED_TOTAL, &self.dropped),
        ] {
            for (reason, count) in counts {
                ::metrics::counter!(name, "reason" => *reason).absolute(*count);
            }
        }
    }
}

fn add(sums: &mut BTreeMap<&'static str, u64>, counts: impl Iterator<Item = (&'static str, u64)>) {
    for (reason, count) in counts.filter(|(_, count)| *count > 0) {
        *sums.entry(reason).or_insert(0) += count;
    }
}
