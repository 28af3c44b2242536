//! What waits to be sent, and what was sent and is not acknowledged.
//!
//! A message that has not begun goes before those that have, so that a short message does not wait behind a long file; but
//! every fourth turn belongs to those that have begun, in rotation, so that none of them starves.
//!
//! When everything of a message has left, it waits for its acknowledgement. If that does not come in time, either packets
//! were lost, or the recipient is away: the sender cannot tell, and must not fill a mailbox. So
//!
//! - a short message is sent again, a long one adds parity (a fifth of its length at most, which repairs as much of loss
//!   while nobody is there to say what is missing) and asks what has arrived;
//! - each time that an acknowledgement should have come back by now (attempts times the square of the share of the
//!   client's own loops that return), the wait grows threefold: in the two weeks that a gateway keeps mail it is a dozen
//!   packets or so, and in a network that loses much it does not grow for a while;
//! - what was sent while the network carried little is sent again when it carries;
//! - a report of what is missing is answered at once, with as many fragments as are missing and an eighth more. Parity
//!   that was not sent yet comes first: it fits whatever is missing.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;
use tombola_mixing::{Rng, Time};
use tombola_topology::Parameters;

use crate::erasure::{Parity, data_fragment};
use crate::fragment::{FRAGMENT_DATA, MESSAGE_MAX, MessageId, Place, Shape};
use crate::payload::{Positions, Report, short_max};
use crate::view::Recipient;

/// One turn in this many belongs to a message that has begun, if there is one.
const TURN_OF_THE_BEGUN: u32 = 4;
/// A long message gives its recipient reply blocks once in so many fragments, and at its end.
const ASK_EVERY: u32 = 512;
/// Unasked parity, at most one part in so many of a message: what it stores in a mailbox is its own size and a fifth.
const EXTRA_PART: u32 = 5;
/// Each wait is so many times the one before.
const BACKOFF: u32 = 3;
/// A message that was sent before a restart is sent again after about this time at most, unless it was sent often already.
const RESTART_MOST: Duration = Duration::from_secs(30);
/// How often restarts may bring a message forward, for each threefold of its age: a client that is started every minute does
/// not fill a mailbox.
const RESTARTS_EACH: u32 = 8;
/// Progress is worth a record once in so many fragments.
const RECORD_EVERY: u32 = 64;

/// Bounds of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct SendLimits {
    /// Most messages at one time.
    pub messages: usize,
    /// Most bytes at one time.
    pub bytes: usize,
}

impl Default for SendLimits {
    fn default() -> Self {
        Self { messages: 4096, bytes: 2 * MESSAGE_MAX }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// Longer than a message may be.
    #[error(
        "a message of {len} bytes is longer than the {MESSAGE_MAX} bytes that a message may have; split it"
    )]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The outbox is full.
    #[error("the outbox is full; wait until messages have been acknowledged, or cancel some")]
    Full,
    /// There is no way to answer that message.
    #[error(
        "this message cannot be answered: its sender allowed no answers, or what was given for them is used up or expired"
    )]
    NotAnswerable,
    /// This client takes part in cover traffic only.
    #[error("this client keeps nothing, so it sends no messages")]
    KeepsNothing,
}

/// How long things take in a network, as far as waiting for them goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// There and back, all but never exceeded.
    pub round_trip: Duration,
    /// After so long without another fragment of a message, the rest was lost or has yet to be sent.
    pub quiet: Duration,
}

impl Pace {
    /// The pace that follows from a network's parameters: the sum of L exponential delays exceeds 4 L means once in some
    /// 400 times for three layers; the sum of 2 L exceeds 6 L means once in 500 times.
    pub fn of(parameters: &Parameters) -> Self {
        let layers = u32::from(parameters.layers);
        let slots = parameters.main_interval + parameters.downlink_interval;
        Self {
            round_trip: parameters.mean_delay * (6 * layers) + slots * 20 + Duration::from_secs(1),
            quiet: parameters.mean_delay * (4 * layers) + slots * 10 + Duration::from_millis(500),
        }
    }
}

/// Where a message goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// To an address.
    Address(Box<Recipient>),
    /// To whoever sent that message, through reply blocks.
    Reply(MessageId),
}

/// One packet of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The whole message.
    Short,
    /// A fragment.
    Fragment(Place),
    /// Reply blocks, and the question what has arrived.
    Ask,
}

