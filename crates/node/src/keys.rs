//! Secret keys in files of their own: one key, one line, nobody else may read it.
//!
//! ```text
//! tombola-link-secret-1: 3f...(64 hexadecimal digits)...
//! ```
//!
//! The number is the version of the form. Tombola 0.1 wrote the same without one; both are read.
//!
//! The label says what the key is for, in the file and in the type: a link key can't be loaded, or passed, where a Sphinx key
//! belongs. A key is never read from a configuration file, an argument or the environment, which others can see.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use crate::files;

/// Length of every key, in bytes.
pub const SECRET_LEN: usize = 32;

/// Version of the form of key files that is written, and the newest that is read.
pub const KEY_FILE_VERSION: u32 = 1;

/// Permission bits that a secret file must not have: anything for the group or for others.
const FOREIGN_BITS: u32 = 0o077;

/// What a key is for.
pub trait Purpose: 'static {
    /// The word before the key in its file, without the version.
    const LABEL: &'static str;
}

/// Authenticates a node or a client on its links (Ed25519).
#[derive(Debug)]
pub enum Link {}
/// Opens the Sphinx packets that are addressed to a node or a client (X25519).
#[derive(Debug)]
pub enum Sphinx {}
/// Signs the network document (Ed25519).
#[derive(Debug)]
pub enum Authority {}

impl Purpose for Link {
    const LABEL: &'static str = "tombola-link-secret";
}
impl Purpose for Sphinx {
    const LABEL: &'static str = "tombola-sphinx-secret";
}
impl Purpose for Authority {
    const LABEL: &'static str = "tombola-authority-secret";
}

/// A secret key. Overwritten when it is dropped; its debug form shows the label only.
pub struct Secret<P: Purpose> {
    bytes: Zeroizing<[u8; SECRET_LEN]>,
    purpose: PhantomData<fn() -> P>,
}

impl<P: Purpose> Secret<P> {
    /// A key from bytes that are uniformly random, or derived from such.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<[u8; SECRET_LEN]>) -> Secret<P> {
        Secret { bytes, purpose: PhantomData }
    }

    /// A new key from the operating system's random source.
    ///
    /// # Errors
    /// The random source failed.
    pub fn generate() -> io::Result<Secret<P>> {
        let mut bytes = Zeroizing::new([0; SECRET_LEN]);
        getrandom::fill(&mut *bytes).map_err(io::Error::other)?;
        Ok(Secret::from_bytes(bytes))
    }

    /// The key. Do not copy it into memory that is not zeroised.
    #[must_use]
    pub fn expose(&self) -> &[u8; SECRET_LEN] {
        &self.bytes
    }
}

impl<P: Purpose> std::fmt::Debug for Secret<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({}, redacted)", P::LABEL)
    }
}

/// Why a key file could not be used. Nothing of the file's content is ever part of an error.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such file.
    #[error("{}: there is no such key file", .0.display())]
    Missing(PathBuf),
    /// There is a file of that name already; a key is never overwritten.
    #[error("{}: exists already; a key is never overwritten: move it away first", .0.display())]
    Exists(PathBuf),
    /// Others may read or write the file or its directory.
    #[error("{}: has the mode {mode:04o}, so others have access to a secret; run: {command}", path.display())]
    Mode {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What repairs it.
        command: String,
    },
    /// Another user owns the file and could have read or exchanged it.
    #[error("{}: belongs to the user {owner}, not to the one who runs this ({user}); run: {command}", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this process.
        user: u32,
        /// What repairs it.
        command: String,
    },
    /// The file holds a key for something else.
    #[error("{}: holds a {found:?}, but a {expected:?} is needed here", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The label in the file.
        found: &'static str,
        /// The label that it should have.
        expected: &'static str,
    },
    /// A later version wrote the file.
    #[error("{}: is a key file of version {found}, and this program knows versions up to {KEY_FILE_VERSION}; use the program that wrote it, or a newer one", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file has another form.
    #[error("{}: is not a key file: it must consist of one line, \"{expected}-{KEY_FILE_VERSION}: \" and 64 hexadecimal digits", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The label that it should have.
        expected: &'static str,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The place of a key of one purpose.
#[derive(Debug, Clone)]
pub struct SecretFile<P: Purpose> {
    path: PathBuf,
    purpose: PhantomData<fn() -> P>,
}

