//! What mix nodes and gateways have in common: a place in the network, openers of packets, links to neighbours.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tombola_link::{LinkConfig, LinkSecret, Links, NODE_PROTOCOL, Policy};
use tombola_protocol::drops::DropCounters;
use tombola_protocol::opener::{NodeKey, Occupancy, Opened, Opener};
use tombola_protocol::replay::{TagFilter, capacity_for};
use tombola_protocol::view::{EpochView, Seat};
use tombola_sphinx::SecretKey;
use tombola_topology::{NodeIndex, Role, SphinxKey};

use crate::clock::Clock;
use crate::derive;
use crate::driver::{DriverHandle, Inputs, Machine, Received, spawn, spawn_task};
use crate::entry::Service;
use crate::ingress::Ingress;
use crate::keys::{Link, Secret, SecretFile, Sphinx};
use crate::membership::{current_view, find_self, load_network, neighbours};
use crate::opening::Openers;
use crate::workers::processors;

/// Inputs that may wait for a hop's driver.
pub const INPUTS: usize = 4096;
/// Frames that may wait for one neighbour: 10 MB.
const NEIGHBOUR_QUEUE: usize = 4096;

/// What a hop's configuration says.
#[derive(Clone, Copy, Debug)]
pub struct HopConfig<'a> {
    /// Where relative paths start.
    pub base: &'a Path,
    /// The network document.
    pub network: &'a Path,
    /// The key that signs it, in hexadecimal.
    pub authority: &'a str,
    /// Key file of the link identity.
    pub link_secret: &'a Path,
    /// Key file of the Sphinx key.
    pub sphinx_secret: &'a Path,
    /// Addresses for neighbours.
    pub listen: &'a [String],
    /// Threads that open packets; 0: those that read them; `None`: one per processor.
    pub workers: Option<usize>,
    /// Threads that move bytes on links; 0: one, which drives the state machine too.
    pub link_threads: usize,
    /// Packets that may be in the node at one time.
    pub places: usize,
}

/// A hop that has found its place in the network.
pub struct Hop {
    /// The epoch.
    pub view: Arc<EpochView>,
    /// Its place in the node list.
    pub me: NodeIndex,
    /// Its clock.
    pub clock: Clock,
    /// Its places.
    pub occupancy: Occupancy,
    /// What it dropped.
    pub drops: Arc<DropCounters>,
    /// Its link identity, as it is in the file: what it derives starts here.
    pub secret: Secret<Link>,
    sphinx: SecretKey,
}

impl Hop {
    /// Loads keys and document, and finds itself in the list.
    ///
    /// # Errors
    /// A file, a key or the document is unusable, or does not list this node in this role.
    pub fn load(config: &HopConfig<'_>, is_role: impl Fn(Role) -> bool) -> Result<Self> {
        let secret = SecretFile::<Link>::new(config.base.join(config.link_secret)).load()?;
        let sphinx = SecretFile::<Sphinx>::new(config.base.join(config.sphinx_secret)).load()?;
        let path = config.base.join(config.network);
        let authority = config.authority.parse().context("the key \"authority\" of the configuration")?;
        let network = load_network(&path, &authority)?;
        let view = current_view(&path, &network)?;
        let sphinx = SecretKey::from_bytes(*sphinx.expose());
        let own = SphinxKey::from_bytes(sphinx.public_key().to_bytes());
        let me = find_self(&view, LinkSecret::from_seed(*secret.expose()).identity(), own, is_role)?;
        Ok(Self {
            view,
            me,
            clock: Clock::start(),
            occupancy: Occupancy::new(config.places.max(1)),
            drops: Arc::default(),
            secret,
            sphinx,
        })
    }

    /// Its link identity.
    #[must_use]
    pub fn link_secret(&self) -> LinkSecret {
        LinkSecret::from_seed(*self.secret.expose())
    }

    /// Starts who opens packets: what they open becomes inputs of the driver.
    ///
    /// # Errors
    /// The operating system gave no thread or no randomness.
    pub fn start_openers<I: Send + 'static>(
        &self,
        config: &HopConfig<'_>,
        inputs: &Inputs<I>,
        input_of: impl Fn(Opened) -> I + Clone + Send + Sync + 'static,
        service: &Service,
    ) -> Result<Openers> {
        let seen = TagFilter::new(
            capacity_for(u64::from(self.view.parameters().admitted_rate), self.view.life()),
            u64::from_le_bytes(derive::random_bytes()?),
        );
        let opener = Opener::new(self.view.parameters(), self.occupancy.clone(), Arc::clone(&self.drops));
        let seat = Seat::new(Arc::clone(&self.view), self.me).context("this node has left the list")?;
        opener.open(seat, Arc::new(NodeKey::new(self.sphinx.clone(), seen, None)));
        // On one thread nobody may wait for the driver: it is there, too.
        let threads = match (config.link_threads, config.workers) {
            (0, None | Some(0)) => 0,
            (0, Some(_)) => bail!("\"workers\" must be 0, or be left out, where \"link_threads\" is 0"),
            (_, workers) => workers.unwrap_or_else(processors),
        };
        Ok(Openers::start(opener, threads, inputs, input_of, service.shutdown.clone())?)
    }

    /// Starts the links to its neighbours, whose packets go to `openers`.
    ///
    /// # Errors
    /// An address is malformed or in use.
    pub async fn start_links(&self, config: &HopConfig<'_>, openers: &Openers) -> Result<Links> {
        let mut links = LinkConfig::new(self.link_secret(), Policy::Neighbours, NODE_PROTOCOL);
        links.listen = config.listen.to_vec();
        links.outbound_queue = NEIGHBOUR_QUEUE;
        let ingress = Ingress::new(self.clock, openers.way(), Arc::clone(&self.drops));
        Ok(tombola_link::start(links, neighbours(&self.view, self.me), Arc::new(ingress)).await?)
    }

    /// Starts the driver: on a thread of its own, or, if there is none for it, on the links' thread.
    ///
    /// # Errors
    /// The operating system gave no thread or timer.
    pub fn start_driver<M: Machine>(
        &self,
        config: &HopConfig<'_>,
        name: &'static str,
        machine: M,
        received: Received<M::Input>,
        deliver: impl FnMut(M::Output) + Send + 'static,
        service: &Service,
    ) -> Result<DriverHandle<M>> {
        let stop = service.shutdown.clone();
        Ok(match config.link_threads {
            0 => spawn_task(name, self.clock, machine, received, deliver, stop)?,
            _ => spawn(name, self.clock, machine, received, deliver, stop)?,
        })
    }

    /// Waits for the end, then takes everything down in order: the driver, what `end` does with its machine (on a thread that
    /// may wait), the links, the openers.
    ///
    /// # Errors
    /// A part has failed.
    pub async fn serve<M: Machine>(
        &self,
        service: &Service,
        driver: DriverHandle<M>,
        links: Vec<Links>,
        openers: Openers,
        end: impl FnOnce(M) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        service.until_end(&self.view).await;
        let machine = driver.ended().await?;
        let ended = tokio::task::spawn_blocking(move || end(machine)).await?;
        for links in links {
            links.shutdown().await;
        }
        tokio::task::spawn_blocking(move || openers.join()).await??;
        ended?;
        service.result()
    }
}

impl std::fmt::Debug for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hop").field("me", &self.me).finish_non_exhaustive()
    }
}
