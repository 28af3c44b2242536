//! A batch that comes again because a side was killed, or because an answer got lost: an honest issuer is told that it need not
//! keep it, and nothing is held against it. Another batch under the same number is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use std::collections::BTreeMap;

use common::{LIMITS, Link, Store, domain, issuer, key, recipient_link};
use tombola_tickets::{
    BatchRefused, IssuerMessage, Recipient, RecipientMessage, Salt, Settlement, SignedBatch, WindowNumber,
    records::tables,
};

/// How far a batch has come when somebody is killed, or the link breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Signed,
    OnTheIssuersDisk,
    /// Accepted, and not on the recipient's disk.
    Accepted,
    OnTheRecipientsDisk,
    /// The answer was heard; that the batch need not be kept is not on the issuer's disk.
    Answered,
}

const STAGES: [Stage; 5] =
    [Stage::Signed, Stage::OnTheIssuersDisk, Stage::Accepted, Stage::OnTheRecipientsDisk, Stage::Answered];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    Nobody,
    Issuer,
    Recipient,
    Both,
}

const KILLED: [Killed; 4] = [Killed::Nobody, Killed::Issuer, Killed::Recipient, Killed::Both];

/// Two batches are accepted, and a third one has come so far.
fn at(stage: Stage, seed: u8) -> Link {
    let mut link = Link::new(seed);
    link.work(512);
    link.send_many(256);
    link.open(usize::MAX);
    link.acks(usize::MAX);
    link.tick();
    if stage == Stage::Signed {
        return link;
    }
    link.payer.commit(usize::MAX);
    if stage == Stage::OnTheIssuersDisk {
        return link;
    }
    link.exchange();
    assert_eq!((link.accepted.len(), kept(&link.payer.store, tables::SIGNED)), (3, 1));
    if stage == Stage::Accepted {
        return link;
    }
    link.payee.commit(usize::MAX);
    if stage == Stage::OnTheRecipientsDisk {
        return link;
    }
    link.exchange();
    assert_eq!(kept(&link.payer.store, tables::SIGNED), 1);
    link
}

fn kill(link: &mut Link, killed: Killed) {
    link.disconnect();
    if matches!(killed, Killed::Issuer | Killed::Both) {
        link.crash_issuer();
    }
    if matches!(killed, Killed::Recipient | Killed::Both) {
        link.crash_recipient();
    }
}

/// The link is up again, but what the recipient answers gets lost.
fn connect_in_vain(link: &mut Link) {
    link.begin_connect();
    link.payer.commit(usize::MAX);
    link.exchange_one_way();
    link.payee.commit(usize::MAX);
    link.disconnect();
}

fn kept(store: &Store, table: tombola_tickets::Table) -> usize {
    store.0.keys().filter(|(of, _)| *of == table).count()
}

/// What a recipient must say to a batch that comes again.
fn expected(stage: Stage, killed: Killed) -> Option<BatchRefused> {
    let recipient_lost = matches!(killed, Killed::Recipient | Killed::Both);
    let issuer_lost = matches!(killed, Killed::Issuer | Killed::Both);
    match stage {
        // It never left, and nobody knows of it.
        Stage::Signed if issuer_lost => None,
        Stage::Signed | Stage::OnTheIssuersDisk => recipient_lost.then_some(BatchRefused::Over),
        Stage::Accepted if recipient_lost => Some(BatchRefused::Over),
        Stage::Accepted | Stage::OnTheRecipientsDisk => Some(BatchRefused::Repeated),
        Stage::Answered => issuer_lost.then_some(BatchRefused::Repeated),
    }
}

#[test]
fn whoever_is_killed_when_the_batch_comes_again_and_nothing_is_held_against_anybody() {
    for (stage, killed) in STAGES.into_iter().flat_map(|stage| KILLED.map(|killed| (stage, killed))) {
        let mut link = at(stage, 50);
        kill(&mut link, killed);
        link.connect();
        let case = format!("{stage:?}, {killed:?}: {:?} {:?}", link.refused, link.errors);
        assert_eq!(link.refused.first().copied(), expected(stage, killed), "{case}");
        assert!(link.refused.len() <= 1 && link.refused.iter().all(|one| !one.is_fault()), "{case}");
        assert_eq!(kept(&link.payer.store, tables::SIGNED), 0, "it need not be kept: {case}");
        goes_on(&mut link, &case);
    }
}

