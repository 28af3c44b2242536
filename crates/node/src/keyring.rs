//! The Sphinx keys of a node: a file for each, found by what the network document lists, the public key.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tombola_sphinx::SecretKey;
use tombola_topology::SphinxKey;

use crate::files;
use crate::keys::{KeyError, SecretFile, Sphinx, scrub_stack};

/// Files of keys end so.
const EXTENSION: &str = "key";

/// Identifies a key in names of files, and its tag log: SHA-256 of the public key.
#[must_use]
pub fn key_id(key: &SphinxKey) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The beginning of [`key_id`], as names of files have it.
#[must_use]
pub fn short_id(key: &SphinxKey) -> String {
    hex::encode(&key_id(key)[..8])
}

/// Where the keys lie.
#[derive(Clone, Debug)]
pub struct Keyring {
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// All files in it that end in `.key`.
    Folder(PathBuf),
    /// The only key.
    File(PathBuf),
}

impl Keyring {
    /// The keys in a folder: all files `*.key`, whatever else their names are.
    #[must_use]
    pub fn folder(path: PathBuf) -> Self {
        Self { place: Place::Folder(path) }
    }

    /// One key.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self { place: Place::File(path) }
    }

    /// All public keys, with the files that hold them. No secret stays in memory.
    ///
    /// # Errors
    /// The folder or a file in it is unusable.
    pub fn public_keys(&self) -> Result<BTreeMap<SphinxKey, Vec<PathBuf>>, KeyError> {
        let mut keys = BTreeMap::<_, Vec<_>>::new();
        for path in self.files()? {
            let public = public_key(&SecretFile::new(&path))?;
            keys.entry(public).or_default().push(path);
        }
        Ok(keys)
    }

    /// The secret of a public key, if it is here.
    ///
    /// # Errors
    /// As [`public_keys`](Self::public_keys).
    pub fn load(&self, key: &SphinxKey) -> Result<Option<SecretKey>, KeyError> {
        let Some(path) = self.public_keys()?.remove(key).and_then(|mut paths| paths.pop()) else {
            return Ok(None);
        };
        let secret = SecretFile::<Sphinx>::new(path).load()?;
        let secret = SecretKey::from_bytes(*secret.expose());
        Ok(Some(secret))
    }

    /// Erases every file of a key, and the mark that it was used. Returns whether there was one.
    ///
    /// # Errors
    /// A file cannot be read or erased.
    pub fn erase(&self, key: &SphinxKey) -> Result<bool, KeyError> {
        let files = self.public_keys()?.remove(key).unwrap_or_default();
        for path in &files {
            SecretFile::<Sphinx>::new(path).erase()?;
        }
        let mark = self.mark_of(key);
        match files::delete(&mark) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(KeyError::Io { path: mark, source })
            }
            _ => Ok(!files.is_empty()),
        }
    }

    /// Whether packets were accepted under this key before. The mark lies beside the key, so that a folder of data that was
    /// lost is noticed.
    #[must_use]
    pub fn is_used(&self, key: &SphinxKey) -> bool {
        self.mark_of(key).exists()
    }

    /// Marks a key as used, durably.
    ///
    /// # Errors
    /// The mark cannot be written.
    pub fn mark_used(&self, key: &SphinxKey) -> Result<(), KeyError> {
        let (path, text) = (self.mark_of(key), format!("{key}\n"));
        files::replace(&path, text.as_bytes(), 0o600).map_err(|source| KeyError::Io { path, source })
    }

    /// Where the mark of a key is.
    #[must_use]
    pub fn mark_of(&self, key: &SphinxKey) -> PathBuf {
        let folder = match &self.place {
            Place::Folder(path) => path,
            Place::File(path) => files::directory_of(path),
        };
        folder.join(format!("used-{}", short_id(key)))
    }

    /// Where keys are looked for, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.place {
            Place::Folder(path) | Place::File(path) => path,
        }
    }

    fn files(&self) -> Result<Vec<PathBuf>, KeyError> {
        let folder = match &self.place {
            // One that was erased is not there any more.
            Place::File(path) => {
                return Ok(Some(path.clone()).filter(|path| path.exists()).into_iter().collect());
            }
            Place::Folder(folder) => folder,
        };
        let at = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing(folder.clone()),
            _ => KeyError::Io { path: folder.clone(), source },
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(at)? {
            let path = entry.map_err(at)?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|extension| extension == EXTENSION) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// The public key of a key file.
///
/// # Errors
/// The file is unusable.
pub fn public_key(file: &SecretFile<Sphinx>) -> Result<SphinxKey, KeyError> {
    let secret = file.load()?;
    let public = SecretKey::from_bytes(*secret.expose()).public_key().to_bytes();
    drop(secret);
    scrub_stack();
    Ok(SphinxKey::from_bytes(public))
}
