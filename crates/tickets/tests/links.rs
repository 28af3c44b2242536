//! Both sides of a link, as they work together.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use common::{Link, RECIPIENT, SETTLED, issuer};
use tombola_tickets::{
    Ack, BatchRefused, IssuerError, MOST_UNSIGNED, OpenError, PacketId, Refused, Secret, Settlement, Stop,
    WindowNumber, por,
};

#[test]
fn packets_are_listed_signed_opened_and_claimed() {
    let mut link = Link::new(1);
    link.work(1000);
    assert_eq!(link.accepted.len(), 3, "three full batches");
    assert!(link.issuer.unsigned().len() == 232 && link.recipient.unsigned() == 232);
    link.wait(10);
    link.pump();
    assert_eq!(link.accepted.len(), 4, "and the rest after ten seconds");
    assert_eq!(link.accepted[3].header.count.get(), 232);
    let won: u32 = link.won.values().sum();
    assert!(won > 0);
    assert!(link.claims.is_empty(), "the window has not ended");
    link.finish();
    assert_eq!(link.claims.len(), 1);
    assert_eq!(link.verify_claims(), won);
    let account = link.payee.books.ledger.account(&issuer());
    assert_eq!((account.listed, account.opened, account.claimed.tickets), (1000, 1000, won.into()));
    link.recipient.settled(WindowNumber(0), Settlement { paid: won }, &mut link.payee.books);
    link.issuer.claimed(WindowNumber(0), u128::from(won) * 1000, &mut link.payer.books);
    link.pump();
    assert_eq!(link.payee.books.ledger.account(&issuer()).paid.value, u128::from(won) * 1000);
    assert_eq!(link.payer.books.ledger.account(&RECIPIENT).redeemed, 1000);
    assert!(link.payer.books.solvency.at_risk() < 1.0 + 1000.0 * 32.0, "what is claimed is no risk");
    assert!(link.is_conserved() && link.recipient.is_settled());
    assert_eq!(
        link.payee.store.0.len(),
        2,
        "the number of the next window is left, and the sums of what is over"
    );
    assert!(link.refused.is_empty() && link.errors.is_empty());
}

#[test]
fn nothing_is_sent_without_a_commitment() {
    let mut link = Link::new(2);
    let window = link.recipient.current_window().unwrap();
    link.recipient.finish(&link.payee.books);
    link.pump();
    assert_eq!(link.send(), Err(Stop::NoWindow));
    link.crash_issuer();
    assert_eq!(link.send(), Err(Stop::NoAgreement), "before the list is agreed on");
    link.connect();
    assert_eq!(link.send(), Err(Stop::NoWindow));
    assert_eq!(window, WindowNumber(0));
}

#[test]
fn four_batches_are_the_credit() {
    let mut link = Link::new(3);
    link.send_many(MOST_UNSIGNED);
    assert_eq!(link.send(), Err(Stop::Unsigned), "an honest issuer stops itself");
    let challenge = por::last_opener(&common::packet(&mut link.rng).0).challenge();
    let packet = PacketId { session: 1, counter: 1100 };
    let secret = Secret::Opener(tombola_tickets::Opener::from_bytes([1; 16]));
    let now = link.now();
    let found = link.recipient.accept(
        now,
        &mut link.payee.books,
        packet,
        challenge,
        secret,
        Ack::from_bytes([1; 16]),
    );
    assert_eq!(found, Err(Refused::Unsigned), "and the recipient stops one that does not");
}

/// Regression: batches that were on their way did not count, so that after a burst the recipient refused what followed, and
/// the issuer waited half a minute for acknowledgements that never came.
#[test]
fn what_is_signed_counts_until_it_is_received() {
    let mut link = Link::new(12);
    link.send_many(MOST_UNSIGNED - 256);
    link.acks(MOST_UNSIGNED);
    link.tick();
    assert_eq!(link.issuer.unsigned().len(), 0, "all batches are signed");
    assert_eq!(link.recipient.unsigned(), MOST_UNSIGNED - 256, "and have not arrived");
    link.send_many(256);
    assert_eq!(link.send(), Err(Stop::Unsigned));
    link.pump();
    assert_eq!((link.recipient.unsigned(), link.accepted.len()), (256, 3));
    link.send_many(MOST_UNSIGNED - 256);
    assert!(link.refused.is_empty() && link.errors.is_empty());
}

