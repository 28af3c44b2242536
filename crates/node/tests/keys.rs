//! Secrets on disk: who may read them, what is refused, and that nothing of them is ever shown.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tombola_node::keys::{Authority, KeyError, Link, Secret, SecretFile, Sphinx};
use zeroize::Zeroizing;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A directory that nobody else may enter, whatever the umask is.
fn private_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
    directory
}

/// A file with this content and mode 0600.
fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_new_key_can_be_loaded_and_only_by_its_owner() {
    let directory = private_directory();
    let path = directory.path().join("new").join("keys").join("link.key");
    let file = SecretFile::<Link>::new(&path);
    assert!(matches!(file.load(), Err(KeyError::Missing(_))));
    let secret = file.load_or_generate().unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(file.load_or_generate().unwrap().expose(), secret.expose());
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("tombola-link-secret-1: {}\n", hex::encode(secret.expose())));
}

#[test]
fn two_new_keys_differ() {
    assert_ne!(Secret::<Link>::generate().unwrap().expose(), Secret::<Link>::generate().unwrap().expose());
}

#[test]
fn a_key_is_never_overwritten() {
    let directory = private_directory();
    let file = SecretFile::<Link>::new(directory.path().join("link.key"));
    let first = file.generate().unwrap();
    let error = file.generate().unwrap_err();
    assert!(matches!(error, KeyError::Exists(_)), "{error}");
    assert_eq!(file.load().unwrap().expose(), first.expose());
}

#[test]
fn access_for_others_is_refused_with_the_command_that_repairs_it() {
    let directory = private_directory();
    let path = directory.path().join("my key");
    let file = SecretFile::<Sphinx>::new(&path);
    file.generate().unwrap();
    for bits in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777] {
        fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
        let message = file.load().unwrap_err().to_string();
        let expected = format!(
            "{}: has the mode {bits:04o}, so others have access to a secret; run: chmod 600 '{}'",
            path.display(),
            path.display()
        );
        assert_eq!(message, expected);
    }
    for bits in [0o600, 0o400, 0o700] {
        fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
        assert!(file.load().is_ok(), "{bits:o}");
    }
}

#[test]
fn a_directory_that_is_open_to_others_gets_no_key() {
    let directory = private_directory();
    let open = directory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
    let error = SecretFile::<Link>::new(open.join("link.key")).generate().unwrap_err();
    assert!(error.to_string().ends_with(&format!("run: chmod 700 {}", open.display())), "{error}");
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let directory = private_directory();
    let path = directory.path().join("link.key");
    let file = SecretFile::<Link>::new(&path);
    file.generate().unwrap();
    // Only root may give files away; as somebody else there is nothing to test.
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
        let error = file.load().unwrap_err();
        assert!(matches!(error, KeyError::Owner { owner: 12_345, .. }), "{error}");
    }
}

#[test]
fn a_key_for_something_else_is_refused() {
    let directory = private_directory();
    let path = directory.path().join("node.key");
    SecretFile::<Link>::new(&path).generate().unwrap();
    let error = SecretFile::<Sphinx>::new(&path).load().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: holds a \"tombola-link-secret\", but a \"tombola-sphinx-secret\" is needed here",
            path.display()
        )
    );
    assert!(matches!(SecretFile::<Authority>::new(&path).load(), Err(KeyError::Label { .. })));
}

#[test]
fn another_form_is_refused_and_never_shown() {
    let directory = private_directory();
    let path = directory.path().join("link.key");
    let file = SecretFile::<Link>::new(&path);
    let digits = "5e".repeat(32);
    let contents = [
        String::new(),
        digits.clone(),
        format!("tombola-link-secret:{digits}\n"),
        format!("tombola-link-secret-1:{digits}\n"),
        format!("tombola-link-secret-: {digits}\n"),
        format!("tombola-link-secret-0: {digits}\n"),
        format!("tombola-link-secret-01: {digits}\n"),
        format!("tombola-link-secret--1: {digits}\n"),
        format!("tombola-link-secret-1-1: {digits}\n"),
        format!("tombola-link-secret-99999999999: {digits}\n"),
        format!("tombola-link-secret-1: {}\n", &digits[1..]),
        format!("tombola-link-secret-1: {digits}5e\n"),
        format!("tombola-link-secret: {}\n", &digits[1..]),
        format!("tombola-link-secret: {digits}5e\n"),
        format!("tombola-link-secret: {digits}\n\n"),
        format!("tombola-link-secret: {digits} \n"),
        format!(" tombola-link-secret: {digits}\n"),
        format!("tombola-link-secret: {}\n", "5g".repeat(32)),
        format!("other-secret: {digits}\n"),
        format!("tombola-link-secret: {digits}\r\n"),
        format!("tombola-link-secret: {digits}\n{}", "x".repeat(1000)),
    ];
    for content in contents {
        write(&path, content.as_bytes());
        let error = file.load().unwrap_err();
        assert!(matches!(error, KeyError::Format { .. }), "{content:?}: {error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("5e5e") && !shown.contains("other-secret"), "{shown}");
    }
}

/// The present form and that of version 0.1, with and without a newline.
#[test]
fn every_form_so_far_is_read_and_a_later_one_is_named() {
    let directory = private_directory();
    let path = directory.path().join("link.key");
    let file = SecretFile::<Link>::new(&path);
    let digits = "5e".repeat(32);
    for label in ["tombola-link-secret-1", "tombola-link-secret"] {
        for end in ["\n", ""] {
            write(&path, format!("{label}: {digits}{end}").as_bytes());
            assert_eq!(file.load().unwrap().expose(), &[0x5e; 32]);
        }
        assert!(matches!(SecretFile::<Sphinx>::new(&path).load(), Err(KeyError::Label { .. })), "{label}");
    }
    for later in [2, 999_999_999] {
        write(&path, format!("tombola-link-secret-{later}: something else\n").as_bytes());
        let error = file.load().unwrap_err();
        assert!(matches!(error, KeyError::Version { found, .. } if found == later), "{error}");
        assert!(error.to_string().contains(&format!("version {later}")), "{error}");
        assert!(!error.to_string().contains("something else"), "{error}");
    }
}

#[test]
fn what_is_not_a_file_is_refused_without_waiting() {
    let directory = private_directory();
    let made = std::process::Command::new("mkfifo").arg(directory.path().join("pipe")).status();
    if made.is_ok_and(|status| status.success()) {
        assert!(matches!(
            SecretFile::<Link>::new(directory.path().join("pipe")).load(),
            Err(KeyError::Format { .. })
        ));
    }
    assert!(matches!(SecretFile::<Link>::new(directory.path()).load(), Err(KeyError::Format { .. })));
}

#[test]
fn a_secret_does_not_print() {
    let secret = Secret::<Sphinx>::from_bytes(Zeroizing::new([0x5e; 32]));
    assert_eq!(format!("{secret:?}"), "Secret(tombola-sphinx-secret, redacted)");
    let file = SecretFile::<Sphinx>::new("sphinx.key");
    assert!(format!("{file:?}").contains("sphinx.key"));
}
