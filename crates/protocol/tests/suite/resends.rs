//! Nodes that pay, and nodes that are paid, are killed while a batch is between them. It comes again, and nobody holds that against
//! anybody; a number that is signed twice is held against who signed it.

use core::time::Duration;
use std::sync::Arc;

use tombola_mixing::Time;
use tombola_protocol::control::{Record, records};
use tombola_protocol::frame::{FrameKind, Parity};
use tombola_protocol::payment::{Account, Fact, PaymentOutput, Payments, Setting, Side, Terms};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_tickets::{
    BatchHeader, ClassNumber, IssuerMessage, Limits, RecipientMessage, Restore, Salt, SignedBatch, SignerKey,
    WindowNumber,
};
use tombola_topology::IdentityKey;

use crate::common::{Chain, Net, Place, START, Setup, account_of, domain};
use crate::paid::{assert_all_is_paid, batches, control, drain};

/// Who pays, and who is paid.
const PAYER: u32 = 2;
const PAYEE: u32 = 4;
const LATENCY: Duration = Duration::from_millis(10);
/// What a disk takes until something is safe on it.
const DISK: Duration = Duration::from_millis(50);
const STEP: Duration = Duration::from_millis(1);

/// How far a batch has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Signed,
    OnTheIssuersDisk,
    OnItsWay,
    /// Accepted, and not on the recipient's disk.
    Accepted,
    OnTheRecipientsDisk,
    /// The answer was heard; that the batch need not be kept is not on the issuer's disk.
    Answered,
    AnswerLost,
}

const STAGES: [Stage; 7] = [
    Stage::Signed,
    Stage::OnTheIssuersDisk,
    Stage::OnItsWay,
    Stage::Accepted,
    Stage::OnTheRecipientsDisk,
    Stage::Answered,
    Stage::AnswerLost,
];

/// Records on a link since the `from`th thing that was seen.
fn said(net: &Net, from: usize, [one, other]: [u32; 2]) -> impl Iterator<Item = Record> {
    let on_link = net.seen[from..].iter().filter(move |seen| {
        (seen.from, seen.to) == (Place::Node(one), Place::Node(other)) && seen.kind() == FrameKind::Control
    });
    on_link.flat_map(|seen| records(&seen.frame).flatten().collect::<Vec<_>>())
}

fn batches_said(net: &Net, from: usize) -> Vec<SignedBatch> {
    let batch = |record| match record {
        Record::Issuer(_, IssuerMessage::Batch(batch)) => Some(batch),
        _ => None,
    };
    said(net, from, [PAYER, PAYEE]).filter_map(batch).collect()
}

fn is_answered(net: &Net, from: usize) -> bool {
    let received = |record| matches!(record, Record::Recipient(_, RecipientMessage::Received { .. }));
    said(net, from, [PAYEE, PAYER]).any(received)
}

fn run_until(net: &mut Net, happens: impl Fn(&mut Net) -> bool) {
    let end = net.now + Duration::from_secs(30);
    while !happens(net) {
        assert!(net.now < end, "it does not happen");
        net.run_for(STEP);
    }
}

/// Runs until a batch has come so far.
fn bring(net: &mut Net, stage: Stage) {
    let from = net.seen.len();
    if matches!(stage, Stage::Signed | Stage::OnTheIssuersDisk) {
        let before = net.payments_of(PAYER).ledger().account(&account_of(5)).issued;
        run_until(net, |net| net.payments_of(PAYER).ledger().account(&account_of(5)).issued > before);
        if matches!(stage, Stage::OnTheIssuersDisk) {
            net.run_for(DISK);
        }
        return;
    }
    run_until(net, |net| !batches_said(net, from).is_empty());
    match stage {
        Stage::Accepted => net.run_for(2 * LATENCY),
        Stage::OnTheRecipientsDisk => net.run_for(LATENCY + DISK + 5 * STEP),
        Stage::Answered => {
            run_until(net, |net| is_answered(net, from));
            net.run_for(LATENCY + 5 * STEP);
        }
        Stage::AnswerLost => {
            net.mute(|from, to| [from, to] == [Place::Node(PAYEE), Place::Node(PAYER)]);
            run_until(net, |net| is_answered(net, from));
            net.run_for(2 * LATENCY);
            net.mute(|_, _| false);
        }
        _ => {}
    }
}

#[test]
fn whoever_is_killed_when_a_batch_comes_again_and_nobody_complains() {
    let mut net = Net::new(Setup { latency: LATENCY, ..Setup::paid(340) });
    let mut chain = Chain::new(&net);
    net.purse_takes = DISK;
    net.watch();
    net.run_for(Duration::from_secs(15));
    for stage in STAGES {
        let orders: [&[u32]; 4] = [&[PAYEE], &[PAYER], &[PAYEE, PAYER], &[PAYER, PAYEE]];
        for killed in orders {
            bring(&mut net, stage);
            for node in killed {
                // What a process has counted goes with it.
                assert_eq!(net.payments_of(*node).counts().violations, 0, "node {node}, {stage:?}");
                net.crash_node(*node);
            }
            net.run_for(Duration::from_secs(3));
            chain.settle(&mut net);
            for node in 0..8 {
                let found = net.payments_of(node).counts().violations;
                assert_eq!(found, 0, "node {node}, {stage:?}, {killed:?} killed");
            }
        }
    }
    drain(&mut net, &mut chain);
    assert_all_is_paid(&mut net);
    let (all, different) = (batches_said(&net, 0).len(), batches(&net).len());
    let again = all
        - batches(&net).keys().filter(|place| place.0 == account_of(3) && place.1 == account_of(5)).count();
    assert!(different > 100 && again >= 14, "{again} of {all} came again");
}

