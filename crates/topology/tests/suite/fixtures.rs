//! A small valid network, a second implementation of signing, and a deterministic source of numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use proptest::test_runner::{Config, RngSeed};
use serde_json::{Value, json};
use tombola_topology::{
    AuthoritySecret, ChainAddress, Draft, EpochDraft, EpochNumber, IdentityKey, Node, Parameters, Payment,
    Role, SphinxKey, UnixTime,
};

pub(crate) const AUTHORITY_SEED: [u8; 32] = [0xA7; 32];

/// Property tests that run the same cases each time.
pub(crate) fn config(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(0x70_6d_62), failure_persistence: None, ..Config::default() }
}

pub(crate) fn authority() -> AuthoritySecret {
    AuthoritySecret::from_seed(AUTHORITY_SEED)
}

pub(crate) fn identity(number: u8) -> IdentityKey {
    IdentityKey::of_seed(&[number; 32])
}

/// Node `number` of epoch `epoch`: the identity stays, the Sphinx key does not.
pub(crate) fn node(role: Role, number: u8, epoch: u8) -> Node {
    let mut sphinx_key = [number; 32];
    sphinx_key[31] = epoch;
    Node {
        role,
        identity: identity(number),
        sphinx_key: SphinxKey::from_bytes(sphinx_key),
        addresses: vec![format!("/ip4/127.0.0.1/udp/{}/quic-v1", 9000 + u16::from(number))],
        client_addresses: match role {
            Role::Gateway => vec![format!("/ip4/127.0.0.1/udp/{}/quic-v1", 9500 + u16::from(number))],
            Role::Mix { .. } => Vec::new(),
        },
        account: None,
    }
}

/// An epoch of an hour whose layer `i + 1` has `widths[i]` mix nodes. The roles take turns in the list, so
/// that no index can be mistaken for a position within a layer.
pub(crate) fn epoch(number: u8, gateways: usize, widths: &[usize]) -> EpochDraft {
    let mut left: Vec<(Role, usize)> = vec![(Role::Gateway, gateways)];
    left.extend((1..).zip(widths).map(|(layer, width)| (Role::Mix { layer }, *width)));
    let mut nodes = Vec::new();
    while left.iter().any(|(_, count)| *count > 0) {
        for (role, count) in left.iter_mut().rev().filter(|(_, count)| *count > 0) {
            *count -= 1;
            nodes.push(node(*role, u8::try_from(nodes.len()).unwrap() + 1, number));
        }
    }
    let valid_from = 1_000_000 + 3600 * u64::from(number);
    EpochDraft {
        number: EpochNumber(number.into()),
        valid_from: UnixTime(valid_from),
        valid_until: UnixTime(valid_from + 3600),
        payment: None,
        nodes,
    }
}

/// Two epochs; two gateways, two, one and one mix nodes.
pub(crate) fn draft() -> Draft {
    Draft {
        name: "test-net.1".to_owned(),
        serial: 7,
        parameters: pinned(),
        epochs: vec![epoch(4, 2, &[2, 1, 1]), epoch(5, 2, &[2, 1, 1])],
    }
}

/// The same, with payment.
pub(crate) fn paid() -> Draft {
    let mut draft = draft();
    for (epoch, first) in draft.epochs.iter_mut().zip([1, 100]) {
        epoch.payment = Some(Payment {
            chain_id: 31_337,
            escrow: ChainAddress([7; 20]),
            classes: (first..first + 5).collect(),
        });
        for (node, number) in epoch.nodes.iter_mut().zip(1..) {
            node.account = Some(ChainAddress([number; 20]));
        }
    }
    draft
}

/// Values of the tests' own: what they expect shall not move with the defaults.
pub(crate) fn pinned() -> Parameters {
    Parameters {
        mean_delay: Duration::from_millis(250),
        loop_interval: Duration::from_secs(1),
        ..Parameters::default()
    }
}

pub(crate) fn parameters(layers: u8) -> Parameters {
    Parameters { layers, max_delay: Duration::from_secs(10), ..pinned() }
}

/// The inner object of the valid network.
pub(crate) fn network_value() -> Value {
    let document: Value = serde_json::from_str(draft().sign(&authority()).unwrap().to_json()).unwrap();
    document["network"].clone()
}

/// The canonical form, written again from its definition. Only for ASCII without control characters.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let fields: Vec<_> =
                sorted.iter().map(|(name, value)| format!("\"{name}\":{}", canonical(value))).collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

/// Signs whatever it is given, valid or not: an authority that checks nothing.
pub(crate) fn sign(network: &Value, seed: [u8; 32]) -> Value {
    let key = SigningKey::from_bytes(&seed);
    let message = [b"tombola/network/1\0", canonical(network).as_bytes()].concat();
    json!({
        "authority": hex::encode(key.verifying_key().to_bytes()),
        "signature": hex::encode(key.sign(&message).to_bytes()),
        "network": network,
    })
}

/// SplitMix64: a fixed sequence for each seed.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`; the bias of the remainder is n / 2^64.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}
