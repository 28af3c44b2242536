//! Opens batches of packets: the stateless half of every hop, shared by its workers.
//!
//! The order is fixed by the types of `tombola-sphinx`: header MAC, then freshness, then admission (next hop of the
//! right role, the ticket that the sender meant), then the payload, in place. Load is shed before a header is processed: a packet
//! takes its place in the node ([`Occupancy`]) first, and what was opened is never dropped for load. Before that it passes the
//! [`Gate`], where packets are paid for.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tombola_mixing::Time;
use tombola_sphinx::{
    Admission, Admitted, Destination, PACKET_LEN, RelaySecrets, ReplayFilter, Routing, SecretKey,
    UnwrapError, Verified, unwrap_batch, verify_batch,
};
use tombola_tickets::por::{self, Ack, AckCheck, Challenge, Check, Opener as TicketOpener, OwnSecret};
use tombola_topology::{IdentityKey, MailboxId, Parameters, Role};

use crate::drops::{DropCounters, DropReason};
use crate::durable::TagPlace;
use crate::frame::{CHALLENGE_LEN, Frame, FrameKind, LinkMeta, Parity};
use crate::gate::{Doors, Gate};
use crate::hop::NextHop;
use crate::replay::{ReplayError, TagFilter, fingerprint};
use crate::taglog::TagLog;
use crate::view::Seat;

/// How many packets a batch may have.
pub const BATCH_MAX: usize = 32;

/// A frame as a link handed it over.
#[derive(Debug)]
pub struct Inbound {
    /// When it had arrived.
    pub arrived: Time,
    /// Who sent it, as the link knows it. What that means depends on the epoch.
    pub from: IdentityKey,
    /// The frame.
    pub frame: Frame,
}

impl AsMut<[u8; PACKET_LEN]> for Inbound {
    fn as_mut(&mut self) -> &mut [u8; PACKET_LEN] {
        self.frame.packet_mut()
    }
}

/// A packet whose layer was taken off. The frame holds the next hop's packet.
#[derive(Debug)]
pub struct Opened {
    /// When it had arrived: its delay counts from here.
    pub arrived: Time,
    /// Who sent it.
    pub from: IdentityKey,
    /// The frame, with the packet for the next hop; at a final hop with the payload. Its head is still as it came: the parity of
    /// the key, and the packet's number on that link.
    pub frame: Frame,
    /// What the header said.
    pub order: Order,
    /// When the packet may leave: not before this is durable.
    pub tag: TagPlace,
    /// What this hop may earn with it.
    pub ticket: Ticket,
}

/// What a hop knows of its ticket for a packet.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The ticket's challenge, which came beside the packet and is the one that the sender meant.
    pub challenge: Challenge,
    /// What this hop reveals to the one before when it takes the packet.
    pub ack: Ack,
    /// What opens the ticket.
    pub half: Half,
}

/// What a hop has of its ticket's opener.
#[derive(Clone, Debug)]
pub enum Half {
    /// Its own half; the next hop's acknowledgement is the other one.
    Own(OwnSecret),
    /// All of it: it is the last hop that is paid.
    Whole(TicketOpener),
}

/// What a header tells this node to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Hold it that long, then pass it on.
    Forward {
        /// The next hop, a successor of this node in the epoch whose key opened the packet.
        next: IdentityKey,
        /// Nanoseconds, as the sender drew them.
        delay_ns: u64,
        /// Of the next hop's ticket: goes into the meta field of the next link's frame.
        challenge: [u8; CHALLENGE_LEN],
    },
    /// Put it into a mailbox.
    Store(MailboxId),
    /// It ends here.
    End {
        /// The id of a loop, or random.
        identifier: [u8; 16],
    },
}

/// Places in a node: how many packets it holds between header and departure.
#[derive(Clone, Debug)]
pub struct Occupancy {
    taken: Arc<AtomicUsize>,
    capacity: usize,
}

impl Occupancy {
    /// `capacity` places.
    pub fn new(capacity: usize) -> Self {
        Self { taken: Arc::default(), capacity }
    }

