//! Reply blocks: the keys of our own, and what others gave us to answer with.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombola_mixing::{Rng, Time};
use tombola_sphinx::{ReplyKeys, SURB_LEN};

use crate::fragment::MessageId;
use crate::packet::Identifier;
use crate::payload::BLOCKS_MAX;
use crate::view::Recipient;

/// Keys of own blocks that are remembered; beyond, the oldest are forgotten, and an answer through them is not read: its
/// sender sends it again. 2.5 MB.
const KEYS_MAX: usize = 16_384;
/// Blocks that are kept of one message; what comes beyond is ignored.
const BLOCKS_EACH: usize = 256;
/// Blocks that are kept of all messages together: 26 MB. Beyond, those of the oldest message go.
const BLOCKS_ALL: usize = 65_536;
/// Messages that may be answered to us; beyond, the oldest can no longer be.
const CONVERSATIONS_MAX: usize = 16_384;

/// The keys of an own block that is somewhere out there.
struct Own {
    message: MessageId,
    epoch: u64,
    keys: ReplyKeys,
    /// Whether it is in the store.
    kept: bool,
}

/// Keys of own blocks, by the identifier that the answer carries.
#[derive(Default)]
pub(crate) struct Keyring {
    own: BTreeMap<Identifier, Own>,
    order: VecDeque<Identifier>,
}

impl Keyring {
    /// Remembers a block's keys; gives the identifier of one that had to go and was kept in the store.
    pub(crate) fn insert(
        &mut self,
        message: MessageId,
        epoch: u64,
        keys: ReplyKeys,
        kept: bool,
    ) -> Option<Identifier> {
        let identifier = *keys.identifier();
        self.own.insert(identifier, Own { message, epoch, keys, kept });
        self.order.push_back(identifier);
        let mut gone = None;
        while self.own.len() > KEYS_MAX {
            let oldest = self.order.pop_front()?;
            gone = self.own.remove(&oldest).filter(|own| own.kept).map(|_| oldest).or(gone);
        }
        // Those that were used are still in the order; it is cleared now and then.
        if self.order.len() > 2 * KEYS_MAX {
            self.order.retain(|identifier| self.own.contains_key(identifier));
        }
        gone
    }

    /// The message whose block this is, and its keys.
    pub(crate) fn get(&self, identifier: &Identifier) -> Option<(MessageId, &ReplyKeys)> {
        self.own.get(identifier).map(|own| (own.message, &own.keys))
    }

    /// A block is used once. Returns whether it was kept in the store.
    pub(crate) fn remove(&mut self, identifier: &Identifier) -> bool {
        self.own.remove(identifier).is_some_and(|own| own.kept)
    }

    /// Forgets blocks of epochs before `oldest`: their keys are dead. Gives those that were kept in the store.
    pub(crate) fn expire(&mut self, oldest: u64) -> Vec<Identifier> {
        let mut gone = Vec::new();
        self.own.retain(|identifier, own| {
            let lives = own.epoch >= oldest;
            if !lives && own.kept {
                gone.push(*identifier);
            }
            lives
        });
        gone
    }
}

impl core::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Keyring({})", self.own.len())
    }
}

/// How often blocks are made up for that may have been lost.
const TOP_UPS: u8 = 8;
/// So many of these may come early. Where trouble comes and goes the later ones remain.
const HURRIED: u8 = TOP_UPS / 2;
/// Each wait for that is so many times the one before.
const TOP_UP_BACKOFF: u32 = 3;
/// Blocks that are given beyond what was allowed, because some got lost: so many, and a quarter of what was allowed.
const SPARE: u16 = 80;
/// As many of them as all looks can give; what is seen to be lost takes only the others.
pub(crate) const SPARE_FOR_LOOKS: u16 = TOP_UPS as u16 * BLOCKS_MAX as u16;

const _: () = assert!(SPARE_FOR_LOOKS < SPARE);

/// A message of ours that may be answered.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// To whom it went.
    pub(crate) with: Recipient,
    /// How many more blocks its recipient may get.
    pub(crate) left: u16,
    /// How many more, if packets get lost.
    pub(crate) spare: u16,
    /// How often it was looked whether something got lost.
    pub(crate) looked: u8,
    /// When it is looked next.
    pub(crate) look_at: Time,
    /// Losses from then on count.
    pub(crate) since: Time,
}

