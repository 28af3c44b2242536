//! What an observer of a mix or of a client may learn: distributions, orders, instants.
//!
//! Statistical tests have fixed seeds, so they pass or fail for good; each demands a p value of at least
//! [`common::P_MIN`]. That they can fail is tested, too: each has a counterpart that a defect is fed to.

mod common;
mod delays;
mod loops;
mod order;
mod overflow;
mod poisson;
mod randomness;
mod schedule;
mod slots;
mod time;
