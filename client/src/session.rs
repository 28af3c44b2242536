//! The client as applications use it: connect, address, send, receive, reply.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::TrySendError;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tombola_link::{CLIENT_PROTOCOL, LinkConfig, Links, Peer, Policy, StartError};
use tombola_mixing::Time;
use tombola_node::clock::{Clock, unix_time_now};
use tombola_node::derive;
use tombola_node::driver::{self, DriverHandle, Inputs};
use tombola_node::egress::Outlet;
use tombola_node::ingress::{InputSink, LinkChange};
use tombola_node::payment::PaymentConfig;
use tombola_node::payment_client::{ClientChain, ClientPayer, ClientWatch};
use tombola_node::purse::{FILE, Purse};
use tombola_node::reload::Documents;
use tombola_node::shutdown::{Cause, Shutdown};
use tombola_protocol::client::{
    Client as StateMachine, ClientCounts, ClientEvent, Emitted, NewClientError, SendOptions,
};
use tombola_protocol::fragment::{MESSAGE_MAX, MessageId};
use tombola_protocol::outbox::SendError;
use tombola_protocol::payment::Payments;
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_protocol::view::{AddressError, SendViews};
use tombola_storage::{StoreError, Writer};
use tombola_tickets::Address;
use tombola_topology::ClientAddress;

use crate::content::{Content, ContentError};
use crate::epochs::{Follower, Views};
use crate::event::{EmittedAt, Event, Received};
use crate::home::{Home, HomeError};
use crate::machine::{ClientMachine, Counts, DISPLACED, Input, Notice, To};
use crate::signed::{self, Audience, Signer};

/// Inputs that may wait for the driver.
const INPUTS: usize = 1024;
/// Events that may wait for the application before it slows its own mail down.
const EVENTS: usize = 1024;
/// Frames that may wait for the gateway.
const GATEWAY_QUEUE: usize = 256;
/// How often the writer is asked to take what is left, at the end.
const CLOSE_TRIES: u32 = 100;
/// How often a full queue is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// How long changes are collected before they are written together.
const LINGER: Duration = Duration::from_millis(50);

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
    /// The message to be answered cannot be.
    #[error(transparent)]
    Refused(SendError),
    /// The client's gateway is gone, or what it had kept makes no sense.
    #[error(transparent)]
    New(#[from] NewClientError),
    /// What has to be kept could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot pay.
    #[error("payment: {}", tombola_node::entry::whole(.0))]
    Payment(anyhow::Error),
    /// The client has ended.
    #[error("the client has ended: {0}")]
    Ended(Cause),
    /// Another process has connected to the gateway with the same keys.
    #[error("{DISPLACED}")]
    Displaced,
}

/// How a client connects.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// Whether mail is wanted. Without it the gateway keeps all mail for another time: for a program that only sends.
    pub collect: bool,
    /// How long to wait for the gateway; the client keeps trying afterwards.
    pub patience: Duration,
    /// Received messages count as taken when the application says so with [`Client::accept`], and not already when it asks
    /// for the next event.
    pub manual_accept: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { collect: true, patience: Duration::from_secs(20), manual_accept: false }
    }
}

/// How a message is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageOptions {
    /// How many packets its recipient may answer with; none by default. The recipient does not learn whom it answers.
    pub replies: u16,
    /// Whether the message says who sent it, signed. By default the sender is anonymous.
    pub signed: bool,
    /// How long it is tried; two weeks by default.
    pub lifetime: Option<Duration>,
}

impl MessageOptions {
    fn send_options(&self) -> SendOptions {
        let default = SendOptions::default();
        SendOptions { replies: self.replies, lifetime: self.lifetime.unwrap_or(default.lifetime) }
    }
}

/// What the application has been shown and not said to have taken.
#[derive(Debug)]
enum Shown {
    Message(MessageId),
    Ended(MessageId),
}

