//! What a process counts, and the address where it says so.
//!
//! Every metric has a row in [`DESCRIPTIONS`]; `docs/metrics.md` shows the same table to operators, and a test compares the
//! two. Metrics are totals. None has a label that names a peer, a client, an address or a packet: whoever reads the metrics
//! of all nodes must not be able to put together who talks to whom. (An operator's own traffic volume is visible in them:
//! that is why the endpoint listens on loopback only.)

use std::net::SocketAddr;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::process;
use crate::shutdown::Shutdown;

mod http;

/// Frames that came in over links.
pub const FRAMES_IN_TOTAL: &str = "tombola_frames_in_total";
/// Frames that went out over links.
pub const FRAMES_OUT_TOTAL: &str = "tombola_frames_out_total";
/// Frames that came in, by the `bytes` that were read for each.
pub const FRAME_LENGTHS_TOTAL: &str = "tombola_frame_lengths_total";
/// Packets that this node's own accounts sent, by `kind`.
pub const PACKETS_EMITTED_TOTAL: &str = "tombola_packets_emitted_total";
/// Packets that came in.
pub const PACKETS_IN_TOTAL: &str = "tombola_packets_in_total";
/// Packets that went out.
pub const PACKETS_OUT_TOTAL: &str = "tombola_packets_out_total";
/// Packets that were dropped, by `reason`.
pub const PACKETS_DROPPED_TOTAL: &str = "tombola_packets_dropped_total";
/// Packets in the delay pool.
pub const POOL_PACKETS: &str = "tombola_pool_packets";
/// Length of a queue, by `queue`.
pub const QUEUE_LENGTH: &str = "tombola_queue_length";
/// What a full queue turned away, by `queue`.
pub const QUEUE_REFUSED_TOTAL: &str = "tombola_queue_refused_total";
/// Share of loops that came back, by `half` and `gateway`.
pub const LOOP_DELIVERY_RATIO: &str = "tombola_loop_delivery_ratio";
/// Whether the test of loops has raised an alarm, by `half` and `gateway`.
pub const LOOP_ALARM: &str = "tombola_loop_alarm";
/// How late timeouts are served.
pub const RELEASE_LATENESS_SECONDS: &str = "tombola_release_lateness_seconds";
/// Packets that waited for the disk.
pub const TAGS_LATE_TOTAL: &str = "tombola_tags_late_total";
/// Tickets, by how far they have come.
pub const TICKETS_TOTAL: &str = "tombola_tickets_total";
/// Stores of tickets that do not take what is to be kept.
pub const TICKET_STORES_IN_TROUBLE: &str = "tombola_ticket_stores_in_trouble";
/// What they are worth.
pub const TICKET_VALUE: &str = "tombola_ticket_value";
/// What neighbours and clients said about payment that they must not.
pub const PAYMENT_VIOLATIONS_TOTAL: &str = "tombola_payment_violations_total";
/// Control frames that were not heard.
pub const PAYMENT_UNHEARD_TOTAL: &str = "tombola_payment_unheard_total";
/// Packets that cannot be paid for yet.
pub const PAYMENT_WAITING_PACKETS: &str = "tombola_payment_waiting_packets";
/// Own accounts whose reserve is low and cannot be filled.
pub const ACCOUNT_RESERVES_LACKING: &str = "tombola_account_reserves_lacking";
/// How often reserves of own accounts were topped up.
pub const ACCOUNT_RESERVES_TOPPED_UP_TOTAL: &str = "tombola_account_reserves_topped_up_total";
/// Neighbours of whose packets only a share is let in.
pub const PAYMENT_SLOWED_NEIGHBOURS: &str = "tombola_payment_slowed_neighbours";
/// Whether the chain's server answers.
pub const CHAIN_REACHABLE: &str = "tombola_chain_reachable";
/// Requests to it that failed.
pub const CHAIN_ERRORS_TOTAL: &str = "tombola_chain_errors_total";
/// The last final block.
pub const CHAIN_FINAL_BLOCK: &str = "tombola_chain_final_block";
/// Blocks that were final and are gone.
pub const CHAIN_REORGANISATIONS_TOTAL: &str = "tombola_chain_reorganisations_total";
/// The epoch of a node's own packets.
pub const EPOCH: &str = "tombola_epoch";
/// Serial number of the document in force.
pub const DOCUMENT_SERIAL: &str = "tombola_document_serial";
/// Documents that were not put in force.
pub const DOCUMENTS_REFUSED_TOTAL: &str = "tombola_documents_refused_total";
/// Sphinx keys that were erased.
pub const KEYS_ERASED_TOTAL: &str = "tombola_keys_erased_total";
/// Links that are up.
pub const LINKS_CONNECTED: &str = "tombola_links_connected";
/// Attempts to connect that failed.
pub const DIALS_FAILED_TOTAL: &str = "tombola_dials_failed_total";
/// Links that went down, by `reason`.
pub const LINKS_ENDED_TOTAL: &str = "tombola_links_ended_total";
/// Frames that links did not send, by `reason`.
pub const LINK_FRAMES_DROPPED_TOTAL: &str = "tombola_link_frames_dropped_total";
/// Connections that were turned away, by `reason`.
pub const CONNECTIONS_REFUSED_TOTAL: &str = "tombola_connections_refused_total";
/// Mailboxes of a gateway.
pub const MAILBOXES: &str = "tombola_mailboxes";
/// Packets in all mailboxes of a gateway.
pub const MAIL_PACKETS: &str = "tombola_mail_packets";
/// Packets that were put into mailboxes.
pub const MAIL_STORED_TOTAL: &str = "tombola_mail_stored_total";
/// Packets that were handed to clients.
pub const MAIL_DELIVERED_TOTAL: &str = "tombola_mail_delivered_total";
/// Packets of them that are not on disk yet.
pub const MAIL_UNWRITTEN_PACKETS: &str = "tombola_mail_unwritten_packets";
/// Packets of them that are in memory.
pub const MAIL_IN_MEMORY_PACKETS: &str = "tombola_mail_in_memory_packets";
/// Size of the mail's file.
pub const MAIL_FILE_BYTES: &str = "tombola_mail_file_bytes";
/// Packets that clients have acknowledged.
pub const MAIL_ACKNOWLEDGED_TOTAL: &str = "tombola_mail_acknowledged_total";
/// Acknowledgements of what was not sent.
pub const MAIL_WRONG_ACKNOWLEDGEMENTS_TOTAL: &str = "tombola_mail_wrong_acknowledgements_total";
/// Reads of mail from disk.
pub const MAIL_FETCHES_TOTAL: &str = "tombola_mail_fetches_total";
/// Those that failed.
pub const MAIL_READ_FAILURES_TOTAL: &str = "tombola_mail_read_failures_total";
/// Slots for which a read came too late.
pub const MAIL_LATE_TOTAL: &str = "tombola_mail_late_total";
/// Whether the disk takes what it has to.
pub const STORAGE_TROUBLE: &str = "tombola_storage_trouble";
/// What waits to be written.
pub const STORAGE_BACKLOG_BYTES: &str = "tombola_storage_backlog_bytes";
/// Resident memory.
pub const PROCESS_RESIDENT_BYTES: &str = "tombola_process_resident_bytes";
/// CPU time.
pub const PROCESS_CPU_SECONDS_TOTAL: &str = "tombola_process_cpu_seconds_total";

