//! What is needed to make claims again, until nobody can claim them any more.
//!
//! The machine forgets a window when its claim is final. Should a reorganisation take away what was final, even after a restart, the
//! claim is still here, and is made again.
//!
//! | table | key | value |
//! |---|---|---|
//! | 1 | issuer 20, window 4 | version 1 (1), settled 1 (0 or 1), face value 16, win probability 8, valid from 4, expiry 4, epoch 4, the [claim](tombola_tickets::encode) |

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::sync::mpsc;
use tombola_chain::redeemer::{Key, Order};
use tombola_protocol::store::{StoreOp, Table};
use tombola_storage::{Format, Store, StoreError};
use tombola_tickets::{PriceClass, UnixSeconds, WinProbability, WindowClaim, decode, encode};

use crate::clock::unix_now;

/// The file in the data folder.
pub const FILE: &str = "claims.redb";
const FORMAT: Format = Format { name: "tombola claims", version: 1 };
const CLAIMS: Table = Table(1);
const VERSION: u8 = 1;
/// Bytes of a value before the claim.
const HEAD: usize = 2 + 16 + 8 + 4 + 4 + 4;

/// The claims of an account that may still be claimed.
#[derive(Clone, Debug)]
pub struct ClaimBook {
    store: Arc<Store>,
    known: Arc<Mutex<BTreeMap<Key, Known>>>,
    /// One writes at a time; the others wait without a thread.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    settled: bool,
    expiry: UnixSeconds,
}

fn key_of((issuer, window): &Key) -> Box<[u8]> {
    [issuer.as_slice(), &window.0.to_be_bytes()].concat().into()
}

fn value_of(claim: &[u8], class: &PriceClass, settled: bool) -> Box<[u8]> {
    let PriceClass { face_value, win_probability, valid_from, expiry, epoch } = class;
    let parts: [&[u8]; 7] = [
        &[VERSION, settled.into()],
        &face_value.to_be_bytes(),
        &win_probability.get().to_be_bytes(),
        &valid_from.0.to_be_bytes(),
        &expiry.0.to_be_bytes(),
        &epoch.to_be_bytes(),
        claim,
    ];
    parts.concat().into()
}

fn read(value: &[u8]) -> Option<(bool, PriceClass, WindowClaim)> {
    let (head, claim) = value.split_first_chunk::<HEAD>()?;
    let number = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
    let settled = match head[..2] {
        [VERSION, 0] => false,
        [VERSION, 1] => true,
        _ => return None,
    };
    let class = PriceClass {
        face_value: u128::from_be_bytes(*head.get(2..)?.first_chunk()?),
        win_probability: WinProbability::new(u64::from_be_bytes(*head.get(18..)?.first_chunk()?)).ok()?,
        valid_from: UnixSeconds(number(26)?),
        expiry: UnixSeconds(number(30)?),
        epoch: number(34)?,
    };
    let [claim] = <[WindowClaim; 1]>::try_from(decode(claim).ok()?).ok()?;
    Some((settled, class, claim))
}

impl ClaimBook {
    /// Opens the file, or makes it. What is in it is to be told to the redeemer. What has expired is removed.
    ///
    /// # Errors
    /// The file is damaged, holds something else, is in use, or the disk fails.
    pub fn open(path: &Path) -> Result<(Self, Vec<Order>), StoreError> {
        let store = Store::open(path, FORMAT)?;
        let (mut known, mut orders, mut expired) = (BTreeMap::new(), Vec::new(), Vec::new());
        let now = unix_now();
        store.for_each(CLAIMS, |key, value| {
            let (settled, class, claim) = read(value).ok_or("it is no claim of this version")?;
            if u64::from(class.expiry.0) < now {
                expired.push(StoreOp::Delete { table: CLAIMS, key: key.into() });
                return Ok(());
            }
            known.insert((claim.issuer, claim.window), Known { settled, expiry: class.expiry });
            let claim = Box::new(claim);
            orders.push(if settled { Order::Keep(claim, class) } else { Order::Claim(claim, class) });
            Ok(())
        })?;
        store.commit(expired)?;
        let known = Arc::new(Mutex::new(known));
        Ok((Self { store: Arc::new(store), known, turn: Arc::default() }, orders))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a claim down. Waits for the disk.
    ///
    /// # Errors
    /// The disk fails; then it is not here, and only what the machine keeps protects it.
    pub fn put(&self, claim: &WindowClaim, class: &PriceClass) -> Result<(), StoreError> {
        let key = (claim.issuer, claim.window);
        if self.known().get(&key).is_some_and(|known| !known.settled) {
            return Ok(());
        }
        // What cannot be encoded cannot be claimed either.
        let Ok(bytes) = encode(std::slice::from_ref(claim)) else { return Ok(()) };
        let mut changes = self.expired();
        let value = value_of(&bytes, class, false);
        changes.push(StoreOp::Put { table: CLAIMS, key: key_of(&key), value });
        self.store.commit(changes)?;
        self.known().insert(key, Known { settled: false, expiry: class.expiry });
        Ok(())
    }

    /// A claim is final. Waits for the disk.
    ///
    /// # Errors
    /// The disk fails; then it is asked for once more after the next start.
    pub fn settled(&self, key: &Key) -> Result<(), StoreError> {
        self.mark(&[*key], true)
    }

    /// A payment that was final is not on the chain any more, or, without a key, all of them may be: what is to be claimed again is
    /// claimed again after a restart, too. Waits for the disk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn unsettled(&self, key: Option<&Key>) -> Result<(), StoreError> {
        let keys: Vec<Key> = match key {
            Some(key) => vec![*key],
            None => self.known().keys().copied().collect(),
        };
        self.mark(&keys, false)
    }

