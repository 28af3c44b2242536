//! A network in which every hop is paid, in virtual time: who earns what, and what others can do to one's money.

use core::time::Duration;
use std::collections::BTreeMap;

use tombola_mixing::Time;
use tombola_protocol::control::{ControlWriter, Record, records};
use tombola_protocol::frame::{Frame, FrameKind};
use tombola_protocol::payment::{Fact, Payments, Signs};
use tombola_tickets::{
    Account, AccountProof, AckList, Address, IssuerMessage, Ledger, MOST_UNSIGNED, RecipientMessage,
    SignedBatch, SignerKey, UnixSeconds, WindowNumber,
};
use tombola_topology::IdentityKey;

use crate::common::{Chain, Net, Place, START, Setup, account_of, domain, dropped};

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
pub(crate) fn drain(net: &mut Net, chain: &mut Chain) {
    for node in 0..net.world.nodes() {
        net.payments_of(node).finish();
    }
    for _ in 0..6 {
        net.run_for(Duration::from_secs(10));
        chain.settle(net);
    }
}

/// How often somebody wanted to agree again on a link from one of these places.
fn resumed(net: &Net, from: impl Fn(Place) -> bool) -> usize {
    let seen =
        net.seen.iter().filter(|sighting| sighting.kind() == FrameKind::Control && from(sighting.from));
    let begun = |record| matches!(record, Ok(Record::Issuer(_, IssuerMessage::Resume { .. })));
    seen.flat_map(|sighting| records(&sighting.frame).collect::<Vec<_>>())
        .filter(|record| begun(record.clone()))
        .count()
}

