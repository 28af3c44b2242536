//! Claims: written, read, and checked as the escrow checks them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use proptest::prelude::*;
use tombola_tickets::{
    Address, BatchClaim, BatchHeader, CallError, Challenge, ClassNumber, DecodeError, Domain, EncodeError,
    EscrowView, Node, Opener, PathError, PriceClass, Randomness, Salt, SignatureError, SignedBatch,
    SignerKey, TicketCount, UnixSeconds, VerifyError, WinProbability, WindowClaim, WindowNumber,
    WindowWinners, WinnerClaim, calldata, calldata_tokens, decode, decode_calldata, encode, encoded_len,
    merkle, verify, wins,
};

const CLASS: ClassNumber = ClassNumber(3);
const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const RECIPIENT: Address = Address::repeat_byte(2);
const TICKETS: usize = 200;

fn domain() -> Domain {
    Domain::new(31337, Address::repeat_byte(0xe5))
}

fn key() -> SignerKey {
    SignerKey::from_bytes(&[7; 32]).unwrap()
}

/// An escrow in which issuers sign for themselves.
struct Escrow {
    class: PriceClass,
    claimed: Vec<WindowNumber>,
}

impl EscrowView for Escrow {
    fn class(&self, number: ClassNumber) -> Option<PriceClass> {
        (number == CLASS).then_some(self.class)
    }

    fn is_signer(&self, issuer: Address, signer: Address, _: &PriceClass) -> bool {
        issuer == signer
    }

    fn is_claimed(&self, issuer: Address, recipient: Address, window: WindowNumber) -> bool {
        issuer == key().address() && recipient == RECIPIENT && self.claimed.contains(&window)
    }
}

fn escrow() -> Escrow {
    let class = PriceClass {
        face_value: 1000,
        win_probability: WinProbability::MAX,
        valid_from: UnixSeconds(NOW.0 - 10),
        expiry: NOW,
        epoch: 1,
    };
    Escrow { class, claimed: Vec::new() }
}

fn opener(at: usize) -> Opener {
    Opener::from_bytes(*bytes_of(at).first_chunk().unwrap())
}

/// Something that looks random.
fn bytes_of(at: usize) -> [u8; 20] {
    *Opener::from_bytes([u8::try_from(at).unwrap(); 16]).challenge().as_bytes()
}

fn leaves(count: usize) -> Vec<Challenge> {
    (0..count).map(|at| opener(at).challenge()).collect()
}

fn randomness(window: u32) -> Randomness {
    Randomness::derive(&[8; 32], &domain(), &key().address(), WindowNumber(window))
}

fn batch(window: u32, number: u8, count: usize) -> SignedBatch {
    BatchHeader {
        issuer: key().address(),
        recipient: RECIPIENT,
        class: CLASS,
        window: WindowNumber(window),
        number,
        count: TicketCount::new(count).unwrap(),
        commitment: randomness(window).commitment(),
        root: merkle::root(&leaves(count)).unwrap(),
        salt: Salt::from_bytes([number; 16]),
    }
    .sign(&domain(), &key())
}

fn winners(batch: &SignedBatch) -> Vec<u8> {
    let digest = batch.header.digest(&domain());
    let r = randomness(batch.header.window.0);
    let wins = |k: &u8| wins(&digest, *k, &opener(usize::from(*k)), &r, WinProbability::MAX);
    (0..=batch.header.count.less_one()).filter(wins).collect()
}

fn claim_of(batch: &SignedBatch, tickets: &[u8]) -> BatchClaim {
    let tickets = tickets.iter().map(|k| (*k, opener(usize::from(*k))));
    BatchClaim::of(batch, &leaves(usize::from(batch.header.count.get())), tickets).unwrap()
}

/// A window whose batches that have at least two winners each are claimed: two of them.
fn window(number: u32) -> WindowClaim {
    let batches: Vec<_> = (0..=u8::MAX)
        .map(|at| batch(number, at, TICKETS))
        .map(|batch| (batch, winners(&batch)))
        .filter(|(_, winners)| winners.len() > 1)
        .take(2)
        .map(|(batch, winners)| claim_of(&batch, &winners))
        .collect();
    assert_eq!(batches.len(), 2);
    let least = u16::try_from(batches.iter().map(|batch| batch.winners.len()).sum::<usize>()).unwrap();
    WindowClaim {
        issuer: key().address(),
        class: CLASS,
        window: WindowNumber(number),
        randomness: randomness(number),
        least,
        batches,
    }
}

