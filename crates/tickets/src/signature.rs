//! Signatures of issuers: secp256k1, in the compact form of EIP-2098.

use alloy_primitives::{Address, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::batch::Digest;

/// Half of the order of the curve, rounded down: s is at most this.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d,
    0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// The bit of s in which EIP-2098 puts the parity of y.
const PARITY: u8 = 0x80;

/// 64 bytes: r 32, then the parity of y in the highest bit and s in the other 255.
///
/// r and s are in range and s is the lower one, so that of the two signatures that anyone can make of one there is one.
/// Whether it is anybody's is only known once an address is recovered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompactSignature([u8; 64]);

/// Why bytes are no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// r or s is zero, or r is not less than the order of the curve.
    #[error("a component of the signature is out of range")]
    Range,
    /// s is more than half of the order.
    #[error("s is the higher one of two")]
    HighS,
    /// No point has such an r, so that nobody has signed this.
    #[error("the signature belongs to no key")]
    NoKey,
}

impl CompactSignature {
    /// Length in bytes.
    pub const LEN: usize = 64;

    /// Reads a signature.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Range`], [`SignatureError::HighS`].
    pub fn from_bytes(bytes: [u8; 64]) -> Result<Self, SignatureError> {
        let signature = Self(bytes);
        let (_, rs) = signature.split();
        let (r, s) = rs.split_at(32);
        if *s > HALF_ORDER[..] {
            return Err(SignatureError::HighS);
        }
        if r.iter().all(|byte| *byte == 0) || s.iter().all(|byte| *byte == 0) {
            return Err(SignatureError::Range);
        }
        RecoverableSignature::from_compact(&rs, RecoveryId::Zero).map_err(|_| SignatureError::Range)?;
        Ok(signature)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// Parity of y, and r and s without it.
    fn split(&self) -> (RecoveryId, [u8; 64]) {
        let mut rs = self.0;
        rs[32] &= !PARITY;
        let parity = if self.0[32] & PARITY == 0 { RecoveryId::Zero } else { RecoveryId::One };
        (parity, rs)
    }

    /// The address of whoever signed `digest`, as the contract computes it. Every digest gives some address or none;
    /// whose it should be is for the caller to compare.
    ///
    /// # Errors
    ///
    /// [`SignatureError::NoKey`].
    pub fn recover(&self, digest: &Digest) -> Result<Address, SignatureError> {
        let (parity, rs) = self.split();
        RecoverableSignature::from_compact(&rs, parity)
            .and_then(|signature| signature.recover(Message::from_digest(*digest.as_bytes())))
            .map(|key| address(&key))
            .map_err(|_| SignatureError::NoKey)
    }
}

impl core::fmt::Debug for CompactSignature {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CompactSignature({})", alloy_primitives::hex::encode(self.0))
    }
}

/// The last 20 bytes of the hash of the uncompressed point.
fn address(key: &PublicKey) -> Address {
    Address::from_slice(&keccak256(&key.serialize_uncompressed()[1..])[12..])
}

/// 32 bytes that are no key: zero, or not less than the order of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("these 32 bytes are no secp256k1 key")]
pub struct KeyError;

/// A key that signs batches. Erased on drop, never shown.
pub struct SignerKey {
    secret: SecretKey,
    address: Address,
}

impl SignerKey {
    /// The key of a big-endian number. The caller erases its own copy.
    ///
    /// # Errors
    ///
    /// It is zero or not less than the order of the curve.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(*bytes);
        let secret = SecretKey::from_secret_bytes(*bytes).map_err(|_| KeyError)?;
        Ok(Self { address: address(&secret.public_key()), secret })
    }

    /// By which the chain knows the signer.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Signs a digest, always with the same result (RFC 6979).
    #[must_use]
    pub fn sign(&self, digest: &Digest) -> CompactSignature {
        let message = Message::from_digest(*digest.as_bytes());
        let signature = RecoverableSignature::sign_ecdsa_recoverable(message, &self.secret);
        let (recovery, mut bytes) = signature.serialize_compact();
        // The second bit says that r had to be reduced. That happens once in 2^127 signatures, and the recipient would
        // refuse that one.
        bytes[32] |= recovery.to_u8() << 7;
        CompactSignature(bytes)
    }
}