/// Every batch that was ever on a link, by who signed it for whom and its place; the same bytes each time.
pub(crate) fn batches(net: &Net) -> BTreeMap<(Address, Address, WindowNumber, u8), SignedBatch> {
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
fn nodes_that_wind_up_fall_silent_and_are_settled_by_themselves() {
    let mut net = Net::new(Setup::paid(306));
    let mut chain = Chain::new(&net);
    net.run_for(MINUTE);
    for client in 0..2 {
        net.disconnect(Place::Client(client));
    }
    let begun = net.now;
    (0..net.world.nodes()).for_each(|node| net.wind_up(node));
    // What they send from now on was in their pools, or says something about payment.
    net.run_for(Duration::from_secs(20));
    net.watch();
    for _ in 0..12 {
        net.run_for(Duration::from_secs(5));
        chain.settle(&mut net);
    }
    let packets = net.seen.iter().filter(|sighting| sighting.kind() == FrameKind::Packet).count();
    assert_eq!(packets, 0, "nobody sends loops");
    assert_eq!(net.settled.len(), 8, "after {:?}: {:?}", net.now - begun, net.settled);
    let mut paid = 0;
    for node in 0..8 {
        let sum = net.payments_of(node).ledger().sum();
        // A client that has gone cannot sign what is unsigned; all others have.
        assert!(sum.is_conserved() && sum.won.tickets > 0 && sum.paid == sum.won, "node {node}: {sum:?}");
        assert!(node < 2 || sum.unsigned == 0, "node {node}: {sum:?}");
        paid += sum.paid.value;
    }
    assert_eq!(paid, chain.paid.values().sum::<u128>());
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
    assert_all_is_paid(&mut net);
}

/// A batch may be lost with the process that signed it; no node has anything else against another.
pub(crate) fn assert_all_is_paid(net: &mut Net) {
    for node in 0..8 {
        let (counts, settled) = (net.payments_of(node).counts(), net.payments_of(node).is_settled());
        assert!(settled && counts.violations == 0, "node {node}: {counts:?}");
        for (_, account) in net.payments_of(node).ledger().accounts() {
            assert_eq!((account.lost.tickets, account.expired.tickets, account.paid), (0, 0, account.won));
        }
    }
}

#[test]
fn an_issuer_that_loses_what_it_had_on_disk_signs_no_number_twice() {
    for known_to_the_chain in [false, true] {
        let mut net = Net::new(Setup::paid(310));
        let mut chain = Chain::new(&net);
        net.watch();
        // It loses its purse twice; in between it signs under the windows that it gets after the first time.
        let mut windows = vec![];
        for second in [30, 60] {
            net.run_until(Time::ZERO + Duration::from_secs(second));
            chain.settle(&mut net);
            let used =
                batches(&net).into_keys().filter(|place| place.0 == account_of(5)).map(|place| place.2);
            windows.extend(used.max());
            let past = match known_to_the_chain {
                true => {
                    let highest = *windows.last().unwrap();
                    let claimed =
                        |number| Fact::Claimed { recipient: account_of(number), window: highest, spent: 0 };
                    vec![claimed(7), claimed(8)]
                }
                false => vec![],
            };
            net.lose_purse(4, past);
        }
        net.run_for(MINUTE);
        // The same place twice with other bytes would have been noticed there.
        let all = batches(&net);
        let after = all.keys().filter(|place| place.0 == account_of(5) && place.2 > windows[1]).count();
        assert!(after >= 2, "it signs again");
        assert!(windows[0] < windows[1], "{windows:?}");
        if known_to_the_chain {
            let highest =
                all.keys().filter(|place| place.0 == account_of(5)).map(|place| place.2).max().unwrap();
            assert!(highest.0 >= windows[1].0 + 512, "{highest:?} {windows:?}");
        }
        // As recipient it leaves windows out too.
        let earned =
            all.keys().filter(|place| place.1 == account_of(5)).map(|place| place.2.0).max().unwrap();
        assert!(earned >= 512, "{earned}");
        for other in [2, 3, 6, 7] {
            assert_eq!(net.payments_of(other).counts().violations, 0, "node {other}");
        }
    }
}

#[test]
fn another_key_may_sign_for_an_issuer_and_a_key_that_is_revoked_may_not() {
    let mut net = Net::new(Setup::paid(311));
    let mut chain = Chain::new(&net);
    let issuer = account_of(5);
    let batched = |net: &mut Net| [6, 7].map(|node| net.payments_of(node).ledger().account(&issuer).batched);
    let tell = |net: &mut Net, key: u8, signs: Signs| {
        let signer = account_of(key);
        [6, 7].into_iter().for_each(|node| net.tell_fact(node, Fact::Signer { issuer, signer, signs }));
    };
    net.run_for(Duration::from_secs(25));
    // The new key is final on the chain before it signs; tickets of the old one are open, and a batch of it may be on its way.
    tell(&mut net, 60, Signs::All);
    chain.signers.insert((issuer, account_of(60)));
    net.world.signers.insert(5, 60);
    net.crash_node(4);
    net.run_for(Duration::from_secs(30));
    let with_new = batched(&mut net);
    assert!(with_new.iter().all(|tickets| *tickets > 256), "{with_new:?}");
    assert!([6, 7].iter().all(|node| net.payments_of(*node).counts().violations == 0));
    let won: Vec<_> = [6, 7].map(|node| net.payments_of(node).ledger().account(&issuer).won).into();

    // Revoked: classes that expire in time are still signed for, because the chain pays for them; others are not.
    let expiry = net.world.prices().values().next().unwrap().expiry;
    tell(&mut net, 60, Signs::Until(expiry));
    net.run_for(Duration::from_secs(20));
    let in_time = batched(&mut net);
    assert!(in_time[0] > with_new[0] && in_time[1] > with_new[1]);
    for signs in [Signs::Until(UnixSeconds(expiry.0 - 1)), Signs::Nothing] {
        tell(&mut net, 60, signs);
        let before = batched(&mut net);
        net.run_for(Duration::from_secs(40));
        assert_eq!(batched(&mut net), before, "{signs:?}");
    }
    let unpaid = [6, 7].map(|node| net.payments_of(node).ledger().account(&issuer));
    assert!(
        unpaid.iter().all(|account| account.listed - account.batched - account.void <= MOST_UNSIGNED as u64)
    );
    assert!([6, 7].iter().all(|node| net.payments_of(*node).counts().violations > 0), "they are counted");
    // What was won before is still there, and nobody else has lost anything.
    for (node, won) in [6, 7].into_iter().zip(won) {
        let account = net.payments_of(node).ledger().account(&issuer);
        assert!(account.won.tickets >= won.tickets && account.lost.tickets == 0, "{account:?}");
    }

    // Its own key signs at any time.
    net.world.signers.clear();
    net.crash_node(4);
    let before = batched(&mut net);
    net.run_for(MINUTE);
    let after = batched(&mut net);
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
    drain(&mut net, &mut chain);
    for node in [6, 7] {
        let account = net.payments_of(node).ledger().account(&issuer);
        assert_eq!((account.paid, account.lost.tickets), (account.won, 0));
    }
}

#[test]
fn packets_for_a_neighbour_that_is_away_wait_and_none_is_lost() {
    let mut net = Net::new(Setup::paid(312));
    net.run_for(Duration::from_secs(20));
    // Nothing is on the links between these two when they go down.
    net.cut(|from, to| [from, to] == [Place::Node(2), Place::Node(4)]);
    net.run_for(Duration::from_secs(1));
    let before = net.payments_of(4).counts();
    net.watch();
    for (one, other) in [(2, 4), (4, 2)] {
        net.link_node(one, other, false);
    }
    net.run_for(Duration::from_secs(10));
    let sent = net.on_link(Place::Node(2), Place::Node(4)).len();
    assert_eq!(sent, 0, "nothing leaves that nobody would be paid for");
    assert!(net.payments_of(2).counts().waiting > 50, "{:?}", net.payments_of(2).counts());
    net.cut(|_, _| false);
    for (one, other) in [(2, 4), (4, 2)] {
        net.link_node(one, other, true);
    }
    net.run_for(Duration::from_secs(20));
    let (counts, after) = (net.payments_of(2).counts(), net.payments_of(4).counts());
    assert_eq!((counts.waiting, counts.given_up, counts.violations), (0, 0, 0), "{counts:?}");
    assert_eq!(after.refused, before.refused);
}

#[test]
fn acknowledgements_that_come_late_are_no_offence() {
    let mut net = Net::new(Setup { latency: Duration::from_millis(200), ..Setup::paid(313) });
    net.run_for(Duration::from_secs(20));
    // Control frames that 4 has sent are still on their way to 2 when the link has come up again.
    for seconds in 1..=20 {
        net.run_for(Duration::from_millis(1000 + 37 * seconds));
        for up in [false, true] {
            net.link_node(2, 4, up);
            net.link_node(4, 2, up);
        }
    }
    net.run_for(Duration::from_secs(20));
    let counts = net.payments_of(2).counts();
    assert_eq!((counts.violations, counts.waiting), (0, 0), "{counts:?}");
    assert!(net.payments_of(4).ledger().account(&account_of(3)).batched > 0);
}

#[test]
fn what_a_client_could_not_be_told_is_told_in_the_next_slot() {
    let mut net = Net::new(Setup::paid(314));
    net.run_for(Duration::from_secs(20));
    net.watch();
    for _ in 0..5 {
        net.full = 2;
        net.run_for(Duration::from_secs(10));
        assert_eq!(net.full, 0);
    }
    for client in 0..2 {
        let counts = net.clients[client].payments().unwrap().counts();
        assert_eq!((counts.violations, counts.withheld), (0, 0), "{counts:?}");
    }
    let again = resumed(&net, |from| !matches!(from, Place::Node(_)));
    assert_eq!(again, 0, "nothing was lost, so nothing has to be agreed on again");
    for gateway in 0..2 {
        assert_eq!(net.payments_of(gateway).ledger().sum().void, 0);
    }
}

/// What the node numbered `payee` has of the tickets of the one numbered `payer`, and what was void.
fn batched(net: &mut Net, payer: u8, payee: u32) -> (u64, u64) {
    let account = net.payments_of(payee).ledger().account(&account_of(payer + 1));
    (account.batched, account.void)
}

#[test]
fn acknowledgements_that_get_lost_are_repeated() {
    let mut net = Net::new(Setup::paid(315));
    net.run_for(Duration::from_secs(20));
    net.mute(|from, to| [from, to] == [Place::Node(4), Place::Node(2)]);
    net.run_for(Duration::from_secs(3));
    net.mute(|_, _| false);
    let (before, _) = batched(&mut net, 2, 4);
    net.run_for(Duration::from_secs(30));
    let (after, void) = batched(&mut net, 2, 4);
    assert!(after > before + 256 && void == 0, "{before} {after} {void}");
    assert_eq!(net.payments_of(2).counts().violations, 0);
}

#[test]
fn a_link_on_which_anything_gets_lost_heals_by_itself() {
    let (two, four) = (Place::Node(2), Place::Node(4));
    let cases = [(two, four, 12, false), (four, two, 12, true), (two, four, 40, true)];
    for (from, to, seconds, anew) in cases {
        let mut net = Net::new(Setup::paid(316));
        net.run_for(Duration::from_secs(20));
        net.mute(move |a, b| (a, b) == (from, to));
        for up in [false, true].into_iter().filter(|_| anew) {
            net.link_node(2, 4, up);
            net.link_node(4, 2, up);
        }
        net.run_for(Duration::from_secs(seconds));
        net.mute(|_, _| false);
        net.run_for(Duration::from_secs(45));
        let (before, _) = batched(&mut net, 2, 4);
        net.run_for(Duration::from_secs(15));
        let (after, _) = batched(&mut net, 2, 4);
        assert!(after > before + 100, "{from:?} {to:?} {seconds} {anew}: {before} {after}");
        assert_eq!(net.payments_of(2).counts().waiting, 0);
    }
}

#[test]
fn a_client_that_was_not_heard_says_again_who_it_is() {
    let mut net = Net::offline(Setup::paid(317));
    let client = Place::Client(0);
    net.mute(move |from, to| from == client || to == client);
    net.connect(client);
    net.run_for(Duration::from_secs(5));
    net.mute(|_, _| false);
    net.run_for(Duration::from_secs(40));
    let counts = net.clients[0].payments().unwrap().counts();
    assert!(counts.signed > 2, "{counts:?}");
}

/// A frame with these records.
pub(crate) fn control(said: &[Record]) -> Frame {
    let mut writer = ControlWriter::new(Frame::zeroed());
    said.iter().for_each(|record| writer.push(record));
    writer.finish()
}

#[test]
fn strangers_who_show_accounts_leave_nothing_behind() {
    let mut net = Net::new(Setup::paid(318));
    net.run_for(Duration::from_secs(5));
    let (gateway, now) = (net.world.identity(0), net.now);
    let before = net.payments_of(0).counts().payers;
    let parity = net.world.view.parity();
    for number in 0..300_u32 {
        let mut seed = [77; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let (client, key) = (IdentityKey::of_seed(&seed), SignerKey::from_bytes(&seed).unwrap());
        let proof = AccountProof::new(key.address(), &key, &domain(), gateway.as_bytes(), client.as_bytes());
        let resume = IssuerMessage::Resume { session: 1, intact: false, list: AckList::new(), highest: None };
        let frame = control(&[Record::Account(proof), Record::Issuer(parity, resume)]);
        let payments = net.payments_of(0);
        payments.open_client(now, client);
        payments.handle_control(now, &client, frame).unwrap();
        // Every third one has something on the chain, and is answered; but it goes without having sent anything.
        let guaranteed = number % 3 == 0;
        let amount = u128::from(guaranteed) << 90;
        payments.handle_fact(now, Fact::Guarantee { issuer: key.address(), amount });
        assert_eq!(payments.counts().payers, before + usize::from(guaranteed), "{number}");
        payments.close_client(now, client);
        assert_eq!(payments.counts().payers, before, "{number}");
    }
    assert_eq!(net.payments_of(0).counts().violations, 0);
}

#[test]
fn a_stranger_who_shows_the_account_of_another_one_leaves_it_alone() {
    let mut net = Net::new(Setup::paid(324));
    net.run_for(Duration::from_millis(1500));
    let gateway = net.world.identity(0);
    let owner = net.clients[0].payments().unwrap().account().address;
    // All its tickets are signed when it has paused for a while: nothing is open between it and the gateway.
    let deposit = |net: &mut Net, amount| {
        let now = net.now;
        net.clients[0].payments().unwrap().handle_fact(now, Fact::Deposit(amount));
    };
    deposit(&mut net, 0);
    net.run_for(Duration::from_secs(30));
    let unsigned = net.payments_of(0).ledger().account(&owner);
    assert!(unsigned.listed > 0 && unsigned.listed == unsigned.batched + unsigned.void, "{unsigned:?}");
    assert_eq!(unsigned.won.tickets, 0, "else its winners would be waited for");

    let (stranger, key) = (IdentityKey::of_seed(&[79; 32]), SignerKey::from_bytes(&[79; 32]).unwrap());
    let proof = AccountProof::new(owner, &key, &domain(), gateway.as_bytes(), stranger.as_bytes());
    let now = net.now;
    let payments = net.payments_of(0);
    payments.open_client(now, stranger);
    payments.handle_control(now, &stranger, control(&[Record::Account(proof)])).unwrap();
    payments.close_client(now, stranger);

    deposit(&mut net, 1 << 90);
    net.run_for(Duration::from_secs(30));
    let after = net.payments_of(0).ledger().account(&owner);
    assert!(after.batched > unsigned.batched + 100, "{unsigned:?} {after:?}");
    let counts = net.payments_of(0).counts();
    assert_eq!((counts.refused, counts.violations), (0, 0), "{counts:?}");
}

#[test]
fn a_client_that_comes_again_goes_on() {
    let mut net = Net::new(Setup::paid(319));
    for _ in 0..4 {
        net.run_for(Duration::from_secs(25));
        net.disconnect(Place::Client(0));
        net.run_for(Duration::from_secs(2));
        net.connect(Place::Client(0));
    }
    let before = net.clients[0].payments().unwrap().counts().signed;
    net.run_for(Duration::from_secs(30));
    let counts = net.clients[0].payments().unwrap().counts();
    assert!(counts.signed > before + 1 && counts.violations == 0, "{counts:?}");
    assert_eq!(net.payments_of(0).counts().violations, 0);
}

#[test]
fn a_neighbour_that_talks_too_much_is_not_heard_for_long() {
    let mut net = Net::new(Setup::paid(321));
    net.run_for(Duration::from_secs(20));
    let (now, parity) = (net.now, net.world.view.parity());
    // The end of a window that never was costs nothing but the time to read it; what was not signed is counted.
    let end = RecipientMessage::End { window: WindowNumber(12_345) };
    let received = RecipientMessage::Received { window: WindowNumber(0), next: 999 };
    for (from, said) in [(4, end), (5, received)] {
        let (peer, said) = (net.world.identity(from), Record::Recipient(parity, said));
        let before = net.payments_of(2).counts();
        for _ in 0..10_000 {
            net.payments_of(2).handle_control(now, &peer, control(&[said.clone(), said.clone()])).unwrap();
        }
        let counts = net.payments_of(2).counts();
        assert!(counts.unheard - before.unheard >= 9_800, "{counts:?}");
        assert!(counts.violations - before.violations <= 260, "{counts:?}");
    }
    // Somebody else is heard all the same, and these are heard again.
    net.run_for(Duration::from_secs(60));
    let before = net.payments_of(2).counts();
    net.run_for(Duration::from_secs(20));
    let counts = net.payments_of(2).counts();
    assert!(counts.unheard == before.unheard && counts.signed > before.signed + 2, "{counts:?}");
}

#[test]
fn classes_expire_by_the_time_that_is_told() {
    let mut net = Net::new(Setup::paid(322));
    net.run_for(Duration::from_secs(20));
    let expiry = net.world.prices().values().next().unwrap().expiry;
    let tell = |net: &mut Net, time| net.tell_fact(4, Fact::Time(UnixSeconds(time)));
    // A second is what telling makes of it.
    let unix = u32::try_from(START + net.now.as_nanos() / 1_000_000_000).unwrap();
    tell(&mut net, unix + 1);
    net.run_for(Duration::from_secs(20));
    let (before, _) = batched(&mut net, 2, 4);
    assert!(before > 256 && net.payments_of(4).counts().refused == 0);
    // The machine has slept until the class was over.
    tell(&mut net, expiry.0 + 1);
    net.run_for(Duration::from_secs(5));
    let signed = net.payments_of(4).counts().signed;
    net.run_for(Duration::from_secs(10));
    assert!(net.payments_of(4).counts().refused > 100);
    assert_eq!(net.payments_of(4).counts().signed, signed);
}

/// The least that it takes to poll a gateway with so many clients.
#[expect(clippy::disallowed_methods, reason = "a ratio of two times")]
fn cost_with(clients: u32) -> Duration {
    let mut net = Net::new(Setup::paid(323));
    net.run_for(Duration::from_secs(1));
    let (gateway, now) = (net.world.identity(0), net.now);
    let payments = net.payments_of(0);
    let open = |payments: &mut Payments, number: u32| {
        let mut seed = [78; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let (client, key) = (IdentityKey::of_seed(&seed), SignerKey::from_bytes(&seed).unwrap());
        let proof = AccountProof::new(key.address(), &key, &domain(), gateway.as_bytes(), client.as_bytes());
        payments.open_client(now, client);
        payments.handle_control(now, &client, control(&[Record::Account(proof)])).unwrap();
    };
    (0..clients).for_each(|number| open(payments, number));
    while payments.poll_output(now).is_some() {}
    let times = (0..20).map(|_| {
        let begun = std::time::Instant::now();
        for _ in 0..1000 {
            assert!(payments.poll_output(now).is_none());
        }
        begun.elapsed()
    });
    times.min().unwrap()
}

#[test]
fn clients_cost_nothing_when_nothing_is_due() {
    let (few, many) = (cost_with(2), cost_with(3000));
    assert!(many < 20 * few, "{few:?} {many:?}");
}
