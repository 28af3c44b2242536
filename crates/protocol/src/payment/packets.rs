//! Packets: those that somebody pays us for, and those that we pay for.

use core::time::Duration;

use tombola_mixing::Time;
use tombola_tickets::por::{AckCheck, Challenge, first_link_opener};
use tombola_tickets::{Issuer, MOST_UNSIGNED, PacketId, Secret, Stop};
use tombola_topology::IdentityKey;

use super::link::Link;
use super::types::{Debt, FirstLink};
use super::{NOBODY, Owed, PaymentOutput, Payments, Unpaid};
use crate::drops::DropReason;
use crate::frame::{Frame, Parity};
use crate::opener::{Half, Ticket};

/// Packets for one neighbour that wait until they can be paid for: until the link is up again, or the list agreed on.
const WAITING_MAX: usize = 1024;
/// They wait no longer than an acknowledgement is waited for.
const WAITING_LIFE: Duration = Duration::from_secs(30);
/// Packets of a client that the first hop has not acknowledged, or that are unsigned: half of what a node is trusted with, and of
/// what may wait for a neighbour. Its own software stops there, too.
const CLIENT_OPEN_MAX: usize = MOST_UNSIGNED / 2;

impl Payments {
    /// A node sent a packet, and its ticket is the one that the sender meant. `next`: who the packet goes to, none if it ends
    /// here.
    ///
    /// # Errors
    /// Nobody pays for it: it must not be passed on.
    pub fn accept(
        &mut self,
        now: Time,
        from: &IdentityKey,
        parity: Parity,
        number: (u32, u32),
        ticket: Ticket,
        next: Option<&IdentityKey>,
    ) -> Result<Owed, Unpaid> {
        let taken = self.take(now, from, parity, number, ticket, next);
        self.winding_up.packet(now);
        self.counts.refused += u64::from(taken.is_err());
        if let Some(link) = self.links.get(from) {
            link.door(&self.gate, *from).saw(parity);
        }
        self.set_room(now, from);
        taken
    }

    pub(super) fn take(
        &mut self,
        now: Time,
        from: &IdentityKey,
        parity: Parity,
        number: (u32, u32),
        ticket: Ticket,
        next: Option<&IdentityKey>,
    ) -> Result<Owed, Unpaid> {
        let at = self.now(now);
        let behind = next.and_then(|next| self.links.get(next)).map(|link| link.number);
        let link = self.links.get_mut(from).ok_or(Unpaid::NoTerms)?;
        link.packet(now);
        self.slots_may_be_due |= link.slots.is_due_for_packets();
        self.pause_at = link.slots.pause_at().map_or(self.pause_at, |at| self.pause_at.min(at));
        let terms = link.earning[parity.index()].ok_or(Unpaid::NoTerms)?;
        let earning = self.machines.earning.get_mut(&terms).ok_or(Unpaid::NoTerms)?;
        let secret = match ticket.half {
            Half::Whole(opener) => Secret::Opener(opener),
            // Whoever it goes to that has no link yet gets one; until then it is nobody's fault.
            Half::Own(own) => Secret::Own(own, behind.unwrap_or(NOBODY)),
        };
        let id = earning.recipient.accept(
            at,
            &mut self.books,
            packet_id(number),
            ticket.challenge,
            secret,
            ticket.ack,
        )?;
        Ok(Owed(Debt::Ticket(terms, id)))
    }

    /// A client sent a packet for the first hop. It counts when that has acknowledged it.
    ///
    /// # Errors
    /// The client does not pay, or has too much on its way: the packet must not be passed on.
    pub fn accept_first(
        &mut self,
        now: Time,
        client: &IdentityKey,
        parity: Parity,
        number: (u32, u32),
        check: AckCheck,
        first: &Challenge,
    ) -> Result<Owed, Unpaid> {
        let taken = self.take_first(now, client, parity, number, check, first);
        self.winding_up.packet(now);
        self.counts.refused += u64::from(taken.is_err());
        taken
    }

