//! Durations as people write them: `"15ms"`, `"2s"`, `"14d"`. For `#[serde(with = "tombola_node::config::duration")]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// From the largest to the smallest, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
];

/// Not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Something else than digits followed by a unit.
    #[error(
        "{0:?} is not a duration: write a whole number and a unit (ns, us, ms, s, m, h or d), such as \"15ms\""
    )]
    Form(String),
    /// More than 584 years.
    #[error("the duration {0:?} is too long")]
    TooLong(String),
}

/// Reads a whole number and a unit, without a space between them.
///
/// # Errors
/// The text has another form, or the duration has more than 2^64 nanoseconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let (false, Some((_, factor))) = (number.is_empty(), unit) else {
        return Err(DurationError::Form(text.to_owned()));
    };
    let number: Option<u64> = number.parse().ok();
    let nanos = number.and_then(|number| number.checked_mul(*factor));
    nanos.map(Duration::from_nanos).ok_or_else(|| DurationError::TooLong(text.to_owned()))
}

/// Writes a duration with the largest unit that divides it: the inverse of [`parse`] up to 584 years, and that at most.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    // The last unit divides everything.
    let (unit, factor) = UNITS.into_iter().find(|(_, factor)| nanos % factor == 0).unwrap_or(("ns", 1));
    format!("{}{unit}", nanos / factor)
}

/// Reads a duration from a string.
///
/// # Errors
/// It is no string, or not a duration: [`DurationError`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for text in ["0s", "1ns", "999us", "15ms", "250ms", "2s", "90m", "1h", "36h", "14d", "1001ms"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(format(parse("1000ms").unwrap()), "1s");
        assert_eq!(format(Duration::MAX), format!("{}ns", u64::MAX));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "15", "ms", "1.5s", "-1s", "+1s", " 1s", "1 s", "1s ", "1S", "1w", "1s2ms", "0x1s", "٣s"]
        {
            assert_eq!(parse(text), Err(DurationError::Form(text.to_owned())), "{text:?}");
        }
        for text in ["18446744073709551616ns", "213504d", "99999999999999999999999999d"] {
            assert_eq!(parse(text), Err(DurationError::TooLong(text.to_owned())), "{text:?}");
        }
    }
}
