//! What a neighbour can do to one's money, and how far it gets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use core::time::Duration;
use std::collections::BTreeSet;

use common::{Escrow, FACE, LIMITS, Link, NEXT, PREVIOUS, RECIPIENT, domain, issuer, key, packet};
use tombola_mixing::Rng;
use tombola_sphinx::RelaySecrets;
use tombola_tickets::{
    Ack, BatchHeader, BatchRefused, MOST_UNSIGNED, Neighbour, OpenError, PacketId, Randomness, Recipient,
    Refused, Root, Salt, Secret, SignedBatch, SignerKey, Stop, TicketCount, VerifyError, WindowNumber,
    merkle, por, records::tables,
};

/// What the escrow says of a claim.
fn verified(
    link: &Link,
    claim: &tombola_tickets::WindowClaim,
    used: Vec<WindowNumber>,
) -> Result<u32, VerifyError> {
    let claims = std::slice::from_ref(claim);
    let found = tombola_tickets::verify(&domain(), RECIPIENT, claims, link.unix, &Escrow(used));
    found.map(|windows| windows[0].winners)
}

#[test]
fn a_recipient_that_reveals_another_randomness_is_not_paid() {
    let mut link = Link::new(1);
    link.work(1024);
    link.finish();
    let mut claim = link.claims[0].clone();
    assert!(verified(&link, &claim, vec![]).unwrap() > 0);
    claim.randomness = Randomness::from_bytes([1; 16]);
    let number = claim.batches[0].number;
    assert_eq!(verified(&link, &claim, vec![]), Err(VerifyError::Signer(number)));
    // With the commitment of the other one the issuer would have had to sign something else.
    let claimed = vec![claim.window];
    assert_eq!(
        verified(&link, &link.claims[0], claimed.clone()),
        Err(VerifyError::Claimed(claimed[0])),
        "and it is paid once"
    );
}

fn sign_again(batch: &SignedBatch, change: impl FnOnce(&mut BatchHeader), key: &SignerKey) -> SignedBatch {
    let mut header = batch.header;
    change(&mut header);
    header.sign(&domain(), key)
}

#[test]
fn of_two_batches_with_one_number_one_counts() {
    let mut link = Link::new(2);
    link.work(1024);
    let won = link.won.clone();
    let last = *link.accepted.last().unwrap();
    let again = sign_again(&last, |header| header.salt = Salt::from_bytes([0xee; 16]), &key());
    let now = link.now();
    let mut offer = |batch: &SignedBatch| link.recipient.batch(now, batch, &mut link.payee.books);
    assert_eq!(offer(&again), Err(BatchRefused::Conflict));
    assert_eq!(offer(&last), Err(BatchRefused::Repeated));
    link.pump();
    assert_eq!(link.won, won);
    link.finish();
    let mut claim = link.claims[0].clone();
    let twice = claim.batches[0].clone();
    claim.batches.insert(0, twice);
    let number = claim.batches[0].number;
    assert_eq!(verified(&link, &claim, vec![]), Err(VerifyError::BatchOrder(number)));
}

#[test]
fn a_batch_that_is_not_exactly_what_was_agreed_is_refused() {
    let mut link = Link::new(3);
    link.send_many(256);
    link.acks(usize::MAX);
    link.disconnect();
    link.pump();
    let honest = link.batches[0];
    link.connect();
    // The same list again, with nothing accepted yet: another link in the same state.
    let mut link = Link::new(3);
    link.send_many(256);
    link.acks(usize::MAX);
    let now = link.now();
    let stranger = SignerKey::from_bytes(&[9; 32]).unwrap();
    let mut leaves = link.issuer.unsigned().to_vec();
    leaves.swap(0, 1);
    let swapped = merkle::root(&leaves).unwrap();
    let mut refused = |change: &dyn Fn(&mut BatchHeader)| {
        let batch = sign_again(&honest, change, &key());
        link.recipient.batch(now, &batch, &mut link.payee.books).unwrap_err()
    };
    assert_eq!(refused(&|h| h.recipient = issuer()), BatchRefused::OtherLink);
    assert_eq!(refused(&|h| h.issuer = RECIPIENT), BatchRefused::OtherLink);
    assert_eq!(refused(&|h| h.class.0 += 1), BatchRefused::OtherLink);
    assert_eq!(refused(&|h| h.window.0 += 1), BatchRefused::NoWindow);
    assert_eq!(refused(&|h| h.number = 1), BatchRefused::Number { expected: 0 });
    let other = Randomness::from_bytes([1; 16]).commitment();
    assert_eq!(refused(&|h| h.commitment = other), BatchRefused::Commitment);
    assert_eq!(refused(&|h| h.count = TicketCount::new(255).unwrap()), BatchRefused::Root, "a ticket fewer");
    assert_eq!(refused(&|h| h.root = Root::from_bytes([1; 20])), BatchRefused::Root);
    assert_eq!(refused(&|h| h.root = swapped), BatchRefused::Root, "another order");
    let forged = sign_again(&honest, |_| (), &stranger);
    assert_eq!(link.recipient.batch(now, &forged, &mut link.payee.books), Err(BatchRefused::Signer));
    assert_eq!(link.recipient.batch(now, &honest, &mut link.payee.books), Ok(()), "and the right one is not");
}

