//! What a node has won and not been paid yet, for whoever asks: its purse is locked while it runs, so it says so in a file.
//!
//! A file needs no port, is for the owner's eyes only, and is whole whenever it is read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tombola_storage::files;
use tombola_tickets::{Address, Change, ClassNumber, KeptWindow, KeptWindows, Restore, WindowNumber};

use crate::clock::unix_now;
use crate::shutdown::Shutdown;

/// The file in the data folder of a node that runs, or has run.
pub const FILE: &str = "earnings.json";
/// How often it is written, if something has changed.
const EVERY: Duration = Duration::from_secs(5);
const VERSION: u32 = 1;

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    version: u32,
    written: u64,
    windows: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    issuer: Address,
    window: u32,
    class: u32,
    winners: u32,
    claimed: bool,
}

impl From<KeptWindow> for Window {
    fn from(window: KeptWindow) -> Self {
        let KeptWindow { issuer, window: WindowNumber(number), class, winners, claimed } = window;
        Self { issuer, window: number, class: class.0, winners, claimed }
    }
}

impl From<Window> for KeptWindow {
    fn from(window: Window) -> Self {
        let Window { issuer, window: number, class, winners, claimed } = window;
        Self { issuer, window: WindowNumber(number), class: ClassNumber(class), winners, claimed }
    }
}

/// What was won, followed while the purse writes it.
#[derive(Clone, Debug, Default)]
pub struct Earnings(Arc<Mutex<Followed>>);

#[derive(Debug, Default)]
struct Followed {
    windows: KeptWindows,
    changed: bool,
}

impl Earnings {
    pub(crate) fn new(kept: &Restore) -> Self {
        let windows = KeptWindows::new(kept);
        Self(Arc::new(Mutex::new(Followed { windows, changed: true })))
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn follow(&self, changes: &[Change]) {
        if !changes.is_empty() {
            let mut followed = self.lock();
            for change in changes {
                followed.changed |= followed.windows.apply(change);
            }
        }
    }

    /// Writes the file when something has changed, until `stop` is triggered.
    pub async fn tell(self, data: PathBuf, stop: Shutdown) {
        let path = data.join(FILE);
        let mut said = false;
        loop {
            let windows = {
                let mut followed = self.lock();
                core::mem::take(&mut followed.changed).then(|| followed.windows.won_windows())
            };
            if let Some(windows) = windows {
                let path = path.clone();
                let written = tokio::task::spawn_blocking(move || write(&path, windows)).await;
                if let Ok(Err(error)) = written {
                    self.lock().changed = true;
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "what was earned cannot be written down for others to read");
                    }
                }
            }
            tokio::select! {
                _ = stop.triggered() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}

fn write(path: &Path, windows: Vec<KeptWindow>) -> std::io::Result<()> {
    let windows = windows.into_iter().map(Window::from).collect();
    let told = Told { version: VERSION, written: unix_now(), windows };
    files::replace(path, &serde_json::to_vec(&told)?, 0o600)
}

/// What a running node has said last, and when, in Unix seconds; `None` if it has said nothing.
///
/// # Errors
/// The file cannot be read, or is none of this version.
pub fn read(data: &Path) -> Result<Option<(u64, Vec<KeptWindow>)>> {
    let path = data.join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let told: Told = serde_json::from_slice(&bytes)
        .with_context(|| format!("{}: not what a node of this version writes", path.display()))?;
    anyhow::ensure!(
        told.version == VERSION,
        "{}: its version is {}, and this program reads {VERSION}: use the program that the node runs",
        path.display(),
        told.version
    );
    Ok(Some((told.written, told.windows.into_iter().map(KeptWindow::from).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        let window = |number, claimed| KeptWindow {
            issuer: Address::repeat_byte(7),
            window: WindowNumber(number),
            class: ClassNumber(3),
            winners: 255,
            claimed,
        };
        let windows = vec![window(0, true), window(u32::MAX, false)];
        let path = folder.path().join(FILE);
        write(&path, windows.clone()).unwrap();
        let (written, found) = read(folder.path()).unwrap().unwrap();
        assert!(unix_now() - written < 100);
        assert_eq!(found, windows);
        std::fs::write(&path, "{\"version\":2,\"written\":0,\"windows\":[]}").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("version is 2"));
        std::fs::write(&path, "{").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("earnings.json"));
    }
}
