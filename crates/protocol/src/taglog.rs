//! What a node asks to be remembered of the packets that it accepted, without knowing of any disk.
//!
//! A packet that was accepted may leave only when its replay tag is durable: after a crash the node would take it a second
//! time otherwise. To sync for each packet would cost more than the packet does; so tags are appended, each gets a position,
//! and who holds a packet waits until everything up to its position is durable.

/// A log of the replay tags of one key.
pub trait TagLog: Send + Sync {
    /// Writes the fingerprints of accepted packets down, soon; returns the position after them, which is the number of
    /// fingerprints ever appended. Never waits for the disk.
    ///
    /// # Errors
    /// Nothing was appended; the packets must not be accepted.
    fn append(&self, fingerprints: &[u64]) -> Result<u64, LogRefused>;

    /// Up to which position everything is durable.
    fn durable(&self) -> u64;

    /// `position` should be durable in `within` from now: someone waits for it.
    fn need(&self, position: u64, within: core::time::Duration);
}

/// Why a log takes no fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogRefused {
    /// Too many wait to be written.
    #[error("the tag log is behind: too many tags wait to be written")]
    Full,
    /// The last attempt to write failed.
    #[error("the tag log cannot be written")]
    Failing,
    /// The log was closed.
    #[error("the tag log is closed")]
    Closed,
}