#[test]
fn whoever_is_killed_when_and_the_answer_gets_lost_it_is_given_again() {
    for (stage, killed) in STAGES.into_iter().flat_map(|stage| KILLED.map(|killed| (stage, killed))) {
        // Whoever comes back is killed once more, or only the link breaks.
        for again in KILLED {
            let mut link = at(stage, 51);
            kill(&mut link, killed);
            connect_in_vain(&mut link);
            kill(&mut link, again);
            link.connect();
            let case = format!("{stage:?}, {killed:?}, {again:?}: {:?} {:?}", link.refused, link.errors);
            assert!(link.refused.iter().all(|refused| !refused.is_fault()), "{case}");
            assert_eq!(kept(&link.payer.store, tables::SIGNED), 0, "it need not be kept: {case}");
            goes_on(&mut link, &case);
        }
    }
}

/// Packets are paid for as ever, and what was won is claimed.
fn goes_on(link: &mut Link, case: &str) {
    link.forwarded.clear();
    let (batches, refused) = (link.accepted.len(), link.refused.len());
    link.work(256);
    assert_eq!((link.accepted.len(), link.refused.len()), (batches + 1, refused), "{case}");
    let mut numbers = BTreeMap::new();
    for batch in &link.accepted {
        let place = (batch.header.window, batch.header.number);
        assert_eq!(numbers.insert(place, batch.to_bytes()), None, "accepted twice: {case}");
    }
    link.finish();
    assert!(link.errors.is_empty() && link.is_conserved(), "{case}");
    assert_eq!(link.verify_claims(), link.claims.iter().map(|claim| claim.winners()).sum::<u32>(), "{case}");
}

/// Few packets in each batch, so that not every batch has a winner.
fn work_in_small_batches(link: &mut Link, batches: usize) {
    for _ in 0..batches {
        link.send_many(16);
        link.open(usize::MAX);
        link.acks(usize::MAX);
        link.wait(10);
        link.pump();
    }
}

/// The same number and window, signed by its issuer.
fn sign_again(batch: &SignedBatch, change: impl FnOnce(&mut tombola_tickets::BatchHeader)) -> SignedBatch {
    let mut header = batch.header;
    change(&mut header);
    header.sign(&domain(), &key())
}

fn salted(batch: &SignedBatch) -> SignedBatch {
    sign_again(batch, |header| header.salt = Salt::from_bytes([0xee; 16]))
}

fn offer(link: &mut Link, batch: &SignedBatch) -> Result<(), BatchRefused> {
    let now = link.now();
    link.recipient.batch(now, batch, &mut link.payee.books)
}

/// The windows that the recipient says were received, and how far.
fn answers(link: &mut Link) -> Vec<(WindowNumber, u16)> {
    link.payee.commit(usize::MAX);
    let mut answers = vec![];
    while let Some(event) = link.recipient.poll_event(&mut link.payee.books) {
        if let tombola_tickets::Event::Message(RecipientMessage::Received { window, next }) = event {
            answers.push((window, next));
        }
    }
    answers
}

#[test]
fn a_number_that_was_signed_twice_is_a_fault_however_old_it_is_and_also_after_a_restart() {
    let mut link = Link::new(52);
    work_in_small_batches(&mut link, 8);
    let accepted = link.accepted.clone();
    assert_eq!(kept(&link.payee.store, tables::ACCEPTED), 8);
    assert!((1..8).contains(&kept(&link.payee.store, tables::WON)), "with winners, and without");
    for restarted in [false, true] {
        if restarted {
            link.crash_recipient();
        }
        for batch in &accepted {
            let next = u16::from(batch.header.number) + 1;
            assert_eq!(offer(&mut link, batch), Err(BatchRefused::Repeated), "{restarted} {next}");
            assert_eq!(answers(&mut link), [(batch.header.window, 8)], "all eight are here");
            assert_eq!(offer(&mut link, &salted(batch)), Err(BatchRefused::Conflict), "{restarted} {next}");
            assert_eq!(answers(&mut link), [], "it is not acknowledged");
        }
    }
    assert!(BatchRefused::Conflict.is_fault() && !BatchRefused::Repeated.is_fault());
    // Claimed or not.
    let link = &mut Link::on(&link.payer.store, &link.payee.store, &link);
    link.connect();
    link.finish();
    assert!(link.claims.iter().any(|claim| claim.window == accepted[0].header.window));
    assert_eq!(offer(link, &salted(&accepted[0])), Err(BatchRefused::Conflict));
    assert_eq!(offer(link, &accepted[0]), Err(BatchRefused::Repeated));
}

