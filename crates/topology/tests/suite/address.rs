//! Addresses: what is typed wrongly is noticed.

use bech32::{Bech32, Bech32m, Hrp};
use proptest::prelude::*;
use tombola_topology::{AddressError, ClientAddress, IdentityKey, MailboxId, SphinxKey};

use crate::fixtures::{Numbers, config, identity};

/// The characters of the data part.
const CHARSET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

fn address(seed: u64) -> ClientAddress {
    let mut numbers = Numbers(seed);
    let mut bytes = || numbers.next().to_le_bytes()[0];
    ClientAddress {
        sphinx_key: SphinxKey::from_bytes([(); 32].map(|()| bytes())),
        gateway: IdentityKey::from_bytes([(); 32].map(|()| bytes())),
        mailbox: MailboxId::from_bytes([(); 28].map(|()| bytes())),
    }
}

fn parse(text: &str) -> Result<ClientAddress, AddressError> {
    text.parse()
}

/// Bytes with a right checksum.
fn encode(bytes: &[u8]) -> String {
    bech32::encode::<Bech32m>(Hrp::parse("tombola").unwrap(), bytes).unwrap()
}

#[test]
fn the_text_has_the_stated_form() {
    let text = address(1).to_string();
    assert_eq!(text.len(), ClientAddress::TEXT_LEN);
    // 1 in the first byte is q (00000) and then 001 and two bits of the key.
    assert!(["tombola1qy", "tombola1q9", "tombola1qx", "tombola1q8"].contains(&&text[..10]), "{text}");
    assert_eq!(parse(&text), Ok(address(1)));
    assert_eq!(parse(&text.to_uppercase()), Ok(address(1)));
}

#[test]
fn every_substituted_character_is_noticed() {
    for seed in 0..4 {
        let text = address(seed).to_string();
        for position in 0..text.len() {
            for other in
                (b' '..=b'~').map(char::from).filter(|other| *other != char::from(text.as_bytes()[position]))
            {
                let typed = format!("{}{other}{}", &text[..position], &text[position + 1..]);
                assert!(parse(&typed).is_err(), "{position} {typed}");
            }
        }
    }
}

#[test]
fn every_transposed_pair_is_noticed() {
    for seed in 0..20 {
        let text = address(seed).to_string();
        for position in 0..text.len() - 1 {
            let mut typed = text.clone().into_bytes();
            typed.swap(position, position + 1);
            if typed != text.as_bytes() {
                assert!(parse(std::str::from_utf8(&typed).unwrap()).is_err(), "{position}");
            }
        }
    }
}

#[test]
fn every_missing_or_added_character_is_noticed() {
    let text = address(3).to_string();
    for position in 0..text.len() {
        let typed = format!("{}{}", &text[..position], &text[position + 1..]);
        assert!(parse(&typed).is_err(), "{position}");
        for added in CHARSET.chars() {
            let typed = format!("{}{added}{}", &text[..position], &text[position..]);
            assert!(parse(&typed).is_err(), "{position} {added}");
        }
    }
}

#[test]
fn mistyped() {
    let error = parse(&address(1).to_string().replacen('y', "p", 1)).unwrap_err();
    assert_eq!(error.to_string(), "the address is mistyped or cut short: its checksum does not match");
    let cut = &address(1).to_string()[..100];
    assert_eq!(parse(cut), Err(AddressError::Checksum));
    assert_eq!(parse("tombola1"), Err(AddressError::Checksum));
}

#[test]
fn wrong_prefix() {
    for text in [
        "",
        "1",
        "tombola",
        "hello",
        "tombola2qy",
        "bitcoin",
        "ééééé",
        &address(1).to_string().replacen('t', "b", 1),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.to_string(), "not a Tombola address: it must begin with \"tombola1\"", "{text}");
    }
    let other = bech32::encode::<Bech32m>(Hrp::parse("bc").unwrap(), &[1; 93]).unwrap();
    assert_eq!(parse(&other), Err(AddressError::Prefix));
}