#[test]
fn a_batch_longer_than_the_list_is_refused() {
    let mut link = Link::new(4);
    link.send_many(10);
    link.acks(5);
    link.wait(10);
    link.disconnect();
    link.pump();
    let honest = link.batches[0];
    let mut link = Link::new(4);
    link.send_many(10);
    link.acks(5);
    // It holds ten challenges, but only five were acknowledged.
    let longer = sign_again(&honest, |h| h.count = TicketCount::new(10).unwrap(), &key());
    let now = link.now();
    assert_eq!(link.recipient.batch(now, &longer, &mut link.payee.books), Err(BatchRefused::Count));
}

#[test]
fn nothing_is_accepted_under_a_randomness_that_is_known() {
    let mut link = Link::new(5);
    link.work(1024);
    let last = *link.accepted.last().unwrap();
    link.finish();
    assert_eq!(link.claims.len(), 1);
    let more = sign_again(&last, |header| header.number += 1, &key());
    let now = link.now();
    // The issuer has said itself that the window has ended.
    assert_eq!(link.recipient.batch(now, &more, &mut link.payee.books), Err(BatchRefused::NoWindow));
    link.crash_recipient();
    // It has not said so yet, and may not know.
    assert_eq!(link.recipient.batch(now, &more, &mut link.payee.books), Err(BatchRefused::Claimed));
    link.connect();
    assert_eq!(link.recipient.batch(now, &more, &mut link.payee.books), Err(BatchRefused::NoWindow));
    assert_eq!(link.claims[0], link.claims[1], "and it is claimed again as it was");
}

#[test]
fn a_recipient_that_acknowledges_nothing_is_paid_nothing_and_shows() {
    let mut link = Link::new(6);
    let sent = (0..10_000).take_while(|_| link.send().is_ok()).count();
    assert_eq!(sent, MOST_UNSIGNED, "the credit, then nothing more is sent");
    link.wait(10);
    link.pump();
    assert!(link.batches.is_empty());
    link.wait(20);
    link.pump();
    assert_eq!(link.issuer.withheld(), MOST_UNSIGNED as u64);
    assert!(
        link.payer.books.solvency.at_risk() < 70.0 * 1000.0,
        "what was set aside goes to the next packets"
    );
}

/// Works until `stop`, or so many packets; the next hop acknowledges nothing.
fn work_unopened(link: &mut Link, packets: usize) {
    for _ in 0..packets / 256 {
        link.send_many(256);
        link.acks(usize::MAX);
        link.pump();
        link.wait(5);
    }
    link.wait(30);
    link.pump();
}

