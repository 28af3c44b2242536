//! Bad documents, each with the exact words that its reader gets. All of them bear a right signature, if they
//! can: an authority that made a mistake is the case in which words matter.

use std::time::Duration;

use serde_json::{Value, json};
use tombola_topology::{Draft, IdentityKey, Network, Node, Parameters, Role, UnixTime};

use crate::fixtures::{AUTHORITY_SEED, authority, draft, epoch, network_value, paid, pinned, sign};

/// What [`Network::verify`] says to a network changed by `edit`, and [`Draft::from_json`] with it.
#[track_caller]
fn refused(edit: impl FnOnce(&mut Value)) -> String {
    let mut network = network_value();
    edit(&mut network);
    let error = Network::verify(&sign(&network, AUTHORITY_SEED).to_string(), &authority().key()).unwrap_err();
    let draft = Draft::from_json(&json!({ "network": network }).to_string()).unwrap_err();
    assert_eq!(error, draft);
    error.to_string()
}

/// As [`refused`], for one field of the third node of the first epoch: a mix node of layer 1.
#[track_caller]
fn refused_node(field: &str, value: Value) -> String {
    refused(|network| network["epochs"][0]["nodes"][2][field] = value)
}

/// What [`Network::verify`] says to a document changed as a text.
#[track_caller]
fn refused_text(from: &str, to: &str) -> String {
    let text = sign(&network_value(), AUTHORITY_SEED).to_string();
    assert!(text.contains(from), "{from} is not in {text}");
    Network::verify(&text.replacen(from, to, 1), &authority().key()).unwrap_err().to_string()
}

fn remove(value: &mut Value, field: &str) {
    value.as_object_mut().unwrap().remove(field).unwrap();
}

// ---- the envelope

#[test]
fn unsigned() {
    let text = json!({ "network": network_value() }).to_string();
    let error = Network::verify(&text, &authority().key()).unwrap_err();
    assert_eq!(error.to_string(), "authority: this field is missing");
}

#[test]
fn signature_cut_short() {
    let mut document = sign(&network_value(), AUTHORITY_SEED);
    let short = document["signature"].as_str().unwrap()[1..].to_owned();
    document["signature"] = short.into();
    let error = Network::verify(&document.to_string(), &authority().key()).unwrap_err();
    assert_eq!(error.to_string(), "signature: expected 128 hexadecimal characters, found 127");
}

#[test]
fn authority_is_no_key() {
    let mut document = sign(&network_value(), AUTHORITY_SEED);
    document["authority"] = "00".repeat(32).into();
    let error = Network::verify(&document.to_string(), &authority().key()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "authority: not an ed25519 public key: check that it was copied whole and unchanged"
    );
}

#[test]
fn unknown_field_around_the_network() {
    assert_eq!(
        refused_text("\"signature\"", "\"Signature\""),
        "Signature: unknown field, did you mean `signature`?"
    );
    assert_eq!(
        refused_text("\"network\":", "\"comment\":\"\",\"network\":"),
        "comment: unknown field, expected one of `authority`, `network`, `signature`"
    );
}

#[test]
fn not_an_object() {
    let error = Network::verify("[]", &authority().key()).unwrap_err();
    assert_eq!(error.to_string(), "top level: expected an object, found an array");
    assert_eq!(refused(|network| *network = json!("x")), "network: expected an object, found a string");
}

// ---- JSON that cannot be signed

#[test]
fn duplicate_field() {
    assert_eq!(
        refused_text("\"serial\":7", "\"serial\":7,\"serial\":7"),
        "network.serial: this field appears more than once: keep one"
    );
}

#[test]
fn float() {
    assert_eq!(
        refused_text("\"serial\":7", "\"serial\":7.0"),
        "network.serial: expected a whole number from 0 to 9007199254740991, without fraction or exponent"
    );
}

#[test]
fn null() {
    assert_eq!(
        refused_text("\"serial\":7", "\"serial\":null"),
        "network.serial: expected a string, a number, an array or an object, found null"
    );
}

// ---- the network

#[test]
fn format_of_the_future() {
    // Named even though there are fields that this format does not have.
    let error = refused(|network| {
        network["format"] = 2.into();
        network["beacon"] = "x".into();
    });
    assert_eq!(
        error,
        "network.format: format 2 is not supported, this program reads format 1: use the version that made the \
         document"
    );
}

