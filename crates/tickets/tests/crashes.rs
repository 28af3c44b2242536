//! Whatever is lost in a crash, no winner that counted is among it, no number is signed twice, and no window is used again
//! whose randomness has left.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use std::collections::BTreeMap;

use common::Link;
use proptest::prelude::*;
use tombola_tickets::{
    Books, Change, IssuerError, KeptWindows, RecordError, Restore, Table, WindowClaim, WindowNumber,
    records::tables,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(u16),
    Acks(u16),
    Open(u16),
    Wait(u16),
    Tick,
    CommitPayer(u8),
    CommitPayee(u8),
    Exchange,
    Disconnect,
    Connect,
    CrashPayer,
    CrashPayee,
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u16..300).prop_map(Step::Send),
        4 => (1_u16..400).prop_map(Step::Acks),
        4 => (1_u16..400).prop_map(Step::Open),
        2 => (1_u16..30).prop_map(Step::Wait),
        1 => (1000_u16..4000).prop_map(Step::Wait),
        6 => Just(Step::Tick),
        4 => (1_u8..6).prop_map(Step::CommitPayer),
        4 => (1_u8..12).prop_map(Step::CommitPayee),
        6 => Just(Step::Exchange),
        1 => Just(Step::Disconnect),
        3 => Just(Step::Connect),
        1 => Just(Step::CrashPayer),
        1 => Just(Step::CrashPayee),
        1 => Just(Step::Finish),
    ]
}

/// What was seen outside, and must hold for ever.
#[derive(Default)]
struct Seen {
    batches: BTreeMap<(WindowNumber, u8), Vec<u8>>,
    claims: BTreeMap<WindowNumber, WindowClaim>,
    at: (usize, usize, usize, usize),
}

impl Seen {
    fn check(&mut self, link: &Link) {
        let (batches, accepted, claims, commitments) = self.at;
        for batch in &link.batches[batches..] {
            let place = (batch.header.window, batch.header.number);
            let bytes = batch.to_bytes().to_vec();
            assert_eq!(*self.batches.entry(place).or_insert_with(|| bytes.clone()), bytes, "signed twice");
        }
        // What was claimed before this step.
        for batch in &link.accepted[accepted..] {
            assert!(!self.claims.contains_key(&batch.header.window), "accepted under a known r");
        }
        for window in &link.commitments[commitments..] {
            assert!(!self.claims.contains_key(window), "committed to a known r");
        }
        for claim in &link.claims[claims..] {
            let known = self.claims.entry(claim.window).or_insert_with(|| claim.clone());
            assert_eq!(known, claim, "a claim that is repeated is the same");
        }
        self.at = (link.batches.len(), link.accepted.len(), link.claims.len(), link.commitments.len());
        assert!(link.is_conserved());
    }

    fn check_end(&self, link: &Link) {
        for (window, won) in &link.won {
            let claimed = self.claims.get(window).map_or(0, WindowClaim::winners);
            assert!(claimed >= *won, "window {}: {claimed} of {won} winners were claimed", window.0);
        }
        link.verify_claims();
    }
}

