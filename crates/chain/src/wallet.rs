//! A key that signs transactions.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, U256, keccak256};
use secp256k1::ecdsa::RecoverableSignature;
use secp256k1::{Message, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// 32 bytes that are no key: zero, or not less than the order of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("these 32 bytes are no secp256k1 key")]
pub struct NoKey;

/// A transaction as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTransaction {
    /// By which it is found.
    pub hash: B256,
    /// What is sent.
    pub raw: Bytes,
}

/// The key of an account that pays for transactions. Erased on drop, never shown.
pub struct Wallet {
    secret: SecretKey,
    address: Address,
}

impl Wallet {
    /// The wallet of a big-endian number. The caller erases its own copy.
    ///
    /// # Errors
    ///
    /// See [`NoKey`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, NoKey> {
        let bytes = Zeroizing::new(*bytes);
        let secret = SecretKey::from_secret_bytes(*bytes).map_err(|_| NoKey)?;
        let public = secret.public_key().serialize_uncompressed();
        Ok(Self { address: Address::from_slice(&keccak256(&public[1..])[12..]), secret })
    }

    /// Whose account it is.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Signs a transaction, always with the same result (RFC 6979).
    #[must_use]
    pub fn sign(&self, transaction: TxEip1559) -> SignedTransaction {
        let message = Message::from_digest(transaction.signature_hash().0);
        let signature = RecoverableSignature::sign_ecdsa_recoverable(message, &self.secret);
        let (recovery, bytes) = signature.serialize_compact();
        let (r, s) = (U256::from_be_slice(&bytes[..32]), U256::from_be_slice(&bytes[32..]));
        let signature = Signature::new(r, s, recovery.to_u8() & 1 == 1);
        let envelope = TxEnvelope::from(transaction.into_signed(signature));
        SignedTransaction { hash: *envelope.tx_hash(), raw: envelope.encoded_2718().into() }
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl core::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Wallet({})", self.address)
    }
}
