//! The gateway's state machine under the driver.

use std::sync::Arc;

use metrics::{counter, gauge};
use tombola_mixing::Time;
use tombola_node::driver::Machine;
use tombola_node::meters::publish_drops;
use tombola_node::metrics as names;
use tombola_node::opening::ToOpeners;
use tombola_protocol::drops::DropCounters;
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayOutput};

/// A [`Gateway`] that publishes its counters.
pub(crate) struct GatewayMachine {
    pub(crate) gateway: Gateway,
    pub(crate) drops: Arc<DropCounters>,
    pub(crate) openers: ToOpeners,
}

impl Machine for GatewayMachine {
    type Input = GatewayInput;
    type Output = GatewayOutput;

    fn handle(&mut self, now: Time, input: GatewayInput) {
        self.gateway.handle(now, input);
    }

    fn poll_output(&mut self, now: Time) -> Option<GatewayOutput> {
        self.gateway.poll_output(now)
    }

    fn poll_timeout(&mut self) -> Option<Time> {
        self.gateway.poll_timeout()
    }

    fn publish(&mut self, now: Time) {
        self.gateway.expire(now);
        publish_drops(&self.drops);
        self.openers.publish();
        let counts = self.gateway.counts();
        gauge!(names::MAILBOXES).set(counts.mailboxes as f64);
        gauge!(names::MAIL_PACKETS).set(counts.mail as f64);
        counter!(names::MAIL_STORED_TOTAL).absolute(counts.stored);
        counter!(names::MAIL_DELIVERED_TOTAL).absolute(counts.delivered);
    }
}