#[test]
fn no_more_is_sent_while_four_batches_are_not_received() {
    let mut link = Link::new(17);
    for batch in 0..4 {
        assert!(matches!(link.send(), Ok(Ok(_))), "after {batch} batches");
        link.acks(1);
        link.wait(10);
        link.tick();
        assert_eq!(link.issuer.unsigned().len(), 0, "a batch of one");
    }
    assert_eq!(link.send(), Err(Stop::Unreceived), "few as the tickets are");
    link.pump();
    assert_eq!(link.accepted.len(), 4);
    assert!(matches!(link.send(), Ok(Ok(_))), "all were received");
    assert!(link.refused.is_empty() && link.errors.is_empty());
}

#[test]
fn acknowledgements_on_their_way_survive_the_closing_of_a_batch() {
    let mut link = Link::new(4);
    link.send_many(100);
    link.acks(60);
    link.wait(10);
    // The recipient has handed out more than the issuer has when it signs.
    let mut late = Vec::new();
    let list = link.recipient.take_acks(usize::MAX, &mut late);
    link.pump();
    assert_eq!(link.accepted.len(), 1);
    assert_eq!(link.accepted[0].header.count.get(), 60);
    let now = link.now();
    link.issuer.acknowledged(now, &late, &list).unwrap();
    link.wait(10);
    link.pump();
    assert_eq!(link.accepted.len(), 2);
    assert!(link.refused.is_empty());
}

#[test]
fn a_window_ends_after_256_batches() {
    let mut link = Link::new(5);
    // With few winners, else 32 of them end it.
    for _ in 0..256 {
        link.send_many(1);
        link.acks(1);
        link.wait(10);
        link.pump();
    }
    assert_eq!(
        link.commitments,
        [WindowNumber(0), WindowNumber(0), WindowNumber(1)],
        "one repeats at connecting"
    );
    link.work(256);
    let last = link.accepted.last().unwrap().header;
    assert_eq!((last.window, last.number), (WindowNumber(1), 0));
    link.finish();
    assert!(link.refused.is_empty() && link.errors.is_empty());
    assert_eq!(link.verify_claims(), link.won.values().sum::<u32>());
}

#[test]
fn a_window_ends_after_an_hour_or_32_winners() {
    let mut link = Link::new(6);
    link.work(256);
    link.wait(3599);
    link.pump();
    assert_eq!(link.recipient.current_window(), Some(WindowNumber(0)));
    link.wait(1);
    link.pump();
    assert_eq!(link.recipient.current_window(), Some(WindowNumber(1)));
    let before = link.accepted.len();
    while link.recipient.current_window() == Some(WindowNumber(1)) {
        link.work(256);
    }
    assert!(link.won[&WindowNumber(1)] >= 32 && link.accepted.len() - before < 20);
    assert!(link.claims.len() == 1, "the first was claimed meanwhile: {:?}", link.claims.len());
}

#[test]
fn a_window_is_claimed_when_its_last_packet_is_old_enough() {
    let mut link = Link::new(7);
    link.work(512);
    link.recipient.finish(&link.payee.books);
    link.pump();
    link.wait(u32::try_from(SETTLED.as_secs()).unwrap() - 1);
    link.pump();
    assert!(link.claims.is_empty());
    link.wait(1);
    link.pump();
    assert_eq!(link.claims.len(), 1);
}

#[test]
fn an_issuer_that_never_confirms_delays_a_claim_until_the_expiry() {
    let mut link = Link::new(8);
    link.work(512);
    link.recipient.finish(&link.payee.books);
    // It is there, and says nothing.
    link.up = false;
    link.pump();
    link.wait(80_000);
    link.pump();
    assert!(link.claims.is_empty());
    link.wait(86_400 - 80_000 - 600);
    link.pump();
    assert_eq!(link.claims.len(), 1);
    assert!(link.verify_claims() > 0);
    link.wait(601);
    link.pump();
    assert!(!link.recipient.is_settled(), "the claim may have been made in time");
    link.wait(2700);
    link.pump();
    assert!(link.is_conserved() && link.recipient.is_settled());
    assert!(
        link.payee.books.ledger.account(&issuer()).expired.tickets > 0,
        "and what is not paid then is lost"
    );
    assert_eq!(link.payer.books.ledger.account(&RECIPIENT).lapsed, 512);
}

