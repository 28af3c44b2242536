//! What the sink is told about one peer: `connected`, `frames`, `disconnected`, in this order, whatever connections come and go.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tombola_protocol::frame::Frame;
use tombola_topology::IdentityKey;

use crate::queue::Generation;
use crate::shared::Shared;
use crate::sink::Taken;

/// Time after which a sink is offered again what it had no room for. Polling instead of being notified: no wake-up can be
/// missed, a sink is three plain functions, and it costs something only while a consumer is behind.
pub(crate) const RETRY: Duration = Duration::from_millis(2);

/// The calls for one peer are made under this lock, which keeps them in order. It is held for the length of one call of
/// the sink, and contended only while a connection replaces another.
#[derive(Debug)]
pub(crate) struct Session {
    identity: IdentityKey,
    state: Mutex<State>,
    /// Whether there is something that the sink believes or is owed. Readable without the lock: who looks may hold locks
    /// that a sink wants.
    busy: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The connection of which the sink believes that it is up.
    active: Option<Generation>,
    /// The latest connection that was opened, up or not: earlier ones stay out.
    latest: Option<Generation>,
    /// The sink still has to be told that the last link is down.
    owed: bool,
    /// A task is about to tell it.
    settling: bool,
}

/// What came of an attempt to announce a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened {
    Yes,
    /// The sink has no room: try again.
    NotNow,
    /// A later connection is there already.
    Superseded,
}

/// This connection's frames are no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superseded;

impl Session {
    pub(crate) fn new(identity: IdentityKey) -> Self {
        Self { identity, state: Mutex::default(), busy: AtomicBool::new(false) }
    }

    /// Announces a connection, and first the end of the one that it replaces. `wanted` is asked under the lock.
    pub(crate) fn open(
        &self,
        shared: &Shared,
        generation: Generation,
        wanted: impl FnOnce() -> bool,
    ) -> Opened {
        let mut state = self.lock();
        // Before `wanted` is asked: whoever takes the wish back looks at `busy` afterwards.
        self.busy.store(true, SeqCst);
        let opened =
            if wanted() { self.open_locked(&mut state, shared, generation) } else { Opened::Superseded };
        self.update_busy(&state);
        opened
    }

    fn open_locked(&self, state: &mut State, shared: &Shared, generation: Generation) -> Opened {
        if state.latest.is_some_and(|latest| latest > generation) {
            return Opened::Superseded;
        }
        state.latest = Some(generation);
        self.end(state, shared);
        if self.settle(state, shared) == Taken::NotNow
            || shared.sink.connected(&self.identity) == Taken::NotNow
        {
            return Opened::NotNow;
        }
        state.active = Some(generation);
        shared.link_up();
        Opened::Yes
    }

    /// Offers a batch. What the sink has no room for stays in it.
    pub(crate) fn deliver(
        &self,
        shared: &Shared,
        generation: Generation,
        batch: &mut Vec<Frame>,
    ) -> Result<(), Superseded> {
        let state = self.lock();
        if state.active != Some(generation) {
            return Err(Superseded);
        }
        shared.sink.frames(&self.identity, batch);
        Ok(())
    }

    /// Announces the end of a connection, unless a later one has taken over. If the sink has no room, a task keeps trying.
    pub(crate) fn close(self: &Arc<Self>, shared: &Arc<Shared>, generation: Generation) {
        let state = self.lock();
        if state.active == Some(generation) {
            self.end_and_settle(state, shared);
        }
    }

    /// Announces the end of whatever connection there is.
    pub(crate) fn close_any(self: &Arc<Self>, shared: &Arc<Shared>) {
        self.end_and_settle(self.lock(), shared);
    }

