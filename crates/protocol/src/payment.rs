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

mod control;
mod ending;
mod link;
mod links;
mod machines;
mod packets;
mod terms;
mod types;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tombola_mixing::{Rng, Time};
use tombola_tickets::{
    Address, Books, Change, ClassNumber, Ledger, Limits, Neighbour, Now, Openings, PriceClass, Restore,
    Settlement, UnixSeconds,
};
use tombola_topology::IdentityKey;

use crate::drops::DropCounters;
use crate::frame::{Frame, Parity};
use crate::gate::Gate;
use crate::unix::{UnixNanos, WallClock};
use crate::view::OpenViews;

use ending::WindingUp;
use link::Link;
use machines::Machines;

pub use terms::{EpochPrices, terms_of};
pub use types::{Account, Fact, Owed, PaymentCounts, PaymentOutput, Setting, Side, Signs, Terms, Unpaid};

/// Packets on a link for each control frame in either direction. Fewer than the acknowledgements that fit into one.
pub const CONTROL_EVERY: u32 = 48;
/// And a control frame at least so often.
pub const CONTROL_CADENCE: Duration = Duration::from_secs(1);
/// How often everything is looked at that is due by time.
const TICK: Duration = Duration::from_millis(100);

/// A neighbour that has no link, or had none in this process.
const NOBODY: Neighbour = Neighbour(u32::MAX);

