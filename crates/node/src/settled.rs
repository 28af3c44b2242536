//! What a node says of its tickets when nothing is left to be claimed: one line of JSON, for whoever started the process.

use serde::{Deserialize, Serialize};
use tombola_tickets::Account;

/// Winning tickets and their face values, in the smallest unit of the token.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Winners {
    /// How many.
    pub tickets: u64,
    /// What they are worth together; a decimal string, since other programs' numbers do not hold it.
    #[serde(with = "decimal")]
    pub value: u128,
}

impl From<tombola_tickets::Winners> for Winners {
    fn from(winners: tombola_tickets::Winners) -> Self {
        Self { tickets: winners.tickets, value: winners.value }
    }
}

/// The sum over all accounts. `won`, `paid`, `lost`, `expired`, `issued` and `spent` are counted over all processes of the node,
/// the rest since it was started last.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Settled {
    /// Tickets that it signed.
    pub issued: u64,
    /// Tickets that it took.
    pub accepted: u64,
    /// Of these: signed by whoever pays.
    pub signed: u64,
    /// Of these: opened.
    pub opened: u64,
    /// Of these: given up.
    pub unopened: u64,
    /// What won.
    pub won: Winners,
    /// Of this: what the chain paid.
    pub paid: Winners,
    /// Of this: what the issuer could not pay.
    pub lost: Winners,
    /// Of this: what was not claimed in time.
    pub expired: Winners,
    /// What it paid others for the windows that they claimed; a decimal string.
    #[serde(with = "decimal")]
    pub spent: u128,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Settled(Settled),
}

impl From<&Account> for Settled {
    fn from(sum: &Account) -> Self {
        Self {
            issued: sum.issued,
            accepted: sum.listed,
            signed: sum.batched,
            opened: sum.opened,
            unopened: sum.unopened,
            won: sum.won.into(),
            paid: sum.paid.into(),
            lost: sum.lost.into(),
            expired: sum.expired.into(),
            spent: sum.spent,
        }
    }
}

impl Settled {
    /// The line.
    #[must_use]
    pub fn line(&self) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string(&Line::Settled(*self)).unwrap_or_default()
    }

    /// What a line says; `None` if it is another one.
    #[must_use]
    pub fn of_line(line: &str) -> Option<Self> {
        let Line::Settled(settled) = serde_json::from_str(line).ok()?;
        Some(settled)
    }
}

mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(amount: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(amount)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_everything_and_is_read_back() {
        let winners = |tickets| tombola_tickets::Winners { tickets, value: u128::MAX };
        let (won, paid) = (winners(108), winners(100));
        let sum = Account { issued: 7610, listed: 7657, won, paid, spent: 26_304, ..Account::default() };
        let line = Settled::from(&sum).line();
        assert_eq!(
            line,
            "{\"event\":\"settled\",\"issued\":7610,\"accepted\":7657,\"signed\":0,\"opened\":0,\"unopened\":0,\
             \"won\":{\"tickets\":108,\"value\":\"340282366920938463463374607431768211455\"},\
             \"paid\":{\"tickets\":100,\"value\":\"340282366920938463463374607431768211455\"},\
             \"lost\":{\"tickets\":0,\"value\":\"0\"},\"expired\":{\"tickets\":0,\"value\":\"0\"},\"spent\":\"26304\"}"
        );
        assert_eq!(Settled::of_line(&line), Some(Settled::from(&sum)));
        assert_eq!(Settled::of_line(&line.replace("settled", "other")), None);
    }
}
