//! What a recipient has kept, read without its machines: for whoever looks at it, or claims it, while no process earns.

use alloy_primitives::Address;

use crate::batch::{Domain, SignedBatch};
use crate::claim::{BatchClaim, WindowClaim};
use crate::class::ClassNumber;
use crate::journal::{Change, Journal};
use crate::lottery::{Randomness, WindowNumber};
use crate::records::{Restore, WindowRecord};

/// A window in which something was won, and which is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptWindow {
    /// Who pays.
    pub issuer: Address,
    /// Which window.
    pub window: WindowNumber,
    /// What each winner is worth.
    pub class: ClassNumber,
    /// How many won.
    pub winners: u32,
    /// Whether it was claimed.
    pub claimed: bool,
}

impl Restore {
    /// The windows in which something was won, in order of issuers and numbers.
    #[must_use]
    pub fn won_windows(&self) -> Vec<KeptWindow> {
        let places = self.windows.iter().map(|(place, record)| {
            let batches = self.won.range((*place, 0)..=(*place, u8::MAX));
            let winners: usize = batches.map(|((_, at), _)| self.winners_of(*place, *at).len()).sum();
            let ((issuer, window), WindowRecord { class, claimed }) = (*place, *record);
            KeptWindow { issuer, window, class, winners: u32::try_from(winners).unwrap_or(u32::MAX), claimed }
        });
        places.filter(|window| window.winners > 0).collect()
    }

    /// The claim of a window, as its machine would make it. `secret` is that of the account's windows. A machine that is
    /// restored accepts nothing more under a window that was kept, so the claim is whole; but that it is claimed must be durable
    /// before it leaves the process: see [`Self::mark_claimed`].
    #[must_use]
    pub fn claim_of(&self, window: &KeptWindow, secret: &[u8; 32], domain: &Domain) -> Option<WindowClaim> {
        let place = (window.issuer, window.window);
        let class = self.windows.get(&place)?.class;
        let of_batch = |((_, number), batch): (&(_, u8), &SignedBatch)| {
            let winners = self.winners_of(place, *number).to_vec();
            let header = &batch.header;
            (!winners.is_empty()).then(|| BatchClaim {
                number: *number,
                count: header.count,
                salt: header.salt,
                signature: batch.signature,
                winners,
            })
        };
        let batches: Vec<_> = self.won.range((place, 0)..=(place, u8::MAX)).filter_map(of_batch).collect();
        let winners = batches.iter().map(|batch: &BatchClaim| batch.winners.len()).sum::<usize>();
        let least = u16::try_from(winners).unwrap_or(u16::MAX);
        let randomness = Randomness::derive(secret, domain, &window.issuer, window.window);
        (winners > 0).then_some(WindowClaim {
            issuer: window.issuer,
            class,
            window: window.window,
            randomness,
            least,
            batches,
        })
    }

    /// What to write down before the claim of a window leaves the process.
    #[must_use]
    pub fn mark_claimed(&self, window: &KeptWindow) -> Vec<Change> {
        let mut journal = Journal::default();
        let record = WindowRecord { class: window.class, claimed: true };
        journal.put_window(&window.issuer, window.window, &record);
        changes(journal)
    }

    /// What to remove when the claim of a window is final on the chain.
    #[must_use]
    pub fn forget_settled(&self, issuer: Address, window: WindowNumber) -> Vec<Change> {
        let place = (issuer, window);
        let numbers = self.won.range((place, 0)..=(place, u8::MAX)).map(|((_, number), _)| *number);
        let winners = numbers.map(|number| {
            (number, self.winners.get(&(place, number)).map(Vec::as_slice).unwrap_or_default())
        });
        let mut journal = Journal::default();
        journal.delete_window(&issuer, window, winners);
        changes(journal)
    }
}

fn changes(mut journal: Journal) -> Vec<Change> {
    core::iter::from_fn(|| journal.poll_change()).collect()
}