/// A client that runs, connected or not. Dropping it ends it at once; [`close`](Self::close) in order.
#[derive(Debug)]
pub struct Client {
    clock: Clock,
    address: ClientAddress,
    views: watch::Receiver<SendViews>,
    signer: Signer,
    inputs: Inputs<Input>,
    notices: mpsc::Receiver<Notice>,
    manual_accept: bool,
    shown: Option<Shown>,
    links: Links,
    driver: Option<DriverHandle<ClientMachine>>,
    writer: Writer,
    shutdown: Shutdown,
}

impl Client {
    /// Connects the client of a folder to its gateway, and asks for its mail.
    ///
    /// # Errors
    /// Its folder is unusable, or the gateway does not answer.
    pub async fn connect(home: &Home) -> Result<Self, ClientError> {
        Self::connect_with(home, ConnectOptions::default()).await
    }

    /// Connects as `options` say.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(home: &Home, options: ConnectOptions) -> Result<Self, ClientError> {
        let mut client = Self::start(home, options).await?;
        if client.wait_connected(options.patience).await {
            return Ok(client);
        }
        if client.shutdown.is_triggered() {
            return Err(client.ended());
        }
        client.close().await?;
        Err(ClientError::Unreachable(options.patience))
    }

    /// Starts the client of a folder without waiting for its gateway: messages can be queued at once.
    ///
    /// # Errors
    /// Its folder is unusable.
    pub async fn start(home: &Home, options: ConnectOptions) -> Result<Self, ClientError> {
        let (link, keys) = home.keys()?;
        let (store, stored) = home.store()?;
        let documents = home.documents()?;
        let mut checked = Views::default();
        let views = checked.at(documents.current(), unix_time_now()).map_err(HomeError::from)?;
        let clock = Clock::start();
        let wall = WallClock { at_zero: UnixNanos(clock.unix_nanos(Time::ZERO)) };
        let seed = derive::random_seed()?;
        let mut machine = StateMachine::new(clock.now(), wall, views.clone(), keys, stored, seed)?;
        documents.record().map_err(HomeError::from)?;
        let address = machine.address();
        let (inputs, received) = driver::inputs(INPUTS);
        let (send_notice, notices) = mpsc::channel(EVENTS);
        let shutdown = Shutdown::new();
        let (mut purse, mut watching) = (None, None);
        if let Some(config) = home.payment()? {
            let paid = paying(home, &config, &machine, &documents, &views, clock, &inputs, &shutdown).await;
            let (payments, kept, mut watch) = paid.map_err(ClientError::Payment)?;
            watch.network(documents.current());
            watch.begin();
            machine = machine.with_payments(clock.now(), payments);
            (purse, watching) = (Some(kept), Some(watch));
        } else if views.current.epoch().payment().is_some() {
            let what = "packets of this network are paid for: the client's folder needs a file payment.toml";
            return Err(ClientError::Payment(anyhow::anyhow!(what)));
        }
        let durable = inputs.clone();
        // The driver never waits for the writer, so that the writer may wait for it.
        let writer = store.start_writer(LINGER, move |count| drop(durable.send(Input::Durable(count))))?;
        let machine =
            ClientMachine::new(machine, writer.clone(), send_notice, options.collect, shutdown.clone())
                .with_purse(purse);

        let mut config = LinkConfig::new(link, Policy::DialOnly, CLIENT_PROTOCOL);
        config.outbound_queue = GATEWAY_QUEUE;
        let view = &views.current;
        let node = view.epoch().index_of(&home.gateway()).and_then(|index| view.epoch().node(index));
        let addresses = node.map(|node| node.client_addresses.clone()).unwrap_or_default();
        let gateway = Peer::dialled(home.gateway(), addresses.clone());
        let outlet = Arc::new(Mutex::new(Outlet::default()));
        let (connecting, sending) = (Arc::clone(&outlet), outlet);
        let sink = InputSink::new(inputs.clone(), move |change| match change {
            LinkChange::Connected(_) => {
                lock(&connecting).clear();
                Input::Link(true)
            }
            LinkChange::Disconnected(_) => Input::Link(false),
            LinkChange::Frame(_, frame) => Input::Frame(frame),
        })
        .without_padding();
        let links = tombola_link::start(config, vec![gateway], Arc::new(sink)).await?;
        let (up, to) = (links.clone(), home.gateway());
        // A link that takes nothing for so long is stalled; packets that it loses are sent again.
        let deliver = move |frame| drop(lock(&sending).send(&up, &to, frame));
        let driver = driver::spawn("client", clock, machine, received, deliver, shutdown.clone())?;
        // A client that has failed must not connect again by itself, least of all where it would displace another.
        let (failed, ended) = (shutdown.clone(), links.clone());
        tokio::spawn(async move {
            if failed.triggered().await.is_failure() {
                ended.shutdown().await;
            }
        });
        let (sender, views) = watch::channel(views);
        let follower = Follower {
            documents,
            views: checked,
            sender,
            gateway: home.gateway(),
            addresses,
            links: links.clone(),
            inputs: inputs.clone(),
            watching,
            stop: shutdown.clone(),
        };
        tokio::spawn(follower.run());
        Ok(Self {
            clock,
            address,
            views,
            signer: home.signer()?,
            inputs,
            notices,
            manual_accept: options.manual_accept,
            shown: None,
            links,
            driver: Some(driver),
            writer,
            shutdown,
        })
    }

    /// Waits until the link to the gateway is up; says whether it came up in time. No event is lost by it.
    pub async fn wait_connected(&mut self, patience: Duration) -> bool {
        let up = async {
            while self.links.stats().links == 0 && !self.shutdown.is_triggered() {
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::time::timeout(patience, up).await.is_ok() && !self.shutdown.is_triggered()
    }

    /// Where others send to.
    #[must_use]
    pub fn address(&self) -> ClientAddress {
        self.address
    }

    /// Whether the link to the gateway is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.links.stats().links > 0
    }

    /// Puts a message into the outbox, anonymous and without leave to answer, and returns its id when it is there durably.
    /// Waits while the outbox is full, or the disk fails. What becomes of it comes as [`Event::Sent`] and [`Event::Ended`].
    /// Whoever drops the future before it is done does not call the message back: it may be in the outbox by then.
    ///
    /// # Errors
    /// The address is not of this network, or the message is too long.
    pub async fn send(&self, to: &ClientAddress, content: &Content) -> Result<MessageId, ClientError> {
        self.send_with(to, content, MessageOptions::default()).await
    }

    /// As [`send`](Self::send), as `options` say.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_with(
        &self,
        to: &ClientAddress,
        content: &Content,
        options: MessageOptions,
    ) -> Result<MessageId, ClientError> {
        let recipient = Box::new(self.views.borrow().current.recipient(to)?);
        let body = self.encode(content, options, &Audience::Address(*to))?;
        self.queue(body, options, || To::Address(recipient.clone())).await
    }

    /// Answers a received message, if it is [`answerable`](Received::answerable); otherwise as [`send`](Self::send).
    ///
    /// # Errors
    /// The message cannot be answered, or the answer is too long.
    pub async fn reply(
        &self,
        to: MessageId,
        content: &Content,
        options: MessageOptions,
    ) -> Result<MessageId, ClientError> {
        let body = self.encode(content, options, &Audience::SenderOf(to))?;
        self.queue(body, options, || To::SenderOf(to)).await
    }

    /// Calls a message back: nothing more of it is sent, and [`Event::Ended`] comes. Returns whether it was in the outbox.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn cancel(&self, message: MessageId) -> Result<bool, ClientError> {
        self.ask(|reply| Input::Cancel(message, reply)).await
    }

    /// Sends a ping, which is answered by the recipient's client without its application; [`Event::Pong`] says that it was.
    ///
    /// # Errors
    /// The address is not of this network.
    pub async fn ping(&self, to: &ClientAddress) -> Result<MessageId, ClientError> {
        let id = MessageId(derive::random_bytes()?);
        let to = Box::new(self.views.borrow().current.recipient(to)?);
        loop {
            let to = to.clone();
            if self.ask(|reply| Input::Ping { id, to, reply }).await? {
                return Ok(id);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The application has taken a message: it does not come again. Only needed with
    /// [`manual_accept`](ConnectOptions::manual_accept).
    ///
    /// # Errors
    /// The client has ended.
    pub async fn accept(&self, message: MessageId) -> Result<(), ClientError> {
        self.input(Input::Accept(message)).await
    }

    /// The next event; `None` when the client has ended. What the last one told counts as taken, so that a process which
    /// ends while it handles an event gets that one again.
    pub async fn event(&mut self) -> Option<Event> {
        self.take_shown().await;
        loop {
            let notice = tokio::select! {
                biased;
                notice = self.notices.recv() => notice?,
                // The machine lives on until it is joined, and the channel with it.
                _ = self.shutdown.triggered() => self.notices.try_recv().ok()?,
            };
            match notice {
                Notice::Link(true) => return Some(Event::Connected),
                Notice::Link(false) => return Some(Event::Disconnected),
                Notice::Storage(trouble) => return Some(Event::Storage(trouble)),
                Notice::DocumentRefused(reason) => return Some(Event::DocumentRefused(reason)),
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

    /// Waits until everything that was queued has left on the emission clock and on the link, once.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn flush(&self) -> Result<(), ClientError> {
        while self.snapshot().await?.waiting > 0 || self.links.stats().queued > 0 {
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }

    /// The messages that are not acknowledged.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn outbox(&self) -> Result<Vec<MessageId>, ClientError> {
        self.ask(Input::Outbox).await
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

    /// Ends the client in order: the last event counts as taken, the link is closed, everything is written. What the gateway
    /// still has, and events that were not asked for, come with the next start.
    ///
    /// # Errors
    /// Something could not be written: what was not acknowledged to anybody may be missing at the next start.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.take_shown().await;
        // Inputs are handled in order: once this is answered, the one before was handled.
        let _ = self.snapshot().await;
        self.shutdown.trigger(Cause::Requested("the client was closed"));
        let mut unwritten = false;
        if let Some(driver) = self.driver.take()
            && let Ok(Ok(mut machine)) = tokio::task::spawn_blocking(move || driver.join()).await
        {
            machine.store();
            for _ in 0..CLOSE_TRIES {
                if machine.is_stored() {
                    break;
                }
                tokio::time::sleep(RETRY).await;
                machine.store();
            }
            unwritten = !machine.is_stored();
            machine.close_purse().map_err(ClientError::Payment)?;
        }
        self.links.shutdown().await;
        let writer = self.writer.clone();
        match tokio::task::spawn_blocking(move || writer.close()).await {
            Ok(Ok(())) if unwritten => {
                Err(ClientError::Start(std::io::Error::other("the disk did not take what is to be kept")))
            }
            Ok(closed) => Ok(closed?),
            Err(error) => Err(ClientError::Start(std::io::Error::other(error))),
        }
    }

    pub(crate) async fn snapshot(&self) -> Result<Counts, ClientError> {
        self.ask(Input::Counts).await
    }

    pub(crate) fn received_lengths(&self) -> std::collections::BTreeMap<usize, u64> {
        self.links.stats().received_lengths
    }

    fn encode(
        &self,
        content: &Content,
        options: MessageOptions,
        audience: &Audience,
    ) -> Result<Vec<u8>, ClientError> {
        let body = content.encode()?;
        let body = if options.signed { self.signer.sign(audience, &body) } else { body };
        if body.len() > MESSAGE_MAX {
            return Err(ClientError::TooLong { len: body.len() });
        }
        Ok(body)
    }

    async fn queue(
        &self,
        body: Vec<u8>,
        options: MessageOptions,
        to: impl Fn() -> To,
    ) -> Result<MessageId, ClientError> {
        let id = MessageId(derive::random_bytes()?);
        let options = options.send_options();
        loop {
            let body = body.clone();
            match self.ask(|reply| Input::Send { id, to: to(), body, options, reply }).await? {
                Ok(()) => return Ok(id),
                Err(SendError::TooLong { len }) => return Err(ClientError::TooLong { len }),
                Err(SendError::Full) => tokio::time::sleep(RETRY).await,
                Err(refused) => return Err(ClientError::Refused(refused)),
            }
        }
    }

    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.input(input(reply)).await?;
        answer.await.map_err(|_| self.ended())
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

    /// The application is done with what it was shown last.
    async fn take_shown(&mut self) {
        let input = match &self.shown {
            Some(Shown::Message(id)) => Input::Accept(*id),
            Some(Shown::Ended(id)) => Input::Noted(*id),
            None => return,
        };
        // A client that has ended shows it again at its next start.
        let _ = self.input(input).await;
        // Not before: whoever waits for an event may give up waiting in between.
        self.shown = None;
    }

    /// `None` for what does not concern an application.
    fn event_of(&mut self, event: ClientEvent) -> Option<Event> {
        Some(match event {
            ClientEvent::Queued(_) | ClientEvent::Probe(_) | ClientEvent::Displaced => return None,
            ClientEvent::Emitted(emitted) => Event::Emitted(self.emitted_at(&emitted)),
            ClientEvent::Sent(id) => Event::Sent(id),
            ClientEvent::Ended(id, state) => {
                self.shown = Some(Shown::Ended(id));
                Event::Ended(id, state)
            }
            ClientEvent::Progress { message, have, count } => Event::Progress { message, have, count },
            ClientEvent::Pong { message, took } => Event::Pong(message, took),
            ClientEvent::Backpressure(on) => Event::Backpressure(on),
            ClientEvent::Received(received) => {
                let id = received.message;
                let event = self.received(received);
                if !self.manual_accept || matches!(event, Event::Unreadable(..)) {
                    self.shown = Some(Shown::Message(id));
                }
                event
            }
        })
    }

    fn received(&self, received: tombola_protocol::client::Received) -> Event {
        let audience = match received.reply_to {
            Some(own) => Audience::SenderOf(own),
            None => Audience::Address(self.address),
        };
        let read = signed::open(&audience, received.body)
            .and_then(|(sender, body)| Ok((sender, Content::decode(body)?)));
        match read {
            Ok((sender, content)) => Event::Received(Received {
                message: received.message,
                content,
                packets: received.packets,
                received_ns: received.received_ns,
                held: received.held,
                sender,
                reply_to: received.reply_to,
                answerable: received.answerable,
                again: received.again,
            }),
            Err(error) => Event::Unreadable(received.message, error),
        }
    }

    fn emitted_at(&self, emitted: &Emitted) -> EmittedAt {
        EmittedAt {
            message: emitted.message,
            index: emitted.index,
            count: emitted.count,
            attempt: emitted.attempt,
            queued_ns: self.clock.unix_nanos(emitted.queued),
            emitted_ns: self.clock.unix_nanos(emitted.emitted),
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
}

fn lock(outlet: &Mutex<Outlet>) -> MutexGuard<'_, Outlet> {
    outlet.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a client's account, and follows its reserve for the gateway.
#[expect(clippy::too_many_arguments, reason = "what a session is made of; used once")]
async fn paying(
    home: &Home,
    config: &PaymentConfig,
    machine: &StateMachine,
    documents: &Documents,
    views: &SendViews,
    clock: Clock,
    inputs: &Inputs<Input>,
    stop: &Shutdown,
) -> anyhow::Result<(Payments, Purse, ClientWatch)> {
    let chain = ClientChain::open(config, documents.current(), stop).await?;
    let (signer, view) = (config.signer(home.folder())?, &views.current);
    let node = view.gateway(&home.gateway()).and_then(|index| view.epoch().node(index));
    let account = node.and_then(|node| node.account).context("the gateway has no account")?;
    let file = home.folder().join(FILE);
    let payer = ClientPayer {
        signer,
        gateway: Address::from(account.0),
        file: &file,
        me: machine.identity(),
        clock,
        parameters: view.parameters(),
    };
    let inputs = inputs.clone();
    let tell = move |fact| {
        let inputs = inputs.clone();
        async move { inputs.pass(Input::Fact(fact)).await }
    };
    chain.start(payer, Arc::clone(machine.drops()), tell, stop).await
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shutdown.trigger(Cause::Requested("the client was dropped"));
    }
}