#[test]
fn a_recipient_that_ends_does_not_wait_for_an_issuer_that_has_gone() {
    let mut link = Link::new(8);
    link.work(512);
    link.disconnect();
    link.recipient.finish(&link.payee.books);
    link.wait(u32::try_from(SETTLED.as_secs()).unwrap() - 1);
    link.pump();
    assert!(link.claims.is_empty(), "what is under way may still open");
    link.wait(1);
    link.pump();
    assert_eq!(link.claims.len(), 1);
    assert!(link.verify_claims() > 0);
}

#[test]
fn a_reconnect_repeats_acknowledgements_and_batches() {
    let mut link = Link::new(9);
    link.send_many(300);
    link.acks(100);
    // The rest gets lost, and so do the batches.
    link.disconnect();
    link.acks(usize::MAX);
    link.pump();
    link.connect();
    link.acks(usize::MAX);
    link.pump();
    assert_eq!(link.accepted.len(), 1, "{:?}", link.refused);
    link.send_many(10);
    link.acks(usize::MAX);
    // A batch is signed while the link is down.
    link.disconnect();
    link.wait(10);
    link.pump();
    assert_eq!((link.batches.len(), link.accepted.len()), (2, 1));
    link.connect();
    assert_eq!(link.accepted.len(), 2);
    assert_eq!(link.batches[1].to_bytes(), link.batches[2].to_bytes(), "byte for byte");
    let account = link.payee.books.ledger.account(&issuer());
    assert_eq!((account.batched, account.void), (310, 0));
    link.finish();
    assert_eq!(link.verify_claims(), link.won.values().sum::<u32>());
    assert!(link.errors.is_empty() && link.is_conserved());
}

#[test]
fn a_list_that_one_side_lost_is_void_for_both() {
    for side in [Link::crash_issuer as fn(&mut Link), Link::crash_recipient] {
        let mut link = Link::new(10);
        link.send_many(300);
        link.open(usize::MAX);
        link.acks(usize::MAX);
        link.pump();
        assert_eq!(link.accepted.len(), 1);
        let before = link.won.values().sum::<u32>();
        side(&mut link);
        link.connect();
        link.forwarded.clear();
        assert_eq!((link.issuer.unsigned().len(), link.recipient.unsigned()), (0, 0));
        link.work(256);
        link.finish();
        let account = link.payee.books.ledger.account(&issuer());
        assert!(account.void == 44 || account.listed == 256, "{account:?}");
        assert_eq!(link.accepted.len(), 2);
        assert!(link.won.values().sum::<u32>() >= before && link.errors.is_empty());
        assert_eq!(link.verify_claims(), link.won.values().sum::<u32>());
    }
}

#[test]
fn a_void_list_is_held_against_the_issuer() {
    let mut link = Link::new(11);
    link.send_many(100);
    link.crash_issuer();
    link.connect();
    let at_risk = link.payee.books.credit(issuer()).at_risk();
    assert_eq!(at_risk, 100 * common::price().expected_value(1));
    link.payee.books.credit(issuer()).set_guaranteed(at_risk + common::FACE - 1);
    assert_eq!(link.send(), Ok(Err(Refused::Guarantee)));
}

#[test]
fn a_signed_batch_is_never_void() {
    let mut link = Link::new(12);
    link.send_many(256);
    link.acks(usize::MAX);
    link.open(usize::MAX);
    link.disconnect();
    link.pump();
    link.crash_issuer();
    link.connect();
    assert_eq!(link.accepted.len(), 1);
    assert_eq!(link.batches[0].to_bytes(), link.batches[1].to_bytes());
    assert!(link.refused.iter().all(|refused| *refused == BatchRefused::Repeated));
}