    /// Whether the sink believes that a link is up, or has yet to hear that it is not. Whoever takes over the peer must then
    /// take over this session.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(SeqCst)
    }

    fn update_busy(&self, state: &State) {
        self.busy.store(state.active.is_some() || state.owed, SeqCst);
    }

    fn end(&self, state: &mut State, shared: &Shared) {
        if state.active.take().is_some() {
            state.owed = true;
            shared.link_down();
        }
    }

    fn settle(&self, state: &mut State, shared: &Shared) -> Taken {
        if state.owed && shared.sink.disconnected(&self.identity) == Taken::NotNow {
            return Taken::NotNow;
        }
        state.owed = false;
        Taken::Yes
    }

    fn end_and_settle(self: &Arc<Self>, mut state: MutexGuard<'_, State>, shared: &Arc<Shared>) {
        self.end(&mut state, shared);
        if self.settle(&mut state, shared) == Taken::NotNow && !state.settling {
            state.settling = true;
            // Not `tokio::spawn`: peers are also removed by threads that the runtime does not know.
            shared.runtime.spawn(Arc::clone(self).settle_later(Arc::clone(shared)));
        }
        self.update_busy(&state);
    }

    async fn settle_later(self: Arc<Self>, shared: Arc<Shared>) {
        loop {
            tokio::time::sleep(RETRY).await;
            let mut state = self.lock();
            // If a new connection has settled it meanwhile, nothing is owed and this succeeds at once.
            if self.settle(&mut state, &shared) == Taken::Yes {
                state.settling = false;
                self.update_busy(&state);
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A sink that panics leaves the state as it was before the call: sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::shared::Timeouts;
    use crate::sink::FrameSink;

    const PEER: IdentityKey = IdentityKey::from_bytes([1; 32]);

    /// Notes what it takes. Takes every third thing that it is offered.
    #[derive(Default)]
    struct Reluctant {
        offers: Mutex<u32>,
        taken: Mutex<Vec<&'static str>>,
    }

    impl Reluctant {
        fn offer(&self, what: &'static str) -> Taken {
            let mut offers = self.offers.lock().unwrap();
            *offers += 1;
            if !offers.is_multiple_of(3) {
                return Taken::NotNow;
            }
            self.taken.lock().unwrap().push(what);
            Taken::Yes
        }

        fn taken(&self) -> Vec<&'static str> {
            self.taken.lock().unwrap().clone()
        }
    }

    impl FrameSink for Reluctant {
        fn connected(&self, _: &IdentityKey) -> Taken {
            self.offer("connected")
        }

        fn frames(&self, _: &IdentityKey, batch: &mut Vec<Frame>) {
            if self.offer("frame") == Taken::Yes {
                batch.remove(0);
            }
        }

        fn disconnected(&self, _: &IdentityKey) -> Taken {
            self.offer("disconnected")
        }
    }

    fn shared() -> (Arc<Reluctant>, Arc<Shared>) {
        let sink = Arc::new(Reluctant::default());
        let timeouts = Timeouts { open: RETRY, stall: RETRY, idle: None };
        let runtime = tokio::runtime::Handle::current();
        let shared = Shared::new(Arc::clone(&sink) as Arc<dyn FrameSink>, 9, 9, timeouts, runtime);
        (sink, Arc::new(shared))
    }

    fn open(session: &Session, shared: &Shared, generation: Generation) {
        while session.open(shared, generation, || true) == Opened::NotNow {}
    }

    async fn settled(session: &Session) {
        while session.is_busy() {
            sleep(RETRY).await;
        }
    }

    #[tokio::test]
    async fn a_sink_without_room_still_hears_everything_in_order() {
        let (sink, shared) = shared();
        let session = Arc::new(Session::new(PEER));
        open(&session, &shared, 1);
        let mut batch = vec![Frame::zeroed(), Frame::zeroed()];
        while !batch.is_empty() {
            session.deliver(&shared, 1, &mut batch).unwrap();
        }
        assert_eq!(shared.links(), 1);
        session.close(&shared, 1);
        assert_eq!((sink.taken().len(), shared.links()), (3, 0));
        settled(&session).await;
        assert_eq!(sink.taken(), ["connected", "frame", "frame", "disconnected"]);
    }

    #[tokio::test]
    async fn a_connection_that_is_replaced_is_over_before_the_next_begins() {
        let (sink, shared) = shared();
        let session = Arc::new(Session::new(PEER));
        open(&session, &shared, 1);
        open(&session, &shared, 3);
        let mut batch = vec![Frame::zeroed()];
        assert_eq!(session.deliver(&shared, 1, &mut batch), Err(Superseded));
        assert_eq!(batch.len(), 1);
        // Neither the old one's end nor a straggler does anything.
        session.close(&shared, 1);
        assert_eq!(session.open(&shared, 2, || true), Opened::Superseded);
        assert_eq!(shared.links(), 1);
        session.close(&shared, 3);
        settled(&session).await;
        assert_eq!(sink.taken(), ["connected", "disconnected", "connected", "disconnected"]);
    }

    #[tokio::test]
    async fn a_peer_that_is_removed_and_comes_back_goes_before_it_comes() {
        let (sink, shared) = shared();
        let link = shared.peer_or_new(PEER);
        while link.open(&shared, 1) == Opened::NotNow {}
        shared.remove_peer(&PEER);
        assert_eq!(link.open(&shared, 2), Opened::Superseded);
        let back = shared.peer_or_new(PEER);
        while back.open(&shared, 3) == Opened::NotNow {}
        assert_eq!(sink.taken(), ["connected", "disconnected", "connected"]);
        // Settled, a session is not kept.
        shared.remove_peer(&PEER);
        settled(&back.session).await;
        assert!(!Arc::ptr_eq(&shared.peer_or_new(PEER).session, &back.session));
    }
}
