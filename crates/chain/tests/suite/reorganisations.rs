//! The watcher's core on a chain that changes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tombola_chain::Event;
use tombola_chain::watcher::{Claimed, Core, Cursor, Fact, Pace, Settled, Spent, Step};
use tombola_tickets::WindowNumber;

use crate::fake::{FakeChain, OWN, PEER, answer, cycle, paid};

const PACE: Pace = Pace { confirmations: 3, range: 4, start: 0 };

fn core() -> Core {
    Core::new(OWN, PACE, Cursor::default())
}

fn settled(window: u32) -> Fact {
    Fact::Settled(Settled { issuer: PEER, window: WindowNumber(window), amount: 10 })
}

#[test]
fn an_event_is_reported_when_enough_blocks_have_followed_and_not_before() {
    let (mut core, mut chain) = (core(), FakeChain::new());
    chain.grow(&[paid(1)]);
    for _ in 0..3 {
        cycle(&mut core, &chain);
        assert_eq!(core.take_facts(), []);
        chain.grow(&[]);
    }
    cycle(&mut core, &chain);
    assert_eq!(core.take_facts(), [settled(1)]);
    cycle(&mut core, &chain);
    assert_eq!(core.take_facts(), []);
}

#[test]
fn reorganisations_that_are_not_deeper_than_is_waited_for_are_not_noticed() {
    for depth in 1..=3 {
        let (mut core, mut chain) = (core(), FakeChain::new());
        chain.grow(&[paid(1)]);
        chain.grow_by(5);
        chain.grow(&[paid(2)]);
        chain.grow_by(depth - 1);
        cycle(&mut core, &chain);
        assert_eq!(core.take_facts(), [settled(1)]);
        chain.fork(depth);
        chain.grow(&[paid(3)]);
        chain.grow_by(8);
        cycle(&mut core, &chain);
        assert_eq!(core.take_facts(), [settled(3)], "window 2 was never paid on this chain");
    }
}

#[test]
fn what_was_final_and_is_gone_is_told_and_taken_back() {
    let (mut core, mut chain) = (core(), FakeChain::new());
    chain.grow_by(5);
    chain.grow(&[paid(1)]);
    chain.grow(&[paid(2)]);
    chain.grow_by(3);
    cycle(&mut core, &chain);
    assert_eq!(core.take_facts(), [settled(1), settled(2)]);
    chain.fork(4);
    chain.grow_by(1);
    chain.grow(&[paid(2)]);
    chain.grow_by(6);
    cycle(&mut core, &chain);
    // Places are remembered at ends of ranges: window 1 is still paid, and is read again with what changed.
    let withdrawn = |window| Fact::Withdrawn(Box::new(settled(window)));
    let told = [Fact::Reorganised { from: 7, to: 3 }, withdrawn(1), withdrawn(2), settled(1), settled(2)];
    assert_eq!(core.take_facts(), told);
}

#[test]
fn a_server_that_lags_behind_is_no_reorganisation() {
    let (mut core, mut chain) = (core(), FakeChain::new());
    chain.grow(&[paid(1)]);
    chain.grow_by(20);
    let old = {
        let mut old = chain.clone();
        old.blocks.truncate(8);
        old
    };
    cycle(&mut core, &chain);
    assert_eq!(core.take_facts(), [settled(1)]);
    let cursor = core.cursor().clone();
    cycle(&mut core, &old);
    assert_eq!((core.take_facts(), core.cursor()), (vec![], &cursor));
    cycle(&mut core, &chain);
    assert_eq!(core.take_facts(), []);
}

#[test]
fn another_chain_altogether_is_read_from_its_beginning() {
    let (mut core, mut chain) = (core(), FakeChain::new());
    chain.grow_by(20);
    cycle(&mut core, &chain);
    chain.fork(1000);
    chain.blocks[0].0.hash = alloy_primitives::B256::repeat_byte(9);
    chain.grow(&[paid(5)]);
    chain.grow_by(5);
    cycle(&mut core, &chain);
    assert_eq!(core.take_facts(), [Fact::Reorganised { from: 17, to: 0 }, settled(5)]);
}

#[test]
fn a_chain_that_changes_while_it_is_read_is_not_mixed_with_the_old_one() {
    // Whenever it changes within a cycle, only what is on one of both chains is reported, and in the end what is on the new one.
    for moment in 0..12 {
        let (mut core, mut chain) = (core(), FakeChain::new());
        chain.grow_by(2);
        cycle(&mut core, &chain);
        chain.grow(&[paid(1)]);
        chain.grow_by(9);
        core.head(chain.head());
        for _ in 0..moment {
            answer(&mut core, &chain);
        }
        chain.fork(10);
        chain.grow(&[paid(2)]);
        chain.grow_by(12);
        while answer(&mut core, &chain) {}
        cycle(&mut core, &chain);
        cycle(&mut core, &chain);
        let facts = core.take_facts();
        assert_eq!(balance(&facts), BTreeMap::from([(2, 1)]), "after {moment} steps: {facts:?}");
    }
}