/// A packet of a message that is to be built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub(crate) message: MessageId,
    pub(crate) part: Part,
    /// The first packet of the message.
    pub(crate) first: bool,
    /// How often the message was sent before.
    pub(crate) attempt: u32,
}

/// What is worth a new record in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    None,
    Progress,
    /// Everything of it has left for the first time.
    Sent,
}

pub(crate) struct Outgoing {
    pub(crate) target: Target,
    pub(crate) body: Vec<u8>,
    pub(crate) shape: Shape,
    pub(crate) replies: u16,
    pub(crate) queued: Time,
    /// It was queued so much earlier, before this process began.
    pub(crate) older: Duration,
    pub(crate) expires: Time,
    pub(crate) attempt: u32,
    /// Everything of it has left once.
    pub(crate) sent: bool,
    /// The next fragment of the first transmission.
    pub(crate) cursor: u32,
    /// Unasked parity so far.
    pub(crate) extra: u32,
    repairs: VecDeque<Place>,
    /// A short message is due again.
    again: bool,
    asks: u8,
    /// Parity fragments that have been chosen, by segment.
    parity: BTreeMap<u16, usize>,
    /// Packets that are built and have not left.
    under_way: u32,
    /// It has a place in one of the queues.
    in_line: bool,
    /// Attempts since the recipient was last heard of.
    tries: u32,
    /// How many of them should have been answered, when it left last.
    level: u32,
    /// At which level it was sent again because the network had carried little.
    mended: Option<u32>,
    /// All that is still to be sent of it was not asked for.
    unasked: bool,
    resend_at: Option<Time>,
    /// When the last packet of it left, since this process runs.
    left: Option<Time>,
    /// The report that was answered last, and when.
    answered: Option<(Report, Time)>,
}

impl Outgoing {
    pub(crate) fn new(
        target: Target,
        body: Vec<u8>,
        shape: Shape,
        replies: u16,
        queued: Time,
        expires: Time,
    ) -> Self {
        Self {
            target,
            body,
            shape,
            replies,
            queued,
            older: Duration::ZERO,
            expires,
            attempt: 0,
            sent: false,
            cursor: 0,
            extra: 0,
            repairs: VecDeque::new(),
            again: false,
            asks: 0,
            parity: BTreeMap::new(),
            under_way: 0,
            in_line: false,
            tries: 0,
            level: 0,
            mended: None,
            unasked: false,
            resend_at: None,
            left: None,
            answered: None,
        }
    }

    /// Attempts since the recipient was last heard of.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// When the last packet of it left, since this process runs.
    pub(crate) fn left(&self) -> Option<Time> {
        self.left
    }

    /// What its record says of attempts: of a short message how many, else how much parity was sent unasked.
    pub(crate) fn restore_extra(&mut self, extra: u32) {
        if self.is_short() {
            self.tries = extra;
        } else {
            self.extra = extra;
        }
    }

    /// How long ago it was queued, over restarts.
    fn age(&self, now: Time) -> Duration {
        now - self.queued + self.older
    }

    pub(crate) fn is_short(&self) -> bool {
        self.body.len() <= self.short_max()
    }

    fn short_max(&self) -> usize {
        match self.target {
            Target::Address(_) => short_max(1),
            Target::Reply(_) => short_max(0),
        }
    }

    /// Fragments of the first transmission: a short message has one.
    fn fragments(&self) -> u32 {
        self.shape.fragments()
    }

    fn has_next(&self) -> bool {
        self.cursor < self.fragments() || self.again || !self.repairs.is_empty() || self.asks > 0
    }

    fn next_part(&mut self) -> Option<Part> {
        if self.is_short() {
            let due = self.cursor == 0 || self.again;
            self.cursor = 1;
            self.again = false;
            return due.then_some(Part::Short);
        }
        // In the middle of a long message blocks go at once; at its end they go last.
        let through = self.cursor >= self.fragments();
        if self.asks > 0 && (!through || self.repairs.is_empty()) {
            self.asks -= 1;
            return Some(Part::Ask);
        }
        if !through {
            let place = self.shape.place_of(self.cursor);
            self.cursor += 1;
            if self.cursor.is_multiple_of(ASK_EVERY) || self.cursor == self.fragments() {
                self.asks = self.asks.max(1);
            }
            return Some(Part::Fragment(place));
        }
        self.repairs.pop_front().map(Part::Fragment)
    }