#[test]
fn withheld_acknowledgements_cost_the_hop_before_little_and_show() {
    let mut link = Link::new(7);
    // Another neighbour before us fares as badly with the same next hop: so it is the next hop.
    let other = Neighbour(50);
    work_unopened(&mut link, 1024);
    (0..1024).for_each(|_| link.openings.count(other, NEXT, false));
    assert_eq!(link.openings.score(PREVIOUS, NEXT), (1024, 1024));
    assert!(link.openings.is_suspect_after(NEXT));
    assert!(!link.openings.is_suspect_before(PREVIOUS) && !link.openings.is_suspect_before(other));
    let mut at = link.time;
    for minute in 1..10 {
        at += Duration::from_secs(60);
        link.openings.handle_timeout(at);
        let share = link.openings.admitted_share(NEXT);
        assert!(share <= 0.5_f64.powi(minute.min(6)) && share > 0.0, "a share, and never cut");
    }
    // What it cost: work, and no more at risk than before.
    let account = link.payee.books.ledger.account(&issuer());
    assert_eq!((account.unopened, account.won.tickets), (1024, 0));
    assert_eq!(link.payee.books.credit(issuer()).at_risk(), 0);
}

#[test]
fn challenges_that_do_not_open_are_bounded_and_held_against_who_sent_them() {
    let mut link = Link::new(8);
    link.payee.books.credit(issuer()).set_guaranteed(20 * FACE);
    let mut worked = 0;
    let mut wrong = 0;
    // The challenge of another packet: it is signed and paid for, and never opens.
    while worked < 2000 {
        let now = link.now();
        let id = PacketId { session: link.session, counter: worked };
        let ((hop, next, _), (_, _, challenge)) = (packet(&mut link.rng), packet(&mut link.rng));
        if link.issuer.send(now, &mut link.payer.books, id, challenge, None).is_err() {
            break;
        }
        // Packets go to one of two, as routes do.
        let to = if worked % 2 == 0 { NEXT } else { Neighbour(3) };
        let secret = Secret::Own(por::OwnSecret::of(&hop), to);
        let ticket =
            link.recipient.accept(now, &mut link.payee.books, id, challenge, secret, Ack::of(&hop)).unwrap();
        let found = link.recipient.opened(ticket, &next, &mut link.payee.books, &mut link.openings);
        assert_eq!(found, Err(OpenError::NotOpening));
        worked += 1;
        wrong += u64::from(found.is_err());
        if worked % 256 == 0 {
            link.acks(usize::MAX);
            link.pump();
            // Another link to the same next hop works.
            (0..256).for_each(|_| link.openings.count(Neighbour(50), NEXT, true));
        }
        if link.openings.is_suspect_before(PREVIOUS) {
            break;
        }
    }
    assert!(wrong <= 105, "after 100 and 1 % its rate is halved: {wrong}");
    assert!(!link.openings.is_suspect_after(NEXT));
    assert!(link.is_conserved());
}

#[test]
fn an_issuer_that_issues_to_many_costs_each_no_more_than_its_guarantee() {
    // Its deposit is gone, or was never there: nobody is ever paid. Its own machine is its to change.
    let mut lost = Vec::new();
    for seed in 0..4 {
        let mut link = Link::new(100 + seed);
        let guarantee = 30 * FACE;
        let mut batches = 0;
        link.payee.books.credit(issuer()).set_guaranteed(guarantee);
        let refused = loop {
            match link.send() {
                Ok(Ok(_)) => {}
                Ok(Err(refused)) => break refused,
                Err(Stop::Unsigned) => {
                    link.acks(usize::MAX);
                    link.open(usize::MAX);
                    link.pump();
                    batches = link.accepted.len();
                }
                Err(stop) => panic!("{stop}"),
            }
            assert!(link.payee.books.credit(issuer()).at_risk() <= guarantee + 40 * FACE);
        };
        assert_eq!(refused, Refused::Guarantee);
        assert!(batches >= 4, "it was worked for beyond the credit");
        link.acks(usize::MAX);
        link.open(usize::MAX);
        link.wait(10);
        link.pump();
        lost.push(link.won.values().sum::<u32>());
    }
    // Luck moves the winners of what was worked for on credit, not the average.
    let average = f64::from(lost.iter().sum::<u32>()) / 4.0;
    assert!(average < 38.0, "{lost:?} winners were worked for, and 30 were guaranteed");
}

#[test]
fn a_guarantee_that_is_paid_is_worked_for_again() {
    let mut link = Link::new(9);
    link.payee.books.credit(issuer()).set_guaranteed(40 * FACE);
    while link.send().unwrap().is_ok() {
        if link.recipient.unsigned() == 256 {
            link.acks(usize::MAX);
            link.open(usize::MAX);
            link.pump();
        }
    }
    link.finish();
    assert_eq!(link.recipient.is_settled(), link.claims.is_empty());
    let settled = link.claims.clone();
    for claim in settled {
        let paid = claim.winners();
        let settlement = tombola_tickets::Settlement { paid };
        link.recipient.settled(claim.window, settlement, &mut link.payee.books);
    }
    assert_eq!(link.payee.books.credit(issuer()).at_risk(), 0);
}

