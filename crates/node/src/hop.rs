//! What mix nodes and gateways have in common: keys and epochs, openers of packets, links to neighbours.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tombola_link::{LinkConfig, LinkSecret, Links, NODE_PROTOCOL, Policy};
use tombola_protocol::drops::DropCounters;
use tombola_protocol::opener::{Occupancy, Opened, Opener};
use tombola_topology::{EpochError, Network, Parameters, Role, UnixTime};

use crate::clock::{Clock, unix_time_now};
use crate::data::DataFolder;
use crate::driver::{DriverHandle, Inputs, Machine, Received, spawn, spawn_task};
use crate::entry::Service;
use crate::ingress::{Ingress, InputSink, LinkChange};
use crate::keyring::Keyring;
use crate::keys::{Link, Secret, SecretFile};
use crate::meters::LinkRegistry;
use crate::opening::Openers;
use crate::payment::{Bank, Paid, Payer, PaymentConfig};
use crate::reload::{self, Documents, Lineage};
use crate::rotation::{Rotation, RotationError, Standing};
use crate::shutdown::{Cause, Shutdown};
use crate::workers::processors;

/// Inputs that may wait for a hop's driver.
pub const INPUTS: usize = 4096;
/// Frames that may wait for one neighbour: 10 MB.
const NEIGHBOUR_QUEUE: usize = 4096;
/// At least so often the wall clock is looked at: it may have been set.
const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// A node that drains waits for its pool that much longer than the longest delay: for the last sync of its log.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);

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
    /// The only key file of a Sphinx key; or
    pub sphinx_secret: Option<&'a Path>,
    /// a folder of such files.
    pub sphinx_secrets: Option<&'a Path>,
    /// Where it keeps what has to survive it.
    pub data: &'a Path,
    /// Addresses for neighbours.
    pub listen: &'a [String],
    /// Threads that open packets; 0: those that read them; `None`: one per processor.
    pub workers: Option<usize>,
    /// Threads that move bytes on links; 0: one, which drives the state machine too.
    pub link_threads: usize,
    /// Packets that may be in the node at one time.
    pub places: usize,
    /// How it pays and is paid; `None` in a network without payment.
    pub payment: Option<&'a PaymentConfig>,
}

/// A hop that has found its place in the network.
pub struct Hop {
    /// What all participants do alike.
    pub parameters: Parameters,
    /// Its clock.
    pub clock: Clock,
    /// Its places.
    pub occupancy: Occupancy,
    /// What it dropped.
    pub drops: Arc<DropCounters>,
    /// Its link identity, as it is in the file: what it derives starts here.
    pub secret: Arc<Secret<Link>>,
    /// Its folder.
    pub data: Arc<DataFolder>,
    /// Its links.
    pub links: LinkRegistry,
    /// Where it stands; follows the epochs once [`start_rotation`](Self::start_rotation) was called.
    pub standing: watch::Receiver<Arc<Standing>>,
    opener: Arc<Opener>,
    moving: Option<Moving>,
    rotating: Option<JoinHandle<()>>,
}

/// What moves a hop through the epochs.
struct Moving {
    rotation: Rotation,
    documents: Documents,
    sender: watch::Sender<Arc<Standing>>,
}

impl Hop {
    /// Loads keys and document, finds itself in the list, and opens its keys.
    ///
    /// # Errors
    /// A file, a key or the document is unusable, or does not list this node in this role.
    pub fn load(config: &HopConfig<'_>, is_role: fn(Role) -> bool) -> Result<Self> {
        let keyring = match (config.sphinx_secrets, config.sphinx_secret) {
            (Some(folder), None) => Keyring::folder(config.base.join(folder)),
            (None, Some(file)) => Keyring::file(config.base.join(file)),
            _ => bail!(
                "the configuration must have exactly one of \"sphinx_secrets\" (a folder of key files) and \"sphinx_secret\" (one key file)"
            ),
        };
        let secret = SecretFile::<Link>::new(config.base.join(config.link_secret)).load()?;
        let path = config.base.join(config.network);
        let authority = config.authority.parse().context("the key \"authority\" of the configuration")?;
        let data = Arc::new(DataFolder::open(&config.base.join(config.data))?);
        let lineage = Lineage::new(data.path().join("lineage.toml"));
        let documents = Documents::open(path, authority, lineage)?;
        let network = Arc::clone(documents.current());
        let occupancy = Occupancy::new(config.places.max(1));
        let drops = Arc::<DropCounters>::default();
        let parameters = network.parameters().clone();
        let opener = Arc::new(Opener::new(&parameters, occupancy.clone(), Arc::clone(&drops)));
        let identity = LinkSecret::from_seed(*secret.expose()).identity();
        let mut rotation = Rotation::new(identity, is_role, keyring, Arc::clone(&data), Arc::clone(&opener));
        let standing = first_step(&mut rotation, &network, documents.path())?;
        documents.record()?;
        let (sender, receiver) = watch::channel(Arc::new(standing));
        Ok(Self {
            parameters,
            clock: Clock::start(),
            occupancy,
            drops,
            secret: Arc::new(secret),
            data,
            links: LinkRegistry::default(),
            standing: receiver,
            opener,
            moving: Some(Moving { rotation, documents, sender }),
            rotating: None,
        })
    }

