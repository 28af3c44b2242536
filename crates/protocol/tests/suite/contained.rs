//! Those who do not pay, cannot pay, do not acknowledge, or send what does not open: what each costs the others at most.
//!
//! Credit of four batches of 256 tickets, for a client of two, half a minute for an acknowledgement, 100 tickets
//! and one in a hundred that may stay closed, a rate that is halved each minute down to a 64th.

use core::time::Duration;

use tombola_protocol::drops::DropReason;
use tombola_protocol::payment::Fact;
use tombola_tickets::MOST_UNSIGNED;

use crate::common::{Net, Place, Setup, account_of};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Tickets for which a recipient works on credit.
const CREDIT: u64 = MOST_UNSIGNED as u64;
/// And a gateway for a client.
const OF_A_CLIENT: u64 = CREDIT / 2;

/// Tickets of an account that a node accepted, and those of them that were signed or are void.
fn tickets(net: &mut Net, node: u32, issuer: u8) -> (u64, u64) {
    let account = net.payments_of(node).ledger().account(&account_of(issuer));
    (account.listed, account.batched + account.void)
}

#[test]
fn a_gateway_that_never_pays_is_served_on_credit_and_opened_for_no_more() {
    let mut net = Net::new(Setup::paid(303));
    net.run_for(2 * SECOND);
    // What gateway 0 signs from now on it keeps, and goes on.
    net.cheat(|from, to| from == Place::Node(0) && matches!(to, Place::Node(2 | 3)));
    net.run_for(5 * MINUTE);
    for node in [2, 3] {
        let (accepted, signed) = tickets(&mut net, node, 1);
        assert!((CREDIT - 256..=CREDIT).contains(&(accepted - signed)), "node {node}: {accepted} {signed}");
        // It is refused in front of the header: nothing was opened that is not paid for.
        let all: u64 = [1, 2].into_iter().map(|issuer| tickets(&mut net, node, issuer).0).sum();
        let state = &net.nodes[node as usize];
        assert_eq!(state.relay().counts().opened, all, "node {node}");
        let refused = state.drops.get(DropReason::Unpaid);
        assert!(refused > 20, "node {node}: {refused}");
        assert_eq!(net.payments_of(node).counts().refused, refused, "node {node}");
    }
    // The other gateway is served as ever.
    let (accepted, signed) = tickets(&mut net, 2, 2);
    assert!(signed > 1000 && accepted - signed < CREDIT);
    assert_eq!(net.payments_of(1).counts().withheld, 0);
}

#[test]
fn a_client_that_never_pays_is_served_on_credit() {
    let mut net = Net::new(Setup::paid(309));
    net.run_for(2 * SECOND);
    net.cheat(|from, to| from == Place::Client(1) && to == Place::Node(1));
    net.run_for(5 * MINUTE);
    let client = net.clients[1].payments().unwrap().account().address;
    let account = net.payments_of(1).ledger().account(&client);
    let unpaid = account.listed - account.batched - account.void;
    assert!((OF_A_CLIENT - 256..=OF_A_CLIENT).contains(&unpaid), "{account:?}");
    // What was on its way when the last ticket was accepted was passed on too.
    let forwarded = net.nodes[1].forwarded();
    assert!(forwarded <= account.batched + OF_A_CLIENT, "{forwarded}");
    assert!(net.nodes[1].drops.get(DropReason::Unpaid) > 100);
    net.run_for(MINUTE);
    assert_eq!(net.nodes[1].forwarded(), forwarded);
}

