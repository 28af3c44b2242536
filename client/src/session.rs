//! The client as applications use it: connect, address, send, receive.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::TrySendError;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tombola_link::{CLIENT_PROTOCOL, LinkConfig, Links, Peer, Policy, StartError};
use tombola_mixing::Time;
use tombola_node::clock::Clock;
use tombola_node::derive;
use tombola_node::driver::{self, DriverHandle, Inputs};
use tombola_node::ingress::{InputSink, LinkChange};
use tombola_node::shutdown::{Cause, Shutdown};
use tombola_protocol::client::{Client as StateMachine, ClientCounts, ClientEvent, Emitted};
use tombola_protocol::fragment::{MESSAGE_MAX, MessageId};
use tombola_protocol::sendqueue::SendError;
use tombola_protocol::view::{AddressError, EpochView};
use tombola_topology::ClientAddress;

use crate::content::{Content, ContentError};
use crate::home::{Home, HomeError};
use crate::machine::{ClientMachine, Counts, DISPLACED, Input, Notice};

/// Inputs that may wait for the driver.
const INPUTS: usize = 1024;
/// Events that may wait for the application before it slows its own mail down.
const EVENTS: usize = 1024;
/// Frames that may wait for the gateway.
const GATEWAY_QUEUE: usize = 256;
/// How often a full queue is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// What a link and the frames on it may take to come to rest, once the gateway knows that it shall.
const SETTLE: Duration = Duration::from_millis(300);
/// Ticks of the emission clock within which a wish leaves: all but one in some 3 000 times.
const WISH_TICKS: u32 = 8;

/// Why a client cannot do what it was asked to.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Its folder is unusable.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The link could not be set up.
    #[error(transparent)]
    Link(#[from] StartError),
    /// The operating system gave no thread or no randomness.
    #[error("the client could not be started: {0}")]
    Start(#[from] std::io::Error),
    /// The gateway did not answer.
    #[error("the gateway did not answer within {} s; check that the network runs and that this machine reaches it", .0.as_secs())]
    Unreachable(Duration),
    /// The address is not one of this network.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The content cannot be sent.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Longer than a message may be.
    #[error("{len} bytes are more than a message may have ({MESSAGE_MAX})")]
    TooLong {
        /// Its length, encoded.
        len: usize,
    },
    /// The client has ended.
    #[error("the client has ended: {0}")]
    Ended(Cause),
    /// Another process has connected to the gateway with the same keys.
    #[error("{DISPLACED}")]
    Displaced,
    /// The client's gateway is not part of the network.
    #[error("the client's gateway is not part of the network any more; make a new client with `init`")]
    NoGateway,
}

/// How a client connects.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// Whether mail is wanted. Without it the gateway keeps all mail for another time: for a program that only sends.
    pub collect: bool,
    /// How long to wait for the gateway; the client keeps trying afterwards.
    pub patience: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { collect: true, patience: Duration::from_secs(20) }
    }
}

/// What happens, as it happens. Times are nanoseconds since 1970 on this machine's clock.
#[derive(Debug)]
pub enum Event {
    /// The link to the gateway is up.
    Connected,
    /// The link to the gateway is down. The client connects again by itself; messages wait.
    Disconnected,
    /// A packet of a message has left on the emission clock. Left out when the application does not keep up.
    Emitted(EmittedAt),
    /// Some more of a long message arrived. Left out when the application does not keep up.
    Progress {
        /// Its message.
        message: MessageId,
        /// Packets here.
        have: u32,
        /// Packets of the message.
        count: u32,
    },
    /// A message arrived.
    Received(Received),
    /// A message arrived whole, but is no content of this version.
    Unreadable(MessageId, ContentError),
}

/// A packet that has left.
#[derive(Clone, Copy, Debug)]
pub struct EmittedAt {
    /// Its message.
    pub message: MessageId,
    /// Its place in it.
    pub index: u32,
    /// Packets of the message.
    pub count: u32,
    /// When the message was queued.
    pub queued_ns: u64,
    /// The tick on which the packet left.
    pub emitted_ns: u64,
    /// Sum of the delays that were drawn for it.
    pub delays: Duration,
}

/// A message that arrived.
#[derive(Debug)]
pub struct Received {
    /// Its id: the sender's [`Client::send`] returned the same.
    pub message: MessageId,
    /// What it says.
    pub content: Content,
    /// Packets that it came in.
    pub packets: u32,
    /// When it was complete.
    pub received_ns: u64,
    /// How long the gateway had held its last packet.
    pub held: Duration,
}

