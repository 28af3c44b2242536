//! Which blocks are read when, and what of them is final: free of the network, so that reorganisations are tested without a
//! chain.
//!
//! A cycle begins with the head. The cursor's last place must still be on the chain, else the chain has changed and reading
//! goes on from the newest place that is. Then the final blocks beyond the cursor are read in ranges: the range's last block, its
//! events, its last block again, and the cursor's. Only if neither changed meanwhile do the events count: they are those
//! of one chain.

use std::collections::BTreeMap;

use alloy_primitives::Address;
use tombola_tickets::WindowNumber;

use super::cursor::{Cursor, Place};
use super::{Claimed, Fact, Settled, Spent};
use crate::ledger::{Block, Event, Logged};

/// Claims that are remembered to be taken back, at most.
const MOST_REMEMBERED: usize = 16_384;

/// How blocks are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// So many blocks must follow one before it counts as final.
    pub confirmations: u64,
    /// Blocks that are read at once, at most.
    pub range: u64,
    /// Where reading begins without a cursor: the block in which the escrow was deployed, or an earlier one.
    pub start: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { confirmations: 12, range: 2000, start: 0 }
    }
}

/// What the core needs to know next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The block of this number: [`Core::block`].
    Block(u64),
    /// The events of these blocks, both included: [`Core::events`].
    Events {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Nothing until there is a new head.
    Idle,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    /// Is this place still on the chain?
    Verify(Place),
    /// The last block of a range, before its events.
    Before {
        from: u64,
        to: u64,
    },
    Events {
        from: u64,
        to: Place,
    },
    /// The last block of the range, again.
    After {
        to: Place,
        events: Vec<Logged>,
    },
    /// The cursor's last place, again.
    Still {
        to: Place,
        events: Vec<Logged>,
    },
}

type Key = (Address, Address, WindowNumber);

/// See the module.
#[derive(Clone, Debug)]
pub struct Core {
    own: Address,
    pace: Pace,
    /// Halved when the server refuses, and grown again.
    range: u64,
    cursor: Cursor,
    head: u64,
    state: State,
    /// In this cycle a place was found to be another block.
    replaced: bool,
    /// What was reported, with its block: to be taken back if the block goes.
    reported: BTreeMap<Key, (u64, Vec<Fact>)>,
    facts: Vec<Fact>,
    /// Something happened by which deposits, reserves, stakes or keys have changed.
    changed: bool,
    signers: Vec<(Address, Address)>,
}

impl Core {
    /// Goes on from a cursor.
    #[must_use]
    pub fn new(own: Address, pace: Pace, cursor: Cursor) -> Self {
        let pace = Pace { range: pace.range.max(1), ..pace };
        Self {
            own,
            pace,
            range: pace.range,
            cursor,
            head: 0,
            state: State::Idle,
            replaced: false,
            reported: BTreeMap::new(),
            facts: Vec::new(),
            changed: true,
            signers: Vec::new(),
        }
    }

    /// How far the chain was read.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// What became final since this was asked last.
    pub fn take_facts(&mut self) -> Vec<Fact> {
        core::mem::take(&mut self.facts)
    }

    /// Whether state has to be read again since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// Keys of issuers of which something became final since this was asked last.
    pub fn take_signers(&mut self) -> Vec<(Address, Address)> {
        core::mem::take(&mut self.signers)
    }

