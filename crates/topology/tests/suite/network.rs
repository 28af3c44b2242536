//! Good documents.

use serde_json::Value;
use tombola_topology::{
    AuthorityKey, AuthoritySecret, ChainAddress, DocumentError, Draft, EpochError, EpochNumber,
    MAX_DOCUMENT_LEN, Network, UnixTime,
};

use crate::fixtures::{AUTHORITY_SEED, Numbers, authority, draft, network_value, paid, sign};

#[test]
fn what_is_signed_can_be_verified_and_says_the_same() {
    let signed = draft().sign(&authority()).unwrap();
    let network = Network::verify(signed.to_json(), &authority().key()).unwrap();
    assert_eq!(network.authority(), authority().key());
    assert_eq!((network.name(), network.serial()), ("test-net.1", 7));
    assert_eq!(network.parameters(), &draft().parameters);
    assert_eq!(network.digest(), signed.digest());
    assert_eq!(network.to_json(), signed.to_json());
    assert_eq!(network.epochs().len(), 2);
    for (epoch, drafted) in network.epochs().iter().zip(draft().epochs) {
        assert_eq!(epoch.number(), drafted.number);
        assert_eq!((epoch.valid_from(), epoch.valid_until()), (drafted.valid_from, drafted.valid_until));
        assert_eq!(epoch.nodes(), drafted.nodes);
    }
}

#[test]
fn another_implementation_signs_the_same_bytes() {
    let theirs = sign(&network_value(), AUTHORITY_SEED);
    let ours: Value = serde_json::from_str(draft().sign(&authority()).unwrap().to_json()).unwrap();
    assert_eq!(theirs, ours, "ed25519 is deterministic");
}

#[test]
fn a_signed_document_is_a_draft_again() {
    let signed = draft().sign(&authority()).unwrap();
    assert_eq!(Draft::from_json(signed.to_json()), Ok(draft()));
    let unsigned = format!("{{\"network\": {}}}", network_value());
    assert_eq!(Draft::from_json(&unsigned), Ok(draft()));
}

#[test]
fn durations_are_signed_as_they_are_spelt() {
    let mut network = network_value();
    network["parameters"]["loop_interval"] = "1000ms".into();
    let document = sign(&network, AUTHORITY_SEED).to_string();
    let verified = Network::verify(&document, &authority().key()).unwrap();
    assert_eq!(verified.parameters(), &draft().parameters);
    assert!(verified.to_json().contains("\"1000ms\""));
    assert!(Network::verify(verified.to_json(), &authority().key()).is_ok());
}

/// Writes a value with its fields in any order, white space anywhere and strings spelt with or without
/// escapes.
fn disguise(value: &Value, numbers: &mut Numbers) -> String {
    let space = |numbers: &mut Numbers| ["", " ", "\n", "\t", "\r\n  "][numbers.below(5)];
    let string = |text: &str, numbers: &mut Numbers| {
        let mut spelt = String::from("\"");
        for character in text.chars() {
            match numbers.below(4) {
                0 => spelt.push_str(&format!("\\u{:04X}", u32::from(character))),
                _ if character == '/' && numbers.below(2) == 0 => spelt.push_str("\\/"),
                _ => spelt.push(character),
            }
        }
        spelt + "\""
    };
    let core = match value {
        Value::String(text) => string(text, numbers),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| disguise(item, numbers)).collect();
            format!("[{}{}]", items.join(","), space(numbers))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| {
                    let name = format!("{}{}", space(numbers), string(name, numbers));
                    format!("{name}{}:{}", space(numbers), disguise(value, numbers))
                })
                .collect();
            for last in (1..fields.len()).rev() {
                fields.swap(last, numbers.below(last + 1));
            }
            format!("{{{}{}}}", fields.join(","), space(numbers))
        }
        other => other.to_string(),
    };
    format!("{}{core}{}", space(numbers), space(numbers))
}

#[test]
fn white_space_order_of_fields_and_escapes_do_not_matter() {
    let signed = draft().sign(&authority()).unwrap();
    let document: Value = serde_json::from_str(signed.to_json()).unwrap();
    for seed in 0..50 {
        let text = disguise(&document, &mut Numbers(seed));
        assert_ne!(text, signed.to_json());
        let verified = Network::verify(&text, &authority().key()).unwrap();
        assert_eq!(verified.digest(), signed.digest());
        assert_eq!(verified.to_json(), signed.to_json());
    }
}

#[test]
fn each_second_belongs_to_one_epoch() {
    let network = draft().sign(&authority()).unwrap();
    let [first, second] = [draft().epochs[0].clone(), draft().epochs[1].clone()];
    let number_at = |time| network.epoch_at(UnixTime(time)).map(|epoch| epoch.number());
    assert_eq!(number_at(first.valid_from.0), Ok(first.number));
    assert_eq!(number_at(first.valid_until.0 - 1), Ok(first.number));
    assert_eq!(number_at(first.valid_until.0), Ok(second.number));
    assert_eq!(number_at(second.valid_until.0 - 1), Ok(second.number));

    let begins = first.valid_from;
    assert_eq!((network.valid_from(), network.valid_until()), (begins, second.valid_until));
    let early = number_at(begins.0 - 1).unwrap_err();
    assert_eq!(early, EpochError::NotYet { begins, now: UnixTime(begins.0 - 1) });
    assert_eq!(
        early.to_string(),
        "the network document is not valid before Unix time 1014400, and it is 1014399: check this machine's clock"
    );
    let late = number_at(second.valid_until.0).unwrap_err();
    assert_eq!(
        late.to_string(),
        "the network document expired at Unix time 1021600, and it is 1021600: get the current one"
    );
    assert!(number_at(u64::MAX).is_err());
    assert!(number_at(0).is_err());
}