impl Conversation {
    /// One that begins.
    pub(crate) fn new(now: Time, with: Recipient, replies: u16, round_trip: Duration) -> Self {
        Self {
            with,
            left: replies,
            spare: SPARE.saturating_add(replies / 4),
            looked: 0,
            look_at: now + round_trip * TOP_UP_BACKOFF,
            since: now,
        }
    }
}

/// Messages of ours that may be answered.
#[derive(Debug, Default)]
pub(crate) struct Conversations {
    by_message: BTreeMap<MessageId, Conversation>,
    order: VecDeque<MessageId>,
    looks: BTreeSet<(Time, MessageId)>,
}

impl Conversations {
    /// Begins one; gives the one that had to go.
    pub(crate) fn insert(&mut self, message: MessageId, conversation: Conversation) -> Option<MessageId> {
        if conversation.looked < TOP_UPS {
            self.looks.insert((conversation.look_at, message));
        }
        if self.by_message.insert(message, conversation).is_none() {
            self.order.push_back(message);
        }
        if self.by_message.len() <= CONVERSATIONS_MAX {
            return None;
        }
        let oldest = self.order.pop_front()?;
        let gone = self.by_message.remove(&oldest)?;
        self.looks.remove(&(gone.look_at, oldest));
        Some(oldest)
    }

    pub(crate) fn get(&self, message: &MessageId) -> Option<&Conversation> {
        self.by_message.get(message)
    }

    pub(crate) fn get_mut(&mut self, message: &MessageId) -> Option<&mut Conversation> {
        self.by_message.get_mut(message)
    }

    /// When the next one is to be looked at.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// Those that were not looked at often are to be looked at soon. Not at one instant: whoever is in two of them shall not
    /// see by the blocks that both are with one client.
    pub(crate) fn look_soon(&mut self, now: Time, within: Duration, rng: &mut Rng) {
        self.plan(|talk| {
            let soon = now + rng.exponential(within);
            if talk.looked < HURRIED { talk.look_at.min(soon) } else { talk.look_at }
        });
    }

    /// What has fallen due while the process was not there is to be looked at soon, for the same reason not at one instant.
    pub(crate) fn spread_overdue(&mut self, now: Time, within: Duration, rng: &mut Rng) {
        self.plan(|talk| if talk.look_at <= now { now + rng.exponential(within) } else { talk.look_at });
    }

    fn plan(&mut self, mut at: impl FnMut(&Conversation) -> Time) {
        for (_, message) in core::mem::take(&mut self.looks) {
            if let Some(conversation) = self.by_message.get_mut(&message) {
                conversation.look_at = at(conversation);
                self.looks.insert((conversation.look_at, message));
            }
        }
    }

    /// An answer is here, and no further one is allowed: nothing is to be looked for.
    pub(crate) fn answered(&mut self, message: &MessageId) {
        if let Some(conversation) = self.by_message.get_mut(message).filter(|talk| talk.left == 0) {
            self.looks.remove(&(conversation.look_at, *message));
            conversation.looked = TOP_UPS;
        }
    }

    /// The next one that is to be looked at now, and since when losses count. One that is `unheard` of is looked at again
    /// later.
    pub(crate) fn poll_look(
        &mut self,
        now: Time,
        round_trip: Duration,
        unheard: impl Fn(&MessageId) -> bool,
    ) -> Option<(MessageId, Time)> {
        while let Some(&(at, message)) = self.looks.first()
            && at <= now
        {
            self.looks.pop_first();
            let Some(conversation) = self.by_message.get_mut(&message) else { continue };
            let unheard = unheard(&message);
            conversation.looked += u8::from(!unheard);
            let wait = round_trip * TOP_UP_BACKOFF.saturating_pow(u32::from(conversation.looked) + 1);
            conversation.look_at = now + wait;
            if conversation.looked < TOP_UPS {
                self.looks.insert((conversation.look_at, message));
            }
            if unheard {
                continue;
            }
            return Some((message, core::mem::replace(&mut conversation.since, now)));
        }
        None
    }
}

/// A block that somebody gave us.
pub(crate) struct Block {
    /// Under which it is in the store.
    pub(crate) number: u64,
    /// The epoch whose keys it uses.
    pub(crate) epoch: u64,
    /// The block.
    pub(crate) bytes: Box<[u8; SURB_LEN]>,
}