    /// Begins a cycle. What an interrupted one has read is read again.
    pub fn head(&mut self, head: Block) {
        self.head = head.number;
        self.replaced = false;
        self.state = match self.cursor.last() {
            None => self.next_range(),
            // A server that lags behind shows an older head; only another block in the place of ours is a reorganisation.
            Some(_) => self.cursor.newest_until(head.number).map_or(State::Idle, State::Verify),
        };
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Step {
        match &self.state {
            State::Idle => Step::Idle,
            State::Verify(place) | State::After { to: place, .. } => Step::Block(place.number),
            State::Before { to, .. } => Step::Block(*to),
            State::Events { from, to } => Step::Events { from: *from, to: to.number },
            State::Still { to, .. } => Step::Block(self.cursor.last().map_or(to.number, |last| last.number)),
        }
    }

    /// The block that [`Self::next`] asked for, or that there is none.
    pub fn block(&mut self, found: Option<Block>) {
        let state = core::mem::replace(&mut self.state, State::Idle);
        self.state = match state {
            State::Verify(place) => self.verified(place, found),
            State::Before { from, to } => match found {
                Some(block) if block.number == to => State::Events { from, to: block.into() },
                _ => State::Idle,
            },
            State::After { to, events } if found.map(Place::from) == Some(to) => {
                if self.cursor.last().is_some() { State::Still { to, events } } else { self.read(to, events) }
            }
            State::Still { to, events } if found.map(Place::from) == self.cursor.last() => {
                self.read(to, events)
            }
            // The chain has changed while it was read: the next cycle looks where.
            State::After { .. } | State::Still { .. } | State::Idle | State::Events { .. } => State::Idle,
        };
    }

    fn verified(&mut self, place: Place, found: Option<Block>) -> State {
        match found {
            // Not there yet again, at a server that lags behind.
            None => State::Idle,
            Some(block) if Place::from(block) == place => {
                if Some(place) == self.cursor.last() {
                    return self.next_range();
                }
                if self.replaced {
                    self.rewind(Some(place.number));
                    return self.next_range();
                }
                State::Idle
            }
            Some(_) => {
                self.replaced = true;
                match place.number.checked_sub(1).and_then(|before| self.cursor.newest_until(before)) {
                    Some(earlier) => State::Verify(earlier),
                    None => {
                        self.rewind(None);
                        self.next_range()
                    }
                }
            }
        }
    }

    /// What was final is gone: reading goes on after `number`, and what was reported of later blocks is taken back.
    fn rewind(&mut self, number: Option<u64>) {
        self.replaced = false;
        let from = self.cursor.last().map_or(0, |last| last.number);
        let to = number.unwrap_or(self.pace.start);
        match number {
            Some(number) => self.cursor.rewind(number),
            None => self.cursor = Cursor::default(),
        }
        self.facts.push(Fact::Reorganised { from, to });
        let gone = |block: u64| number.is_none_or(|number| block > number);
        let withdrawn: Vec<Key> =
            self.reported.iter().filter(|(_, (block, _))| gone(*block)).map(|(key, _)| *key).collect();
        for key in withdrawn {
            let facts = self.reported.remove(&key).map(|(_, facts)| facts).unwrap_or_default();
            self.facts.extend(facts.into_iter().map(|fact| Fact::Withdrawn(Box::new(fact))));
        }
        self.changed = true;
    }

    /// The final blocks that come next.
    fn next_range(&self) -> State {
        let from = self.cursor.last().map_or(self.pace.start, |last| last.number + 1);
        match self.head.checked_sub(self.pace.confirmations) {
            Some(last) if last >= from => State::Before { from, to: last.min(from + (self.range - 1)) },
            _ => State::Idle,
        }
    }

    /// The events that [`Self::next`] asked for.
    pub fn events(&mut self, events: Vec<Logged>) {
        if let State::Events { to, .. } = self.state {
            self.state = State::After { to, events };
        }
    }

    /// The server does not answer so long a range. False if it cannot be shorter.
    pub fn too_much(&mut self) -> bool {
        let State::Events { from, to } = &self.state else { return true };
        let (from, length) = (*from, to.number - *from + 1);
        if length == 1 {
            self.state = State::Idle;
            return false;
        }
        self.range = length / 2;
        self.state = State::Before { from, to: from + (self.range - 1) };
        true
    }

    /// A range was read, on one chain.
    fn read(&mut self, to: Place, mut events: Vec<Logged>) -> State {
        events.sort_by_key(|logged| (logged.block, logged.index));
        self.changed |= !events.is_empty();
        let mut short = BTreeMap::new();
        for Logged { block, event, .. } in events {
            match event {
                Event::Shortfall { issuer, recipient, window, from_reserve, from_stake } => {
                    short.insert((issuer, recipient, window), (from_reserve, from_stake));
                }
                Event::Redeemed { issuer, recipient, window, paid } => {
                    let key = (issuer, recipient, window);
                    let (reserve, stake) = short.remove(&key).unwrap_or_default();
                    let deposit = paid.saturating_sub(reserve).saturating_sub(stake);
                    self.redeemed(key, block, Spent { deposit, reserve, stake });
                }
                Event::Signer { issuer, signer } => self.signers.push((issuer, signer)),
                Event::Other => {}
            }
        }
        self.cursor.advance(to);
        // After a refusal the range grows again, slowly.
        self.range = (self.range + self.range.div_ceil(8)).min(self.pace.range);
        self.next_range()
    }

    fn redeemed(&mut self, key: Key, block: u64, spent: Spent) {
        let (issuer, recipient, window) = key;
        let mut facts = Vec::new();
        if issuer == self.own {
            facts.push(Fact::Claimed(Claimed { recipient, window, spent }));
        }
        if recipient == self.own {
            facts.push(Fact::Settled(Settled { issuer, window, amount: spent.total() }));
        }
        // A window is claimed once on a chain.
        if self.reported.get(&key).is_some_and(|(_, known)| *known == facts) {
            return;
        }
        self.facts.extend(facts.iter().cloned());
        self.reported.insert(key, (block, facts));
        if self.reported.len() > MOST_REMEMBERED {
            let oldest = self.reported.iter().min_by_key(|(_, (block, _))| *block).map(|(key, _)| *key);
            oldest.map(|key| self.reported.remove(&key));
        }
    }
}