    /// Where it stands now.
    #[must_use]
    pub fn standing_now(&self) -> Arc<Standing> {
        Arc::clone(&self.standing.borrow())
    }

    /// Its link identity.
    #[must_use]
    pub fn link_secret(&self) -> LinkSecret {
        LinkSecret::from_seed(*self.secret.expose())
    }

    /// Opens account and chain, if packets are paid for.
    ///
    /// # Errors
    /// A key, a file or the chain is unusable; or configuration and document do not agree on whether there is payment.
    pub async fn open_payment(&self, config: &HopConfig<'_>, service: &Service) -> Result<Option<Paid>> {
        let network = self.moving.as_ref().map(|moving| moving.documents.current());
        let is_paid = self.standing_now().send.current.epoch().payment().is_some();
        let (Some(network), Some(payment)) = (network, config.payment) else {
            if is_paid {
                bail!("packets of this network are paid for: the configuration needs a section \"payment\"");
            }
            return Ok(None);
        };
        let payer = Payer {
            base: config.base,
            data: self.data.path(),
            me: self.link_secret().identity(),
            secret: self.secret.expose(),
            clock: self.clock,
        };
        let paid = Paid::open(payment, payer, network, Arc::clone(&self.drops), &service.shutdown).await?;
        self.opener.guard(paid.gate());
        Ok(Some(paid))
    }

    /// Starts who opens packets: what they open becomes inputs of the driver.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn start_openers<I: Send + 'static>(
        &self,
        config: &HopConfig<'_>,
        inputs: &Inputs<I>,
        input_of: impl Fn(Opened) -> I + Clone + Send + Sync + 'static,
        service: &Service,
    ) -> Result<Openers> {
        // On one thread nobody may wait for the driver: it is there, too.
        let threads = match (config.link_threads, config.workers) {
            (0, None | Some(0)) => 0,
            (0, Some(_)) => bail!("\"workers\" must be 0, or be left out, where \"link_threads\" is 0"),
            (_, workers) => workers.unwrap_or_else(processors),
        };
        Ok(Openers::start(Arc::clone(&self.opener), threads, inputs, input_of, service.shutdown.clone())?)
    }

    /// Starts the links to its neighbours, whose packets go to `openers`, and their control frames to `payment`.
    ///
    /// # Errors
    /// An address is malformed or in use.
    pub async fn start_links<I, F>(
        &self,
        config: &HopConfig<'_>,
        openers: &Openers,
        payment: Option<InputSink<I, F>>,
    ) -> Result<Links>
    where
        I: Send + 'static,
        F: Fn(LinkChange) -> I + Send + Sync + 'static,
    {
        let mut links = LinkConfig::new(self.link_secret(), Policy::Neighbours, NODE_PROTOCOL);
        links.listen = config.listen.to_vec();
        links.outbound_queue = NEIGHBOUR_QUEUE;
        let mut ingress = Ingress::new(self.clock, openers.way(), Arc::clone(&self.drops));
        if let Some(sink) = payment {
            ingress = ingress.with_payment(sink);
        }
        let neighbours = self.standing.borrow().neighbours.clone();
        let links = tombola_link::start(links, neighbours, Arc::new(ingress)).await?;
        self.links.add(links.clone());
        Ok(links)
    }

    /// From now on follows the wall clock and the document: keys, neighbours, and [`Hop::standing`]. To be called when the
    /// links to neighbours are there. `bank`: who asks the chain what the classes of later documents are.
    ///
    /// # Errors
    /// The operating system gave no handler for SIGHUP.
    pub fn start_rotation(&mut self, links: &Links, bank: Option<Bank>, service: &Service) -> Result<()> {
        let Some(Moving { rotation, documents, sender }) = self.moving.take() else { return Ok(()) };
        let networks = reload::watch(documents, service.shutdown.clone(), |_| {})?;
        if let Some(bank) = bank {
            tokio::spawn(follow_classes(bank, networks.clone()));
        }
        let (links, stop) = (links.clone(), service.shutdown.clone());
        self.rotating = Some(tokio::spawn(rotate(rotation, networks, sender, links, stop)));
        Ok(())
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

    /// Waits for the end, then takes everything down in order: the driver, what `end` does with its machine (on a
    /// thread that may wait), the links, the openers, the keys' logs.
    ///
    /// When it is told to drain it takes no new packets and waits, for as long as a packet may be held, until none is left.
    ///
    /// # Errors
    /// A part has failed.
    pub async fn serve<M: Machine>(
        self,
        service: &Service,
        driver: DriverHandle<M>,
        openers: Openers,
        end: impl FnOnce(M) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let longest = self.parameters.max_delay + DRAIN_MARGIN;
        let occupancy = self.occupancy.clone();
        service.until_end(longest, || self.opener.drain(), move || occupancy.taken() == 0).await;
        let machine = driver.ended().await?;
        let ended = tokio::task::spawn_blocking(move || end(machine)).await?;
        self.links.end_all().await;
        tokio::task::spawn_blocking(move || openers.join()).await??;
        if let Some(rotating) = self.rotating {
            rotating.await?;
        }
        ended?;
        service.result()
    }
}

