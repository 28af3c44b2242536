//! Payment on all links of one account: what neighbours and clients owe us for packets, what we owe those behind us.
//!
//! One [`Payments`] belongs to one account on the chain. It has an issuer for each one that we pay and each price class, and a
//! recipient for each one that pays us; links come and go in front of them. Packets and control frames go in and out in the
//! order in which they were given, because both ends of a link count the same tickets.
//!
//! A packet is taken with [`Payments::accept`] (from a node) or [`Payments::accept_first`] (from a client) and passed on
//! with [`Payments::forward`]; in between the caller keeps what is [`Owed`] for it. What must survive leaves through
//! [`Payments::poll_change`], and nothing that rests on it is seen before [`Payments::set_durable`].
//!
//! **Control slots.** Between nodes a control frame goes in each direction after [`CONTROL_EVERY`] packets and at least every
//! [`CONTROL_CADENCE`], whether there is anything to say or not, so that an observer learns from them only what the
//! packets have told. Links of clients are paced by others: [`Payments::take_control`] fills their slots.

mod link;
mod machines;
mod terms;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tombola_mixing::{Rng, Time};
use tombola_tickets::por::{Ack, AckCheck, Challenge, first_link_opener};
use tombola_tickets::{
    AccountProof, Address, Books, Change, ClassNumber, Domain, Ledger, Limits, Neighbour, Now, Opener,
    Openings, PacketAck, PacketId, PriceClass, Refused, Restore, Secret, Settlement, SignerKey, Stop,
    TicketId, UnixSeconds, WindowClaim, WindowNumber,
};
use tombola_topology::{IdentityKey, Role};
use zeroize::Zeroizing;

use crate::control::{ControlError, ControlWriter, Record, records};
use crate::drops::{DropCounters, DropReason};
use crate::frame::{Frame, Parity};
use crate::opener::{Half, Ticket};
use crate::unix::WallClock;
use crate::view::OpenViews;

use link::Link;
use machines::{Earning, Machines, Paying};

pub use terms::{EpochPrices, terms_of};

/// Packets on a link for each control frame in either direction. Fewer than the acknowledgements that fit into one.
pub const CONTROL_EVERY: u32 = 48;
/// And a control frame at least so often.
pub const CONTROL_CADENCE: Duration = Duration::from_secs(1);
/// How often everything is looked at that is due by time.
const TICK: Duration = Duration::from_millis(100);
/// Packets for one neighbour that wait until they can be paid for: until the link is up again, or the list agreed on.
const WAITING_MAX: usize = 1024;
/// They wait no longer than an acknowledgement is waited for.
const WAITING_LIFE: Duration = Duration::from_secs(30);
/// Nothing has come for so long when an account that winds up ends its windows. Longer than an exponential delay ever
/// takes at each of three hops, but for one in a thousand.
const QUIET: Duration = Duration::from_secs(4);
/// It does not wait longer, whatever still comes.
const WINDING_UP: Duration = Duration::from_secs(60);
/// Packets of a client that the first hop has not acknowledged, and that are unsigned.
const CLIENT_OPEN_MAX: usize = 512;

/// A neighbour that has no link, or had none in this process.
const NOBODY: Neighbour = Neighbour(u32::MAX);

const _: () = assert!((CONTROL_EVERY as usize) < crate::control::ACKS_MAX);

