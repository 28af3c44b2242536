//! The client's state machine under the driver: frames to the gateway, changes to the disk, events to the application.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::{mpsc, oneshot};
use tombola_mixing::Time;
use tombola_node::driver::Machine;
use tombola_node::purse::Purse;
use tombola_node::shutdown::{Cause, Shutdown};
use tombola_protocol::client::{Client, ClientCounts, ClientEvent, SendOptions};
use tombola_protocol::drops::DropReason;
use tombola_protocol::fragment::MessageId;
use tombola_protocol::frame::Frame;
use tombola_protocol::outbox::SendError;
use tombola_protocol::payment::Fact;
use tombola_protocol::store::StoreOp;
use tombola_protocol::view::{Recipient, SendViews};
use tombola_storage::{Backlog, Writer};

/// Notices that wait for an application that does not take them, before the gateway is asked to keep the rest.
const BACKLOG: usize = 64;

/// Said when another process connects as this client.
pub(crate) const DISPLACED: &str = "this identity is in use elsewhere: another process has connected to the gateway with this client's keys. A client's \
      folder may be used in one place at a time; make one of the two anew with `init`";

/// Notices beyond which what only tells how far things are is dropped for a gateway that does not keep what it was asked to.
const BACKLOG_MAX: usize = 1024;

/// Said when the client's gateway has left the network.
const NO_GATEWAY: &str =
    "the client's gateway is not part of the network any more; make a new client with `init`";

/// Where a message goes.
#[derive(Debug)]
pub(crate) enum To {
    Address(Box<Recipient>),
    SenderOf(MessageId),
}

/// What comes to the driver.
#[derive(Debug)]
pub(crate) enum Input {
    Link(bool),
    Frame(Frame),
    /// Answered when the message is durable, or refused.
    Send {
        id: MessageId,
        to: To,
        body: Vec<u8>,
        options: SendOptions,
        reply: oneshot::Sender<Result<(), SendError>>,
    },
    Cancel(MessageId, oneshot::Sender<bool>),
    Ping {
        id: MessageId,
        to: Box<Recipient>,
        reply: oneshot::Sender<bool>,
    },
    /// The application has taken a message.
    Accept(MessageId),
    /// The application has heard what became of a message.
    Noted(MessageId),
    Durable(u64),
    /// What the chain says.
    Fact(Fact),
    Views(Box<SendViews>),
    /// The network document was refused.
    DocumentRefused(String),
    Outbox(oneshot::Sender<Vec<MessageId>>),
    Counts(oneshot::Sender<Counts>),
}

/// What the session can ask the machine.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) sent: ClientCounts,
    pub(crate) waiting: usize,
    pub(crate) unacknowledged: usize,
    pub(crate) loops_returned: u64,
    pub(crate) loops_lost: u64,
    pub(crate) drops: Vec<(&'static str, u64)>,
}

/// What the driver hands to the session, times as they are in this process.
#[derive(Debug)]
pub(crate) enum Notice {
    Link(bool),
    Client(ClientEvent),
    Storage(Option<String>),
    DocumentRefused(String),
}

/// A [`Client`] whose changes go to a disk that may fail, and whose events go to an application that may be slow.
pub(crate) struct ClientMachine {
    client: Client,
    writer: Writer,
    /// What the writer would not take.
    unwritten: Vec<StoreOp>,
    /// Where payment keeps what must survive; `None` in a network without payment.
    purse: Option<Purse>,
    trouble: Option<String>,
    queued: BTreeMap<MessageId, oneshot::Sender<Result<(), SendError>>>,
    notices: mpsc::Sender<Notice>,
    backlog: VecDeque<Notice>,
    collects: bool,
    held: bool,
    stop: Shutdown,
}

impl ClientMachine {
    pub(crate) fn new(
        mut client: Client,
        writer: Writer,
        notices: mpsc::Sender<Notice>,
        collects: bool,
        stop: Shutdown,
    ) -> Self {
        client.handle_collect(collects);
        Self {
            client,
            writer,
            unwritten: Vec::new(),
            purse: None,
            trouble: None,
            queued: BTreeMap::new(),
            notices,
            backlog: VecDeque::new(),
            collects,
            held: false,
            stop,
        }
    }

    /// From now on what payment asks for goes there.
    pub(crate) fn with_purse(mut self, purse: Option<Purse>) -> Self {
        self.purse = purse;
        self
    }

    /// Writes what payment has left.
    pub(crate) fn close_purse(&mut self) -> anyhow::Result<()> {
        match (self.purse.take(), self.client.payments()) {
            (Some(purse), Some(payments)) => purse.close(payments),
            _ => Ok(()),
        }
    }

    /// Hands on what was asked to be stored, in order.
    pub(crate) fn store(&mut self) {
        if let (Some(purse), Some(payments)) = (&mut self.purse, self.client.payments()) {
            purse.serve(payments);
        }
        let mut ops = std::mem::take(&mut self.unwritten);
        ops.extend(std::iter::from_fn(|| self.client.poll_store()));
        if let Err(Backlog(ops)) = self.writer.submit(ops) {
            self.unwritten = ops;
        }
    }