#[test]
fn what_is_not_known_of_a_window_that_was_restored_is_not_taken_on_trust() {
    let mut link = Link::new(53);
    link.work(512);
    let last = *link.accepted.last().unwrap();
    link.crash_recipient();
    let other = tombola_tickets::Commitment::from_bytes([1; 32]);
    let wrong = sign_again(&last, |header| (header.number, header.commitment) = (2, other));
    assert_eq!(offer(&mut link, &wrong), Err(BatchRefused::Commitment));
    // It was signed when the process ended, and its tickets went with it: it wins nothing.
    let late = sign_again(&last, |header| header.number = 2);
    assert_eq!(offer(&mut link, &late), Err(BatchRefused::Over));
    assert_eq!(answers(&mut link), [(last.header.window, 3)]);
    // The issuer itself has said that the window ends before.
    link.recipient.closed(last.header.window, 2);
    assert_eq!(offer(&mut link, &late), Err(BatchRefused::NoWindow));
    assert!(BatchRefused::NoWindow.is_fault() && BatchRefused::Commitment.is_fault());
    assert_eq!(answers(&mut link), []);
}

#[test]
fn a_batch_of_a_window_that_was_settled_or_deleted_or_left_out_need_not_be_kept() {
    for wins in [true, false] {
        let mut link = Link::new(54);
        if wins {
            link.work(1024);
        } else {
            link.send_many(1);
            link.acks(1);
            link.wait(11);
            link.pump();
        }
        let batch = link.accepted[0];
        link.finish();
        if wins {
            let (window, paid) = (link.claims[0].window, link.claims[0].winners());
            link.recipient.settled(window, Settlement { paid }, &mut link.payee.books);
            link.pump();
        }
        assert_eq!(kept(&link.payee.store, tables::WINDOWS), 0, "{wins}");
        assert_eq!(kept(&link.payee.store, tables::ACCEPTED), 0, "{wins}: what was accepted goes with it");
        for restarted in [false, true] {
            if restarted {
                link.crash_recipient();
            }
            assert_eq!(offer(&mut link, &batch), Err(BatchRefused::Over), "{wins} {restarted}");
            assert_eq!(answers(&mut link).len(), 1);
        }
    }
    // Left out after a loss.
    let mut link = Link::new(55);
    link.work(256);
    let batch = link.accepted[0];
    link.payee.books.skip_windows(issuer(), Some(WindowNumber(600)));
    link.recipient = Recipient::new(recipient_link(), LIMITS, common::SECRET);
    assert_eq!(offer(&mut link, &batch), Err(BatchRefused::Over));
    // Never opened: both have agreed, so this would be known.
    link.connect();
    let never = sign_again(&batch, |header| header.window.0 = 2000);
    assert_eq!(offer(&mut link, &never), Err(BatchRefused::NoWindow));
}

#[test]
fn a_recipient_that_lost_its_disk_holds_nothing_against_an_issuer_that_knows_more() {
    for stage in STAGES {
        let mut link = at(stage, 56);
        let used = link.accepted[0].header.window;
        link.disconnect();
        link.payee.store = Store::default();
        link.crash_recipient();
        // It does not know yet that there was such a window, and may begin with it again.
        link.connect();
        let case = format!("{stage:?}: {:?} {:?}", link.refused, link.errors);
        let again = usize::from(stage != Stage::Answered);
        assert_eq!(link.refused, [BatchRefused::Over; 1][..again], "{case}");
        assert_eq!(kept(&link.payer.store, tables::SIGNED), 0, "{case}");
        assert!(link.recipient.current_window() > Some(used), "{case}");
        goes_on(&mut link, &case);
    }
}