#[test]
fn characters_that_do_not_occur() {
    let text = address(1).to_string();
    let error = parse(&format!("{text}\n")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "'\\n' does not occur in an address: check for a mistyped or added character"
    );
    assert_eq!(parse(&format!("{text}é")), Err(AddressError::Character('é')));
    assert_eq!(parse(&format!("tombola1{}", "b".repeat(155))), Err(AddressError::Character('b')));
    assert_eq!(parse(&format!("tombola1qq1{}", "q".repeat(152))), Err(AddressError::Character('1')));
}

#[test]
fn mixed_case() {
    let text = address(1).to_string();
    let error = parse(&text.replacen('q', "Q", 1)).unwrap_err();
    assert_eq!(error.to_string(), "an address is either all lower case or all upper case");
}

#[test]
fn version_of_the_future() {
    // Named whatever its length is.
    for length in [1, 60, 93, 120] {
        let error = parse(&encode(&vec![2; length])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "version 2 of addresses is not supported: this program reads version 1, a newer one may be needed"
        );
    }
}

#[test]
fn wrong_length() {
    assert_eq!(parse(&encode(&[1; 94])).unwrap_err().to_string(), "an address holds 93 bytes, this one 94");
    assert_eq!(parse(&encode(&[1; 92])), Err(AddressError::Length(92)));
    assert_eq!(parse(&encode(&[])), Err(AddressError::Length(0)));
}

#[test]
fn the_older_checksum_is_not_accepted() {
    let text = bech32::encode::<Bech32>(Hrp::parse("tombola").unwrap(), &[1; 93]).unwrap();
    assert_eq!(parse(&text), Err(AddressError::Checksum));
}

#[test]
fn second_spellings_are_refused() {
    use bech32::{ByteIterExt, Fe32, Fe32IterExt};
    let hrp = Hrp::parse("tombola").unwrap();
    let spell = |last_bit: u8| -> String {
        let mut symbols: Vec<Fe32> = [1_u8; 93].into_iter().bytes_to_fes().collect();
        let last = symbols.last_mut().unwrap();
        *last = Fe32::try_from(last.to_u8() | last_bit).unwrap();
        symbols.into_iter().with_checksum::<Bech32m>(&hrp).chars().collect()
    };
    assert!(parse(&spell(0)).is_ok());
    assert_eq!(parse(&spell(1)), Err(AddressError::Padding));
}

#[test]
fn a_mailbox_follows_from_the_link_key() {
    // SHA-256("tombola/mailbox/1" | key)[..28], see the vectors.
    assert_ne!(MailboxId::of(&identity(1)), MailboxId::of(&identity(2)));
    assert_eq!(MailboxId::of(&identity(1)), MailboxId::of(&identity(1)));
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn what_is_written_is_read_back(
        sphinx_key: [u8; 32],
        gateway: [u8; 32],
        mailbox in prop::array::uniform28(0_u8..),
    ) {
        let address = ClientAddress {
            sphinx_key: sphinx_key.into(),
            gateway: gateway.into(),
            mailbox: mailbox.into(),
        };
        prop_assert_eq!(parse(&address.to_string()), Ok(address));
    }

    #[test]
    fn any_two_substitutions_are_noticed(
        seed: u64,
        [first, second] in prop::array::uniform2(8_usize..ClientAddress::TEXT_LEN),
        [one, other] in prop::array::uniform2(0_usize..32),
    ) {
        let text = address(seed).to_string();
        let mut typed = text.clone().into_bytes();
        typed[first] = CHARSET.as_bytes()[one];
        typed[second] = CHARSET.as_bytes()[other];
        let typed = String::from_utf8(typed).unwrap();
        prop_assert_eq!(parse(&typed).is_ok(), typed == text);
    }

    #[test]
    fn what_is_accepted_is_written_again(seed: u64, position in 0..ClientAddress::TEXT_LEN, other: char) {
        let text = address(seed).to_string();
        let typed = format!("{}{other}{}", &text[..position], &text[position + 1..]);
        if let Ok(read) = parse(&typed) {
            prop_assert_eq!(read.to_string(), typed);
        }
    }

    #[test]
    fn no_text_panics(text: String) {
        prop_assert!(parse(&text).is_err());
        let data = format!("tombola1{text}");
        prop_assert!(parse(&data).is_err());
    }
}