/// One account on the chain, and what its owner's process needs of it.
pub struct Account {
    /// The account.
    pub address: Address,
    /// Signs batches for it.
    pub signer: SignerKey,
    /// Random, kept, and used for nothing but the randomness of windows.
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
    /// Our deposit, without what is under notice.
    Deposit(u128),
    /// What an issuer guarantees to us: reserve and share of its stake.
    Guarantee {
        /// Who.
        issuer: Address,
        /// How much.
        amount: u128,
    },
    /// This key signs for that issuer; none does that we would accept.
    Signer {
        /// Who.
        issuer: Address,
        /// Its key.
        signer: Option<Address>,
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
    /// Somebody new wants to pay from this account: what the chain says of it is wanted.
    Watch(Address),
    /// Nothing is left to be claimed or paid after [`Payments::wind_up`]: the sum over all accounts.
    Settled(Box<tombola_tickets::Account>),
}

/// What a packet earns when the one behind us acknowledges it. To be kept beside the packet.
#[derive(Debug, Default)]
pub struct Owed(Debt);

#[derive(Debug, Default)]
enum Debt {
    /// Our own packet.
    #[default]
    Nothing,
    /// A ticket of a neighbour's.
    Ticket(Terms, TicketId),
    /// A client's packet, which counts when the first hop has acknowledged it.
    First(Box<FirstLink>),
}

#[derive(Debug)]
struct FirstLink {
    terms: Terms,
    packet: PacketId,
    challenge: Challenge,
    opener: Opener,
    check: AckCheck,
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
    /// Packets that wait until they can be paid for.
    pub waiting: usize,
}

/// Where an account's payments take place.
#[derive(Debug)]
pub struct Setting {
    /// The link identity of this end.
    pub me: IdentityKey,
    /// Relates the machine's time to the chain's.
    pub wall: WallClock,
    /// What depends on the network's parameters.
    pub limits: Limits,
    /// Where packets are counted that are given up.
    pub drops: Arc<DropCounters>,
    /// Of salts; random.
    pub seed: [u8; 32],
}

/// How far an account is that shall end.
#[derive(Clone, Copy, Debug)]
enum WindingUp {
    /// It shall not. When the last packet came.
    No { last: Time },
    /// It waits until nothing comes any more.
    Quieting { since: Time, last: Time },
    /// No windows follow those that there are.
    Finishing,
    /// Everything was claimed and paid.
    Settled,
}

impl WindingUp {
    fn packet(&mut self, now: Time) {
        if let Self::No { last } | Self::Quieting { last, .. } = self {
            *last = now;
        }
    }
}

/// All that one account pays and earns.
pub struct Payments {
    account: Account,
    me: IdentityKey,
    wall: WallClock,
    limits: Limits,
    books: Books,
    openings: Openings,
    machines: Machines,
    links: BTreeMap<IdentityKey, Link>,
    prices: BTreeMap<ClassNumber, PriceClass>,
    signers: BTreeMap<Address, Address>,
    out: VecDeque<PaymentOutput>,
    spare: Vec<Frame>,
    rng: Rng,
    next_tick: Time,
    counts: PaymentCounts,
    winding_up: WindingUp,
    durable: u64,
    drops: Arc<DropCounters>,
    next_number: u32,
    /// The epochs whose packets are taken.
    views: OpenViews,
    /// What clients pay, by parity.
    client_classes: [Option<ClassNumber>; 2],
}

impl Payments {
    /// What an account had kept; a new one kept nothing. `prices` are the classes that the chain has confirmed; those of all
    /// records must be among them, else what was won in them cannot be claimed: they are returned.
    ///
    /// # Errors
    /// Classes of records whose price is not known.
    pub fn new(
        now: Time,
        account: Account,
        setting: Setting,
        prices: BTreeMap<ClassNumber, PriceClass>,
        kept: &Restore,
    ) -> Result<Self, Vec<ClassNumber>> {
        let (issued, earned) = (kept.issued_places(), kept.earned_places());
        let classes: BTreeSet<_> = issued.iter().chain(&earned).map(|(_, class)| *class).collect();
        let missing: Vec<_> = classes.into_iter().filter(|class| !prices.contains_key(class)).collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        let Setting { me, wall, limits, drops, seed } = setting;
        let books = Books::restore(account.domain, 0, kept);
        let mut payments = Self {
            account,
            me,
            wall,
            limits,
            books,
            openings: Openings::default(),
            machines: Machines::default(),
            links: BTreeMap::new(),
            prices,
            signers: BTreeMap::new(),
            out: VecDeque::new(),
            spare: Vec::new(),
            rng: Rng::from_seed(seed),
            next_tick: now,
            counts: PaymentCounts::default(),
            winding_up: WindingUp::No { last: now },
            durable: 0,
            drops,
            next_number: 0,
            views: OpenViews::default(),
            client_classes: [None; 2],
        };
        for (account, class) in issued {
            payments.pay(Terms { account, class }, kept);
        }
        for (account, class) in earned {
            payments.earn(now, Terms { account, class }, NOBODY, kept);
        }
        payments.collect();
        Ok(payments)
    }