    /// Takes a place, or not.
    pub fn take(&self) -> bool {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.capacity).then_some(n + 1))
            .is_ok()
    }

    /// Gives a place back.
    pub fn give_back(&self) {
        // Saturating: a place that is given back twice must not close the node for ever.
        let less = |n: usize| Some(n.saturating_sub(1));
        let _ = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Places taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// All places.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

/// Admits the network's rate in the mean and a second of it at once, so that the replay filter, which is sized for that
/// rate, lasts as long as its key (the virtual scheduling algorithm of ITU-T I.371, without a lock).
#[derive(Debug)]
struct RateLimit {
    /// Nanoseconds per packet.
    interval: u64,
    /// When the next packet would be due if packets came at exactly that rate.
    due: AtomicU64,
}

/// How far packets may run ahead of the rate, in nanoseconds.
const BURST: u64 = 1_000_000_000;

impl RateLimit {
    fn new(packets_per_second: u32) -> Self {
        Self {
            interval: 1_000_000_000u64.div_ceil(u64::from(packets_per_second.max(1))),
            due: AtomicU64::new(0),
        }
    }

    fn admit(&self, now: Time) -> bool {
        let now = now.as_nanos();
        let next =
            |due: u64| (due.saturating_sub(now) <= BURST).then(|| due.max(now).saturating_add(self.interval));
        self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// A Sphinx key, and what was seen under it. The two live and die together.
pub struct NodeKey {
    secret: SecretKey,
    seen: TagFilter,
    log: Option<Arc<dyn TagLog>>,
}

impl NodeKey {
    /// A key and its filter. With a log, which holds what the filter does, it may outlive the process.
    pub fn new(secret: SecretKey, seen: TagFilter, log: Option<Arc<dyn TagLog>>) -> Self {
        Self { secret, seen, log }
    }

    /// The filter.
    pub fn seen(&self) -> &TagFilter {
        &self.seen
    }
}

impl core::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("NodeKey(..)")
    }
}

/// A key in use, and the epoch that it belongs to.
struct Slot {
    seat: Seat,
    key: Arc<NodeKey>,
    /// Nanoseconds per packet at one neighbour's part of the network's rate.
    part: u64,
}

/// Opens packets for one node. Shared by all its workers; keys come and go while they work.
pub struct Opener {
    /// By parity. Read once per batch.
    slots: RwLock<[Option<Arc<Slot>>; 2]>,
    draining: AtomicBool,
    occupancy: Occupancy,
    rate: RateLimit,
    /// Who is let in, where packets are paid for.
    gate: OnceLock<Arc<Gate>>,
    drops: Arc<DropCounters>,
}

impl Opener {
    /// An opener without any key.
    pub fn new(parameters: &Parameters, occupancy: Occupancy, drops: Arc<DropCounters>) -> Self {
        let rate = RateLimit::new(parameters.admitted_rate);
        let (slots, draining, gate) = (RwLock::default(), AtomicBool::new(false), OnceLock::new());
        Self { slots, draining, occupancy, rate, gate, drops }
    }

    /// From now on lets in only what payment takes ([`Payments::gate`](crate::payment::Payments::gate)). The first gate stays.
    pub fn guard(&self, gate: Arc<Gate>) {
        let _ = self.gate.set(gate);
    }

    /// Takes packets of an epoch from now on, in the place of the one of the same parity.
    pub fn open(&self, seat: Seat, key: Arc<NodeKey>) {
        let parity = seat.view().parity();
        let part = self.rate.interval.saturating_mul(seat.predecessors().max(1) as u64);
        self.set(parity, Some(Arc::new(Slot { seat, key, part })));
    }

    /// Takes packets of that parity no more. A batch that is being opened may hold the key for some milliseconds still.
    pub fn close(&self, parity: Parity) {
        self.set(parity, None);
    }

    fn set(&self, parity: Parity, slot: Option<Arc<Slot>>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let before = core::mem::replace(&mut slots[parity.index()], slot);
        drop(slots);
        // Outside of the lock: a large filter may go with it.
        drop(before);
    }

    /// Takes nothing new from now on: the node is about to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Opens a batch of at most [`BATCH_MAX`] frames in place and appends what it yields to `out`; the rest is
    /// counted by reason. `batch` is empty afterwards; `spare` gets the frames of what was dropped, for reuse.
    pub fn open_batch(&self, batch: &mut Vec<Inbound>, out: &mut Vec<Opened>, spare: &mut Vec<Frame>) {
        // Two counts of references; the lock is written to a few times in an epoch.
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner).clone();
        let doors = self.gate.get().map(|gate| gate.doors());
        let mut at = 0;
        while at < batch.len() {
            match self.precheck(&slots, doors.as_deref(), &batch[at]) {
                Ok(()) => at += 1,
                Err(reason) => self.drop(reason, batch.swap_remove(at).frame, spare),
            }
        }
        // With one key, which is often, nothing moves.
        let [even, odd] = &slots;
        let old = partition(batch, |inbound| inbound.frame.parity().index() == 0);
        let doors = doors.as_deref();
        self.open_under_key(odd.as_deref(), doors, batch, old, out, spare);
        self.open_under_key(even.as_deref(), doors, batch, 0, out, spare);
    }

    /// What costs nothing: layout, direction, a key, that it is paid for, a place.
    fn precheck(
        &self,
        slots: &[Option<Arc<Slot>>; 2],
        doors: Option<&Doors>,
        inbound: &Inbound,
    ) -> Result<(), DropReason> {
        match inbound.frame.kind() {
            // What clients say there is said to their gateway only.
            Ok(FrameKind::Packet) if inbound.frame.acknowledged() == 0 => {}
            Ok(FrameKind::Packet) | Err(_) => return Err(DropReason::BadFrame),
            Ok(_) => return Err(DropReason::WrongDirection),
        }
        if self.draining.load(Ordering::Relaxed) {
            return Err(DropReason::Draining);
        }
        let slot = slots[inbound.frame.parity().index()].as_ref().ok_or(DropReason::NoKey)?;
        if !slot.seat.takes_from(&inbound.from) {
            return Err(DropReason::WrongDirection);
        }
        // Whoever does not pay takes no place from those who do.
        if let Some(doors) = doors {
            let door = doors.get(&inbound.from).ok_or(DropReason::Unpaid);
            door.and_then(|door| door.enter(inbound.frame.parity(), inbound.arrived, slot.part))
                .inspect_err(|reason| self.count_refused(*reason))?;
        }
        // A place first: what is shed for overload does not use up the rate.
        if !self.occupancy.take() {
            leave(doors, &inbound.from, inbound.frame.parity());
            return Err(DropReason::Overload);
        }
        if !self.rate.admit(inbound.arrived) {
            leave(doors, &inbound.from, inbound.frame.parity());
            self.occupancy.give_back();
            return Err(DropReason::RateLimited);
        }
        Ok(())
    }

    fn count_refused(&self, reason: DropReason) {
        if let (DropReason::Unpaid, Some(gate)) = (reason, self.gate.get()) {
            gate.count_refused();
        }
    }

    /// Opens everything from `start` on under the key of that slot, and takes it out of the batch.
    fn open_under_key(
        &self,
        slot: Option<&Slot>,
        doors: Option<&Doors>,
        batch: &mut Vec<Inbound>,
        start: usize,
        out: &mut Vec<Opened>,
        spare: &mut Vec<Frame>,
    ) {
        let Some(slot) = slot else {
            debug_assert!(batch.len() == start, "precheck leaves only frames whose key is here");
            return batch.truncate(start);
        };
        while batch.len() > start {
            let count = (batch.len() - start).min(BATCH_MAX);
            let mut orders = [const { Err(DropReason::BadMac) }; BATCH_MAX];
            let mut admitted = [const { None }; BATCH_MAX];
            let mut tags = Tags { fingerprints: [0; BATCH_MAX], count: 0 };
            let mut metas = [LinkMeta::NONE; BATCH_MAX];
            for (meta, inbound) in metas.iter_mut().zip(&batch[start..start + count]) {
                *meta = inbound.frame.link_meta();
            }
            verify_batch(
                &mut batch[start..start + count],
                |_| &slot.key.secret,
                |at, verified| match slot.admit(&mut tags, &metas[at], verified) {
                    Ok((order, ticket, packet)) => {
                        orders[at] = Ok((order, ticket));
                        admitted[at] = Some(packet);
                    }
                    Err(reason) => orders[at] = Err(reason),
                },
            );
            let tag = match slot.key.log(&tags) {
                Ok(tag) => {
                    unwrap_batch(admitted.into_iter().flatten(), |_, _| {});
                    tag
                }
                // The filter remembers them, which does no harm: none of them left.
                Err(reason) => {
                    orders.iter_mut().filter(|order| order.is_ok()).for_each(|order| *order = Err(reason));
                    TagPlace::default()
                }
            };
            for (Inbound { arrived, from, frame }, order) in batch.drain(start..start + count).zip(orders) {
                match order {
                    Ok((order, ticket)) => {
                        out.push(Opened { arrived, from, frame, order, tag: tag.clone(), ticket });
                    }
                    Err(reason) => {
                        leave(doors, &from, frame.parity());
                        self.occupancy.give_back();
                        self.drop(reason, frame, spare);
                    }
                }
            }
        }
    }

    fn drop(&self, reason: DropReason, frame: Frame, spare: &mut Vec<Frame>) {
        self.drops.count(reason);
        spare.push(frame);
    }
}