fn run(link: &mut Link, steps: &[Step]) {
    let mut seen = Seen::default();
    for step in steps {
        match *step {
            Step::Send(packets) => (0..packets).for_each(|_| {
                let _ = link.send();
            }),
            Step::Acks(most) => link.acks(most.into()),
            Step::Open(most) => link.open(most.into()),
            Step::Wait(seconds) => link.wait(seconds.into()),
            Step::Tick => link.tick(),
            Step::CommitPayer(most) => drop(link.payer.commit(most.into())),
            Step::CommitPayee(most) => drop(link.payee.commit(most.into())),
            Step::Exchange => drop(link.exchange()),
            Step::Disconnect => link.disconnect(),
            Step::Connect => link.begin_connect(),
            Step::CrashPayer => link.crash_issuer(),
            Step::CrashPayee => link.crash_recipient(),
            Step::Finish => link.recipient.finish(&link.payee.books),
        }
        if !link.up {
            link.disconnect();
        }
        seen.check(link);
    }
    link.pump();
    link.connect();
    // An acknowledgement that comes after half a minute is refused, and the list void.
    link.acks(usize::MAX);
    link.connect();
    link.finish();
    seen.check(link);
    // Whatever was not confirmed is claimed before it expires.
    let expiry = common::price().expiry;
    if link.unix < expiry {
        link.wait(expiry.0 - link.unix.0);
        link.pump();
        seen.check(link);
        seen.check_end(link);
    }
    assert!(link.errors.iter().all(|error| *error == IssuerError::UnknownPacket), "{:?}", link.errors);
    // Whatever came again or too late, both were honest.
    assert!(link.refused.iter().all(|refused| !refused.is_fault()), "{:?}", link.refused);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_is_lost_and_nothing_used_twice(seed: u8, steps in prop::collection::vec(step(), 1..80)) {
        let mut link = Link::new(seed);
        run(&mut link, &steps);
    }
}

/// One change is made durable at a time, and everything is killed after each.
#[test]
fn a_crash_after_any_change_loses_no_winner() {
    let mut link = Link::new(1);
    let mut crashes = 0;
    for round in 0..10_u32 {
        for _ in 0..200 {
            let _ = link.send();
        }
        link.open(150);
        link.acks(180);
        if round == 5 {
            link.recipient.finish(&link.payee.books);
        }
        link.wait(11);
        loop {
            link.tick();
            let written = link.payer.commit(1) + link.payee.commit(1);
            let any = link.exchange();
            if written == 0 && !any {
                break;
            }
            let mut seen = Seen::default();
            seen.check(&link);
            let mut after = Link::on(&link.payer.store, &link.payee.store, &link);
            after.won = link.won.clone();
            seen.at = (link.batches.len(), 0, 0, link.commitments.len());
            after.connect();
            seen.check(&after);
            after.work(256);
            after.finish();
            after.wait(85_000);
            after.pump();
            seen.check(&after);
            seen.check_end(&after);
            assert!(after.errors.is_empty(), "{:?}", after.errors);
            assert!(after.refused.iter().all(|refused| !refused.is_fault()), "{:?}", after.refused);
            crashes += 1;
        }
    }
    assert!(crashes > 40 && link.won.values().sum::<u32>() > 5, "{crashes}");
    assert!(!link.claims.is_empty());
}

