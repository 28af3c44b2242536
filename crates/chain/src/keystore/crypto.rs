//! The bytes of a keystore. Source: "Web3 Secret Storage Definition", version 3.
//!
//! `derived = scrypt(password, salt)`, 32 bytes; the key is encrypted with AES-128 in counter mode under `derived[..16]`; `mac =
//! keccak(derived[16..] | ciphertext)`.

use aes::Aes128;
use alloy_primitives::{Address, Keccak256};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How much work a guess of the password takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// 256 MiB and about a second: for keys whose passwords people choose.
    Standard,
    /// 4 MiB and some milliseconds: for random passwords, and for tests.
    Light,
}

impl Work {
    const fn log_n(self) -> u8 {
        match self {
            Self::Standard => 18,
            Self::Light => 12,
        }
    }
}

/// Memory that a file may ask for, at most: 128 × n × r bytes.
const MOST_MEMORY: u64 = 1 << 30;
/// Rounds that it may ask for, beside those of the memory.
const MOST_PARALLEL: u32 = 64;

type Cipher = Ctr128BE<Aes128>;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    #[serde(default)]
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
}

#[derive(Serialize, Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    kdf: String,
    kdfparams: KdfParams,
    mac: String,
}

#[derive(Serialize, Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Serialize, Deserialize)]
struct KdfParams {
    dklen: u32,
    n: u64,
    p: u32,
    r: u32,
    salt: String,
}

/// What is needed to get the key out, read and checked.
pub(super) struct Sealed {
    params: scrypt::Params,
    salt: Vec<u8>,
    iv: [u8; 16],
    ciphertext: [u8; 32],
    mac: [u8; 32],
    /// Whose key it is, if the file says so.
    pub(super) address: Option<Address>,
}

/// Hexadecimal digits, with or without 0x.
fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes).ok()?;
    Some(bytes)
}

/// Reads a keystore.
pub(super) fn parse(text: &[u8]) -> Result<Sealed, &'static str> {
    let broken = "is no keystore: it must be JSON with the fields of a Web3 keystore, version 3";
    let version: serde_json::Value = serde_json::from_slice(text).map_err(|_| broken)?;
    let other_kdf = version.pointer("/crypto/kdf").is_some_and(|kdf| kdf != "scrypt");
    if other_kdf {
        return Err("has another key derivation than scrypt; write it anew with a program that uses scrypt");
    }
    let file: File = serde_json::from_value(version).map_err(|_| broken)?;
    if file.version != 3 {
        return Err("is a keystore of another version than 3");
    }
    if file.crypto.cipher != "aes-128-ctr" {
        return Err("has another cipher than aes-128-ctr");
    }
    let kdf = &file.crypto.kdfparams;
    let too_much = "asks for more than 1 GiB of memory, or for absurd parameters of scrypt";
    if kdf.dklen != 32 || !kdf.n.is_power_of_two() || kdf.n < 2 || kdf.r == 0 || kdf.p == 0 {
        return Err(too_much);
    }
    let memory = kdf.n.checked_mul(u64::from(kdf.r)).and_then(|product| product.checked_mul(128));
    if memory.is_none_or(|memory| memory > MOST_MEMORY) || kdf.p > MOST_PARALLEL {
        return Err(too_much);
    }
    let log_n = u8::try_from(kdf.n.ilog2()).map_err(|_| too_much)?;
    let salt = hex::decode(kdf.salt.strip_prefix("0x").unwrap_or(&kdf.salt)).map_err(|_| broken)?;
    Ok(Sealed {
        params: scrypt::Params::new(log_n, kdf.r, kdf.p).map_err(|_| too_much)?,
        salt,
        iv: digits(&file.crypto.cipherparams.iv).ok_or(broken)?,
        ciphertext: digits(&file.crypto.ciphertext).ok_or(broken)?,
        mac: digits(&file.crypto.mac).ok_or(broken)?,
        address: file.address.map(|text| digits(&text).map(Address::from).ok_or(broken)).transpose()?,
    })
}

fn derive(password: &[u8], salt: &[u8], params: &scrypt::Params) -> Option<Zeroizing<[u8; 32]>> {
    let mut derived = Zeroizing::new([0; 32]);
    scrypt::scrypt(password, salt, params, &mut *derived).ok()?;
    Some(derived)
}

fn mac(derived: &[u8; 32], ciphertext: &[u8; 32]) -> [u8; 32] {
    let mut hash = Keccak256::new();
    hash.update(&derived[16..]);
    hash.update(ciphertext);
    hash.finalize().0
}

fn apply(derived: &[u8; 32], iv: &[u8; 16], bytes: &mut [u8; 32]) {
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&derived[..16]);
    Cipher::new((&*key).into(), iv.into()).apply_keystream(bytes);
}

impl Sealed {
    /// The key, if the password is right.
    pub(super) fn decrypt(&self, password: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let derived = derive(password, &self.salt, &self.params)?;
        if !bool::from(mac(&derived, &self.ciphertext).ct_eq(&self.mac)) {
            return None;
        }
        let mut secret = Zeroizing::new(self.ciphertext);
        apply(&derived, &self.iv, &mut secret);
        Some(secret)
    }
}

/// The text of a keystore. `random`: salt 32, initial counter 16, id 16.
pub(super) fn encrypt(
    secret: &[u8; 32],
    address: Address,
    password: &[u8],
    work: Work,
    random: &[u8; 64],
) -> Result<String, &'static str> {
    let (salt, rest) = random.split_at(32);
    let (iv, id) = rest.split_at(16);
    let (mut counter, mut uuid) = ([0; 16], [0; 16]);
    counter.copy_from_slice(iv);
    uuid.copy_from_slice(id);
    // Version 4, variant 1 (RFC 9562).
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let failed = "scrypt does not take these parameters";
    let (log_n, r, p) = (work.log_n(), 8, 1);
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| failed)?;
    let derived = derive(password, salt, &params).ok_or(failed)?;
    let mut ciphertext = *secret;
    apply(&derived, &counter, &mut ciphertext);
    let id = hex::encode(uuid);
    let file = File {
        version: 3,
        id: format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]),
        address: Some(hex::encode(address)),
        crypto: Crypto {
            cipher: "aes-128-ctr".into(),
            cipherparams: CipherParams { iv: hex::encode(iv) },
            ciphertext: hex::encode(ciphertext),
            kdf: "scrypt".into(),
            kdfparams: KdfParams { dklen: 32, n: 1 << log_n, p, r, salt: hex::encode(salt) },
            mac: hex::encode(mac(&derived, &ciphertext)),
        },
    };
    serde_json::to_string_pretty(&file).map_err(|_| failed)
}
