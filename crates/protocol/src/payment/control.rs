//! Control frames: what neighbours say, and what is said to them.

use tombola_mixing::Time;
use tombola_tickets::por::Ack;
use tombola_tickets::{IssuerMessage, Now, PacketAck, Secret};
use tombola_topology::IdentityKey;

use super::types::{Debt, FirstLink};
use super::{Owed, PaymentOutput, Payments, Terms};
use crate::control::{ControlError, ControlWriter, Record, records};
use crate::frame::{Frame, Parity};

impl Payments {
    /// A control frame came. What is wrong in it is counted and held against nobody but who sent it.
    ///
    /// # Errors
    /// The frame is no control frame, or a record of it is damaged; those before it have been heard.
    pub fn handle_control(
        &mut self,
        now: Time,
        from: &IdentityKey,
        frame: Frame,
    ) -> Result<(), ControlError> {
        self.counts.control_in += 1;
        let mut result = Ok(());
        for record in records(&frame) {
            match record {
                Ok(record) => self.handle_record(now, from, record),
                Err(error) => {
                    self.counts.violations += 1;
                    result = Err(error);
                }
            }
        }
        self.reuse(frame);
        self.collect();
        self.flush(now, *from);
        result
    }

    pub(super) fn handle_record(&mut self, now: Time, from: &IdentityKey, record: Record) {
        let at = self.now(now);
        let Some(link) = self.links.get(from) else { return };
        let place = |all: [Option<Terms>; 2], parity: Parity| all[parity.index()];
        match record {
            Record::Account(proof) => {
                if !self.show(now, *from, &proof) {
                    self.violation();
                }
            }
            Record::Issuer(parity, message) => {
                let Some(terms) = place(link.earning, parity) else { return self.violation() };
                let is_resume = matches!(message, IssuerMessage::Resume { .. });
                if !self.machines.hear_issuer(at, &terms, message, &mut self.books, &mut self.counts) {
                    self.violation();
                }
                if is_resume {
                    self.link(*from).slots.hurry();
                }
            }
            Record::Recipient(parity, message) => {
                let Some(terms) = place(link.paying, parity) else { return self.violation() };
                if !self.machines.hear_recipient(at, &terms, message, &mut self.books) {
                    self.violation();
                }
            }
            Record::Acks(parity, acks, list) => {
                let Some(terms) = place(link.paying, parity) else { return self.violation() };
                let Some(paying) = self.machines.paying.get_mut(&terms) else { return };
                let heard = paying.issuer.acknowledged(at, &acks, &list);
                for ack in &acks {
                    let Some(owed) =
                        self.machines.paying.get_mut(&terms).and_then(|paying| paying.take(&ack.packet))
                    else {
                        continue;
                    };
                    self.acknowledged(at, owed, ack);
                }
                if heard.is_err() {
                    self.violation();
                    let session = self.link(*from).begin_again();
                    self.resume(&terms, session);
                } else {
                    self.sign(at, &terms);
                }
            }
        }
    }

    pub(super) fn violation(&mut self) {
        self.counts.violations += 1;
    }

    /// The one behind us took a packet: what it earned opens, or a client's packet counts.
    pub(super) fn acknowledged(&mut self, now: Now, owed: Owed, ack: &PacketAck) {
        match owed.0 {
            Debt::Nothing => {}
            Debt::Ticket(terms, id) => {
                let Some(earning) = self.machines.earning.get_mut(&terms) else { return };
                match earning.recipient.opened(id, &ack.ack, &mut self.books, &mut self.openings) {
                    Ok(()) => self.counts.opened += 1,
                    Err(_) => self.counts.unopened += 1,
                }
            }
            Debt::First(first) => self.first_acknowledged(now, *first, &ack.ack),
        }
    }

    pub(super) fn first_acknowledged(&mut self, now: Now, first: FirstLink, ack: &Ack) {
        let FirstLink { terms, packet, challenge, opener, check } = first;
        let Some(earning) = self.machines.earning.get_mut(&terms) else { return };
        earning.on_their_way = earning.on_their_way.saturating_sub(1);
        // The first mix node alone can have said something else.
        if ack.verify(&check).is_err() {
            self.counts.unopened += 1;
            return;
        }
        let secret = Secret::Opener(opener);
        match earning.recipient.accept(now, &mut self.books, packet, challenge, secret, ack.clone()) {
            Ok(_) => self.counts.opened += 1,
            Err(_) => self.counts.refused += 1,
        }
    }

    pub(super) fn sign(&mut self, now: Now, terms: &Terms) {
        let Some(paying) = self.machines.paying.get_mut(terms) else { return };
        while paying.issuer.sign(now, &mut self.books, &self.account.signer, &mut self.rng) {
            self.counts.signed += 1;
        }
    }

    /// Takes what the machines hand out.
    pub(super) fn collect(&mut self) {
        for earning in self.machines.earning.values_mut() {
            while let Some(claim) = earning.collect(&mut self.books) {
                self.out.push_back(PaymentOutput::Claim(claim));
            }
        }
    }

    /// A control frame for a link, with what there is to say, or nothing.
    pub fn take_control(&mut self, now: Time, to: &IdentityKey, frame: Frame) -> Frame {
        self.counts.control_out += 1;
        let mut writer = ControlWriter::new(frame);
        let Some(link) = self.links.get_mut(to) else { return writer.finish() };
        link.slots.sent(now);
        if let Some(proof) = link.proof.take() {
            writer.push(&Record::Account(proof));
        }
        for (at, parity) in [(0, Parity::of(0)), (1, Parity::of(1))] {
            let Some(link) = self.links.get(to) else { continue };
            let (paying, earning) = (link.paying[at], link.earning[at]);
            if let Some(paying) = paying.and_then(|terms| self.machines.paying.get_mut(&terms)) {
                while writer.has_room()
                    && let Some(message) = paying.issuer.poll_message(&self.books)
                {
                    writer.push(&Record::Issuer(parity, message));
                }
            }
            if let Some(earning) = earning.and_then(|terms| self.machines.earning.get_mut(&terms)) {
                earning.write(parity, &mut writer);
            }
        }
        writer.finish()
    }
}