#[test]
fn missing_field() {
    assert_eq!(refused(|network| remove(network, "format")), "network.format: this field is missing");
    assert_eq!(refused(|network| remove(network, "serial")), "network.serial: this field is missing");
    assert_eq!(
        refused(|network| remove(&mut network["parameters"], "mean_delay")),
        "network.parameters.mean_delay: this field is missing"
    );
    assert_eq!(
        refused(|network| remove(&mut network["epochs"][1]["nodes"][0], "role")),
        "network.epochs[1].nodes[0].role: this field is missing"
    );
}

#[test]
fn unknown_field() {
    assert_eq!(
        refused(|network| network["serials"] = 1.into()),
        "network.serials: unknown field, did you mean `serial`?"
    );
    assert_eq!(
        refused(|network| network["parameters"]["max_dealy"] = "1s".into()),
        "network.parameters.max_dealy: unknown field, did you mean `max_delay`?"
    );
    assert_eq!(
        refused(|network| network["epochs"][1]["until"] = 1.into()),
        "network.epochs[1].until: unknown field, expected one of `nodes`, `number`, `payment`, `valid_from`, `valid_until`"
    );
    assert_eq!(
        refused_node("address", json!([])),
        "network.epochs[0].nodes[2].address: unknown field, did you mean `addresses`?"
    );
}

#[test]
fn wrong_kind() {
    assert_eq!(
        refused(|network| network["serial"] = "7".into()),
        "network.serial: expected a number, found a string"
    );
    assert_eq!(
        refused(|network| network["epochs"] = json!({})),
        "network.epochs: expected an array, found an object"
    );
    assert_eq!(
        refused(|network| network["parameters"]["mean_delay"] = 250.into()),
        "network.parameters.mean_delay: expected a string, found a number"
    );
}

#[test]
fn name() {
    for name in ["", "a b", "é", "\u{1b}[31m", &"x".repeat(65)] {
        let mut draft = draft();
        name.clone_into(&mut draft.name);
        assert_eq!(
            draft.sign(&authority()).unwrap_err().to_string(),
            format!(
                "network.name: expected 1 to 64 characters out of letters, digits, '-', '_' and '.', found {name:?}"
            )
        );
    }
}

#[test]
fn no_epoch() {
    assert_eq!(
        refused(|network| network["epochs"] = json!([])),
        "network.epochs: expected at least one entry"
    );
}

// ---- parameters

/// What is said of parameters changed by `edit`, by themselves and in a document.
#[track_caller]
fn refused_parameters(edit: impl FnOnce(&mut Parameters)) -> String {
    let mut draft = draft();
    edit(&mut draft.parameters);
    let alone = draft.parameters.validate().unwrap_err().to_string();
    let inside = draft.sign(&authority()).unwrap_err().to_string();
    assert_eq!(inside, format!("network.parameters.{alone}"));
    alone
}

#[test]
fn zero_durations() {
    let zero = Duration::ZERO;
    type Edit = fn(&mut Parameters, Duration);
    let edits: [(&str, &str, Edit); 8] = [
        ("mean_delay", "1us to 1h", |p, d| p.mean_delay = d),
        ("max_delay", "1us to 1d", |p, d| p.max_delay = d),
        ("main_interval", "1us to 1d", |p, d| p.main_interval = d),
        ("loop_interval", "1us to 1d", |p, d| p.loop_interval = d),
        ("drop_interval", "1us to 1d", |p, d| p.drop_interval = d),
        ("mix_loop_interval", "1us to 1d", |p, d| p.mix_loop_interval = d),
        ("loop_timeout", "1us to 1d", |p, d| p.loop_timeout = d),
        ("downlink_interval", "1us to 1d", |p, d| p.downlink_interval = d),
    ];
    for (field, range, edit) in edits {
        assert_eq!(refused_parameters(|p| edit(p, zero)), format!("{field}: expected {range}, found 0s"));
        let long = Duration::from_secs(86_401);
        assert_eq!(refused_parameters(|p| edit(p, long)), format!("{field}: expected {range}, found 86401s"));
    }
    assert_eq!(
        refused_parameters(|p| p.mailbox_retention = zero),
        "mailbox_retention: expected 1s to 3650d, found 0s"
    );
}