#[test]
fn lists_that_differ_stop_the_signing() {
    let mut link = Link::new(13);
    link.send_many(20);
    let mut acks = Vec::new();
    let list = link.recipient.take_acks(usize::MAX, &mut acks);
    acks.swap(3, 4);
    let now = link.now();
    assert_eq!(link.issuer.acknowledged(now, &acks, &list), Err(IssuerError::OtherList));
    link.wait(20);
    link.pump();
    assert!(link.batches.is_empty());
    assert_eq!(link.send(), Err(Stop::NoAgreement));
    link.connect();
    assert_eq!(link.payee.books.ledger.account(&issuer()).void, 20);
    link.forwarded.clear();
    link.work(256);
    assert_eq!(link.accepted.len(), 1);
}

#[test]
fn an_issuer_stops_before_its_deposit_is_used_up() {
    let mut link = Link::new(14);
    link.payer.books.solvency.set_deposit(40 * common::FACE);
    let sent = (0..10_000)
        .take_while(|at| {
            let sent = link.send();
            if at % 100 == 99 {
                link.acks(usize::MAX);
                link.open(usize::MAX);
                link.pump();
            }
            sent.is_ok()
        })
        .count();
    assert_eq!(link.send(), Err(Stop::Deposit));
    // The average stays well below.
    assert!((400..1500).contains(&sent), "{sent}");
    assert!(link.payer.books.solvency.at_risk() <= 40_000.0);
}

#[test]
fn an_opener_of_a_void_list_opens_nothing_of_the_next_one() {
    let mut link = Link::new(15);
    link.send_many(10);
    link.crash_issuer();
    link.connect();
    let late: Vec<_> = link.forwarded.drain(..).collect();
    // The same places of the next list.
    link.send_many(10);
    for (ticket, ack) in late {
        let found = link.recipient.opened(ticket, &ack, &mut link.payee.books, &mut link.openings);
        assert_eq!(found, Err(OpenError::Gone));
    }
    link.open(usize::MAX);
    link.acks(usize::MAX);
    link.wait(10);
    link.pump();
    let account = link.payee.books.ledger.account(&issuer());
    assert_eq!((account.void, account.opened, account.unopened), (10, 10, 0));
}

#[test]
fn no_window_comes_twice_when_all_are_settled_and_forgotten() {
    let mut link = Link::new(16);
    link.work(512);
    link.finish();
    let (window, paid) = (link.claims[0].window, link.claims[0].winners());
    link.recipient.settled(window, Settlement { paid }, &mut link.payee.books);
    link.pump();
    link.crash_recipient();
    link.connect();
    assert_eq!(link.recipient.current_window(), Some(WindowNumber(window.0 + 1)));
    assert!(link.errors.is_empty());
}

#[test]
fn a_recipient_that_lost_its_series_opens_a_window_above_what_its_issuer_knows() {
    let mut link = Link::new(40);
    // Windows without winners are never claimed: the chain knows of none.
    for window in 1..=600 {
        let commitment = tombola_tickets::Commitment::from_bytes([7; 32]);
        link.issuer.commitment(WindowNumber(window), commitment, &mut link.payer.books).unwrap();
    }
    link.crash_recipient();
    link.connect();
    link.connect();
    assert!(link.recipient.current_window().unwrap() > WindowNumber(600));
    link.work(256);
    assert_eq!(link.accepted.len(), 1, "{:?} {:?}", link.errors, link.refused);
}

#[test]
fn commitments_without_packets_fill_nothing() {
    let mut link = Link::new(41);
    link.pump();
    let before = link.payer.store.0.len();
    for window in 1..=20_000 {
        let commitment = tombola_tickets::Commitment::from_bytes([7; 32]);
        link.issuer.commitment(WindowNumber(window), commitment, &mut link.payer.books).unwrap();
        while link.issuer.poll_message(&link.payer.books).is_some() {}
        link.payer.commit(usize::MAX);
    }
    assert!(link.payer.store.0.len() <= before + 1, "{}", link.payer.store.0.len());
}

