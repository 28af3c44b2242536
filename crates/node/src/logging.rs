//! What a process writes about itself, and how exactly.
//!
//! Logs are copied, shipped and kept; so what a line says must not help to trace a packet. Three rules:
//!
//! - At the default level no line holds a peer, a packet and a time together, and nothing is written per packet: drops and
//!   deliveries are counted in the metrics.
//! - Times are whole seconds. Events of one second can't be put in relation to what an observer saw on a wire.
//! - Only this project's crates write at `info`; the libraries below it (libp2p names peers and addresses freely) at `warn`.
//!
//! A level of `debug` or `trace` breaks the first rule. It is for a test network.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::util::TryInitError;

use crate::clock::unix_now;

/// The environment variable that holds a filter.
pub const FILTER_VARIABLE: &str = "TOMBOLA_LOG";

/// The filter when neither a flag nor [`FILTER_VARIABLE`] says otherwise. A directive's target is a prefix, so `tombola`
/// means every crate of this project.
pub const DEFAULT_FILTER: &str = "warn,tombola=info";

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(UnknownFormat(text.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// Not a format that [`LogFormat`] knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log format {0:?}: use \"text\" or \"json\"")]
pub struct UnknownFormat(String);

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter has no valid syntax.
    #[error(
        "the log filter {filter:?} (from {origin}) is not valid: {reason}; an example: \"{DEFAULT_FILTER}\""
    )]
    Filter {
        /// What was given.
        filter: String,
        /// Where it was given.
        origin: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Something in this process has set up logging before.
    #[error("logging has been set up before")]
    AlreadySetUp(#[source] TryInitError),
}

/// Sets up logging for the whole process, on standard error. `filter` is what the command line says; without it
/// [`FILTER_VARIABLE`] counts, and without that (or if it is empty) [`DEFAULT_FILTER`].
///
/// # Errors
/// The filter is not valid, or logging has been set up before.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<(), LoggingError> {
    let variable = std::env::var(FILTER_VARIABLE).ok();
    let filter = choose_filter(filter, variable.as_deref())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(WholeSeconds)
        .with_writer(std::io::stderr);
    use tracing_subscriber::util::SubscriberInitExt;
    match format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().finish().try_init(),
    }
    .map_err(LoggingError::AlreadySetUp)
}

fn choose_filter(flag: Option<&str>, variable: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let (filter, origin) = match (flag, variable.filter(|text| !text.trim().is_empty())) {
        (Some(flag), _) => (flag, "the command line"),
        (None, Some(variable)) => (variable, FILTER_VARIABLE),
        (None, None) => (DEFAULT_FILTER, "the default"),
    };
    EnvFilter::builder().parse(filter).map_err(|error| LoggingError::Filter {
        filter: filter.to_owned(),
        origin,
        reason: error.to_string(),
    })
}

/// Writes the time as `2026-03-21T14:05:09Z`: UTC, whole seconds.
struct WholeSeconds;

impl FormatTime for WholeSeconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write_utc(writer, unix_now())
    }
}

/// A time in Unix seconds as `2026-03-21T14:05:09Z`.
#[must_use]
pub fn utc(unix: u64) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_utc(&mut text, unix);
    text
}

/// The proleptic Gregorian calendar, counted from 1 March so that the leap day ends the year (H. Hinnant, "chrono-compatible
/// low-level date algorithms", `civil_from_days`).
fn write_utc(writer: &mut impl fmt::Write, unix: u64) -> fmt::Result {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(writer, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_known_seconds() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(utc(1_234_567_890), "2009-02-13T23:31:30Z");
        assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn the_flag_wins_over_the_variable_and_that_over_the_default() {
        let chosen = |flag, variable| choose_filter(flag, variable).unwrap().to_string();
        assert_eq!(chosen(Some("error"), Some("debug")), "error");
        assert_eq!(chosen(None, Some("debug")), "debug");
        let default = chosen(None, None);
        assert!(default.contains("tombola=info") && default.contains("warn"), "{default}");
        assert_eq!(chosen(None, Some("  ")), default);
    }

    #[test]
    fn a_bad_filter_says_where_it_comes_from() {
        let error = choose_filter(None, Some("tombola=loud")).unwrap_err().to_string();
        assert!(error.contains("tombola=loud") && error.contains(FILTER_VARIABLE), "{error}");
    }

    #[test]
    fn formats_have_names() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse::<LogFormat>().unwrap(), format);
        }
        let error = "xml".parse::<LogFormat>().unwrap_err().to_string();
        assert_eq!(error, "unknown log format \"xml\": use \"text\" or \"json\"");
    }
}