#[test]
fn a_recipient_that_lost_its_disk_leaves_out_what_may_have_been_claimed() {
    let mut link = Link::new(10);
    link.work(512);
    link.finish();
    let highest = link.claims.last().unwrap().window;
    link.payee.store = common::Store::default();
    link.crash_recipient();
    link.payee.books.skip_windows(issuer(), Some(highest));
    link.recipient = Recipient::new(common::recipient_link(), LIMITS, common::SECRET);
    link.connect();
    assert_eq!(link.recipient.current_window(), Some(WindowNumber(highest.0 + 512)));
    link.work(256);
    assert_eq!(link.accepted.last().unwrap().header.window, WindowNumber(highest.0 + 512));
}

#[test]
fn an_issuer_that_lost_its_disk_signs_under_another_window() {
    for says_so in [false, true] {
        let mut link = Link::new(11);
        link.work(512);
        let before = link.accepted.last().unwrap().header;
        link.payer.store = common::Store::default();
        link.crash_issuer();
        if says_so {
            // It has looked what the chain knows: beyond that it leaves out 512 windows.
            link.payer.books.lose();
            link.payer.books.skip_issued(RECIPIENT, Some(before.window));
        }
        link.connect();
        link.work(256);
        let after = link.accepted.last().unwrap().header;
        assert_eq!(after.number, 0);
        let least = before.window.0 + if says_so { 512 } else { 1 };
        assert_eq!(after.window, WindowNumber(least));
        // What it had signed before is not lost.
        link.finish();
        assert!(link.claims.iter().any(|claim| claim.window == before.window));
    }
}

#[test]
fn what_is_signed_and_not_handed_out_is_unsigned_to_the_recipient() {
    let mut link = Link::new(12);
    link.send_many(MOST_UNSIGNED - 256);
    link.acks(usize::MAX);
    // All batches are signed, and wait for the disk.
    link.tick();
    assert_eq!((link.issuer.unsigned().len(), link.recipient.unsigned()), (0, MOST_UNSIGNED - 256));
    link.send_many(256);
    assert_eq!(link.send(), Err(Stop::Unsigned), "it would be refused");
    link.pump();
    link.send_many(MOST_UNSIGNED - 256);
}

/// What the hop before and the hop behind an honest one see of one packet, everything that is ever claimed included.
struct Views {
    before: Vec<Vec<u8>>,
    behind: Vec<Vec<u8>>,
    own: [u8; 16],
}

fn views(rng: &mut Rng) -> Views {
    let mut secret = || *rng.seed().first_chunk::<16>().unwrap();
    let mut hop = || RelaySecrets { own: secret(), ack: secret(), chk: secret() };
    let (first, this, next) = (hop(), hop(), hop());
    let second_next = Ack::from_bytes([rng.seed()[0]; 16]);
    let own_before = por::opener(&first, &Ack::of(&this));
    let opener = por::opener(&this, &Ack::of(&next));
    let behind = por::opener(&next, &second_next);
    let before: [Vec<u8>; 8] = [
        first.own.into(),
        first.ack.into(),
        first.chk.into(),
        own_before.as_bytes().into(),
        own_before.challenge().as_bytes().into(),
        this.ack.into(),
        // Handed on with the packet; signed; opened on the chain.
        opener.challenge().as_bytes().into(),
        opener.as_bytes().into(),
    ];
    let check = por::check(&next, &behind.challenge());
    let behind: [Vec<u8>; 6] = [
        next.own.into(),
        next.ack.into(),
        next.chk.into(),
        behind.challenge().as_bytes().into(),
        behind.as_bytes().into(),
        check.as_bytes().into(),
    ];
    Views { before: before.into(), behind: behind.into(), own: this.own }
}

