//! How long it takes until packets are paid for, and what happens to packets before.

use core::time::Duration;

use tombola_mixing::Time;
use tombola_protocol::control::{Record, records};
use tombola_protocol::drops::DropReason;
use tombola_protocol::frame::FrameKind;
use tombola_protocol::payment::Fact;
use tombola_tickets::RecipientMessage;

use crate::common::{Net, Place, Setup};

/// What a disk may take until something is safe on it.
const DISK: Duration = Duration::from_millis(50);

fn setup(seed: u64) -> Net {
    let mut net = Net::offline(Setup::paid(seed));
    net.purse_takes = DISK;
    net
}

/// When a link's recipient has said for the first time that packets may come.
fn agreed(net: &Net, issuer: Place, recipient: Place) -> Option<Time> {
    let controls =
        net.on_link(recipient, issuer).into_iter().filter(|seen| seen.kind() == FrameKind::Control);
    let mut answers = controls.filter(|seen| {
        records(&seen.frame).any(|record| {
            matches!(record, Ok(Record::Recipient(_, RecipientMessage::Resumed { void: true, .. })))
        })
    });
    answers.next().map(|seen| seen.sent)
}

#[test]
fn between_nodes_an_answer_leaves_when_the_disk_has_it_and_waits_for_nothing_else() {
    // The links are up at time zero; what leaves then is not seen.
    let mut net = setup(320);
    net.watch();
    net.run_for(Duration::from_secs(3));
    for (issuer, recipient) in [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 0), (7, 1)] {
        let said = agreed(&net, Place::Node(issuer), Place::Node(recipient)).unwrap();
        // The first frame of the issuer takes 1 ms; what is due by time is looked at ten times a second.
        let bound = DISK + Duration::from_millis(5);
        assert!(said - Time::ZERO <= bound, "{issuer} {recipient}: {:?}", said - Time::ZERO);
    }
}

#[test]
fn a_client_pays_for_its_first_packet_within_a_few_slots() {
    let mut waits = vec![];
    for seed in 0..12 {
        let mut net = setup(330 + seed);
        net.run_for(Duration::from_secs(5));
        net.watch();
        let begun = net.now;
        net.connect(Place::Client(0));
        net.run_for(Duration::from_secs(5));
        let up = net.on_link(Place::Client(0), Place::Node(0));
        let first = up.iter().find(|seen| seen.kind() == FrameKind::Packet).unwrap().sent;
        waits.push(first - begun);
        // It was paid: the gateway has passed it on.
        assert_eq!(net.nodes[0].drops.get(DropReason::Unpaid), 0);
        // What it says of payment leaves in the rhythm of its clock but for the first frame.
        let controls = up.iter().filter(|seen| seen.kind() == FrameKind::Control).count();
        assert!(controls <= 1 + up.len() / 48 + 1, "{controls} of {}", up.len());
        let paid = net.payments_of(0).ledger().accounts().map(|(_, account)| account.listed).sum::<u64>();
        assert!(paid > 50, "{paid}");
    }
    waits.sort_unstable();
    // Two ways, the disk, one slot of the way down (20 ms), one tick of the clock (39 ms on average).
    let median = waits[waits.len() / 2];
    assert!(median < DISK + Duration::from_millis(150), "{waits:?}");
    assert!(*waits.last().unwrap() < Duration::from_millis(500), "{waits:?}");
}

#[test]
fn until_the_chain_says_what_a_client_guarantees_its_packets_stay_with_it() {
    let mut net = setup(350);
    net.chain_is_slow = true;
    net.run_for(Duration::from_secs(5));
    net.watch();
    net.connect(Place::Client(0));
    net.run_for(Duration::from_secs(8));
    let packets = |net: &Net| {
        let up = net.on_link(Place::Client(0), Place::Node(0)).into_iter();
        up.filter(|seen| seen.kind() == FrameKind::Packet).count()
    };
    assert_eq!(packets(&net), 0, "each would have been refused");
    let [(gateway, account)] = net.watched[..] else { panic!("{:?}", net.watched) };
    net.tell_fact(gateway, Fact::Guarantee { issuer: account, amount: 1 << 90 });
    net.run_for(Duration::from_secs(1));
    assert!(packets(&net) > 5);
    assert_eq!(net.nodes[0].drops.get(DropReason::Unpaid), 0);
    assert_eq!(net.payments_of(0).counts().violations, 0);
}

#[test]
fn the_way_down_has_the_same_pace_whether_there_is_something_to_say_or_not() {
    let instants = |slow: bool| {
        let mut net = setup(351);
        net.chain_is_slow = slow;
        net.watch();
        net.connect(Place::Client(0));
        net.run_for(Duration::from_secs(5));
        let down = net.on_link(Place::Node(0), Place::Client(0)).into_iter();
        down.map(|seen| seen.sent).collect::<Vec<_>>()
    };
    let (early, late) = (instants(false), instants(true));
    assert!(early.len() > 200 && early == late);
}
