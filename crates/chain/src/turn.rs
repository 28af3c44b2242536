//! Several parts of a process may send transactions with one key, each of which takes the next number: they take turns.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Whose turn it is to send with a key. Clones are the same; parts that do not share one do not know of each other.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<Mutex<Sent>>);

#[derive(Debug, Default)]
struct Sent {
    number: Option<u64>,
}

/// It is the turn of whoever has this, until it is dropped: when what was sent is in a block, or is not waited for any more.
#[derive(Debug)]
pub struct Held(OwnedMutexGuard<Sent>);

impl Turn {
    /// Waits until nobody else has it.
    pub async fn take(&self) -> Held {
        Held(Arc::clone(&self.0).lock_owned().await)
    }

    /// Takes it if nobody else has it.
    #[must_use]
    pub fn try_take(&self) -> Option<Held> {
        Arc::clone(&self.0).try_lock_owned().ok().map(Held)
    }
}

impl Held {
    /// A transaction of this number is about to be sent that nobody may replace.
    pub fn note(&mut self, number: u64) {
        self.0.number = Some(number);
    }

    /// Whether a transaction of this number was noted: if it waits, it waits for a good reason.
    #[must_use]
    pub fn was_noted(&self, number: u64) -> bool {
        self.0.number == Some(number)
    }
}
