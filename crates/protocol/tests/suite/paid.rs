//! A network in which every hop is paid, in virtual time: who earns what, and what others can do to one's money.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use tombola_mixing::Time;
use tombola_protocol::control::{Record, records};
use tombola_protocol::drops::DropReason;
use tombola_protocol::frame::{BODY_OFFSET, FrameKind, META_OFFSET};
use tombola_protocol::payment::Fact;
use tombola_tickets::{Account, Address, IssuerMessage, Ledger, SignedBatch, WindowNumber};

use crate::common::{Chain, Net, Place, Setup, account_of, dropped};

const MINUTE: Duration = Duration::from_secs(60);

/// What all accounts of a ledger come to.
fn total(ledger: &Ledger) -> Account {
    let mut sum = Account::default();
    for (_, account) in ledger.accounts() {
        sum.listed += account.listed;
        sum.batched += account.batched;
        sum.opened += account.opened;
        sum.unopened += account.unopened;
        sum.void += account.void;
        sum.issued += account.issued;
        sum.won.tickets += account.won.tickets;
        sum.won.value += account.won.value;
    }
    sum
}

#[test]
fn every_hop_earns_and_everything_arrives() {
    let mut setup = Setup::paid(300);
    setup.accounts = 2;
    let mut net = Net::new(setup);
    net.send_message(0, 1, b"paid");
    net.run_for(5 * MINUTE);
    assert_eq!(net.inbox(1).len(), 1);
    for node in 0..8 {
        let counts = net.payments_of(node).counts();
        let ledger = total(net.payments_of(node).ledger());
        assert!(net.payments_of(node).ledger().is_conserved(), "node {node}");
        assert_eq!(
            (counts.violations, counts.refused, counts.given_up, counts.withheld),
            (0, 0, 0, 0),
            "node {node}"
        );
        assert!(ledger.batched > 1000 && ledger.opened > 1000, "node {node}: {ledger:?}");
        assert_eq!((ledger.unopened, ledger.void), (0, 0), "node {node}: {ledger:?}");
        assert!(ledger.won.tickets > 5, "node {node}: {ledger:?}");
        let drops: Vec<_> = dropped(&net.nodes[node as usize].drops);
        let only_cover = drops.iter().all(|(reason, _)| reason.label() == "discarded");
        assert!(only_cover, "node {node}: {drops:?}");
    }
    for client in 0..2 {
        let payments = net.clients[client].payments().unwrap();
        let counts = payments.counts();
        assert_eq!((counts.violations, counts.withheld), (0, 0));
        assert!(total(payments.ledger()).issued > 5000);
    }
    // What one has signed for the other, the other has.
    for (payer, payee) in [(0, 2), (2, 4), (4, 6), (6, 0)] {
        let [a, b] = [payer, payee].map(|node| account_of(u8::try_from(node + 1).unwrap()));
        let issued = net.payments_of(payer).ledger().account(&b).issued;
        let batched = net.payments_of(payee).ledger().account(&a).batched;
        assert!(issued >= batched && issued - batched <= 256 && batched > 1000, "{issued} and {batched}");
    }
}

/// Ends all windows, waits until nothing can be added to them, and claims everything.
fn drain(net: &mut Net, chain: &mut Chain) {
    for node in 0..net.world.nodes() {
        net.payments_of(node).finish();
    }
    for _ in 0..6 {
        net.run_for(Duration::from_secs(10));
        chain.settle(net);
    }
}

/// Every batch that was ever on a link, by who signed it for whom and its place; the same bytes each time.
fn batches(net: &Net) -> BTreeMap<(Address, Address, WindowNumber, u8), SignedBatch> {
    let mut all = BTreeMap::new();
    for sighting in net.seen.iter().filter(|sighting| sighting.kind() == FrameKind::Control) {
        for record in records(&sighting.frame) {
            let Ok(Record::Issuer(_, IssuerMessage::Batch(batch))) = record else { continue };
            let header = &batch.header;
            let place = (header.issuer, header.recipient, header.window, header.number);
            let before = all.insert(place, batch);
            assert!(before.is_none_or(|before| before == batch), "a number was signed twice: {place:?}");
        }
    }
    all
}

#[test]
fn what_is_won_is_claimed_and_paid_to_the_last_unit() {
    let mut net = Net::new(Setup::paid(301));
    let mut chain = Chain::new(&net);
    net.run_for(3 * MINUTE);
    drain(&mut net, &mut chain);
    let (mut paid, mut spent) = (0, 0);
    for node in 0..8 {
        assert!(net.payments_of(node).is_settled(), "node {node}");
        let ledger = net.payments_of(node).ledger();
        assert!(ledger.is_conserved());
        for (_, account) in ledger.accounts() {
            assert_eq!((account.paid, account.lost.tickets, account.pending.tickets), (account.won, 0, 0));
            paid += account.paid.value;
            spent += account.spent;
        }
    }
    for client in 0..2 {
        let payments = net.clients[client].payments().unwrap();
        spent += payments.ledger().accounts().map(|(_, account)| account.spent).sum::<u128>();
    }
    assert!(paid > 0 && paid == spent && paid == chain.paid.values().sum::<u128>());
}