#[test]
fn ranges_are_halved_until_the_server_answers_and_grow_again() {
    let mut core = Core::new(OWN, Pace { confirmations: 0, range: 64, start: 0 }, Cursor::default());
    let mut chain = FakeChain::new();
    (0..300).for_each(|window| chain.grow(&[paid(window)]));
    core.head(chain.head());
    let mut refused = 0;
    loop {
        match core.next() {
            Step::Events { from, to } if to - from >= 10 => {
                refused += 1;
                assert!(core.too_much());
            }
            _ if answer(&mut core, &chain) => {}
            _ => break,
        }
    }
    assert!(refused > 3);
    assert_eq!(balance(&core.take_facts()).len(), 300);
    // A range of one block that is refused is nobody's to halve.
    chain.grow(&[]);
    core.head(chain.head());
    while !matches!(core.next(), Step::Events { .. }) {
        answer(&mut core, &chain);
    }
    assert!(!core.too_much());
    assert_eq!(core.next(), Step::Idle);
}

#[test]
fn days_behind_are_read_in_bounded_ranges_from_the_cursor() {
    let mut chain = FakeChain::new();
    chain.grow(&[paid(1)]);
    chain.grow_by(10);
    let mut core = core();
    cycle(&mut core, &chain);
    let kept = core.cursor().to_bytes();
    for window in 2..200 {
        chain.grow_by(30);
        chain.grow(&[paid(window)]);
    }
    chain.grow_by(3);
    let mut core = Core::new(OWN, PACE, Cursor::from_bytes(&kept).unwrap());
    core.head(chain.head());
    loop {
        if let Step::Events { from, to } = core.next() {
            assert!(from >= 8 && to - from < PACE.range, "{from} {to}");
        }
        if !answer(&mut core, &chain) {
            break;
        }
    }
    let facts = core.take_facts();
    assert_eq!(facts, (2..200).map(settled).collect::<Vec<_>>());
}

#[test]
fn what_was_paid_is_told_by_its_sources() {
    let (mut core, mut chain) = (core(), FakeChain::new());
    let window = WindowNumber(3);
    let (issuer, recipient) = (OWN, PEER);
    chain.grow(&[
        Event::Shortfall { issuer, recipient, window, from_reserve: 20, from_stake: 3 },
        Event::Redeemed { issuer, recipient, window, paid: 100 },
        Event::Redeemed { issuer, recipient, window: WindowNumber(4), paid: 50 },
        Event::Redeemed { issuer: PEER, recipient: PEER, window, paid: 50 },
    ]);
    chain.grow_by(3);
    cycle(&mut core, &chain);
    let claimed = |window, deposit, reserve, stake| {
        let spent = Spent { deposit, reserve, stake };
        Fact::Claimed(Claimed { recipient, window: WindowNumber(window), spent })
    };
    assert_eq!(core.take_facts(), [claimed(3, 77, 20, 3), claimed(4, 50, 0, 0)]);
    assert!(core.take_changed());
}

/// How often each window is reported and not taken back.
fn balance(facts: &[Fact]) -> BTreeMap<u32, i32> {
    let mut counts = BTreeMap::new();
    for fact in facts {
        let (fact, sign) = match fact {
            Fact::Withdrawn(fact) => (&**fact, -1),
            fact => (fact, 1),
        };
        if let Fact::Settled(settled) = fact {
            *counts.entry(settled.window.0).or_insert(0) += sign;
        }
    }
    counts.retain(|_, count| *count != 0);
    counts
}

#[derive(Clone, Debug)]
enum Move {
    Grow {
        blocks: usize,
        event: bool,
    },
    Fork {
        depth: usize,
        again: bool,
    },
    Cycle,
    /// A cycle that an outage ends.
    Part(usize),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0..6_usize, any::<bool>()).prop_map(|(blocks, event)| Move::Grow { blocks, event }),
        2 => (1..12_usize, any::<bool>()).prop_map(|(depth, again)| Move::Fork { depth, again }),
        3 => Just(Move::Cycle),
        1 => (0..10_usize).prop_map(Move::Part),
    ]
}

proptest! {
    #[test]
    fn whatever_the_order_of_reorganisations_each_final_event_counts_once(
        moves in prop::collection::vec(moves(), 1..60),
    ) {
        let (mut core, mut chain) = (core(), FakeChain::new());
        let (mut facts, mut next) = (Vec::new(), 0);
        for step in moves {
            match step {
                Move::Grow { blocks, event } => {
                    chain.grow_by(blocks);
                    if event {
                        next += 1;
                        chain.grow(&[paid(next)]);
                    }
                }
                Move::Fork { depth, again } => {
                    let gone = chain.fork(depth);
                    // What was paid may be paid again on the other chain, or not.
                    chain.grow(if again { &gone } else { &[] });
                }
                Move::Cycle => cycle(&mut core, &chain),
                Move::Part(steps) => {
                    core.head(chain.head());
                    (0..steps).for_each(|_| { answer(&mut core, &chain); });
                }
            }
            facts.extend(core.take_facts());
            prop_assert!(balance(&facts).values().all(|count| *count == 1), "{facts:?}");
        }
        chain.grow_by(20);
        (0..3).for_each(|_| cycle(&mut core, &chain));
        facts.extend(core.take_facts());
        let on_chain = chain.events(0, u64::MAX).into_iter().map(|logged| match logged.event {
            Event::Redeemed { window, .. } => (window.0, 1),
            _ => unreachable!(),
        });
        prop_assert_eq!(balance(&facts), on_chain.collect::<BTreeMap<_, _>>());
    }
}