#[test]
fn zero_counts() {
    assert_eq!(refused_parameters(|p| p.layers = 0), "layers: expected 1 to 3, found 0");
    assert_eq!(refused_parameters(|p| p.layers = 4), "layers: expected 1 to 3, found 4");
    assert_eq!(
        refused_parameters(|p| p.mailbox_packets = 0),
        "mailbox_packets: expected 1 to 16777216, found 0"
    );
    assert_eq!(
        refused_parameters(|p| p.clients_per_gateway = 0),
        "clients_per_gateway: expected 1 to 1000000, found 0"
    );
    assert_eq!(
        refused_parameters(|p| p.admitted_rate = 10_000_001),
        "admitted_rate: expected 1 to 10000000, found 10000001"
    );
    assert_eq!(
        refused(|network| network["parameters"]["layers"] = 257.into()),
        "network.parameters.layers: expected 1 to 3, found 257"
    );
    assert_eq!(
        refused(|network| network["parameters"]["admitted_rate"] = 4_294_967_297_u64.into()),
        "network.parameters.admitted_rate: expected 1 to 10000000, found 4294967297"
    );
}

#[test]
fn max_delay_that_distorts_the_exponential() {
    let edit = |max| move |p: &mut Parameters| p.max_delay = Duration::from_millis(max);
    assert_eq!(
        refused_parameters(edit(999)),
        "max_delay: expected at least four times mean_delay, 1s, found 999ms: clamping more than e^-4 (2 %) of all \
         delays distorts the exponential distribution that hides which packet left"
    );
    let mut parameters = pinned();
    edit(1000)(&mut parameters);
    assert_eq!(parameters.validate(), Ok(()));
}

#[test]
fn loop_timeout_that_loses_honest_loops() {
    assert_eq!(
        refused_parameters(|p| p.loop_timeout = Duration::from_millis(4999)),
        "loop_timeout: expected at least twenty times mean_delay, 5s, found 4999ms: else loops that are merely delayed \
         count as lost and raise alarms"
    );
}

#[test]
fn downlink_slower_than_the_loops() {
    assert_eq!(
        refused_parameters(|p| p.downlink_interval = p.loop_interval),
        "downlink_interval: expected less than loop_interval, 1s, found 1s: else a client's own loops fill its mailbox \
         faster than it can empty it"
    );
}

#[test]
fn misspelt_duration() {
    assert_eq!(
        refused(|network| network["parameters"]["mailbox_retention"] = "2 weeks".into()),
        "network.parameters.mailbox_retention: expected one whole number and one unit (ns, us, ms, s, m, h or d), like \
         \"250ms\", found \"2 weeks\""
    );
}

// ---- epochs

#[test]
fn inverted_epoch() {
    assert_eq!(
        refused(|network| network["epochs"][0]["valid_until"] = 1_000_000.into()),
        "network.epochs[0].valid_until: expected a time after valid_from, 1014400, found 1000000"
    );
    assert_eq!(
        refused(|network| network["epochs"][0]["valid_until"] = 1_014_400.into()),
        "network.epochs[0].valid_until: expected a time after valid_from, 1014400, found 1014400"
    );
}

#[test]
fn epoch_too_short_to_retire_keys() {
    assert_eq!(
        refused(|network| network["epochs"][1]["valid_until"] = 1_018_039.into()),
        "network.epochs[1].valid_until: expected 1018040 or later: an epoch lasts at least max_delay for each layer \
         and once more, so that packets of the epoch before can leave"
    );
    let mut draft = draft();
    draft.epochs[1].valid_until = UnixTime(1_018_040);
    assert!(draft.sign(&authority()).is_ok());
}

#[test]
fn overlapping_epochs() {
    assert_eq!(
        refused(|network| network["epochs"][1]["valid_from"] = 1_017_999.into()),
        "network.epochs[1].valid_from: expected 1018000, when the epoch before ends, found 1017999: the two overlap"
    );
}

#[test]
fn gap_between_epochs() {
    assert_eq!(
        refused(|network| network["epochs"][1]["valid_from"] = 1_018_001.into()),
        "network.epochs[1].valid_from: expected 1018000, when the epoch before ends, found 1018001: nothing would be \
         valid in between"
    );
}

#[test]
fn epoch_numbers_with_a_gap() {
    assert_eq!(
        refused(|network| network["epochs"][1]["number"] = 6.into()),
        "network.epochs[1].number: expected 5, one more than the epoch before, found 6"
    );
    assert_eq!(
        refused(|network| network["epochs"][1]["number"] = 4.into()),
        "network.epochs[1].number: expected 5, one more than the epoch before, found 4"
    );
}