const _: () = assert!((CONTROL_EVERY as usize) < crate::control::ACKS_MAX);

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
    /// Those of nodes that were ever up: the only ones of which something is due.
    neighbours: BTreeSet<IdentityKey>,
    /// Who uses an account, in whatever epoch.
    users: BTreeMap<(Side, Address), IdentityKey>,
    prices: BTreeMap<ClassNumber, PriceClass>,
    /// What keys sign for issuers, besides the issuers' own.
    signers: BTreeMap<Address, BTreeMap<Address, Signs>>,
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
    /// Who is let in before a header is opened.
    gate: Arc<Gate>,
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
            neighbours: BTreeSet::new(),
            users: BTreeMap::new(),
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
            gate: Arc::default(),
            client_classes: [None; 2],
        };
        for (account, class) in issued {
            payments.pay(Terms { account, class }, kept);
        }
        for (account, class) in earned {
            payments.earn(payments.now(now), Terms { account, class }, NOBODY, kept);
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
        let slowed = self.links.values().filter(|link| self.openings.admitted_share(link.number) < 1.0);
        let refused = self.counts.refused + self.gate.refused();
        let payers = self.machines.earning.len();
        PaymentCounts { waiting, withheld, refused, payers, slowed: slowed.count(), ..self.counts }
    }

    /// How much of the rate of a neighbour is admitted: less while tickets of its packets do not open.
    pub fn admitted_share(&self, neighbour: &IdentityKey) -> f64 {
        self.links.get(neighbour).map_or(1.0, |link| self.openings.admitted_share(link.number))
    }

    /// What says to whoever opens packets which of them are paid for: for [`Opener::guard`](crate::opener::Opener::guard).
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Says at the gate what would be taken from a neighbour now. Clients have no gate: their packets are not opened here.
    fn set_room(&mut self, now: Time, peer: &IdentityKey) {
        let at = self.now(now);
        let Some(link) = self.links.get(peer).filter(|link| !link.paced) else { return };
        for parity in [Parity::of(0), Parity::of(1)] {
            let earning = link.earning[parity.index()].and_then(|terms| self.machines.earning.get(&terms));
            let room = earning.map_or(0, |earning| earning.recipient.room(at, &mut self.books));
            link.door(&self.gate, *peer).set_room(parity, room);
        }
    }

    fn set_all_rooms(&mut self, now: Time) {
        let peers: Vec<_> =
            self.links.iter().filter(|(_, link)| !link.paced).map(|(peer, _)| *peer).collect();
        peers.iter().for_each(|peer| self.set_room(now, peer));
    }

    fn set_shares(&self) {
        for (peer, link) in self.links.iter().filter(|(_, link)| !link.paced) {
            link.door(&self.gate, *peer).set_share(self.openings.admitted_share(link.number));
        }
    }

    /// It is so late outside, as the machine's clock or the chain says. The monotonic clock stands still while a machine sleeps, and a
    /// wall clock is set: tell it every few seconds. A second is the difference that telling makes.
    fn set_time(&mut self, now: Time, unix: UnixSeconds) -> bool {
        let differs = self.now(now).unix.0.abs_diff(unix.0) > 1;
        if differs {
            self.wall = WallClock::new(now, UnixNanos(u64::from(unix.0) * 1_000_000_000));
        }
        differs
    }

    fn now(&self, now: Time) -> Now {
        let unix = u32::try_from(self.wall.seconds(now)).unwrap_or(u32::MAX);
        Now { time: now, unix: UnixSeconds(unix) }
    }

    /// What the chain says.
    pub fn handle_fact(&mut self, now: Time, fact: Fact) {
        match fact {
            Fact::Time(unix) if !self.set_time(now, unix) => return,
            Fact::Time(_) => {}
            Fact::Deposit(amount) => self.books.solvency.set_deposit(amount),
            Fact::Guarantee { issuer, amount } => self.books.guarantee(issuer, amount),
            Fact::Signer { issuer, signer, signs } => {
                let signers = self.signers.entry(issuer).or_default();
                signers.insert(signer, signs);
                signers.retain(|_, signs| *signs != Signs::Nothing);
                for (terms, earning) in &mut self.machines.earning {
                    if terms.account == issuer {
                        earning.set_signers(issuer, signers);
                    }
                }
                if signers.is_empty() {
                    self.signers.remove(&issuer);
                }
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
        self.hear_early(now);
        self.flush_all(now);
        self.set_all_rooms(now);
    }

    /// Nothing was on disk. The account is new here, or what it had is lost, which nobody can tell: as issuer and as recipient it leaves out 512
    /// windows beyond the highest that the chain knows of, so that no number is signed twice, and nothing is signed under randomness
    /// that is known. `past` is what was claimed so far: [`Fact::Claimed`] and [`Fact::Settled`]. To be called before
    /// any link is up.
    pub fn begin_after_loss(&mut self, past: impl IntoIterator<Item = Fact>) {
        let (mut issued, mut earned) = (BTreeMap::new(), BTreeMap::new());
        for fact in past {
            let (highest, peer, window) = match fact {
                Fact::Claimed { recipient, window, .. } => (&mut issued, recipient, window),
                Fact::Settled { issuer, window, .. } => (&mut earned, issuer, window),
                _ => continue,
            };
            let highest = highest.entry(peer).or_insert(window);
            *highest = window.max(*highest);
        }
        issued.into_iter().for_each(|(recipient, window)| self.books.skip_issued(recipient, Some(window)));
        earned.into_iter().for_each(|(issuer, window)| self.books.skip_windows(issuer, Some(window)));
        // Last: a crash before it begins anew.
        self.books.lose();
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
        let to = *self.neighbours.iter().find(|peer| self.links.get(peer).is_some_and(due))?;
        let frame = self.spare.pop().unwrap_or_else(Frame::zeroed);
        let frame = self.take_control(now, &to, frame);
        Some(PaymentOutput::Send { to, frame })
    }

    /// When [`poll_output`](Self::poll_output) has something again if nothing comes in.
    pub fn poll_timeout(&self) -> Time {
        self.next_tick
    }

    fn tick(&mut self, now: Time) {
        let at = self.now(now);
        self.openings.handle_timeout(now);
        self.set_shares();
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
        self.agree_where_stuck(at);
        self.tend_winding_up(now);
        for earning in self.machines.earning.values_mut() {
            if self.winding_up.ends_windows() {
                earning.finish_once(&self.books);
            }
            earning.recipient.handle_timeout(at, &mut self.books, &mut self.openings);
        }
        self.collect();
        self.flush_all(now);
        let links = &self.links;
        let used = |side, terms: &Terms| links.values().any(|link| link.terms(side).contains(&Some(*terms)));
        self.machines.forget(at.unix, used);
        self.hear_early(now);
        self.set_all_rooms(now);
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
            // What could not be said at the beginning of a link can be said now.
            self.links.values_mut().filter(|link| link.resuming).for_each(|link| link.slots.hurry());
        }
    }
}

impl core::fmt::Debug for Payments {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Payments").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
