//! Carries a node from epoch to epoch: which keys are open, which epochs its own packets use, who its neighbours are.
//!
//! What holds at an instant follows from the document and the wall clock alone, and [`Rotation::step`] makes it so, whatever
//! held before: a clock that jumps skips nothing, and a step that failed is repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tombola_link::Peer;
use tombola_protocol::opener::{NodeKey, Opener};
use tombola_protocol::replay::{TagFilter, capacity_for};
use tombola_protocol::taglog::{LogRefused, TagLog};
use tombola_protocol::view::{EpochView, OpenViews, Seat, SendViews, ViewError};
use tombola_storage::taglog::{self, FileTagLog, TagLogError};
use tombola_topology::{Epoch, EpochError, IdentityKey, Network, Phases, Role, SphinxKey};

use crate::data::DataFolder;
use crate::derive;
use crate::keyring::{Keyring, key_id, short_id};
use crate::keys::{KeyError, scrub_stack};
use crate::membership::neighbours;
use crate::metrics;

/// How long batches that are being opened may hold a key that was closed; they take milliseconds.
const LET_GO: Duration = Duration::from_secs(5);

/// Where a node stands at an instant.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The epochs that its own packets use.
    pub send: SendViews,
    /// The epochs whose packets it takes.
    pub open: OpenViews,
    /// Whom it keeps links with: the neighbours of all epochs in use.
    pub neighbours: Vec<Peer>,
}

impl Standing {
    /// Whether the epochs that senders use are the same.
    #[must_use]
    pub fn sends_as(&self, other: &Self) -> bool {
        let same = |a: Option<&Arc<EpochView>>, b: Option<&Arc<EpochView>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same(Some(&self.send.current), Some(&other.send.current))
            && same(self.send.old.as_ref(), other.send.old.as_ref())
    }
}

/// Why a node cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The document is not valid now.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// An epoch of the document cannot be used.
    #[error(transparent)]
    View(#[from] ViewError),
    /// This node is in no epoch that goes on or is to come.
    #[error(
        "the network document does not list this node (identity {identity}); give that identity to the network's authority, or check that link_secret names the right file"
    )]
    NotListed {
        /// Its own identity.
        identity: IdentityKey,
    },
    /// The document gives this node another role wherever it lists it.
    #[error("the network document lists this node as a {listed}; start it as that")]
    Role {
        /// As listed.
        listed: &'static str,
    },
}

/// Why a key cannot be used in its epoch.
#[derive(Debug, thiserror::Error)]
pub enum KeyTrouble {
    /// The secret is not here.
    #[error(
        "the network document lists the Sphinx key {key} for this node in epoch {epoch}, and {} (sphinx_secrets or sphinx_secret of the configuration) does not hold it: packets of that epoch could not be opened; put the key there or have the document corrected",
        path.display()
    )]
    Missing {
        /// As listed.
        key: SphinxKey,
        /// Where.
        epoch: u64,
        /// Where keys are looked for.
        path: PathBuf,
    },
    /// The key was used and its log is gone.
    #[error(
        "the Sphinx key {key} of epoch {epoch} was used before, and its tag log {} is missing: packets that it accepted could be passed on again, so it must not be used any more; restore the log, or make a new key (tombola network node-keys --next) and have a later epoch of the document list that",
        path.display()
    )]
    LogMissing {
        /// The key.
        key: SphinxKey,
        /// Its epoch.
        epoch: u64,
        /// Where its log should be.
        path: PathBuf,
    },
    /// The log of a key cannot be used.
    #[error(
        "the Sphinx key {key} of epoch {epoch} must not be used: {source}; a new key (tombola network node-keys --next) can be listed in a later epoch of the document"
    )]
    Log {
        /// The key.
        key: SphinxKey,
        /// Its epoch.
        epoch: u64,
        /// What is wrong with its log.
        source: TagLogError,
    },
    /// A key file or mark cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No randomness.
    #[error("the operating system gave no randomness: {0}")]
    Random(#[from] std::io::Error),
}

/// The log of a key, which nobody has to wait for any more when the key is dead: no packet can come a second time.
struct KeyLog {
    log: FileTagLog,
    dead: AtomicBool,
}

impl TagLog for KeyLog {
    fn append(&self, fingerprints: &[u64]) -> Result<u64, LogRefused> {
        self.log.append(fingerprints)
    }

    fn durable(&self) -> u64 {
        if self.dead.load(Ordering::Acquire) { u64::MAX } else { self.log.durable() }
    }

    fn need(&self, position: u64, within: Duration) {
        self.log.need(position, within);
    }
}

/// A key in use.
struct OpenKey {
    key: Arc<NodeKey>,
    log: Arc<KeyLog>,
}