/// What sort of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; starts at zero with the process, unless it is kept on disk.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, as cumulative buckets, sum and count.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One row of the table of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Full name.
    pub name: &'static str,
    /// What sort of number.
    pub kind: Kind,
    /// What it counts or measures.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means, in one line.
    pub help: &'static str,
}

/// Every metric, in the order of `docs/metrics.md`.
pub const DESCRIPTIONS: &[Description] = {
    use Kind::{Counter, Gauge, Histogram};
    const fn row(
        name: &'static str,
        kind: Kind,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Description {
        Description { name, kind, unit, labels, help }
    }
    &[
        row(
            FRAMES_IN_TOTAL,
            Counter,
            "frames",
            &[],
            "Frames received over all links, control frames included.",
        ),
        row(FRAMES_OUT_TOTAL, Counter, "frames", &[], "Frames sent over all links, control frames included."),
        row(
            FRAME_LENGTHS_TOTAL,
            Counter,
            "frames",
            &["bytes"],
            "Frames received, by how many bytes were read for each: one value, or a frame was cut short.",
        ),
        row(PACKETS_IN_TOTAL, Counter, "packets", &[], "Sphinx packets received, before any check."),
        row(
            PACKETS_OUT_TOTAL,
            Counter,
            "packets",
            &[],
            "Sphinx packets handed to a link, own cover included; control frames are not counted.",
        ),
        row(
            PACKETS_DROPPED_TOTAL,
            Counter,
            "packets",
            &["reason"],
            "Packets dropped, by the check that they failed or the limit that they met.",
        ),
        row(
            PACKETS_EMITTED_TOTAL,
            Counter,
            "packets",
            &["kind"],
            "Packets that this mix node's own accounts sent: `cover`, `loop`, `drop`, `probe`.",
        ),
        row(POOL_PACKETS, Gauge, "packets", &[], "Packets that wait in the delay pool."),
        row(QUEUE_LENGTH, Gauge, "items", &["queue"], "Items that wait in a queue, read once a second."),
        row(
            QUEUE_REFUSED_TOTAL,
            Counter,
            "items",
            &["queue"],
            "Items that a full queue turned away before any work was done on them.",
        ),
        row(
            LOOP_DELIVERY_RATIO,
            Gauge,
            "ratio",
            &["half", "gateway"],
            "Share of this node's own loops that came back in time, 0 to 1; absent until the first was due. `gateway` is the position in this node's own choice of gateways, not a name.",
        ),
        row(
            LOOP_ALARM,
            Gauge,
            "0 or 1",
            &["half", "gateway"],
            "1 while the sequential test of this node's own loops says that too many are lost.",
        ),
        row(
            RELEASE_LATENESS_SECONDS,
            Histogram,
            "seconds",
            &[],
            "Time between the moment when a packet was due to leave and the moment when it was released.",
        ),
        row(
            TAGS_LATE_TOTAL,
            Counter,
            "packets",
            &[],
            "Packets whose delay was over before their replay tag was safe on disk, so that they left late.",
        ),
        row(
            TICKETS_TOTAL,
            Counter,
            "tickets",
            &["stage"],
            "Tickets, by how far they have come: what it pays with is `issued`, `redeemed`, `withheld`; what it is paid with `accepted`, `signed`, `opened`, `unopened`, `won`, `paid`, `lost`, `expired`. `issued`, `redeemed`, `won`, `paid`, `lost` and `expired` are kept on disk, and count earlier processes too.",
        ),
        row(
            TICKET_STORES_IN_TROUBLE,
            Gauge,
            "stores",
            &[],
            "Stores of tickets, a mix node's accounts included, whose disk does not take what is to be kept: nothing is signed, won or claimed until it does. The log says why.",
        ),
        row(
            TICKET_VALUE,
            Gauge,
            "smallest units",
            &["stage"],
            "What winners were worth that are `won`, `paid`, `lost` or `expired`, and what was `spent` on others', of earlier processes too. Only grows. Rounded to 53 bits: `tombola account earnings` is exact.",
        ),
        row(
            PAYMENT_VIOLATIONS_TOTAL,
            Counter,
            "records",
            &[],
            "What neighbours and clients said about payment that they must not: damaged records, wrong batches, wrong acknowledgements. Not what comes again after a restart, or too late.",
        ),
        row(
            PAYMENT_UNHEARD_TOTAL,
            Counter,
            "frames",
            &[],
            "Control frames that were not heard, because a neighbour or client sent more than fit on its link, or too much that was wrong.",
        ),
        row(
            PAYMENT_WAITING_PACKETS,
            Gauge,
            "packets",
            &[],
            "Packets that wait until the next hop can be paid for.",
        ),
        row(
            ACCOUNT_RESERVES_LACKING,
            Gauge,
            "accounts",
            &[],
            "A mix node's own accounts at gateways whose reserve is low and cannot be filled: the log says what is lacking.",
        ),
        row(
            ACCOUNT_RESERVES_TOPPED_UP_TOTAL,
            Counter,
            "payments",
            &[],
            "How often the reserves of a mix node's own accounts at gateways were topped up.",
        ),
        row(
            PAYMENT_SLOWED_NEIGHBOURS,
            Gauge,
            "neighbours",
            &[],
            "Neighbours of whose packets only a share is let in, because their tickets do not open or because they do not acknowledge.",
        ),
        row(
            CHAIN_REACHABLE,
            Gauge,
            "0 or 1",
            &[],
            "1 while the chain's server answers. Nothing is redeemed while it does not.",
        ),
        row(
            CHAIN_ERRORS_TOTAL,
            Counter,
            "requests",
            &[],
            "Requests to the chain's server, of watcher and redeemer, that failed.",
        ),
        row(CHAIN_FINAL_BLOCK, Gauge, "number", &[], "Number of the last final block that was read."),
        row(
            CHAIN_REORGANISATIONS_TOTAL,
            Counter,
            "times",
            &[],
            "Times that blocks which were final were replaced by others: the chain or its server is not to be trusted.",
        ),
        row(EPOCH, Gauge, "number", &[], "Number of the epoch that nearly all packets of senders use now."),
        row(DOCUMENT_SERIAL, Gauge, "number", &[], "Serial number of the network document in force."),
        row(
            DOCUMENTS_REFUSED_TOTAL,
            Counter,
            "documents",
            &[],
            "Times that a changed network document was not put in force; the log says why.",
        ),
        row(
            KEYS_ERASED_TOTAL,
            Counter,
            "keys",
            &[],
            "Sphinx keys of this node that were erased because their time was over.",
        ),
        row(LINKS_CONNECTED, Gauge, "links", &[], "Links that are up."),
        row(
            DIALS_FAILED_TOTAL,
            Counter,
            "attempts",
            &[],
            "Attempts to connect that failed, counted per address: a peer is down, or unreachable from here.",
        ),
        row(LINKS_ENDED_TOTAL, Counter, "links", &["reason"], "Links that went down, by reason."),
        row(
            LINK_FRAMES_DROPPED_TOTAL,
            Counter,
            "frames",
            &["reason"],
            "Frames that links did not send, by reason, those of this node's own accounts included.",
        ),
        row(
            CONNECTIONS_REFUSED_TOTAL,
            Counter,
            "connections",
            &["reason"],
            "Connections turned away, by reason.",
        ),
        row(MAILBOXES, Gauge, "mailboxes", &[], "Mailboxes that this gateway keeps."),
        row(
            MAIL_PACKETS,
            Gauge,
            "packets",
            &[],
            "Packets in all mailboxes of this gateway, on disk or about to be.",
        ),
        row(MAIL_UNWRITTEN_PACKETS, Gauge, "packets", &[], "Those among them that are not on disk yet."),
        row(MAIL_IN_MEMORY_PACKETS, Gauge, "packets", &[], "Those among them that are in memory."),
        row(MAIL_FILE_BYTES, Gauge, "bytes", &[], "Size of the file that the mail is in."),
        row(MAIL_STORED_TOTAL, Counter, "packets", &[], "Packets put into mailboxes of this gateway."),
        row(MAIL_DELIVERED_TOTAL, Counter, "packets", &[], "Packets handed down to clients of this gateway."),
        row(
            MAIL_ACKNOWLEDGED_TOTAL,
            Counter,
            "packets",
            &[],
            "Packets deleted because their clients have acknowledged them.",
        ),
        row(
            MAIL_WRONG_ACKNOWLEDGEMENTS_TOTAL,
            Counter,
            "acknowledgements",
            &[],
            "Acknowledgements by clients of what was not sent to them.",
        ),
        row(MAIL_FETCHES_TOTAL, Counter, "reads", &[], "Reads of mail from disk, of up to 64 packets each."),
        row(MAIL_READ_FAILURES_TOTAL, Counter, "reads", &[], "Reads of mail that failed."),
        row(
            MAIL_LATE_TOTAL,
            Counter,
            "slots",
            &[],
            "Slots that carried padding because the disk had not given the mail yet.",
        ),
        row(STORAGE_TROUBLE, Gauge, "flag", &[], "1 while what has to be on disk cannot be written; else 0."),
        row(STORAGE_BACKLOG_BYTES, Gauge, "bytes", &[], "Memory that is taken by what is not on disk yet."),
        row(PROCESS_RESIDENT_BYTES, Gauge, "bytes", &[], "Resident memory of this process (Linux only)."),
        row(
            PROCESS_CPU_SECONDS_TOTAL,
            Counter,
            "seconds",
            &[],
            "CPU time of this process, user and system (Linux only).",
        ),
    ]
};

/// Upper bounds of the buckets of [`RELEASE_LATENESS_SECONDS`], in seconds; the target is 100 us.
const LATENESS_BUCKETS: [f64; 12] =
    [10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 100e-3, 1.0];

/// Why the metrics can't be served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Others could connect to it.
    #[error(
        "the metrics address {0} is not a loopback address: metrics tell how busy this node is, so they are served to this \
         machine only (127.0.0.1 or [::1]); carry them elsewhere through a tunnel"
    )]
    NotLoopback(SocketAddr),
    /// The address could not be bound.
    #[error("the metrics address {address} cannot be used: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Something in this process has installed a recorder before.
    #[error("metrics have been set up before: {0}")]
    AlreadySetUp(#[source] BuildError),
}