/// Has the chain asked for the classes of each document that comes, until none comes any more.
async fn follow_classes(bank: Bank, mut networks: watch::Receiver<Arc<Network>>) {
    loop {
        bank.network(&networks.borrow_and_update());
        if networks.changed().await.is_err() {
            return;
        }
    }
}

/// The first step of a node decides whether it can take part at all.
fn first_step(rotation: &mut Rotation, network: &Network, document: &Path) -> Result<Standing> {
    let now = unix_time_now();
    let named = || document.display().to_string();
    let standing = rotation.step(network, now).with_context(named)?;
    let begun = network.epoch_at(UnixTime(now.as_secs())).with_context(named)?;
    for epoch in [standing.send.current.epoch(), begun] {
        if let Some(trouble) = rotation.trouble(epoch) {
            bail!("{trouble}");
        }
    }
    Ok(standing)
}

/// Steps whenever an epoch, a document or the clock changes something. Ends when `stop` is triggered, or triggers it when the
/// node cannot go on; then the keys' logs are durable.
async fn rotate(
    mut rotation: Rotation,
    mut networks: watch::Receiver<Arc<Network>>,
    sender: watch::Sender<Arc<Standing>>,
    links: Links,
    stop: Shutdown,
) {
    // Between these two instants nothing changes by itself.
    let (mut from, mut until) = (Duration::MAX, Duration::ZERO);
    while !stop.is_triggered() {
        let now = unix_time_now();
        let changed = networks.has_changed().unwrap_or(false);
        if changed || now < from || now >= until || !rotation.is_settled() {
            let network = Arc::clone(&networks.borrow_and_update());
            (from, until) = (now, network.next_change(now).unwrap_or(Duration::MAX));
            // It reads and writes files.
            let stepped = tokio::task::spawn_blocking(move || {
                let result = rotation.step(&network, now);
                (rotation, result)
            });
            let result = match stepped.await {
                Ok((back, result)) => {
                    rotation = back;
                    result
                }
                Err(error) => {
                    stop.trigger(Cause::Failure(format!("the change of epochs: {error}")));
                    return;
                }
            };
            match result {
                Ok(standing) => apply(standing, &sender, &links),
                Err(error) => end_or_wait(error, &stop),
            }
        }
        let wait = until.saturating_sub(unix_time_now()).min(CLOCK_LOOK);
        tokio::select! {
            _ = stop.triggered() => {}
            // Without a sender the document stays as it is.
            Ok(()) = networks.changed() => networks.mark_changed(),
            () = tokio::time::sleep(wait) => {}
        }
    }
    // Syncs the logs.
    let _ = tokio::task::spawn_blocking(move || rotation.end()).await;
}

fn apply(standing: Standing, sender: &watch::Sender<Arc<Standing>>, links: &Links) {
    if sender.borrow().neighbours != standing.neighbours
        && let Err(error) = links.set_peers(&standing.neighbours)
    {
        tracing::error!(%error, "the neighbours of the new epoch cannot be used; those of the old one stay");
    }
    sender.send_replace(Arc::new(standing));
}

fn end_or_wait(error: RotationError, stop: &Shutdown) {
    match error {
        RotationError::Epoch(EpochError::Expired { .. }) => {
            let what = "the network document has expired; get the current one and start again";
            stop.trigger(Cause::Failure(what.to_owned()));
        }
        RotationError::NotListed { .. } | RotationError::Role { .. } => {
            tracing::warn!(
                "this node has no place in the epochs that go on: it served its last one to the end"
            );
            stop.trigger(Cause::Requested("the network document lists this node no more"));
        }
        error => tracing::error!(%error, "the change of epochs failed; what holds stays"),
    }
}

impl std::fmt::Debug for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hop").field("data", &self.data).finish_non_exhaustive()
    }
}
