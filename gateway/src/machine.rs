//! The gateway's state machine under the driver.

use std::sync::Arc;

use anyhow::Result;
use metrics::{counter, gauge};
use tombola_link::{Links, SendError};
use tombola_mixing::Time;
use tombola_node::driver::Machine;
use tombola_node::meters::{publish_drops, publish_payments, publish_trouble};
use tombola_node::metrics as names;
use tombola_node::opening::ToOpeners;
use tombola_node::purse::Purse;
use tombola_protocol::drops::DropCounters;
use tombola_protocol::frame::Frame;
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayOutput};
use tombola_tickets::{Account, Address, WindowClaim};
use tombola_topology::IdentityKey;

use crate::disk::Disk;

/// A [`Gateway`] with its disk and the links of its clients, that publishes its counters.
pub(crate) struct GatewayMachine {
    pub(crate) gateway: Gateway,
    pub(crate) disk: Disk,
    pub(crate) clients: Links,
    pub(crate) drops: Arc<DropCounters>,
    pub(crate) openers: ToOpeners,
    pub(crate) last: Time,
    /// Where payment keeps what must survive; `None` in a network without payment.
    pub(crate) purse: Option<Purse>,
}

impl GatewayMachine {
    /// The end, after the driver's: everything is written.
    pub(crate) fn close(mut self) -> Result<()> {
        let kept = match (self.purse, self.gateway.payments()) {
            (Some(purse), Some(payments)) => purse.close(payments),
            _ => Ok(()),
        };
        self.disk.close(self.last, self.gateway)?;
        kept
    }

    fn keep(&mut self) {
        if let (Some(purse), Some(payments)) = (&mut self.purse, self.gateway.payments()) {
            purse.serve(payments);
        }
    }

    /// A frame goes to the client's link here and not where other outputs go: if the link does not take it, the gateway must
    /// know before it hands out the next one, so that mail keeps its order.
    fn deliver(&mut self, now: Time, to: IdentityKey, frame: Frame) {
        if let Err(SendError::Full(frame) | SendError::Unknown(frame)) = self.clients.send(&to, frame) {
            self.gateway.handle(now, GatewayInput::Undelivered(to, frame));
        }
    }
}

/// What leaves the gateway other than to its clients.
#[derive(Debug)]
pub(crate) enum Out {
    /// A packet or a control frame for a node of layer 1.
    Forward(IdentityKey, Frame),
    /// Winners to be claimed.
    Claim(Box<WindowClaim>),
    /// What the chain says of this account, and of this key of it, is wanted.
    Watch(Address, Address),
    /// And is not any more.
    Forget(Address, Address),
    /// Nothing is left to be claimed or paid.
    Settled(Box<Account>),
}

impl Machine for GatewayMachine {
    type Input = GatewayInput;
    /// `None`: something was done that leads nowhere else.
    type Output = Option<Out>;

    fn handle(&mut self, now: Time, input: GatewayInput) {
        let told = matches!(input, GatewayInput::Fact(_));
        self.gateway.handle(now, input);
        self.disk.serve(now, &mut self.gateway);
        self.keep();
        if let (true, Some(purse)) = (told, &mut self.purse) {
            purse.note_fact();
        }
    }

    fn poll_output(&mut self, now: Time) -> Option<Option<Out>> {
        let output = match self.gateway.poll_output(now) {
            Some(GatewayOutput::Forward { to, frame }) => return Some(Some(Out::Forward(to, frame))),
            Some(GatewayOutput::Claim(claim)) => Some(Some(Out::Claim(claim))),
            Some(GatewayOutput::Watch { account, signer }) => Some(Some(Out::Watch(account, signer))),
            Some(GatewayOutput::Forget { account, signer }) => Some(Some(Out::Forget(account, signer))),
            Some(GatewayOutput::Settled(sum)) => Some(Some(Out::Settled(sum))),
            Some(GatewayOutput::Deliver { to, frame }) => {
                self.deliver(now, to, frame);
                Some(None)
            }
            None => None,
        };
        self.disk.serve(now, &mut self.gateway);
        self.keep();
        output
    }

    fn poll_timeout(&mut self) -> Option<Time> {
        self.gateway.poll_timeout()
    }

    fn publish(&mut self, now: Time) {
        self.last = now;
        self.gateway.expire(now);
        self.disk.publish(now, &mut self.gateway);
        self.disk.serve(now, &mut self.gateway);
        publish_drops(&self.drops);
        if let Some(payments) = self.gateway.payments() {
            publish_payments(payments);
            publish_trouble(self.purse.as_mut().is_some_and(Purse::look).into());
        }
        // There from the start, so that nobody takes its absence for zero.
        counter!(names::MAIL_READ_FAILURES_TOTAL).increment(0);
        self.openers.publish();
        let counts = self.gateway.counts();
        gauge!(names::MAILBOXES).set(counts.mail.mailboxes as f64);
        gauge!(names::MAIL_PACKETS).set(counts.mail.packets as f64);
        gauge!(names::MAIL_UNWRITTEN_PACKETS).set(counts.mail.unwritten as f64);
        gauge!(names::MAIL_IN_MEMORY_PACKETS).set(counts.mail.in_memory as f64);
        counter!(names::MAIL_STORED_TOTAL).absolute(counts.stored);
        counter!(names::MAIL_DELIVERED_TOTAL).absolute(counts.delivered);
        counter!(names::MAIL_ACKNOWLEDGED_TOTAL).absolute(counts.acknowledged);
        counter!(names::MAIL_WRONG_ACKNOWLEDGEMENTS_TOTAL).absolute(counts.wrong_acknowledgements);
        counter!(names::MAIL_FETCHES_TOTAL).absolute(counts.mail.fetches);
        counter!(names::MAIL_LATE_TOTAL).absolute(counts.mail.late);
    }
}
