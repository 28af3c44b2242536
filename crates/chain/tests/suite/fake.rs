//! A chain of numbers and events that changes at will.

use alloy_primitives::{Address, B256, keccak256};
use tombola_chain::watcher::{Core, Step};
use tombola_chain::{Block, Event, Logged};
use tombola_tickets::{UnixSeconds, WindowNumber};

pub(crate) const OWN: Address = Address::repeat_byte(1);
pub(crate) const PEER: Address = Address::repeat_byte(2);

#[derive(Clone, Default)]
pub(crate) struct FakeChain {
    pub(crate) blocks: Vec<(Block, Vec<Event>)>,
    forks: u64,
}

/// A window of `PEER` that pays us.
pub(crate) fn paid(window: u32) -> Event {
    Event::Redeemed { issuer: PEER, recipient: OWN, window: WindowNumber(window), paid: 10 }
}

impl FakeChain {
    pub(crate) fn new() -> Self {
        let mut chain = Self::default();
        chain.grow(&[]);
        chain
    }

    pub(crate) fn grow(&mut self, events: &[Event]) {
        let number = self.blocks.len() as u64;
        let parent = self.blocks.last().map_or(B256::ZERO, |(block, _)| block.hash);
        let hash = keccak256([&parent[..], &number.to_be_bytes(), &self.forks.to_be_bytes()].concat());
        let time = UnixSeconds(u32::try_from(number).unwrap() * 12);
        self.blocks.push((Block { number, hash, parent, time }, events.to_vec()));
    }

    pub(crate) fn grow_by(&mut self, blocks: usize) {
        (0..blocks).for_each(|_| self.grow(&[]));
    }

    /// Takes back blocks; those that come next are others. What had happened in them.
    pub(crate) fn fork(&mut self, depth: usize) -> Vec<Event> {
        let depth = depth.min(self.blocks.len() - 1);
        self.forks += 1;
        self.blocks.split_off(self.blocks.len() - depth).into_iter().flat_map(|(_, events)| events).collect()
    }

    pub(crate) fn head(&self) -> Block {
        self.blocks.last().unwrap().0
    }

    pub(crate) fn block(&self, number: u64) -> Option<Block> {
        self.blocks.get(usize::try_from(number).unwrap()).map(|(block, _)| *block)
    }

    pub(crate) fn events(&self, from: u64, to: u64) -> Vec<Logged> {
        let blocks = self.blocks.iter().filter(|(block, _)| (from..=to).contains(&block.number));
        blocks
            .flat_map(|(block, events)| {
                let logged = |(index, event): (usize, &Event)| Logged {
                    block: block.number,
                    index: index as u64,
                    event: *event,
                };
                events.iter().enumerate().map(logged).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Answers one step. False if there is none.
pub(crate) fn answer(core: &mut Core, chain: &FakeChain) -> bool {
    match core.next() {
        Step::Idle => return false,
        Step::Block(number) => core.block(chain.block(number)),
        Step::Events { from, to } => core.events(chain.events(from, to)),
    }
    true
}

/// A whole cycle.
pub(crate) fn cycle(core: &mut Core, chain: &FakeChain) {
    core.head(chain.head());
    while answer(core, chain) {}
}