#[test]
fn a_number_that_is_signed_twice_is_held_against_its_issuer_also_after_a_restart() {
    let mut net = Net::new(Setup::paid(341));
    net.watch();
    net.run_for(Duration::from_secs(40));
    let accepted = batches_said(&net, 0);
    assert!(accepted.len() >= 3, "{}", accepted.len());
    let (peer, parity) = (net.world.identity(PAYER), net.world.view.parity());
    let say = |net: &mut Net, batch: SignedBatch| {
        let (now, record) = (net.now, Record::Issuer(parity, IssuerMessage::Batch(batch)));
        let before = net.payments_of(PAYEE).counts().violations;
        net.payments_of(PAYEE).handle_control(now, &peer, control(&[record])).unwrap();
        net.payments_of(PAYEE).counts().violations - before
    };
    let key = SignerKey::from_bytes(&[3; 32]).unwrap();
    for restarted in [false, true] {
        if restarted {
            net.crash_node(PAYEE);
            net.run_for(Duration::from_secs(1));
        }
        for batch in &accepted {
            let other = BatchHeader { salt: Salt::from_bytes([0xee; 16]), ..batch.header };
            assert_eq!(say(&mut net, *batch), 0, "{restarted}: {:?}", batch.header);
            assert_eq!(say(&mut net, other.sign(&domain(), &key)), 1, "{restarted}: {:?}", batch.header);
        }
    }
    // Nothing of a class is here any more, because its epoch is long over: it is a class all the same.
    let price = *net.world.prices().values().next().unwrap();
    net.tell_fact(PAYEE, Fact::Class(ClassNumber(9000), price));
    for (class, complaints) in [(9000, 0), (9001, 1)] {
        let header = BatchHeader { class: ClassNumber(class), ..accepted[0].header };
        assert_eq!(say(&mut net, header.sign(&domain(), &key)), complaints, "{class}");
    }
}

/// One end of a link on which two epochs are paid for at a time. What the older one costs has the lower number, and it is the odd one.
fn end(number: u8, other: u8, side: Side, net: &Net) -> (IdentityKey, Payments) {
    let identity = |number| IdentityKey::of_seed(&[number; 32]);
    let signer = SignerKey::from_bytes(&[number; 32]).unwrap();
    let account =
        Account { address: signer.address(), signer, secret: [number; 32].into(), domain: domain() };
    let setting = Setting {
        me: identity(number),
        wall: WallClock::new(net.now, UnixNanos(START * 1_000_000_000)),
        limits: Limits { settled_after: Duration::from_secs(10), claim_before_expiry: 10 },
        drops: Arc::default(),
        seed: [number; 32],
    };
    let price = *net.world.prices().values().next().unwrap();
    let prices = [1, 2].map(|class| (ClassNumber(class), price)).into();
    let mut payments = Payments::new(net.now, account, setting, prices, &Restore::default()).unwrap();
    payments.handle_fact(net.now, Fact::Guarantee { issuer: account_of(other), amount: 1 << 90 });
    for (class, epoch) in [(1, 3), (2, 4)] {
        let terms = Terms { account: account_of(other), class: ClassNumber(class) };
        payments.set_terms(net.now, identity(other), side, Parity::of(epoch), Some(terms));
    }
    (identity(number), payments)
}

/// What one end has to say, and to which windows it commits with that.
fn hand_over(
    now: Time,
    from: &mut (IdentityKey, Payments),
    to: &mut (IdentityKey, Payments),
) -> Vec<WindowNumber> {
    while from.1.poll_change().is_some() {}
    from.1.set_durable(u64::MAX);
    let mut commitments = vec![];
    while let Some(output) = from.1.poll_output(now) {
        let PaymentOutput::Send { frame, .. } = output else { continue };
        commitments.extend(records(&frame).flatten().filter_map(|record| match record {
            Record::Recipient(_, RecipientMessage::Commitment { window, .. }) => Some(window),
            _ => None,
        }));
        to.1.handle_control(now, &from.0, frame).unwrap();
    }
    commitments
}

#[test]
fn windows_of_two_epochs_are_opened_in_their_order_after_a_restart() {
    let net = Net::offline(Setup::paid(342));
    let (mut payer, mut payee) = (end(11, 12, Side::Paying, &net), end(12, 11, Side::Earning, &net));
    // Windows are opened in the order of classes as soon as it runs, and said when the link is up, in the order of parities.
    assert!(payee.1.poll_output(net.now).is_none());
    payee.1.handle_link(net.now, payer.0, true);
    payer.1.handle_link(net.now, payee.0, true);
    let mut commitments = vec![];
    for _ in 0..20 {
        hand_over(net.now, &mut payer, &mut payee);
        commitments.extend(hand_over(net.now, &mut payee, &mut payer));
    }
    assert!(commitments.len() >= 2 && commitments.is_sorted(), "{commitments:?}");
    assert_eq!(payer.1.counts().violations, 0);
}
