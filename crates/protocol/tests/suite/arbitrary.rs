//! Nothing that a peer sends makes a state machine panic, and every frame is accounted for.

use core::time::Duration;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tombola_mixing::Time;
use tombola_protocol::drops::DropCounters;
use tombola_protocol::durable::TagPlace;
use tombola_protocol::frame::Frame;
use tombola_protocol::gateway::{GatewayInput, GatewayOutput};
use tombola_protocol::opener::{Inbound, Occupancy, Opened, Order};
use tombola_protocol::relay::{RelayInput, RelayOutput};
use tombola_sphinx::PLAINTEXT_MAX;
use tombola_topology::{IdentityKey, MailboxId};

use crate::common::{ByHand, Disk, Hop, Setup, any_ticket, at_layer_3, dropped};

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 48,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(150),
        ..ProptestConfig::default()
    }
}

/// Anything at the front, where the layout is; one of the kinds that exist, more often than not.
fn any_frame() -> impl Strategy<Value = Frame> {
    let kind = prop_oneof![4 => 1u8..8, 1 => any::<u8>()];
    let head = prop_oneof![3 => Just([0; 3]), 1 => any::<[u8; 3]>()];
    let rest = proptest::collection::vec(any::<u8>(), 0..500);
    (kind, head, rest, any::<u8>()).prop_map(|(kind, head, rest, fill)| {
        let mut frame = Frame::zeroed();
        let bytes = frame.as_bytes_mut();
        bytes[4..].fill(fill);
        bytes[0] = kind;
        bytes[1..4].copy_from_slice(&head);
        bytes[4..4 + rest.len()].copy_from_slice(&rest);
        frame
    })
}

fn sum(drops: &DropCounters) -> u64 {
    dropped(drops).iter().map(|(_, count)| count).sum()
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u32),
    Connected(u8),
    Disconnected(u8),
    Frame(u8, Frame),
    Opened(Order),
    Returned(u8, Frame),
    Expire,
}

