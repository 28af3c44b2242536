//! A link as payment sees it: which terms hold on it, and when something may be said.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use tombola_mixing::{Rng, Time};
use tombola_tickets::{AccountProof, Address, IssuerMessage, Neighbour};
use tombola_topology::IdentityKey;

use super::{CONTROL_CADENCE, CONTROL_EVERY, Owed, Side, Terms};
use crate::frame::Frame;
use crate::gate::{Door, Gate};

/// One neighbour or client.
#[derive(Debug)]
pub(super) struct Link {
    /// By which tickets that do not open are counted.
    pub(super) number: Neighbour,
    pub(super) up: bool,
    /// Grows with each time that it comes up.
    pub(super) session: u32,
    /// The number of the next packet, by parity.
    pub(super) counter: [u32; 2],
    /// It is a client's, and its frames leave in slots that others pace.
    pub(super) paced: bool,
    pub(super) paying: [Option<Terms>; 2],
    pub(super) earning: [Option<Terms>; 2],
    pub(super) slots: Slots,
    pub(super) patience: Patience,
    /// What we show the gateway at the other end.
    pub(super) proof: Option<AccountProof>,
    /// It is to be shown.
    pub(super) shows: bool,
    /// From which account, and by which key, the client at the other end says that it pays.
    pub(super) claims: Option<(Address, Address)>,
    /// We began, and have not said so.
    pub(super) resuming: bool,
    /// What the one that pays said before we could answer, by parity.
    pub(super) early: [Vec<IssuerMessage>; 2],
    /// Packets that cannot be paid for yet.
    pub(super) waiting: VecDeque<(Time, Frame, Owed)>,
    /// Where the neighbour's packets come in.
    door: OnceCell<Arc<Door>>,
}

impl Link {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number: Neighbour(number),
            up: false,
            session: 0,
            counter: [0; 2],
            paced: false,
            paying: [None; 2],
            earning: [None; 2],
            slots: Slots::default(),
            patience: Patience::default(),
            proof: None,
            shows: false,
            claims: None,
            resuming: false,
            early: Default::default(),
            waiting: VecDeque::new(),
            door: OnceCell::new(),
        }
    }

    /// Its door; made when it is wanted first, which for clients is never.
    pub(super) fn door(&self, gate: &Gate, peer: IdentityKey) -> &Door {
        self.door.get_or_init(|| gate.door(peer))
    }

    pub(super) fn terms(&self, side: Side) -> &[Option<Terms>; 2] {
        match side {
            Side::Paying => &self.paying,
            Side::Earning => &self.earning,
        }
    }

    pub(super) fn terms_mut(&mut self, side: Side) -> &mut [Option<Terms>; 2] {
        match side {
            Side::Paying => &mut self.paying,
            Side::Earning => &mut self.earning,
        }
    }

    /// A packet went over it, in either direction.
    pub(super) fn packet(&mut self) {
        self.slots.packet();
        self.patience.packet();
    }

    /// It came up: sessions go on, packets are counted anew.
    pub(super) fn begin_session(&mut self, least: u32, rng: &mut Rng) -> u32 {
        self.session = least.max(self.session.saturating_add(1));
        self.number_anew(rng);
        self.slots.hurry();
        self.early = Default::default();
        self.session
    }

    /// The lists have to be agreed on again, though the link is up.
    pub(super) fn begin_again(&mut self, rng: &mut Rng) -> u32 {
        self.session = self.session.saturating_add(1);
        self.number_anew(rng);
        self.session
    }

    /// From where packets are counted is random, so that no two links have numbers in common. Half of all numbers are left for
    /// those that follow.
    fn number_anew(&mut self, rng: &mut Rng) {
        for counter in &mut self.counter {
            let mut bytes = [0; 4];
            rng.fill(&mut bytes);
            *counter = u32::from_be_bytes(bytes) >> 1;
        }
    }
}