    pub(super) fn take_first(
        &mut self,
        now: Time,
        client: &IdentityKey,
        parity: Parity,
        number: (u32, u32),
        check: AckCheck,
        first: &Challenge,
    ) -> Result<Owed, Unpaid> {
        let at = self.now(now);
        let terms =
            self.links.get(client).and_then(|link| link.earning[parity.index()]).ok_or(Unpaid::NoTerms)?;
        let earning = self.machines.earning.get_mut(&terms).ok_or(Unpaid::NoTerms)?;
        earning.recipient.may_accept(at, &mut self.books)?;
        if earning.on_their_way + earning.recipient.unsigned() >= CLIENT_OPEN_MAX {
            return Err(Unpaid::TooMany);
        }
        earning.on_their_way += 1;
        let packet = packet_id(number);
        let opener = first_link_opener(first, (packet.session << 32) | packet.counter);
        let challenge = opener.challenge();
        Ok(Owed(Debt::First(Box::new(FirstLink { terms, packet, challenge, opener, check }))))
    }

    /// Passes a packet on to a neighbour, now or when it can be paid for. What cannot be for long is given up.
    pub fn forward(&mut self, now: Time, to: IdentityKey, frame: Frame, owed: Owed) {
        let room = self.link(to).waiting.len();
        if room > 0 {
            if room >= WAITING_MAX {
                return self.give_up(frame, owed);
            }
            return self.link(to).waiting.push_back((now, frame, owed));
        }
        match self.issue(now, &to, frame, owed) {
            Ok(frame) => self.out.push_back(PaymentOutput::Send { to, frame }),
            Err((Unpaid::Stop(_), frame, owed)) => self.link(to).waiting.push_back((now, frame, owed)),
            Err((_, frame, owed)) => self.give_up(frame, owed),
        }
    }

    /// As [`forward`](Self::forward), for a client whose clock has struck: now or not at all.
    ///
    /// # Errors
    /// It cannot be paid for: nothing is sent.
    pub fn send_first(
        &mut self,
        now: Time,
        gateway: &IdentityKey,
        frame: Frame,
    ) -> Result<Frame, (Unpaid, Frame)> {
        self.issue(now, gateway, frame, Owed::default()).map_err(|(why, frame, _)| (why, frame))
    }

    /// Whether a client could send a packet of that epoch now.
    pub fn may_send_first(&mut self, now: Time, gateway: &IdentityKey, parity: Parity) -> Result<(), Unpaid> {
        let at = self.now(now);
        let link = self.links.get(gateway).ok_or(Unpaid::NoTerms)?;
        let terms = link.paying[parity.index()].ok_or(Unpaid::NoTerms)?;
        let paying = self.machines.paying.get_mut(&terms).ok_or(Unpaid::NoTerms)?;
        stops_a_client(link, &paying.issuer)?;
        Ok(paying.issuer.may_send(at, &mut self.books)?)
    }

    pub(super) fn issue(
        &mut self,
        now: Time,
        to: &IdentityKey,
        mut frame: Frame,
        owed: Owed,
    ) -> Result<Frame, (Unpaid, Frame, Owed)> {
        let at = self.now(now);
        let parity = frame.parity();
        let Some(link) = self.links.get_mut(to) else { return Err((Unpaid::NoTerms, frame, owed)) };
        let terms = link.paying[parity.index()];
        let Some((terms, paying)) =
            terms.and_then(|terms| Some((terms, self.machines.paying.get_mut(&terms)?)))
        else {
            return Err((Unpaid::NoTerms, frame, owed));
        };
        if let Err(stop) = stops_a_client(link, &paying.issuer) {
            return Err((stop.into(), frame, owed));
        }
        let counter = link.counter[parity.index()];
        let packet = packet_id((link.session, counter));
        let (challenge, check) = if link.paced {
            let meta = frame.client_meta();
            let number = (packet.session << 32) | packet.counter;
            let first = Challenge::from_bytes(meta.challenge);
            (first_link_opener(&first, number).challenge(), Some(AckCheck::from_bytes(meta.ack_check)))
        } else {
            let meta = frame.link_meta();
            let check = matches!(owed.0, Debt::First(_)).then(|| AckCheck::from_bytes(meta.ack_check));
            (Challenge::from_bytes(meta.challenge), check)
        };
        // A session has room for four billion packets; the next one begins anew, and the packet is of that one.
        let Some(next) = counter.checked_add(1) else {
            self.agree_again(to, &terms);
            return Err((Unpaid::Stop(Stop::NoAgreement), frame, owed));
        };
        if let Err(stop) = paying.issuer.send(at, &mut self.books, packet, challenge, check) {
            return Err((stop.into(), frame, owed));
        }
        link.counter[parity.index()] = next;
        link.packet(now);
        self.slots_may_be_due |= link.slots.is_due_for_packets();
        self.pause_at = link.slots.pause_at().map_or(self.pause_at, |at| self.pause_at.min(at));
        frame.set_number(link.session, counter);
        if let Some(old) = paying.sent(packet, now, owed) {
            self.forget(old);
        }
        Ok(frame)
    }