/// A connected client. Dropping it closes the link; [`close`](Self::close) does so without losing mail on its way down.
#[derive(Debug)]
pub struct Client {
    clock: Clock,
    address: ClientAddress,
    view: Arc<EpochView>,
    inputs: Inputs<Input>,
    notices: mpsc::Receiver<Notice>,
    connected: bool,
    links: Links,
    driver: Option<DriverHandle<ClientMachine>>,
    shutdown: Shutdown,
}

impl Client {
    /// Connects the client of a folder to its gateway, and asks for its mail.
    ///
    /// # Errors
    /// Its keys are unusable, or the gateway does not answer.
    pub async fn connect(home: &Home) -> Result<Self, ClientError> {
        Self::connect_with(home, ConnectOptions::default()).await
    }

    /// Connects as `options` say.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(home: &Home, options: ConnectOptions) -> Result<Self, ClientError> {
        let (link, keys) = home.keys()?;
        let view = Arc::clone(home.view());
        let clock = Clock::start();
        let machine = StateMachine::new(clock.now(), Arc::clone(&view), keys, derive::random_seed()?)
            .ok_or(ClientError::NoGateway)?;
        let address = machine.address();
        let (inputs, received) = driver::inputs(INPUTS);
        let (send_notice, notices) = mpsc::channel(EVENTS);
        let shutdown = Shutdown::new();
        let machine = ClientMachine::new(machine, send_notice, options.collect, shutdown.clone());

