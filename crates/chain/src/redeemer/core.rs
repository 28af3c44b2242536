//! Which claims are sent when, in which transaction, for which fee: free of the network and of clocks.
//!
//! A claim waits, is in a transaction that is under way, or is settled. There is one transaction under way at most, of one
//! number, and it may have several prices: at most one of them is ever executed. All this is in memory only. After a crash
//! the claims come again; those whose transaction was executed meanwhile are refused as claimed, and settled by what was paid.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256};
use core::time::Duration;
use tombola_mixing::Rng;
use tombola_tickets::{
    PriceClass, UnixSeconds, WindowClaim, WindowNumber, calldata, calldata_tokens, encoded_len,
};

use super::price::{Offer, TokenPrice};
use crate::ledger::{Fees, Payment};

/// What a transaction may use at most (EIP-7825), less a reserve for what an estimate misses.
pub(super) const MOST_GAS: u64 = (1 << 24) - 100_000;
/// Bytes of claims in a transaction, at most: it may have 128 KiB, of which signature and fields take less than 1 KiB.
pub(super) const MOST_BYTES: usize = 127 * 1024;
/// Gas that a winner takes at most, by which batches are cut before they are estimated.
const GAS_OF_A_WINNER: u64 = 60_000;

/// So many seconds after its expiry it is known whether a claim was paid in time.
const FINAL_WITHIN: u32 = 3600;

/// By which a claim is known.
pub type Key = (Address, WindowNumber);

/// What the redeemer pays for, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Our account, for which is claimed.
    pub recipient: Address,
    /// What the token is worth.
    pub price: TokenPrice,
    /// What a redemption must be worth of what it costs, in percent, while there is time: 200 waits for twice the cost.
    pub least_return: u32,
    /// What is offered for each gas at most, in wei.
    pub max_fee: u128,
    /// So many seconds before its expiry a claim is redeemed even if it is worth just what it costs, and even if the issuer
    /// cannot pay all of it.
    pub hurry: u32,
    /// How long a claim waits on average, so that redemptions do not show when windows end.
    pub spread: Duration,
    /// After so many seconds in no block a transaction is sent again for more.
    pub mine_within: u32,
    /// After a refusal it is tried again so many seconds later; four times as long after the next one, and so on, to an hour.
    pub retry: u32,
}

impl Terms {
    /// For a public chain: an hour on average, twice the cost, at most 500 gwei.
    #[must_use]
    pub const fn new(recipient: Address, price: TokenPrice) -> Self {
        Self {
            recipient,
            price,
            least_return: 200,
            max_fee: 500_000_000_000,
            hurry: 6 * 3600,
            spread: Duration::from_secs(3600),
            mine_within: 60,
            retry: 15,
        }
    }
}

#[derive(Clone, Debug)]
struct Waiting {
    claim: WindowClaim,
    class: PriceClass,
    due: u32,
    /// Refusals of it alone, one after the other.
    refused: u32,
    /// The chain says it was claimed: what was paid is looked up.
    claimed: bool,
    /// It was settled before this process began, and nobody told of it in this one.
    kept: bool,
}

impl Waiting {
    /// Not beyond the last second in which it can be claimed: then it is tried once more.
    fn pause(&mut self, seconds: u32, now: UnixSeconds) {
        let due = now.0.saturating_add(seconds).min(self.class.expiry.0.saturating_sub(1));
        self.due = due.max(now.0.saturating_add(1));
    }
}

/// A transaction that is under way.
#[derive(Clone, Debug)]
pub struct UnderWay {
    /// Which claims it has.
    pub claims: Vec<Key>,
    /// At each price that was tried, the last one last.
    pub tries: Vec<Payment>,
    /// When the last one was sent.
    sent: u32,
    /// In which block one of them is.
    pub mined: Option<u64>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing before this time, unless a claim or a settlement comes.
    Wait(UnixSeconds),
    /// Ask what these claims cost, then [`Core::quoted`] or [`Core::refused`].
    Quote(Draft),
    /// Look where the transaction under way is, then [`Core::mined`], [`Core::not_mined`] or [`Core::passed_over`].
    Look,
    /// Look up what was paid for this claim, which the chain says was claimed; then [`Core::paid`].
    LookUp(Key),
}