    fn mark(&self, keys: &[Key], settled: bool) -> Result<(), StoreError> {
        let differs = |key: &&Key| self.known().get(*key).is_some_and(|known| known.settled != settled);
        let keys: Vec<&Key> = keys.iter().filter(differs).collect();
        let mut changes = Vec::new();
        for key in &keys {
            let place = key_of(key);
            let found = self.store.range(CLAIMS, &place, &place, 1)?.into_iter().next();
            if let Some(mut value) = found.map(|(_, value)| value.to_vec()) {
                if let Some(mark) = value.get_mut(1) {
                    *mark = settled.into();
                }
                changes.push(StoreOp::Put { table: CLAIMS, key: place, value: value.into() });
            }
        }
        if !changes.is_empty() {
            self.store.commit(changes)?;
        }
        let mut known = self.known();
        for key in keys {
            if let Some(known) = known.get_mut(key) {
                known.settled = settled;
            }
        }
        Ok(())
    }

    /// Removes what nobody can claim any more, a few at a time.
    fn expired(&self) -> Vec<StoreOp> {
        let now = unix_now();
        let mut known = self.known();
        let gone: Vec<Key> = known
            .iter()
            .filter(|(_, known)| u64::from(known.expiry.0) < now)
            .map(|(key, _)| *key)
            .take(8)
            .collect();
        gone.iter()
            .map(|key| {
                known.remove(key);
                StoreOp::Delete { table: CLAIMS, key: key_of(key) }
            })
            .collect()
    }

    /// Writes a claim down, and only then hands it to the redeemer.
    pub async fn hand_in(self, claim: WindowClaim, class: PriceClass, orders: mpsc::Sender<Order>) {
        let turn = self.turn.lock().await;
        let book = self.clone();
        let work = move || {
            let written = book.put(&claim, &class);
            (claim, written)
        };
        let Ok((claim, written)) = tokio::task::spawn_blocking(work).await else { return };
        drop(turn);
        if let Err(error) = written {
            // The machine has it, too, until it is final.
            tracing::error!(%error, "a claim is not kept for the case that the chain is reorganised");
        }
        // Nobody listens any more at the end: it is claimed after the next start.
        let _ = orders.send(Order::Claim(Box::new(claim), class)).await;
    }

    /// A claim is final; written down when the disk has time.
    pub async fn note_settled(&self, key: Key) {
        let _turn = self.turn.lock().await;
        let book = self.clone();
        let written = tokio::task::spawn_blocking(move || book.settled(&key)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "that a claim is settled could not be kept");
        }
    }

    /// As [`Self::unsettled`]. When this returns it is on disk.
    pub async fn note_unsettled(&self, key: Option<Key>) {
        let _turn = self.turn.lock().await;
        let book = self.clone();
        let written = tokio::task::spawn_blocking(move || book.unsettled(key.as_ref())).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "that claims are to be made again could not be kept; they are made while this process runs");
        }
    }
}

#[cfg(test)]
mod tests {
    use tombola_tickets::{
        Address, BatchClaim, BatchHeader, Challenge, ClassNumber, Domain, Opener, Randomness, Salt,
        SignerKey, TicketCount, WindowNumber, merkle,
    };

