//! The packets that are under way.

use tombola_mixing::Time;

use crate::metrics::masses::ZERO;
use crate::mixes::PacketId;

/// What a packet is for. Nobody but its sender and its recipient can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A user's message.
    Real,
    /// Sent on a tick of the main stream because no message waited.
    Cover,
    /// Comes back to its sender.
    Loop,
    /// Is discarded by a gateway.
    Drop,
    /// A mix's own, through the layers behind it.
    MixOut,
    /// A mix's own, through the layers ahead of it.
    MixIn,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Real, Self::Cover, Self::Loop, Self::Drop, Self::MixOut, Self::MixIn];

    /// As results spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Cover => "cover",
            Self::Loop => "loop",
            Self::Drop => "drop",
            Self::MixOut => "mix_out",
            Self::MixIn => "mix_in",
        }
    }
}

/// One packet: a line of a processor's cache, since hardly any of a million packets is still in the cache when its next
/// event comes.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Packet {
    /// When it was sent.
    pub sent: Time,
    /// Delays at the first mixes.
    delays: [u64; INLINE],
    /// Those mixes.
    mixes: [u32; INLINE],
    /// A client; a mix's own have the number of clients plus the mix.
    pub sender: u32,
    /// How many the sender had sent before.
    pub number: u32,
    /// A client; behind those, gateways; behind those, mixes.
    pub receiver: u32,
    /// What is tracked of it (see [`crate::metrics::masses`]).
    pub slot: u32,
    /// What it is for.
    pub kind: Kind,
    /// Mixes that it has passed.
    pub hop: u8,
    /// Mixes of its route.
    pub hops: u8,
}

/// Mixes of a route that are kept with the packet.
const INLINE: usize = 3;

const _: () = assert!(size_of::<Packet>() == 64);

/// One mix of a route.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hop {
    /// In nanoseconds, as the sender drew it.
    pub delay: u64,
    /// Which one.
    pub mix: u32,
}

/// All packets, in arrays without gaps that are used again.
pub struct Packets {
    packets: Vec<Packet>,
    /// When a packet's message was written; empty if messages are sent when they are written.
    written: Vec<Time>,
    waits: bool,
    /// Mixes beyond the first ones, so many for each packet.
    more: Vec<Hop>,
    per_packet: usize,
    /// What each link takes, in nanoseconds, [`LOST`] if it loses the packet; empty if all links are alike.
    links: Vec<u64>,
    links_per_packet: usize,
    free: Vec<PacketId>,
}

/// In place of what a link takes: it loses the packet.
pub const LOST: u64 = u64::MAX;

impl Packets {
    /// None yet, with room for so many hops each.
    #[must_use]
    pub fn new(hops: usize, drawn_links: bool, waits: bool) -> Self {
        Self {
            packets: Vec::new(),
            written: Vec::new(),
            waits,
            more: Vec::new(),
            per_packet: hops.saturating_sub(INLINE),
            links: Vec::new(),
            links_per_packet: if drawn_links { hops + 1 } else { 0 },
            free: Vec::new(),
        }
    }

    /// A new packet without a route.
    #[inline]
    pub fn insert(&mut self, sent: Time, written: Time, sender: u32, number: u32, kind: Kind) -> PacketId {
        let packet = Packet {
            sent,
            delays: [0; INLINE],
            mixes: [0; INLINE],
            sender,
            number,
            receiver: 0,
            slot: ZERO,
            kind,
            hop: 0,
            hops: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.packets[id.0 as usize] = packet;
                id
            }
            None => {
                self.packets.push(packet);
                self.more.resize(self.packets.len() * self.per_packet, Hop::default());
                self.links.resize(self.packets.len() * self.links_per_packet, 0);
                if self.waits {
                    self.written.push(written);
                }
                PacketId(self.packets.len() as u32 - 1)
            }
        };
        if self.waits {
            self.written[id.0 as usize] = written;
        }
        id
    }

    /// When the packet's message was written; of cover, when it was sent.
    #[inline]
    #[must_use]
    pub fn written(&self, id: PacketId) -> Time {
        if self.waits { self.written[id.0 as usize] } else { self.get(id).sent }
    }

    /// The packet is gone.
    #[inline]
    pub fn remove(&mut self, id: PacketId) {
        self.free.push(id);
    }

    /// Packets under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.packets.len() - self.free.len()
    }

    /// One packet.
    #[inline]
    #[must_use]
    pub fn get(&self, id: PacketId) -> &Packet {
        &self.packets[id.0 as usize]
    }

    /// One packet.
    #[inline]
    pub fn get_mut(&mut self, id: PacketId) -> &mut Packet {
        &mut self.packets[id.0 as usize]
    }

    /// Its route.
    pub fn route(&self, id: PacketId) -> impl Iterator<Item = Hop> + '_ {
        (0..self.get(id).hops).map(move |hop| self.hop(id, hop))
    }

    /// One mix of its route.
    #[inline]
    #[must_use]
    pub fn hop(&self, id: PacketId, hop: u8) -> Hop {
        let packet = self.get(id);
        match usize::from(hop).checked_sub(INLINE) {
            None => Hop { delay: packet.delays[usize::from(hop)], mix: packet.mixes[usize::from(hop)] },
            Some(beyond) => self.more[id.0 as usize * self.per_packet + beyond],
        }
    }

    /// The route goes on.
    #[inline]
    pub fn add_hop(&mut self, id: PacketId, mix: u32) {
        let packet = &mut self.packets[id.0 as usize];
        match usize::from(packet.hops).checked_sub(INLINE) {
            None => packet.mixes[usize::from(packet.hops)] = mix,
            Some(beyond) => self.more[id.0 as usize * self.per_packet + beyond].mix = mix,
        }
        packet.hops += 1;
    }

    /// What the packet's delay in a mix of its route is.
    #[inline]
    pub fn set_delay(&mut self, id: PacketId, hop: u8, delay: u64) {
        match usize::from(hop).checked_sub(INLINE) {
            None => self.packets[id.0 as usize].delays[usize::from(hop)] = delay,
            Some(beyond) => self.more[id.0 as usize * self.per_packet + beyond].delay = delay,
        }
    }

    /// The mix where it is, or where it goes.
    #[inline]
    #[must_use]
    pub fn current(&self, id: PacketId) -> Hop {
        self.hop(id, self.get(id).hop)
    }

    /// What its links take, if that was drawn.
    #[inline]
    pub fn links_mut(&mut self, id: PacketId) -> &mut [u64] {
        let from = id.0 as usize * self.links_per_packet;
        &mut self.links[from..from + self.links_per_packet]
    }

    /// What the link to its next hop takes.
    #[inline]
    #[must_use]
    pub fn link(&self, id: PacketId) -> u64 {
        self.links[id.0 as usize * self.links_per_packet + usize::from(self.get(id).hop)]
    }
}
