//! What a recipient has kept, read without its machines: for whoever looks at it, or claims it, while no process earns.

use alloy_primitives::Address;
use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Domain, SignedBatch};
use crate::claim::{BatchClaim, WindowClaim};
use crate::class::ClassNumber;
use crate::journal::{Change, Journal};
use crate::lottery::{Randomness, WindowNumber};
use crate::records::{Restore, WindowRecord, tables, window_key};

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

    /// Whether this secret of the account's windows is the one with which all that is kept was won: nobody claims it with another.
    #[must_use]
    pub fn is_claimable_with(&self, secret: &[u8; 32], domain: &Domain) -> bool {
        let mut batches = self.won.iter().filter(|((place, _), _)| self.windows.contains_key(place));
        batches.all(|(((issuer, window), _), batch)| {
            let randomness = Randomness::derive(secret, domain, issuer, *window);
            randomness.commitment() == batch.header.commitment
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

    /// What to write down when the claim of a window is final on the chain, which has paid `amount` for it: the window goes, and is in
    /// the sums of what is over, together with what was over before. A window counts once.
    #[must_use]
    pub fn forget_settled(
        &mut self,
        issuer: Address,
        window: WindowNumber,
        face_value: u128,
        amount: u128,
    ) -> Vec<Change> {
        let place = (issuer, window);
        let kept = self.won_windows().into_iter().find(|kept| (kept.issuer, kept.window) == place);
        let mut journal = Journal::default();
        if let (Some(kept), Some(_)) = (kept, self.windows.remove(&place)) {
            let over = self.over.entry(issuer).or_default();
            over.settle(kept.winners, face_value, amount);
            journal.put_over(&issuer, over);
        }
        let numbers = self.won.range((place, 0)..=(place, u8::MAX)).map(|((_, number), _)| *number);
        let winners = numbers.map(|number| {
            (number, self.winners.get(&(place, number)).map(Vec::as_slice).unwrap_or_default())
        });
        let accepted = self.accepted.range((place, 0)..=(place, u8::MAX)).map(|((_, number), _)| *number);
        journal.delete_window(&issuer, window, accepted, winners);
        changes(journal)
    }
}

/// What is kept of windows in which something was won, followed change by change, without openers: for whoever wants to know
/// while a process earns.
///
/// **Bound.** As the machines: windows until they are settled or expire, up to 255 winners in each.
#[derive(Clone, Debug, Default)]
pub struct KeptWindows {
    windows: BTreeMap<[u8; PLACE_LEN], WindowRecord>,
    winners: BTreeSet<[u8; WINNER_LEN]>,
}

/// Bytes of issuer and window in a key.
const PLACE_LEN: usize = 20 + 4;
/// And of a winner: the batch's number, k.
const WINNER_LEN: usize = PLACE_LEN + 1 + 1;

impl KeptWindows {
    /// Those that were kept.
    #[must_use]
    pub fn new(kept: &Restore) -> Self {
        let mut windows = Self::default();
        for (place, record) in &kept.windows {
            windows.windows.insert(window_key(&place.0, place.1), *record);
        }
        for ((place, number), winners) in &kept.winners {
            for winner in winners {
                let mut key = [0; WINNER_LEN];
                key[..PLACE_LEN].copy_from_slice(&window_key(&place.0, place.1));
                (key[PLACE_LEN], key[PLACE_LEN + 1]) = (*number, winner.k);
                windows.winners.insert(key);
            }
        }
        windows
    }

    /// Follows a change. True if it was one of these.
    pub fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Put { table, key, value } if *table == tables::WINDOWS => {
                let mut one = Restore::default();
                let known = one.feed(*table, key, value).is_ok();
                let key = <[u8; PLACE_LEN]>::try_from(&**key);
                if let (true, Ok(key), Some(record)) = (known, key, one.windows.into_values().next()) {
                    self.windows.insert(key, record);
                }
            }
            Change::Delete { table, key } if *table == tables::WINDOWS => {
                if let Ok(key) = <[u8; PLACE_LEN]>::try_from(&**key) {
                    self.windows.remove(&key);
                }
            }
            Change::Put { table, key, .. } if *table == tables::WINNERS => {
                self.winners.extend(<[u8; WINNER_LEN]>::try_from(&**key));
            }
            Change::Delete { table, key } if *table == tables::WINNERS => {
                if let Ok(key) = <[u8; WINNER_LEN]>::try_from(&**key) {
                    self.winners.remove(&key);
                }
            }
            _ => return false,
        }
        true
    }

    /// Windows in which something was won, in order of issuers and numbers.
    #[must_use]
    pub fn won_windows(&self) -> Vec<KeptWindow> {
        let windows = self.windows.iter().map(|(key, record)| {
            let (mut first, mut last) = ([0; WINNER_LEN], [u8::MAX; WINNER_LEN]);
            first[..PLACE_LEN].copy_from_slice(key);
            last[..PLACE_LEN].copy_from_slice(key);
            let winners = u32::try_from(self.winners.range(first..=last).count()).unwrap_or(u32::MAX);
            let mut number = [0; 4];
            number.copy_from_slice(&key[20..]);
            let (issuer, window) =
                (Address::from_slice(&key[..20]), WindowNumber(u32::from_be_bytes(number)));
            KeptWindow { issuer, window, class: record.class, winners, claimed: record.claimed }
        });
        windows.filter(|window| window.winners > 0).collect()
    }
}

fn changes(mut journal: Journal) -> Vec<Change> {
    core::iter::from_fn(|| journal.poll_change()).collect()
}