// ---- nodes

#[test]
fn key_of_the_wrong_length() {
    assert_eq!(
        refused_node("sphinx_key", "ab".repeat(31).into()),
        "network.epochs[0].nodes[2].sphinx_key: expected 64 hexadecimal characters, found 62"
    );
    assert_eq!(
        refused_node("identity", "a".repeat(63).into()),
        "network.epochs[0].nodes[2].identity: expected 64 hexadecimal characters, found 63"
    );
}

#[test]
fn key_that_is_not_hexadecimal() {
    assert_eq!(
        refused_node("sphinx_key", format!("{}é{}", "a".repeat(10), "a".repeat(52)).into()),
        "network.epochs[0].nodes[2].sphinx_key: expected hexadecimal characters, found 'é' at position 10"
    );
}

#[test]
fn identity_that_is_no_key() {
    assert_eq!(
        refused_node("identity", format!("02{}", "00".repeat(31)).into()),
        "network.epochs[0].nodes[2].identity: not an ed25519 public key: check that it was copied whole and unchanged"
    );
    assert!(!IdentityKey::from_bytes([0; 32]).is_valid(), "a point of small order");
}

#[test]
fn duplicate_identity() {
    assert_eq!(
        refused(|network| {
            let nodes = &mut network["epochs"][0]["nodes"];
            let upper = nodes[1]["identity"].as_str().unwrap().to_uppercase();
            nodes[4]["identity"] = upper.into();
        }),
        "network.epochs[0].nodes[4].identity: the same identity as network.epochs[0].nodes[1]: every node has its own"
    );
}

#[test]
fn duplicate_sphinx_key() {
    assert_eq!(
        refused(|network| {
            let nodes = &mut network["epochs"][1]["nodes"];
            nodes[5]["sphinx_key"] = nodes[0]["sphinx_key"].clone();
        }),
        "network.epochs[1].nodes[5].sphinx_key: the same key as network.epochs[1].nodes[0].sphinx_key: every node has \
         its own in every epoch, and a key's replay filter dies with it"
    );
}

#[test]
fn sphinx_key_that_lives_on() {
    assert_eq!(
        refused(|network| {
            let epochs = &mut network["epochs"];
            epochs[1]["nodes"][3]["sphinx_key"] = epochs[0]["nodes"][3]["sphinx_key"].clone();
        }),
        "network.epochs[1].nodes[3].sphinx_key: the same key as network.epochs[0].nodes[3].sphinx_key: every node has \
         its own in every epoch, and a key's replay filter dies with it"
    );
}

#[test]
fn empty_layer() {
    let mut draft = draft();
    draft.epochs[0] = epoch(4, 1, &[2, 0, 1]);
    assert_eq!(
        draft.sign(&authority()).unwrap_err().to_string(),
        "network.epochs[0].nodes: no mix node has layer 2: every layer needs at least one"
    );
}

#[test]
fn no_gateways() {
    let mut draft = draft();
    draft.epochs[0] = epoch(4, 0, &[1, 1, 1]);
    assert_eq!(
        draft.sign(&authority()).unwrap_err().to_string(),
        "network.epochs[0].nodes: no node is a gateway: at least one is needed"
    );
}

#[test]
fn layer_out_of_range() {
    assert_eq!(
        refused_node("layer", 0.into()),
        "network.epochs[0].nodes[2].layer: expected a layer from 1 to 3 (network.parameters.layers), found 0"
    );
    let mut draft = draft();
    draft.parameters.layers = 2;
    assert_eq!(
        draft.sign(&authority()).unwrap_err().to_string(),
        "network.epochs[0].nodes[0].layer: expected a layer from 1 to 2 (network.parameters.layers), found 3"
    );
    assert_eq!(
        refused_node("layer", 256.into()),
        "network.epochs[0].nodes[2].layer: expected 1 to 3, found 256"
    );
}

#[test]
fn unknown_role() {
    assert_eq!(
        refused_node("role", "Mix".into()),
        "network.epochs[0].nodes[2].role: expected \"mix\" or \"gateway\", found \"Mix\""
    );
}