    /// The account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// What is owed and earned, by account.
    pub fn ledger(&self) -> &Ledger {
        &self.books.ledger
    }

    /// What was counted.
    pub fn counts(&self) -> PaymentCounts {
        let waiting = self.links.values().map(|link| link.waiting.len()).sum();
        let withheld = self.machines.paying.values().map(|paying| paying.issuer.withheld()).sum();
        PaymentCounts { waiting, withheld, ..self.counts }
    }

    /// How much of the rate of a neighbour is admitted: less while tickets of its packets do not open.
    pub fn admitted_share(&self, neighbour: &IdentityKey) -> f64 {
        self.links.get(neighbour).map_or(1.0, |link| self.openings.admitted_share(link.number))
    }

    fn now(&self, now: Time) -> Now {
        let unix = u32::try_from(self.wall.seconds(now)).unwrap_or(u32::MAX);
        Now { time: now, unix: UnixSeconds(unix) }
    }

    /// Says what is agreed with a neighbour for packets of the epoch of that parity; `None`: nothing any more.
    pub fn set_terms(
        &mut self,
        now: Time,
        peer: IdentityKey,
        side: Side,
        parity: Parity,
        terms: Option<Terms>,
    ) {
        let terms = terms
            .filter(|terms| self.prices.contains_key(&terms.class) && self.is_free_for(&peer, side, terms));
        let number = self.link(peer).number;
        if let Some(terms) = terms {
            match side {
                Side::Paying => self.pay(terms, &Restore::default()),
                Side::Earning => self.earn(now, terms, number, &Restore::default()),
            }
        }
        let link = self.link(peer);
        let before = core::mem::replace(&mut link.terms_mut(side)[parity.index()], terms);
        let (up, session) = (link.up, link.session);
        if before == terms {
            return;
        }
        if let Some(before) = before {
            self.machines.disconnected(side, &before);
        }
        if let (Some(terms), Side::Paying, true) = (terms, side, up) {
            self.resume(&terms, session);
            self.link(peer).slots.hurry();
        }
    }

    /// The epochs whose packets are taken have changed: so has what is agreed with neighbours, and with clients.
    pub fn handle_views(&mut self, now: Time, views: &OpenViews) {
        self.views = views.clone();
        for parity in [Parity::of(0), Parity::of(1)] {
            let seat = views.get(parity);
            let agreed: BTreeMap<_, _> = seat
                .map(terms_of)
                .unwrap_or_default()
                .into_iter()
                .map(|(peer, side, terms)| ((peer, side), terms))
                .collect();
            let mut known: BTreeSet<_> =
                self.links.iter().filter(|(_, link)| !link.paced).map(|(peer, _)| *peer).collect();
            known.extend(agreed.keys().map(|(peer, _)| *peer));
            for peer in known {
                for side in [Side::Paying, Side::Earning] {
                    self.set_terms(now, peer, side, parity, agreed.get(&(peer, side)).copied());
                }
            }
            let is_gateway = seat.is_some_and(|seat| matches!(seat.role(), Role::Gateway));
            let class = seat.filter(|_| is_gateway).and_then(|seat| EpochPrices::of(seat.view())?.client());
            self.set_client_class(now, parity, class);
        }
    }

    /// An account is paid from, and pays, on one link only.
    fn is_free_for(&self, peer: &IdentityKey, side: Side, terms: &Terms) -> bool {
        let uses = |link: &Link| link.terms(side).iter().flatten().any(|used| used.account == terms.account);
        !self.links.iter().any(|(other, link)| other != peer && uses(link))
    }

    fn link(&mut self, peer: IdentityKey) -> &mut Link {
        let next_number = &mut self.next_number;
        self.links.entry(peer).or_insert_with(|| {
            *next_number = next_number.wrapping_add(1);
            Link::new(*next_number)
        })
    }

    /// Which classes clients pay in the epoch of that parity.
    pub fn set_client_class(&mut self, now: Time, parity: Parity, class: Option<ClassNumber>) {
        self.client_classes[parity.index()] = class;
        let clients: Vec<_> =
            self.links.iter().filter(|(_, link)| link.paced).map(|(peer, _)| *peer).collect();
        clients.into_iter().for_each(|client| self.admit(now, client));
    }

