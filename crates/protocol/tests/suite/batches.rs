//! Packets that are built together.

use tombola_mixing::Rng;
use tombola_protocol::packet::{End, FirstLink, PacketBuilder, Wanted};
use tombola_sphinx::SecretKey;
use tombola_topology::{MailboxId, NodeIndex};

use crate::common::Setup;

#[test]
fn packets_that_are_built_together_are_the_same_as_one_by_one() {
    let view = Setup::new(140).world().view;
    let mut rng = Rng::from_seed([1; 32]);
    let client = SecretKey::from_bytes([2; 32]).public_key();
    for (count, link) in [(1, FirstLink::FromClient), (8, FirstLink::FromNode), (19, FirstLink::FromClient)] {
        let routes: Vec<_> = (0..count)
            .map(|n: u8| {
                let gateway = view.draw_gateway(&mut rng);
                let end = match n % 3 {
                    0 => End::Node(gateway),
                    1 => End::Node(NodeIndex(0)),
                    _ => End::Client { gateway, mailbox: MailboxId::from_bytes([n; 28]), key: client },
                };
                // Of all lengths.
                let mixes: Vec<_> = view.draw_route(&mut rng).iter().copied().skip(n as usize % 4).collect();
                (mixes, end, [n; 16], vec![n; usize::from(n) * 100])
            })
            .collect();
        let wanted: Vec<_> = routes
            .iter()
            .map(|(mixes, end, identifier, plaintext)| Wanted {
                view: &view,
                mixes,
                end,
                identifier: *identifier,
                plaintext,
            })
            .collect();
        let mut together = PacketBuilder::new(Rng::from_seed([count; 32]));
        let mut alone = PacketBuilder::new(Rng::from_seed([count; 32]));
        let built = together.build_batch(link, &wanted);
        assert_eq!(built.len(), wanted.len());
        for (prepared, one) in built.iter().zip(&wanted) {
            let same = alone.build(one.view, link, one.mixes, one.end, one.identifier, one.plaintext);
            assert_eq!(prepared.frame, same.frame);
            assert_eq!((prepared.first, prepared.delays), (same.first, same.delays));
        }
        assert_eq!(together.rng().next_u64(), alone.rng().next_u64(), "as much was drawn");
    }
}