fn check(windows: &[WindowClaim], escrow: &Escrow) -> Result<Vec<WindowWinners>, VerifyError> {
    verify(&domain(), RECIPIENT, windows, NOW, escrow)
}

/// What the escrow says of a sound window after `change`.
fn changed(change: impl FnOnce(&mut WindowClaim)) -> VerifyError {
    let mut window = window(5);
    change(&mut window);
    check(&[window], &escrow()).unwrap_err()
}

#[test]
fn windows_pay_what_has_won() {
    let windows = [window(5), window(6)];
    let found = check(&windows, &escrow()).unwrap();
    for (window, found) in windows.iter().zip(&found) {
        let winners = u32::from(window.least);
        assert_eq!((found.window, found.winners), (window.window, winners));
        assert_eq!(found.value.to::<u64>(), u64::from(winners) * 1000);
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn a_window_is_paid_once() {
    let expected = Err(VerifyError::Claimed(WindowNumber(5)));
    assert_eq!(check(&[window(5), window(6), window(5)], &escrow()), expected);
    let escrow = Escrow { claimed: vec![WindowNumber(5)], ..escrow() };
    assert_eq!(check(&[window(5)], &escrow), expected);
    assert!(check(&[window(6)], &escrow).is_ok());
}

#[test]
fn a_window_is_paid_while_its_class_is_valid() {
    let late = UnixSeconds(NOW.0 + 1);
    let found = verify(&domain(), RECIPIENT, &[window(5)], late, &escrow());
    assert_eq!(found, Err(VerifyError::Expired(CLASS)));
    let early = UnixSeconds(NOW.0 - 11);
    let found = verify(&domain(), RECIPIENT, &[window(5)], early, &escrow());
    assert_eq!(found, Err(VerifyError::Early(CLASS)));
    let first = UnixSeconds(NOW.0 - 10);
    assert!(verify(&domain(), RECIPIENT, &[window(5)], first, &escrow()).is_ok());
    let unknown = ClassNumber(4);
    assert_eq!(changed(|window| window.class = unknown), VerifyError::NoClass(unknown));
}

#[test]
fn no_ticket_counts_twice() {
    let twice = |window: &mut WindowClaim| window.batches[1] = window.batches[0].clone();
    let number = window(5).batches[0].number;
    assert_eq!(changed(twice), VerifyError::BatchOrder(number));
    let later = window(5).batches[0].number;
    assert_eq!(changed(|window| window.batches.reverse()), VerifyError::BatchOrder(later));

    let winners = &window(5).batches[0].winners;
    let (first, last) = (winners[0].k, winners[winners.len() - 1].k);
    let again = |window: &mut WindowClaim| {
        let winners = &mut window.batches[0].winners;
        winners.push(winners[winners.len() - 1].clone());
    };
    assert_eq!(changed(again), VerifyError::TicketOrder { number, k: last });
    let swap = |window: &mut WindowClaim| {
        let winners = &mut window.batches[0].winners;
        winners.swap(0, 1);
    };
    assert_eq!(changed(swap), VerifyError::TicketOrder { number, k: first });
}

#[test]
fn what_is_empty_pays_nothing() {
    assert_eq!(check(&[], &escrow()), Err(VerifyError::Empty));
    assert_eq!(changed(|window| window.batches.clear()), VerifyError::Empty);
    assert_eq!(changed(|window| window.batches[1].winners.clear()), VerifyError::Empty);
}

#[test]
fn tickets_that_did_not_win_are_refused() {
    let batch = batch(5, 0, TICKETS);
    let won = winners(&batch);
    let lost = (0..200).find(|k| !won.contains(k)).unwrap();
    let found = changed(|window| window.batches = vec![claim_of(&batch, &[lost])]);
    assert_eq!(found, VerifyError::Lost { number: 0, k: lost });
}

#[test]
fn tickets_of_other_trees_are_refused() {
    let (number, k) = (window(5).batches[0].number, window(5).batches[0].winners[1].k);
    let other = |window: &mut WindowClaim| window.batches[0].winners[1].opener = Opener::from_bytes([9; 16]);
    assert_eq!(changed(other), VerifyError::Root { number, k });
    let longer =
        |window: &mut WindowClaim| window.batches[0].winners[0].siblings.push(Node::from_bytes([0; 20]));
    let error = PathError::Depth { expected: 8, found: 9 };
    assert_eq!(changed(longer), VerifyError::Path { number, error });
    let beyond = |window: &mut WindowClaim| window.batches[0].winners[0].k = 255;
    let error = PathError::Ticket { k: 255, count: 200 };
    assert_eq!(changed(beyond), VerifyError::Path { number, error });
}

#[test]
fn everything_that_was_signed_must_be_as_it_was_signed() {
    let expected = VerifyError::Signer(window(5).batches[0].number);
    assert_eq!(changed(|window| window.issuer = Address::ZERO), expected);
    assert_eq!(changed(|window| window.window = WindowNumber(7)), expected);
    assert_eq!(changed(|window| window.randomness = randomness(7)), expected);
    assert_eq!(changed(|window| window.batches[0].salt = Salt::from_bytes([0xee; 16])), expected);
    assert_eq!(changed(|window| window.batches[0].count = TicketCount::MAX), expected);
    let other = |window: &mut WindowClaim| window.batches[0].winners.truncate(1);
    let all_opened_alike = |window: &mut WindowClaim| {
        other(window);
        window.batches[0].winners[0].opener = Opener::from_bytes([9; 16]);
    };
    assert_eq!(changed(all_opened_alike), expected);
    let elsewhere = verify(&Domain::new(1, Address::ZERO), RECIPIENT, &[window(5)], NOW, &escrow());
    assert_eq!(elsewhere, Err(expected));
    let thief = verify(&domain(), Address::ZERO, &[window(5)], NOW, &escrow());
    assert_eq!(thief, Err(expected));
}

#[test]
fn least_may_not_be_more_than_has_won() {
    let winners = u32::from(window(5).least);
    let least = window(5).least + 1;
    assert_eq!(changed(|window| window.least = least), VerifyError::Least { least, winners });
}

#[test]
fn a_claim_has_the_bytes_of_the_specification() {
    let batch = batch(5, 0, 2);
    let claim = WindowClaim {
        issuer: key().address(),
        class: CLASS,
        window: WindowNumber(5),
        randomness: randomness(5),
        least: 1,
        batches: vec![claim_of(&batch, &[1])],
    };
    let expected = [
        key().address().as_slice(),
        &[0, 0, 0, 3, 0, 0, 0, 5],
        randomness(5).as_bytes(),
        &[0, 1, 1],
        &[0, 1],
        &[0; 16],
        batch.signature.as_bytes(),
        &[1],
        &[1],
        opener(1).as_bytes(),
        opener(0).challenge().as_bytes(),
    ]
    .concat();
    assert_eq!(encode(std::slice::from_ref(&claim)), Ok(expected.clone()));
    assert_eq!(encoded_len(std::slice::from_ref(&claim)), expected.len());

    let call = calldata(RECIPIENT, std::slice::from_ref(&claim)).unwrap();
    // The first bytes of the hash of "redeem(address,bytes)", then recipient, offset and length.
    assert_eq!(call[16..36], *RECIPIENT.as_slice());
    assert_eq!(call[67], 64);
    assert_eq!(usize::from(call[99]), expected.len());
    assert_eq!(call[100..100 + expected.len()], expected);
    assert_eq!(call.len() % 32, 4);
    assert_eq!(decode_calldata(&call), Ok((RECIPIENT, vec![claim])));
}

#[test]
fn calldata_is_counted_by_its_zeros() {
    assert_eq!(calldata_tokens(&[0, 0, 1, 255]), 10);
    assert_eq!(calldata_tokens(&[]), 0);
}

#[test]
fn what_does_not_fit_is_not_written() {
    let changed = |change: fn(&mut WindowClaim)| {
        let mut window = window(5);
        change(&mut window);
        encode(&[window]).unwrap_err()
    };
    assert_eq!(changed(|window| window.batches.clear()), EncodeError::Batches(0));
    let many = |window: &mut WindowClaim| window.batches = vec![window.batches[0].clone(); 256];
    assert_eq!(changed(many), EncodeError::Batches(256));
    assert_eq!(changed(|window| window.batches[0].winners.clear()), EncodeError::Winners(0));
    let many = |window: &mut WindowClaim| {
        let winner = window.batches[0].winners[0].clone();
        window.batches[0].winners = vec![winner; 256];
    };
    assert_eq!(changed(many), EncodeError::Winners(256));
    let short = |window: &mut WindowClaim| window.batches[0].winners[0].siblings.truncate(7);
    assert_eq!(changed(short), EncodeError::Siblings { expected: 8, found: 7 });
}

#[test]
fn every_beginning_of_a_claim_is_refused() {
    let bytes = encode(&[window(5)]).unwrap();
    for end in 1..bytes.len() {
        let found = decode(&bytes[..end]);
        assert!(matches!(found, Err(DecodeError::Truncated(at)) if at <= end), "{end}: {found:?}");
    }
    assert_eq!(decode(&[]), Ok(vec![]));
}

#[test]
fn broken_claims_are_refused_where_they_break() {
    let bytes = encode(&[window(5)]).unwrap();
    let with = |at: usize, part: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + part.len()].copy_from_slice(part);
        decode(&bytes)
    };
    assert_eq!(with(46, &[0]), Err(DecodeError::NoBatch(47)));
    assert_eq!(with(129, &[0]), Err(DecodeError::NoWinner(130)));
    let range = DecodeError::Signature { offset: 129, error: SignatureError::Range };
    assert_eq!(with(65, &[0; 32]), Err(range));
    let high = DecodeError::Signature { offset: 129, error: SignatureError::HighS };
    assert_eq!(with(97, &[0xff; 32]), Err(high));
}