    /// A client's link is up: it has not said yet from which account it pays.
    pub fn open_client(&mut self, now: Time, client: IdentityKey) {
        let link = self.link(client);
        link.paced = true;
        link.claims = None;
        self.handle_link(now, client, true);
    }

    /// The gateway's link of a client is up: it is shown from which account we pay.
    pub fn open_gateway(&mut self, now: Time, gateway: IdentityKey) {
        let (account, domain) = (&self.account, &self.account.domain);
        let ends = (gateway.as_bytes(), self.me.as_bytes());
        let proof = AccountProof::new(account.address, &account.signer, domain, ends.0, ends.1);
        let link = self.link(gateway);
        link.paced = true;
        link.proof = Some(proof);
        self.handle_link(now, gateway, true);
    }

    /// A client shows from which account it pays.
    fn show(&mut self, now: Time, client: IdentityKey, proof: &AccountProof) -> bool {
        let signer = proof.signer(&self.account.domain, self.me.as_bytes(), client.as_bytes());
        let (Ok(signer), Some(link)) = (signer, self.links.get_mut(&client)) else { return false };
        if !link.paced || link.claims.is_some() {
            return false;
        }
        link.claims = Some((proof.account, signer));
        self.out.push_back(PaymentOutput::Watch(proof.account));
        self.admit(now, client);
        true
    }

    /// Agrees on terms with a client that has shown its account, if the key that it showed signs for that account.
    fn admit(&mut self, now: Time, client: IdentityKey) {
        let Some((account, signer)) = self.links.get(&client).and_then(|link| link.claims) else { return };
        if signer != account && self.signers.get(&account) != Some(&signer) {
            return;
        }
        for (at, parity) in [(0, Parity::of(0)), (1, Parity::of(1))] {
            let terms = self.client_classes[at].map(|class| Terms { account, class });
            self.set_terms(now, client, Side::Earning, parity, terms);
            if let Some(earning) = terms.and_then(|terms| self.machines.earning.get_mut(&terms)) {
                earning.recipient.set_signer(signer);
            }
        }
    }

    /// A link came up or went down.
    pub fn handle_link(&mut self, now: Time, peer: IdentityKey, up: bool) {
        let unix = self.now(now).unix.0;
        let link = self.link(peer);
        let changed = core::mem::replace(&mut link.up, up);
        let (paying, earning) = (link.paying, link.earning);
        if up {
            let session = link.begin_session(unix);
            for terms in paying.iter().flatten() {
                self.resume(terms, session);
            }
        } else if changed {
            for (side, all) in [(Side::Paying, paying), (Side::Earning, earning)] {
                all.iter().flatten().for_each(|terms| self.machines.disconnected(side, terms));
            }
        }
    }

    /// A link of a client is gone, and with it what it pays from.
    pub fn close_client(&mut self, now: Time, client: IdentityKey) {
        self.handle_link(now, client, false);
        self.links.remove(&client);
    }

    fn resume(&mut self, terms: &Terms, session: u32) {
        if let Some(paying) = self.machines.paying.get_mut(terms) {
            paying.issuer.resume(session.into(), &self.books);
        }
    }

    /// The paying machine, if there is a price; made anew if there is none.
    fn pay(&mut self, terms: Terms, kept: &Restore) {
        if let Some(price) = self.prices.get(&terms.class) {
            let (account, books) = (&self.account, &mut self.books);
            self.machines
                .paying
                .entry(terms)
                .or_insert_with(|| Paying::new(account, terms, *price, kept, books));
        }
    }

    fn earn(&mut self, now: Time, terms: Terms, previous: Neighbour, kept: &Restore) {
        let Some(price) = self.prices.get(&terms.class).copied() else { return };
        // Who signs for it may only become known later; until then its own key does.
        let signer = self.signers.get(&terms.account).copied().unwrap_or(terms.account);
        let at = self.now(now);
        let (account, books, limits) = (&self.account, &mut self.books, self.limits);
        self.machines.earning.entry(terms).or_insert_with(|| {
            Earning::new(account, terms, price, signer, previous, limits, kept, at, books)
        });
    }