/// A packet that was let in goes no further: its place is free again.
fn leave(doors: Option<&Doors>, from: &IdentityKey, parity: Parity) {
    if let Some(door) = doors.and_then(|doors| doors.get(from)) {
        door.leave(parity);
    }
}

/// The fingerprints that a batch put into a key's filter.
struct Tags {
    fingerprints: [u64; BATCH_MAX],
    count: usize,
}

impl NodeKey {
    /// Writes the fingerprints of a batch down, in one go.
    fn log(&self, tags: &Tags) -> Result<TagPlace, DropReason> {
        match &self.log {
            Some(log) if tags.count > 0 => {
                let position = log.append(&tags.fingerprints[..tags.count]);
                position
                    .map(|position| TagPlace::new(Arc::clone(log), position))
                    .map_err(|_| DropReason::Storage)
            }
            _ => Ok(TagPlace::default()),
        }
    }
}

impl Slot {
    fn admit<'p>(
        &self,
        tags: &mut Tags,
        meta: &LinkMeta,
        verified: Result<Verified<'p>, UnwrapError>,
    ) -> Result<(Order, Ticket, Admitted<'p>), DropReason> {
        let verified = verified.map_err(reason_of)?;
        let tag = verified.replay_tag();
        let fresh = verified.check_fresh(&self.key.seen).map_err(reason_of_replay)?;
        tags.fingerprints[tags.count] = fingerprint(&tag);
        tags.count += 1;
        let order = self.order_of(fresh.routing())?;
        let toll = Toll { meta, role: self.seat.role(), ticket: Cell::new(None) };
        let packet = fresh.admit(&toll)?;
        let ticket = toll.ticket.take().ok_or(DropReason::BadTicket)?;
        Ok((order, ticket, packet))
    }

    /// What a header asks for, if this role does it.
    fn order_of(&self, routing: &Routing) -> Result<Order, DropReason> {
        match routing {
            Routing::Forward { next, delay_ns } => match (NextHop::from_bytes(next), self.seat.role()) {
                (NextHop::Node { index, challenge, .. }, Role::Mix { .. }) => {
                    let next = self.seat.successor(index).ok_or(DropReason::BadNextHop)?;
                    Ok(Order::Forward { next, delay_ns: *delay_ns, challenge })
                }
                (NextHop::Mailbox(mailbox), Role::Gateway) => Ok(Order::Store(mailbox)),
                _ => Err(DropReason::BadNextHop),
            },
            Routing::Final(Destination { identifier, .. }) => Ok(Order::End { identifier: *identifier }),
        }
    }
}

