//! Durations in configuration files: `"15ms"`, `"2s"`, `"14d"`, as the network document writes them.
//! For `#[serde(with = "tombola_node::config::duration")]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};
use tombola_topology::duration::{format, parse};

/// Reads a duration from a string.
///
/// # Errors
/// It is no string, or not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

/// Writes a duration as a string.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}
