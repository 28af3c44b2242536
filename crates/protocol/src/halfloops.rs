//! A mix node's own loops, in two halves, through ordinary client accounts at two or more gateways.
//!
//! *Outbound*: from the node itself through the later layers to an account's mailbox. *Inbound*: from an account
//! through the earlier layers to the node as the final hop. On every link they look like any packet. A gateway may
//! still recognise its accounts, so verdicts are per gateway. Accounts are drawn anew in each epoch.

use core::time::Duration;
use std::sync::Arc;

use tombola_mixing::{LoopMonitor, LoopStats, LossTest, PoissonClock, Rng, Time, Verdict};
use tombola_topology::{IdentityKey, NodeIndex, Role};

use crate::client::{Client, ClientCounts, ClientEvent, Probe};
use crate::frame::Frame;
use crate::packet::{End, FirstLink, Identifier, PacketBuilder, Prepared};
use crate::payload::payload_type;
use crate::payment::{Fact, Payments};
use crate::relay::RelayOutput;
use crate::view::{EpochView, Seat, SendViews};

/// Half-loops that may be under way at one time.
const IN_FLIGHT: usize = 4096;
/// After its first connection an account's mailbox is there so soon.
const SETTLED: Duration = Duration::from_secs(1);

/// Which half of the network a loop measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// From the node to an account's mailbox.
    Outbound,
    /// From an account to the node.
    Inbound,
}

/// One path that is judged: a half, through the gateway of the account of that number.
type Path = (Half, usize);

/// An outbound loop that is ready.
struct Outbound {
    /// The number of the account where it ends.
    account: usize,
    identifier: Identifier,
    prepared: Prepared,
    /// The neighbour where it begins.
    first: IdentityKey,
}

/// Where a mix node stands in an epoch.
#[derive(Debug)]
struct Place {
    seat: Seat,
    layer: u8,
}

impl Place {
    fn of(view: &Arc<EpochView>, identity: &IdentityKey) -> Option<Self> {
        let seat = Seat::of(Arc::clone(view), identity)?;
        match seat.role() {
            Role::Mix { layer } => Some(Self { seat, layer }),
            Role::Gateway => None,
        }
    }
}

/// The node's loops and the accounts that they need.
pub struct HalfLoops {
    views: SendViews,
    identity: IdentityKey,
    /// In the current epoch and in the old one.
    places: [Option<Place>; 2],
    accounts: Vec<Client>,
    /// From when on each account's mailbox is there: some time after its first connection.
    reachable: Vec<Time>,
    /// The number of the first account: how many there were before them.
    first_account: usize,
    /// What accounts sent that are gone.
    ended: ClientCounts,
    outbound: PoissonClock,
    inbound: PoissonClock,
    rng: Rng,
    builder: PacketBuilder,
    monitor: LoopMonitor<Path>,
    /// The next outbound loop, built ahead so that it leaves on its tick.
    ready: Option<Outbound>,
    turn: usize,
    /// No loops any more.
    silent: bool,
}

impl HalfLoops {
    pub(crate) fn new(
        now: Time,
        views: SendViews,
        identity: IdentityKey,
        accounts: Vec<Client>,
        mut rng: Rng,
    ) -> Self {
        let parameters = views.current.parameters();
        let clock = |rng| PoissonClock::new(now, parameters.mix_loop_interval, rng);
        Self {
            places: places_in(&views, &identity),
            identity,
            reachable: vec![Time::MAX; accounts.len()],
            accounts,
            first_account: 0,
            ended: ClientCounts::default(),
            outbound: clock(rng.fork()),
            inbound: clock(rng.fork()),
            builder: PacketBuilder::new(rng.fork()),
            monitor: LoopMonitor::new(parameters.loop_timeout, IN_FLIGHT, LossTest::standard()),
            ready: None,
            rng,
            turn: 0,
            silent: false,
            views,
        }
    }

    /// No loop leaves any more, and its accounts send nothing but what there is to say about payment.
    pub(crate) fn fall_silent(&mut self) {
        self.silent = true;
        self.ready = None;
        self.accounts.iter_mut().for_each(Client::fall_silent);
    }