    /// Whether the writer has taken everything.
    pub(crate) fn is_stored(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Passes on what happened. When the application or the disk does not keep up, progress is dropped, messages wait, and
    /// the gateway is asked to keep its mail until they have.
    fn notify(&mut self) {
        self.store();
        while let Some(event) = self.client.poll_event() {
            if matches!(event, ClientEvent::Displaced) {
                self.stop.trigger(Cause::Failure(DISPLACED.to_owned()));
                continue;
            }
            if let ClientEvent::Queued(id) = event {
                if let Some(reply) = self.queued.remove(&id) {
                    // The application may have given up waiting; the message is queued all the same.
                    let _ = reply.send(Ok(()));
                }
                continue;
            }
            self.push(Notice::Client(event));
        }
        while let Some(notice) = self.backlog.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(notice)) = self.notices.try_send(notice) {
                self.backlog.push_front(notice);
                break;
            }
        }
        // What became of own messages does not stop the mail: acknowledgements come with it.
        let is_message = |notice: &&Notice| matches!(notice, Notice::Client(ClientEvent::Received(_)));
        let crowded =
            self.backlog.len() >= BACKLOG && self.backlog.iter().filter(is_message).count() >= BACKLOG;
        let full = crowded || !self.unwritten.is_empty() || self.trouble.is_some();
        let free = self.backlog.len() < BACKLOG && self.unwritten.is_empty() && self.trouble.is_none();
        if full != self.held && (full || free) {
            self.held = full;
            self.client.handle_collect(self.collects && !self.held);
        }
    }

    fn push(&mut self, notice: Notice) {
        if self.backlog.is_empty() {
            match self.notices.try_send(notice) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(refused)) => return self.keep(refused),
            }
        }
        self.keep(notice);
    }

    fn keep(&mut self, notice: Notice) {
        // What only tells how far things are is not worth keeping; everything else is, and is bounded: messages by what the
        // gateway sends after it was asked to keep them, the rest by what the application itself has asked for.
        match notice {
            Notice::Client(
                ClientEvent::Emitted(_) | ClientEvent::Progress { .. } | ClientEvent::Probe(_),
            ) => {}
            Notice::Client(ClientEvent::Received(_)) if self.backlog.len() >= BACKLOG_MAX => {
                // It is in the store, and comes again with the next start.
                self.client.drops().count(DropReason::Overload);
            }
            notice => self.backlog.push_back(notice),
        }
    }

    fn counts(&self) -> Counts {
        let loops = self.client.loop_stats();
        let drops = self.client.drops().iter().filter(|(_, n)| *n > 0).map(|(r, n)| (r.label(), n)).collect();
        Counts {
            sent: self.client.counts(),
            waiting: self.client.waiting(),
            unacknowledged: self.client.outbox().count(),
            loops_returned: loops.returned,
            loops_lost: loops.lost,
            drops,
        }
    }

    fn handle_send(
        &mut self,
        now: Time,
        id: MessageId,
        to: To,
        body: Vec<u8>,
        options: SendOptions,
        reply: oneshot::Sender<Result<(), SendError>>,
    ) {
        let taken = match to {
            To::Address(to) => self.client.handle_send(now, id, *to, body, options),
            To::SenderOf(message) => self.client.handle_reply(now, id, message, body, options),
        };
        match taken {
            Ok(()) => drop(self.queued.insert(id, reply)),
            Err(error) => drop(reply.send(Err(error))),
        }
    }
}

impl Machine for ClientMachine {
    type Input = Input;
    type Output = Frame;

    fn handle(&mut self, now: Time, input: Input) {
        // Whoever asked may have given up waiting; what was asked for is done all the same.
        match input {
            Input::Link(connected) => {
                self.client.handle_link(now, connected);
                self.push(Notice::Link(connected));
            }
            Input::Frame(frame) => self.client.handle_frame(now, frame),
            Input::Send { id, to, body, options, reply } => {
                self.handle_send(now, id, to, body, options, reply);
            }
            Input::Cancel(id, reply) => drop(reply.send(self.client.handle_cancel(id))),
            Input::Ping { id, to, reply } => drop(reply.send(self.client.handle_ping(id, *to))),
            Input::Accept(id) => drop(self.client.handle_accept(now, id)),
            Input::Noted(id) => self.client.handle_noted(id),
            Input::Durable(count) => self.client.handle_durable(count),
            Input::Fact(fact) => {
                self.client.handle_fact(now, fact);
                self.store();
                self.purse.iter_mut().for_each(Purse::note_fact);
            }
            Input::Views(views) => {
                if !self.client.handle_views(now, *views) {
                    self.stop.trigger(Cause::Failure(NO_GATEWAY.to_owned()));
                }
            }
            Input::DocumentRefused(reason) => self.push(Notice::DocumentRefused(reason)),
            Input::Outbox(reply) => drop(reply.send(self.client.outbox().collect())),
            Input::Counts(reply) => drop(reply.send(self.counts())),
        }
        self.notify();
    }

    fn poll_output(&mut self, now: Time) -> Option<Frame> {
        let frame = self.client.poll_transmit(now);
        self.notify();
        frame
    }

    fn poll_timeout(&mut self) -> Option<Time> {
        Some(self.client.poll_timeout())
    }

    fn work(&mut self, now: Time) -> bool {
        let worked = self.client.work(now);
        self.store();
        worked
    }

    fn publish(&mut self, now: Time) {
        self.client.expire(now);
        let tickets = self.purse.as_ref().and_then(Purse::trouble);
        let trouble = self.writer.trouble().or(tickets);
        if trouble.is_some() != self.trouble.is_some() {
            self.push(Notice::Storage(trouble.clone()));
        }
        self.trouble = trouble;
        self.notify();
    }
}

impl std::fmt::Debug for ClientMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientMachine").field("client", &self.client).finish_non_exhaustive()
    }
}