#[test]
fn field_of_the_other_role() {
    assert_eq!(
        refused_node("role", "gateway".into()),
        "network.epochs[0].nodes[2].layer: a gateway has no layer: remove this field"
    );
    assert_eq!(
        refused_node("client_addresses", json!([])),
        "network.epochs[0].nodes[2].client_addresses: a mix node serves no clients: remove this field"
    );
    let mut draft = draft();
    let mix: &mut Node = &mut draft.epochs[0].nodes[2];
    assert_eq!(mix.role, Role::Mix { layer: 1 });
    mix.client_addresses.push("/ip4/127.0.0.1/udp/1".to_owned());
    assert_eq!(
        draft.sign(&authority()).unwrap_err().to_string(),
        "network.epochs[0].nodes[2].client_addresses: a mix node serves no clients: remove this field"
    );
}

#[test]
fn payment_without_a_class_for_each_link_or_an_account_for_each_node() {
    let refused_paid = |edit: &dyn Fn(&mut Draft)| {
        let mut draft = paid();
        edit(&mut draft);
        draft.sign(&authority()).unwrap_err().to_string()
    };
    assert_eq!(
        refused_paid(&|draft| draft.epochs[1].payment.as_mut().unwrap().classes.truncate(4)),
        "network.epochs[1].payment.classes: 4 classes, but a route has 5 links that are paid for: client to gateway, gateway to \
         layer 1, and so on to the recipient's gateway"
    );
    assert_eq!(
        refused_paid(&|draft| draft.epochs[0].nodes[3].account = None),
        "network.epochs[0].nodes[3].account: missing: packets of this epoch are paid for, so every node needs an account on the \
         chain"
    );
    assert_eq!(
        refused_paid(&|draft| draft.epochs[0].nodes[4].account = draft.epochs[0].nodes[1].account),
        "network.epochs[0].nodes[4].account: the account of node 1 too; each node needs one of its own"
    );
    for at in 0..2 {
        let mixed = refused_paid(&|draft| draft.epochs[at].payment = None);
        assert!(
            mixed.starts_with("network.epochs[1].payment: either this epoch or the one before"),
            "{mixed}"
        );
    }
    let text = |escrow: &str| {
        refused(|network| {
            network["epochs"][0]["payment"] =
                json!({ "chain_id": 1, "escrow": escrow, "classes": [1, 2, 3, 4, 5] });
        })
    };
    assert_eq!(
        text("00112233445566778899aabbccddeeff00112233"),
        "network.epochs[0].payment.escrow: expected 42 hexadecimal characters, found 40"
    );
    assert_eq!(
        text("0x0011"),
        "network.epochs[0].payment.escrow: expected 40 hexadecimal characters, found 4"
    );
}

#[test]
fn no_addresses() {
    assert_eq!(
        refused_node("addresses", json!([])),
        "network.epochs[0].nodes[2].addresses: expected at least one entry"
    );
    assert_eq!(
        refused(|network| network["epochs"][0]["nodes"][3]["client_addresses"] = json!([])),
        "network.epochs[0].nodes[3].client_addresses: expected at least one entry"
    );
    assert_eq!(
        refused(|network| remove(&mut network["epochs"][0]["nodes"][3], "client_addresses")),
        "network.epochs[0].nodes[3].client_addresses: this field is missing"
    );
}

#[test]
fn too_many_addresses() {
    let many: Vec<_> = (0..17).map(|port| format!("/ip4/127.0.0.1/udp/{port}/quic-v1")).collect();
    assert_eq!(
        refused_node("addresses", json!(many)),
        "network.epochs[0].nodes[2].addresses: expected at most 16 entries, found 17"
    );
}

#[test]
fn address_that_is_no_multiaddr() {
    for address in ["", "127.0.0.1:9000", "/ip4/127.0.0.1 /udp/1", "/dns/é", "/\u{1b}[31m"] {
        assert_eq!(
            refused_node("addresses", json!(["/ip4/127.0.0.1/udp/1/quic-v1", address])),
            format!(
                "network.epochs[0].nodes[2].addresses[1]: expected a multiaddr, at most 256 printable ASCII characters \
                 that begin with '/', like \"/ip4/192.0.2.1/tcp/9000\", found {address:?}"
            )
        );
    }
    let long = format!("/{}", "x".repeat(256));
    assert!(refused_node("addresses", json!([long])).contains("at most 256 printable"));
}
