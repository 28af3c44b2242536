//! What goes into payment and what comes out of it.

use std::sync::Arc;

use tombola_tickets::por::{AckCheck, Challenge};
use tombola_tickets::{
    Address, ClassNumber, Domain, Limits, Opener, PacketId, PriceClass, Refused, SignerKey, Stop, TicketId,
    UnixSeconds, WindowClaim, WindowNumber,
};
use tombola_topology::IdentityKey;
use zeroize::Zeroizing;

use crate::drops::DropCounters;
use crate::frame::Frame;
use crate::unix::WallClock;

/// One account on the chain, and what its owner's process needs of it.
pub struct Account {
    /// The account.
    pub address: Address,
    /// Signs batches for it.
    pub signer: SignerKey,
    /// Random, kept, and used for nothing but the randomness of windows and the numbers of sessions.
    pub secret: Zeroizing<[u8; 32]>,
    /// Where its tickets are worth something.
    pub domain: Domain,
}

impl core::fmt::Debug for Account {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Account({})", self.address)
    }
}

/// Between whom tickets of an epoch go on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Terms {
    /// The other end's account.
    pub account: Address,
    /// What a ticket is worth.
    pub class: ClassNumber,
}

/// Which way the money goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// We pay.
    Paying,
    /// We are paid.
    Earning,
}

/// What the chain says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// What time it is outside, by which classes begin and expire. To be told every few seconds; in between, and if nobody tells, the
    /// monotonic clock counts on.
    Time(UnixSeconds),
    /// Our deposit, without what is under notice.
    Deposit(u128),
    /// What an issuer guarantees to us: reserve and share of its stake.
    Guarantee {
        /// Who.
        issuer: Address,
        /// How much.
        amount: u128,
    },
    /// How far a key signs for an issuer, besides the issuer's own, which always does.
    Signer {
        /// Who.
        issuer: Address,
        /// A key.
        signer: Address,
        /// What it signs.
        signs: Signs,
    },
    /// A price class, read back when its registration was final.
    Class(ClassNumber, PriceClass),
    /// A window in which we are the issuer was claimed, finally.
    Claimed {
        /// By whom.
        recipient: Address,
        /// Which.
        window: WindowNumber,
        /// What it cost us.
        spent: u128,
    },
    /// A window that we claimed is settled, finally.
    Settled {
        /// Who paid.
        issuer: Address,
        /// Which.
        window: WindowNumber,
        /// How much was paid, in the smallest unit of the token.
        amount: u128,
    },
}

/// Which batches a key can sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// All.
    All,
    /// It was revoked: those of classes that expire until then. Others are void.
    Until(UnixSeconds),
    /// None: it was never registered, or not finally.
    Nothing,
}

impl Signs {
    /// Whether a batch of this class binds the issuer.
    pub fn covers(self, price: &PriceClass) -> bool {
        match self {
            Self::All => true,
            Self::Until(last) => price.expiry <= last,
            Self::Nothing => false,
        }
    }
}

/// What comes out.
#[derive(Debug)]
pub enum PaymentOutput {
    /// A packet or a control frame for a neighbour, in this order.
    Send {
        /// Who.
        to: IdentityKey,
        /// The frame.
        frame: Frame,
    },
    /// Winners to be claimed on the chain, as often as it takes. They come again after a restart.
    Claim(WindowClaim),
    /// Somebody new wants to pay from this account: what the chain says of it, and of the key that was shown, is wanted.
    Watch {
        /// The account.
        account: Address,
        /// The key.
        signer: Address,
    },
    /// Nobody wants to pay from this account with this key any more.
    Forget {
        /// The account.
        account: Address,
        /// The key.
        signer: Address,
    },
    /// Nothing is left to be claimed or paid after [`Payments::wind_up`](super::Payments::wind_up): the sum over all accounts.
    Settled(Box<tombola_tickets::Account>),
}

/// What a packet earns when the one behind us acknowledges it. To be kept beside the packet.
#[derive(Debug, Default)]
pub struct Owed(pub(super) Debt);

#[derive(Debug, Default)]
pub(super) enum Debt {
    /// Our own packet.
    #[default]
    Nothing,
    /// A ticket of a neighbour's.
    Ticket(Terms, TicketId),
    /// A client's packet, which counts when the first hop has acknowledged it.
    First(Box<FirstLink>),
}

#[derive(Debug)]
pub(super) struct FirstLink {
    pub(super) terms: Terms,
    pub(super) packet: PacketId,
    pub(super) challenge: Challenge,
    pub(super) opener: Opener,
    pub(super) check: AckCheck,
}

/// Why a packet cannot be passed on, or taken, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpaid {
    /// Nothing is agreed with that neighbour for packets of that epoch.
    #[error("there are no terms")]
    NoTerms,
    /// The one before us does not pay.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// We cannot pay the one behind us.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// The client has too many packets on their way.
    #[error("too many packets of this client are not acknowledged")]
    TooMany,
}

/// What was counted, beside the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaymentCounts {
    /// Tickets that opened.
    pub opened: u64,
    /// Acknowledgements that opened nothing.
    pub unopened: u64,
    /// Packets that were not taken because nobody pays for them.
    pub refused: u64,
    /// Packets that were given up because they could not be paid for.
    pub given_up: u64,
    /// Packets that the next hop did not acknowledge in time.
    pub withheld: u64,
    /// What neighbours said that they must not: damaged records, wrong batches, wrong acknowledgements.
    pub violations: u64,
    /// Batches signed.
    pub signed: u64,
    /// Batches accepted.
    pub batches: u64,
    /// Control frames sent.
    pub control_out: u64,
    /// Control frames received.
    pub control_in: u64,
    /// Of these: not heard, because there were too many, or too much was wrong in those before.
    pub unheard: u64,
    /// Packets that wait until they can be paid for.
    pub waiting: usize,
    /// Accounts and classes of which something is kept because they pay us.
    pub payers: usize,
    /// Neighbours of whose packets only a share is let in, because their tickets do not open.
    pub slowed: usize,
}

/// Where an account's payments take place.
#[derive(Debug)]
pub struct Setting {
    /// The link identity of this end.
    pub me: IdentityKey,
    /// Relates the machine's time to the chain's, until [`Fact::Time`] does.
    pub wall: WallClock,
    /// What depends on the network's parameters.
    pub limits: Limits,
    /// Where packets are counted that are given up.
    pub drops: Arc<DropCounters>,
    /// Of salts; random.
    pub seed: [u8; 32],
}
