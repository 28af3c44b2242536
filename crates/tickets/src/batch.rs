//! Batches: up to 256 tickets under one signature.
//!
//! The header is an EIP-712 structure. Source: `docs/payment.md`, "Tickets and batches". On the wire and on disk a
//! signed batch has 182 bytes; integers are big-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 20 | issuer |
//! | 20 | recipient |
//! | 4 | class |
//! | 4 | window |
//! | 1 | number |
//! | 1 | count less one |
//! | 32 | commitment |
//! | 20 | root |
//! | 16 | salt |
//! | 64 | signature |

use alloy_primitives::{Address, B256};
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain};
use thiserror::Error;

use crate::bytes::{concat, keccak, public_bytes};
use crate::class::ClassNumber;
use crate::lottery::{Commitment, WindowNumber};
use crate::merkle::{Root, TicketCount};
use crate::reader::Reader;
use crate::signature::{CompactSignature, SignatureError, SignerKey};

/// Generated; the fields are those of [`BatchHeader`](super::BatchHeader), and their names and types are signed.
mod abi {
    alloy_sol_types::sol! {
        struct Batch {
            address issuer;
            address recipient;
            uint32 class;
            uint32 window;
            uint8 number;
            uint16 count;
            bytes32 commitment;
            bytes20 root;
            bytes16 salt;
        }
    }
}

public_bytes! {
    /// What an issuer signs: the EIP-712 hash of a batch's header.
    Digest, 32
}

public_bytes! {
    /// Random, drawn by the issuer after both have agreed on the list: the recipient cannot choose its digest.
    Salt, 16
}

/// Where batches are worth something: one escrow on one chain. Two domains are equal if chain and escrow are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    chain_id: u64,
    escrow: Address,
    separator: B256,
}

impl Domain {
    /// Name `Tombola`, version `1`. Computes the domain separator once.
    #[must_use]
    pub fn new(chain_id: u64, escrow: Address) -> Self {
        let separator = Self::eip712(chain_id, escrow).separator();
        Self { chain_id, escrow, separator }
    }

    fn eip712(chain_id: u64, escrow: Address) -> Eip712Domain {
        eip712_domain! {
            name: "Tombola",
            version: "1",
            chain_id: chain_id,
            verifying_contract: escrow,
        }
    }

    /// The chain's id (EIP-155).
    #[must_use]
    pub const fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Address of the escrow.
    #[must_use]
    pub const fn escrow(&self) -> Address {
        self.escrow
    }

    /// The EIP-712 domain separator.
    #[must_use]
    pub const fn separator(&self) -> B256 {
        self.separator
    }
}

/// What an issuer signs of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Who pays.
    pub issuer: Address,
    /// Who is paid.
    pub recipient: Address,
    /// What its tickets are worth.
    pub class: ClassNumber,
    /// Under whose commitment it is.
    pub window: WindowNumber,
    /// Its number in the window, from 0.
    pub number: u8,
    /// How many tickets it has.
    pub count: TicketCount,
    /// The recipient's commitment of the window.
    pub commitment: Commitment,
    /// Root of the tree over its challenges.
    pub root: Root,
    /// The issuer's salt.
    pub salt: Salt,
}

impl BatchHeader {
    /// Length in bytes.
    pub const LEN: usize = 118;

    /// The EIP-712 hash: `keccak(0x1901 | domain separator | struct hash)`.
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> Digest {
        let hash = self.abi().eip712_hash_struct();
        Digest(keccak(&*concat::<66>(&[&[0x19, 0x01], domain.separator.as_slice(), hash.as_slice()])))
    }

    fn abi(&self) -> abi::Batch {
        abi::Batch {
            issuer: self.issuer,
            recipient: self.recipient,
            class: self.class.0,
            window: self.window.0,
            number: self.number,
            count: self.count.get(),
            commitment: (*self.commitment.as_bytes()).into(),
            root: (*self.root.as_bytes()).into(),
            salt: (*self.salt.as_bytes()).into(),
        }
    }

    /// Signs the header. The same header gives the same signature.
    #[must_use]
    pub fn sign(self, domain: &Domain, key: &SignerKey) -> SignedBatch {
        SignedBatch { header: self, signature: key.sign(&self.digest(domain)) }
    }
}

/// A batch as it travels and as it is kept: byte for byte the same whenever it is sent again.
///
/// Whether the signature is the issuer's is not known before [`Self::recover`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedBatch {
    /// What was signed.
    pub header: BatchHeader,
    /// By whoever [`Self::recover`] says.
    pub signature: CompactSignature,
}

