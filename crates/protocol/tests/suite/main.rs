//! What users get from a network, and what adversaries see of it: all state machines together, in virtual time.
//!
//! Statistical tests have fixed seeds, so they pass or fail for good; each demands a p value of at least
//! [`common::P_MIN`].

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a failure must stop the test; numbers are small"
)]

mod arbitrary;
mod away;
mod beginning;
mod common;
mod contained;
mod delivery;
mod durable;
mod epochs;
mod full;
mod load;
mod loops;
mod mailboxes;
mod messages;
mod paid;
mod proof;
mod refusals;
mod reliable;
mod repeatable;
mod replay;
mod replies;
mod resends;
mod tampering;
mod threads;
mod unlinkable;
mod unobservable;