/// Looks, between replay and payload, whether the ticket that came beside a packet is the one that its sender meant.
struct Toll<'m> {
    meta: &'m LinkMeta,
    role: Role,
    ticket: Cell<Option<Ticket>>,
}

impl Admission for Toll<'_> {
    type Refused = DropReason;

    fn admit(&self, relay: &RelaySecrets, routing: &Routing) -> Result<(), DropReason> {
        let bad = |_| DropReason::BadTicket;
        let (challenge, ack) = (Challenge::from_bytes(self.meta.challenge), Ack::of(relay));
        // Gateway and client recognise the first hop's acknowledgement by what came with the packet.
        if self.role == (Role::Mix { layer: 1 }) {
            ack.verify(&AckCheck::from_bytes(self.meta.ack_check)).map_err(bad)?;
        }
        let next = match routing {
            Routing::Forward { next, .. } => Some(NextHop::from_bytes(next)),
            Routing::Final(_) => None,
        };
        let half = match next {
            Some(NextHop::Node { check, .. }) => {
                por::verify_check(relay, &challenge, &Check::from_bytes(check)).map_err(bad)?;
                Half::Own(OwnSecret::of(relay))
            }
            // A mailbox's gateway, or a final hop: nobody behind it is paid.
            _ => Half::Whole(por::verify_last(relay, &challenge).map_err(bad)?),
        };
        self.ticket.set(Some(Ticket { challenge, ack, half }));
        Ok(())
    }
}