    pub(super) fn give_up(&mut self, frame: Frame, owed: Owed) {
        self.counts.given_up += 1;
        self.drops.count(DropReason::CannotPay);
        self.forget(owed);
        self.reuse(frame);
    }

    /// What is owed for a packet will not come.
    pub(super) fn forget(&mut self, owed: Owed) {
        if let Debt::First(first) = owed.0
            && let Some(earning) = self.machines.earning.get_mut(&first.terms)
        {
            earning.on_their_way = earning.on_their_way.saturating_sub(1);
        }
    }

    pub(super) fn reuse(&mut self, frame: Frame) {
        if self.spare.len() < 64 {
            self.spare.push(frame);
        }
    }

    pub(super) fn flush_all(&mut self, now: Time) {
        let waiting: Vec<_> =
            self.links.iter().filter(|(_, link)| !link.waiting.is_empty()).map(|(peer, _)| *peer).collect();
        waiting.into_iter().for_each(|peer| self.flush(now, peer));
    }

    /// Sends what waited and can be paid for now; gives up what waited too long.
    pub(super) fn flush(&mut self, now: Time, to: IdentityKey) {
        while let Some((since, frame, owed)) =
            self.links.get_mut(&to).and_then(|link| link.waiting.pop_front())
        {
            if now - since > WAITING_LIFE {
                self.give_up(frame, owed);
                continue;
            }
            match self.issue(now, &to, frame, owed) {
                Ok(frame) => self.out.push_back(PaymentOutput::Send { to, frame }),
                Err((Unpaid::Stop(_), frame, owed)) => {
                    self.link(to).waiting.push_front((since, frame, owed));
                    return;
                }
                Err((_, frame, owed)) => self.give_up(frame, owed),
            }
        }
    }
}

/// Session and counter of a packet as the machines name it.
fn packet_id((session, counter): (u32, u32)) -> PacketId {
    PacketId { session: session.into(), counter: counter.into() }
}

