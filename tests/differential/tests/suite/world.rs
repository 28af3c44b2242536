//! An escrow with issuers, signers, recipients and classes, and the same as the model sees it.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::Address;
use tombola_tickets::{
    ClassNumber, Domain, EscrowView, PriceClass, SignerKey, UnixSeconds, VerifyError, WinProbability,
    WindowNumber, decode, verify,
};

use crate::chain::{ANYBODY, Chain, Escrow};

pub(crate) const GENESIS: UnixSeconds = UnixSeconds(1_800_000_000);
const CHAIN_ID: u64 = 31337;
const EPOCH_LENGTH: u32 = 86_400;
const DEPOSIT: u128 = 10_u128.pow(30);
const NO_CAP: u128 = u128::MAX;

/// When signers are revoked, and so much before most claims are made.
const START: UnixSeconds = UnixSeconds(GENESIS.0 + 1000);

pub(crate) struct Issuer {
    pub(crate) account: Address,
    /// Those that sign, at least for some classes.
    pub(crate) keys: Vec<SignerKey>,
}

#[derive(Clone, Copy)]
pub(crate) struct Recipient {
    pub(crate) account: Address,
    pub(crate) redeemer: Address,
}

/// What the escrow has stored, as the model is told.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) classes: Vec<PriceClass>,
    /// The last expiry of the classes for which a key signs for an issuer.
    signers: BTreeMap<(Address, Address), u64>,
    pub(crate) claimed: BTreeSet<(Address, Address, WindowNumber)>,
}

impl EscrowView for State {
    fn class(&self, number: ClassNumber) -> Option<PriceClass> {
        self.classes.get(usize::try_from(number.0).unwrap()).copied()
    }

    fn is_signer(&self, issuer: Address, signer: Address, class: &PriceClass) -> bool {
        let last_expiry = self.signers.get(&(issuer, signer));
        issuer == signer || last_expiry.is_some_and(|last| u64::from(class.expiry.0) <= *last)
    }

    fn is_claimed(&self, issuer: Address, recipient: Address, window: WindowNumber) -> bool {
        self.claimed.contains(&(issuer, recipient, window))
    }
}

pub(crate) struct World {
    pub(crate) chain: Chain,
    pub(crate) escrow: Address,
    pub(crate) domain: Domain,
    pub(crate) state: State,
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) recipients: [Recipient; 2],
    /// A key that signs for nobody.
    pub(crate) stranger: SignerKey,
}

fn key(number: u8) -> SignerKey {
    SignerKey::from_bytes(&[number; 32]).unwrap()
}

