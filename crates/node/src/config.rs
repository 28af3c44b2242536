//! Configuration files: TOML in, a typed value or an error that a person understands out.
//!
//! ```
//! use serde::Deserialize;
//! use std::{path::Path, time::Duration};
//! use tombola_node::config;
//!
//! #[derive(Debug, Deserialize)]
//! struct Relay {
//!     listen: String,
//!     #[serde(default = "grace", with = "config::duration")]
//!     grace: Duration,
//! }
//! fn grace() -> Duration { Duration::from_secs(2) }
//!
//! let relay: Relay = config::parse(Path::new("relay.toml"), "listen = \"127.0.0.1:0\"\ngrace = \"15ms\"\n")?;
//! assert_eq!(relay.grace, Duration::from_millis(15));
//!
//! let error = config::parse::<Relay>(Path::new("relay.toml"), "listne = \"127.0.0.1:0\"\n").unwrap_err();
//! assert_eq!(error.to_string(), "relay.toml, line 1: unknown key \"listne\"; did you mean \"listen\"?");
//! # Ok::<(), config::ConfigError>(())
//! ```
//!
//! Keys that a structure does not have are errors whether or not it says `deny_unknown_fields`: a mistyped key that is
//! silently ignored leaves a default in force that the operator believes to have changed. (`#[serde(flatten)]` and untagged
//! enums evade this check: do not use them here.)

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub mod duration;
mod tree;

/// A larger file is not a configuration file.
const MAX_BYTES: u64 = 1 << 20;

/// What is wrong with a configuration file. Lines count from 1; keys are dotted paths from the root of the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such file.
    #[error("{}: there is no such file", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file exists and could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// More than a megabyte.
    #[error("{}: is larger than {MAX_BYTES} bytes, so it can't be a configuration file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not TOML.
    #[error("{}, line {line}, column {column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Where, in characters from 1.
        column: usize,
        /// What was expected.
        message: String,
    },
    /// A key that nothing reads.
    #[error("{}, line {line}: unknown key {key:?}{}", path.display(), suggest(nearest.as_deref(), valid))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Where the key stands.
        line: usize,
        /// The key.
        key: String,
        /// The valid key that looks most like it, if one does.
        nearest: Option<String>,
        /// Every key that is valid in its place.
        valid: Vec<&'static str>,
    },
    /// A key that has no default is not there.
    #[error("{}: the key {key:?} is missing; it has no default", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The value has another type than it should, or is outside of what is allowed.
    #[error("{}, {}: {message}", path.display(), place(*line, key))]
    Value {
        /// The file.
        path: PathBuf,
        /// Where the value stands.
        line: usize,
        /// The key; empty if the file as a whole is meant.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A later version of the program wrote the file.
    #[error("{}: has the version {found}, and this program knows versions up to {newest}; use the program that wrote it, or a newer one", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is known.
        newest: u32,
    },
}

fn suggest(nearest: Option<&str>, valid: &[&str]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest:?}?"),
        None if valid.is_empty() => "; no keys are valid here".to_owned(),
        None => format!("; valid here: {}", valid.join(", ")),
    }
}

fn place(line: usize, key: &str) -> String {
    if key.is_empty() { "as a whole".to_owned() } else { format!("line {line}: {key:?}") }
}

/// Reads `path` into a `T`.
///
/// # Errors
/// [`ConfigError`], which names the file, the line and the key, as far as there are any.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(path, &read(path)?)
}

/// Reads a file that the program itself has written, whose key `version` (1 if it is absent) says in which form. Whatever
/// else a later version put into it, the error is that it is later.
///
/// # Errors
/// As [`load`], and [`ConfigError::Version`].
pub fn load_versioned<T: DeserializeOwned>(path: &Path, newest: u32) -> Result<T, ConfigError> {
    let text = read(path)?;
    let version =
        toml::from_str::<toml::Table>(&text).ok().and_then(|table| table.get("version")?.as_integer());
    match version {
        Some(found) if found > i64::from(newest) => {
            Err(ConfigError::Version { path: path.to_owned(), found, newest })
        }
        _ => parse(path, &text),
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => ConfigError::Unreadable { path: path.to_owned(), source },
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Reads `text` into a `T`; `path` is only named in errors.
///
/// # Errors
/// As [`load`], without those of reading.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    let path = path.to_owned();
    let table = match toml::de::DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let (line, column) = position(text, error.span().map_or(text.len(), |span| span.start));
            return Err(ConfigError::Syntax { path, line, column, message: error.message().to_owned() });
        }
    };
    tree::read(table.into_inner()).map_err(|tree::Error { key, at, kind }| {
        let (line, _) = position(text, at.unwrap_or(0));
        match kind {
            tree::Kind::Unknown { valid } => {
                let name = key.rsplit_once('.').map_or(key.as_str(), |(_, name)| name);
                let nearest = nearest(name, valid).map(str::to_owned);
                ConfigError::UnknownKey { path, line, key, nearest, valid: valid.to_vec() }
            }
            tree::Kind::Missing => ConfigError::MissingKey { path, key },
            tree::Kind::Value(message) => ConfigError::Value { path, line, key, message },
        }
    })
}

/// Line and column, both from 1, of a byte of `text`.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The candidate that `name` was probably meant to be, if any is close enough to name it.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let likeness = |candidate: &str| strsim::normalized_damerau_levenshtein(name, candidate);
    candidates
        .iter()
        .map(|&candidate| (likeness(candidate), candidate))
        .filter(|&(likeness, _)| likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
