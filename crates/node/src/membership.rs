//! The network as a process finds it: the document from its file, the epoch that is valid now, a node's neighbours.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tombola_link::Peer;
use tombola_protocol::view::{EpochView, Seat, ViewError};
use tombola_topology::{AuthorityKey, DocumentError, IdentityKey, Network, UnixTime};

use crate::clock::unix_now;

/// The largest network document that is read.
const DOCUMENT_MAX: u64 = 16 << 20;

/// Why this process can't take part.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The document's file cannot be read.
    #[error("{}: the network document cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is too large to be a network document.
    #[error("{}: is larger than {DOCUMENT_MAX} bytes, so it is no network document", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The document is not what the authority signed, or makes no sense.
    #[error("{}: {source}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<DocumentError>,
    },
    /// The document has no epoch for now, or one that cannot be used.
    #[error("{}: {source}", path.display())]
    Epoch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ViewError,
    },
}

/// Reads and verifies a network document.
///
/// # Errors
/// The file cannot be read, or the document is not valid under `authority`.
pub fn load_network(path: &Path, authority: &AuthorityKey) -> Result<Network, MembershipError> {
    let unreadable = |source| MembershipError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(DOCUMENT_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > DOCUMENT_MAX {
        return Err(MembershipError::TooLarge { path: path.to_owned() });
    }
    Network::verify(&text, authority)
        .map_err(|source| MembershipError::Document { path: path.to_owned(), source: Box::new(source) })
}

/// The epoch of `network` that is valid now; `path` is only named in errors.
///
/// # Errors
/// There is none, or it cannot be used.
pub fn current_view(path: &Path, network: &Network) -> Result<Arc<EpochView>, MembershipError> {
    EpochView::at(network, UnixTime(unix_now()))
        .map_err(|source| MembershipError::Epoch { path: path.to_owned(), source })
}

/// The neighbours of a node in all epochs in which it has a place: it dials its successors and is dialled by its predecessors.
///
/// Where two are each other's successors, in a network of one layer or in different epochs, the smaller key dials. Addresses
/// are those of the latest epoch that lists the neighbour.
#[must_use]
pub fn neighbours(seats: &[Seat]) -> Vec<Peer> {
    #[derive(Default)]
    struct Link {
        successor: bool,
        predecessor: bool,
        addresses: Vec<String>,
        latest: u64,
    }
    let mut links = BTreeMap::<IdentityKey, Link>::new();
    let mut own = None;
    for seat in seats {
        let (epoch, number) = (seat.view().epoch(), seat.view().number());
        own = epoch.node(seat.me()).map(|node| node.identity);
        let successors = epoch.successors(seat.me()).iter().map(|index| (index, true));
        let predecessors = epoch.predecessors(seat.me()).iter().map(|index| (index, false));
        for (index, is_successor) in successors.chain(predecessors) {
            let Some(node) = epoch.node(*index) else { continue };
            let link = links.entry(node.identity).or_default();
            link.successor |= is_successor;
            link.predecessor |= !is_successor;
            if number >= link.latest {
                link.addresses.clone_from(&node.addresses);
                link.latest = number;
            }
        }
    }
    let peer = |(identity, link): (IdentityKey, Link)| {
        if link.successor && (!link.predecessor || own.is_some_and(|own| own < identity)) {
            Peer::dialled(identity, link.addresses)
        } else {
            Peer::awaited(identity)
        }
    };
    links.into_iter().map(peer).collect()
}