/// Claims for one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Which.
    pub claims: Vec<Key>,
    /// The call.
    pub data: Bytes,
    /// What they are worth, in the smallest unit of the token.
    pub worth: U256,
    /// One of them is about to expire.
    pub hurry: bool,
}

/// What comes of a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this, then [`Core::sent`].
    Send(Payment),
    /// It costs more than it is worth: wait.
    Loss {
        /// In wei.
        cost: U256,
        /// In wei.
        worth: U256,
    },
    /// Gas costs more than may be offered.
    Dear,
    /// Too much for one transaction: smaller ones come next.
    Split,
    /// Nobody waits for this claim any more, which is worth less than it costs: it is dropped.
    GiveUp(Key),
}

/// What comes of a claim whose issuer has less than it insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// It insists on what there is, and is tried again at once.
    Less,
    /// It is tried again later.
    Waits,
    /// Nobody waits any more, and there is nothing: it is dropped.
    GivenUp(Key),
}

/// When everything is to be claimed now, a claim that was refused so often takes what it can get.
const REFUSALS: u32 = 2;

/// See the module.
#[derive(Debug)]
pub struct Core {
    terms: Terms,
    claims: BTreeMap<Key, Waiting>,
    /// Settled claims, until they expire: a reorganisation may bring them back.
    settled: BTreeMap<Key, Waiting>,
    under_way: Option<UnderWay>,
    /// Claims in one transaction, at most; halved after a refusal that does not say which claim it is about.
    most: usize,
    /// Claims do not wait any more.
    hastened: bool,
    rng: Rng,
}

impl Core {
    /// Nothing to claim.
    #[must_use]
    pub fn new(terms: Terms, seed: [u8; 32]) -> Self {
        Self {
            terms,
            claims: BTreeMap::new(),
            settled: BTreeMap::new(),
            under_way: None,
            most: usize::MAX,
            hastened: false,
            rng: Rng::from_seed(seed),
        }
    }

    /// A claim of a window, of this class. One that is known, or was settled, is ignored.
    pub fn add(&mut self, claim: WindowClaim, class: PriceClass, now: UnixSeconds) {
        let key = (claim.issuer, claim.window);
        if self.claims.contains_key(&key) || self.settled.get(&key).is_some_and(|settled| !settled.kept) {
            return;
        }
        // Whoever has it does not know that it was settled: it is found out again.
        self.settled.remove(&key);
        let spread = if self.hastened { Duration::ZERO } else { self.terms.spread };
        let delay = self.rng.exponential(spread).as_secs();
        let due = now.0.saturating_add(u32::try_from(delay).unwrap_or(u32::MAX));
        // However it is drawn, not later than there is time; and not before it counts.
        let due = due.min(class.expiry.0.saturating_sub(self.terms.hurry)).max(class.valid_from.0).max(now.0);
        self.claims.insert(key, Waiting { claim, class, due, refused: 0, claimed: false, kept: false });
    }

    /// A claim that was settled before this process began: nothing is done with it unless the chain changes.
    pub fn keep(&mut self, claim: WindowClaim, class: PriceClass) {
        let key = (claim.issuer, claim.window);
        if !self.claims.contains_key(&key) {
            let kept = Waiting { claim, class, due: 0, refused: 0, claimed: false, kept: true };
            self.settled.entry(key).or_insert(kept);
        }
    }

    /// How many claims are not settled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether all claims are settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// The transaction that is under way.
    #[must_use]
    pub const fn under_way(&self) -> Option<&UnderWay> {
        self.under_way.as_ref()
    }

    /// All claims are due now, and those that come later when they come: at an end in order, or when the operator asks.
    pub fn hasten(&mut self, now: UnixSeconds) {
        self.hastened = true;
        for waiting in self.claims.values_mut() {
            waiting.due = now.0.max(waiting.class.valid_from.0);
        }
    }