#[derive(Default)]
struct Pool {
    blocks: VecDeque<Block>,
    /// Whether the application may answer.
    answerable: bool,
    requested: Option<Time>,
}

/// Blocks that others gave us, by the message that they came with.
#[derive(Default)]
pub(crate) struct Pools {
    pools: BTreeMap<MessageId, Pool>,
    order: VecDeque<MessageId>,
    blocks: usize,
    next_number: u64,
}

impl Pools {
    /// Adds a block that came with `message`. Gives its number in the store, if it should be kept there: if the
    /// application may answer.
    pub(crate) fn add(
        &mut self,
        message: MessageId,
        answerable: bool,
        epoch: u64,
        bytes: &[u8; SURB_LEN],
    ) -> Option<u64> {
        let number = self.next_number;
        self.next_number += 1;
        self.insert(message, answerable, Block { number, epoch, bytes: Box::new(*bytes) }).then_some(number)
    }

    /// As [`add`](Self::add), from the store.
    pub(crate) fn restore(&mut self, message: MessageId, number: u64, epoch: u64, bytes: &[u8; SURB_LEN]) {
        self.next_number = self.next_number.max(number.saturating_add(1));
        self.insert(message, true, Block { number, epoch, bytes: Box::new(*bytes) });
    }

    /// Returns whether the block was taken and should be in the store.
    fn insert(&mut self, message: MessageId, answerable: bool, block: Block) -> bool {
        let pool = self.pools.entry(message).or_insert_with(|| {
            self.order.push_back(message);
            Pool::default()
        });
        pool.answerable |= answerable;
        if pool.blocks.len() >= BLOCKS_EACH {
            return false;
        }
        self.blocks += 1;
        pool.blocks.push_back(block);
        pool.answerable
    }

    /// Takes a block that came with `message`, the newest: it lives longest. `usable` says whether an epoch still is.
    pub(crate) fn take(&mut self, message: &MessageId, usable: impl Fn(u64) -> bool) -> Option<Block> {
        let pool = self.pools.get_mut(message)?;
        let at = pool.blocks.iter().rposition(|block| usable(block.epoch))?;
        self.blocks -= 1;
        pool.blocks.remove(at)
    }

    /// How many blocks are left to answer a message.
    pub(crate) fn len(&self, message: &MessageId, usable: impl Fn(u64) -> bool) -> usize {
        self.pools.get(message).map_or(0, |pool| pool.blocks.iter().filter(|b| usable(b.epoch)).count())
    }

    /// Whether the application may answer a message.
    pub(crate) fn is_answerable(&self, message: &MessageId) -> bool {
        self.pools.get(message).is_some_and(|pool| pool.answerable)
    }

    /// More blocks are about to be asked for. `false` if they were not long ago.
    pub(crate) fn request(&mut self, now: Time, message: &MessageId, patience: Duration) -> bool {
        let Some(pool) = self.pools.get_mut(message) else { return false };
        if pool.requested.is_some_and(|at| now - at < patience) {
            return false;
        }
        pool.requested = Some(now);
        true
    }

    /// Blocks of the message that is oldest, if there are too many; those that are in the store have to go there too.
    pub(crate) fn evict(&mut self) -> Option<MessageId> {
        if self.blocks <= BLOCKS_ALL && self.pools.len() <= BLOCKS_ALL / 4 {
            return None;
        }
        let message = self.order.pop_front()?;
        let pool = self.pools.remove(&message)?;
        self.blocks -= pool.blocks.len();
        Some(message)
    }

    /// Forgets blocks of epochs before `oldest`; gives those that are in the store.
    pub(crate) fn expire(&mut self, oldest: u64) -> Vec<(MessageId, u64)> {
        let mut gone = Vec::new();
        for (message, pool) in &mut self.pools {
            pool.blocks.retain(|block| {
                let lives = block.epoch >= oldest;
                if !lives {
                    self.blocks -= 1;
                    if pool.answerable {
                        gone.push((*message, block.number));
                    }
                }
                lives
            });
        }
        self.pools.retain(|_, pool| !pool.blocks.is_empty());
        self.order.retain(|message| self.pools.contains_key(message));
        gone
    }
}

impl core::fmt::Debug for Pools {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Pools({} blocks of {} messages)", self.blocks, self.pools.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MessageId = MessageId([1; 16]);
    const B: MessageId = MessageId([2; 16]);

