//! Who this process is in the network: the document from its file, the epoch that is valid now, its own place in it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tombola_link::Peer;
use tombola_protocol::view::{EpochView, ViewError};
use tombola_topology::{
    AuthorityKey, DocumentError, IdentityKey, Network, NodeIndex, Role, SphinxKey, UnixTime,
};

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
    /// This node is not in the list.
    #[error(
        "the network document does not list this node (identity {identity}); give that identity to the network's authority, or check that link_secret names the right file"
    )]
    NotListed {
        /// Its own identity.
        identity: IdentityKey,
    },
    /// The document lists another Sphinx key for this node.
    #[error(
        "the network document lists the Sphinx key {listed} for this node, but sphinx_secret holds the key of {own}: packets could not be opened; use the right file or have the document corrected"
    )]
    SphinxKey {
        /// As listed.
        listed: SphinxKey,
        /// As in the own file.
        own: SphinxKey,
    },
    /// The document gives this node another role.
    #[error("the network document lists this node as a {listed}; start it as that")]
    Role {
        /// As listed.
        listed: &'static str,
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

/// Finds this node in the list, and checks that what the list says of it is true.
///
/// # Errors
/// It is not listed, or with another key or role.
pub fn find_self(
    view: &EpochView,
    identity: IdentityKey,
    own: SphinxKey,
    is_role: impl Fn(Role) -> bool,
) -> Result<NodeIndex, MembershipError> {
    let me = view.epoch().index_of(&identity).ok_or(MembershipError::NotListed { identity })?;
    let node = view.epoch().node(me).ok_or(MembershipError::NotListed { identity })?;
    if !is_role(node.role) {
        let listed = match node.role {
            Role::Mix { .. } => "mix node",
            Role::Gateway => "gateway",
        };
        return Err(MembershipError::Role { listed });
    }
    if node.sphinx_key != own {
        return Err(MembershipError::SphinxKey { listed: node.sphinx_key, own });
    }
    Ok(me)
}

/// The neighbours of a node: it dials its successors and is dialled by its predecessors.
///
/// A network of one layer makes gateways and mix nodes successors of each other; there the smaller key dials.
#[must_use]
pub fn neighbours(view: &EpochView, me: NodeIndex) -> Vec<Peer> {
    let epoch = view.epoch();
    let identity = |index| epoch.node(index).map(|node| node.identity);
    let Some(own) = identity(me) else { return Vec::new() };
    let successors = epoch.successors(me);
    let predecessors = epoch.predecessors(me);
    let dialled = successors.iter().filter_map(|&index| {
        let node = epoch.node(index)?;
        let dial = !predecessors.contains(&index) || own < node.identity;
        Some(if dial {
            Peer::dialled(node.identity, node.addresses.clone())
        } else {
            Peer::awaited(node.identity)
        })
    });
    let awaited = predecessors.iter().filter(|index| !successors.contains(index));
    dialled.chain(awaited.filter_map(|&index| identity(index)).map(Peer::awaited)).collect()
}