/// Starts to record metrics in this process and to serve them at `http://<address>/metrics`, on the current tokio runtime,
/// until `shutdown` is triggered. Returns the address (port 0 chooses one). To be called before anything that registers
/// metrics is started. Without it, recording costs nothing and leads nowhere.
///
/// # Errors
/// The address is not a loopback one or can't be bound, or metrics have been set up before.
pub async fn serve(address: SocketAddr, shutdown: Shutdown) -> Result<SocketAddr, MetricsError> {
    if !address.ip().is_loopback() {
        return Err(MetricsError::NotLoopback(address));
    }
    let bind = |source| MetricsError::Bind { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(bind)?;
    let local = listener.local_addr().map_err(bind)?;
    let recorder = builder().map_err(MetricsError::AlreadySetUp)?;
    let handle = recorder.install_recorder().map_err(MetricsError::AlreadySetUp)?;
    describe();
    tokio::spawn(http::serve(listener, handle, shutdown));
    Ok(local)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let lateness = Matcher::Full(RELEASE_LATENESS_SECONDS.to_owned());
    PrometheusBuilder::new().set_buckets_for_metric(lateness, &LATENESS_BUCKETS)
}

/// Tells the current recorder what every metric means.
fn describe() {
    for row in DESCRIPTIONS {
        match row.kind {
            Kind::Counter => ::metrics::describe_counter!(row.name, row.help),
            Kind::Gauge => ::metrics::describe_gauge!(row.name, row.help),
            Kind::Histogram => ::metrics::describe_histogram!(row.name, row.help),
        }
    }
}

/// The page: what the recorder holds, and what the kernel says about this process at this moment.
fn render(handle: &PrometheusHandle) -> String {
    let mut page = handle.render();
    if let Ok(usage) = process::usage(None) {
        push_sample(&mut page, PROCESS_RESIDENT_BYTES, &usage.resident_bytes.to_string());
        // Not through the recorder: its counters are whole numbers.
        push_sample(&mut page, PROCESS_CPU_SECONDS_TOTAL, &usage.cpu.as_secs_f64().to_string());
    }
    page
}

fn push_sample(page: &mut String, name: &str, value: &str) {
    if let Some(row) = DESCRIPTIONS.iter().find(|row| row.name == name) {
        page.push_str(&format!(
            "# HELP {name} {}\n# TYPE {name} {}\n{name} {value}\n\n",
            row.help,
            row.kind.name()
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let names: BTreeSet<_> = DESCRIPTIONS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), DESCRIPTIONS.len(), "a name appears twice");
        for row in DESCRIPTIONS {
            assert!(row.name.starts_with("tombola_"), "{}", row.name);
            assert!(row.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", row.name);
            assert_eq!(row.name.ends_with("_total"), row.kind == Kind::Counter, "{}", row.name);
            assert!(!row.help.contains(['\n', '|', '\\']) && row.help.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn no_label_can_name_a_peer() {
        for row in DESCRIPTIONS {
            for label in row.labels {
                assert!(
                    ["reason", "queue", "half", "gateway", "bytes", "kind", "stage"].contains(label),
                    "{}: {label}",
                    row.name
                );
            }
        }
    }

    #[test]
    fn the_table_for_operators_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let document = std::fs::read_to_string(path).unwrap();
        let in_document: Vec<&str> =
            document.lines().filter(|line| line.starts_with("| `tombola_")).collect();
        let in_code: Vec<String> = DESCRIPTIONS
            .iter()
            .map(|row| {
                let labels: Vec<String> = row.labels.iter().map(|label| format!("`{label}`")).collect();
                let Description { name, unit, help, .. } = row;
                format!("| `{name}` | {} | {unit} | {} | {help} |", row.kind.name(), labels.join(", "))
                    .replace("|  |", "| |")
            })
            .collect();
        assert_eq!(in_document, in_code, "the table in docs/metrics.md should be:\n{}\n", in_code.join("\n"));
    }

    #[test]
    fn the_page_shows_what_was_recorded_and_the_process() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, || {
            describe();
            ::metrics::counter!(PACKETS_DROPPED_TOTAL, "reason" => "replay").increment(3);
            ::metrics::gauge!(POOL_PACKETS).set(17);
            ::metrics::histogram!(RELEASE_LATENESS_SECONDS).record(60e-6);
        });
        let page = render(&handle);
        for expected in [
            "# TYPE tombola_packets_dropped_total counter",
            "tombola_packets_dropped_total{reason=\"replay\"} 3",
            "tombola_pool_packets 17",
            "tombola_release_lateness_seconds_bucket{le=\"0.00005\"} 0",
            "tombola_release_lateness_seconds_bucket{le=\"0.0001\"} 1",
            "tombola_release_lateness_seconds_count 1",
            "# HELP tombola_pool_packets Packets that wait in the delay pool.",
        ] {
            assert!(page.contains(expected), "{expected} is not in\n{page}");
        }
        if cfg!(target_os = "linux") {
            assert!(page.contains("\ntombola_process_resident_bytes "), "{page}");
            assert!(page.contains("# TYPE tombola_process_cpu_seconds_total counter"), "{page}");
        }
    }
}