    /// Packets that are still to be built.
    pub(crate) fn remaining(&self) -> usize {
        if self.is_short() {
            return usize::from(self.cursor == 0 || self.again);
        }
        (self.fragments() - self.cursor.min(self.fragments())) as usize
            + self.repairs.len()
            + usize::from(self.asks)
    }

    /// Parity of a segment that was not chosen before.
    fn fresh_parity(&mut self, segment: u16) -> Option<Place> {
        let chosen = self.parity.entry(segment).or_insert(0);
        if *chosen >= self.shape.parity_in(segment) {
            return None;
        }
        let position = self.shape.data_in(segment) + *chosen;
        *chosen += 1;
        Some(Place { segment, position: u8::try_from(position).ok()? })
    }

    /// Adds `count` parity fragments, the same share of each segment.
    fn add_extra(&mut self, count: u32) {
        let segments = self.shape.segments();
        let mut added = 0;
        'rounds: loop {
            let before = added;
            for segment in 0..segments {
                if added >= count {
                    break 'rounds;
                }
                if let Some(place) = self.fresh_parity(segment) {
                    self.repairs.push_back(place);
                    added += 1;
                }
            }
            if added == before {
                break;
            }
        }
        self.extra += added;
    }

    /// Takes back parity that was added unasked and has not left: whoever asks says better what is missing.
    fn take_back_unasked(&mut self) {
        if !core::mem::take(&mut self.unasked) {
            return;
        }
        for place in core::mem::take(&mut self.repairs) {
            if let Some(chosen) = self.parity.get_mut(&place.segment) {
                *chosen = chosen.saturating_sub(1);
            }
            self.extra = self.extra.saturating_sub(1);
        }
        self.asks = 0;
    }

    /// Adds what is missing in a segment of which `there` has arrived.
    fn repair(&mut self, segment: u16, there: &Positions, share_lost: f64) {
        let data = self.shape.data_in(segment);
        let missing = data.saturating_sub(there.len());
        let lost = (missing as f64 * share_lost / (1.0 - share_lost)).ceil() as usize;
        let count = missing + (missing / 8).max(lost);
        let mut chosen = 0;
        while chosen < count {
            let Some(place) = self.fresh_parity(segment) else { break };
            // After a restart nobody knows what was sent, but this has arrived.
            if !there.contains(place.position) {
                self.repairs.push_back(place);
                chosen += 1;
            }
        }
        let parity = self.repairs.iter().filter(|place| place.segment == segment).count();
        // What is missing itself, when parity does not suffice.
        let positions =
            (0..u8::try_from(data).unwrap_or(u8::MAX)).filter(|position| !there.contains(*position));
        let again = positions.take(count.saturating_sub(parity)).map(|position| Place { segment, position });
        self.repairs.extend(again);
    }
}

/// How often a round trip can be taken threefold before it exceeds an age.
fn level_of(age: Duration, round_trip: Duration) -> u32 {
    let mut wait = round_trip.max(Duration::from_millis(1));
    let mut level = 0;
    while wait < age && level < 32 {
        wait = wait.saturating_mul(BACKOFF);
        level += 1;
    }
    level
}

impl core::fmt::Debug for Outgoing {
    /// Shows no content.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Outgoing({} bytes)", self.body.len())
    }
}

/// The outbox.
#[derive(Debug)]
pub(crate) struct Outbox {
    limits: SendLimits,
    pace: Pace,
    messages: BTreeMap<MessageId, Outgoing>,
    fresh: VecDeque<MessageId>,
    begun: VecDeque<MessageId>,
    expiries: BTreeSet<(Time, MessageId)>,
    resends: BTreeSet<(Time, MessageId)>,
    bytes: usize,
    turn: u32,
    /// Parity of the segment that was asked for last.
    parity: Option<(MessageId, u16, Parity)>,
}

impl Outbox {
    pub(crate) fn new(limits: SendLimits, pace: Pace) -> Self {
        Self {
            limits,
            pace,
            messages: BTreeMap::new(),
            fresh: VecDeque::new(),
            begun: VecDeque::new(),
            expiries: BTreeSet::new(),
            resends: BTreeSet::new(),
            bytes: 0,
            turn: 0,
            parity: None,
        }
    }

    /// Whether a message of that length fits.
    pub(crate) fn check(&self, len: usize) -> Result<Shape, SendError> {
        let shape = Shape::of(len).ok_or(SendError::TooLong { len })?;
        if self.messages.len() >= self.limits.messages || self.bytes + len > self.limits.bytes {
            return Err(SendError::Full);
        }
        Ok(shape)
    }

