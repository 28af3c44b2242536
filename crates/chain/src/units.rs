//! Amounts as people write them. They are never floats: what is written is what is meant, to the last unit.

use alloy_primitives::U256;
use core::fmt::Display;
use thiserror::Error;

/// A symbol is shortened to so many characters.
const SYMBOL_MAX: usize = 12;
/// More decimals than numbers of 256 bits have digits are none.
const MOST_DECIMALS: u8 = 77;

/// How many of the smallest unit are one, and what one is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    decimals: u8,
    symbol: String,
}

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AmountError {
    /// It is no number.
    #[error("{0:?} is no amount: write digits, and a point before decimals, such as 1.5")]
    Syntax(String),
    /// There is nothing so small.
    #[error("{text:?} has {found} decimals, and {symbol} has {decimals}")]
    Decimals {
        /// As given.
        text: String,
        /// How many it has.
        found: usize,
        /// How many there are.
        decimals: u8,
        /// Of what.
        symbol: String,
    },
    /// The contracts count in 128 bits.
    #[error("{0:?} is more than the contracts can count")]
    TooLarge(String),
}

impl Units {
    /// Of a token. What it says of itself may be anything: of its symbol only what is harmless on a terminal is kept.
    #[must_use]
    pub fn new(decimals: u8, symbol: &str) -> Self {
        let harmless = |c: &char| c.is_ascii_alphanumeric() || ".-_$".contains(*c);
        let symbol: String = symbol.chars().filter(harmless).take(SYMBOL_MAX).collect();
        let symbol = if symbol.is_empty() { "tokens".to_owned() } else { symbol };
        Self { decimals: decimals.min(MOST_DECIMALS), symbol }
    }

    /// The chain's own money.
    #[must_use]
    pub fn ether() -> Self {
        Self::new(18, "ether")
    }

    /// The smallest unit itself.
    #[must_use]
    pub fn smallest() -> Self {
        Self { decimals: 0, symbol: "of the smallest unit".to_owned() }
    }

    /// How many decimals there are.
    #[must_use]
    pub const fn decimals(&self) -> u8 {
        self.decimals
    }

    /// What one is called.
    #[must_use]
    pub fn symbol(&self) -> &str {
        &self.symbol
    }

    /// Reads an amount, in the smallest unit.
    ///
    /// # Errors
    ///
    /// See [`AmountError`].
    pub fn parse(&self, text: &str) -> Result<u128, AmountError> {
        let syntax = || AmountError::Syntax(text.to_owned());
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let has_point_only = whole.is_empty() || (text.contains('.') && part.is_empty());
        if has_point_only || !digits(whole) || !digits(part) {
            return Err(syntax());
        }
        let decimals = usize::from(self.decimals);
        let needed = part.trim_end_matches('0');
        if needed.len() > decimals {
            let symbol = self.symbol.clone();
            let (text, found) = (text.to_owned(), needed.len());
            return Err(AmountError::Decimals { text, found, decimals: self.decimals, symbol });
        }
        let mut written = whole.to_owned();
        written.push_str(needed);
        written.push_str(&"0".repeat(decimals - needed.len()));
        let written = written.trim_start_matches('0');
        if written.is_empty() {
            return Ok(0);
        }
        written.parse().map_err(|_| AmountError::TooLarge(text.to_owned()))
    }

    /// The number alone, without superfluous zeros.
    #[must_use]
    pub fn number(&self, amount: U256) -> String {
        let digits = amount.to_string();
        let decimals = usize::from(self.decimals);
        let padded = format!("{digits:0>width$}", width = decimals + 1);
        let (whole, part) = padded.split_at(padded.len() - decimals);
        match part.trim_end_matches('0') {
            "" => whole.to_owned(),
            part => format!("{whole}.{part}"),
        }
    }

    /// Number and symbol.
    #[must_use]
    pub fn show(&self, amount: impl TryInto<U256>) -> String {
        let amount = amount.try_into().unwrap_or(U256::MAX);
        let parts: [&dyn Display; 2] = [&self.number(amount), &self.symbol];
        parts.map(|part| part.to_string()).join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_to_the_last_unit() {
        let units = Units::new(6, "USDC");
        for (text, amount) in [
            ("0", 0),
            ("1", 1_000_000),
            ("1.5", 1_500_000),
            ("0.000001", 1),
            ("0012.30", 12_300_000),
            ("1.5000000000", 1_500_000),
            ("0.0", 0),
        ] {
            assert_eq!(units.parse(text), Ok(amount), "{text}");
        }
        for text in ["", ".", "1.", ".5", "-1", "+1", "1,5", "1e3", "0x10", "1.5.0", " 1", "1_000", "\u{661}"]
        {
            assert_eq!(units.parse(text), Err(AmountError::Syntax(text.into())), "{text}");
        }
        let error = units.parse("0.0000001").unwrap_err().to_string();
        assert_eq!(error, "\"0.0000001\" has 7 decimals, and USDC has 6");
        assert!(Units::smallest().parse("1.5").is_err());
        let most = u128::MAX.to_string();
        assert_eq!(Units::smallest().parse(&most), Ok(u128::MAX));
        assert_eq!(units.parse(&most), Err(AmountError::TooLarge(most)));
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for decimals in [0, 1, 6, 18, 38] {
            let units = Units::new(decimals, "T");
            for amount in [0, 1, 9, 10, 999_999, 1_000_000, 1_234_567_890, u128::MAX] {
                assert_eq!(units.parse(&units.number(U256::from(amount))), Ok(amount), "{decimals} {amount}");
            }
        }
        assert_eq!(Units::ether().show(1_500_000_000_000_000_000_u128), "1.5 ether");
        assert_eq!(Units::new(255, "T").show(1_u8).len(), 2 + 77 + 2);
    }

    #[test]
    fn a_token_does_nothing_to_the_terminal() {
        assert_eq!(Units::new(0, "A\u{1b}[31mB\nC \u{202e}D").symbol(), "A31mBCD");
        assert_eq!(Units::new(0, "\u{1b}").symbol(), "tokens");
        assert_eq!(Units::new(0, &"x".repeat(99)).symbol().len(), SYMBOL_MAX);
    }
}
