//! Tells whoever pays and earns what is final on the chain.
//!
//! [`Core`] decides what is read and what is final; [`Watcher`] asks a [`Ledger`](crate::Ledger) and hands out [`Report`]s. It outlives
//! whatever its server does: outages, answers that lag behind, ranges that are refused, chains that change.

mod core;
mod cursor;
mod follow;
mod shell;

use ::core::fmt;

use alloy_primitives::Address;
use tombola_tickets::{ClassNumber, PriceClass, Settlement, UnixSeconds, WindowNumber};

pub use self::core::{Core, Pace, Step};
pub use self::cursor::{Cursor, CursorError, Place};
pub use self::follow::Follow;
pub use self::shell::{Watcher, WatcherConfig};

use crate::ledger::SignerState;

/// What a window was paid from, in the smallest unit of the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The issuer's deposit.
    pub deposit: u128,
    /// Its reserve for the recipient.
    pub reserve: u128,
    /// Its stake. What was burned besides is not in here.
    pub stake: u128,
}

impl Spent {
    /// Everything together.
    #[must_use]
    pub const fn total(&self) -> u128 {
        self.deposit.saturating_add(self.reserve).saturating_add(self.stake)
    }
}

/// A window of ours, as issuer, was claimed: for `Issuer::claimed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Who was paid.
    pub recipient: Address,
    /// Which window.
    pub window: WindowNumber,
    /// What we paid.
    pub spent: Spent,
}

/// A claim of ours, as recipient, was paid: for `Recipient::settled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Who paid.
    pub issuer: Address,
    /// Which window.
    pub window: WindowNumber,
    /// What was paid, in the smallest unit of the token; as little as nothing.
    pub amount: u128,
}

impl Settled {
    /// How many winners that is, in the window's class. What is left of a face value pays no winner.
    #[must_use]
    pub fn settlement(&self, class: &PriceClass) -> Settlement {
        let winners = self.amount.checked_div(class.face_value).unwrap_or_default();
        Settlement { paid: u32::try_from(winners).unwrap_or(u32::MAX) }
    }
}

/// What is so on the chain. All but [`Fact::Time`] are final: so many blocks as are configured have followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// What time the last block says it is, final or not.
    Time(UnixSeconds),
    /// Our deposit, without what is under notice: for `Solvency::set_deposit`.
    Deposit(u128),
    /// What an issuer guarantees to us, without what is under notice: for `Credit::set_guaranteed`.
    Guarantee {
        /// Who.
        issuer: Address,
        /// How much.
        amount: u128,
    },
    /// Whether and how far a key signs for an issuer; `None`: not any more, which only a reorganisation brings about.
    Signer {
        /// For whom.
        issuer: Address,
        /// The key.
        signer: Address,
        /// How far.
        state: Option<SignerState>,
    },
    /// A class that is followed is registered, for good, and may be used.
    Class {
        /// Its number.
        number: ClassNumber,
        /// What it says.
        class: PriceClass,
    },
    /// A window of ours was claimed.
    Claimed(Claimed),
    /// A claim of ours was paid.
    Settled(Settled),
    /// What counted as final is not on the chain any more: more blocks were replaced than are waited for. What was reported of
    /// the blocks after `to` may be wrong; what is known to be is taken back, and what is final now is reported again.
    Reorganised {
        /// The last block that had been read.
        from: u64,
        /// The last one that is still there.
        to: u64,
    },
    /// A claim that was reported is not on the chain any more. If it was ours it must be submitted again.
    Withdrawn(Box<Fact>),
    /// The server does not answer. Said once; then it is tried again until it does.
    Gone,
    /// It answers again.
    Back,
}

/// What has become known, and how far the chain was read by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they are so.
    pub facts: Vec<Fact>,
    /// To be kept once the facts are; from there the watcher goes on after a restart.
    pub cursor: Cursor,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reorganised { from, to } => {
                write!(
                    f,
                    "the chain was reorganised: blocks {} to {from} were final and are gone",
                    to.saturating_add(1)
                )
            }
            Self::Gone => f.write_str("the chain's server does not answer"),
            Self::Back => f.write_str("the chain's server answers again"),
            other => write!(f, "{other:?}"),
        }
    }
}