fn class(face_value: u128, win_probability: u64, from: u32, life: u32) -> PriceClass {
    PriceClass {
        face_value,
        win_probability: WinProbability::new(win_probability).unwrap(),
        valid_from: UnixSeconds(GENESIS.0 + from),
        expiry: UnixSeconds(GENESIS.0 + from + life),
        epoch: 0,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut chain = Chain::new(CHAIN_ID, START);
        let (escrow, token) = chain.deploy(GENESIS, EPOCH_LENGTH);
        let domain = Domain::new(CHAIN_ID, escrow);
        let separator = chain.send(ANYBODY, escrow, &Escrow::domainSeparatorCall {});
        assert_eq!(separator, domain.separator());
        let recipients = [(0xb1, 0xb1), (0xb2, 0xb3)].map(|(account, redeemer)| Recipient {
            account: Address::repeat_byte(account),
            redeemer: Address::repeat_byte(redeemer),
        });
        for Recipient { account, redeemer } in recipients {
            if account != redeemer {
                chain.send(account, escrow, &Escrow::setRedeemerCall { redeemer });
            }
        }
        let mut world = Self {
            chain,
            escrow,
            domain,
            state: State::default(),
            issuers: Vec::new(),
            recipients,
            stranger: key(99),
        };
        // One that signs for itself only; one with signers of every kind; one whose own key never signs.
        world.add_issuer(key(1).address(), vec![key(1)]);
        world.add_issuer(key(2).address(), vec![key(2), key(10), key(11), key(12), key(13)]);
        world.add_issuer(Address::repeat_byte(0xc1), vec![key(10), key(14)]);
        world.add_signer(1, 10, NO_CAP);
        world.revoke_signer(1, 10);
        world.add_signer(1, 11, NO_CAP);
        world.add_signer(1, 12, NO_CAP);
        world.add_signer(1, 13, DEPOSIT);
        world.add_signer(2, 10, DEPOSIT);
        world.add_signer(2, 14, NO_CAP);
        for at in 0..world.issuers.len() {
            world.chain.deposit(escrow, token, world.issuers[at].account, DEPOSIT);
        }
        for class in [
            class(1000, 1 << 58, 500, 86_400),
            class(10_u128.pow(20), 1 << 58, 0, 86_400),
            class(1, (1 << 57) + 1, 10_000, 70_000),
            // Expires when batches of a revoked signer may, and a second after.
            class(7, 1 << 58, 1000, 172_800),
            class(7, 1 << 58, 1001, 172_800),
            // In these nobody wins.
            class(1_000_000, 1, 0, 172_800),
            class(1_000_000, 1 << 20, 0, 172_800),
        ] {
            world.register(class).unwrap();
        }
        world
    }

    fn add_issuer(&mut self, account: Address, keys: Vec<SignerKey>) {
        self.issuers.push(Issuer { account, keys });
    }

    fn add_signer(&mut self, issuer: usize, signer: u8, cap: u128) {
        let (issuer, signer) = (self.issuers[issuer].account, key(signer).address());
        self.chain.send(issuer, self.escrow, &Escrow::addSignerCall { signer, cap });
        self.state.signers.insert((issuer, signer), u64::MAX);
    }

    fn revoke_signer(&mut self, issuer: usize, signer: u8) {
        let (issuer, signer) = (self.issuers[issuer].account, key(signer).address());
        self.chain.send(issuer, self.escrow, &Escrow::revokeSignerCall { signer });
        let last_expiry = START.0 + crate::chain::MAX_TICKET_LIFE;
        self.state.signers.insert((issuer, signer), last_expiry.into());
    }

    /// Registers a class, in the model also if the contract does.
    pub(crate) fn register(&mut self, class: PriceClass) -> Result<ClassNumber, &'static str> {
        let found = register(&mut self.chain, self.escrow, &class, class.win_probability.get());
        self.chain.keep();
        let number = found?;
        assert_eq!(usize::try_from(number).unwrap(), self.state.classes.len());
        self.state.classes.push(class);
        Ok(ClassNumber(number))
    }

    /// As the contract takes it, which may be more often winning than the model's classes can be.
    pub(crate) fn try_register(
        &mut self,
        class: &PriceClass,
        win_probability: u64,
    ) -> Result<u32, &'static str> {
        let found = register(&mut self.chain, self.escrow, class, win_probability);
        self.chain.forget();
        found
    }

    /// What the contract makes of a claim: what it credits, or the error by which it refuses it. With `keep`, it remembers.
    pub(crate) fn contract(
        &mut self,
        recipient: Recipient,
        claims: &[u8],
        now: UnixSeconds,
        keep: bool,
    ) -> Result<u128, &'static str> {
        self.chain.set_now(now);
        let credit = Escrow::creditOfCall { account: recipient.account };
        let before = self.chain.attempt(ANYBODY, self.escrow, &credit).unwrap();
        let found = self.chain.redeem(self.escrow, recipient.redeemer, recipient.account, claims);
        if keep {
            self.chain.keep();
        } else {
            self.chain.forget();
        }
        found.map(|after| after - before)
    }

    /// What the model makes of it.
    pub(crate) fn model(
        &self,
        recipient: Recipient,
        claims: &[u8],
        now: UnixSeconds,
    ) -> Result<u128, String> {
        let windows = decode(claims).map_err(|error| error.to_string())?;
        let found = verify(&self.domain, recipient.account, &windows, now, &self.state)
            .map_err(|error: VerifyError| error.to_string())?;
        Ok(found.iter().map(|window| window.value.to::<u128>()).sum())
    }
}

/// Registers a class with another win probability than the model can give it.
pub(crate) fn register(
    chain: &mut Chain,
    escrow: Address,
    class: &PriceClass,
    win_probability: u64,
) -> Result<u32, &'static str> {
    let call = Escrow::registerClassCall {
        face: class.face_value,
        winProbability: win_probability,
        validFrom: class.valid_from.0,
        expiry: class.expiry.0,
        epoch: class.epoch,
    };
    chain.attempt(ANYBODY, escrow, &call)
}
