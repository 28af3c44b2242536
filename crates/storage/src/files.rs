//! Writing files so that a crash leaves either the old content or the new one, never a part; and locking them.
//!
//! A new file is written under a temporary name in the same directory, flushed to the medium, given its name, and then the
//! directory is flushed, so that a power cut after the return can't undo it. What is assumed of the file system: `rename` and
//! `link` are atomic, and `fsync` of a file and of its directory mean what POSIX says.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Puts `content` in place of whatever `path` holds, with exactly the permission bits `mode`.
///
/// # Errors
/// Any step of writing failed; `path` then holds what it held before, unless only the last flush of the directory failed.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = Temporary::write(path, content, mode)?;
    fs::rename(&temporary.0, path)?;
    temporary.defuse();
    flush_directory_of(path)
}

/// Creates `path` with `content` and exactly the permission bits `mode`.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if there is anything of that name, which is left as it is; or any step failed.
pub fn create_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = Temporary::write(path, content, mode)?;
    // Unlike `rename`, `link` refuses to replace.
    fs::hard_link(&temporary.0, path)?;
    drop(temporary);
    flush_directory_of(path)
}

/// A file that is locked for as long as this lives: no other process can lock it, nor this one again.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Locks a file that is there.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it is locked, [`io::ErrorKind::NotFound`], or opening failed.
    pub fn open(path: &Path) -> io::Result<Lock> {
        Lock::take(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Locks a file, which it makes, with the permission bits 0600, if it is not there.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it is locked; or opening failed.
    pub fn create(path: &Path) -> io::Result<Lock> {
        Lock::take(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?)
    }

    fn take(file: File) -> io::Result<Lock> {
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Lock(file))
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Lock {
    /// Not left to closing: a process that another thread starts at this moment holds the descriptor, and with it the
    /// lock, until it runs its own program.
    fn drop(&mut self) {
        // An error leaves the lock to closing.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// A file that is deleted when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<Temporary> {
        let name = path.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}.tmp", u64::from_le_bytes(random)));
        let temporary = Temporary(path.with_file_name(hidden));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary.0)?;
        // `open` subtracts the umask: say it again.
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode as rustix::fs::RawMode))?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(temporary)
    }

    fn defuse(self) {
        std::mem::forget(self);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // If it can't be deleted it stays behind, hidden and with its permissions.
        let _ = fs::remove_file(&self.0);
    }
}

fn flush_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Creates `path` with mode 0700, and the directories that it lies in, unless they exist.
///
/// # Errors
/// Any step failed; a part may have been created.
pub fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    create_directory(directory_of(path))?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => flush_directory_of(path),
    }
}

/// Deletes the file `path`, so that a power cut after the return can't bring it back.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if there is none; or deleting it or flushing the directory failed.
pub fn delete(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    flush_directory_of(path)
}

/// The directory that `path` lies in; `.` for a bare name.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_lock_ends_with_its_owner_also_while_a_child_still_holds_the_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::create(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        for second in [Lock::open(&path), Lock::create(&path)] {
            assert_eq!(second.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        // What `fork` does to it.
        let inherited = lock.file().try_clone().unwrap();
        drop(lock);
        let next = Lock::open(&path).unwrap();
        drop(inherited);
        assert_eq!(Lock::open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(next);
        Lock::open(&path).unwrap();
    }

    #[test]
    fn replacing_keeps_nothing_of_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(&path, "a long old content").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        replace(&path, b"new", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), 0o640);
        assert_eq!(names(directory.path()), ["state"], "no temporary file is left");
    }

    #[test]
    fn creating_never_replaces() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create_new(&path, b"first", 0o600).unwrap();
        let error = create_new(&path, b"second", 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(directory.path()), ["key"]);
    }

    #[test]
    fn creating_does_not_follow_a_dangling_link() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).unwrap();
        assert_eq!(create_new(&path, b"x", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(directory.path()), ["key"]);
    }

    #[test]
    fn only_one_of_many_creators_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let winners: usize = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..8_u8)
                .map(|content| {
                    let path = &path;
                    scope.spawn(move || usize::from(create_new(path, &[content], 0o600).is_ok()))
                })
                .collect();
            creators.into_iter().map(|creator| creator.join().unwrap()).sum()
        });
        assert_eq!(winners, 1);
        assert_eq!(fs::read(&path).unwrap().len(), 1);
    }

    #[test]
    fn directories_are_private_and_existing_ones_stay_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = directory.path().join("a").join("b");
        create_directory(&path).unwrap();
        create_directory(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o700, 0o700));
        assert_eq!(mode(directory.path()), 0o755);
        fs::write(path.join("file"), "").unwrap();
        assert_eq!(create_directory(&path.join("file")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_is_deleted_is_gone_and_can_be_deleted_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create_new(&path, b"secret", 0o600).unwrap();
        delete(&path).unwrap();
        assert_eq!(names(directory.path()), [""; 0]);
        assert_eq!(delete(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nowhere").join("key");
        assert_eq!(replace(&path, b"x", 0o600).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_bare_name_lies_in_the_current_directory() {
        assert_eq!(directory_of(Path::new("key")), Path::new("."));
        assert_eq!(directory_of(Path::new("a/key")), Path::new("a"));
    }
}
