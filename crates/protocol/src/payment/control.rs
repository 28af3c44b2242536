//! Control frames: what neighbours say, and what is said to them.

use std::collections::BTreeSet;

use tombola_mixing::Time;
use tombola_tickets::por::Ack;
use tombola_tickets::{IssuerError, IssuerMessage, Neighbour, Now, PacketAck, Restore, Secret, SignedBatch};
use tombola_topology::IdentityKey;

use super::link::Link;
use super::types::{Debt, FirstLink};
use super::{Owed, PaymentOutput, Payments, Terms};
use crate::control::{ControlError, ControlWriter, Record, records};
use crate::frame::{Frame, Parity};

/// What somebody may say on a link before it can be answered: batches and ends of windows that it repeats, and that it begins. Of
/// batches there are four at most.
const EARLY_MAX: usize = 64;

impl Payments {
    /// A control frame came. More than can come in the slots of a link, or more after what was wrong, is not heard. What is wrong in
    /// it is counted and held against nobody but who sent it.
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
        // A client's gateway is heard: its frames come at the pace of the link.
        let hears =
            self.links.get_mut(from).is_some_and(|link| link.proof.is_some() || link.patience.hears(now));
        if !hears {
            self.counts.unheard += 1;
            self.reuse(frame);
            return Ok(());
        }
        let violations = self.counts.violations;
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
        let faults = self.counts.violations - violations;
        if let Some(link) = self.links.get_mut(from) {
            link.patience.faults(faults);
        }
        self.reuse(frame);
        self.collect_from(from);
        self.flush(now, *from);
        self.set_room(now, from);
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
                // A client says first from which account it pays.
                if link.paced && link.claims.is_none() {
                    return self.violation();
                }
                let (is_first, number) = (link.early[parity.index()].is_empty(), link.number);
                let terms = place(link.earning, parity).filter(|_| is_first);
                match terms.filter(|terms| self.may_hear(at, number, terms, &message)) {
                    Some(terms) => self.hear_issuer(at, &terms, message),
                    None => self.hold(from, parity, message),
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
                // Those of an earlier session that come behind the beginning of the next one say nothing of its list.
                if heard == Err(IssuerError::NoAgreement) {
                    return;
                }
                match heard {
                    Ok(()) => self.sign(at, &terms),
                    // A frame was lost: the list stands.
                    Err(IssuerError::Missing) => {
                        // It is nobody's fault, but somebody could have us say everything again and again.
                        if let Some(link) = self.links.get_mut(from) {
                            link.patience.faults(1);
                        }
                        self.agree_again(from, &terms);
                    }
                    Err(_) => {
                        self.violation();
                        self.agree_again(from, &terms);
                    }
                }
            }
        }
    }

    /// Whether what one that pays us says can be heard now. We begin only with somebody whose guarantee we know: before that we would
    /// have to refuse its packets, which it would have sent for nothing. Nor is there anything of it here before.
    fn may_hear(&mut self, at: Now, number: Neighbour, terms: &Terms, message: &IssuerMessage) -> bool {
        let Some(price) = self.prices.get(&terms.class) else { return false };
        let allowed = self.books.allows(&terms.account, price.face_value);
        if self.machines.earning.contains_key(terms) {
            return allowed || !matches!(message, IssuerMessage::Resume { .. });
        }
        if allowed {
            self.earn(at, *terms, number, &Restore::default());
        }
        allowed
    }

    fn hear_issuer(&mut self, at: Now, terms: &Terms, message: IssuerMessage) {
        // Of an earlier class nothing may be here any more, after a restart: then nothing of it counts.
        if let IssuerMessage::Batch(SignedBatch { header, .. }) = &message
            && header.class != terms.class
            && self.prices.contains_key(&header.class)
            && !self.machines.earning.contains_key(&Terms { class: header.class, ..*terms })
        {
            return;
        }
        if !self.machines.hear_issuer(at, terms, message, &mut self.books, &mut self.counts) {
            self.violation();
        }
    }

    /// It came before we could answer: it is heard when nothing is missing any more.
    fn hold(&mut self, from: &IdentityKey, parity: Parity, message: IssuerMessage) {
        let Some(link) = self.links.get_mut(from) else { return };
        let early = &mut link.early[parity.index()];
        // Whoever begins anew says everything again.
        if matches!(message, IssuerMessage::Resume { .. }) || early.len() >= EARLY_MAX {
            let begins = early.iter().position(|message| matches!(message, IssuerMessage::Resume { .. }));
            early.drain(..begins.map_or(0, |at| at + 1));
        }
        // Of windows in which nothing was won there are many in time, and whatever is signed later ends them, too.
        if early.len() >= EARLY_MAX
            && let Some(end) =
                early.iter().position(|message| matches!(message, IssuerMessage::Closed { .. }))
        {
            early.remove(end);
        }
        match early.len() < EARLY_MAX {
            true => early.push(message),
            false => self.violation(),
        }
    }

    /// Hears what came too early, where it can be heard by now.
    pub(super) fn hear_early(&mut self, now: Time) {
        let at = self.now(now);
        let early = |link: &Link| link.early.iter().any(|early| !early.is_empty());
        let peers: Vec<_> =
            self.links.iter().filter(|(_, link)| early(link)).map(|(peer, _)| *peer).collect();
        for peer in peers {
            for parity in [Parity::of(0), Parity::of(1)] {
                let Some(link) = self.links.get_mut(&peer) else { continue };
                let (Some(terms), number) = (link.earning[parity.index()], link.number) else { continue };
                let mut messages = core::mem::take(&mut link.early[parity.index()]).into_iter().peekable();
                while let Some(message) =
                    messages.next_if(|message| self.may_hear(at, number, &terms, message))
                {
                    self.hear_issuer(at, &terms, message);
                }
                if let Some(link) = self.links.get_mut(&peer) {
                    link.early[parity.index()] = messages.collect();
                }
            }
            self.collect_from(&peer);
            self.set_room(now, &peer);
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
        for (terms, earning) in &mut self.machines.earning {
            while let Some(claim) = earning.collect(&mut self.books) {
                self.out.push_back(PaymentOutput::Claim(claim));
            }
            if earning.take_answers() {
                // As soon as it can be said: before that its packets wait.
                let links = self.links.values_mut().filter(|link| link.earning.contains(&Some(*terms)));
                links.for_each(|link| link.slots.hurry());
            }
        }
    }

    /// As [`collect`](Self::collect), from the machines of one link.
    pub(super) fn collect_from(&mut self, peer: &IdentityKey) {
        let Some(link) = self.links.get_mut(peer) else { return };
        for account in link.earning.iter().flatten().map(|terms| terms.account).collect::<BTreeSet<_>>() {
            for (terms, earning) in self.machines.of_account(&account) {
                while let Some(claim) = earning.collect(&mut self.books) {
                    self.out.push_back(PaymentOutput::Claim(claim));
                }
                if earning.take_answers() && link.earning.contains(&Some(*terms)) {
                    link.slots.hurry();
                }
            }
        }
    }

    /// A control frame for a link, with what there is to say, or nothing.
    pub fn take_control(&mut self, now: Time, to: &IdentityKey, frame: Frame) -> Frame {
        self.counts.control_out += 1;
        let mut writer = ControlWriter::new(frame);
        let Some(link) = self.links.get_mut(to) else { return writer.finish() };
        link.slots.sent(now);
        if let Some(proof) = link.proof.filter(|_| core::mem::take(&mut link.shows)) {
            writer.push(&Record::Account(proof));
        }
        let mut begun = false;
        let mut parities = [(0, Parity::of(0)), (1, Parity::of(1))];
        // Both count the same windows, and their issuer takes a commitment only to one above all before.
        let commitment = |at: usize| self.machines.earning.get(&link.earning[at]?)?.first_commitment();
        if let (Some(one), Some(other)) = (commitment(0), commitment(1))
            && other < one
        {
            parities.reverse();
        }
        for (at, parity) in parities {
            let Some(link) = self.links.get(to) else { continue };
            let (paying, earning) = (link.paying[at], link.earning[at]);
            if let Some(paying) = paying.and_then(|terms| self.machines.paying.get_mut(&terms)) {
                while writer.has_room()
                    && let Some(message) = paying.issuer.poll_message(&self.books)
                {
                    begun |= matches!(message, IssuerMessage::Resume { .. });
                    writer.push(&Record::Issuer(parity, message));
                }
            }
            if let Some(earning) = earning.and_then(|terms| self.machines.earning.get_mut(&terms)) {
                earning.write(parity, &mut writer);
            }
        }
        if let Some(link) = self.links.get_mut(to).filter(|_| begun) {
            link.resuming = false;
        }
        writer.finish()
    }

    /// Whether a client's next slot should be a control frame, because there is an answer without which it cannot send. The slots of its
    /// link have their own pace, and all frames look alike.
    pub fn wants_slot(&self, client: &IdentityKey) -> bool {
        self.links.get(client).is_some_and(|link| link.paced && link.slots.is_hurried())
    }
}
