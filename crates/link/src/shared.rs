//! What the parts of one set of links have in common: the peers, the sink, the pool, the counters.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tombola_protocol::frame::Frame;
use tombola_topology::IdentityKey;

use crate::pool::FramePool;
use crate::queue::{Generation, Queue};
use crate::session::{Opened, Session};
use crate::sink::FrameSink;
use crate::stats::{Counters, DropReason, LinkStats};

/// One peer: its queue, and what the sink knows of it.
#[derive(Debug)]
pub(crate) struct PeerLink {
    pub(crate) queue: Queue,
    pub(crate) session: Arc<Session>,
    /// Taken off the list: connections that still hold this are too late.
    retired: AtomicBool,
    /// The latest connection that was admitted. It need not be open yet.
    newest: AtomicU64,
}

impl PeerLink {
    /// Announces a connection to the sink and gives it the queue.
    pub(crate) fn open(&self, shared: &Shared, generation: Generation) -> Opened {
        // Whatever an older connection left: a session begins with what this one's owner says.
        if shared.sessions && !self.is_superseded(generation) {
            shared.counters.dropped.add(DropReason::Stale, self.queue.take().len());
        }
        let opened = self.session.open(shared, generation, || !self.is_retired());
        if opened == Opened::Yes {
            self.queue.attach(generation);
        }
        opened
    }

    /// A connection was admitted; it replaces all before.
    pub(crate) fn admit(&self, generation: Generation) {
        self.newest.fetch_max(generation, SeqCst);
    }

    pub(crate) fn is_superseded(&self, generation: Generation) -> bool {
        self.newest.load(SeqCst) > generation
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(SeqCst)
    }
}

/// The peers by key.
#[derive(Debug, Default)]
struct Peers {
    links: HashMap<IdentityKey, Arc<PeerLink>>,
    /// Sessions of removed peers of which the sink has not yet taken the `disconnected`. A peer that comes back takes its
    /// session over, so that the sink hears things in order.
    departing: HashMap<IdentityKey, Arc<Session>>,
}

/// Times that connections need to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) open: Duration,
    pub(crate) stall: Duration,
    pub(crate) idle: Option<Duration>,
}

/// Shared by the handle, the swarm's task and every connection.
pub(crate) struct Shared {
    pub(crate) sink: Arc<dyn FrameSink>,
    pub(crate) pool: FramePool,
    pub(crate) counters: Counters,
    pub(crate) timeouts: Timeouts,
    /// What a connection is told that another one of its peer replaces.
    pub(crate) parting: Option<Frame>,
    /// What was queued for one connection is not for the next one: so it is between a client and its gateway.
    pub(crate) sessions: bool,
    pub(crate) runtime: Handle,
    outbound_queue: usize,
    peers: RwLock<Peers>,
    listening: Mutex<Vec<String>>,
    links: AtomicUsize,
    generations: AtomicU64,
    shut_down: AtomicBool,
}

impl Shared {
    pub(crate) fn new(
        sink: Arc<dyn FrameSink>,
        pool: usize,
        outbound_queue: usize,
        timeouts: Timeouts,
        runtime: Handle,
    ) -> Self {
        Self {
            sink,
            pool: FramePool::new(pool),
            counters: Counters::default(),
            timeouts,
            parting: None,
            sessions: false,
            runtime,
            outbound_queue,
            peers: RwLock::default(),
            listening: Mutex::default(),
            links: AtomicUsize::new(0),
            generations: AtomicU64::new(0),
            shut_down: AtomicBool::new(false),
        }
    }

    /// A number greater than all before.
    pub(crate) fn next_generation(&self) -> Generation {
        self.generations.fetch_add(1, Relaxed)
    }

    pub(crate) fn peer(&self, identity: &IdentityKey) -> Option<Arc<PeerLink>> {
        self.read_peers(|peers| peers.links.get(identity).cloned())
    }

    /// The peer of this name, made if there is none.
    pub(crate) fn peer_or_new(&self, identity: IdentityKey) -> Arc<PeerLink> {
        self.write_peers(|peers| {
            let departing = &mut peers.departing;
            departing.retain(|_, session| session.is_busy());
            let link = peers.links.entry(identity).or_insert_with(|| {
                Arc::new(PeerLink {
                    queue: Queue::new(self.outbound_queue),
                    session: departing.remove(&identity).unwrap_or_else(|| Arc::new(Session::new(identity))),
                    retired: AtomicBool::new(false),
                    newest: AtomicU64::new(0),
                })
            });
            if self.is_shut_down() {
                link.queue.close();
            }
            Arc::clone(link)
        })
    }

    /// Removes a peer: from now on it can't be sent to, its connections deliver nothing, and what is queued is dropped.
    pub(crate) fn remove_peer(self: &Arc<Self>, identity: &IdentityKey) {
        let Some(link) = self.write_peers(|peers| {
            let link = peers.links.remove(identity)?;
            link.retired.store(true, SeqCst);
            peers.departing.insert(*identity, Arc::clone(&link.session));
            Some(link)
        }) else {
            return;
        };
        link.session.close_any(self);
        self.drop_queued(&link, DropReason::PeerGone);
        self.write_peers(|peers| peers.departing.retain(|_, session| session.is_busy()));
    }

    /// Every peer.
    pub(crate) fn all_peers(&self) -> Vec<Arc<PeerLink>> {
        self.read_peers(|peers| peers.links.values().cloned().collect())
    }

    /// No more frames are taken; the queues that have a connection run dry.
    pub(crate) fn begin_shutdown(&self) {
        self.shut_down.store(true, SeqCst);
        for link in self.all_peers() {
            link.queue.close();
        }
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down.load(SeqCst)
    }

    /// Drops what could not be sent before the end.
    pub(crate) fn finish_shutdown(self: &Arc<Self>) {
        for link in self.all_peers() {
            link.session.close_any(self);
            self.drop_queued(&link, DropReason::ShutDown);
        }
    }

    fn drop_queued(&self, link: &PeerLink, reason: DropReason) {
        let dropped = link.queue.clear();
        self.counters.dropped.add(reason, dropped.len());
    }

    pub(crate) fn link_up(&self) {
        self.links.fetch_add(1, Relaxed);
    }

    pub(crate) fn link_down(&self) {
        self.links.fetch_sub(1, Relaxed);
    }

    pub(crate) fn links(&self) -> usize {
        self.links.load(Relaxed)
    }

    pub(crate) fn stats(&self) -> LinkStats {
        let queued = self.all_peers().iter().map(|link| link.queue.len()).sum();
        self.counters.snapshot(self.links(), queued)
    }

    pub(crate) fn listening(&self) -> MutexGuard<'_, Vec<String>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_peers<T>(&self, read: impl FnOnce(&Peers) -> T) -> T {
        read(&self.peers.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write_peers<T>(&self, write: impl FnOnce(&mut Peers) -> T) -> T {
        write(&mut self.peers.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("links", &self.links()).finish_non_exhaustive()
    }
}
