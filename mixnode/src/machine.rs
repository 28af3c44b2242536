//! The mix node's state machine under the driver.

use std::sync::Arc;

use anyhow::Result;
use metrics::{counter, gauge};
use tombola_mixing::{Time, Verdict};
use tombola_node::driver::Machine;
use tombola_node::meters::{publish_drops, publish_payments, publish_trouble};
use tombola_node::metrics as names;
use tombola_node::opening::ToOpeners;
use tombola_node::purse::Purse;
use tombola_protocol::drops::DropCounters;
use tombola_protocol::halfloops::Half;
use tombola_protocol::relay::{Relay, RelayInput, RelayOutput};

use crate::accounts::AccountPurses;

/// A [`Relay`] that publishes its counters.
pub(crate) struct RelayMachine {
    pub(crate) relay: Relay,
    pub(crate) drops: Arc<DropCounters>,
    pub(crate) openers: ToOpeners,
    /// Where payment keeps what must survive; `None` in a network without payment.
    pub(crate) purse: Option<Purse>,
    /// The same for its accounts.
    pub(crate) account_purses: AccountPurses,
}

impl RelayMachine {
    fn keep(&mut self) {
        if let (Some(purse), Some(payments)) = (&mut self.purse, self.relay.payments()) {
            purse.serve(payments);
        }
        self.account_purses.serve(&mut self.relay);
    }

    /// The end, after the driver's: everything is written.
    pub(crate) fn close(mut self) -> Result<()> {
        self.account_purses.close(&mut self.relay)?;
        match (self.purse, self.relay.payments()) {
            (Some(purse), Some(payments)) => purse.close(payments),
            _ => Ok(()),
        }
    }
}

impl Machine for RelayMachine {
    type Input = RelayInput;
    type Output = RelayOutput;

    fn handle(&mut self, now: Time, input: RelayInput) {
        let told = match &input {
            RelayInput::Fact(_) => Some(None),
            RelayInput::AccountFact { account, .. } => Some(Some(*account)),
            _ => None,
        };
        self.relay.handle(now, input);
        self.keep();
        match (told, &mut self.purse) {
            (Some(None), Some(purse)) => purse.note_fact(),
            (Some(Some(account)), _) => self.account_purses.note_fact(account),
            _ => {}
        }
    }

    fn poll_output(&mut self, now: Time) -> Option<RelayOutput> {
        let output = self.relay.poll_output(now);
        self.keep();
        output
    }

    fn poll_timeout(&mut self) -> Option<Time> {
        self.relay.poll_timeout()
    }

    fn work(&mut self, now: Time) -> bool {
        self.relay.work(now)
    }

    fn publish(&mut self, now: Time) {
        self.relay.expire(now);
        publish_drops(&self.drops);
        if let Some(payments) = self.relay.payments() {
            publish_payments(payments);
            let own = self.purse.as_mut().is_some_and(Purse::look);
            publish_trouble(usize::from(own) + self.account_purses.in_trouble());
        }
        self.openers.publish();
        let counts = self.relay.counts();
        gauge!(names::POOL_PACKETS).set(counts.pool as f64);
        counter!(names::TAGS_LATE_TOTAL).absolute(counts.late_tags);
        let accounts = self.relay.account_counts();
        for (kind, count) in [
            ("cover", accounts.cover),
            ("loop", accounts.loops),
            ("drop", accounts.drops),
            ("probe", accounts.probes),
        ] {
            counter!(names::PACKETS_EMITTED_TOTAL, "kind" => kind).absolute(count);
        }
        for account in 0..self.relay.account_gateways().len() {
            for (half, label) in [(Half::Outbound, "outbound"), (Half::Inbound, "inbound")] {
                let loops = self.relay.loops();
                let Some(ratio) = loops.stats(half, account).delivery_ratio() else { continue };
                let alarm = f64::from(u8::from(loops.verdict(half, account) == Verdict::Alarm));
                let gateway = account.to_string();
                gauge!(names::LOOP_DELIVERY_RATIO, "half" => label, "gateway" => gateway.clone()).set(ratio);
                gauge!(names::LOOP_ALARM, "half" => label, "gateway" => gateway).set(alarm);
            }
        }
    }
}