#[test]
fn a_node_that_is_killed_at_any_time_loses_no_winner_and_signs_no_number_twice() {
    let mut net = Net::new(Setup::paid(302));
    let mut chain = Chain::new(&net);
    net.watch();
    for (second, node) in [(20, 4), (33, 2), (41, 4), (47, 7), (60, 4), (61, 4), (75, 3)] {
        net.run_until(Time::ZERO + Duration::from_secs(second));
        net.crash_node(node);
        chain.settle(&mut net);
    }
    net.run_for(2 * MINUTE);
    drain(&mut net, &mut chain);
    let counted = batches(&net).len();
    assert!(counted > 100, "{counted}");
    for node in 0..8 {
        let (counts, settled) = (net.payments_of(node).counts(), net.payments_of(node).is_settled());
        assert!(settled && counts.violations == 0, "node {node}: {counts:?}");
        for (_, account) in net.payments_of(node).ledger().accounts() {
            assert_eq!((account.lost.tickets, account.expired.tickets, account.paid), (0, 0, account.won));
        }
    }
}

#[test]
fn a_gateway_that_never_pays_is_served_for_two_batches() {
    let mut net = Net::new(Setup::paid(303));
    net.run_for(Duration::from_secs(2));
    // What gateway 0 signs from now on does not arrive in layer 1.
    net.mute(|from, to| from == Place::Node(0) && matches!(to, Place::Node(2 | 3)));
    net.run_for(5 * MINUTE);
    let gateway = account_of(1);
    for node in [2, 3] {
        let account = net.payments_of(node).ledger().account(&gateway);
        let unpaid = account.listed - account.batched - account.void;
        assert!((256..=512).contains(&unpaid), "node {node}: {account:?}");
    }
    // The other gateway is served as ever.
    let other = net.payments_of(2).ledger().account(&account_of(2));
    assert!(other.batched > 1000 && other.listed - other.batched < 512, "{other:?}");
}

#[test]
fn a_mix_node_that_never_acknowledges_costs_its_neighbours_two_batches() {
    let mut net = Net::new(Setup::paid(304));
    net.run_for(Duration::from_secs(2));
    // Node 4 of layer 2 takes packets and says nothing.
    net.mute(|from, to| from == Place::Node(4) && matches!(to, Place::Node(2 | 3)));
    net.run_for(5 * MINUTE);
    let silent = account_of(5);
    for node in [2, 3] {
        let counts = net.payments_of(node).counts();
        // Nothing is signed for what is not acknowledged.
        let signed = net.payments_of(node).ledger().account(&silent).issued;
        assert!(signed <= 512, "node {node} has signed {signed}");
        assert!(counts.withheld > 100, "node {node}: {counts:?}");
        let honest = net.payments_of(node).ledger().account(&account_of(6));
        assert!(honest.issued > 1000, "node {node}: {honest:?}");
    }
}

#[test]
fn a_client_that_cannot_pay_sends_nothing_and_one_that_guarantees_nothing_is_not_served() {
    let mut net = Net::new(Setup::paid(305));
    net.run_for(Duration::from_secs(10));
    let forwarded = |net: &Net| net.nodes[0].forwarded();
    // Its own software stops.
    let now = net.now;
    net.clients[0].payments().unwrap().handle_fact(now, Fact::Deposit(0));
    net.run_for(Duration::from_secs(20));
    let before = forwarded(&net);
    let issued = |net: &mut Net| {
        let payments = net.clients[0].payments().unwrap();
        payments.ledger().accounts().map(|(_, account)| account.issued).sum::<u64>()
    };
    let signed = issued(&mut net);
    net.run_for(MINUTE);
    assert!(
        forwarded(&net) - before <= 32 && issued(&mut net) - signed <= 32,
        "what was set aside may be used up"
    );

    // The other one goes on, though the chain says that it has no reserve any more: its gateway stops.
    let client = net.clients[1].payments().unwrap().account().address;
    net.tell_fact(1, Fact::Guarantee { issuer: client, amount: 0 });
    let (before, refused) = (net.nodes[1].forwarded(), net.nodes[1].drops.get(DropReason::Unpaid));
    net.run_for(MINUTE);
    assert_eq!(net.nodes[1].forwarded(), before);
    assert!(net.nodes[1].drops.get(DropReason::Unpaid) > refused + 100);
}

#[test]
fn nothing_is_common_to_the_links_on_the_two_sides_of_a_hop_that_is_paid() {
    let mut net = Net::new(Setup::paid(306));
    net.watch();
    net.run_for(MINUTE);
    // All values of 16 bytes and more in control frames and metas, by link; a window slides over every byte.
    let windows = |from: u32, to: u32| -> BTreeSet<[u8; 12]> {
        let mut all = BTreeSet::new();
        for (from, to) in [(from, to), (to, from)] {
            for sighting in net.on_link(Place::Node(from), Place::Node(to)) {
                let bytes: &[u8] = match sighting.kind() {
                    FrameKind::Control => &sighting.frame.as_bytes()[..],
                    _ => &sighting.frame.as_bytes()[META_OFFSET..BODY_OFFSET],
                };
                all.extend(bytes.windows(12).map(|window| <[u8; 12]>::try_from(window).unwrap()));
            }
        }
        // Counters, zeroes and the accounts of the nodes say nothing about a packet.
        all.retain(|window| window.iter().filter(|byte| **byte == 0).count() < 4);
        all
    };
    let accounts: BTreeSet<[u8; 12]> = (1..=8)
        .flat_map(|number| {
            let account = account_of(number);
            account.as_slice().windows(12).map(|part| part.try_into().unwrap()).collect::<Vec<[u8; 12]>>()
        })
        .collect();
    for (before, hop, behind) in [(0, 2, 4), (2, 4, 6), (3, 5, 7), (4, 6, 0)] {
        let (one, other) = (windows(before, hop), windows(hop, behind));
        let common: Vec<_> = one.intersection(&other).filter(|window| !accounts.contains(*window)).collect();
        assert!(one.len() > 10_000 && common.is_empty(), "{before} {hop} {behind}: {common:02x?}");
    }
}
