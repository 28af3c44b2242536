//! Files that nobody else may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// Permission bits that a secret file must not have: anything for the group or for others.
const FOREIGN_BITS: u32 = 0o077;

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Foreign {
    Missing,
    Exists,
    Mode(u32),
    Owner { owner: u32, user: u32 },
    Kind,
    Length,
    Io(io::Error),
}

impl From<io::Error> for Foreign {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::AlreadyExists => Self::Exists,
            _ => Self::Io(error),
        }
    }
}

/// What is in a file.
pub(super) struct Contents(pub(super) Zeroizing<Vec<u8>>);

/// Reads a file that is ours alone. What is checked is the file that is then read, not whatever has its name.
pub(super) fn read_secret(path: &Path, most: usize) -> Result<Contents, Foreign> {
    // Without O_NONBLOCK the opening of a named pipe would wait for somebody to write.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Foreign::Kind);
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(Foreign::Owner { owner, user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & FOREIGN_BITS != 0 {
        return Err(Foreign::Mode(mode));
    }
    // Allocated once, in full: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most { Err(Foreign::Length) } else { Ok(Contents(bytes)) }
}

/// Writes a new file of mode 0600. It has its name only when it is whole and durable.
pub(super) fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), Foreign> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = Path::new(&name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Unlike a rename a link never replaces what is there.
        fs::hard_link(new, path)?;
        File::open(directory)?.sync_all()
    })();
    let _ = fs::remove_file(new);
    written.map_err(Foreign::from)
}

/// From the operating system.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), Foreign> {
    getrandom::fill(bytes).map_err(|error| Foreign::Io(io::Error::other(error)))
}