    #[test]
    fn the_newest_usable_block_is_taken_and_old_ones_expire() {
        let mut pools = Pools::default();
        for epoch in [1, 2, 2, 3] {
            assert_eq!(pools.add(A, false, epoch, &[epoch as u8; SURB_LEN]), None, "not to be kept");
        }
        assert!(!pools.is_answerable(&A));
        assert_eq!(pools.take(&A, |epoch| epoch < 3).map(|b| b.epoch), Some(2));
        assert_eq!(pools.len(&A, |_| true), 3);
        let number = pools.add(A, true, 3, &[9; SURB_LEN]);
        assert!(number.is_some() && pools.is_answerable(&A));
        assert_eq!(pools.expire(3).len(), 2);
        assert_eq!(pools.len(&A, |_| true), 2);
        assert!(pools.take(&B, |_| true).is_none());
    }

    #[test]
    fn a_flood_of_blocks_stays_within_the_bounds() {
        let mut pools = Pools::default();
        for n in 0..20_000u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            for _ in 0..5 {
                pools.add(MessageId(id), false, 1, &[0; SURB_LEN]);
            }
            while pools.evict().is_some() {}
        }
        assert!(pools.blocks <= BLOCKS_ALL && pools.pools.len() <= BLOCKS_ALL / 4);
        for _ in 0..1000 {
            pools.add(A, false, 1, &[0; SURB_LEN]);
        }
        assert_eq!(pools.len(&A, |_| true), BLOCKS_EACH);
    }

    fn conversations(count: u8) -> Conversations {
        let key = tombola_sphinx::SecretKey::from_bytes([1; 32]).public_key();
        let address = tombola_topology::ClientAddress {
            sphinx_key: tombola_topology::SphinxKey::from_bytes(key.to_bytes()),
            gateway: tombola_topology::IdentityKey::of_seed(&[2; 32]),
            mailbox: tombola_topology::MailboxId::from_bytes([3; 28]),
        };
        let with = Recipient::new(&address).unwrap();
        let mut all = Conversations::default();
        for n in 0..count {
            let talk = Conversation::new(Time::ZERO, with.clone(), 1, Duration::from_secs(10));
            all.insert(MessageId([n; 16]), talk);
        }
        all
    }

    #[test]
    fn looks_that_come_early_come_one_by_one_and_not_for_ever() {
        let (mut all, mut rng) = (conversations(50), Rng::from_seed([1; 32]));
        let (round_trip, mut now) = (Duration::from_secs(10), Time::ZERO);
        for looked in 1..=TOP_UPS {
            now += Duration::from_secs(1);
            all.look_soon(now, round_trip, &mut rng);
            let times: BTreeSet<_> = all.looks.iter().map(|(at, _)| *at).collect();
            let early = times.first().is_some_and(|first| *first < now + round_trip);
            assert_eq!(early, looked <= HURRIED, "look {looked}");
            if early {
                // A few are planned for an earlier time, which all of them have in common.
                assert!(times.len() > 40 && *times.last().unwrap() - *times.first().unwrap() > round_trip);
            }
            now = *times.last().unwrap();
            while all.poll_look(now, round_trip, |_| false).is_some() {}
        }
        assert_eq!(all.poll_timeout(), None);

        // What fell due while nobody was there.
        let mut all = conversations(50);
        all.spread_overdue(now, round_trip, &mut rng);
        let times: BTreeSet<_> = all.looks.iter().map(|(at, _)| *at).collect();
        assert!(times.len() == 50 && *times.first().unwrap() > now);
    }

    #[test]
    fn what_was_answered_is_not_looked_at_any_more_if_no_more_is_allowed() {
        let mut all = conversations(2);
        all.answered(&A);
        assert_eq!(all.looks.len(), 2, "one more answer is allowed");
        all.get_mut(&A).unwrap().left = 0;
        all.answered(&A);
        assert_eq!(all.looks.len(), 1);
        all.answered(&B);
        assert_eq!(all.looks.len(), 1);
    }

    #[test]
    fn numbers_go_on_after_a_restart() {
        let mut pools = Pools::default();
        pools.restore(A, 7, 1, &[0; SURB_LEN]);
        pools.restore(A, 3, 1, &[0; SURB_LEN]);
        assert_eq!(pools.add(A, true, 1, &[0; SURB_LEN]), Some(8));
    }
}
