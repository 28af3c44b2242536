//! The vectors that both sides check, through both.

use alloy_primitives::{Address, U256, hex};
use serde_json::Value;
use tombola_tickets::{
    ClassNumber, Domain, EscrowView, PriceClass, UnixSeconds, VerifyError, WinProbability, WindowNumber,
    calldata, decode, verify,
};

use crate::chain::{ANYBODY, Chain, Escrow};
use crate::world::register;

struct KnownAnswer {
    domain: Domain,
    issuer: Address,
    /// Of the issuer, beside its own key.
    signer: Option<Address>,
    recipient: Address,
    class: ClassNumber,
    price: PriceClass,
    epoch_length: u32,
    claims: Vec<u8>,
    value: u128,
}

impl EscrowView for KnownAnswer {
    fn class(&self, number: ClassNumber) -> Option<PriceClass> {
        (number <= self.class).then_some(self.price)
    }

    fn is_signer(&self, issuer: Address, signer: Address, _: &PriceClass) -> bool {
        issuer == signer || issuer == self.issuer && Some(signer) == self.signer
    }

    fn is_claimed(&self, _: Address, _: Address, _: WindowNumber) -> bool {
        false
    }
}

fn read(name: &str) -> Value {
    let path = format!("{}/../vectors/tickets/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn address(value: &Value) -> Address {
    text(value).parse().unwrap()
}

fn probability(value: &Value) -> WinProbability {
    WinProbability::new(text(value).parse().unwrap()).unwrap()
}

/// Both pay what the vector says while its class is valid, and refuse it a second later and a second time.
fn check(known: &KnownAnswer) {
    let (price, escrow) = (&known.price, known.domain.escrow());
    let mut chain = Chain::new(1, price.valid_from);
    let genesis = UnixSeconds(price.valid_from.0 - price.epoch * known.epoch_length);
    let (deployed, token) = chain.deploy(genesis, known.epoch_length);
    // At the vector's address, on the vector's chain: there it computes its domain anew.
    chain.copy_code(deployed, escrow);
    chain.set_chain_id(known.domain.chain_id());
    let separator = chain.send(ANYBODY, escrow, &Escrow::domainSeparatorCall {});
    assert_eq!(separator, known.domain.separator());
    for _ in 0..=known.class.0 {
        register(&mut chain, escrow, price, price.win_probability.get()).unwrap();
        chain.keep();
    }
    chain.deposit(escrow, token, known.issuer, known.value);
    if let Some(signer) = known.signer {
        chain.send(known.issuer, escrow, &Escrow::addSignerCall { signer, cap: u128::MAX });
    }

    let windows = decode(&known.claims).unwrap();
    let model = |now| verify(&known.domain, known.recipient, &windows, now, known);
    let mut contract = |now, keep| {
        chain.set_now(now);
        let found = chain.redeem(escrow, known.recipient, known.recipient, &known.claims);
        if keep {
            chain.keep();
        } else {
            chain.forget();
        }
        found
    };
    let late = UnixSeconds(price.expiry.0 + 1);
    assert_eq!(model(late), Err(VerifyError::Expired(known.class)));
    assert_eq!(contract(late, false), Err("Expired"));
    for (now, keep) in [(price.valid_from, false), (price.expiry, true)] {
        let value: U256 = model(now).unwrap().iter().map(|window| window.value).sum();
        assert_eq!(value, U256::from(known.value));
        assert_eq!(contract(now, keep), Ok(known.value));
    }
    assert_eq!(contract(price.expiry, false), Err("WindowClaimed"));
}

#[test]
fn the_claim_of_the_rust_side_is_paid_by_the_contract() {
    let vector = read("claim");
    let known = KnownAnswer {
        domain: Domain::new(number(&vector["chain_id"]).into(), address(&vector["escrow"])),
        issuer: address(&vector["issuer"]),
        signer: None,
        recipient: address(&vector["recipient"]),
        class: ClassNumber(number(&vector["class"])),
        price: PriceClass {
            face_value: text(&vector["face_value"]).parse().unwrap(),
            win_probability: probability(&vector["win_probability"]),
            valid_from: UnixSeconds(number(&vector["valid_from"])),
            expiry: UnixSeconds(number(&vector["expiry"])),
            epoch: number(&vector["epoch"]),
        },
        epoch_length: 86_400,
        claims: hex::decode(text(&vector["claims"])).unwrap(),
        value: text(&vector["value"]).parse().unwrap(),
    };
    check(&known);
    // The call as the file has it is the one that was made here.
    let call = alloy_sol_types::SolCall::abi_encode(&Escrow::redeemCall {
        recipient: known.recipient,
        claims: known.claims.clone().into(),
    });
    assert_eq!(text(&vector["calldata"]), hex::encode_prefixed(&call));
    assert_eq!(calldata(known.recipient, &decode(&known.claims).unwrap()), Ok(call));
}

#[test]
fn the_claim_of_the_contract_side_is_what_the_model_expects() {
    let vector = read("contract");
    let class = &vector["class"];
    check(&KnownAnswer {
        domain: Domain::new(number(&vector["chainId"]).into(), address(&vector["escrow"])),
        issuer: address(&vector["issuer"]),
        signer: Some(address(&vector["signer"])),
        recipient: address(&vector["recipient"]),
        class: ClassNumber(number(&class["number"])),
        price: PriceClass {
            face_value: text(&class["face"]).parse().unwrap(),
            win_probability: probability(&class["winProbability"]),
            valid_from: UnixSeconds(number(&class["validFrom"])),
            expiry: UnixSeconds(number(&class["expiry"])),
            epoch: number(&class["epoch"]),
        },
        epoch_length: 3600,
        claims: hex::decode(text(&vector["claims"])).unwrap(),
        value: vector["credited"].as_u64().unwrap().into(),
    });
}