    /// What to do next. Claims that expired are dropped, and returned to be counted as lost.
    pub fn next(&mut self, now: UnixSeconds, expired: &mut Vec<Key>) -> Next {
        self.settled.retain(|_, settled| settled.class.expiry >= now);
        let under_way = self.under_way.as_ref();
        self.claims.retain(|key, waiting| {
            // What is in a transaction may have been paid in time, and not be final yet.
            let sent = under_way.is_some_and(|under_way| under_way.claims.contains(key));
            let last = if sent {
                waiting.class.expiry.0.saturating_add(FINAL_WITHIN)
            } else {
                waiting.class.expiry.0
            };
            let valid = now.0 <= last || waiting.claimed;
            if !valid {
                expired.push(*key);
            }
            valid
        });
        if let Some(under_way) = &mut self.under_way {
            under_way.claims.retain(|key| self.claims.contains_key(key));
            // All are settled, which is final.
            if !under_way.claims.is_empty() {
                return Next::Look;
            }
            self.under_way = None;
        }
        if let Some((key, _)) =
            self.claims.iter().find(|(_, waiting)| waiting.claimed && waiting.due <= now.0)
        {
            return Next::LookUp(*key);
        }
        match self.draft(now) {
            Some(draft) => Next::Quote(draft),
            None => {
                let due = self.claims.values().map(|waiting| waiting.due).min();
                Next::Wait(UnixSeconds(due.unwrap_or(u32::MAX)))
            }
        }
    }

    /// Whether it is not waited any longer for a better price.
    fn hurries(&self, waiting: &Waiting, now: UnixSeconds) -> bool {
        self.hastened || self.is_late(waiting, now)
    }

    fn is_late(&self, waiting: &Waiting, now: UnixSeconds) -> bool {
        now.0 >= waiting.class.expiry.0.saturating_sub(self.terms.hurry)
    }

    /// The claims that are due, those first that expire first, as many as fit.
    fn draft(&self, now: UnixSeconds) -> Option<Draft> {
        let mut due: Vec<_> =
            self.claims.iter().filter(|(_, waiting)| waiting.due <= now.0 && !waiting.claimed).collect();
        due.sort_by_key(|(key, waiting)| (waiting.refused, waiting.class.expiry, **key));
        // One that was refused by itself is tried by itself: it must not hold up others.
        if due.first().is_some_and(|(_, first)| first.refused > 0) {
            due.truncate(1);
        } else {
            due.retain(|(_, waiting)| waiting.refused == 0);
        }
        let (mut draft, mut windows) =
            (Draft { claims: Vec::new(), data: Bytes::new(), worth: U256::ZERO, hurry: false }, Vec::new());
        let (mut bytes, mut gas) = (0, 0_u64);
        for (key, waiting) in due {
            let claim = &waiting.claim;
            let hurry = self.hurries(waiting, now);
            bytes += encoded_len(core::slice::from_ref(claim));
            gas += u64::from(claim.winners()) * GAS_OF_A_WINNER;
            let full = bytes > MOST_BYTES || gas > MOST_GAS || draft.claims.len() == self.most;
            if full && !draft.claims.is_empty() {
                break;
            }
            draft.claims.push(*key);
            draft.hurry |= hurry;
            draft.worth += U256::from(claim.winners()) * U256::from(waiting.class.face_value);
            windows.push(claim.clone());
        }
        // What is not encodable is no claim that the tickets make.
        draft.data = calldata(self.terms.recipient, &windows).ok()?.into();
        (!draft.claims.is_empty()).then_some(draft)
    }

    /// What a draft costs. `nonce` is the number of the next transaction.
    pub fn quoted(&mut self, draft: &Draft, gas: u64, fees: Fees, nonce: u64, now: UnixSeconds) -> Decision {
        let floor = 21_000 + 10 * calldata_tokens(&draft.data);
        // Others are executed before, and may make it dearer.
        let gas = gas.max(floor).saturating_add(gas / 10);
        if gas > MOST_GAS && draft.claims.len() > 1 {
            self.most = draft.claims.len() / 2;
            return Decision::Split;
        }
        let gas = gas.min(MOST_GAS + 100_000);
        let usual = Offer::of(fees);
        if fees.base.saturating_add(fees.tip) > self.terms.max_fee {
            self.put_off(&draft.claims, now);
            return Decision::Dear;
        }
        let offer = Offer { max_fee: usual.max_fee.min(self.terms.max_fee), ..usual };
        let (cost, worth) = (offer.cost(gas, fees), self.terms.price.wei_of(draft.worth));
        let least = if draft.hurry { 100 } else { self.terms.least_return.max(100) };
        if self.terms.price.is_known()
            && worth.saturating_mul(U256::from(100)) < cost.saturating_mul(U256::from(least))
        {
            if !self.hastened {
                self.put_off(&draft.claims, now);
            } else if let [key] = draft.claims[..]
                && self.is_hopeless(&key)
            {
                self.claims.remove(&key);
                return Decision::GiveUp(key);
            } else {
                self.refused(draft, now);
            }
            return Decision::Loss { cost, worth };
        }
        let Offer { max_fee, max_tip } = offer;
        Decision::Send(Payment { nonce, gas, max_fee, max_tip, data: draft.data.clone() })
    }

