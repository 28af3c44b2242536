//! Durations as people write them: one whole number and one unit, `"250ms"`, `"40us"`, `"14d"`.
//!
//! No sums (`"1h30m"`) and no fractions (`"1.5s"`): a value that has one obvious spelling is compared and
//! reviewed by eye more safely.

use core::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not one whole number followed by one unit.
    #[error(
        "expected one whole number and one unit (ns, us, ms, s, m, h or d), like \"250ms\", found {found:?}"
    )]
    Form {
        /// The text, cut to 40 characters.
        found: String,
    },
    /// There is a number but no unit behind it.
    #[error("expected a unit (ns, us, ms, s, m, h or d) behind the number, like \"{found}ms\"")]
    NoUnit {
        /// The number.
        found: u64,
    },
    /// Longer than 2^64 - 1 nanoseconds (584 years).
    #[error("{found:?} is too long: at most 213503d")]
    TooLong {
        /// The text, cut to 40 characters.
        found: String,
    },
}

/// Units from the longest to the shortest, with their nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a duration such as `250ms`.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(tombola_topology::duration::parse("250ms"), Ok(Duration::from_millis(250)));
/// assert!(tombola_topology::duration::parse("1h30m").is_err());
/// ```
///
/// # Errors
/// See [`DurationError`]. White space, signs, fractions and sums are refused.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let found = || text.chars().take(40).collect::<String>();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(DurationError::Form { found: found() });
    }
    // Only digits are left, so that the size is all that can be wrong.
    let number: u64 = number.parse().map_err(|_| DurationError::TooLong { found: found() })?;
    if unit.is_empty() {
        return Err(DurationError::NoUnit { found: number });
    }
    let (_, nanos) =
        UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| DurationError::Form { found: found() })?;
    let total = number.checked_mul(*nanos).ok_or_else(|| DurationError::TooLong { found: found() })?;
    Ok(Duration::from_nanos(total))
}

/// Writes a duration in the longest unit that expresses it as a whole number; [`parse`] reads it back.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(tombola_topology::duration::format(Duration::from_secs(120)), "2m");
/// assert_eq!(tombola_topology::duration::format(Duration::from_millis(1500)), "1500ms");
/// ```
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    // Zero is a multiple of every unit; "0s" is the spelling that people expect.
    let (unit, size) = if nanos == 0 {
        ("s", 1)
    } else {
        UNITS
            .iter()
            .map(|(unit, size)| (*unit, u128::from(*size)))
            .find(|(_, size)| nanos.is_multiple_of(*size))
            .unwrap_or(("ns", 1))
    };
    format!("{}{unit}", nanos / size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, nanos) in [
            ("0s", 0),
            ("7ns", 7),
            ("40us", 40_000),
            ("250ms", 250_000_000),
            ("10s", 10_000_000_000),
            ("3m", 180_000_000_000),
            ("2h", 7_200_000_000_000),
            ("14d", 1_209_600_000_000_000),
            ("18446744073709551615ns", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_number_and_one_unit_is_refused() {
        for text in ["", "ms", "1h30m", "1.5s", "-1s", "+1s", "1 s", " 1s", "1s ", "1S", "1sec", "1µs", "١s"]
        {
            let error = parse(text).expect_err(text).to_string();
            let expected = format!(
                "expected one whole number and one unit (ns, us, ms, s, m, h or d), like \"250ms\", found {text:?}"
            );
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_number_alone_is_told_that_it_lacks_a_unit() {
        let error = parse("250").expect_err("no unit").to_string();
        assert_eq!(error, "expected a unit (ns, us, ms, s, m, h or d) behind the number, like \"250ms\"");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for text in ["18446744073709551616ns", "213504d", "99999999999999999999999s"] {
            let error = parse(text).expect_err(text).to_string();
            assert_eq!(error, format!("{text:?} is too long: at most 213503d"));
        }
        assert!(parse("213503d").is_ok());
    }

    #[test]
    fn the_longest_whole_unit_is_written() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_000, "1us"),
            (1_001, "1001ns"),
            (60_000_000_000, "1m"),
            (90_000_000_000, "90s"),
            (86_400_000_000_000, "1d"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_is_written_is_read_back(nanos: u64, size in 0_usize..UNITS.len()) {
            // Mostly multiples of a unit, as people choose them.
            let duration = Duration::from_nanos(nanos / UNITS[size].1 * UNITS[size].1);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
