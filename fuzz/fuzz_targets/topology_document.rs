//! No text makes the reader of network documents panic or hang, and none is accepted that the authority has not
//! signed. A document whose content is valid can be signed, is then accepted, and reads as what was signed.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tombola_fuzz::authority;
use tombola_topology::{AuthorityKey, Draft, Network};

static KEY: LazyLock<AuthorityKey> = LazyLock::new(|| authority().key());
/// The one document that the authority has signed; also where the fuzzer starts.
static SIGNED: &str = include_str!("../seeds/topology_document/signed.json");

fuzz_target!(|text: &str| {
    if let Ok(accepted) = Network::verify(text, &KEY) {
        // Only what was signed can be here, written in another way at most.
        let original = Network::verify(SIGNED, &KEY).expect("the original is valid");
        assert!(accepted.digest() == original.digest(), "a document that nobody signed was accepted");
    }
    if let Ok(draft) = Draft::from_json(text) {
        let signed = draft.sign(&authority()).expect("what is valid unsigned is valid signed");
        let again = Draft::from_json(signed.to_json()).expect("a signed document can be read as a draft");
        assert_eq!(again, draft);
    }
});
