//! The vectors in `tests/vectors/topology`, which another implementation made from the specification (RFC
//! 8032, RFC 8785, BIP 350).

use serde_json::Value;
use tombola_topology::{
    AuthoritySecret, ClientAddress, Draft, IdentityKey, MailboxId, NodeIndex, Role, SIGNATURE_DOMAIN,
    UnixTime,
};

use crate::fixtures::canonical;

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

#[test]
fn document() {
    let vector = read(include_str!("../../../../tests/vectors/topology/document.json"));
    let seed: [u8; 32] = hex::decode(text(&vector, "authority_seed")).unwrap().try_into().unwrap();
    let secret = AuthoritySecret::from_seed(seed);
    assert_eq!(hex::encode(SIGNATURE_DOMAIN), text(&vector, "domain"));
    assert_eq!(canonical(&vector["document"]["network"]), text(&vector, "canonical"));

    let document = vector["document"].to_string();
    let network = tombola_topology::Network::verify(&document, &secret.key()).unwrap();
    assert_eq!(hex::encode(network.digest()), text(&vector, "digest"));
    assert_eq!((network.name(), network.serial()), ("vector", 3));
    let epoch = network.epoch_at(UnixTime(1_800_000_000)).unwrap();
    assert_eq!(epoch.number().0, 12);
    assert_eq!(epoch.gateways(), [NodeIndex(0)]);
    assert_eq!(epoch.layer(1), [NodeIndex(1), NodeIndex(3)]);
    assert_eq!(epoch.node(NodeIndex(2)).unwrap().role, Role::Mix { layer: 2 });
    assert_eq!(epoch.nodes()[1].identity, IdentityKey::of_seed(&[2; 32]));

    let again = Draft::from_json(&document).unwrap().sign(&secret).unwrap();
    assert_eq!(read(again.to_json()), vector["document"], "signature included");
}

#[test]
fn addresses() {
    let vectors = read(include_str!("../../../../tests/vectors/topology/addresses.json"));
    for vector in vectors["valid"].as_array().unwrap() {
        let address: ClientAddress = text(vector, "address").parse().unwrap();
        assert_eq!(address.sphinx_key.to_string(), text(vector, "sphinx_key"));
        assert_eq!(address.gateway.to_string(), text(vector, "gateway"));
        assert_eq!(address.mailbox.to_string(), text(vector, "mailbox"));
        assert_eq!(address.to_string(), text(vector, "address"));
        let link_key: IdentityKey = text(vector, "link_key").parse().unwrap();
        assert_eq!(MailboxId::of(&link_key), address.mailbox);
    }
    for vector in vectors["refused"].as_array().unwrap() {
        assert!(text(vector, "address").parse::<ClientAddress>().is_err(), "{vector}");
    }
}