    /// What the chain says.
    pub fn handle_fact(&mut self, now: Time, fact: Fact) {
        match fact {
            Fact::Deposit(amount) => self.books.solvency.set_deposit(amount),
            Fact::Guarantee { issuer, amount } => self.books.credit(issuer).set_guaranteed(amount),
            Fact::Signer { issuer, signer } => {
                let signer = signer.unwrap_or(issuer);
                self.signers.insert(issuer, signer);
                self.machines.set_signer(&issuer, signer);
                let shown = |link: &Link| link.claims.is_some_and(|(account, _)| account == issuer);
                let clients = self.links.iter().filter(|(_, link)| shown(link)).map(|(peer, _)| *peer);
                clients.collect::<Vec<_>>().into_iter().for_each(|client| self.admit(now, client));
            }
            Fact::Class(number, price) => {
                // What was agreed on without its price is agreed on now.
                if self.prices.insert(number, price).is_none() {
                    let views = self.views.clone();
                    self.handle_views(now, &views);
                }
            }
            Fact::Claimed { recipient, window, spent } => {
                for paying in self.machines.paying_to(&recipient) {
                    paying.issuer.claimed(window, spent, &mut self.books);
                }
            }
            Fact::Settled { issuer, window, amount } => {
                for earning in self.machines.earning_from(&issuer) {
                    let paid = earning.winners_for(amount);
                    earning.recipient.settled(window, Settlement { paid }, &mut self.books);
                }
            }
        }
        self.flush_all(now);
    }

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
        taken
    }