    /// The epochs have changed, and perhaps the accounts. What is under way through accounts that go is forgotten: it cannot
    /// come back, and nobody has lost it.
    pub(crate) fn handle_views(&mut self, now: Time, views: SendViews, accounts: Option<Vec<Client>>) {
        self.places = places_in(&views, &self.identity);
        self.ready = None;
        if let Some(accounts) = accounts {
            self.first_account += self.accounts.len();
            self.ended = self.account_counts();
            self.reachable = vec![Time::MAX; accounts.len()];
            self.accounts = accounts;
            if self.silent {
                self.accounts.iter_mut().for_each(Client::fall_silent);
            }
            self.turn = 0;
            let first = self.first_account;
            self.monitor.retain(|(_, account)| *account >= first);
        }
        self.accounts.iter_mut().for_each(|account| {
            account.handle_views(now, views.clone());
        });
        self.views = views;
    }

    /// The epoch of nearly all packets.
    pub(crate) fn view(&self) -> &Arc<EpochView> {
        &self.views.current
    }

    /// The place of the account of that number; accounts that are gone have none.
    fn account_at(&self, number: usize) -> Option<usize> {
        number.checked_sub(self.first_account).filter(|at| *at < self.accounts.len())
    }

    /// Whether it sends loops: it has accounts, and a place in the current epoch.
    fn sends(&self) -> bool {
        !self.accounts.is_empty() && self.places[0].is_some() && !self.silent
    }

    pub(crate) fn handle_link(&mut self, now: Time, account: usize, connected: bool) {
        if let Some(account) = self.account_at(account) {
            self.accounts[account].handle_link(now, connected);
            if connected {
                self.reachable[account] = self.reachable[account].min(now + SETTLED);
            }
        }
    }

    /// What the chain says of an account.
    pub(crate) fn handle_fact(&mut self, now: Time, account: usize, fact: Fact) {
        if let Some(at) = self.account_at(account) {
            self.accounts[at].handle_fact(now, fact);
        }
    }

    pub(crate) fn handle_frame(&mut self, now: Time, account: usize, frame: Frame) {
        let Some(account) = self.account_at(account) else { return };
        let client = &mut self.accounts[account];
        client.handle_frame(now, frame);
        while let Some(event) = client.poll_event() {
            // Whoever writes to a mix node's account writes to nobody.
            if let ClientEvent::Probe(identifier) = event {
                self.monitor.returned(now, identifier);
            }
        }
    }

    /// A packet ended at this node. Returns whether it was one of its loops.
    pub(crate) fn returned(&mut self, now: Time, identifier: Identifier) -> bool {
        self.monitor.returned(now, identifier).is_some()
    }

    pub(crate) fn poll_output(&mut self, now: Time) -> Option<RelayOutput> {
        if self.accounts.is_empty() {
            return None;
        }
        while let Some(due) = self.outbound.poll(now) {
            if let Some(output) = self.send_outbound(now, due) {
                return Some(output);
            }
        }
        while let Some(due) = self.inbound.poll(now) {
            self.send_inbound(due);
        }
        // Begin with another account each time, so that none waits for the others.
        let count = self.accounts.len();
        self.turn = (self.turn + 1) % count;
        (0..count).map(|step| (self.turn + step) % count).find_map(|account| {
            let frame = self.accounts[account].poll_transmit(now)?;
            Some(RelayOutput::Account { account: self.first_account + account, frame })
        })
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.accounts
            .iter()
            .map(Client::poll_timeout)
            .chain([self.outbound.poll_timeout(), self.inbound.poll_timeout()])
            .min()
            .filter(|_| !self.accounts.is_empty())
    }

    pub(crate) fn expire(&mut self, now: Time) {
        while self.monitor.poll_expired(now).is_some() {}
        self.accounts.iter_mut().for_each(|account| account.expire(now));
    }

    pub(crate) fn work(&mut self, now: Time) -> bool {
        while self.monitor.poll_expired(now).is_some() {}
        if self.ready.is_none() && self.sends() {
            self.ready = self.build_outbound();
            return true;
        }
        self.accounts.iter_mut().any(|account| account.work(now))
    }

    /// Delivery ratio of a half over all gateways; `None` until a loop was due.
    pub fn delivery_ratio(&self, half: Half) -> Option<f64> {
        let stats = (0..self.accounts.len()).map(|account| self.stats(half, account));
        // Those that are not due yet do not count, returned or not: the lost among them are not known.
        let (due, lost) = stats.fold((0, 0), |(due, lost), stats| (due + stats.due, lost + stats.lost));
        LoopStats { due, lost, ..LoopStats::default() }.delivery_ratio()
    }

