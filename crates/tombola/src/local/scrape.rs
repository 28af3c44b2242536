//! Reads a node's metrics, as Prometheus would.

use std::net::SocketAddr;
use std::time::Duration;

use ureq::Agent;

/// One sample: name with labels, as printed, and value.
pub(super) type Samples = Vec<(String, f64)>;

/// Reads all samples of a node.
pub(super) fn scrape(address: SocketAddr) -> Result<Samples, ureq::Error> {
    let config = Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build();
    let agent = Agent::new_with_config(config);
    let page = agent.get(format!("http://{address}/metrics")).call()?.body_mut().read_to_string()?;
    Ok(page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect())
}

/// The value of a sample without labels.
pub(super) fn value(samples: &Samples, name: &str) -> Option<f64> {
    samples.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
}

/// All values of a metric by the value of its one label.
pub(super) fn by_label<'a>(samples: &'a Samples, name: &str, label: &str) -> Vec<(&'a str, f64)> {
    let prefix = format!("{name}{{{label}=\"");
    samples
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?.strip_suffix("\"}")?, *value)))
        .collect()
}
