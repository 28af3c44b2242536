//! The chain in a file: what it began with, and every block's time and transaction. Executed again they make the same
//! blocks; the hash of the last one says whether they did.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{B256, Bytes};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chain::{Chain, Genesis};

const FORMAT: &str = "tombola-devchain-1";

/// Why a file holds no chain, or cannot be written.
#[derive(Debug, Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It is no file of this form.
    #[error("{}: is no state of a development chain ({source}); name another file, or move this one away", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Another version wrote it.
    #[error("{}: has the form {found:?}, and this program knows {FORMAT:?}; use the program that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Executed again it gives another chain.
    #[error("{}: block {block} cannot be made again: the file is damaged, or another version wrote it; move it away to begin anew", path.display())]
    Replay {
        /// The file.
        path: PathBuf,
        /// The first block that is another one.
        block: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: String,
    chain_id: u64,
    seed: String,
    accounts: u32,
    genesis_time: u64,
    /// Of the last block.
    hash: B256,
    /// Each its time and its transaction.
    blocks: Vec<(u64, Option<Bytes>)>,
}

/// The text of a file.
pub(super) fn encode(chain: &Chain) -> Vec<u8> {
    let genesis = chain.genesis().clone();
    let blocks = (1..=chain.number()).filter_map(|number| chain.block(number)).map(|block| {
        let raw = block.transaction.as_ref().map(|mined| mined.envelope.encoded_2718().into());
        (block.header.timestamp, raw)
    });
    let kept = Kept {
        format: FORMAT.into(),
        chain_id: genesis.chain_id,
        seed: genesis.seed,
        accounts: genesis.accounts,
        genesis_time: genesis.time,
        hash: chain.head().hash,
        blocks: blocks.collect(),
    };
    // Numbers, strings and lists: nothing that JSON does not have.
    serde_json::to_vec(&kept).unwrap_or_default()
}

/// Writes a file as a whole: a crash leaves the old one or the new one.
pub(super) fn write(path: &Path, text: &[u8]) -> Result<(), StateError> {
    let failed = |source| StateError::Io { path: path.to_owned(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new).map_err(failed)?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

/// The chain of a file; `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Chain>, StateError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Io { path: path.to_owned(), source }),
    };
    decode(path, &text).map(Some)
}

fn decode(path: &Path, text: &[u8]) -> Result<Chain, StateError> {
    let kept: Kept = serde_json::from_slice(text)
        .map_err(|source| StateError::Format { path: path.to_owned(), source })?;
    if kept.format != FORMAT {
        return Err(StateError::Version { path: path.to_owned(), found: kept.format });
    }
    let replay = |block| StateError::Replay { path: path.to_owned(), block };
    let mut chain = Chain::new(Genesis {
        chain_id: kept.chain_id,
        seed: kept.seed,
        accounts: kept.accounts.min(super::MOST_ACCOUNTS),
        time: kept.genesis_time,
    });
    for (at, (time, raw)) in (1..).zip(kept.blocks) {
        match raw {
            Some(raw) => {
                chain.submit(&raw, time).map_err(|_| replay(at))?;
            }
            None => chain.mine(time),
        }
        if chain.head().header.timestamp != time {
            return Err(replay(at));
        }
    }
    if chain.head().hash != kept.hash {
        return Err(replay(chain.number()));
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        let mut chain = Chain::new(Genesis { chain_id: 1, seed: "file".into(), accounts: 1, time: 500 });
        (1..4).for_each(|time| chain.mine(600 + time));
        chain
    }

    #[test]
    fn a_file_gives_the_same_chain() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        assert!(read(&path).unwrap().is_none());
        write(&path, &encode(&chain())).unwrap();
        let found = read(&path).unwrap().unwrap();
        assert_eq!((found.number(), found.head().hash), (3, chain().head().hash));
    }

    #[test]
    fn damage_is_found() {
        let path = Path::new("state");
        let text = String::from_utf8(encode(&chain())).unwrap();
        assert!(matches!(decode(path, &text.as_bytes()[1..]), Err(StateError::Format { .. })));
        let other = text.replace("devchain-1", "devchain-9");
        assert!(matches!(decode(path, other.as_bytes()), Err(StateError::Version { .. })));
        for (from, to) in [("602", "604"), ("602", "601"), ("\"file\"", "\"fire\"")] {
            assert!(matches!(
                decode(path, text.replace(from, to).as_bytes()),
                Err(StateError::Replay { .. })
            ));
        }
    }
}