/// Every value that two can compute from what they see, at depth one: each value, and the hash of each, of each pair.
fn linked(before: &[Vec<u8>], behind: &[Vec<u8>]) -> bool {
    let all: BTreeSet<&[u8]> = before.iter().chain(behind).map(Vec::as_slice).collect();
    let hits = |input: &[u8]| {
        let hash = alloy_primitives::keccak256(input).0;
        [8, 16, 20].iter().any(|len| all.contains(&hash[..*len]))
    };
    let equal = before.iter().any(|value| behind.contains(value));
    let pair = |(a, b): (&Vec<u8>, &Vec<u8>)| hits(&[&a[..], b].concat()) || hits(&[&b[..], a].concat());
    equal || before.iter().flat_map(|a| behind.iter().map(move |b| (a, b))).any(pair)
}

/// How alike two views are, where nothing is equal: equal bits of all values.
fn likeness(before: &[Vec<u8>], behind: &[Vec<u8>]) -> u32 {
    let bits = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| (a ^ b).count_zeros()).sum::<u32>();
    before.iter().flat_map(|a| behind.iter().map(move |b| bits(a, b))).sum()
}

/// Two packets went through the honest hop: which is which? True if the guess is right.
fn guess(a: &Views, b: &Views, swapped: bool, more: impl Fn(&Views) -> Vec<Vec<u8>>) -> bool {
    let (first, second) = if swapped { (b, a) } else { (a, b) };
    let before = [a.before.clone(), more(a)].concat();
    let (straight, crossed) = (linked(&before, &first.behind), linked(&before, &second.behind));
    let says_straight = if straight == crossed {
        likeness(&before, &first.behind) >= likeness(&before, &second.behind)
    } else {
        straight
    };
    says_straight != swapped
}

fn right(trials: u32, more: impl Fn(&Views) -> Vec<Vec<u8>>) -> u32 {
    let mut rng = Rng::from_seed([21; 32]);
    let one = |_| {
        let (a, b) = (views(&mut rng), views(&mut rng));
        let swapped = rng.below(2) == 1;
        u32::from(guess(&a, &b, swapped, &more))
    };
    (0..trials).map(one).sum()
}

#[test]
fn the_neighbours_of_an_honest_hop_see_no_common_value() {
    let mut rng = Rng::from_seed([20; 32]);
    let all: Vec<_> = (0..200).map(|_| views(&mut rng)).collect();
    let before: BTreeSet<_> = all.iter().flat_map(|views| &views.before).collect();
    let behind: BTreeSet<_> = all.iter().flat_map(|views| &views.behind).collect();
    assert!(before.is_disjoint(&behind));
    assert_eq!((before.len(), behind.len()), (200 * 8, 200 * 6), "and none comes twice");
}

#[test]
fn the_neighbours_of_an_honest_hop_link_its_packets_no_better_than_by_guessing() {
    let trials = 2000;
    // 999 of 1000 honest coins: 3.29 standard deviations.
    let found = f64::from(right(trials, |_| vec![]));
    assert!((found - 1000.0).abs() < 3.29 * 500_f64.sqrt(), "{found} of {trials}");
}

#[test]
fn the_distinguisher_would_notice_a_hop_that_leaks_its_half() {
    // With the honest hop's own secret the opener on the chain follows from the next hop's acknowledgement.
    assert_eq!(right(200, |views| vec![views.own.to_vec()]), 200);
}

#[test]
fn an_issuer_that_names_ever_higher_windows_fills_nothing() {
    let mut link = Link::new(60);
    let kept = |link: &Link| link.payee.store.0.keys().filter(|(table, _)| *table == tables::WINDOWS).count();
    let now = link.now();
    for session in 10..6000 {
        let highest = link.recipient.current_window().map(|window| WindowNumber(window.0 + 1));
        let (list, books) = (link.recipient.list(), &mut link.payee.books);
        link.recipient.resume(now, session, true, &list, highest, books);
        link.payee.commit(usize::MAX);
        while link.recipient.poll_event(&mut link.payee.books).is_some() {}
        assert!(kept(&link) <= 1, "{session}: {}", kept(&link));
    }
    // Whoever means well after that is worked for.
    link.session = 6000;
    link.connect();
    link.work(256);
    assert_eq!(link.accepted.len(), 1, "{:?} {:?}", link.errors, link.refused);
}
