//! Test vectors for the contracts and other implementations: `tests/vectors/tickets/*.json` at the top of the repository.
//!
//! Inputs are the Keccak-256 of a text, `tombola/vectors/tickets/<name>`, cut to their length. To write them anew after a
//! change of the format: `cargo test -p tombola-tickets --test vectors -- --ignored`
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use std::path::PathBuf;

use serde_json::{Value, json};
use tombola_sphinx::RelaySecrets;
use tombola_tickets::{
    Ack, Address, BatchClaim, BatchHeader, Challenge, ClassNumber, Domain, EscrowView, Opener, PriceClass,
    Randomness, Salt, SignedBatch, SignerKey, TicketCount, UnixSeconds, WinProbability, WindowClaim,
    WindowNumber, calldata, decode_calldata, encode, merkle, por, verify, wins,
};

const CLASS: ClassNumber = ClassNumber(1);
const COUNTS: [usize; 5] = [1, 2, 3, 5, 256];

fn value<const N: usize>(name: &str) -> [u8; N] {
    let hash = alloy_primitives::keccak256(format!("tombola/vectors/tickets/{name}"));
    *hash.0.first_chunk().unwrap()
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn domain() -> Domain {
    Domain::new(31337, Address::from(value("escrow")))
}

fn key() -> SignerKey {
    SignerKey::from_bytes(&value("signer-key")).unwrap()
}

fn recipient() -> Address {
    Address::from(value("recipient"))
}

fn opener(at: usize) -> Opener {
    Opener::from_bytes(value(&format!("opener-{at}")))
}

fn leaves(count: usize) -> Vec<Challenge> {
    (0..count).map(|at| opener(at).challenge()).collect()
}

fn randomness(window: u32) -> Randomness {
    Randomness::derive(&value("recipient-secret"), &domain(), &key().address(), WindowNumber(window))
}

fn batch(window: u32, number: u8, count: usize) -> SignedBatch {
    BatchHeader {
        issuer: key().address(),
        recipient: recipient(),
        class: CLASS,
        window: WindowNumber(window),
        number,
        count: TicketCount::new(count).unwrap(),
        commitment: randomness(window).commitment(),
        root: merkle::root(&leaves(count)).unwrap(),
        salt: Salt::from_bytes(value(&format!("salt-{window}-{number}"))),
    }
    .sign(&domain(), &key())
}

fn price() -> PriceClass {
    PriceClass {
        face_value: 1_000_000_000_000_000,
        win_probability: WinProbability::MAX,
        valid_from: UnixSeconds(1_800_000_000),
        expiry: UnixSeconds(1_800_086_400),
        epoch: 1,
    }
}

fn winners(batch: &SignedBatch) -> Vec<u8> {
    let digest = batch.header.digest(&domain());
    let r = randomness(batch.header.window.0);
    let won = |k: &u8| wins(&digest, *k, &opener((*k).into()), &r, price().win_probability);
    (0..=batch.header.count.less_one()).filter(won).collect()
}

fn por_vector() -> Value {
    let hop = RelaySecrets { own: value("own"), ack: value("ack"), chk: value("chk") };
    let next = Ack::from_bytes(value("next-ack"));
    let (opener, last) = (por::opener(&hop, &next), por::last_opener(&hop));
    json!({
        "about": "Proof of relay at one hop.",
        "own": hex(hop.own),
        "ack": hex(hop.ack),
        "chk": hex(hop.chk),
        "next_ack": hex(next.as_bytes()),
        "opener": hex(opener.as_bytes()),
        "challenge": hex(opener.challenge().as_bytes()),
        "check": hex(por::check(&hop, &opener.challenge()).as_bytes()),
        "last_opener": hex(last.as_bytes()),
        "last_challenge": hex(last.challenge().as_bytes()),
        "ack_check": hex(Ack::of(&hop).ack_check().as_bytes()),
    })
}

fn merkle_vector() -> Value {
    let path = |count: usize, k: u8| {
        let path = merkle::path(&leaves(count), k).unwrap();
        json!({
            "count": count,
            "k": k,
            "opener": hex(opener(k.into()).as_bytes()),
            "siblings": path.iter().map(|node| hex(node.as_bytes())).collect::<Vec<_>>(),
        })
    };
    json!({
        "about": "Trees over the first `counts[i]` of `leaves`.",
        "leaves": leaves(256).iter().map(|leaf| hex(leaf.as_bytes())).collect::<Vec<_>>(),
        "counts": COUNTS,
        "roots": COUNTS.map(|count| hex(merkle::root(&leaves(count)).unwrap().as_bytes())),
        "path_5": path(5, 4),
        "path_256": path(256, 77),
    })
}

fn batch_vector() -> Value {
    let batch = batch(3, 5, 5);
    let header = &batch.header;
    json!({
        "about": "A signed batch over the first 5 leaves of merkle.json. `signed` is what travels and is kept.",
        "chain_id": domain().chain_id(),
        "escrow": hex(domain().escrow()),
        "separator": hex(domain().separator()),
        "signer_key": hex(value::<32>("signer-key")),
        "issuer": hex(header.issuer),
        "recipient": hex(header.recipient),
        "class": header.class.0,
        "window": header.window.0,
        "number": header.number,
        "count": header.count.get(),
        "commitment": hex(header.commitment.as_bytes()),
        "root": hex(header.root.as_bytes()),
        "salt": hex(header.salt.as_bytes()),
        "digest": hex(header.digest(&domain()).as_bytes()),
        "signature": hex(batch.signature.as_bytes()),
        "signed": hex(batch.to_bytes()),
    })
}

fn lottery_vector() -> Value {
    let batch = batch(1, 0, 256);
    json!({
        "about": "Randomness of a window, and which of the 256 tickets that `openers` open win.",
        "secret": hex(value::<32>("recipient-secret")),
        "chain_id": domain().chain_id(),
        "escrow": hex(domain().escrow()),
        "issuer": hex(key().address()),
        "window": 1,
        "r": hex(randomness(1).as_bytes()),
        "commitment": hex(randomness(1).commitment().as_bytes()),
        "digest": hex(batch.header.digest(&domain()).as_bytes()),
        "win_probability": price().win_probability.get().to_string(),
        "openers": (0..256).map(|at| hex(opener(at).as_bytes())).collect::<Vec<_>>(),
        "winners": winners(&batch),
    })
}

/// The batches with winners of a window of 12, of 256 and 200 tickets in turn.
fn window_claim(number: u32) -> WindowClaim {
    let batches = (0..12)
        .map(|at| batch(number, at, if at % 2 == 0 { 256 } else { 200 }))
        .map(|batch| (batch, winners(&batch)))
        .filter(|(_, winners)| !winners.is_empty());
    let claim = |(batch, winners): (SignedBatch, Vec<u8>)| {
        let tickets = winners.into_iter().map(|k| (k, opener(k.into())));
        BatchClaim::of(&batch, &leaves(batch.header.count.get().into()), tickets).unwrap()
    };
    let mut window = WindowClaim {
        issuer: key().address(),
        class: CLASS,
        window: WindowNumber(number),
        randomness: randomness(number),
        least: 0,
        batches: batches.map(claim).collect(),
    };
    window.least = u16::try_from(window.winners()).unwrap();
    window
}

fn claim_vector() -> Value {
    let windows = [window_claim(1), window_claim(2)];
    let won: Vec<_> = windows.iter().map(WindowClaim::winners).collect();
    let price = price();
    json!({
        "about": "A call of redeem(recipient, claims). Its issuer signs for itself; nothing was claimed before.",
        "chain_id": domain().chain_id(),
        "escrow": hex(domain().escrow()),
        "issuer": hex(key().address()),
        "recipient": hex(recipient()),
        "class": CLASS.0,
        "face_value": price.face_value.to_string(),
        "win_probability": price.win_probability.get().to_string(),
        "valid_from": price.valid_from.0,
        "expiry": price.expiry.0,
        "epoch": price.epoch,
        "windows": windows.iter().map(|window| window.window.0).collect::<Vec<_>>(),
        "winners": won,
        "value": (price.face_value * u128::from(won.iter().sum::<u32>())).to_string(),
        "claims": hex(encode(&windows).unwrap()),
        "calldata": hex(calldata(recipient(), &windows).unwrap()),
    })
}

type Vector = (&'static str, fn() -> Value);

const VECTORS: [Vector; 5] = [
    ("por", por_vector),
    ("merkle", merkle_vector),
    ("batch", batch_vector),
    ("lottery", lottery_vector),
    ("claim", claim_vector),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/vectors/tickets/{name}.json"))
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}.json: {error}"));
    serde_json::from_str(&text).unwrap()
}

#[test]
#[ignore = "writes the vectors anew"]
fn write() {
    for (name, make) in VECTORS {
        std::fs::write(path(name), serde_json::to_string_pretty(&make()).unwrap() + "\n").unwrap();
    }
}

#[test]
fn vectors_are_what_this_implementation_makes() {
    for (name, make) in VECTORS {
        assert_eq!(read(name), make(), "{name}.json");
    }
}

struct Escrow;

impl EscrowView for Escrow {
    fn class(&self, number: ClassNumber) -> Option<PriceClass> {
        (number == CLASS).then(price)
    }

    fn is_signer(&self, issuer: Address, signer: Address, _: &PriceClass) -> bool {
        issuer == signer
    }

    fn is_claimed(&self, _: Address, _: Address, _: WindowNumber) -> bool {
        false
    }
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    let text = value.as_str().unwrap().trim_start_matches("0x");
    hex::decode(text).unwrap().try_into().unwrap()
}

fn list<const N: usize>(value: &Value) -> Vec<[u8; N]> {
    value.as_array().unwrap().iter().map(bytes).collect()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn decimal(value: &Value) -> u128 {
    value.as_str().unwrap().parse().unwrap()
}

/// The escrow of `contract.json`, with its class and the key that signs for its issuer.
struct ContractEscrow {
    class: (ClassNumber, PriceClass),
    issuer: Address,
    signer: Address,
}

impl EscrowView for ContractEscrow {
    fn class(&self, number: ClassNumber) -> Option<PriceClass> {
        (number == self.class.0).then_some(self.class.1)
    }

    fn is_signer(&self, issuer: Address, signer: Address, _: &PriceClass) -> bool {
        issuer == self.issuer && signer == self.signer
    }

    fn is_claimed(&self, _: Address, _: Address, _: WindowNumber) -> bool {
        false
    }
}

/// The vector that the contract's side writes: every value of it, from its secrets and openers alone.
#[test]
fn the_vector_of_the_contract_is_what_this_implementation_makes() {
    let vector = read("contract");
    let (window, batch, class) = (&vector["window"], &vector["batch"], &vector["class"]);
    let [issuer, recipient] = ["issuer", "recipient"].map(|name| Address::from(bytes(&vector[name])));
    let domain = Domain::new(number(&vector["chainId"]).into(), Address::from(bytes(&vector["escrow"])));
    assert_eq!(domain.separator().0, bytes(&vector["domainSeparator"]));
    let key = SignerKey::from_bytes(&bytes(&vector["testPrivateKey"])).unwrap();
    assert_eq!(key.address(), Address::from(bytes(&vector["signer"])));

    let window_number = WindowNumber(number(&window["number"]));
    let r = Randomness::derive(&bytes(&window["secret"]), &domain, &issuer, window_number);
    assert_eq!(*r.as_bytes(), bytes(&window["r"]));
    assert_eq!(*r.commitment().as_bytes(), bytes(&window["commitment"]));

    let openers: Vec<_> = list(&batch["openers"]).into_iter().map(Opener::from_bytes).collect();
    let leaves: Vec<_> = openers.iter().map(Opener::challenge).collect();
    assert_eq!(leaves.iter().map(|leaf| *leaf.as_bytes()).collect::<Vec<[u8; 20]>>(), list(&batch["leaves"]));
    let class_number = ClassNumber(number(&class["number"]));
    let header = BatchHeader {
        issuer,
        recipient,
        class: class_number,
        window: window_number,
        number: u8::try_from(number(&batch["number"])).unwrap(),
        count: TicketCount::new(usize::try_from(number(&batch["count"])).unwrap()).unwrap(),
        commitment: r.commitment(),
        root: merkle::root(&leaves).unwrap(),
        salt: Salt::from_bytes(bytes(&batch["salt"])),
    };
    assert_eq!(usize::from(header.count.get()), leaves.len());
    assert_eq!(*header.root.as_bytes(), bytes(&batch["root"]));
    let digest = header.digest(&domain);
    assert_eq!(*digest.as_bytes(), bytes(&batch["digest"]));
    let signed = header.sign(&domain, &key);
    assert_eq!(*signed.signature.as_bytes(), bytes(&batch["signature"]));
    assert_eq!(signed.recover(&domain), Ok(key.address()));

    let price = PriceClass {
        face_value: decimal(&class["face"]),
        win_probability: WinProbability::new(decimal(&class["winProbability"]).try_into().unwrap()).unwrap(),
        valid_from: UnixSeconds(number(&class["validFrom"])),
        expiry: UnixSeconds(number(&class["expiry"])),
        epoch: number(&class["epoch"]),
    };
    // The lottery compares what is drawn with the probability; `draws` has it in full.
    let draws = list::<8>(&batch["draws"]).into_iter().map(u64::from_be_bytes);
    let drawn: Vec<u8> =
        (0..).zip(draws).filter(|(_, drawn)| *drawn < price.win_probability.get()).map(|(k, _)| k).collect();
    for ((k, opener), draw) in (0..).zip(&openers).zip(list::<8>(&batch["draws"])) {
        let hashed = [&digest.as_bytes()[..], &[k], opener.as_bytes(), r.as_bytes()].concat();
        assert_eq!(alloy_primitives::keccak256(hashed)[..8], draw);
    }
    let won = |k: &u8| wins(&digest, *k, &openers[usize::from(*k)], &r, price.win_probability);
    let winners: Vec<u8> = (0..=header.count.less_one()).filter(won).collect();
    assert_eq!(winners, drawn);
    assert_eq!(batch["winners"], json!(winners));

    let tickets = winners.iter().map(|k| (*k, openers[usize::from(*k)].clone()));
    let claim = WindowClaim {
        issuer,
        class: class_number,
        window: window_number,
        randomness: r,
        least: u16::try_from(number(&vector["least"])).unwrap(),
        batches: vec![BatchClaim::of(&signed, &leaves, tickets).unwrap()],
    };
    assert_eq!(vector["claims"], hex(encode(std::slice::from_ref(&claim)).unwrap()));
    let escrow = ContractEscrow { class: (class_number, price), issuer, signer: key.address() };
    let paid = verify(&domain, recipient, &[claim], price.valid_from, &escrow).unwrap();
    assert_eq!(paid[0].value.to::<u64>(), vector["credited"].as_u64().unwrap());
}

/// From the file alone, without what made it.
#[test]
fn the_claim_of_the_vector_pays_what_it_says() {
    let vector = read("claim");
    let call = hex::decode(vector["calldata"].as_str().unwrap().trim_start_matches("0x")).unwrap();
    let (to, windows) = decode_calldata(&call).unwrap();
    let expiry = UnixSeconds(u32::try_from(vector["expiry"].as_u64().unwrap()).unwrap());
    let found = verify(&domain(), to, &windows, expiry, &Escrow).unwrap();
    let value: u128 = found.iter().map(|window| window.value.to::<u128>()).sum();
    assert_eq!(vector["value"], value.to_string());
    let winners: Vec<_> = found.iter().map(|window| window.winners).collect();
    assert_eq!(vector["winners"], json!(winners));
    assert!(winners.iter().all(|winners| *winners > 20));
}
