//! How a client pays its gateway: one ticket for each packet, cover included, and control frames in the rhythm of its clock.

use tombola_mixing::{Stream, Time};
use tombola_tickets::Address;

use super::Client;
use crate::drops::DropReason;
use crate::frame::{Frame, FrameKind, Parity};
use crate::payment::{CONTROL_EVERY, EpochPrices, Fact, Payments, Side, Terms};
use crate::view::EpochView;

impl Client {
    /// From now on packets are paid for.
    #[must_use]
    pub fn with_payments(mut self, now: Time, payments: Payments) -> Self {
        self.payments = Some(payments);
        self.agree_on_terms(now);
        self
    }

    /// What it pays; `None` in a network without payment.
    pub fn payments(&mut self) -> Option<&mut Payments> {
        self.payments.as_mut()
    }

    /// What the chain says. A price may be what nothing could be agreed on without.
    pub fn handle_fact(&mut self, now: Time, fact: Fact) {
        let Some(payments) = &mut self.payments else { return };
        payments.handle_fact(now, fact);
        if matches!(fact, Fact::Class(..)) {
            self.agree_on_terms(now);
        }
    }

    /// What a tick of the clock brings: a frame, or, if it cannot be paid for, nothing. The ticks also give the rhythm of control
    /// frames, so that these tell an observer nothing that the clock does not.
    pub(super) fn tick(&mut self, now: Time, due: Time, stream: Stream) {
        let tells = stream == Stream::Main && self.told != self.collects;
        if !self.silent && (tells || self.can_pay(now)) {
            let frame = self.emit(due, stream);
            if let Some(frame) = self.pay(now, frame) {
                self.out.push_back(frame);
            }
        }
        if self.payments.is_some() {
            self.since_control += 1;
            if self.since_control >= CONTROL_EVERY {
                self.push_control_frame(now);
            }
        }
    }

    /// From now on no packet is emitted. The clock goes on, and with it what there is to say about payment.
    pub(crate) fn fall_silent(&mut self) {
        self.silent = true;
    }

    /// Whether the next packet could be paid for, whichever epoch it uses.
    fn can_pay(&mut self, now: Time) -> bool {
        let Some(payments) = &mut self.payments else { return true };
        let gateway = self.keys.gateway;
        let views = [Some(&self.views.current), self.views.old.as_ref()];
        views.into_iter().flatten().all(|view| payments.may_send_first(now, &gateway, view.parity()).is_ok())
    }

    fn pay(&mut self, now: Time, frame: Frame) -> Option<Frame> {
        match &mut self.payments {
            Some(payments) if frame.kind() == Ok(FrameKind::Packet) => {
                let paid = payments.send_first(now, &self.keys.gateway, frame);
                if paid.is_err() {
                    self.drops.count(DropReason::CannotPay);
                }
                paid.ok()
            }
            _ => Some(frame),
        }
    }

    fn push_control_frame(&mut self, now: Time) {
        if let Some(payments) = &mut self.payments {
            self.since_control = 0;
            self.out.push_back(payments.take_control(now, &self.keys.gateway, Frame::zeroed()));
        }
    }

    pub(super) fn handle_payment_link(&mut self, now: Time, connected: bool) {
        let gateway = self.keys.gateway;
        let Some(payments) = &mut self.payments else { return };
        if connected {
            payments.open_gateway(now, gateway);
            // Behind the first frame of the session: nothing can be sent before both have agreed.
            self.push_control_frame(now);
        } else {
            payments.handle_link(now, gateway, false);
        }
    }

    pub(super) fn handle_control(&mut self, now: Time, frame: Frame) {
        if let Some(payments) = &mut self.payments
            && payments.handle_control(now, &self.keys.gateway, frame).is_err()
        {
            self.drops.count(DropReason::BadFrame);
        }
    }

    /// What is due by time. Nothing comes out: a client earns nothing, and its frames leave on its clock.
    pub(super) fn tend_payments(&mut self, now: Time) {
        if let Some(payments) = &mut self.payments {
            while payments.poll_output(now).is_some() {}
        }
    }

    /// What the gateway gets for a packet of each epoch in use.
    pub(super) fn agree_on_terms(&mut self, now: Time) {
        let gateway = self.keys.gateway;
        let views = [Some(&self.views.current), self.views.old.as_ref()];
        let terms_in = |view: &EpochView| {
            let node = view.epoch().node(view.gateway(&gateway)?)?;
            Some(Terms { account: Address::from(node.account?.0), class: EpochPrices::of(view)?.client()? })
        };
        let Some(payments) = &mut self.payments else { return };
        for parity in [Parity::of(0), Parity::of(1)] {
            let view = views.into_iter().flatten().find(|view| view.parity() == parity);
            let terms = view.and_then(|view| terms_in(view));
            payments.set_terms(now, gateway, Side::Paying, parity, terms);
        }
    }
}