/// A client's own layer: nobody is paid for it.
struct Unpaid;

impl Admission for Unpaid {
    type Refused = DropReason;

    fn admit(&self, _relay: &RelaySecrets, _routing: &Routing) -> Result<(), DropReason> {
        Ok(())
    }
}

/// Takes a client's own layer off: the same typed steps, without a ticket.
pub(crate) fn unpaid(
    verified: Result<Verified<'_>, UnwrapError>,
    seen: &impl ReplayFilter<Rejected = ReplayError>,
) -> Result<Routing, DropReason> {
    let fresh = verified.map_err(reason_of)?.check_fresh(seen).map_err(reason_of_replay)?;
    Ok(fresh.admit(&Unpaid)?.unwrap().routing)
}

fn reason_of_replay(rejected: ReplayError) -> DropReason {
    match rejected {
        ReplayError::Seen => DropReason::Replay,
        ReplayError::Full => DropReason::FilterFull,
    }
}

fn reason_of(error: UnwrapError) -> DropReason {
    match error {
        UnwrapError::NonCanonicalPoint | UnwrapError::SmallOrderPoint => DropReason::BadPoint,
        UnwrapError::Mac => DropReason::BadMac,
        UnwrapError::Version(_) | UnwrapError::Flag(_) => DropReason::BadHeader,
    }
}

/// Moves what `belongs` to the front and returns how many that are. Order within the groups is kept for the front.
fn partition<T>(items: &mut [T], belongs: impl Fn(&T) -> bool) -> usize {
    let mut front = 0;
    for at in 0..items.len() {
        if belongs(&items[at]) {
            items.swap(front, at);
            front += 1;
        }
    }
    front
}

impl core::fmt::Debug for Opener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn the_rate_is_kept_in_the_mean_and_a_second_of_it_at_once() {
        let limit = RateLimit::new(100);
        let mut now = Time::from_nanos(5_000_000_000);
        let at_once = (0..1000).filter(|_| limit.admit(now)).count();
        assert_eq!(at_once, 101);
        let mut later = 0;
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            later += usize::from(limit.admit(now));
        }
        assert_eq!(later, 1000, "ten seconds at 100 a second");
    }

    #[test]
    fn a_place_given_back_twice_does_not_close_the_node() {
        let occupancy = Occupancy::new(1);
        assert!(occupancy.take() && !occupancy.take());
        occupancy.give_back();
        occupancy.give_back();
        assert_eq!(occupancy.taken(), 0);
        assert!(occupancy.take());
    }
}
