//! Random claims, sound and broken, through both.

use std::collections::BTreeMap;

use tombola_mixing::Rng;
use tombola_tickets::{ClassNumber, EscrowView, PriceClass, UnixSeconds, WinProbability, encode};

use crate::claims::{pick, small, windows};
use crate::mutations::{Claim, MUTATIONS};
use crate::world::{GENESIS, Recipient, World};

/// Sound claims, each of which is broken in several ways.
const CLAIMS: usize = 300;
const MUTATIONS_OF_EACH: usize = 12;
/// A time in which all classes are valid.
const NOW: UnixSeconds = UnixSeconds(GENESIS.0 + 20_000);

/// What no claim is paid after.
const NEVER_PAID: [&str; 15] = [
    "again",
    "truncate by one",
    "append",
    "append zeros",
    "nothing is claimed",
    "no batch",
    "no winner",
    "high s",
    "the other parity",
    "no signature",
    "repeat a window",
    "repeat a batch",
    "repeat a winner",
    "an inner node as a leaf",
    "another tree",
];

/// How often the contract said what, and what was done to the claims that were paid.
#[derive(Debug, Default)]
struct Tally {
    paid: usize,
    refused: usize,
    reasons: BTreeMap<&'static str, usize>,
    paid_after: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// Both must agree.
    fn compare(
        &mut self,
        world: &mut World,
        what: &'static str,
        recipient: Recipient,
        claims: &[u8],
        now: UnixSeconds,
        keep: bool,
    ) -> bool {
        let model = world.model(recipient, claims, now);
        let contract = world.contract(recipient, claims, now, keep);
        match (&model, &contract) {
            (Ok(model), Ok(contract)) if model == contract => {
                self.paid += 1;
                *self.paid_after.entry(what).or_default() += 1;
            }
            (Err(_), Err(reason)) => {
                self.refused += 1;
                *self.reasons.entry(reason).or_default() += 1;
            }
            _ => panic!(
                "{what}: the model says {model:?}, the contract {contract:?}, at {}, for {}, of 0x{}, after {self:#?}",
                now.0,
                recipient.account,
                alloy_primitives::hex::encode(claims)
            ),
        }
        contract.is_ok()
    }
}

/// Mostly when all classes are valid, else at an edge of one.
fn any_time(world: &World, rng: &mut Rng, class: ClassNumber) -> UnixSeconds {
    if rng.below(10) != 0 {
        return NOW;
    }
    let class = world.state.class(class).unwrap();
    let (from, to) = (class.valid_from.0, class.expiry.0);
    UnixSeconds(*pick(rng, &[from - 1, from, to, to + 1]))
}

#[test]
fn the_contract_and_the_model_agree_on_every_claim() {
    let mut world = World::new();
    let mut rng = Rng::from_seed([0x70; 32]);
    let mut tally = Tally::default();
    for _ in 0..CLAIMS {
        let recipient = *pick(&mut rng, &world.recipients);
        let windows = windows(&world, &mut rng, recipient);
        let now = any_time(&world, &mut rng, windows[0].class);
        let sound = encode(&windows).unwrap();
        for _ in 0..MUTATIONS_OF_EACH {
            let mut claim = Claim { windows: windows.clone(), recipient };
            let (what, mutate) = *pick(&mut rng, &MUTATIONS);
            let bytes =
                mutate(&world, &mut rng, &mut claim).unwrap_or_else(|| encode(&claim.windows).unwrap());
            tally.compare(&mut world, what, claim.recipient, &bytes, now, false);
        }
        // Last, because it may be remembered.
        let keep = small(&mut rng, 2) == 0;
        if tally.compare(&mut world, "nothing", recipient, &sound, now, keep) && keep {
            let keys = windows.iter().map(|window| (window.issuer, recipient.account, window.window));
            world.state.claimed.extend(keys);
            tally.compare(&mut world, "again", recipient, &sound, now, false);
        }
    }

    assert!(tally.paid > 300 && tally.refused > 2000, "{tally:#?}");
    for (reason, least) in [
        ("InvalidLength", 50),
        ("TooEarly", 10),
        ("Expired", 50),
        ("WindowClaimed", 50),
        ("SignerUnknown", 100),
        ("SignerRevoked", 5),
        ("TooLittle", 20),
        ("NothingClaimed", 100),
        ("BatchOrder", 50),
        ("TicketOrder", 50),
        ("RootMismatch", 5),
        ("InvalidSignature", 50),
        ("NoWin", 10),
    ] {
        assert!(tally.reasons.get(reason).is_some_and(|times| *times >= least), "{reason}: {tally:#?}");
    }
    for never in NEVER_PAID {
        assert!(!tally.paid_after.contains_key(never), "{never}: {tally:#?}");
    }
}

/// What a class must be for either: the model's probability has the contract's bound, and the contract has no class that
/// pays nothing.
#[test]
fn classes_that_pay_nothing_or_too_often_are_not_registered() {
    let mut world = World::new();
    let class = |face_value, probability| PriceClass {
        face_value,
        win_probability: WinProbability::new(probability).unwrap(),
        valid_from: GENESIS,
        expiry: UnixSeconds(GENESIS.0 + 1),
        epoch: 0,
    };
    for pays_nothing in [class(0, 1), class(1, 0), class(0, 0)] {
        assert_eq!(world.register(pays_nothing), Err("InvalidClass"));
    }
    assert!(world.register(class(1, 1)).is_ok());
    assert!(world.register(class(u128::MAX, 1 << 58)).is_ok());
    assert!(WinProbability::new((1 << 58) + 1).is_err());
    assert_eq!(world.try_register(&class(1, 1 << 58), (1 << 58) + 1), Err("InvalidClass"));
}