    fn take(
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
        link.slots.packet();
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

    fn take_first(
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
        let terms =
            self.links.get(gateway).and_then(|link| link.paying[parity.index()]).ok_or(Unpaid::NoTerms)?;
        let paying = self.machines.paying.get_mut(&terms).ok_or(Unpaid::NoTerms)?;
        Ok(paying.issuer.may_send(at, &mut self.books)?)
    }

    fn issue(
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
        if let Err(stop) = paying.issuer.send(at, &mut self.books, packet, challenge, check) {
            return Err((stop.into(), frame, owed));
        }
        // A session has room for four billion packets; the next one begins anew.
        let Some(next) = counter.checked_add(1) else {
            let session = link.begin_again();
            self.resume(&terms, session);
            return Err((Unpaid::Stop(Stop::NoAgreement), frame, owed));
        };
        link.counter[parity.index()] = next;
        link.slots.packet();
        frame.set_number(link.session, counter);
        if let Some(old) = paying.sent(packet, now, owed) {
            self.forget(old);
        }
        Ok(frame)
    }

    fn give_up(&mut self, frame: Frame, owed: Owed) {
        self.counts.given_up += 1;
        self.drops.count(DropReason::CannotPay);
        self.forget(owed);
        self.reuse(frame);
    }

    /// What is owed for a packet will not come.
    fn forget(&mut self, owed: Owed) {
        if let Debt::First(first) = owed.0
            && let Some(earning) = self.machines.earning.get_mut(&first.terms)
        {
            earning.on_their_way = earning.on_their_way.saturating_sub(1);
        }
    }

    fn reuse(&mut self, frame: Frame) {
        if self.spare.len() < 64 {
            self.spare.push(frame);
        }
    }

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

    fn handle_record(&mut self, now: Time, from: &IdentityKey, record: Record) {
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
                let is_resume = matches!(message, tombola_tickets::IssuerMessage::Resume { .. });
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

    fn violation(&mut self) {
        self.counts.violations += 1;
    }

    /// The one behind us took a packet: what it earned opens, or a client's packet counts.
    fn acknowledged(&mut self, now: Now, owed: Owed, ack: &PacketAck) {
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

    fn first_acknowledged(&mut self, now: Now, first: FirstLink, ack: &Ack) {
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

    fn sign(&mut self, now: Now, terms: &Terms) {
        let Some(paying) = self.machines.paying.get_mut(terms) else { return };
        while paying.issuer.sign(now, &mut self.books, &self.account.signer, &mut self.rng) {
            self.counts.signed += 1;
        }
    }

    /// Takes what the machines hand out.
    fn collect(&mut self) {
        for earning in self.machines.earning.values_mut() {
            while let Some(claim) = earning.collect(&mut self.books) {
                self.out.push_back(PaymentOutput::Claim(claim));
            }
        }
    }

    fn flush_all(&mut self, now: Time) {
        let waiting: Vec<_> =
            self.links.iter().filter(|(_, link)| !link.waiting.is_empty()).map(|(peer, _)| *peer).collect();
        waiting.into_iter().for_each(|peer| self.flush(now, peer));
    }

    /// Sends what waited and can be paid for now; gives up what waited too long.
    fn flush(&mut self, now: Time, to: IdentityKey) {
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

    /// The account shall end. When nothing comes any more, or after a minute, no windows follow those that there are, and what
    /// is won is claimed as soon as nothing can be added to it. Then [`PaymentOutput::Settled`] comes.
    pub fn wind_up(&mut self, now: Time) {
        if let WindingUp::No { last } = self.winding_up {
            self.winding_up = WindingUp::Quieting { since: now, last };
        }
    }

    fn tend_winding_up(&mut self, now: Time) {
        match self.winding_up {
            WindingUp::Quieting { since, last } if now - last >= QUIET || now - since >= WINDING_UP => {
                self.finish();
            }
            WindingUp::Finishing if self.is_settled() => {
                self.winding_up = WindingUp::Settled;
                self.out.push_back(PaymentOutput::Settled(Box::new(self.books.ledger.sum())));
            }
            _ => {}
        }
    }

    /// No windows follow: what is won is claimed as soon as nothing can be added to it any more.
    pub fn finish(&mut self) {
        self.winding_up = WindingUp::Finishing;
        for earning in self.machines.earning.values_mut() {
            earning.recipient.finish(&self.books);
        }
        self.collect();
    }

    /// Whether nothing is left to be signed for us, to be opened, or to be claimed.
    pub fn is_settled(&self) -> bool {
        self.machines.earning.values().all(|earning| earning.recipient.is_settled())
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self, now: Time) -> Option<PaymentOutput> {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        let due = |link: &Link| link.up && !link.paced && link.slots.is_due(now);
        let to = self.links.iter().find(|(_, link)| due(link)).map(|(peer, _)| *peer)?;
        let frame = self.spare.pop().unwrap_or_else(Frame::zeroed);
        let frame = self.take_control(now, &to, frame);
        Some(PaymentOutput::Send { to, frame })
    }

    /// When [`poll_output`](Self::poll_output) has something again if nothing comes in.
    pub fn poll_timeout(&self) -> Time {
        self.next_tick
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

    fn tick(&mut self, now: Time) {
        let at = self.now(now);
        self.openings.handle_timeout(now);
        let terms: Vec<_> = self.machines.paying.keys().copied().collect();
        for terms in &terms {
            self.sign(at, terms);
            let Some(paying) = self.machines.paying.get_mut(terms) else { continue };
            paying.issuer.handle_timeout(at, &mut self.books);
            while let Some(old) = self.machines.paying.get_mut(terms).and_then(|paying| paying.take_old(now))
            {
                self.forget(old);
            }
        }
        self.tend_winding_up(now);
        let finishing = matches!(self.winding_up, WindingUp::Finishing | WindingUp::Settled);
        for earning in self.machines.earning.values_mut() {
            if finishing {
                earning.finish_once(&self.books);
            }
            earning.recipient.handle_timeout(at, &mut self.books, &mut self.openings);
        }
        self.collect();
        self.flush_all(now);
        let links = &self.links;
        let used = |side, terms: &Terms| links.values().any(|link| link.terms(side).contains(&Some(*terms)));
        self.machines.forget(at.unix, used);
    }

    /// The next change that is to be written down, in this order.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.books.journal.poll_change()
    }

    /// The first so many changes are durable.
    pub fn set_durable(&mut self, count: u64) {
        let count = count.min(self.books.journal.asked());
        if core::mem::replace(&mut self.durable, count) != count {
            self.books.journal.set_durable(count);
            self.collect();
        }
    }
}

/// Session and counter of a packet as the machines name it.
fn packet_id((session, counter): (u32, u32)) -> PacketId {
    PacketId { session: session.into(), counter: counter.into() }
}

impl core::fmt::Debug for Payments {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Payments").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
