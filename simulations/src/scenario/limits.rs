//! What is too large to be simulated: refused here, where it has a name.

use core::time::Duration;

use super::{Clients, Measures, Method, Run, Scenario, ScenarioError, Section, Timing, Topology};

/// The longest time that is simulated, or waited for: a thousand million seconds, 31 years. Virtual time ends after 584.
pub const LONGEST: Duration = Duration::from_secs(1_000_000_000);
/// Replications or batches that a stopping rule rests upon at least.
pub const LEAST_TO_STOP: u32 = 10;
/// The longest time that a packet may be under way, in seconds: 116 days.
const LONGEST_TRANSIT: f64 = 1e7;
/// Mixes of a route, counted in a byte.
const MOST_HOPS: usize = u8::MAX as usize;
/// Mixes of a network, and gateways.
const MOST_NODES: usize = 100_000;
const MOST_CLIENTS: usize = 100_000_000;
/// Packets under way at a time; each takes about a hundred bytes.
const MOST_UNDER_WAY: f64 = 1e8;
/// Places for loops that are followed, of all monitored clients and of all mixes together.
const MOST_LOOPS: f64 = 1e8;
/// Loops for which a monitor has places, whatever the interval.
const LOOPS_AT_LEAST: f64 = 64.0;
/// What one replication may take for its clients, in bytes: more than a large machine has.
const MOST_BYTES: f64 = 64e9;
/// Some bytes of a client with a schedule of its own, by what a million with three streams take in all; and of one that shares a
/// schedule.
const BYTES_INDIVIDUAL: f64 = 700.0;
const BYTES_SUPERPOSED: f64 = 48.0;
const MOST_REPLICATIONS: usize = 1_000_000;

pub(super) fn hops(section: &Section, hops: usize) -> Result<(), ScenarioError> {
    if hops > MOST_HOPS {
        let what = format!("a route has at most {MOST_HOPS} mixes, found {hops}");
        return Err(section.invalid("layers", what));
    }
    Ok(())
}

pub(super) fn nodes(section: &Section, topology: &Topology, gateways: usize) -> Result<(), ScenarioError> {
    let too_many = |key, found| {
        Err(section.invalid(key, format!("at most {MOST_NODES} can be simulated, found {found}")))
    };
    match topology.mixes() {
        mixes if mixes > MOST_NODES => too_many("width", format!("{mixes} mixes in all")),
        _ if gateways > MOST_NODES => too_many("gateways", gateways.to_string()),
        _ => Ok(()),
    }
}

pub(super) fn clients(section: &Section, count: usize) -> Result<(), ScenarioError> {
    if (2..=MOST_CLIENTS).contains(&count) {
        return Ok(());
    }
    Err(section.invalid("count", format!("at least two clients, at most {MOST_CLIENTS}, found {count}")))
}

/// Reads a number of replications or batches.
pub(super) fn replications(
    section: &mut Section,
    key: &'static str,
    default: usize,
) -> Result<u32, ScenarioError> {
    let count = section.count(key)?.unwrap_or(default);
    let fits = u32::try_from(count).ok().filter(|_| count <= MOST_REPLICATIONS);
    fits.ok_or_else(|| section.invalid(key, format!("at most {MOST_REPLICATIONS}, found {count}")))
}

/// Loops that are under way at a time have to be remembered.
pub(super) fn monitors(
    section: &Section,
    measures: &Measures,
    clients: &Clients,
    mixes: usize,
    mix_loops: Option<Duration>,
) -> Result<(), ScenarioError> {
    let of = |monitors: usize, interval: Option<Duration>| {
        interval.map_or(0.0, |interval| monitors as f64 * loops_under_way(measures.loop_timeout, interval))
    };
    let most = of(measures.monitored_clients.min(clients.count), clients.loops) + of(mixes, mix_loops);
    if most > MOST_LOOPS {
        let what = format!(
            "{most:.0} places for loops would be needed, at most {MOST_LOOPS:.0} fit into memory: shorten it, or lower `monitored_clients`"
        );
        return Err(section.invalid("loop_timeout", what));
    }
    Ok(())
}

/// Loops of one client or mix for which there has to be a place, with a margin.
#[must_use]
pub fn loops_under_way(timeout: Duration, interval: Duration) -> f64 {
    4.0_f64.mul_add(timeout.as_secs_f64() / interval.as_secs_f64(), LOOPS_AT_LEAST)
}

/// What clients take must fit into a machine.
pub(super) fn memory(section: &Section, measures: &Measures, clients: &Clients) -> Result<(), ScenarioError> {
    let receiver =
        if measures.receivers { 8.0 * measures.lanes.next_power_of_two().max(8) as f64 } else { 0.0 };
    let client = match clients.timing {
        Timing::Individual => BYTES_INDIVIDUAL,
        Timing::Superposed => BYTES_SUPERPOSED,
    };
    let bytes = clients.count as f64 * (client + receiver);
    if bytes > MOST_BYTES {
        let what = format!(
            "{} such clients take some {:.0} GB for each thread, at most {:.0} can be simulated: fewer of them, \
             `timing = \"superposed\"`, or `receivers = false` in [metrics]",
            clients.count,
            bytes / 1e9,
            MOST_BYTES / 1e9
        );
        return Err(section.invalid("count", what));
    }
    Ok(())
}

pub(super) fn length(section: &Section, run: &Run) -> Result<(), ScenarioError> {
    let batches = match (run.method, &run.stop) {
        (Method::Replications, _) => 1,
        (Method::BatchMeans, None) => run.replications,
        (Method::BatchMeans, Some(stop)) => stop.at_most.max(run.replications),
    };
    let measured = run.measure.saturating_mul(batches);
    for (key, length) in [("warm_up", run.warm_up.unwrap_or_default()), ("measure", measured)] {
        if length > LONGEST {
            let what = format!(
                "at most {} s of virtual time can be simulated, found {} s in one run",
                LONGEST.as_secs(),
                length.as_secs()
            );
            return Err(section.invalid(key, what));
        }
    }
    Ok(())
}

/// Packets stay under way for a bounded time and in a bounded number.
pub(super) fn under_way(root: &Section, scenario: &Scenario) -> Result<(), ScenarioError> {
    let longest = scenario.mean_transit().max(scenario.settling());
    if longest.is_nan() || longest > LONGEST_TRANSIT {
        let what = format!(
            "a packet may be under way for {longest:.3e} s, at most {LONGEST_TRANSIT:.0e} s can be simulated: shorter delays, \
             or mixes that wait for fewer packets"
        );
        return Err(root.invalid("mix", what));
    }
    let mixes = scenario.topology.least_width() as f64;
    let packets = scenario.most_arrivals_per_mix() * mixes * scenario.mean_transit();
    if packets > MOST_UNDER_WAY {
        let what = format!(
            "{packets:.3e} packets would be under way at a time, at most {MOST_UNDER_WAY:.0e} fit into memory: fewer of them, \
             or shorter delays"
        );
        return Err(root.invalid("clients", what));
    }
    Ok(())
}
