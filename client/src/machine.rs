//! The client's state machine under the driver: frames to the gateway, events to the application.

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};
use tombola_mixing::Time;
use tombola_node::clock::unix_now;
use tombola_node::driver::Machine;
use tombola_node::shutdown::{Cause, Shutdown};
use tombola_protocol::client::{Client, ClientCounts, ClientEvent};
use tombola_protocol::drops::DropReason;
use tombola_protocol::fragment::MessageId;
use tombola_protocol::frame::Frame;
use tombola_protocol::sendqueue::SendError;
use tombola_protocol::view::Recipient;

/// Messages that wait for an application that does not take them, before the gateway is asked to keep the rest.
const BACKLOG: usize = 64;

/// Said when the last epoch is over.
const EXPIRED: &str = "the network document has expired; get the current one and start again";

/// Said when another process connects as this client.
pub(crate) const DISPLACED: &str = "this identity is in use elsewhere: another process has connected to the gateway with this client's keys. A client's \
     folder may be used in one place at a time; make one of the two anew with `init`";

/// Messages beyond which a gateway that does not keep what it was asked to keep loses them for us.
const BACKLOG_MAX: usize = 1024;

/// What comes to the driver.
#[derive(Debug)]
pub(crate) enum Input {
    Link(bool),
    Frame(Frame),
    Send { id: MessageId, to: Box<Recipient>, body: Vec<u8>, reply: oneshot::Sender<Result<(), SendError>> },
    Collect(bool),
    Counts(oneshot::Sender<Counts>),
}

/// What the session can ask the machine.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) sent: ClientCounts,
    pub(crate) waiting: usize,
    pub(crate) loops_returned: u64,
    pub(crate) loops_lost: u64,
    pub(crate) drops: Vec<(&'static str, u64)>,
}

/// What the driver hands to the session, times as they are in this process.
#[derive(Debug)]
pub(crate) enum Notice {
    Link(bool),
    Client(ClientEvent),
}

/// A [`Client`] whose events go to an application that may be slow.
pub(crate) struct ClientMachine {
    client: Client,
    notices: mpsc::Sender<Notice>,
    backlog: VecDeque<Notice>,
    collects: bool,
    held: bool,
    stop: Shutdown,
}

impl ClientMachine {
    pub(crate) fn new(
        mut client: Client,
        notices: mpsc::Sender<Notice>,
        collects: bool,
        stop: Shutdown,
    ) -> Self {
        client.handle_collect(collects);
        Self { client, notices, backlog: VecDeque::new(), collects, held: false, stop }
    }

    /// Passes on what happened. When the application does not keep up, progress is dropped, messages wait, and the
    /// gateway is asked to keep its mail until they have been taken.
    fn notify(&mut self) {
        while let Some(event) = self.client.poll_event() {
            if matches!(event, ClientEvent::Displaced) {
                self.stop.trigger(Cause::Failure(DISPLACED.to_owned()));
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
        let full = self.backlog.len() >= BACKLOG;
        if full != self.held && (full || self.backlog.is_empty()) {
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
        // Messages and the link's state are kept; what only tells how far things are is not.
        let kept = matches!(notice, Notice::Link(_) | Notice::Client(ClientEvent::Received(_)));
        if kept && self.backlog.len() < BACKLOG_MAX {
            self.backlog.push_back(notice);
        } else if kept {
            self.client.drops().count(DropReason::Overload);
        }
    }

    fn counts(&self) -> Counts {
        let loops = self.client.loop_stats();
        let drops = self.client.drops().iter().filter(|(_, n)| *n > 0).map(|(r, n)| (r.label(), n)).collect();
        Counts {
            sent: self.client.counts(),
            waiting: self.client.waiting(),
            loops_returned: loops.returned,
            loops_lost: loops.lost,
            drops,
        }
    }
}

impl Machine for ClientMachine {
    type Input = Input;
    type Output = Frame;

    fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Link(connected) => {
                self.client.handle_link(connected);
                self.push(Notice::Link(connected));
            }
            Input::Frame(frame) => self.client.handle_frame(now, frame),
            Input::Send { id, to, body, reply } => {
                let sent = self.client.handle_send(now, id, *to, body);
                // The application may have given up waiting; the message is queued all the same.
                let _ = reply.send(sent);
            }
            Input::Collect(wanted) => {
                self.collects = wanted;
                self.client.handle_collect(wanted && !self.held);
            }
            Input::Counts(reply) => {
                let _ = reply.send(self.counts());
            }
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
        self.client.work(now)
    }

    fn publish(&mut self, now: Time) {
        self.client.expire(now);
        if unix_now() >= self.client.view().epoch().valid_until().0 {
            self.stop.trigger(Cause::Failure(EXPIRED.to_owned()));
        }
    }
}

impl std::fmt::Debug for ClientMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientMachine").field("client", &self.client).finish_non_exhaustive()
    }
}
