//! Whatever is changed in a signed document is noticed, and nothing that can be read panics.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tombola_topology::{DocumentError, Draft, Network};

use crate::fixtures::{AUTHORITY_SEED, authority, config, draft, network_value, sign};

/// The document that the property tests change.
static SIGNED: LazyLock<Network> = LazyLock::new(|| draft().sign(&authority()).unwrap());

/// Its inner object.
static NETWORK: LazyLock<Value> = LazyLock::new(network_value);

/// Verifies changed bytes as a reader of files would: what is not UTF-8 is no document.
fn verify(bytes: &[u8]) -> Option<Network> {
    Network::verify(std::str::from_utf8(bytes).ok()?, &authority().key()).ok()
}

#[test]
fn every_flipped_bit_is_noticed_or_changes_nothing() {
    let mut draft = draft();
    draft.epochs.pop();
    let signed = draft.sign(&authority()).unwrap();
    // Without white space: nearly every byte means something.
    let document: Value = serde_json::from_str(signed.to_json()).unwrap();
    let mut bytes = document.to_string().into_bytes();
    let mut same = 0;
    for position in 0..bytes.len() {
        for bit in 0..8 {
            bytes[position] ^= 1 << bit;
            if let Some(network) = verify(&bytes) {
                assert_eq!(network.digest(), signed.digest());
                assert_eq!(network.epochs(), signed.epochs());
                assert_eq!(network.parameters(), signed.parameters());
                same += 1;
            }
            bytes[position] ^= 1 << bit;
        }
    }
    // What changes nothing is a letter of the authority's or the signature's hexadecimal text that became
    // upper case.
    let letters =
        |field: &str| document[field].as_str().unwrap().bytes().filter(u8::is_ascii_alphabetic).count();
    assert_eq!(same, letters("authority") + letters("signature"));
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn every_changed_byte_is_noticed_or_changes_nothing(position: prop::sample::Index, byte: u8) {
        let mut bytes = SIGNED.to_json().to_owned().into_bytes();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        if let Some(network) = verify(&bytes) {
            prop_assert_eq!(network.digest(), SIGNED.digest());
            prop_assert_eq!(network.epochs(), SIGNED.epochs());
        }
    }

    #[test]
    fn every_cut_or_doubled_piece_is_noticed_or_changes_nothing(
        from: prop::sample::Index,
        length in 1_usize..40,
        double: bool,
    ) {
        let text = SIGNED.to_json();
        let from = from.index(text.len());
        let to = (from + length).min(text.len());
        let changed = if double {
            format!("{}{}", &text[..to], &text[from..])
        } else {
            format!("{}{}", &text[..from], &text[to..])
        };
        if let Some(network) = verify(changed.as_bytes()) {
            prop_assert_eq!(network.digest(), SIGNED.digest());
        }
    }

    #[test]
    fn no_text_panics(text: String) {
        prop_assert!(Network::verify(&text, &authority().key()).is_err());
        prop_assert!(Draft::from_json(&text).is_err());
    }

}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn no_value_in_any_place_panics(place: prop::sample::Index, kind in 0_usize..8) {
        let mut network = NETWORK.clone();
        let pointers = pointers(&network);
        let pointer = &pointers[place.index(pointers.len())];
        let odd = [
            json!(0), json!(9_007_199_254_740_991_u64), json!(""), json!("0"), json!([]), json!({}), json!([[]]),
            json!({"": {}}),
        ];
        *network.pointer_mut(pointer).unwrap() = odd[kind].clone();
        let document = sign(&network, AUTHORITY_SEED).to_string();
        if let Err(error) = Network::verify(&document, &authority().key()) {
            // Never the signature: it was right.
            let DocumentError::Invalid(invalid) = error else { panic!("{error}") };
            prop_assert!(invalid.path.starts_with("network"), "{}", invalid);
        }
    }
}

/// The JSON pointer of every value.
fn pointers(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => (0..).map(|index: usize| index.to_string()).zip(items).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        _ => Vec::new(),
    };
    let below = children
        .into_iter()
        .flat_map(|(name, child)| pointers(child).into_iter().map(move |rest| format!("/{name}{rest}")));
    std::iter::once(String::new()).chain(below).collect()
}

#[test]
fn every_changed_value_breaks_the_signature() {
    let signed = sign(&network_value(), AUTHORITY_SEED);
    for pointer in pointers(&signed["network"]) {
        let mut changed = signed.clone();
        let value = changed["network"].pointer_mut(&pointer).unwrap();
        match value {
            Value::String(text) => text.push('0'),
            Value::Number(number) => *value = (number.as_u64().unwrap() + 1).into(),
            Value::Array(items) => items.truncate(items.len() - 1),
            Value::Object(fields) => {
                let first = fields.keys().next().unwrap().clone();
                fields.remove(&first);
            }
            other => panic!("{other}"),
        }
        let error = Network::verify(&changed.to_string(), &authority().key()).unwrap_err();
        assert_eq!(error, DocumentError::Signature, "{pointer}");
    }
}

#[test]
fn exchanging_two_nodes_breaks_the_signature() {
    let mut document = sign(&network_value(), AUTHORITY_SEED);
    document["network"]["epochs"][0]["nodes"].as_array_mut().unwrap().swap(0, 1);
    let error = Network::verify(&document.to_string(), &authority().key()).unwrap_err();
    assert_eq!(error, DocumentError::Signature);
}