    /// Whether it is nearly full.
    pub(crate) fn is_pressed(&self) -> bool {
        self.messages.len() >= self.limits.messages / 4 * 3 || self.bytes >= self.limits.bytes / 4 * 3
    }

    /// Whether there is ample room.
    pub(crate) fn is_relaxed(&self) -> bool {
        self.messages.len() <= self.limits.messages / 2 && self.bytes <= self.limits.bytes / 2
    }

    pub(crate) fn push(
        &mut self,
        now: Time,
        id: MessageId,
        target: Target,
        body: Vec<u8>,
        replies: u16,
        expires: Time,
    ) -> Result<(), SendError> {
        let shape = self.check(body.len())?;
        let mut outgoing = Outgoing::new(target, body, shape, replies, now, expires);
        outgoing.in_line = true;
        self.insert(id, outgoing);
        self.fresh.push_back(id);
        Ok(())
    }

    /// As it was before a restart: `sent` and the first `cursor` fragments have left.
    pub(crate) fn restore(&mut self, now: Time, id: MessageId, mut outgoing: Outgoing, rng: &mut Rng) {
        let sent = outgoing.sent;
        outgoing.in_line = !sent;
        // Parity that was sent is not sent again: it was chosen in this order.
        let extra = core::mem::take(&mut outgoing.extra);
        outgoing.add_extra(extra);
        outgoing.repairs.clear();
        self.insert(id, outgoing);
        if sent {
            // Whatever the recipient has said in the meantime may be in the mailbox.
            let (tries, age) = self
                .messages
                .get(&id)
                .map_or((0, Duration::ZERO), |message| (message.tries, message.age(now)));
            let wait = self.pace.round_trip * BACKOFF.saturating_pow(tries.saturating_sub(1).min(16));
            let often = tries > RESTARTS_EACH * (2 + level_of(age, self.pace.round_trip));
            let wait = if often { wait.min(age * (BACKOFF - 1)) } else { wait.min(RESTART_MOST) };
            // Not all at one instant: whoever gets two of them shall not see that they have one sender.
            self.wait_until(id, now + wait.max(self.pace.quiet) + rng.exponential(self.pace.quiet));
        } else {
            self.fresh.push_back(id);
        }
    }

    fn insert(&mut self, id: MessageId, outgoing: Outgoing) {
        self.bytes += outgoing.body.len();
        self.expiries.insert((outgoing.expires, id));
        self.messages.insert(id, outgoing);
    }

    /// The next packet to be built. `ready` says whether a message can have a packet now (an answer needs a reply block).
    pub(crate) fn next(&mut self, mut ready: impl FnMut(&Outgoing) -> bool) -> Option<Next> {
        self.turn = (self.turn + 1) % TURN_OF_THE_BEGUN;
        let begun_first = self.turn == 0;
        let tries = self.fresh.len().min(64) + self.begun.len().min(64);
        for _ in 0..tries {
            let (id, from_fresh) = if begun_first {
                self.begun.pop_front().map(|id| (id, false)).or_else(|| Some((self.fresh.pop_front()?, true)))
            } else {
                self.fresh.pop_front().map(|id| (id, true)).or_else(|| Some((self.begun.pop_front()?, false)))
            }?;
            let Some(outgoing) = self.messages.get_mut(&id) else { continue };
            if outgoing.has_next() && !ready(outgoing) {
                self.begun.push_back(id);
                continue;
            }
            let (first, attempt) = (from_fresh && outgoing.cursor == 0, outgoing.attempt);
            let part = outgoing.next_part();
            outgoing.in_line = outgoing.has_next();
            if outgoing.in_line {
                self.begun.push_back(id);
            }
            let Some(part) = part else { continue };
            outgoing.under_way += 1;
            return Some(Next { message: id, part, first, attempt });
        }
        None
    }

    /// The bytes of a fragment.
    pub(crate) fn fragment(&mut self, id: MessageId, place: Place) -> Option<[u8; FRAGMENT_DATA]> {
        let outgoing = self.messages.get(&id)?;
        let Some(number) = usize::from(place.position).checked_sub(outgoing.shape.data_in(place.segment))
        else {
            return Some(data_fragment(outgoing.shape, place, &outgoing.body));
        };
        if !matches!(&self.parity, Some((of, segment, _)) if *of == id && *segment == place.segment) {
            let parity = Parity::of(outgoing.shape, place.segment, &outgoing.body);
            self.parity = Some((id, place.segment, parity));
        }
        self.parity.as_ref()?.2.get(number)?.try_into().ok()
    }

