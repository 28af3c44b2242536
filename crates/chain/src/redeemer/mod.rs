//! Takes claims and gets them paid, whatever happens to servers, transactions and this process.
//!
//! [`Core`] decides what is sent when and for how much; [`Redeemer`] asks a [`Till`](crate::Till). Claims are durable at
//! whoever hands them in, and come again after every restart until they are settled; here nothing is kept. A claim is settled
//! when the [watcher](crate::watcher) says so, or when the contract says that it was claimed and its final event was found.
//!
//! What is final may still be taken away by a reorganisation that is longer than what is waited for. So settled claims are
//! remembered until their class expires, and handed in again after a restart ([`Order::Keep`]): when the watcher tells of a
//! reorganisation each of them is looked up again, and claimed again if it has to be.

mod core;
mod price;
mod shell;

use alloy_primitives::U256;

pub use self::core::{Core, Decision, Draft, Key, Next, Terms, UnderWay};
pub use self::price::{Offer, TokenPrice, raised};
pub use self::shell::{Redeemer, RedeemerConfig};

use crate::watcher::Settled;
use tombola_tickets::{PriceClass, WindowClaim};

/// What the redeemer is told.
#[derive(Clone, Debug)]
pub enum Order {
    /// A window to claim, of this class. It may be told again.
    Claim(Box<WindowClaim>, PriceClass),
    /// A claim that was settled before this process began. It is made again if the chain is reorganised.
    Keep(Box<WindowClaim>, PriceClass),
    /// The watcher says that a claim was paid.
    Settled(Key),
    /// The watcher says that a payment is gone.
    Withdrawn(Key),
    /// The watcher says that blocks that were final are gone; which payments they had is not known of those that were
    /// settled before this process began.
    Reorganised,
    /// Everything is to be claimed now, and what comes later when it comes.
    Hasten,
}

/// What the redeemer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A claim had been paid before; the watcher may have said so before a restart. For `Recipient::settled`.
    Settled(Settled),
    /// Claims would cost more than they are worth; they wait. Said once until something is sent.
    Loss {
        /// In wei.
        cost: U256,
        /// In wei.
        worth: U256,
    },
    /// Gas costs more than is offered at most; claims wait. Said once until something is sent.
    Dear,
    /// Our key is not the recipient's redeemer. Said once.
    NotRedeemer,
    /// The redeemer's account cannot pay for gas. Said once until something is sent.
    Poor,
    /// The contract refuses a claim; it is tried again until it expires. Said for each refusal.
    Refused {
        /// Which.
        key: Key,
        /// Why, which may name accounts.
        reason: String,
        /// Of what kind that is: the name of the contract's error, or of what else was refused.
        kind: &'static str,
    },
    /// A claim expired before its payment was seen.
    Expired(Key),
    /// Everything is to be claimed now, and nothing can be had for this claim: its issuer has nothing, or it costs more than it
    /// is worth. It is not tried any more in this process.
    GivenUp(Key),
    /// A transaction was sent or sent again.
    Sent {
        /// How many windows it has.
        windows: usize,
        /// How often it was sent before.
        again: usize,
    },
}