    use super::*;

    fn class(expiry: u64) -> PriceClass {
        PriceClass {
            face_value: 1 << 100,
            win_probability: WinProbability::MAX,
            valid_from: UnixSeconds(7),
            expiry: UnixSeconds(u32::try_from(expiry).unwrap()),
            epoch: 3,
        }
    }

    fn claim(window: u32) -> WindowClaim {
        let openers: Vec<_> = (0..40_u8).map(|at| Opener::from_bytes([at; 16])).collect();
        let leaves: Vec<Challenge> = openers.iter().map(Opener::challenge).collect();
        let randomness = Randomness::from_bytes([9; 16]);
        let key = SignerKey::from_bytes(&[7; 32]).unwrap();
        let header = BatchHeader {
            issuer: key.address(),
            recipient: Address::repeat_byte(2),
            class: ClassNumber(5),
            window: WindowNumber(window),
            number: 4,
            count: TicketCount::new(leaves.len()).unwrap(),
            commitment: randomness.commitment(),
            root: merkle::root(&leaves).unwrap(),
            salt: Salt::from_bytes([1; 16]),
        };
        let batch = header.sign(&Domain::new(1, Address::ZERO), &key);
        let winners = [3, 17].map(|k: u8| (k, openers[usize::from(k)].clone()));
        let batches = vec![BatchClaim::of(&batch, &leaves, winners).unwrap()];
        let (issuer, class, window) = (header.issuer, header.class, header.window);
        WindowClaim { issuer, class, window, randomness, least: 2, batches }
    }

    #[test]
    fn claims_are_kept_until_they_expire() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let later = unix_now() + 1000;
        {
            let (book, orders) = ClaimBook::open(&path).unwrap();
            assert!(orders.is_empty());
            (0..3).for_each(|window| book.put(&claim(window), &class(later)).unwrap());
            book.put(&claim(9), &class(unix_now() - 10)).unwrap();
            book.settled(&(claim(1).issuer, WindowNumber(1))).unwrap();
            book.settled(&(claim(1).issuer, WindowNumber(77))).unwrap();
        }
        let (book, orders) = ClaimBook::open(&path).unwrap();
        let told: Vec<_> = orders
            .into_iter()
            .map(|order| match order {
                Order::Claim(claim, class) => (false, *claim, class),
                Order::Keep(claim, class) => (true, *claim, class),
                other => panic!("{other:?}"),
            })
            .collect();
        let of = |window, settled| (settled, claim(window), class(later));
        assert_eq!(told, [of(0, false), of(1, true), of(2, false)]);
        // It was taken away: it is as new.
        book.put(&claim(1), &class(later)).unwrap();
        drop(book);
        let (_, orders) = ClaimBook::open(&path).unwrap();
        assert!(orders.iter().all(|order| matches!(order, Order::Claim(..))) && orders.len() == 3);
    }

    #[test]
    fn what_a_reorganisation_takes_away_is_claimed_after_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let keys: Vec<Key> = (0..3).map(|window| (claim(window).issuer, WindowNumber(window))).collect();
        let opened = |keep: usize| {
            let (book, orders) = ClaimBook::open(&path).unwrap();
            assert_eq!(orders.iter().filter(|order| matches!(order, Order::Keep(..))).count(), keep);
            book
        };
        let book = opened(0);
        for (window, key) in (0..).zip(&keys) {
            book.put(&claim(window), &class(unix_now() + 1000)).unwrap();
            book.settled(key).unwrap();
        }
        drop(book);
        let book = opened(3);
        book.unsettled(Some(&keys[1])).unwrap();
        drop(book);
        let book = opened(2);
        book.unsettled(None).unwrap();
        drop(book);
        let book = opened(0);
        book.settled(&keys[2]).unwrap();
        drop(book);
        drop(opened(1));
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let whole = value_of(&encode(&[claim(1)]).unwrap(), &class(unix_now() + 9), false);
        assert!(read(&whole).is_some());
        assert!((0..whole.len()).all(|end| read(&whole[..end]).is_none()));
        let store = Store::open(&path, FORMAT).unwrap();
        let value = whole[..HEAD].into();
        store.commit(vec![StoreOp::Put { table: CLAIMS, key: [0; 24].into(), value }]).unwrap();
        drop(store);
        let error = ClaimBook::open(&path).unwrap_err().to_string();
        assert!(error.contains("claims.redb") && error.contains("no claim"), "{error}");
    }
}