    /// Statistics of a half through the gateway of one of this epoch's accounts, counted from 0.
    pub fn stats(&self, half: Half, account: usize) -> LoopStats {
        self.monitor.stats(&(half, self.first_account + account))
    }

    /// The verdict on a half through the gateway of one of this epoch's accounts, counted from 0.
    pub fn verdict(&self, half: Half, account: usize) -> Verdict {
        self.monitor.verdict(&(half, self.first_account + account))
    }

    /// The number of this epoch's first account.
    pub fn first_account(&self) -> usize {
        self.first_account
    }

    pub(crate) fn account_counts(&self) -> ClientCounts {
        self.accounts.iter().map(Client::counts).fold(self.ended, ClientCounts::plus)
    }

    /// What the accounts pay, by account, counted from 0.
    pub(crate) fn payments(&mut self) -> impl Iterator<Item = Option<&mut Payments>> {
        self.accounts.iter_mut().map(Client::payments)
    }

    pub(crate) fn gateways(&self) -> Vec<IdentityKey> {
        self.accounts.iter().map(|account| account.address().gateway).collect()
    }

    fn send_outbound(&mut self, now: Time, due: Time) -> Option<RelayOutput> {
        if !self.sends() {
            return None;
        }
        let Outbound { account, identifier, prepared, first } =
            self.ready.take().or_else(|| self.build_outbound())?;
        // What is sent to a mailbox that is not there yet would count as lost.
        if self.account_at(account).is_none_or(|at| now < self.reachable[at]) {
            return None;
        }
        // A full monitor means that thousands are under way: this one goes out uncounted.
        let _ = self.monitor.sent(due, identifier, (Half::Outbound, account));
        Some(RelayOutput::Forward { to: first, frame: prepared.frame })
    }

    fn build_outbound(&mut self) -> Option<Outbound> {
        let at = self.draw_account();
        let (view, layer, me) = self.draw_view(at)?;
        let address = self.accounts[at].address();
        let gateway = view.gateway(&address.gateway)?;
        let key = self.accounts[at].public_key();
        let end = End::Client { gateway, mailbox: address.mailbox, key };
        let mixes = view.draw_route_after(layer, self.builder.rng());
        let identifier = self.builder.identifier();
        let filler = self.builder.filler(payload_type::PROBE);
        let prepared = self.builder.build(&view, FirstLink::FromNode, &mixes, &end, identifier, &filler);
        let first = Seat::new(view, me)?.successor(prepared.first)?;
        Some(Outbound { account: self.first_account + at, identifier, prepared, first })
    }

    fn send_inbound(&mut self, due: Time) {
        if !self.sends() {
            return;
        }
        let at = self.draw_account();
        let Some((view, layer, end)) = self.draw_view(at) else { return };
        let identifier = self.builder.identifier();
        let mixes = view.draw_route_before(layer, self.builder.rng());
        if self.accounts[at].handle_probe(Probe { identifier, view, mixes, end }) {
            let _ = self.monitor.sent(due, identifier, (Half::Inbound, self.first_account + at));
        }
    }

    /// The epoch of the next loop through an account, drawn as for any packet, with this node's layer and index there. An old
    /// epoch in which one of the two was not there is no choice.
    fn draw_view(&mut self, account: usize) -> Option<(Arc<EpochView>, u8, NodeIndex)> {
        let view = self.views.draw(&mut self.rng);
        let [current, old] = &self.places;
        let gateway = &self.accounts[account].address().gateway;
        let place = match old {
            Some(old) if old.seat.view().number() == view.number() && view.gateway(gateway).is_some() => old,
            _ => current.as_ref()?,
        };
        Some((Arc::clone(place.seat.view()), place.layer, place.seat.me()))
    }

    fn draw_account(&mut self) -> usize {
        usize::try_from(self.rng.below(self.accounts.len() as u64)).expect("below a length")
    }
}

/// Where a node stands in the current epoch and in the old one.
fn places_in(views: &SendViews, identity: &IdentityKey) -> [Option<Place>; 2] {
    [Some(&views.current), views.old.as_ref()].map(|view| Place::of(view?, identity))
}

impl core::fmt::Debug for HalfLoops {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HalfLoops").field("accounts", &self.accounts.len()).finish_non_exhaustive()
    }
}
