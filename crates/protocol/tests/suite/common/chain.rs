//! The chain of these tests: it checks claims as the contract does, and tells both sides what became of them.

use std::collections::{BTreeMap, BTreeSet};

use tombola_protocol::payment::Fact;
use tombola_tickets::{
    Address, ClassNumber, EscrowView, PriceClass, UnixSeconds, WindowClaim, WindowNumber, verify,
};

use super::net::Net;
use super::world::{START, account_of, domain};

/// What is registered and what was claimed.
pub(crate) struct Chain {
    prices: BTreeMap<ClassNumber, PriceClass>,
    /// Keys that sign for issuers, besides their own.
    pub(crate) signers: BTreeSet<(Address, Address)>,
    claimed: BTreeSet<(Address, Address, WindowNumber)>,
    /// What each issuer has paid.
    pub(crate) paid: BTreeMap<Address, u128>,
}

impl EscrowView for Chain {
    fn class(&self, number: ClassNumber) -> Option<PriceClass> {
        self.prices.get(&number).copied()
    }

    fn is_signer(&self, issuer: Address, signer: Address, _: &PriceClass) -> bool {
        issuer == signer || self.signers.contains(&(issuer, signer))
    }

    fn is_claimed(&self, issuer: Address, recipient: Address, window: WindowNumber) -> bool {
        self.claimed.contains(&(issuer, recipient, window))
    }
}

impl Chain {
    pub(crate) fn new(net: &Net) -> Self {
        Self {
            prices: net.world.prices(),
            signers: BTreeSet::new(),
            claimed: BTreeSet::new(),
            paid: BTreeMap::new(),
        }
    }

    /// Takes every claim that nodes want made, and settles it. One that was made before changes nothing: nodes claim again after
    /// a crash.
    pub(crate) fn settle(&mut self, net: &mut Net) {
        for (node, claim) in core::mem::take(&mut net.claims) {
            let recipient = account_of(u8::try_from(node).unwrap() + 1);
            let now = UnixSeconds(u32::try_from(START + (net.now.as_nanos() / 1_000_000_000)).unwrap());
            let place = (claim.issuer, recipient, claim.window);
            let winners: u32 = claim.batches.iter().map(|batch| batch.winners.len() as u32).sum();
            if !self.claimed.contains(&place) {
                let worth = verify(&domain(), recipient, std::slice::from_ref(&claim), now, self).unwrap();
                assert_eq!(worth[0].winners, winners);
                self.claimed.insert(place);
                let value: u128 = worth[0].value.to();
                *self.paid.entry(claim.issuer).or_default() += value;
                self.tell(net, node, &claim, value, value);
            } else {
                let amount = u128::from(winners) * self.prices[&claim.class].face_value;
                self.tell(net, node, &claim, amount, 0);
            }
        }
    }

    fn tell(&self, net: &mut Net, node: u32, claim: &WindowClaim, amount: u128, spent: u128) {
        let (issuer, window) = (claim.issuer, claim.window);
        net.tell_fact(node, Fact::Settled { issuer, window, amount });
        let recipient = account_of(u8::try_from(node).unwrap() + 1);
        let payer =
            (0..net.world.nodes()).find(|other| account_of(u8::try_from(*other).unwrap() + 1) == issuer);
        match payer {
            Some(payer) => net.tell_fact(payer, Fact::Claimed { recipient, window, spent }),
            None => {
                let fact = Fact::Claimed { recipient, window, spent };
                for client in &mut net.clients {
                    let now = net.now;
                    if let Some(payments) = client.payments().filter(|own| own.account().address == issuer) {
                        payments.handle_fact(now, fact);
                    }
                }
            }
        }
    }
}