/// When the next control frame is due. That depends on the number of packets and on time, never on what there is to say, but
/// for the beginning of a link.
#[derive(Debug, Default)]
pub(super) struct Slots {
    packets: u32,
    last: Option<Time>,
    hurry: bool,
}

impl Slots {
    /// A packet went over the link, in either direction.
    pub(super) fn packet(&mut self) {
        self.packets = self.packets.saturating_add(1);
    }

    /// Whether one is due at once.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurry
    }

    /// Whoever paces this link gives the first one its time.
    pub(super) fn calm(&mut self) {
        self.hurry = false;
    }

    /// The link begins, or its list: one is due at once.
    pub(super) fn hurry(&mut self) {
        self.hurry = true;
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.hurry
            || self.packets >= CONTROL_EVERY
            || self.last.is_none_or(|last| now - last >= CONTROL_CADENCE)
    }

    /// A control frame leaves.
    pub(super) fn sent(&mut self, now: Time) {
        self.packets = self.packets.saturating_sub(CONTROL_EVERY);
        self.last = Some(now);
        self.hurry = false;
    }
}

/// Control frames of a neighbour that are heard at once, and in a second. Far more than leave in its slots, also where packets are refused
/// that count for it and not here.
const FRAMES: f64 = 128.0;
const FRAMES_PER_SECOND: f64 = 32.0;
/// And for each packet on the link.
const FRAMES_PER_PACKET: f64 = 2.0 / CONTROL_EVERY as f64;
/// Of what it must not say it may say so much at once, and one thing in a second: what is wrong costs more than what is right.
const FAULTS: f64 = 64.0;

/// How much of what the other end says is heard.
#[derive(Debug)]
pub(super) struct Patience {
    frames: f64,
    faults: f64,
    since: Time,
}

impl Default for Patience {
    fn default() -> Self {
        Self { frames: FRAMES, faults: FAULTS, since: Time::ZERO }
    }
}

impl Patience {
    /// A packet went over the link, in either direction.
    pub(super) fn packet(&mut self) {
        self.frames = (self.frames + FRAMES_PER_PACKET).min(FRAMES);
    }

    /// Whether a control frame that came is heard.
    pub(super) fn hears(&mut self, now: Time) -> bool {
        let seconds = (now - self.since).as_secs_f64();
        self.since = now;
        self.frames = (self.frames + seconds * FRAMES_PER_SECOND).min(FRAMES);
        self.faults = (self.faults + seconds).min(FAULTS);
        let hears = self.frames >= 1.0 && self.faults >= 1.0;
        if hears {
            self.frames -= 1.0;
        }
        hears
    }

    /// There was so much wrong in it.
    pub(super) fn faults(&mut self, faults: u64) {
        self.faults = (self.faults - faults as f64).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn slots_follow_packets_and_time() {
        let now = Time::ZERO + Duration::from_secs(1);
        let mut slots = Slots::default();
        assert!(slots.is_due(now), "the first says that the link is there");
        slots.sent(now);
        assert!(!slots.is_due(now + CONTROL_CADENCE / 2) && slots.is_due(now + CONTROL_CADENCE));
        (0..2 * CONTROL_EVERY).for_each(|_| slots.packet());
        slots.sent(now);
        assert!(slots.is_due(now), "two frames for twice as many packets");
        slots.sent(now);
        assert!(!slots.is_due(now));
        slots.hurry();
        assert!(slots.is_due(now));
    }

    #[test]
    fn sessions_grow_though_the_clock_stands_still() {
        let (mut link, mut rng) = (Link::new(1), Rng::from_seed([1; 32]));
        assert_eq!(link.begin_session(100, &mut rng), 100);
        let counter = link.counter;
        assert_eq!(link.begin_session(100, &mut rng), 101);
        assert_ne!(link.counter, counter, "counted from another number");
        assert_eq!(link.begin_again(&mut rng), 102);
        assert_eq!(link.begin_session(50, &mut rng), 103);
    }
}