#[test]
fn a_batch_that_is_signed_when_its_window_is_claimed_is_forfeited_and_no_fault() {
    // The class expires soon: the window is claimed whatever its issuer says, which has signed and was not heard.
    let mut link = Link::new(57);
    link.work(1024);
    link.send_many(256);
    link.acks(usize::MAX);
    link.disconnect();
    link.pump();
    let late = link.batches.len();
    link.wait(common::price().expiry.0 - 600 - link.unix.0);
    link.pump();
    assert_eq!(link.claims.len(), 1);
    link.connect();
    assert_eq!(link.batches.len(), late + 1, "it comes again");
    assert_eq!(link.refused, [BatchRefused::Claimed]);
    assert!(!BatchRefused::Claimed.is_fault() && link.errors.is_empty());
    assert_eq!(kept(&link.payer.store, tables::SIGNED), 0);
    assert_eq!(link.verify_claims(), link.won.values().sum::<u32>());
}

#[test]
fn a_batch_that_gets_lost_on_the_way_makes_the_next_one_no_fault() {
    let mut link = Link::new(58);
    link.send_many(512);
    link.acks(usize::MAX);
    link.tick();
    link.payer.commit(usize::MAX);
    let lost = link.issuer.poll_message(&link.payer.books);
    assert!(matches!(lost, Some(IssuerMessage::Batch(_))));
    link.pump();
    assert_eq!(link.refused, [BatchRefused::Number { expected: 0 }]);
    assert!(!link.refused[0].is_fault() && link.accepted.is_empty());
    link.connect();
    assert_eq!((link.accepted.len(), link.refused.len()), (2, 1), "{:?}", link.refused);
}

/// Regression: nothing was said to a batch whose window had ended because its key does not sign for the issuer, so that it was
/// sent again for ever.
#[test]
fn a_batch_of_a_stranger_is_let_go_though_the_answer_gets_lost() {
    let mut link = Link::new(59);
    link.work(256);
    link.key = tombola_tickets::SignerKey::from_bytes(&[9; 32]).unwrap();
    link.send_many(256);
    link.acks(usize::MAX);
    link.pump();
    assert_eq!(link.refused, [BatchRefused::Signer]);
    link.disconnect();
    link.key = key();
    connect_in_vain(&mut link);
    link.connect();
    assert_eq!(link.refused, [BatchRefused::Signer, BatchRefused::Signer, BatchRefused::Over]);
    assert_eq!(kept(&link.payer.store, tables::SIGNED), 0);
    goes_on(&mut link, "");
}

/// Versions before this one kept no digests: of what they left, batches with winners are known.
#[test]
fn what_earlier_versions_kept_is_read_and_nothing_in_it_is_held_against_anybody() {
    let mut link = Link::new(60);
    work_in_small_batches(&mut link, 20);
    let won: u32 = link.won.values().sum();
    let accepted = link.accepted.clone();
    link.payee.store.0.retain(|(table, _), _| *table != tables::ACCEPTED);
    let with_winners: Vec<u8> = link
        .payee
        .store
        .0
        .keys()
        .filter(|(table, _)| *table == tables::WON)
        .map(|(_, key)| key[24])
        .collect();
    assert!((2..=18).contains(&with_winners.len()), "{with_winners:?}");
    link.crash_recipient();
    for batch in &accepted {
        let known = with_winners.contains(&batch.header.number);
        let same = if known { BatchRefused::Repeated } else { BatchRefused::Over };
        let other = if known { BatchRefused::Conflict } else { BatchRefused::Over };
        assert_eq!(offer(&mut link, batch), Err(same), "{known}");
        assert_eq!(offer(&mut link, &salted(batch)), Err(other), "{known}");
    }
    link.connect();
    link.forwarded.clear();
    link.work(256);
    link.finish();
    assert!(link.verify_claims() >= won && link.errors.is_empty(), "{won}");
}