/// What a slot of the opener holds.
struct OpenSlot {
    seat: Seat,
}

/// Keys, epochs and the opener of a node.
pub struct Rotation {
    identity: IdentityKey,
    is_role: fn(Role) -> bool,
    keyring: Keyring,
    data: Arc<DataFolder>,
    opener: Arc<Opener>,
    views: BTreeMap<u64, Arc<EpochView>>,
    keys: BTreeMap<SphinxKey, OpenKey>,
    slots: [Option<OpenSlot>; 2],
    /// Keys that cannot be used, and why; said once.
    troubles: BTreeMap<SphinxKey, KeyTrouble>,
    erased: BTreeSet<SphinxKey>,
    /// Epochs in which this node has another role; said once.
    other_roles: BTreeSet<u64>,
    /// The document whose later keys have been looked for.
    looked_through: Option<[u8; 32]>,
    /// Something is to be tried again.
    unsettled: bool,
}

impl Rotation {
    /// A node with that identity that takes part in the epochs in which it has such a role. No key is open yet.
    #[must_use]
    pub fn new(
        identity: IdentityKey,
        is_role: fn(Role) -> bool,
        keyring: Keyring,
        data: Arc<DataFolder>,
        opener: Arc<Opener>,
    ) -> Self {
        Self {
            identity,
            is_role,
            keyring,
            data,
            opener,
            views: BTreeMap::new(),
            keys: BTreeMap::new(),
            slots: [None, None],
            troubles: BTreeMap::new(),
            erased: BTreeSet::new(),
            other_roles: BTreeSet::new(),
            looked_through: None,
            unsettled: false,
        }
    }

    /// Makes everything as it should be at `now`, the time since 1970. Reads and writes files.
    ///
    /// # Errors
    /// The node cannot go on; what is open stays open.
    pub fn step(&mut self, network: &Network, now: Duration) -> Result<Standing, RotationError> {
        let phases = Phases::at(network, now)?;
        self.unsettled = false;
        let linked = self.seats(network, now)?;
        let sending = [Some(&phases.current), phases.old.as_ref()];
        self.views.retain(|number, _| {
            linked.iter().any(|seat| seat.view().number() == *number)
                || sending.iter().flatten().any(|epoch| epoch.number().0 == *number)
        });
        let send = SendViews {
            current: self.view(network, &phases.current)?,
            old: phases.old.as_ref().map(|old| self.view(network, old)).transpose()?,
        };
        self.open_keys(network, now, &linked);
        self.erase_dead_keys(network, now);
        self.look_for_later_keys(network, now);
        ::metrics::gauge!(metrics::EPOCH).set(send.current.number() as f64);
        let open = self.slots.iter().flatten().map(|slot| slot.seat.clone());
        Ok(Standing {
            send,
            open: open.fold(OpenViews::default(), OpenViews::with),
            neighbours: neighbours(&linked),
        })
    }