#[test]
fn what_was_kept_is_claimed_without_the_machines() {
    let mut link = Link::new(3);
    link.work(3000);
    link.pump();
    let mut kept = link.payee.store.restore();
    let windows = kept.won_windows();
    let won: u32 = windows.iter().map(|window| window.winners).sum();
    assert_eq!(won, link.won.values().sum::<u32>());
    assert!(won > 5 && windows.iter().any(|window| !window.claimed), "{windows:?}");
    assert!(kept.is_claimable_with(&common::SECRET, &common::domain()));
    assert!(!kept.is_claimable_with(&[0xee; 32], &common::domain()), "won with another secret");
    let mut seen = Seen { at: (link.batches.len(), 0, 0, link.commitments.len()), ..Seen::default() };
    let mut store = common::Store(link.payee.store.0.clone());
    let mut followed = KeptWindows::new(&kept);
    assert_eq!(followed.won_windows(), windows);
    for window in &windows {
        let claim = kept.claim_of(window, &common::SECRET, &common::domain()).unwrap();
        assert_eq!(claim.winners(), window.winners);
        for change in kept.mark_claimed(window) {
            assert!(followed.apply(&change));
            store.apply(change);
        }
        seen.claims.insert(window.window, claim.clone());
        link.claims.push(claim);
    }
    link.verify_claims();
    assert!(store.restore().won_windows().iter().all(|window| window.claimed));
    assert_eq!(followed.won_windows(), store.restore().won_windows());
    // The machines that come after take nothing more under what has left, and claim the same.
    let mut after = Link::on(&link.payer.store, &store, &link);
    seen.at = (link.batches.len(), 0, 0, link.commitments.len());
    after.connect();
    seen.check(&after);
    after.work(1000);
    after.finish();
    seen.check(&after);
    assert!(windows.iter().all(|window| after.claims.iter().any(|claim| claim.window == window.window)));
    // When it is final nothing of it is left.
    for window in &windows {
        let amount = u128::from(window.winners) * common::FACE;
        for change in kept.forget_settled(window.issuer, window.window, common::FACE, amount) {
            followed.apply(&change);
            store.apply(change);
        }
        assert_eq!(followed.won_windows(), store.restore().won_windows());
    }
    assert_eq!(store.restore().won_windows(), []);
    // What it came to is in the books of whoever earns next; saying it twice changes nothing.
    let first = windows[0];
    let again = kept.forget_settled(first.issuer, first.window, common::FACE, 0);
    assert!(!again.iter().any(|change| matches!(change, Change::Put { .. })), "it counts once");
    let books = Books::restore(common::domain(), 0, &store.restore());
    let account = books.ledger.account(&common::issuer());
    assert_eq!(
        (account.paid.tickets, account.won.tickets, account.lost.tickets),
        (won.into(), won.into(), 0)
    );
    assert!(account.is_conserved());
    let of_winners =
        |(table, _): &&(Table, Vec<u8>)| [tables::WON, tables::WINNERS, tables::ACCEPTED].contains(table);
    assert_eq!(store.0.keys().filter(of_winners).count(), 0);
}

#[test]
fn damaged_records_are_errors_and_never_passed_over() {
    let mut link = Link::new(2);
    link.work(1024);
    let mut fed = [0; tables::ALL.len()];
    for ((table, key), value) in link.payer.store.0.iter().chain(&link.payee.store.0) {
        fed[usize::from(table.0) - 1] += 1;
        let feed = |key: &[u8], value: &[u8]| Restore::default().feed(*table, key, value);
        assert_eq!(feed(key, value), Ok(()));
        let mut newer = value.clone();
        newer[0] = 2;
        assert_eq!(feed(key, &newer), Err(RecordError::Version(*table)));
        for end in 0..value.len() {
            // Whole siblings fewer: noticed when the batch is known.
            if *table != tables::WINNERS || end < 17 || (end - 17) % 20 != 0 {
                assert_eq!(feed(key, &value[..end]), Err(RecordError::Damaged(*table)));
            }
        }
        assert_eq!(feed(&key[1..], value), Err(RecordError::Damaged(*table)));
        assert_eq!(feed(key, &[&value[..], &[0]].concat()), Err(RecordError::Damaged(*table)));
    }
    // Everything is received; nothing is over, or was lost.
    assert!((0..fed.len()).all(|at| (fed[at] > 0) != [0, 6, 7].contains(&at)), "{fed:?}");
    assert_eq!(Restore::default().feed(Table(10), &[], &[1]), Err(RecordError::Table(Table(10))));
}

/// The batch is on disk and its window does not count it; then the batch is received and forgotten, and the next crash comes.
#[test]
fn a_number_is_not_used_again_after_two_crashes() {
    let mut link = Link::new(9);
    link.work(256);
    let signed = link.batches.len();
    link.send_many(256);
    link.acks(usize::MAX);
    link.tick();
    // The batch, and nothing behind it.
    assert_eq!(link.payer.commit(1), 1);
    link.crash_issuer();
    link.connect();
    link.pump();
    link.crash_issuer();
    link.connect();
    link.work(512);
    let mut numbers: Vec<_> =
        link.batches.iter().map(|batch| (batch.header.window, batch.header.number)).collect();
    assert!(numbers.len() > signed + 1);
    let bytes: std::collections::BTreeSet<_> = link.batches.iter().map(|batch| batch.to_bytes()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), bytes.len(), "a number was signed twice");
}