    /// Nothing is wrong with the claims; they are tried again later.
    pub fn put_off(&mut self, claims: &[Key], now: UnixSeconds) {
        self.pause(claims, self.terms.retry.saturating_mul(4), now);
    }

    fn pause(&mut self, claims: &[Key], seconds: u32, now: UnixSeconds) {
        for key in claims {
            if let Some(waiting) = self.claims.get_mut(key) {
                waiting.pause(seconds, now);
            }
        }
    }

    /// The server took the transaction, or may have: its answer was lost.
    pub fn sent(&mut self, draft: &Draft, payment: Payment, now: UnixSeconds) {
        let claims = draft.claims.clone();
        self.under_way = Some(UnderWay { claims, tries: vec![payment], sent: now.0, mined: None });
    }

    /// One of the tries is in a block.
    pub fn mined(&mut self, block: u64, success: bool, now: UnixSeconds) {
        if success {
            if let Some(under_way) = &mut self.under_way {
                under_way.mined = Some(block);
            }
        } else if let Some(under_way) = self.under_way.take() {
            // Something changed between the estimate and the block; the next estimate says what.
            self.retry(&under_way.claims, now);
        }
    }

    /// None of the tries is in a block. `Some`: send this instead of the last one, then [`Self::replaced`].
    pub fn not_mined(&mut self, fees: Fees, now: UnixSeconds) -> Option<Payment> {
        let worth = self.under_way_worth();
        let under_way = self.under_way.as_mut()?;
        let last = under_way.tries.last()?;
        if under_way.mined.take().is_some() {
            // It was in a block that is gone: the same again, first.
            under_way.sent = now.0;
            return Some(last.clone());
        }
        if now.0 < under_way.sent.saturating_add(self.terms.mine_within) {
            return None;
        }
        under_way.sent = now.0;
        let before = Offer { max_fee: last.max_fee, max_tip: last.max_tip };
        let offer = Offer::of(fees).above(before);
        let cost = offer.cost(last.gas, fees);
        let at_a_loss = self.terms.price.is_known() && cost > self.terms.price.wei_of(worth);
        if offer.max_fee > self.terms.max_fee || at_a_loss {
            // The last one may still come, or was forgotten by the server: the same again.
            return Some(last.clone());
        }
        Some(Payment { max_fee: offer.max_fee, max_tip: offer.max_tip, ..last.clone() })
    }

    fn under_way_worth(&self) -> U256 {
        let keys = self.under_way.iter().flat_map(|under_way| &under_way.claims);
        let claims = keys.filter_map(|key| self.claims.get(key));
        claims.map(|waiting| U256::from(waiting.claim.winners()) * U256::from(waiting.class.face_value)).sum()
    }

    /// A replacement was sent, or may have been.
    pub fn replaced(&mut self, payment: Payment) {
        if let Some(under_way) = &mut self.under_way
            && !under_way.tries.contains(&payment)
        {
            under_way.tries.push(payment);
        }
    }

    /// The number of the transaction under way was used by another one, or is not the next one any more: its claims wait again.
    pub fn passed_over(&mut self, now: UnixSeconds) {
        if let Some(under_way) = self.under_way.take() {
            self.retry(&under_way.claims, now);
        }
    }

    /// Another transaction of ours waits with this number, from before a restart, and pays nearly as much.
    #[must_use]
    pub fn outbid(&self, payment: &Payment) -> Option<Payment> {
        let before = Offer { max_fee: payment.max_fee, max_tip: payment.max_tip };
        let Offer { max_fee, max_tip } = before.above(before);
        (max_fee <= self.terms.max_fee).then(|| Payment { max_fee, max_tip, ..payment.clone() })
    }

    fn retry(&mut self, claims: &[Key], now: UnixSeconds) {
        self.pause(claims, self.terms.retry, now);
    }