#[test]
fn a_mix_node_that_never_acknowledges_is_paid_nothing_and_is_seen() {
    let mut net = Net::new(Setup::paid(304));
    net.run_for(2 * SECOND);
    let before: Vec<_> = [2, 3].map(|node| issued(&mut net, node, 5)).into();
    // Node 4 of layer 2 takes packets and says nothing.
    net.mute(|from, to| from == Place::Node(4) && matches!(to, Place::Node(2 | 3)));
    let time = 5 * MINUTE;
    net.run_for(time);
    for (node, before) in [2, 3].into_iter().zip(before) {
        // Only what it had acknowledged before.
        let signed = issued(&mut net, node, 5) - before;
        assert!(signed <= CREDIT, "node {node} has signed {signed}");
        let counts = net.payments_of(node).counts();
        // As much as the credit on its way at a time, each for half a minute.
        let bound = CREDIT * (1 + time.as_secs() / 30);
        assert!((100..=bound).contains(&counts.withheld), "node {node}: {counts:?}");
        assert_eq!(counts.slowed, 1, "the silent one, and nobody else: {counts:?}");
        let [silent, gateways @ ..] = [4, 0, 1].map(|other| net.world.identity(other));
        assert!(net.payments_of(node).admitted_share(&silent) < 1.0);
        assert!(gateways.iter().all(|other| net.payments_of(node).admitted_share(other) == 1.0));
        assert_eq!(net.nodes[node as usize].drops.get(DropReason::Slowed), 0);
        assert!(issued(&mut net, node, 6) > 1000, "its neighbour in the layer is paid as ever");
    }
}

fn issued(net: &mut Net, node: u32, recipient: u8) -> u64 {
    net.payments_of(node).ledger().account(&account_of(recipient)).issued
}

#[test]
fn a_neighbour_whose_packets_do_not_open_is_slowed_down_to_a_64th_and_others_are_not() {
    let mut net = Net::new(Setup::paid(307));
    net.run_for(2 * SECOND);
    let before = tickets(&mut net, 2, 1).0;
    net.run_for(MINUTE);
    let a_minute = tickets(&mut net, 2, 1).0 - before;
    assert!(a_minute > 500, "{a_minute}");

    net.spoil(|from, to| (from, to) == (Place::Node(0), Place::Node(2)));
    let before = tickets(&mut net, 2, 1).0;
    net.run_for(8 * MINUTE);
    let worked = tickets(&mut net, 2, 1).0 - before;
    // Up to two minutes until it is noticed, then halves: 2 + 1/2 + 1/4 + .. + 1/64 minutes, and 1/64 of those that follow.
    let bound = (a_minute * 3) + (a_minute / 64 * 8) + 64;
    assert!(worked <= bound, "{worked} of {a_minute} a minute");
    let last = tickets(&mut net, 2, 1).0;
    net.run_for(4 * MINUTE);
    let last = tickets(&mut net, 2, 1).0 - last;
    assert!(
        (1..=4 * a_minute / 64 * 3 / 2).contains(&last),
        "slowed and not cut: {last} of {a_minute} a minute"
    );
    assert!(net.nodes[2].drops.get(DropReason::Slowed) > 5 * a_minute);
    assert_eq!(net.payments_of(2).counts().slowed, 1);

    // It does not hurt others: not the other gateway, nor the other node of the layer, to which the same gateway sends.
    assert_eq!(net.payments_of(1).counts().withheld, 0);
    let honest = net.world.identity(1);
    assert_eq!(net.payments_of(2).admitted_share(&honest), 1.0);
    assert_eq!(net.nodes[3].drops.get(DropReason::Slowed), 0);
    assert_eq!(net.payments_of(3).counts().slowed, 0);
}

#[test]
fn a_client_that_cannot_pay_sends_nothing_and_one_that_guarantees_nothing_is_not_served() {
    let mut net = Net::new(Setup::paid(305));
    net.run_for(10 * SECOND);
    let forwarded = |net: &Net| net.nodes[0].forwarded();
    // Its own software stops.
    let now = net.now;
    net.clients[0].payments().unwrap().handle_fact(now, Fact::Deposit(0));
    net.run_for(20 * SECOND);
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
fn a_node_whose_guarantee_is_used_up_is_refused_in_front_of_the_header() {
    let mut net = Net::new(Setup::paid(308));
    net.run_for(10 * SECOND);
    net.tell_fact(2, Fact::Guarantee { issuer: account_of(1), amount: 0 });
    let opened = |net: &Net| net.nodes[2].relay().counts().opened;
    let other = |net: &mut Net| tickets(net, 2, 2).0;
    let (before, others) = (opened(&net), other(&mut net));
    net.run_for(MINUTE);
    assert_eq!(opened(&net) - before, other(&mut net) - others, "only packets of the other gateway");
    assert!(net.nodes[2].drops.get(DropReason::Unpaid) > 100);
}
