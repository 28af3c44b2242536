//! Hands what the state machines and links have counted to the metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use tombola_link::Links;
use tombola_protocol::drops::DropCounters;

use crate::metrics::{
    CONNECTIONS_REFUSED_TOTAL, DIALS_FAILED_TOTAL, FRAME_LENGTHS_TOTAL, FRAMES_IN_TOTAL, FRAMES_OUT_TOTAL,
    LINK_FRAMES_DROPPED_TOTAL, LINKS_CONNECTED, LINKS_ENDED_TOTAL, PACKETS_DROPPED_TOTAL,
};
use crate::shutdown::Shutdown;

/// Drops, by reason. Reasons that never occurred are left out.
pub fn publish_drops(drops: &DropCounters) {
    for (reason, count) in drops.iter().filter(|(_, count)| *count > 0) {
        ::metrics::counter!(PACKETS_DROPPED_TOTAL, "reason" => reason.label()).absolute(count);
    }
}

/// Publishes the counters of all `links` of a process once a second, until `shutdown` is triggered.
pub async fn publish_links(links: Vec<Links>, shutdown: Shutdown) {
    loop {
        publish_links_once(&links);
        tokio::select! {
            _ = shutdown.triggered() => break,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    publish_links_once(&links);
}

fn publish_links_once(links: &[Links]) {
    let (mut up, mut frames_in, mut frames_out) = (0, 0, 0);
    let mut lengths = BTreeMap::new();
    let mut refused = BTreeMap::new();
    let mut ended = BTreeMap::new();
    let mut dropped = BTreeMap::new();
    let mut failed_dials = 0;
    for stats in links.iter().map(Links::stats) {
        up += stats.links;
        frames_in += stats.frames_in;
        frames_out += stats.frames_out;
        for (length, count) in stats.received_lengths {
            *lengths.entry(length).or_insert(0) += count;
        }
        failed_dials += stats.failed_dials;
        add(&mut refused, stats.refused.iter().map(|(reason, count)| (reason.as_str(), *count)));
        add(&mut ended, stats.ended.iter().map(|(reason, count)| (reason.as_str(), *count)));
        add(&mut dropped, stats.dropped.iter().map(|(reason, count)| (reason.as_str(), *count)));
    }
    ::metrics::gauge!(LINKS_CONNECTED).set(up as f64);
    ::metrics::counter!(FRAMES_IN_TOTAL).absolute(frames_in);
    ::metrics::counter!(FRAMES_OUT_TOTAL).absolute(frames_out);
    for (length, count) in lengths {
        ::metrics::counter!(FRAME_LENGTHS_TOTAL, "bytes" => length.to_string()).absolute(count);
    }
    ::metrics::counter!(DIALS_FAILED_TOTAL).absolute(failed_dials);
    for (name, counts) in [
        (CONNECTIONS_REFUSED_TOTAL, refused),
        (LINKS_ENDED_TOTAL, ended),
        (LINK_FRAMES_DROPPED_TOTAL, dropped),
    ] {
        for (reason, count) in counts {
            ::metrics::counter!(name, "reason" => reason).absolute(count);
        }
    }
}

fn add(sums: &mut BTreeMap<&'static str, u64>, counts: impl Iterator<Item = (&'static str, u64)>) {
    for (reason, count) in counts.filter(|(_, count)| *count > 0) {
        *sums.entry(reason).or_insert(0) += count;
    }
}