    /// The contract refuses the draft, and says that this claim was paid before.
    pub fn already_claimed(&mut self, key: Key, now: UnixSeconds) -> bool {
        let Some(waiting) = self.claims.get_mut(&key) else { return false };
        waiting.claimed = true;
        waiting.due = now.0;
        true
    }

    /// The contract refuses the draft. If it is of several claims, smaller ones come next, until it is known which one.
    pub fn refused(&mut self, draft: &Draft, now: UnixSeconds) {
        if draft.claims.len() > 1 {
            self.most = draft.claims.len() / 2;
            return;
        }
        let Some(waiting) = draft.claims.first().and_then(|key| self.claims.get_mut(key)) else { return };
        let pause = self.terms.retry.max(1).saturating_mul(4_u32.saturating_pow(waiting.refused)).min(3600);
        waiting.refused = waiting.refused.saturating_add(1);
        waiting.pause(pause, now);
        self.most = usize::MAX;
    }

    /// The issuer has less than a claim of one window insists on. It waits for more; in a hurry it insists on what there is, and so it
    /// does when everything is to be claimed now and it has waited for a while. If that is nothing, it is given up then.
    pub fn too_little(&mut self, draft: &Draft, paid: U256, now: UnixSeconds) -> Shortfall {
        let [key] = draft.claims[..] else {
            self.refused(draft, now);
            return Shortfall::Waits;
        };
        let hopeless = self.hastened && self.is_hopeless(&key);
        let hurry = self.claims.get(&key).is_some_and(|waiting| self.is_late(waiting, now));
        let Some(waiting) = self.claims.get_mut(&key) else { return Shortfall::Waits };
        let whole = paid.checked_div(U256::from(waiting.class.face_value)).unwrap_or_default();
        let least = u16::try_from(whole).unwrap_or(u16::MAX);
        if (hurry || hopeless) && least > 0 && least < waiting.claim.least {
            waiting.claim.least = least;
            waiting.due = now.0;
            return Shortfall::Less;
        }
        if hopeless && least == 0 {
            self.claims.remove(&key);
            return Shortfall::GivenUp(key);
        }
        self.refused(draft, now);
        Shortfall::Waits
    }

    fn is_hopeless(&self, key: &Key) -> bool {
        self.claims.get(key).is_some_and(|waiting| waiting.refused >= REFUSALS)
    }

    /// From when on a claim may have been paid.
    #[must_use]
    pub fn valid_from(&self, key: &Key) -> Option<UnixSeconds> {
        self.claims.get(key).map(|waiting| waiting.class.valid_from)
    }

    /// What was paid for a claim that was claimed before; `None`: it is not final yet, or was not found.
    pub fn paid(&mut self, key: Key, found: bool, now: UnixSeconds) {
        if found {
            self.settle(key);
        } else if let Some(waiting) = self.claims.get_mut(&key) {
            waiting.due = now.0.saturating_add(self.terms.retry.max(1));
            // It is asked again whether it is claimed: the chain may have changed.
            waiting.claimed = false;
        }
    }

    /// A claim was paid, finally. True if it was one of ours.
    pub fn settle(&mut self, key: Key) -> bool {
        let Some(waiting) = self.claims.remove(&key) else { return false };
        self.settled.insert(key, Waiting { kept: false, ..waiting });
        self.most = usize::MAX;
        true
    }

    /// What was final is not: the claim must be made again.
    pub fn unsettle(&mut self, key: Key, now: UnixSeconds) {
        if let Some(waiting) = self.settled.remove(&key) {
            let again = Waiting { due: now.0, claimed: false, refused: 0, kept: false, ..waiting };
            self.claims.insert(key, again);
        }
    }

    /// Blocks that were final are gone: whichever claims they had, all are asked for again. Those that are still paid are looked
    /// up and settled; the others are claimed.
    pub fn reorganised(&mut self, now: UnixSeconds) {
        let settled: Vec<_> = self.settled.keys().copied().collect();
        settled.into_iter().for_each(|key| self.unsettle(key, now));
    }

    /// Hashes to look for are those of all tries.
    pub fn hashes(&self, hash: impl Fn(&Payment) -> B256) -> Vec<B256> {
        let tries = self.under_way.iter().flat_map(|under_way| under_way.tries.iter().rev());
        tries.map(hash).collect()
    }
}
