//! Nothing that a neighbour says makes a machine panic, grow, or lose count.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use common::Link;
use proptest::prelude::*;
use tombola_tickets::{
    Ack, AckList, BatchHeader, Commitment, ListHash, MOST_UNSIGNED, PacketAck, PacketId, Root, Salt,
    Settlement, TicketCount, WindowNumber, merkle,
};

#[derive(Clone, Debug)]
enum Says {
    Acks { from: u64, count: u8, list: u64, honest: bool },
    Commitment(u32),
    End(u32),
    Received(u32, u16),
    Resumed(u64, bool),
    Batch { window: u32, number: u8, count: u8, right: bool },
    Closed(u32, u16),
    Resume { session: u64, intact: bool, count: u64, honest: bool },
    Claimed(u32),
    Settled(u32, u32),
    Work(u8),
    Wait(u16),
    Reconnect,
}

fn says() -> impl Strategy<Value = Says> {
    prop_oneof![
        (0_u64..40, any::<u8>(), 0_u64..40, any::<bool>())
            .prop_map(|(from, count, list, honest)| Says::Acks { from, count, list, honest }),
        (0_u32..5).prop_map(Says::Commitment),
        (0_u32..5).prop_map(Says::End),
        (0_u32..5, any::<u16>()).prop_map(|(window, next)| Says::Received(window, next)),
        (0_u64..5, any::<bool>()).prop_map(|(session, void)| Says::Resumed(session, void)),
        (0_u32..5, 0_u8..4, any::<u8>(), any::<bool>())
            .prop_map(|(window, number, count, right)| Says::Batch { window, number, count, right }),
        (0_u32..5, any::<u16>()).prop_map(|(window, batches)| Says::Closed(window, batches)),
        (0_u64..5, any::<bool>(), prop_oneof![0_u64..40, any::<u64>()], any::<bool>())
            .prop_map(|(session, intact, count, honest)| Says::Resume { session, intact, count, honest }),
        (0_u32..5).prop_map(Says::Claimed),
        (0_u32..5, any::<u32>()).prop_map(|(window, paid)| Says::Settled(window, paid)),
        any::<u8>().prop_map(Says::Work),
        (0_u16..100).prop_map(Says::Wait),
        Just(Says::Reconnect),
    ]
}

fn hear(link: &mut Link, says: &Says) {
    let now = link.now();
    match *says {
        Says::Acks { from, count, list, honest } => {
            let packet = |counter| PacketId { session: link.session, counter };
            let ack = |counter| PacketAck { packet: packet(counter), ack: Ack::from_bytes([1; 16]) };
            let acks: Vec<_> = (from..from + u64::from(count)).map(ack).collect();
            let list = if honest {
                link.recipient.list()
            } else {
                AckList::restore(list, ListHash::from_bytes([1; 32]))
            };
            let _ = link.issuer.acknowledged(now, &acks, &list);
        }
        Says::Commitment(window) => {
            let commitment = Commitment::from_bytes([1; 32]);
            let _ = link.issuer.commitment(WindowNumber(window), commitment, &mut link.payer.books);
        }
        Says::End(window) => link.issuer.end(WindowNumber(window), &link.payer.books),
        Says::Received(window, next) => {
            let _ = link.issuer.received(WindowNumber(window), next, &mut link.payer.books);
        }
        Says::Resumed(session, void) => link.issuer.resumed(now, session, void, &mut link.payer.books),
        Says::Batch { window, number, count, right } => {
            let leaves = link.issuer.unsigned();
            let header = BatchHeader {
                issuer: common::issuer(),
                recipient: common::RECIPIENT,
                class: common::CLASS,
                window: WindowNumber(window),
                number,
                count: TicketCount::from_less_one(count),
                commitment: Commitment::from_bytes([1; 32]),
                root: merkle::root(leaves).unwrap_or(Root::from_bytes([1; 20])),
                salt: Salt::from_bytes([number; 16]),
            };
            let mut batch = header.sign(&common::domain(), &link.key);
            if let Some(last) = link.batches.last().filter(|_| right) {
                batch = *last;
            }
            let _ = link.recipient.batch(now, &batch, &mut link.payee.books);
        }
        Says::Closed(window, batches) => link.recipient.closed(WindowNumber(window), batches),
        Says::Resume { session, intact, count, honest } => {
            let list = if honest {
                link.recipient.list()
            } else {
                AckList::restore(count, ListHash::from_bytes([0; 32]))
            };
            link.recipient.resume(now, session, intact, &list, None, &mut link.payee.books);
        }
        Says::Claimed(window) => link.issuer.claimed(WindowNumber(window), 1000, &mut link.payer.books),
        Says::Settled(window, paid) => {
            let settlement = Settlement { paid };
            link.recipient.settled(WindowNumber(window), settlement, &mut link.payee.books);
        }
        Says::Work(packets) => {
            (0..packets).for_each(|_| {
                let _ = link.send();
            });
            link.open(usize::from(packets / 2));
            link.acks(usize::from(packets / 3));
            link.pump();
        }
        Says::Wait(seconds) => link.wait(seconds.into()),
        Says::Reconnect => link.connect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_that_a_neighbour_says_makes_a_machine_panic_or_lose_count(
        seed: u8,
        all in prop::collection::vec(says(), 1..60),
    ) {
        let mut link = Link::new(seed);
        for says in &all {
            hear(&mut link, says);
            prop_assert!(link.is_conserved(), "{says:?}");
            prop_assert!(link.recipient.unsigned() <= MOST_UNSIGNED && link.issuer.unsigned().len() <= MOST_UNSIGNED);
            // Whoever waits until a machine's next time does not wait for what cannot be done then.
            link.tick();
            let now = link.time;
            prop_assert!(link.issuer.poll_timeout().is_none_or(|at| at > now), "issuer, {says:?}");
            prop_assert!(link.recipient.poll_timeout().is_none_or(|at| at > now), "{says:?}");
        }
        link.connect();
        link.wait(86_400);
        link.pump();
        prop_assert!(link.is_conserved());
        // What is claimed is right whatever was said, as long as it is claimed in time.
        link.unix = common::price().expiry;
        link.verify_claims();
    }
}