    /// A packet of a message has left on the tick `due`; `delivery` is the share of packets that arrive.
    pub(crate) fn emitted(&mut self, due: Time, id: MessageId, delivery: f64) -> Step {
        let Some(outgoing) = self.messages.get_mut(&id) else { return Step::None };
        outgoing.under_way = outgoing.under_way.saturating_sub(1);
        if outgoing.has_next() || outgoing.under_way > 0 {
            let worth = !outgoing.sent && outgoing.cursor.is_multiple_of(RECORD_EVERY);
            return if worth { Step::Progress } else { Step::None };
        }
        outgoing.tries += 1;
        let first = !core::mem::replace(&mut outgoing.sent, true);
        // There and back.
        let answered = f64::from(outgoing.tries) * delivery * delivery;
        let level = (answered.ceil() as u32).saturating_sub(1).min(16);
        outgoing.level = level;
        outgoing.unasked = false;
        // As threefold waits add up to; attempts that restarts have brought do not count.
        let grown = outgoing.age(due) * (BACKOFF - 1);
        let wait = self.pace.round_trip * BACKOFF.saturating_pow(level);
        let mut wait = wait.min(grown).max(self.pace.round_trip);
        outgoing.left = Some(due);
        if !outgoing.is_short() {
            // Its recipient waits until it is quiet.
            wait += self.pace.quiet;
        }
        self.wait_until(id, due + wait);
        if first { Step::Sent } else { Step::Progress }
    }

    /// A packet that was built is thrown away: its epoch is over.
    pub(crate) fn withdrawn(&mut self, id: MessageId, part: Part) {
        let Some(outgoing) = self.messages.get_mut(&id) else { return };
        outgoing.under_way = outgoing.under_way.saturating_sub(1);
        match part {
            Part::Short => outgoing.again = true,
            Part::Fragment(place) => outgoing.repairs.push_front(place),
            Part::Ask => outgoing.asks = outgoing.asks.saturating_add(1),
        }
        self.begin(id);
    }

    /// The next message that has expired. Call until `None`.
    pub(crate) fn poll_expired(&mut self, now: Time) -> Option<MessageId> {
        self.expiries.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }

    /// Sends again what should have been acknowledged by now; `delivery` as for [`emitted`](Self::emitted).
    pub(crate) fn handle_timeouts(&mut self, now: Time, delivery: f64) {
        while let Some(&(at, id)) = self.resends.first()
            && at <= now
        {
            self.resends.pop_first();
            let Some(outgoing) = self.messages.get_mut(&id) else { continue };
            outgoing.resend_at = None;
            outgoing.attempt = outgoing.attempt.saturating_add(1);
            if outgoing.is_short() {
                outgoing.again = true;
            } else {
                // What is lost on its way fills no mailbox.
                let most = f64::from(outgoing.fragments().div_ceil(EXTRA_PART)) / delivery;
                let part = (most / 2.0).ceil() as u32;
                let left = (most as u32).saturating_sub(outgoing.extra);
                outgoing.unasked = !outgoing.has_next();
                outgoing.add_extra(part.min(left));
                outgoing.asks = outgoing.asks.max((1.0 / delivery).round().clamp(1.0, 4.0) as u8);
            }
            self.begin(id);
        }
    }

    /// The recipient has said what it has of a message. Returns whether that was all of it.
    pub(crate) fn handle_report(&mut self, now: Time, id: MessageId, report: Report, delivery: f64) -> bool {
        let Some(outgoing) = self.messages.get_mut(&id) else { return false };
        if report == Report::Whole {
            return true;
        }
        // The same again is a copy of the report that was answered already, or came while its answer was on its way.
        let again = outgoing
            .answered
            .as_ref()
            .is_some_and(|(answered, at)| *answered == report && now - *at < self.pace.round_trip);
        if again || !outgoing.sent || (outgoing.has_next() && !outgoing.unasked) {
            return false;
        }
        outgoing.take_back_unasked();
        if outgoing.is_short() {
            outgoing.again = true;
        }
        match &report {
            _ if outgoing.is_short() => {}
            Report::Whole => {}
            Report::Nothing => {
                outgoing.parity.clear();
                outgoing.cursor = 0;
                outgoing.extra = 0;
            }
            Report::Partial { open, .. } => {
                for (segment, there) in open {
                    if *segment < outgoing.shape.segments() {
                        outgoing.repair(*segment, there, 1.0 - delivery);
                    }
                }
                outgoing.asks = outgoing.asks.max(1);
            }
        }
        outgoing.attempt = outgoing.attempt.saturating_add(1);
        outgoing.tries = 0;
        outgoing.answered = Some((report, now));
        if let Some(at) = outgoing.resend_at.take() {
            self.resends.remove(&(at, id));
        }
        self.begin(id);
        false
    }

