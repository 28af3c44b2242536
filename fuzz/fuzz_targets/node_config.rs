//! No text makes the reader of configuration files panic; what it refuses it explains with the file's name, and what it
//! accepts has no key that nobody reads.

#![no_main]

// The source itself: the crate around it would bring the whole network stack into every fuzz build.
#[allow(dead_code)]
#[path = "../../crates/node/src"]
mod node {
    pub mod config;
}

use std::path::Path;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use node::config;
use serde::Deserialize;

/// A bit of everything that configuration files contain.
#[derive(Deserialize)]
#[allow(dead_code)]
struct File {
    name: String,
    listen: Vec<String>,
    #[serde(default, with = "config::duration")]
    grace: Duration,
    #[serde(default)]
    limits: Limits,
    log: Option<Log>,
}

#[derive(Default, Deserialize)]
#[allow(dead_code)]
struct Limits {
    packets: Option<u32>,
    share: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Log {
    Text,
    Json,
}

fuzz_target!(|text: &str| {
    let path = Path::new("fuzz.toml");
    match config::parse::<File>(path, text) {
        Ok(_) => {
            let table: toml::Table = text.parse().expect("what was accepted is TOML");
            let known = ["name", "listen", "grace", "limits", "log"];
            assert!(table.keys().all(|key| known.contains(&key.as_str())), "an unknown key was accepted");
        }
        Err(error) => assert!(error.to_string().starts_with("fuzz.toml"), "{error}"),
    }
});