impl<P: Purpose> SecretFile<P> {
    /// The file `path`; nothing is read or written yet.
    pub fn new(path: impl Into<PathBuf>) -> SecretFile<P> {
        SecretFile { path: path.into(), purpose: PhantomData }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `secret` to a new file of mode 0600, atomically and durably. The directory is made with mode 0700 if it does
    /// not exist; if it does, others must not have access to it.
    ///
    /// # Errors
    /// [`KeyError::Exists`], [`KeyError::Mode`] for the directory, or [`KeyError::Io`].
    pub fn create(&self, secret: &Secret<P>) -> Result<(), KeyError> {
        let directory = files::directory_of(&self.path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| io_error(directory, source))?;
        let metadata = fs::metadata(directory).map_err(|source| io_error(directory, source))?;
        check_mode(directory, &metadata, "700")?;
        files::create_new(&self.path, line(secret).as_bytes(), 0o600).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists(self.path.clone()),
            _ => io_error(&self.path, source),
        })
    }

    /// Makes a new key and writes it, see [`SecretFile::create`].
    ///
    /// # Errors
    /// As [`SecretFile::create`], or the random source failed.
    pub fn generate(&self) -> Result<Secret<P>, KeyError> {
        let secret = Secret::generate().map_err(|source| io_error(&self.path, source))?;
        self.create(&secret)?;
        Ok(secret)
    }

    /// Reads the key. The file must be a regular one (a link is followed), belong to the user who runs this, and give no
    /// access to anybody else. What is checked is the file that is then read, not whatever has its name.
    ///
    /// # Errors
    /// [`KeyError`], by what was wrong.
    pub fn load(&self) -> Result<Secret<P>, KeyError> {
        let path = &self.path;
        // Without O_NONBLOCK the opening of a named pipe would wait for somebody to write.
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path);
        let file = file.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing(path.clone()),
            _ => io_error(path, source),
        })?;
        let metadata = file.metadata().map_err(|source| io_error(path, source))?;
        if !metadata.is_file() {
            return Err(KeyError::Format { path: path.clone(), expected: P::LABEL });
        }
        check_owner(path, &metadata)?;
        check_mode(path, &metadata, "600")?;
        let text = read_line(&file).map_err(|source| io_error(path, source))?;
        self.parse(&text)
    }

    /// Reads the key, or makes one if there is no such file.
    ///
    /// # Errors
    /// As [`SecretFile::load`] and [`SecretFile::generate`].
    pub fn load_or_generate(&self) -> Result<Secret<P>, KeyError> {
        match self.load() {
            Err(KeyError::Missing(_)) => self.generate(),
            result => result,
        }
    }

    /// Overwrites the file with zeros and deletes it, so that a power cut after the return does not bring it back. A file
    /// that is not there is no error.
    ///
    /// What was overwritten may still lie on the medium: file systems that keep versions, and disks that spread what is
    /// written, do not overwrite in place.
    ///
    /// # Errors
    /// Any step failed.
    pub fn erase(&self) -> Result<(), KeyError> {
        let path = &self.path;
        let erase = || {
            let mut file = OpenOptions::new().write(true).open(path)?;
            let zeros = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0).min(1 << 16)];
            file.write_all(&zeros)?;
            file.sync_all()?;
            files::delete(path)
        };
        match erase() {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error(path, source)),
            _ => Ok(()),
        }
    }

    fn parse(&self, text: &[u8]) -> Result<Secret<P>, KeyError> {
        let malformed = || KeyError::Format { path: self.path.clone(), expected: P::LABEL };
        let line = text.strip_suffix(b"\n").unwrap_or(text);
        let Some((version, digits)) = after_label(line, P::LABEL) else {
            // Named only if it is one of ours: what else stands there could itself be a secret.
            let known = [Link::LABEL, Sphinx::LABEL, Authority::LABEL].into_iter();
            let mut others = known.filter(|known| *known != P::LABEL);
            return Err(match others.find(|known| after_label(line, known).is_some()) {
                Some(found) => KeyError::Label { path: self.path.clone(), found, expected: P::LABEL },
                None => malformed(),
            });
        };
        if version > KEY_FILE_VERSION {
            return Err(KeyError::Version { path: self.path.clone(), found: version });
        }
        let mut bytes = Zeroizing::new([0; SECRET_LEN]);
        hex::decode_to_slice(digits, &mut *bytes).map_err(|_| malformed())?;
        Ok(Secret::from_bytes(bytes))
    }
}

/// What stands behind `label`: the version (0 if there is none, as Tombola 0.1 wrote) and the digits.
fn after_label<'a>(line: &'a [u8], label: &str) -> Option<(u32, &'a [u8])> {
    let rest = line.strip_prefix(label.as_bytes())?;
    if let Some(digits) = rest.strip_prefix(b": ") {
        return Some((0, digits));
    }
    let rest = rest.strip_prefix(b"-")?;
    // Nine digits fit.
    let end = rest.iter().take(10).position(|byte| !byte.is_ascii_digit()).filter(|&end| end > 0)?;
    let version = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    // There is one way to write a version.
    let canonical = rest[0] != b'0';
    canonical.then_some((version, rest[end..].strip_prefix(b": ")?))
}

/// The content of a key file.
fn line<P: Purpose>(secret: &Secret<P>) -> Zeroizing<String> {
    let mut digits = Zeroizing::new([0; 2 * SECRET_LEN]);
    // Allocated once, in full: a string that grows would leave copies behind.
    let mut line = Zeroizing::new(String::with_capacity(P::LABEL.len() + 14 + digits.len()));
    line.push_str(P::LABEL);
    line.push_str(&format!("-{KEY_FILE_VERSION}: "));
    hex::encode_to_slice(secret.expose(), &mut *digits).expect("the buffer has two digits for each byte");
    line.extend(digits.iter().map(|&digit| char::from(digit)));
    line.push('\n');
    line
}

/// Overwrites what calls that have returned left on this thread's stack: a key that is passed by value, or computed with,
/// leaves copies there that nobody else erases.
#[inline(never)]
pub fn scrub_stack() {
    let mut scrap = [0_u64; 4096];
    scrap.zeroize();
    std::hint::black_box(&scrap);
}

/// Reads somewhat more than the longest valid file, so that a longer one is noticed.
fn read_line(mut file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(vec![0; 256]);
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer[filled..].zeroize();
    buffer.truncate(filled);
    Ok(buffer)
}

pub(crate) fn check_mode(path: &Path, metadata: &Metadata, should_be: &str) -> Result<(), KeyError> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & FOREIGN_BITS == 0 {
        return Ok(());
    }
    let command = format!("chmod {should_be} {}", quoted(path));
    Err(KeyError::Mode { path: path.to_owned(), mode, command })
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), KeyError> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    let command = format!("chown {user} {}", quoted(path));
    Err(KeyError::Owner { path: path.to_owned(), owner, user, command })
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn io_error(path: &Path, source: io::Error) -> KeyError {
    KeyError::Io { path: path.to_owned(), source }
}