        let mut config = LinkConfig::new(link, Policy::DialOnly, CLIENT_PROTOCOL);
        config.outbound_queue = GATEWAY_QUEUE;
        let node = view.epoch().index_of(&home.gateway()).and_then(|index| view.epoch().node(index));
        let addresses = node.map(|node| node.client_addresses.clone()).unwrap_or_default();
        let gateway = Peer::dialled(home.gateway(), addresses);
        let sink = InputSink::new(inputs.clone(), |change| match change {
            LinkChange::Connected(_) => Input::Link(true),
            LinkChange::Disconnected(_) => Input::Link(false),
            LinkChange::Frame(_, frame) => Input::Frame(frame),
        })
        .without_padding();
        let links = tombola_link::start(config, vec![gateway], Arc::new(sink)).await?;
        let (up, to) = (links.clone(), home.gateway());
        // A link that takes nothing for so long is stalled; what it loses is lost like on any link.
        let deliver = move |frame| drop(up.send(&to, frame));
        let driver = driver::spawn("client", clock, machine, received, deliver, shutdown.clone())?;
        // A client that has failed must not connect again by itself, least of all where it would displace another.
        let (failed, ended) = (shutdown.clone(), links.clone());
        tokio::spawn(async move {
            if failed.triggered().await.is_failure() {
                ended.shutdown().await;
            }
        });
        let mut client = Self {
            clock,
            address,
            view,
            inputs,
            notices,
            connected: false,
            links,
            driver: Some(driver),
            shutdown,
        };
        match tokio::time::timeout(options.patience, client.wait_connected()).await {
            Ok(result) => result.map(|()| client),
            Err(_) => {
                client.links.shutdown().await;
                Err(ClientError::Unreachable(options.patience))
            }
        }
    }

    async fn wait_connected(&mut self) -> Result<(), ClientError> {
        match self.event().await {
            Some(Event::Connected) => Ok(()),
            // Nothing else can come first: mail comes over the link.
            _ => Err(self.ended()),
        }
    }

    /// Where others send to.
    #[must_use]
    pub fn address(&self) -> ClientAddress {
        self.address
    }

    /// Whether the link to the gateway is up, as far as events were taken.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Queues a message and returns its id. Waits while the queue is full. Its packets leave on the emission clock;
    /// that they arrive is not acknowledged in this release.
    ///
    /// # Errors
    /// The address is not of this network, or the message is too long.
    pub async fn send(&self, to: &ClientAddress, content: &Content) -> Result<MessageId, ClientError> {
        let id = MessageId(derive::random_bytes()?);
        let body = content.encode()?;
        if body.len() > MESSAGE_MAX {
            return Err(ClientError::TooLong { len: body.len() });
        }
        let recipient = Box::new(self.view.recipient(to)?);
        loop {
            let (reply, answer) = oneshot::channel();
            self.input(Input::Send { id, to: recipient.clone(), body: body.clone(), reply }).await?;
            match answer.await.map_err(|_| self.ended())? {
                Ok(()) => return Ok(id),
                Err(SendError::TooLong { len }) => return Err(ClientError::TooLong { len }),
                Err(SendError::QueueFull) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// The next event; `None` when the client has ended.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            let notice = tokio::select! {
                biased;
                notice = self.notices.recv() => notice?,
                // The machine lives on until it is joined, and the channel with it.
                _ = self.shutdown.triggered() => self.notices.try_recv().ok()?,
            };
            match notice {
                Notice::Link(connected) => {
                    self.connected = connected;
                    return Some(if connected { Event::Connected } else { Event::Disconnected });
                }
                Notice::Client(event) => {
                    if let Some(event) = self.event_of(event) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// The next message; other events are passed over. `None` when the client has ended.
    pub async fn receive(&mut self) -> Option<Received> {
        loop {
            if let Event::Received(received) = self.event().await? {
                return Some(received);
            }
        }
    }

    /// Waits until everything that was queued has left on the emission clock and on the link.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn flush(&self) -> Result<(), ClientError> {
        while self.snapshot().await?.waiting > 0 || self.links.stats().queued > 0 {
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }

    /// What was sent and received so far, in packets, cover included.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn counts(&self) -> Result<ClientCounts, ClientError> {
        let sent = self.snapshot().await?.sent;
        // Padding ends at the link: it is what came and was no mail.
        let padding = self.links.stats().frames_in.saturating_sub(sent.mail);
        Ok(ClientCounts { padding, ..sent })
    }

    /// Asks the gateway to keep new mail, takes what is on its way down, closes the link. What had come until then is
    /// returned, so that no message is lost that the gateway no longer has.
    pub async fn close(mut self) -> Vec<Event> {
        let mut last = Vec::new();
        if self.input(Input::Collect(false)).await.is_ok() {
            let leaves = WISH_TICKS * self.view.parameters().main_interval;
            let deadline = tokio::time::Instant::now() + leaves + SETTLE;
            while let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.event()).await {
                last.push(event);
            }
        }
        self.shutdown.trigger(Cause::Requested("the client was closed"));
        if let Some(driver) = self.driver.take() {
            let _ = tokio::task::spawn_blocking(move || driver.join()).await;
        }
        self.links.shutdown().await;
        last
    }

    pub(crate) async fn snapshot(&self) -> Result<Counts, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.input(Input::Counts(reply)).await?;
        answer.await.map_err(|_| self.ended())
    }

    pub(crate) fn received_lengths(&self) -> std::collections::BTreeMap<usize, u64> {
        self.links.stats().received_lengths
    }

    async fn input(&self, mut input: Input) -> Result<(), ClientError> {
        loop {
            match self.inputs.try_send(input) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(self.ended()),
                Err(TrySendError::Full(refused)) => input = refused,
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// `None` for what does not concern an application.
    fn event_of(&self, event: ClientEvent) -> Option<Event> {
        Some(match event {
            ClientEvent::Emitted(emitted) => Event::Emitted(self.emitted_at(&emitted)),
            ClientEvent::Progress { message, have, count } => Event::Progress { message, have, count },
            ClientEvent::Probe(_) | ClientEvent::Displaced => return None,
            ClientEvent::Received(received) => match Content::decode(received.body) {
                Ok(content) => Event::Received(Received {
                    message: received.message,
                    content,
                    packets: received.fragments,
                    received_ns: self.unix(received.received),
                    held: received.held,
                }),
                Err(error) => Event::Unreadable(received.message, error),
            },
        })
    }

    fn emitted_at(&self, emitted: &Emitted) -> EmittedAt {
        EmittedAt {
            message: emitted.message,
            index: emitted.index,
            count: emitted.count,
            queued_ns: self.unix(emitted.queued),
            emitted_ns: self.unix(emitted.emitted),
            delays: emitted.delays,
        }
    }

    /// Why the client has ended, for an error.
    #[must_use]
    pub fn ended(&self) -> ClientError {
        match self.shutdown.cause() {
            Some(Cause::Failure(what)) if what == DISPLACED => ClientError::Displaced,
            cause => ClientError::Ended(cause.unwrap_or(Cause::Requested("it was closed"))),
        }
    }

    fn unix(&self, time: Time) -> u64 {
        self.clock.unix_nanos(time)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shutdown.trigger(Cause::Requested("the client was dropped"));
    }
}
