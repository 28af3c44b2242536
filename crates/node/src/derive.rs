//! Seeds: fresh ones from the operating system, and ones that follow from a secret.

use std::io;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes from the operating system's random source.
///
/// # Errors
/// The source failed.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// A seed for a state machine.
///
/// # Errors
/// The random source failed.
pub fn random_seed() -> io::Result<[u8; 32]> {
    random_bytes()
}

/// A seed that follows from a secret, for one purpose in one context: HKDF-SHA256 (RFC 5869) without salt, whose info is
/// the label and each part of the context, all preceded by their lengths (8 bytes, big-endian).
#[must_use]
pub fn derive_seed(secret: &[u8; 32], label: &[u8], context: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut info = Vec::new();
    for part in [label].iter().chain(context) {
        info.extend_from_slice(&(part.len() as u64).to_be_bytes());
        info.extend_from_slice(part);
    }
    let mut seed = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, secret)
        .expand(&info, &mut *seed)
        .expect("32 bytes are less than the 8160 that HKDF-SHA256 gives");
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_and_context_separate() {
        let secret = [7; 32];
        let seeds = [
            derive_seed(&secret, b"a", &[]),
            derive_seed(&secret, b"b", &[]),
            derive_seed(&secret, b"a", &[b""]),
            derive_seed(&secret, b"a", &[b"x", b"y"]),
            derive_seed(&secret, b"a", &[b"xy"]),
            derive_seed(&[8; 32], b"a", &[]),
        ];
        for (at, seed) in seeds.iter().enumerate() {
            assert!(seeds[at + 1..].iter().all(|other| other != seed));
        }
        assert_eq!(derive_seed(&secret, b"a", &[b"x"]), derive_seed(&secret, b"a", &[b"x"]));
    }

    #[test]
    fn fresh_seeds_differ() {
        assert_ne!(random_seed().unwrap(), random_seed().unwrap());
    }
}