#[test]
fn epochs_are_found_by_number() {
    let network = draft().sign(&authority()).unwrap();
    let found = |number| network.epoch(EpochNumber(number)).map(|epoch| epoch.number().0);
    assert_eq!([3, 4, 5, 6, 0, u64::MAX].map(found), [None, Some(4), Some(5), None, None, None]);
    assert_eq!([4, 5].map(|number| EpochNumber(number).parity()), [0, 1]);
}

#[test]
fn the_last_second_that_can_be_named_is_accepted() {
    let mut draft = draft();
    draft.epochs[1].valid_until = UnixTime::MAX;
    assert!(draft.sign(&authority()).is_ok());
    draft.epochs[1].valid_until = UnixTime(UnixTime::MAX.0 + 1);
    assert_eq!(
        draft.sign(&authority()).unwrap_err().to_string(),
        "network.epochs[1].valid_until: expected a whole number from 0 to 9007199254740991, without fraction or \
         exponent"
    );
}

#[test]
fn another_authority_is_named() {
    let document = draft().sign(&AuthoritySecret::from_seed([1; 32])).unwrap();
    let expected = AuthoritySecret::from_seed([2; 32]).key();
    let error = Network::verify(document.to_json(), &expected).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the network document is signed by authority \
         8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c, but authority \
         8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394 is expected: it belongs to another network, \
         or the expected authority is misconfigured"
    );
}

#[test]
fn claiming_the_right_authority_does_not_help() {
    // Signed by 1, but it says 2.
    let mut document = sign(&network_value(), [1; 32]);
    let expected = AuthoritySecret::from_seed([2; 32]).key();
    document["authority"] = expected.to_string().into();
    let error = Network::verify(&document.to_string(), &expected).unwrap_err();
    assert_eq!(error, DocumentError::Signature);
    assert_eq!(
        error.to_string(),
        "signature: does not match the document: it was changed after it was signed; get it again from where it was \
         published, or have the authority sign it again"
    );
}

#[test]
fn a_long_document_is_refused_unread() {
    let long = " ".repeat(MAX_DOCUMENT_LEN + 1);
    let error = Network::verify(&long, &authority().key()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the network document is 16777217 bytes long, at most 16777216 are allowed"
    );
}

#[test]
fn what_is_no_json_is_refused_with_its_position() {
    let error = Network::verify("{\n  \"authority\": oops}", &authority().key()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the network document is not valid JSON: expected value at line 2 column 16"
    );
}

#[test]
fn keys_are_read_strictly() {
    let key = authority().key();
    assert_eq!(key.to_string().parse(), Ok(key));
    assert_eq!(AuthorityKey::from_bytes(&key.to_bytes()), Ok(key));
    let error = |text: &str| text.parse::<AuthorityKey>().unwrap_err().to_string();
    assert_eq!(error(&key.to_string()[1..]), "expected 64 hexadecimal characters, found 63");
    assert_eq!(
        error(&format!("0x{}", &key.to_string()[2..])),
        "expected hexadecimal characters, found 'x' at position 1"
    );
    let no_key = "not an ed25519 public key: check that it was copied whole and unchanged";
    // Not on the curve; the neutral element; a point of order 4; y = p + 1, a second encoding of the neutral
    // element.
    assert_eq!(error(&format!("02{}", "00".repeat(31))), no_key);
    assert_eq!(error(&format!("01{}", "00".repeat(31))), no_key);
    assert_eq!(error(&"00".repeat(32)), no_key);
    assert_eq!(error(&format!("ee{}7f", "ff".repeat(30))), no_key);
    // y = p + 3, a second encoding of a point of large order, which the signature library lets pass.
    let second = format!("f0{}7f", "ff".repeat(30));
    let bytes: [u8; 32] = hex::decode(&second).unwrap().try_into().unwrap();
    assert!(ed25519_dalek::VerifyingKey::from_bytes(&bytes).is_ok_and(|key| !key.is_weak()));
    assert_eq!(error(&second), no_key);
}

#[test]
fn secrets_are_not_printed_and_are_erased() {
    fn erases_itself<T: zeroize::ZeroizeOnDrop>(_: &T) {}
    let secret = authority();
    erases_itself(&secret);
    assert_eq!(format!("{secret:?}"), "AuthoritySecret([redacted])");
    assert_eq!(*secret.to_seed(), AUTHORITY_SEED);
    assert_eq!(AuthoritySecret::from_seed(*secret.to_seed()).key(), secret.key());
}

#[test]
fn what_is_paid_is_read_as_it_was_written() {
    let network = paid().sign(&authority()).unwrap();
    let again = Network::verify(network.to_json(), &authority().key()).unwrap();
    assert_eq!(again.digest(), network.digest());
    let draft = Draft::from_json(network.to_json()).unwrap();
    assert_eq!(draft, paid());
    let epoch = &again.epochs()[1];
    assert_eq!(epoch.payment().unwrap().classes, [100, 101, 102, 103, 104]);
    assert_eq!(epoch.nodes()[2].account, Some(ChainAddress([3; 20])));
    let text = "0x00112233445566778899AABBCCDDEEFF00112233";
    assert_eq!(text.parse::<ChainAddress>().unwrap().to_string(), text.to_lowercase());
}