/// A client sends nothing that its gateway would refuse.
fn stops_a_client(link: &Link, issuer: &Issuer) -> Result<(), Stop> {
    if link.paced && issuer.outstanding() >= CLIENT_OPEN_MAX {
        return Err(Stop::Unsigned);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tombola_tickets::{
        Ack, AckList, Address, ClassNumber, Commitment, Domain, Limits, PacketAck, PriceClass,
        RecipientMessage, Restore, SignerKey, UnixSeconds, WinProbability, WindowNumber,
    };

    use super::*;
    use crate::control::Record;
    use crate::frame::LinkMeta;
    use crate::payment::{Account, Fact, Setting, Side, Terms};
    use crate::unix::{UnixNanos, WallClock};

    /// An account that has agreed with one that it pays.
    fn agreed(now: Time, peer: IdentityKey) -> Payments {
        let signer = SignerKey::from_bytes(&[1; 32]).unwrap();
        let account = Account {
            address: signer.address(),
            signer,
            secret: [2; 32].into(),
            domain: Domain::new(1, Address::ZERO),
        };
        let setting = Setting {
            me: IdentityKey::of_seed(&[3; 32]),
            wall: WallClock::new(now, UnixNanos(1_000_000_000)),
            limits: Limits { settled_after: Duration::from_secs(10), claim_before_expiry: 10 },
            drops: std::sync::Arc::default(),
            seed: [4; 32],
        };
        let price = PriceClass {
            face_value: 1,
            win_probability: WinProbability::MAX,
            valid_from: UnixSeconds(0),
            expiry: UnixSeconds(u32::MAX),
            epoch: 0,
        };
        let prices = BTreeMap::from([(ClassNumber(1), price)]);
        let mut payments = Payments::new(now, account, setting, prices, &Restore::default()).unwrap();
        payments.handle_fact(now, Fact::Deposit(1 << 60));
        let terms = Terms { account: Address::repeat_byte(9), class: ClassNumber(1) };
        payments.set_terms(now, peer, Side::Paying, even(), Some(terms));
        payments.handle_link(now, peer, true);
        answer(&mut payments, now, peer);
        payments
    }

    fn even() -> Parity {
        Parity::of(0)
    }

    /// What the other end says to the session that began last.
    fn answer(payments: &mut Payments, now: Time, peer: IdentityKey) {
        let session = payments.links[&peer].session.into();
        let commitment = Commitment::from_bytes([5; 32]);
        let commitment = RecipientMessage::Commitment { window: WindowNumber(0), commitment };
        for message in [commitment, RecipientMessage::Resumed { session, void: false }] {
            payments.handle_record(now, &peer, Record::Recipient(even(), message));
        }
        assert_eq!(payments.counts().violations, 0);
    }

    #[test]
    fn the_last_number_of_a_session_is_of_no_packet() {
        let (now, peer) = (Time::ZERO + Duration::from_secs(1), IdentityKey::of_seed(&[6; 32]));
        let mut payments = agreed(now, peer);
        let frame = || {
            let mut frame = Frame::zeroed();
            frame.set_link_packet(even(), &LinkMeta::NONE);
            frame
        };
        assert!(payments.issue(now, &peer, frame(), Owed::default()).is_ok());
        payments.links.get_mut(&peer).unwrap().counter = [u32::MAX; 2];
        let stopped = payments.issue(now, &peer, frame(), Owed::default());
        assert!(matches!(stopped, Err((Unpaid::Stop(Stop::NoAgreement), ..))));
        let in_flight = |payments: &Payments| {
            payments.machines.paying.values().map(|paying| paying.issuer.in_flight()).sum::<usize>()
        };
        assert_eq!(in_flight(&payments), 1, "a packet that did not leave is not waited for");
        answer(&mut payments, now, peer);
        assert!(payments.issue(now, &peer, frame(), Owed::default()).is_ok());
        assert_eq!(in_flight(&payments), 2);
    }

    #[test]
    fn a_client_stops_where_its_gateway_would_refuse_and_a_node_goes_on() {
        for (paced, most) in [(true, 512), (false, 1024)] {
            let (now, peer) = (Time::ZERO + Duration::from_secs(1), IdentityKey::of_seed(&[6; 32]));
            let mut payments = agreed(now, peer);
            payments.links.get_mut(&peer).unwrap().paced = paced;
            let mut sent = 0;
            let stopped = loop {
                let may_send = payments.may_send_first(now, &peer, even());
                let mut frame = Frame::zeroed();
                frame.set_link_packet(even(), &LinkMeta::NONE);
                match payments.issue(now, &peer, frame, Owed::default()) {
                    Ok(_) => sent += 1,
                    Err((why, ..)) => break (may_send, why),
                }
                assert_eq!(may_send, Ok(()));
            };
            let unsigned = Unpaid::Stop(Stop::Unsigned);
            assert_eq!((sent, stopped), (most, (Err(unsigned), unsigned)));
        }
    }

    #[test]
    fn an_acknowledgement_that_comes_too_late_is_no_offence_and_one_of_nothing_is() {
        let (now, peer) = (Time::ZERO + Duration::from_secs(1), IdentityKey::of_seed(&[6; 32]));
        let mut payments = agreed(now, peer);
        let mut frame = Frame::zeroed();
        frame.set_link_packet(even(), &LinkMeta::NONE);
        let (session, counter) = payments.issue(now, &peer, frame, Owed::default()).unwrap().number();
        let later = now + Duration::from_secs(31);
        while payments.poll_output(later).is_some() {}
        assert_eq!(payments.counts().withheld, 1);
        for (counter, violations) in [(counter, 0), (counter + 1, 1)] {
            let ack = PacketAck { packet: packet_id((session, counter)), ack: Ack::from_bytes([7; 16]) };
            let said = Record::Acks(even(), vec![ack], AckList::new());
            payments.handle_record(later, &peer, said);
            assert_eq!(payments.counts().violations, violations);
            assert!(payments.links[&peer].resuming, "both agree again");
            if violations == 0 {
                answer(&mut payments, later, peer);
                while payments.poll_output(later).is_some() {}
            }
        }
    }
}
