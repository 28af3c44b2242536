//! Keystores and passwords in files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use alloy_primitives::hex;
use tombola_chain::keystore::{Keystore, KeystoreError, Password, Work};
use zeroize::Zeroizing;

/// The example of the definition of Web3 keystores.
const EXAMPLE: &str = r#"{
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": { "iv": "83dbcc02d8ccb40e466191a123791e0e" },
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32, "n": 262144, "p": 8, "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3
}"#;
const EXAMPLE_KEY: [u8; 32] = hex!("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d");

fn password(text: &str) -> Password {
    Password::from_bytes(Zeroizing::new(text.as_bytes().to_vec()))
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_is_the_same_after_a_round_trip_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let store = Keystore::new(directory.path().join("key.json"));
    let wallet = store.create(&password("secret"), Work::Light).unwrap();
    assert_eq!(store.open(&password("secret")).unwrap().address(), wallet.address());
    assert_eq!(store.open_of(wallet.address(), &password("secret")).unwrap().address(), wallet.address());
    assert!(matches!(store.create(&password("secret"), Work::Light), Err(KeystoreError::Exists(_))));
    assert_eq!(fs::metadata(store.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
    let stranger = alloy_primitives::Address::ZERO;
    assert!(matches!(store.open_of(stranger, &password("secret")), Err(KeystoreError::Account { .. })));
}

#[test]
fn the_example_of_the_definition_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.json");
    write(&path, EXAMPLE, 0o600);
    let secret = Keystore::new(&path).open_bytes(&password("testpassword")).unwrap();
    assert_eq!(*secret, EXAMPLE_KEY);
}

#[test]
fn other_programs_read_what_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = Keystore::new(directory.path().join("key.json"));
    store.import(&EXAMPLE_KEY, &password("secret"), Work::Light).unwrap();
    let theirs = alloy_signer_local::PrivateKeySigner::decrypt_keystore(store.path(), "secret").unwrap();
    assert_eq!(theirs.to_bytes(), EXAMPLE_KEY);
    let text = fs::read_to_string(store.path()).unwrap();
    assert!(!text.contains(&hex::encode(EXAMPLE_KEY)));
}

#[test]
fn a_wrong_password_and_damage_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = Keystore::new(directory.path().join("key.json"));
    let wallet = store.create(&password("secret"), Work::Light).unwrap();
    assert!(matches!(store.open(&password("Secret")), Err(KeystoreError::Password(_))));
    let text = fs::read_to_string(store.path()).unwrap();
    let open = |text: &str| {
        write(store.path(), text, 0o600);
        store.open(&password("secret"))
    };
    // Whatever byte is damaged, there is an error and no panic.
    for at in (0..text.len()).step_by(7) {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        let damaged = String::from_utf8(bytes).unwrap();
        // The identifier means nothing, and a file need not have an address. The checksum does not cover the initial
        // counter, but the address does.
        if let Ok(found) = open(&damaged) {
            assert_eq!(found.address(), wallet.address(), "byte {at}");
            assert!(at < text.find("crypto").unwrap(), "byte {at}");
        }
    }
    for absurd in ["\"n\": 1099511627776", "\"n\": 4097", "\"n\": 0"] {
        assert!(matches!(open(&text.replace("\"n\": 4096", absurd)), Err(KeystoreError::Format { .. })));
    }
    for cut in [0, 1, text.len() / 2, text.len() - 2] {
        assert!(matches!(open(&text[..cut]), Err(KeystoreError::Format { .. })));
    }
    let short = text.replacen("\"iv\": \"", "\"iv\": \"00", 1);
    assert!(matches!(open(&short), Err(KeystoreError::Format { .. })));
}

#[test]
fn what_others_could_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.json");
    for mode in [0o604, 0o640, 0o620, 0o666] {
        write(&path, EXAMPLE, mode);
        let error = Keystore::new(&path).open(&password("testpassword")).unwrap_err();
        assert!(matches!(&error, KeystoreError::Mode { mode: found, .. } if *found == mode));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    assert!(matches!(
        Keystore::new(directory.path().join("none")).open(&password("x")),
        Err(KeystoreError::Missing(_))
    ));
    assert!(matches!(
        Keystore::new(directory.path()).open(&password("x")),
        Err(KeystoreError::Format { .. })
    ));
}

#[test]
fn passwords_are_one_line_of_a_file_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let store = Keystore::new(directory.path().join("key.json"));
    let generated = Password::generate(&path).unwrap();
    assert!(matches!(Password::generate(&path), Err(KeystoreError::Exists(_))));
    store.create(&generated, Work::Light).unwrap();
    store.open(&Password::read(&path).unwrap()).unwrap();
    assert_eq!(format!("{generated:?}"), "Password(redacted)");
    for text in ["", "\n", "two\nlines\n"] {
        write(&path, text, 0o600);
        assert!(matches!(Password::read(&path), Err(KeystoreError::Format { .. })), "{text:?}");
    }
    write(&path, "word\n", 0o644);
    assert!(matches!(Password::read(&path), Err(KeystoreError::Mode { .. })));
}
