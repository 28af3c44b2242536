//! Keys in encrypted files: the usual Web3 keystore, version 3, with scrypt and AES-128 in counter mode.
//!
//! A keystore and the file of its password belong to the user who runs this, and give nobody else access. Neither is ever
//! overwritten. What is in them is never part of an error.

mod crypto;
mod files;

use std::path::{Path, PathBuf};

use alloy_primitives::Address;
use thiserror::Error;
use zeroize::Zeroizing;

pub use crypto::Work;
use files::{Contents, Foreign};

use crate::wallet::{NoKey, Wallet};

/// Bytes of a keystore or of a password, at most.
const MOST_BYTES: usize = 64 * 1024;

/// Why a keystore or a password cannot be used. All are for the operator to repair.
#[derive(Debug, Error)]
pub enum KeystoreError {
    /// No such file.
    #[error("{}: there is no such file", .0.display())]
    Missing(PathBuf),
    /// A key is never overwritten.
    #[error("{}: exists already; a key is never overwritten: move it away first", .0.display())]
    Exists(PathBuf),
    /// Others have access.
    #[error("{}: has the mode {mode:04o}, so others have access to a secret; run: chmod 600 {}", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user owns it and could have read or exchanged it.
    #[error("{}: belongs to the user {owner}, not to the one who runs this ({user})", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this process.
        user: u32,
    },
    /// The file is not what it should be.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The key does not come out.
    #[error("{}: the password is wrong, or the file is damaged", .0.display())]
    Password(PathBuf),
    /// The key that came out is another account's.
    #[error("{}: holds the key of {found}, but {expected} is needed", path.display())]
    Account {
        /// The file.
        path: PathBuf,
        /// Whose key it is.
        found: Address,
        /// Whose it should be.
        expected: Address,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

/// A password. Erased on drop, never shown.
pub struct Password(Zeroizing<Vec<u8>>);

impl core::fmt::Debug for Password {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Password(redacted)")
    }
}

impl Password {
    /// From bytes, whatever they are.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// The first line of a file; it must be the only one.
    ///
    /// # Errors
    ///
    /// Others have access to the file, or it is empty or has several lines.
    pub fn read(path: &Path) -> Result<Self, KeystoreError> {
        let Contents(mut bytes) =
            files::read_secret(path, MOST_BYTES).map_err(|error| foreign(path, error))?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.is_empty() || bytes.contains(&b'\n') {
            let what = "a file of a password has one line, which is not empty";
            return Err(KeystoreError::Format { path: path.to_owned(), what });
        }
        Ok(Self(bytes))
    }

    /// A random one in a new file that nobody else can read, for programs that keep their own keys.
    ///
    /// # Errors
    ///
    /// There is such a file, or the operating system refused.
    pub fn generate(path: &Path) -> Result<Self, KeystoreError> {
        let mut random = Zeroizing::new([0; 32]);
        files::random(&mut *random).map_err(|error| foreign(path, error))?;
        let mut bytes = Zeroizing::new(vec![0; 65]);
        hex::encode_to_slice(*random, &mut bytes[..64]).unwrap_or_default();
        bytes[64] = b'\n';
        files::create_secret(path, &bytes).map_err(|error| foreign(path, error))?;
        bytes.truncate(64);
        Ok(Self(bytes))
    }
}

fn foreign(path: &Path, error: Foreign) -> KeystoreError {
    let path = path.to_owned();
    match error {
        Foreign::Missing => KeystoreError::Missing(path),
        Foreign::Exists => KeystoreError::Exists(path),
        Foreign::Mode(mode) => KeystoreError::Mode { path, mode },
        Foreign::Owner { owner, user } => KeystoreError::Owner { path, owner, user },
        Foreign::Kind => KeystoreError::Format { path, what: "is no regular file" },
        Foreign::Length => KeystoreError::Format { path, what: "is too long" },
        Foreign::Io(source) => KeystoreError::Io { path, source },
    }
}

/// A keystore's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keystore {
    path: PathBuf,
}

impl Keystore {
    /// Nothing is read or written yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a new key and writes it.
    ///
    /// # Errors
    ///
    /// There is such a file, or the operating system refused.
    pub fn create(&self, password: &Password, work: Work) -> Result<Wallet, KeystoreError> {
        let mut secret = Zeroizing::new([0; 32]);
        loop {
            files::random(&mut *secret).map_err(|error| foreign(&self.path, error))?;
            // One of 2^127 is none.
            if Wallet::from_bytes(&secret).is_ok() {
                return self.import(&secret, password, work);
            }
        }
    }

    /// Writes a key to a new file of mode 0600, durably. The caller erases its own copy.
    ///
    /// # Errors
    ///
    /// There is such a file, the operating system refused, or the bytes are no key.
    pub fn import(
        &self,
        secret: &[u8; 32],
        password: &Password,
        work: Work,
    ) -> Result<Wallet, KeystoreError> {
        let wallet = Wallet::from_bytes(secret).map_err(|NoKey| self.format("these bytes are no key"))?;
        let mut random = Zeroizing::new([0; 64]);
        files::random(&mut *random).map_err(|error| foreign(&self.path, error))?;
        let text = crypto::encrypt(secret, wallet.address(), &password.0, work, &random)
            .map_err(|what| self.format(what))?;
        files::create_secret(&self.path, text.as_bytes()).map_err(|error| foreign(&self.path, error))?;
        Ok(wallet)
    }

    /// Reads the key.
    ///
    /// # Errors
    ///
    /// See [`KeystoreError`].
    pub fn open(&self, password: &Password) -> Result<Wallet, KeystoreError> {
        let secret = self.open_bytes(password)?;
        Wallet::from_bytes(&secret).map_err(|NoKey| self.format("holds no key of this curve"))
    }

    /// Reads the key of an account; that of another is refused.
    ///
    /// # Errors
    ///
    /// See [`KeystoreError`].
    pub fn open_of(&self, expected: Address, password: &Password) -> Result<Wallet, KeystoreError> {
        let wallet = self.open(password)?;
        if wallet.address() == expected {
            return Ok(wallet);
        }
        Err(KeystoreError::Account { path: self.path.clone(), found: wallet.address(), expected })
    }

    /// Reads the key as bytes, for a key that signs batches. Do not copy it into memory that is not erased.
    ///
    /// # Errors
    ///
    /// See [`KeystoreError`].
    pub fn open_bytes(&self, password: &Password) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
        let Contents(text) =
            files::read_secret(&self.path, MOST_BYTES).map_err(|error| foreign(&self.path, error))?;
        let sealed = crypto::parse(&text).map_err(|what| self.format(what))?;
        let failed = || KeystoreError::Password(self.path.clone());
        let secret = sealed.decrypt(&password.0).ok_or_else(failed)?;
        // The checksum does not cover the initial counter: damage there gives another key.
        if let Some(expected) = sealed.address {
            let found = Wallet::from_bytes(&secret).map_err(|NoKey| failed())?.address();
            if found != expected {
                return Err(failed());
            }
        }
        Ok(secret)
    }

    fn format(&self, what: &'static str) -> KeystoreError {
        KeystoreError::Format { path: self.path.clone(), what }
    }
}