fn any_order() -> impl Strategy<Value = Order> {
    prop_oneof![
        (0..10u8, any::<u64>(), any::<[u8; 20]>()).prop_map(|(next, delay_ns, challenge)| Order::Forward {
            next: IdentityKey::of_seed(&[next; 32]),
            delay_ns,
            challenge
        }),
        (0..4u8).prop_map(|client| Order::Store(MailboxId::of(&identity(client)))),
        any::<[u8; 28]>().prop_map(|id| Order::Store(MailboxId::from_bytes(id))),
        any::<[u8; 16]>().prop_map(|identifier| Order::End { identifier }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<u32>().prop_map(Event::Pass),
        (0..4u8).prop_map(Event::Connected),
        (0..4u8).prop_map(Event::Disconnected),
        (0..4u8, any_frame()).prop_map(|(client, frame)| Event::Frame(client, frame)),
        any_order().prop_map(Event::Opened),
        (0..4u8, any_frame()).prop_map(|(client, frame)| Event::Returned(client, frame)),
        Just(Event::Expire),
    ]
}

fn identity(client: u8) -> IdentityKey {
    IdentityKey::of_seed(&[client; 32])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_opener_accounts_for_every_frame(
        frames in proptest::collection::vec((prop_oneof![Just(4u32), any::<u32>()], any_frame()), 0..40),
        valid in 0..3usize,
    ) {
        let world = Setup::new(151).world();
        let (occupancy, drops) = (Occupancy::new(16), Arc::default());
        let opener = world.opener(6, &occupancy, &drops);
        let mut by_hand = ByHand::new(&world.view, 151);
        let mut batch: Vec<_> = frames
            .into_iter()
            .map(|(from, frame)| Inbound { arrived: Time::ZERO, from: world.identity(from), frame })
            .collect();
        for _ in 0..valid {
            let frame = at_layer_3(&mut by_hand, &world.view, 6, 0, 1);
            batch.insert(batch.len() / 2, Inbound { arrived: Time::ZERO, from: world.identity(4), frame });
        }
        let count = batch.len();
        let (mut opened, mut spare) = (vec![], vec![]);
        opener.open_batch(&mut batch, &mut opened, &mut spare);
        prop_assert!(batch.is_empty());
        prop_assert_eq!(opened.len() + spare.len(), count);
        prop_assert_eq!(sum(&drops), spare.len() as u64);
        prop_assert_eq!(occupancy.taken(), opened.len());
        prop_assert!(opened.len() <= valid, "only what was built for this key");
    }

    #[test]
    fn a_relay_survives_its_gateways_and_whatever_is_opened(
        events in proptest::collection::vec(any_event(), 0..60),
    ) {
        let mut setup = Setup::new(152);
        setup.accounts = 2;
        let mut world = setup.world();
        let (occupancy, drops) = (Occupancy::new(8), Arc::default());
        let (_, mut relay) = world.relay(4, &occupancy, &drops);
        let mut now = Time::ZERO;
        for event in events {
            match event {
                Event::Pass(nanos) => now += Duration::from_nanos(nanos.into()),
                Event::Connected(account) => relay.handle(now, link(account, true)),
                Event::Disconnected(account) => relay.handle(now, link(account, false)),
                Event::Frame(account, frame) | Event::Returned(account, frame) => {
                    relay.handle(now, RelayInput::AccountFrame { account: account.into(), frame });
                }
                Event::Opened(order) if occupancy.take() => {
                    let (frame, tag, ticket) = (Frame::zeroed(), TagPlace::default(), any_ticket());
                    let from = identity(9);
                    let opened = Opened { arrived: now, from, frame, order, tag, ticket };
                    relay.handle(now, RelayInput::Opened(opened));
                }
                Event::Opened(_) => {}
                Event::Expire => {
                    relay.work(now);
                }
            }
            while let Some(output) = relay.poll_output(now) {
                if let RelayOutput::Account { account, .. } = output {
                    prop_assert!(account < 2);
                }
            }
            prop_assert!(relay.poll_timeout().is_none_or(|due| due > now));
            prop_assert_eq!(occupancy.taken(), relay.counts().pool, "places are held by what is in the pool");
        }
    }

    #[test]
    fn a_gateway_survives_clients_and_mail(events in proptest::collection::vec(any_event(), 0..120)) {
        let mut setup = Setup::new(153);
        setup.parameters.clients_per_gateway = 2;
        setup.parameters.mailbox_packets = 4;
        let mut world = setup.world();
        let (occupancy, drops) = (Occupancy::new(8), Arc::default());
        let mut gateway = world.gateway(0, &occupancy, &drops);
        let mut now = Time::ZERO;
        let (mut connected, mut disk) = (std::collections::BTreeSet::new(), Disk::default());
        for event in events {
            match event {
                Event::Pass(nanos) => now += Duration::from_nanos(nanos.into()),
                Event::Connected(client) => {
                    connected.insert(identity(client));
                    gateway.handle(now, GatewayInput::ClientConnected(identity(client)));
                }
                Event::Disconnected(client) => {
                    connected.remove(&identity(client));
                    gateway.handle(now, GatewayInput::ClientDisconnected(identity(client)));
                }
                Event::Frame(client, frame) => {
                    gateway.handle(now, GatewayInput::ClientFrame(identity(client), frame));
                }
                Event::Returned(client, frame) => {
                    gateway.handle(now, GatewayInput::Undelivered(identity(client), frame));
                }
                Event::Opened(order) if occupancy.take() => {
                    let (frame, tag, ticket) = (Frame::zeroed(), TagPlace::default(), any_ticket());
                    let from = identity(9);
                    let opened = Opened { arrived: now, from, frame, order, tag, ticket };
                    gateway.handle(now, GatewayInput::Opened(opened));
                }
                Event::Opened(_) => {}
                Event::Expire => {
                    gateway.expire(now);
                    gateway.handle(now, GatewayInput::Durable(disk.commit(3)));
                    while let Some(fetch) = gateway.poll_fetch() {
                        let mails = disk.read(&fetch);
                        gateway.handle(now, GatewayInput::Fetched { mailbox: fetch.mailbox, mails });
                    }
                }
            }
            core::iter::from_fn(|| gateway.poll_store()).for_each(|op| disk.submit(op));
            while let Some(output) = gateway.poll_output(now) {
                match output {
                    GatewayOutput::Forward { to, .. } => {
                        prop_assert!([2, 3].map(|node| world.identity(node)).contains(&to));
                    }
                    GatewayOutput::Deliver { to, .. } => prop_assert!(connected.contains(&to)),
                    GatewayOutput::Claim(_)
                    | GatewayOutput::Watch { .. }
                    | GatewayOutput::Forget { .. }
                    | GatewayOutput::Settled(_) => prop_assert!(false, "nobody pays"),
                }
            }
            prop_assert!(gateway.poll_timeout().is_none_or(|due| due > now));
            prop_assert_eq!(occupancy.taken(), 0);
            prop_assert_eq!(gateway.counts().clients, connected.len());
            prop_assert!(gateway.counts().mail.mailboxes <= 2);
        }
    }

    #[test]
    fn a_client_survives_its_gateway_and_its_correspondents(
        frames in proptest::collection::vec(any_frame(), 0..20),
        plaintexts in proptest::collection::vec(
            (0..4u8, proptest::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..10),
        held: u64,
    ) {
        let mut world = Setup::new(154).world();
        let (_, mut client) = world.client(0);
        let mut by_hand = ByHand::new(&world.view, 154);
        let key = client.public_key();
        let count = frames.len() + plaintexts.len();
        for frame in frames {
            client.handle_frame(Time::ZERO, frame);
        }
        for (kind, mut plaintext, full) in plaintexts {
            plaintext.insert(0, kind);
            if full {
                plaintext.resize(PLAINTEXT_MAX, 0);
            }
            let mut frame = by_hand.packet(&[Hop::last(key)], &plaintext);
            frame.set_mail(by_hand.parity, Duration::from_nanos(held), 1);
            client.handle_frame(Time::ZERO, frame);
        }
        let mut heard = 0;
        while client.poll_event().is_some() {
            heard += 1;
        }
        prop_assert!(sum(client.drops()) + heard <= count as u64);
        client.handle_link(Time::ZERO, true);
        while client.work(Time::ZERO) {}
        prop_assert!(client.poll_transmit(Time::ZERO).is_some(), "it goes on");
    }
}

fn link(account: u8, connected: bool) -> RelayInput {
    RelayInput::AccountLink { account: account.into(), connected }
}