impl Drop for SignerKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl core::fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SignerKey({})", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{address, hex};

    const ORDER: [u8; 32] = hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");

    fn key() -> SignerKey {
        SignerKey::from_bytes(&[0x46; 32]).unwrap()
    }

    /// The first key that every development chain funds.
    #[test]
    fn addresses_are_those_of_ethereum() {
        let bytes = hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
        let address = SignerKey::from_bytes(&bytes).unwrap().address();
        assert_eq!(address, address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"));
    }

    /// The examples of EIP-2098.
    #[test]
    fn signatures_are_those_of_eip_2098() {
        let key =
            SignerKey::from_bytes(&hex!("1234567890123456789012345678901234567890123456789012345678901234"));
        let key = key.unwrap();
        let digest = |text: &str| {
            Digest::from_bytes(keccak256(format!("\x19Ethereum Signed Message:\n{}{text}", text.len())).0)
        };
        let hello = hex!(
            "68a020a209d3d56c46f38cc50a33f704f4a9a10a59377f8dd762ac66910e9b90"
            "7e865ad05c4035ab5792787d4a0297a43617ae897930a6fe4d822b8faea52064"
        );
        let small = hex!(
            "9328da16089fcba9bececa81663203989f2df5fe1faa6291a45381c81bd17f76"
            "939c6d6b623b42da56557e5e734a43dc83345ddfadec52cbe24d0cc64f550793"
        );
        for (text, bytes) in [("Hello World", hello), ("It's a small(er) world", small)] {
            assert_eq!(key.sign(&digest(text)).as_bytes(), &bytes, "{text}");
            let read = CompactSignature::from_bytes(bytes).unwrap();
            assert_eq!(read.recover(&digest(text)), Ok(key.address()), "{text}");
        }
    }

    #[test]
    fn another_digest_or_parity_gives_another_address() {
        let digest = Digest::from_bytes([1; 32]);
        let signature = key().sign(&digest);
        assert_eq!(signature.recover(&digest), Ok(key().address()));
        assert_ne!(signature.recover(&Digest::from_bytes([2; 32])), Ok(key().address()));
        let mut bytes = *signature.as_bytes();
        bytes[32] ^= PARITY;
        assert_ne!(CompactSignature::from_bytes(bytes).unwrap().recover(&digest), Ok(key().address()));
    }

    #[test]
    fn components_out_of_range_are_refused() {
        let valid = *key().sign(&Digest::from_bytes([1; 32])).as_bytes();
        let with = |at: usize, part: [u8; 32]| {
            let mut bytes = valid;
            bytes[at..at + 32].copy_from_slice(&part);
            CompactSignature::from_bytes(bytes)
        };
        assert_eq!(with(0, [0; 32]), Err(SignatureError::Range));
        assert_eq!(with(0, ORDER), Err(SignatureError::Range));
        assert_eq!(with(32, [0; 32]), Err(SignatureError::Range));
        assert!(with(32, HALF_ORDER).is_ok());
        let mut above = HALF_ORDER;
        above[31] += 1;
        assert_eq!(with(32, above), Err(SignatureError::HighS));
        above[0] |= PARITY;
        assert_eq!(with(32, above), Err(SignatureError::HighS), "whatever the parity");
    }

    #[test]
    fn an_r_without_a_point_belongs_to_no_key() {
        let valid = *key().sign(&Digest::from_bytes([1; 32])).as_bytes();
        // x = 5 is on no point: 5^3 + 7 = 132 is no square.
        let mut bytes = valid;
        bytes[..32].fill(0);
        bytes[31] = 5;
        let signature = CompactSignature::from_bytes(bytes).unwrap();
        assert_eq!(signature.recover(&Digest::from_bytes([1; 32])), Err(SignatureError::NoKey));
    }

    #[test]
    fn numbers_out_of_range_are_no_keys() {
        for bytes in [[0; 32], ORDER, [0xff; 32]] {
            assert_eq!(SignerKey::from_bytes(&bytes).map(|key| key.address()), Err(KeyError));
        }
    }

    #[test]
    fn a_key_shows_its_address_only() {
        assert_eq!(format!("{:?}", key()), format!("SignerKey({})", key().address()));
    }
}