    /// Whether the last step left nothing to be tried again.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.unsettled
    }

    /// Why the key of this node in an epoch cannot be used.
    #[must_use]
    pub fn trouble(&self, epoch: &Epoch) -> Option<&KeyTrouble> {
        let node = epoch.node(epoch.index_of(&self.identity)?)?;
        self.troubles.get(&node.sphinx_key)
    }

    /// Closes all keys and makes their logs durable. Nothing can be opened any more.
    pub fn end(&mut self) {
        for (parity, slot) in self.slots.iter_mut().enumerate() {
            *slot = None;
            self.opener.close(tombola_protocol::frame::Parity::of(parity as u64));
        }
        for (_, key) in std::mem::take(&mut self.keys) {
            let_go(key);
        }
    }

    /// This node's places in the epochs whose links are kept now. There are none only if there is one to come.
    fn seats(&mut self, network: &Network, now: Duration) -> Result<Vec<Seat>, RotationError> {
        let mut seats = Vec::new();
        let mut listed = None;
        let mut to_come = false;
        for epoch in network.epochs().iter().filter(|epoch| now < network.death(epoch)) {
            let Some(node) = epoch.index_of(&self.identity).and_then(|index| epoch.node(index)) else {
                continue;
            };
            if !(self.is_role)(node.role) {
                listed = Some(name_of(node.role));
                if self.other_roles.insert(epoch.number().0) {
                    let (epoch, role) = (epoch.number().0, name_of(node.role));
                    tracing::warn!(epoch, role, "listed with another role in this epoch: not a part of it");
                }
                continue;
            }
            let window = network.link_window(epoch);
            if window.contains(&now) {
                let view = self.view(network, epoch)?;
                seats.extend(Seat::of(view, &self.identity));
            } else if now < window.start {
                to_come = true;
            }
        }
        match listed {
            _ if to_come || !seats.is_empty() => Ok(seats),
            Some(listed) => Err(RotationError::Role { listed }),
            None => Err(RotationError::NotListed { identity: self.identity }),
        }
    }

    /// An epoch's view; made once, because it costs a multiplication on the curve for each node.
    fn view(&mut self, network: &Network, epoch: &Arc<Epoch>) -> Result<Arc<EpochView>, ViewError> {
        let number = epoch.number().0;
        if let Some(view) = self.views.get(&number).filter(|view| view.epoch() == epoch) {
            return Ok(Arc::clone(view));
        }
        let view = EpochView::of(network, epoch)?;
        self.views.insert(number, Arc::clone(&view));
        Ok(view)
    }

    fn open_keys(&mut self, network: &Network, now: Duration, seats: &[Seat]) {
        let mut wanted: [Option<&Seat>; 2] = [None, None];
        let mut kept = BTreeSet::new();
        for seat in seats {
            let Some(window) = network.key_window(seat.view().epoch().number(), seat.role()) else {
                continue;
            };
            if now >= window.end {
                continue;
            }
            // Before its time a key is made ready, so that the slot is exchanged in an instant then.
            kept.extend(self.make_ready(network, seat));
            let slot = &mut wanted[seat.view().parity().index()];
            // A node that changes its layer may be free for the later epoch before it has retired the earlier one.
            if window.contains(&now) && slot.is_none() {
                *slot = Some(seat);
            }
        }
        for (parity, wanted) in wanted.into_iter().enumerate() {
            let is_it =
                |slot: &OpenSlot| wanted.is_some_and(|wanted| Arc::ptr_eq(slot.seat.view(), wanted.view()));
            if self.slots[parity].as_ref().is_some_and(is_it) {
                continue;
            }
            let opened = wanted.and_then(|seat| self.open(seat));
            if opened.is_none()
                && let Some(slot) = &self.slots[parity]
            {
                self.opener.close(slot.seat.view().parity());
            }
            self.slots[parity] = opened;
        }
        // Those that are dead are erased by who calls next.
        kept.extend(self.dead_keys(network, now).into_iter().map(|(_, public)| public));
        let unused: Vec<_> = self.keys.keys().filter(|key| !kept.contains(key)).copied().collect();
        for public in unused {
            if let Some(key) = self.keys.remove(&public) {
                let_go(key);
            }
        }
    }

    /// Puts a key that is ready into its slot.
    fn open(&self, seat: &Seat) -> Option<OpenSlot> {
        let public = seat.view().epoch().node(seat.me())?.sphinx_key;
        let key = self.keys.get(&public)?;
        self.opener.open(seat.clone(), Arc::clone(&key.key));
        tracing::info!(epoch = seat.view().number(), "the key of this epoch is open");
        Some(OpenSlot { seat: seat.clone() })
    }

    /// Loads the key of an epoch if it is not there. What is wrong is said once, and tried again at the next step.
    fn make_ready(&mut self, network: &Network, seat: &Seat) -> Option<SphinxKey> {
        let (public, epoch) = (seat.view().epoch().node(seat.me())?.sphinx_key, seat.view().number());
        if !self.keys.contains_key(&public) {
            match self.load(network, seat, public) {
                Ok(key) => {
                    self.troubles.remove(&public);
                    self.keys.insert(public, key);
                }
                Err(error) => {
                    self.unsettled = true;
                    let said = self.troubles.get(&public).map(ToString::to_string);
                    if said != Some(error.to_string()) {
                        tracing::error!(epoch, %error, "without its key, packets of this epoch are refused");
                    }
                    self.troubles.insert(public, error);
                }
            }
        }
        if let Some(key) = self.keys.get(&public) {
            key.key.seen().raise_capacity(capacity_of(network, seat));
        }
        Some(public)
    }

    /// Loads a key with everything that was seen under it.
    fn load(&self, network: &Network, seat: &Seat, key: SphinxKey) -> Result<OpenKey, KeyTrouble> {
        let epoch = seat.view().number();
        let secret = self.keyring.load(&key)?.ok_or_else(|| {
            let path = self.keyring.path().to_owned();
            KeyTrouble::Missing { key, epoch, path }
        })?;
        let path = self.log_of(&key);
        let used = self.keyring.is_used(&key);
        if used && !path.exists() {
            return Err(KeyTrouble::LogMissing { key, epoch, path });
        }
        let failed = |source| KeyTrouble::Log { key, epoch, source };
        if !used {
            // Left by a process that ended before it used the key.
            taglog::erase(&path).map_err(failed)?;
        }
        let seen = TagFilter::new(capacity_of(network, seat), u64::from_le_bytes(derive::random_bytes()?));
        let restore = |fingerprints: &[u64]| fingerprints.iter().for_each(|tag| seen.restore(*tag));
        let log = FileTagLog::open(&path, key_id(&key), restore, |_| {}).map_err(failed)?;
        if !used {
            self.keyring.mark_used(&key)?;
        }
        let log = Arc::new(KeyLog { log, dead: AtomicBool::new(false) });
        let as_log: Arc<dyn TagLog> = log.clone();
        let key = Arc::new(NodeKey::new(secret, seen, Some(as_log)));
        scrub_stack();
        Ok(OpenKey { key, log })
    }

    fn log_of(&self, key: &SphinxKey) -> PathBuf {
        self.data.path().join(format!("tags-{}.log", short_id(key)))
    }

    /// The keys of this node that no packet may use any more, by the document.
    fn dead_keys(&self, network: &Network, now: Duration) -> Vec<(u64, SphinxKey)> {
        network
            .epochs()
            .iter()
            .filter_map(|epoch| {
                let node = epoch.node(epoch.index_of(&self.identity)?)?;
                let window = network.key_window(epoch.number(), node.role)?;
                (now >= window.end).then_some((epoch.number().0, node.sphinx_key))
            })
            .collect()
    }

    fn erase_dead_keys(&mut self, network: &Network, now: Duration) {
        for (epoch, public) in self.dead_keys(network, now) {
            if self.erased.contains(&public) {
                continue;
            }
            match self.erase(epoch, &public) {
                Ok(was_here) => {
                    self.erased.insert(public);
                    self.troubles.remove(&public);
                    if was_here {
                        ::metrics::counter!(metrics::KEYS_ERASED_TOTAL).increment(1);
                        tracing::info!(epoch, "erased the Sphinx key of this epoch, which is over");
                    }
                }
                Err(error) => {
                    self.unsettled = true;
                    let said = self.troubles.insert(public, error).map(|error| error.to_string());
                    let error = self.troubles.get(&public).map(ToString::to_string);
                    if said != error {
                        let error = error.unwrap_or_default();
                        tracing::error!(epoch, error, "a key of an epoch that is over cannot be erased");
                    }
                }
            }
        }
    }

    /// Erases a key and then what was seen under it: without its log a key would accept its packets again. Returns whether
    /// there was one.
    fn erase(&mut self, epoch: u64, public: &SphinxKey) -> Result<bool, KeyTrouble> {
        let log = self.keys.remove(public).map(let_go);
        let was_here = self.keyring.erase(public)?;
        if let Some(log) = log {
            log.dead.store(true, Ordering::Release);
        }
        let failed = |source| KeyTrouble::Log { key: *public, epoch, source };
        taglog::erase(&self.log_of(public)).map_err(failed)?;
        scrub_stack();
        Ok(was_here)
    }

    /// Says once for each document which keys of later epochs are not here.
    fn look_for_later_keys(&mut self, network: &Network, now: Duration) {
        if self.looked_through.replace(*network.digest()) == Some(*network.digest()) {
            return;
        }
        let here = match self.keyring.public_keys() {
            Ok(here) => here,
            Err(error) => return tracing::warn!(%error, "the keys of later epochs cannot be looked for"),
        };
        for epoch in network.epochs() {
            let Some(node) = epoch.index_of(&self.identity).and_then(|index| epoch.node(index)) else {
                continue;
            };
            let to_come = network.key_window(epoch.number(), node.role).is_some_and(|w| now < w.start);
            if to_come && (self.is_role)(node.role) && !here.contains_key(&node.sphinx_key) {
                let (epoch, key) = (epoch.number().0, node.sphinx_key);
                tracing::warn!(
                    epoch, %key,
                    "the document lists this Sphinx key for a later epoch, and its secret is not here: add it before then"
                );
            }
        }
    }
}

/// Waits until nobody opens packets with a key any more, makes its log durable, and drops the secret, which erases it.
fn let_go(open: OpenKey) -> Arc<KeyLog> {
    let deadline = Instant::now() + LET_GO;
    while Arc::strong_count(&open.key) > 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let OpenKey { key, log } = open;
    drop(key);
    if let Err(error) = log.log.close() {
        tracing::error!(%error, "the tag log of a key could not be completed");
    }
    log
}

/// How many tags a key may see: at the network's rate, over its life.
fn capacity_of(network: &Network, seat: &Seat) -> u64 {
    let rate = u64::from(network.parameters().admitted_rate);
    let window = network.key_window(seat.view().epoch().number(), seat.role()).unwrap_or_default();
    // The next epoch may not be announced yet; it is taken to be as long as this one.
    capacity_for(rate, window.end.saturating_sub(window.start).max(2 * seat.view().life()))
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::Mix { .. } => "mix node",
        Role::Gateway => "gateway",
    }
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotation").field("identity", &self.identity).finish_non_exhaustive()
    }
}