#[test]
fn a_claim_that_is_paid_in_part_is_no_risk_any_more() {
    let mut link = Link::new(1);
    link.work(1000);
    link.finish();
    let won: u32 = link.won.values().sum();
    assert!(won > 1);
    let books = &mut link.payee.books;
    let before = books.credit(issuer()).at_risk();
    link.recipient.settled(WindowNumber(0), Settlement { paid: 1 }, books);
    assert_eq!(before - books.credit(issuer()).at_risk(), u128::from(won) * common::price().face_value);
}

#[test]
fn an_outage_of_minutes_costs_no_list() {
    let mut link = Link::new(42);
    link.send_many(100);
    link.disconnect();
    link.wait(120);
    link.tick();
    link.connect();
    link.acks(usize::MAX);
    link.pump();
    assert_eq!(link.issuer.unsigned().len(), 100, "{:?}", link.errors);
    assert!(link.errors.is_empty() && link.issuer.withheld() == 0);
}

#[test]
fn an_acknowledgement_that_comes_after_half_a_minute_is_told_from_one_of_nothing() {
    let mut link = Link::new(46);
    link.send_many(20);
    link.acks(5);
    let (mut late, mut again) = (vec![], vec![]);
    let list = link.recipient.take_acks(usize::MAX, &mut late);
    link.wait(30);
    link.tick();
    assert_eq!(link.issuer.withheld(), 15);
    let now = link.now();
    assert_eq!(link.issuer.acknowledged(now, &late, &list), Err(IssuerError::Late));
    // The list is void, and what follows is paid for.
    link.connect();
    link.forwarded.clear();
    link.send_many(20);
    let list = link.recipient.take_acks(usize::MAX, &mut again);
    let now = link.now();
    assert_eq!(link.issuer.acknowledged(now, &again, &list), Ok(()));
    assert_eq!(
        link.issuer.acknowledged(now, &again, &list),
        Err(IssuerError::UnknownPacket),
        "it was listed"
    );
}

#[test]
fn void_lists_are_held_against_an_issuer_until_their_class_expires() {
    let mut link = Link::new(43);
    link.send_many(100);
    link.acks(usize::MAX);
    link.crash_issuer();
    link.connect();
    let worth = 100 * common::price().expected_value(1);
    assert_eq!(link.payee.books.credit(issuer()).at_risk(), worth);
    link.wait(common::price().expiry.0 + 1 - link.unix.0);
    link.pump();
    assert_eq!(link.payee.books.credit(issuer()).at_risk(), 0);
}

#[test]
fn the_end_of_a_window_is_said_again_until_it_is_confirmed() {
    for answer_is_lost in [false, true] {
        let mut link = Link::new(44);
        link.work(512);
        link.recipient.finish(&link.payee.books);
        if answer_is_lost {
            while link.recipient.poll_event(&mut link.payee.books).is_some() {}
            link.issuer.end(link.recipient.current_window().unwrap(), &link.payer.books);
            link.tick();
            link.payer.commit(usize::MAX);
        }
        // Whatever comes out now gets lost.
        while link.recipient.poll_event(&mut link.payee.books).is_some() {}
        while link.issuer.poll_message(&link.payer.books).is_some() {}
        for _ in 0..4 {
            link.wait(11);
            link.pump();
        }
        assert_eq!(link.claims.len(), 1, "{answer_is_lost}");
        assert!(link.errors.is_empty() && link.refused.is_empty());
    }
}

#[test]
fn a_claim_that_is_final_only_after_its_class_has_expired_is_paid() {
    let mut link = Link::new(45);
    link.work(1000);
    link.wait(common::price().expiry.0 - 600 - link.unix.0);
    link.pump();
    let won: u32 = link.won.values().sum();
    assert!(won > 0 && link.claims.len() == 1);
    link.wait(1500);
    link.pump();
    link.recipient.settled(link.claims[0].window, Settlement { paid: won }, &mut link.payee.books);
    let account = link.payee.books.ledger.account(&issuer());
    assert_eq!((account.paid.tickets, account.expired.tickets), (won.into(), 0));
    assert!(link.is_conserved() && link.recipient.is_settled());
}
