//! The task that runs the swarm.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::{Swarm, SwarmEvent};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::address::Address;
use crate::behaviour::Behaviour;
use crate::config::Target;
use crate::listen::{ListenError, probe};
use crate::shared::Shared;

/// Time for the transports to report that they listen; they need none.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for connections to say goodbye after they were told to.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the handle wants of the task. Only the latest counts, so that the channel holds one.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    pub(crate) targets: Arc<[Target]>,
    pub(crate) shut_down: bool,
}

/// Owns the swarm.
pub(crate) struct Driver {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) linger: Duration,
}

impl Driver {
    /// Listens on all addresses, or on none.
    pub(crate) async fn listen(&mut self, addresses: &[Address]) -> Result<(), ListenError> {
        for &address in addresses {
            probe(address)?;
        }
        for &address in addresses {
            let id = self.swarm.listen_on(address.to_multiaddr()).map_err(|error| ListenError::Other {
                address: address.to_string(),
                source: std::io::Error::other(error),
            })?;
            let ready = timeout(LISTEN_TIMEOUT, self.listens(address, id)).await;
            ready.unwrap_or_else(|_| Err(ListenError::Timeout { address: address.to_string() }))?;
        }
        Ok(())
    }

    /// Waits until the listener has an address.
    async fn listens(&mut self, address: Address, id: ListenerId) -> Result<(), ListenError> {
        let failed = |source| Err(ListenError::Other { address: address.to_string(), source });
        loop {
            let event = self.swarm.select_next_some().await;
            self.note_addresses(&event);
            match event {
                SwarmEvent::NewListenAddr { listener_id, .. } if listener_id == id => return Ok(()),
                SwarmEvent::ListenerError { listener_id, error } if listener_id == id => {
                    return failed(error);
                }
                SwarmEvent::ListenerClosed { listener_id, reason, .. } if listener_id == id => {
                    return failed(reason.err().unwrap_or_else(|| std::io::ErrorKind::NotConnected.into()));
                }
                _ => {}
            }
        }
    }

    /// Runs until shutdown has been asked for and done, or nobody holds the handle any more.
    pub(crate) async fn run(mut self, mut wishes: watch::Receiver<Wishes>) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.note_addresses(&event),
                changed = wishes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let Wishes { targets, shut_down } = wishes.borrow_and_update().clone();
                    if shut_down {
                        self.shut_down().await;
                        break;
                    }
                    self.swarm.behaviour_mut().set_targets(&targets);
                }
            }
        }
        self.shared.begin_shutdown();
        self.shared.finish_shutdown();
        tracing::info!("links are closed");
    }

    /// Lets peers take what is queued, then closes.
    ///
    /// The listeners stay until the swarm is dropped, with the door closed: to remove a listener would cut every QUIC
    /// connection that shares its socket.
    async fn shut_down(&mut self) {
        self.swarm.behaviour_mut().begin_shutdown();
        if self.shared.links() > 0 {
            self.run_until_empty(Instant::now() + self.linger).await;
        }
        self.swarm.behaviour_mut().close_all();
        self.run_until_empty(Instant::now() + CLOSE_TIMEOUT).await;
    }

    async fn run_until_empty(&mut self, deadline: Instant) {
        while !self.swarm.behaviour().is_empty() {
            tokio::select! {
                event = self.swarm.select_next_some() => self.note_addresses(&event),
                () = sleep_until(deadline) => return,
            }
        }
    }

    fn note_addresses<E>(&self, event: &SwarmEvent<E>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let address = address.to_string();
                tracing::info!(%address, "listening");
                let mut listening = self.shared.listening();
                if !listening.contains(&address) {
                    listening.push(address);
                }
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let address = address.to_string();
                self.shared.listening().retain(|other| *other != address);
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                let closed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                self.shared.listening().retain(|address| !closed.contains(address));
                if let Err(error) = reason {
                    tracing::error!(%error, ?closed, "stopped listening");
                }
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener had an error"),
            _ => {}
        }
    }
}