#[test]
fn other_calls_are_refused() {
    let mut call = calldata(RECIPIENT, &[window(5)]).unwrap();
    assert!(matches!(decode_calldata(&call[..call.len() - 32]), Err(CallError::Abi(_))));
    assert!(matches!(decode_calldata(&[]), Err(CallError::Abi(_))));
    call[100 + 46] = 0;
    assert_eq!(decode_calldata(&call), Err(CallError::Claims(DecodeError::NoBatch(47))));
    call[0] ^= 1;
    assert!(matches!(decode_calldata(&call), Err(CallError::Abi(_))));
}

fn any_winner(count: TicketCount) -> impl Strategy<Value = WinnerClaim> {
    let siblings = prop::collection::vec(any::<[u8; 20]>().prop_map(Node::from_bytes), merkle::depth(count));
    (any::<u8>(), any::<[u8; 16]>(), siblings).prop_map(|(k, opener, siblings)| WinnerClaim {
        k,
        opener: Opener::from_bytes(opener),
        siblings,
    })
}

fn any_batch() -> impl Strategy<Value = BatchClaim> {
    let signature = key().sign(&tombola_tickets::Digest::from_bytes([1; 32]));
    (any::<u8>(), any::<u8>().prop_map(TicketCount::from_less_one), any::<[u8; 16]>()).prop_flat_map(
        move |(number, count, salt)| {
            prop::collection::vec(any_winner(count), 1..5).prop_map(move |winners| BatchClaim {
                number,
                count,
                salt: Salt::from_bytes(salt),
                signature,
                winners,
            })
        },
    )
}

fn any_window() -> impl Strategy<Value = WindowClaim> {
    let batches = prop::collection::vec(any_batch(), 1..4);
    (any::<[u8; 20]>(), any::<u32>(), any::<u32>(), any::<[u8; 16]>(), any::<u16>(), batches).prop_map(
        |(issuer, class, window, r, least, batches)| WindowClaim {
            issuer: issuer.into(),
            class: ClassNumber(class),
            window: WindowNumber(window),
            randomness: Randomness::from_bytes(r),
            least,
            batches,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn claims_are_read_as_they_were_written(windows in prop::collection::vec(any_window(), 0..3)) {
        let bytes = encode(&windows).unwrap();
        prop_assert_eq!(bytes.len(), encoded_len(&windows));
        prop_assert_eq!(&decode(&bytes).unwrap(), &windows);
        let call = calldata(RECIPIENT, &windows).unwrap();
        prop_assert_eq!(decode_calldata(&call).unwrap(), (RECIPIENT, windows));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(windows) = decode(&bytes) {
            prop_assert_eq!(encode(&windows).unwrap(), bytes);
        }
    }
}
