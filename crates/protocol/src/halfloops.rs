//! A mix node's own loops, in two halves, through ordinary client accounts at two or more gateways.
//!
//! *Outbound*: from the node itself through the later layers to an account's mailbox. *Inbound*: from an account
//! through the earlier layers to the node as the final hop. On every link they look like any packet. A gateway may
//! still recognise its accounts, so verdicts are per gateway.

use std::sync::Arc;

use tombola_mixing::{LoopMonitor, LoopStats, LossTest, PoissonClock, Rng, Time, Verdict};
use tombola_topology::{IdentityKey, NodeIndex};

use crate::client::{Client, ClientCounts, ClientEvent, Probe};
use crate::frame::Frame;
use crate::packet::{End, FirstLink, Identifier, PacketBuilder, Prepared};
use crate::payload::payload_type;
use crate::relay::RelayOutput;
use crate::view::EpochView;

/// Half-loops that may be under way at one time.
const IN_FLIGHT: usize = 4096;

/// Which half of the network a loop measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// From the node to an account's mailbox.
    Outbound,
    /// From an account to the node.
    Inbound,
}

/// One path that is judged: a half, through one account's gateway.
type Path = (Half, usize);

/// The node's loops and the accounts that they need.
pub struct HalfLoops {
    view: Arc<EpochView>,
    me: NodeIndex,
    layer: u8,
    accounts: Vec<Client>,
    outbound: PoissonClock,
    inbound: PoissonClock,
    rng: Rng,
    builder: PacketBuilder,
    monitor: LoopMonitor<Path>,
    /// The next outbound loop and the account where it ends, built ahead so that it leaves on its tick.
    ready: Option<(usize, Identifier, Prepared)>,
    turn: usize,
}

impl HalfLoops {
    pub(crate) fn new(
        now: Time,
        view: &Arc<EpochView>,
        me: NodeIndex,
        layer: u8,
        accounts: Vec<Client>,
        mut rng: Rng,
    ) -> Self {
        let parameters = view.parameters();
        Self {
            view: Arc::clone(view),
            me,
            layer,
            accounts,
            outbound: PoissonClock::new(now, parameters.mix_loop_interval, rng.fork()),
            inbound: PoissonClock::new(now, parameters.mix_loop_interval, rng.fork()),
            builder: PacketBuilder::new(rng.fork()),
            monitor: LoopMonitor::new(parameters.loop_timeout, IN_FLIGHT, LossTest::standard()),
            ready: None,
            rng,
            turn: 0,
        }
    }

    pub(crate) fn handle_link(&mut self, account: usize, connected: bool) {
        if let Some(account) = self.accounts.get_mut(account) {
            account.handle_link(connected);
        }
    }

    pub(crate) fn handle_frame(&mut self, now: Time, account: usize, frame: Frame) {
        let Some(client) = self.accounts.get_mut(account) else { return };
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
        if let Some(due) = self.outbound.poll(now) {
            return Some(self.send_outbound(due));
        }
        while let Some(due) = self.inbound.poll(now) {
            self.send_inbound(due);
        }
        // Begin with another account each time, so that none waits for the others.
        let count = self.accounts.len();
        self.turn = (self.turn + 1) % count;
        (0..count).map(|step| (self.turn + step) % count).find_map(|account| {
            let frame = self.accounts[account].poll_transmit(now)?;
            Some(RelayOutput::Account { account, frame })
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
        if self.ready.is_none() && !self.accounts.is_empty() {
            self.ready = Some(self.build_outbound());
            return true;
        }
        self.accounts.iter_mut().any(|account| account.work(now))
    }

    /// Delivery ratio of a half over all gateways; `None` until a loop was due.
    pub fn delivery_ratio(&self, half: Half) -> Option<f64> {
        let stats = (0..self.accounts.len()).map(|account| self.monitor.stats(&(half, account)));
        // Those that are not due yet do not count, returned or not: the lost among them are not known.
        let (due, lost) = stats.fold((0, 0), |(due, lost), stats| (due + stats.due, lost + stats.lost));
        LoopStats { due, lost, ..LoopStats::default() }.delivery_ratio()
    }

    /// Statistics of a half through one account's gateway.
    pub fn stats(&self, half: Half, account: usize) -> LoopStats {
        self.monitor.stats(&(half, account))
    }

    /// The verdict on a half through one account's gateway.
    pub fn verdict(&self, half: Half, account: usize) -> Verdict {
        self.monitor.verdict(&(half, account))
    }

    pub(crate) fn account_counts(&self) -> ClientCounts {
        self.accounts.iter().map(Client::counts).fold(ClientCounts::default(), ClientCounts::plus)
    }

    pub(crate) fn gateways(&self) -> Vec<IdentityKey> {
        self.accounts.iter().map(|account| account.address().gateway).collect()
    }

    fn send_outbound(&mut self, due: Time) -> RelayOutput {
        let (account, identifier, prepared) = self.ready.take().unwrap_or_else(|| self.build_outbound());
        // A full monitor means that thousands are under way: this one goes out uncounted.
        let _ = self.monitor.sent(due, identifier, (Half::Outbound, account));
        RelayOutput::Forward { to: prepared.first, frame: prepared.frame }
    }

    fn build_outbound(&mut self) -> (usize, Identifier, Prepared) {
        let account = self.draw_account();
        let address = self.accounts[account].address();
        let end = End::Client {
            gateway: self.view.gateway(&address.gateway).expect("accounts are at gateways of this view"),
            mailbox: address.mailbox,
            key: self.accounts[account].public_key(),
        };
        let mixes = self.view.draw_route_after(self.layer, self.builder.rng());
        let identifier = self.builder.identifier();
        let filler = self.builder.filler(payload_type::PROBE);
        let prepared = self.builder.build(&self.view, FirstLink::FromNode, &mixes, &end, identifier, &filler);
        (account, identifier, prepared)
    }

    fn send_inbound(&mut self, due: Time) {
        let account = self.draw_account();
        let identifier = self.builder.identifier();
        let mixes = self.view.draw_route_before(self.layer, self.builder.rng());
        if self.accounts[account].handle_probe(Probe {
            identifier,
            view: Arc::clone(&self.view),
            mixes,
            end: self.me,
        }) {
            let _ = self.monitor.sent(due, identifier, (Half::Inbound, account));
        }
    }

    fn draw_account(&mut self) -> usize {
        usize::try_from(self.rng.below(self.accounts.len() as u64)).expect("below a length")
    }
}

impl core::fmt::Debug for HalfLoops {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HalfLoops").field("accounts", &self.accounts.len()).finish_non_exhaustive()
    }
}
