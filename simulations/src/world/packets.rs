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

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// When it was sent.
    pub sent: Time,
    /// When its user wrote the message; of cover, when it was sent.
    pub written: Time,
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
    hops: Vec<Hop>,
    per_packet: usize,
    /// What each link takes, in nanoseconds, [`LOST`] if it loses the packet; empty if all links are alike.
    links: Vec<u64>,
    drawn_links: bool,
    free: Vec<PacketId>,
}

/// In place of what a link takes: it loses the packet.
pub const LOST: u64 = u64::MAX;

impl Packets {
    /// None yet, with room for so many hops each.
    #[must_use]
    pub fn new(hops: usize, drawn_links: bool) -> Self {
        let (packets, free) = (Vec::new(), Vec::new());
        Self { packets, hops: Vec::new(), per_packet: hops, links: Vec::new(), drawn_links, free }
    }

    /// A new packet without a route.
    #[inline]
    pub fn insert(&mut self, sent: Time, written: Time, sender: u32, number: u32, kind: Kind) -> PacketId {
        let packet =
            Packet { sent, written, sender, number, receiver: 0, slot: ZERO, kind, hop: 0, hops: 0 };
        if let Some(id) = self.free.pop() {
            self.packets[id.0 as usize] = packet;
            return id;
        }
        let id = PacketId(self.packets.len() as u32);
        self.packets.push(packet);
        self.hops.resize(self.hops.len() + self.per_packet, Hop::default());
        if self.drawn_links {
            self.links.resize(self.links.len() + self.per_packet + 1, 0);
        }
        id
    }

    /// The packet is gone.
    #[inline]
    pub fn remove(&mut self, id: PacketId) {
        self.free.push(id);
    }

    /// Packets under way.
    #[must_use]
    pub fn len(&self) -> usize {
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
    #[inline]
    #[must_use]
    pub fn route(&self, id: PacketId) -> &[Hop] {
        let from = id.0 as usize * self.per_packet;
        &self.hops[from..from + usize::from(self.get(id).hops)]
    }

    /// Room for its route.
    #[inline]
    pub fn route_mut(&mut self, id: PacketId) -> &mut [Hop] {
        let from = id.0 as usize * self.per_packet;
        &mut self.hops[from..from + self.per_packet]
    }

    /// The mix where it is, or where it goes.
    #[inline]
    #[must_use]
    pub fn current(&self, id: PacketId) -> Hop {
        self.hops[id.0 as usize * self.per_packet + usize::from(self.get(id).hop)]
    }

    /// What its links take, if that was drawn.
    #[inline]
    pub fn links_mut(&mut self, id: PacketId) -> &mut [u64] {
        let from = id.0 as usize * (self.per_packet + 1);
        &mut self.links[from..from + self.per_packet + 1]
    }

    /// What the link to its next hop takes.
    #[inline]
    #[must_use]
    pub fn link(&self, id: PacketId) -> u64 {
        self.links[id.0 as usize * (self.per_packet + 1) + usize::from(self.get(id).hop)]
    }
}