    /// The network carries again, after it had not since `from`: what was sent in the meantime is sent again now.
    ///
    /// Not all at one instant: whoever gets two of them shall not see that they have one sender. And once for each time that
    /// the wait has grown: where trouble comes and goes, it would undo what waiting is for.
    pub(crate) fn handle_mended(&mut self, now: Time, from: Time, rng: &mut Rng) {
        let affected = |outgoing: &Outgoing| {
            outgoing.left.is_some_and(|left| left >= from) && outgoing.mended != Some(outgoing.level)
        };
        let round_trip = self.pace.round_trip;
        for id in self.late(now, affected) {
            if let Some(outgoing) = self.messages.get_mut(&id) {
                outgoing.mended = Some(outgoing.level);
            }
            self.bring_forward(id, now + rng.exponential(round_trip));
        }
    }

    /// Blocks have come, asked for or not: what waits to be sent through such again may have been lost.
    pub(crate) fn handle_blocks(&mut self, now: Time, of: MessageId) {
        let round_trip = self.pace.round_trip;
        let affected = |outgoing: &Outgoing| {
            matches!(outgoing.target, Target::Reply(to) if to == of)
                && outgoing.left.is_none_or(|left| now - left >= round_trip)
        };
        for id in self.late(now, affected) {
            self.bring_forward(id, now);
        }
    }

    /// What is to be sent again later than now, and is meant.
    fn late(&self, now: Time, which: impl Fn(&Outgoing) -> bool) -> Vec<MessageId> {
        let late = self.resends.iter().filter(|(at, _)| *at > now);
        late.filter(|(_, id)| self.messages.get(id).is_some_and(&which)).map(|(_, id)| *id).collect()
    }

    fn bring_forward(&mut self, id: MessageId, at: Time) {
        let planned = self.messages.get(&id).and_then(|outgoing| outgoing.resend_at);
        if planned.is_some_and(|planned| planned > at) {
            self.wait_until(id, at);
        }
    }

    /// Takes a message out.
    pub(crate) fn remove(&mut self, id: &MessageId) -> Option<Outgoing> {
        let outgoing = self.messages.remove(id)?;
        self.bytes -= outgoing.body.len();
        self.expiries.remove(&(outgoing.expires, *id));
        if let Some(at) = outgoing.resend_at {
            self.resends.remove(&(at, *id));
        }
        if self.parity.as_ref().is_some_and(|(of, ..)| of == id) {
            self.parity = None;
        }
        Some(outgoing)
    }

    pub(crate) fn get(&self, id: &MessageId) -> Option<&Outgoing> {
        self.messages.get(id)
    }

    /// Whether a message waits that has not begun.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Messages of which something has not left for the first time.
    pub(crate) fn unsent(&self) -> usize {
        self.messages.values().filter(|outgoing| !outgoing.sent).count()
    }

    /// Messages that are not acknowledged.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&MessageId, &Outgoing)> {
        self.messages.iter()
    }

    /// When something is to be done if nothing comes in.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let first = |set: &BTreeSet<(Time, MessageId)>| set.first().map(|(at, _)| *at);
        [first(&self.expiries), first(&self.resends)].into_iter().flatten().min()
    }

    fn wait_until(&mut self, id: MessageId, at: Time) {
        let Some(outgoing) = self.messages.get_mut(&id) else { return };
        if let Some(before) = outgoing.resend_at.replace(at) {
            self.resends.remove(&(before, id));
        }
        self.resends.insert((at, id));
    }

    /// A message has something to send again.
    fn begin(&mut self, id: MessageId) {
        let Some(outgoing) = self.messages.get_mut(&id) else { return };
        if outgoing.has_next() && !outgoing.in_line {
            outgoing.in_line = true;
            self.begun.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests;