/// Why bytes are no signed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// There are more or fewer than 182.
    #[error("a signed batch has {len} bytes, not {0}", len = SignedBatch::LEN)]
    Length(usize),
    /// The last 64 are no signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl SignedBatch {
    /// Length in bytes.
    pub const LEN: usize = BatchHeader::LEN + CompactSignature::LEN;

    /// The address of whoever signed the batch for this domain.
    ///
    /// # Errors
    ///
    /// The signature belongs to no key.
    pub fn recover(&self, domain: &Domain) -> Result<Address, SignatureError> {
        self.signature.recover(&self.header.digest(domain))
    }

    /// The bytes, as in the table of this module.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let BatchHeader { issuer, recipient, class, window, number, count, commitment, root, salt } =
            &self.header;
        *concat(&[
            issuer.as_slice(),
            recipient.as_slice(),
            &class.0.to_be_bytes(),
            &window.0.to_be_bytes(),
            &[*number, count.less_one()],
            commitment.as_bytes(),
            root.as_bytes(),
            salt.as_bytes(),
            self.signature.as_bytes(),
        ])
    }

    /// Reads the bytes.
    ///
    /// # Errors
    ///
    /// See [`BatchError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() != Self::LEN {
            return Err(BatchError::Length(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let mut read = || {
            let header = BatchHeader {
                issuer: reader.array()?.into(),
                recipient: reader.array()?.into(),
                class: ClassNumber(reader.u32()?),
                window: WindowNumber(reader.u32()?),
                number: reader.u8()?,
                count: TicketCount::from_less_one(reader.u8()?),
                commitment: Commitment::from_bytes(reader.array()?),
                root: Root::from_bytes(reader.array()?),
                salt: Salt(reader.array()?),
            };
            Some((header, reader.array()?))
        };
        let (header, signature) = read().ok_or(BatchError::Length(bytes.len()))?;
        Ok(Self { header, signature: CompactSignature::from_bytes(signature)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{U256, keccak256};

    fn header() -> BatchHeader {
        BatchHeader {
            issuer: Address::repeat_byte(1),
            recipient: Address::repeat_byte(2),
            class: ClassNumber(0x0304_0506),
            window: WindowNumber(0x0708_090a),
            number: 11,
            count: TicketCount::MAX,
            commitment: Commitment::from_bytes([12; 32]),
            root: Root::from_bytes([13; 20]),
            salt: Salt([14; 16]),
        }
    }

    fn domain() -> Domain {
        Domain::new(31337, Address::repeat_byte(0xe5))
    }

    fn key() -> SignerKey {
        SignerKey::from_bytes(&[7; 32]).unwrap()
    }

    /// The 32-byte words of EIP-712, written out by hand.
    #[test]
    fn the_digest_is_that_of_the_specification() {
        let word = |number: u64| U256::from(number).to_be_bytes::<32>();
        let address = |byte: u8| {
            let mut word = [0; 32];
            word[12..].fill(byte);
            word
        };
        let left = |byte: u8, len: usize| {
            let mut word = [0; 32];
            word[..len].fill(byte);
            word
        };
        let domain_type =
            "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
        let separator = keccak256(
            [keccak256(domain_type).0, keccak256("Tombola").0, keccak256("1").0, word(31337), address(0xe5)]
                .concat(),
        );
        assert_eq!(domain().separator(), separator);
        let batch_type = "Batch(address issuer,address recipient,uint32 class,uint32 window,uint8 number,\
                          uint16 count,bytes32 commitment,bytes20 root,bytes16 salt)";
        let hash = keccak256(
            [
                keccak256(batch_type).0,
                address(1),
                address(2),
                word(0x0304_0506),
                word(0x0708_090a),
                word(11),
                word(256),
                [12; 32],
                left(13, 20),
                left(14, 16),
            ]
            .concat(),
        );
        let digest = keccak256([&[0x19, 0x01], &separator[..], &hash[..]].concat());
        assert_eq!(header().digest(&domain()).as_bytes(), &digest.0);
    }

    #[test]
    fn the_digest_is_that_of_alloy() {
        let theirs = header().abi().eip712_signing_hash(&Domain::eip712(31337, Address::repeat_byte(0xe5)));
        assert_eq!(header().digest(&domain()).as_bytes(), &theirs.0);
    }

    #[test]
    fn whoever_signed_is_recovered_for_this_domain_only() {
        let signed = header().sign(&domain(), &key());
        assert_eq!(signed.recover(&domain()), Ok(key().address()));
        for other in [Domain::new(1, domain().escrow()), Domain::new(31337, Address::ZERO)] {
            assert_ne!(signed.recover(&other), Ok(key().address()));
        }
    }

    #[test]
    fn every_byte_is_signed_and_read_back() {
        let bytes = header().sign(&domain(), &key()).to_bytes();
        assert_eq!(bytes[40..50], [3, 4, 5, 6, 7, 8, 9, 10, 11, 255]);
        for at in 0..BatchHeader::LEN {
            let mut changed = bytes;
            changed[at] ^= 1;
            let read = SignedBatch::from_bytes(&changed).unwrap();
            assert_eq!(read.to_bytes(), changed);
            assert_ne!(read.recover(&domain()), Ok(key().address()), "byte {at}");
        }
    }

    #[test]
    fn other_lengths_and_broken_signatures_are_refused() {
        let signed = header().sign(&domain(), &key());
        let bytes = signed.to_bytes();
        assert_eq!(SignedBatch::from_bytes(&bytes), Ok(signed));
        assert_eq!(SignedBatch::from_bytes(&bytes[1..]), Err(BatchError::Length(181)));
        assert_eq!(SignedBatch::from_bytes(&[&bytes[..], &[0]].concat()), Err(BatchError::Length(183)));
        assert_eq!(SignedBatch::from_bytes(&[]), Err(BatchError::Length(0)));
        let mut zero = bytes;
        zero[BatchHeader::LEN..].fill(0);
        assert_eq!(SignedBatch::from_bytes(&zero), Err(BatchError::Signature(SignatureError::Range)));
        zero[150..].fill(0xff);
        assert_eq!(SignedBatch::from_bytes(&zero), Err(BatchError::Signature(SignatureError::HighS)));
    }
}
