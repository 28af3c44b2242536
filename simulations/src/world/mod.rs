//! The simulated network: what happens when an event comes up.

use core::time::Duration;

use tombola_mixing::{LoopMonitor, LossTest, PoissonClock, Rng, Stream, Time};

use crate::engine::{Purpose, Seeds};
use crate::fidelity::{Wire, WireError};
use crate::metrics::masses::{Masses, ZERO};
use crate::metrics::tracker::{NewTarget, Tracker};
use crate::mixes::{Delay, Mix, PacketId};
use crate::scenario::{Scenario, loops_under_way};

mod agenda;
mod control;
mod packets;
mod results;
mod routes;
mod sources;

use agenda::{Agenda, Event, Flight, Next};
pub use control::Control;
pub use packets::{Hop, Kind, LOST, Packet, Packets};
pub use results::{Batch, WorldResult};
pub use routes::Routes;
pub use sources::{Sources, Tick, UserEvent, Users};

/// Watches what happens. All of it is optional.
pub trait Observer {
    /// How often [`Observer::sample`] is called; `None`: never.
    fn sampling(&self) -> Option<Duration> {
        None
    }

    /// How many packets are under way or still wait at their senders, and how many are in each mix.
    fn sample(&mut self, now: Time, unfinished: usize, in_mix: &mut dyn Iterator<Item = f64>) {
        let _ = (now, unfinished, in_mix);
    }

    /// A packet leaves a mix.
    fn departed(&mut self, now: Time, mix: u32) {
        let _ = (now, mix);
    }

    /// A packet is at its end: it arrived, or (`arrived` is false) was lost.
    fn ended(&mut self, now: Time, packet: PacketId, packets: &Packets, arrived: bool) {
        let _ = (now, packet, packets, arrived);
    }
}

/// Watches nothing.
impl Observer for () {}

/// Which part of a run is measured.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Simulated time before it.
    pub warm_up: Duration,
    /// Length of one batch.
    pub batch: Duration,
    /// How many batches.
    pub batches: u32,
}

/// Whether packets are numbers, or bytes that real relays open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fidelity {
    /// A packet is a number.
    #[default]
    Index,
    /// A packet is a Sphinx packet, and a mix the deployed relay.
    Packets,
}

struct MixSeat {
    mix: Box<dyn Mix>,
    /// When it is asked next.
    wake: Time,
}

/// The clocks of a mix's own loops, and what became of them.
struct MixLoops {
    outbound: PoissonClock,
    inbound: PoissonClock,
    monitor: LoopMonitor<bool>,
    layer: usize,
}

struct World<'s, const L: usize, O> {
    scenario: &'s Scenario,
    observer: &'s mut O,
    agenda: Agenda,
    routes: Routes,
    delay: Delay,
    mixes: Vec<MixSeat>,
    masses: Masses<L>,
    tracker: Tracker<L>,
    packets: Packets,
    sources: Sources,
    users: Option<Users>,
    /// By sender.
    sent: Vec<u32>,
    packet_rng: Rng,
    link_rng: Option<Rng>,
    /// What every link takes, in nanoseconds, unless that is drawn.
    link: u64,
    mix_loops: Vec<MixLoops>,
    client_loops: Vec<LoopMonitor<()>>,
    wire: Option<Wire>,
    /// A message is a target if its first random number is below.
    tag_below: u64,
    begin: Time,
    end: Time,
    batch: u64,
    outstanding: u64,
    result: WorldResult,
}

/// Runs a world from its beginning to the end of what is measured; `None` if it was stopped before a batch was complete.
///
/// # Errors
/// With [`Fidelity::Packets`]: the scenario is none that real relays can run.
pub fn run<O: Observer>(
    scenario: &Scenario,
    seeds: &Seeds,
    window: Window,
    fidelity: Fidelity,
    observer: &mut O,
    control: &Control,
) -> Result<Option<WorldResult>, WireError> {
    let lanes = scenario.measures.lanes + if scenario.measures.challenge { 2 } else { 0 };
    match lanes {
        0..=4 => {
            World::<4, O>::new(scenario, seeds, window, fidelity, observer).map(|world| world.run(control))
        }
        5..=16 => {
            World::<16, O>::new(scenario, seeds, window, fidelity, observer).map(|world| world.run(control))
        }
        _ => World::<64, O>::new(scenario, seeds, window, fidelity, observer).map(|world| world.run(control)),
    }
}

/// The mean interval of targets that leaves nearly every target a free lane: by Erlang's loss formula one target in a
/// million finds none, for 14 lanes and above.
#[must_use]
pub fn default_target_interval(lanes: usize, settling: f64) -> Duration {
    let lanes = lanes as f64;
    let offered = (lanes - 3.0 * lanes.sqrt()).max(lanes * 0.15).min(lanes / 2.0);
    Duration::from_secs_f64((settling / offered).clamp(1e-9, 1e9))
}

impl<'s, const L: usize, O: Observer> World<'s, L, O> {
    fn new(
        scenario: &'s Scenario,
        seeds: &Seeds,
        window: Window,
        fidelity: Fidelity,
        observer: &'s mut O,
    ) -> Result<Self, WireError> {
        let Scenario { clients, measures, .. } = scenario;
        let routes = Routes::new(scenario);
        let corrupt = routes.corrupt(scenario.corrupt, &mut seeds.stream(Purpose::World, 0));
        let arrivals = scenario.most_arrivals_per_mix();
        let wire = match fidelity {
            Fidelity::Index => None,
            Fidelity::Packets => Some(Wire::new(scenario, &routes, seeds)?),
        };
        let seat = |mix: usize| MixSeat {
            mix: match &wire {
                None => scenario.mix.build(seeds.stream(Purpose::Mixes, mix as u64), arrivals),
                Some(wire) => wire.relay(mix),
            },
            wake: Time::MAX,
        };
        let monitor = || LossTest::standard();
        let in_flight = |interval: Option<Duration>| {
            interval.map_or(0, |interval| loops_under_way(measures.loop_timeout, interval) as usize)
        };
        let mix_loops = match scenario.mix_loops {
            None => Vec::new(),
            Some(interval) => (0..routes.mixes())
                .map(|mix| {
                    let mut rng = seeds.stream(Purpose::MixLoops, mix as u64);
                    MixLoops {
                        outbound: PoissonClock::new(Time::ZERO, interval, rng.fork()),
                        inbound: PoissonClock::new(Time::ZERO, interval, rng),
                        monitor: LoopMonitor::new(
                            measures.loop_timeout,
                            2 * in_flight(Some(interval)),
                            monitor(),
                        ),
                        layer: routes.layer_of(mix),
                    }
                })
                .collect(),
        };
        let monitored =
            if clients.loops.is_some() { measures.monitored_clients.min(clients.count) } else { 0 };
        let drawn_links = !scenario.link_delay.is_constant() || scenario.link_loss > 0.0;
        let (users, first) =
            Users::new(clients, seeds).map_or((None, Vec::new()), |(users, first)| (Some(users), first));
        let interval =
            measures.interval.unwrap_or_else(|| default_target_interval(measures.lanes, scenario.settling()));
        let share = (1.0 / (clients.message_rate() * interval.as_secs_f64())).min(1.0);
        let receivers =
            if measures.receivers { clients.count + scenario.gateways + routes.mixes() } else { 0 };
        let begin = Time::ZERO + window.warm_up;
        let mut world = Self {
            delay: scenario.mix.delay(),
            agenda: Agenda::default(),
            mixes: (0..routes.mixes()).map(seat).collect(),
            masses: Masses::new(&corrupt),
            tracker: Tracker::new(measures.lanes, receivers, measures.challenge),
            packets: Packets::new(scenario.topology.hops(), drawn_links, users.is_some()),
            sources: Sources::new(clients, seeds),
            users,
            sent: vec![0; clients.count + routes.mixes()],
            packet_rng: seeds.stream(Purpose::Packets, 0),
            link_rng: drawn_links.then(|| seeds.stream(Purpose::Links, 0)),
            link: if let Delay::Constant(link) = scenario.link_delay { link.as_nanos() as u64 } else { 0 },
            client_loops: (0..monitored)
                .map(|_| LoopMonitor::new(measures.loop_timeout, in_flight(clients.loops), monitor()))
                .collect(),
            mix_loops,
            wire,
            // Saturates: a share of 1 is every message but one in 2^64.
            tag_below: (share * 2.0_f64.powi(64)) as u64,
            begin,
            end: begin + window.batch * window.batches,
            batch: u64::try_from(window.batch.as_nanos()).unwrap_or(u64::MAX).max(1),
            outstanding: 0,
            result: WorldResult {
                batches: vec![Batch::default(); window.batches as usize],
                ..WorldResult::default()
            },
            scenario,
            observer,
            routes,
        };
        if measures.challenge {
            world.masses.open_lane();
            world.masses.open_lane();
            world.masses.never_forget(Tracker::<L>::challenge_lane(0));
        }
        world.schedule_first(&first);
        Ok(world)
    }

    fn schedule_first(&mut self, users: &[(Time, u32)]) {
        for group in 0..self.sources.len() as u32 {
            self.agenda.push(self.sources.poll_timeout(group), Event::Emit, group);
        }
        for &(at, client) in users {
            self.agenda.push(at, Event::User, client);
        }
        for mix in 0..self.mix_loops.len() {
            let loops = &self.mix_loops[mix];
            let (outbound, inbound) = (loops.outbound.poll_timeout(), loops.inbound.poll_timeout());
            self.agenda.push(outbound, Event::MixOut, mix as u32);
            self.agenda.push(inbound, Event::MixIn, mix as u32);
        }
        for mix in 0..self.mixes.len() as u32 {
            self.settle(Time::ZERO, mix);
        }
        if let Some(interval) = self.observer.sampling() {
            self.agenda.push(Time::ZERO + interval, Event::Sample, 0);
        }
    }

    /// Everything until all that is measured has come out. If it does not (a mix that waits for packets that never come),
    /// the run is given up after twenty times the time that it should take.
    fn run(mut self, control: &Control) -> Option<WorldResult> {
        let patience = Duration::from_secs_f64((20.0 * self.scenario.settling()).clamp(1.0, 1e9));
        let give_up = self.end + patience + (self.end - self.begin);
        let mut now = Time::ZERO;
        let mut seen = Time::ZERO;
        let mut taken = 0_u64;
        let mut ended = false;
        loop {
            let Self { agenda, packets, masses, tracker, mixes, sources, users, sent, .. } = &mut self;
            // With a million packets hardly anything that an event needs is in the processor's cache. Reading it ahead,
            // for many events at a time, means waiting for memory once and not for each of them.
            let next = agenda.pop(|next| match next {
                Next::Flight(Flight { slot, .. }) if slot != ZERO => {
                    core::hint::black_box(masses.of(slot).map(|mass| mass[0] + mass[L / 2]));
                }
                Next::Flight(Flight { id, mix: Flight::END, .. }) => {
                    core::hint::black_box(packets.get(id).sent);
                }
                Next::Event(Event::Arrive | Event::End, id) => {
                    let slot = packets.get(PacketId(id)).slot;
                    core::hint::black_box(masses.of(slot).map(|mass| mass[0] + mass[L / 2]));
                }
                Next::Event(Event::Wake, id) => {
                    if let Some(next) = mixes[id as usize].mix.next_hint() {
                        let &Packet { hop, hops, receiver, .. } = packets.get(next);
                        if hop + 1 == hops && tracker.active() > 0 {
                            core::hint::black_box(tracker.touch(receiver as usize));
                        }
                    }
                }
                Next::Event(Event::Emit, id) => {
                    core::hint::black_box(sources.poll_timeout(id));
                    let client = sources.first_client(id) as usize;
                    core::hint::black_box(sent[client]);
                    core::hint::black_box(users.as_ref().map(|users| users.touch(client)));
                }
                Next::Event(Event::User, id) => {
                    core::hint::black_box(users.as_ref().map(|users| users.touch(id as usize)));
                }
                Next::Flight(_) | Next::Event(Event::MixOut | Event::MixIn | Event::Sample, _) => {}
            });
            let Some((at, next)) = next else { break };
            now = at;
            self.result.events += 1;
            match next {
                Next::Flight(Flight { id, mix: Flight::END, .. }) => self.end(now, id),
                Next::Flight(flight) => self.arrive(now, flight),
                Next::Event(event, id) => self.handle(now, event, id),
            }
            taken += 1;
            if taken.is_multiple_of(Control::EVERY) && !control.passed(Control::EVERY, &mut seen, now) {
                return self.interrupted(now);
            }
            ended |= now >= self.end;
            if ended && ((self.outstanding == 0 && self.tracker.active() == 0) || now >= give_up) {
                break;
            }
        }
        control.passed(self.result.events % Control::EVERY, &mut seen, now);
        Some(self.finish(now))
    }

    fn finish(mut self, now: Time) -> WorldResult {
        while let Some(lane) = self.tracker.finish(true) {
            self.masses.close_lane(lane);
            self.result.unfinished += 1;
        }
        // Once nothing that counts is under way, it is known of every loop what became of it, whether or not it is due.
        let judged = if self.outstanding == 0 { Time::MAX } else { now };
        for monitor in &mut self.client_loops {
            while monitor.poll_expired(judged).is_some() {}
            self.result.client_loops += monitor.total();
        }
        for MixLoops { monitor, .. } in &mut self.mix_loops {
            while monitor.poll_expired(judged).is_some() {}
            self.result.mix_loops += monitor.total();
        }
        self.result.wire = self.wire.as_ref().map(Wire::counts);
        self.result.under_way = self.outstanding;
        self.result.passed_over = self.tracker.passed_over();
        self.result.simulated = now - Time::ZERO;
        self.result.targets = self.tracker.into_results();
        self.result
    }

    /// What is complete of a run that is stopped: the first batches whose packets and targets have all come out.
    fn interrupted(self, now: Time) -> Option<WorldResult> {
        let over = if now >= self.end { usize::MAX } else { self.batch_of(now)? };
        let settled = self.result.batches.iter().take_while(|batch| batch.is_settled()).count();
        let followed = self.tracker.earliest().map_or(usize::MAX, |batch| batch as usize);
        let complete = over.min(settled).min(followed);
        if complete == 0 {
            return None;
        }
        let mut result = self.finish(now);
        result.batches.truncate(complete);
        result.targets.retain(|target| (target.batch as usize) < complete);
        Some(WorldResult { interrupted: true, unfinished: 0, under_way: 0, ..result })
    }

    #[inline]
    fn handle(&mut self, now: Time, event: Event, id: u32) {
        match event {
            Event::Arrive => {
                let id = PacketId(id);
                let Hop { delay, mix } = self.packets.current(id);
                let slot = core::mem::replace(&mut self.packets.get_mut(id).slot, ZERO);
                self.arrive(now, Flight { id, mix, delay, slot });
            }
            Event::Wake => {
                if self.mixes[id as usize].wake == now {
                    self.mixes[id as usize].wake = Time::MAX;
                    self.settle(now, id);
                } else {
                    // An earlier one took its place: nothing was to be done, and nothing is counted.
                    self.result.events -= 1;
                }
            }
            Event::End => self.end(now, PacketId(id)),
            Event::Emit => {
                while let Some(tick) = self.sources.poll(id, now) {
                    self.tick(now, tick);
                }
                self.agenda.push(self.sources.poll_timeout(id), Event::Emit, id);
            }
            Event::User => self.user(now, id),
            Event::MixOut => {
                while self.mix_loops[id as usize].outbound.poll(now).is_some() {
                    self.send(now, now, self.scenario.clients.count as u32 + id, Kind::MixOut);
                }
                self.agenda.push(self.mix_loops[id as usize].outbound.poll_timeout(), Event::MixOut, id);
            }
            Event::MixIn => {
                while self.mix_loops[id as usize].inbound.poll(now).is_some() {
                    self.send(now, now, self.scenario.clients.count as u32 + id, Kind::MixIn);
                }
                self.agenda.push(self.mix_loops[id as usize].inbound.poll_timeout(), Event::MixIn, id);
            }
            Event::Sample => {
                if let Some(interval) = self.observer.sampling() {
                    let masses = &self.masses;
                    let mut in_mix = (0..self.mixes.len()).map(|mix| masses.packets(mix));
                    let waits = self.users.as_ref().map_or(0, Users::waits);
                    self.observer.sample(now, self.packets.under_way() + waits, &mut in_mix);
                    self.agenda.push(now + interval, Event::Sample, 0);
                }
            }
        }
    }

    fn user(&mut self, now: Time, id: u32) {
        let Some(users) = &mut self.users else { return };
        let (event, next) = users.poll(id, now);
        if let UserEvent::Writes(client) = event {
            if matches!(self.scenario.clients.emission, crate::scenario::Emission::Loopix { .. }) {
                users.queue(client, now);
            } else {
                self.send(now, now, client, Kind::Real);
            }
        }
        self.agenda.push(next, Event::User, id);
    }

    #[inline]
    fn tick(&mut self, now: Time, tick: Tick) {
        let (kind, written) = match (tick.stream, &mut self.users) {
            (Stream::Loop, _) => (Kind::Loop, now),
            (Stream::Drop, _) => (Kind::Drop, now),
            (Stream::Main, None) => (Kind::Real, now),
            (Stream::Main, Some(users)) => {
                users.take(tick.client).map_or((Kind::Cover, now), |written| (Kind::Real, written))
            }
        };
        self.send(now, written, tick.client, kind);
    }

    /// A packet sets out.
    fn send(&mut self, now: Time, written: Time, sender: u32, kind: Kind) {
        let number = self.sent[sender as usize];
        self.sent[sender as usize] = number.wrapping_add(1);
        let id = self.packets.insert(now, written, sender, number, kind);
        self.draw(id);
        if let Some(wire) = &mut self.wire {
            wire.build(id, &self.packets);
        }
        let batch = self.batch_of(now);
        if let Some(batch) = batch {
            self.outstanding += 1;
            self.result.batches[batch].sent[kind as usize] += 1;
            if kind == Kind::Real {
                self.result.batches[batch].waiting.add((now - written).as_secs_f64());
            }
        }
        if self.scenario.measures.challenge && sender < 2 {
            let lane = Tracker::<L>::challenge_lane(sender as usize);
            let packet = self.packets.get_mut(id);
            packet.slot = self.masses.certain(lane, packet.slot);
        }
        match kind {
            Kind::Loop if batch.is_some() && (sender as usize) < self.client_loops.len() => {
                let monitor = &mut self.client_loops[sender as usize];
                while monitor.poll_expired(now).is_some() {}
                // What finds no room in the monitor is cover that nobody counts, as at a client.
                let _ = monitor.sent(now, loop_id(number), ());
            }
            Kind::MixOut | Kind::MixIn => {
                let mix = sender as usize - self.scenario.clients.count;
                let monitor = &mut self.mix_loops[mix].monitor;
                while monitor.poll_expired(now).is_some() {}
                if batch.is_some() {
                    let _ = monitor.sent(now, loop_id(number), kind == Kind::MixOut);
                }
                if kind == Kind::MixOut {
                    // On the link it looks like any other that leaves: one packet more to choose from.
                    let slot = self.masses.arrive(mix, ZERO);
                    let slot = self.masses.depart(mix, slot);
                    self.packets.get_mut(id).slot = slot;
                }
            }
            _ => {}
        }
        self.travel(now, id);
    }

    /// Draws what the sender draws: whether the packet is a target, its recipient, route and delays.
    fn draw(&mut self, id: PacketId) {
        let Packet { sent, sender, number, kind, .. } = *self.packets.get(id);
        self.packet_rng.restart(u64::from(sender) << 32 | u64::from(number));
        let rng = &mut self.packet_rng;
        let tag = rng.next_u64();
        let clients = self.scenario.clients.count as u32;
        let receiver = match kind {
            Kind::Real => {
                let other = rng.below(u64::from(clients) - 1) as u32;
                other + u32::from(other >= sender)
            }
            Kind::Loop => sender,
            Kind::Cover | Kind::Drop | Kind::MixOut => clients + self.routes.draw_gateway(rng),
            Kind::MixIn => sender + self.scenario.gateways as u32,
        };
        let packets = &mut self.packets;
        let hop = |mix| packets.add_hop(id, mix);
        match kind {
            Kind::MixOut | Kind::MixIn => {
                let layer = self.mix_loops[(sender - clients) as usize].layer;
                if kind == Kind::MixOut {
                    self.routes.draw_after(layer, rng, hop);
                } else {
                    self.routes.draw_before(layer, rng, hop);
                }
            }
            _ => self.routes.draw(rng, hop),
        }
        let hops = self.packets.get(id).hops;
        if self.wire.is_none() {
            for hop in 0..hops {
                self.packets.set_delay(id, hop, self.delay.draw(rng).as_nanos() as u64);
            }
        }
        if let Some(rng) = &mut self.link_rng {
            rng.restart(u64::from(sender) << 32 | u64::from(number));
            let loss = (self.scenario.link_loss * 2.0_f64.powi(64)) as u64;
            for link in &mut self.packets.links_mut(id)[..=usize::from(hops)] {
                let delay = self.scenario.link_delay.draw(rng).as_nanos() as u64;
                *link = if rng.next_u64() < loss { LOST } else { delay };
            }
        }
        self.packets.get_mut(id).receiver = receiver;
        if kind == Kind::Real
            && tag < self.tag_below
            && let Some(batch) = self.batch_of(sent)
        {
            self.begin_target(id, batch);
        }
    }

    fn begin_target(&mut self, id: PacketId, batch: usize) {
        let Packet { sent, sender, number, slot, .. } = *self.packets.get(id);
        let corrupt_hops =
            self.packets.route(id).filter(|hop| self.masses.is_corrupt(hop.mix as usize)).count() as u32;
        let target = NewTarget { batch: batch as u32, sender, number, sent, corrupt_hops };
        if let Some(lane) = self.tracker.begin(target) {
            self.masses.open_lane();
            self.packets.get_mut(id).slot = self.masses.certain(lane, slot);
        }
    }

    #[inline]
    fn batch_of(&self, sent: Time) -> Option<usize> {
        if sent < self.begin || sent >= self.end {
            return None;
        }
        if self.result.batches.len() == 1 {
            return Some(0);
        }
        Some(((sent - self.begin).as_nanos() as u64 / self.batch) as usize)
    }

    /// Over the next link: to the next mix, or to the end.
    #[inline]
    fn travel(&mut self, now: Time, id: PacketId) {
        let drawn = self.link_rng.is_some();
        let link = if drawn { self.packets.link(id) } else { self.link };
        let Packet { hop, hops, slot, receiver, .. } = *self.packets.get(id);
        if link == LOST {
            return self.lose(now, id, slot, false);
        }
        let at = now + Duration::from_nanos(link);
        if hop < hops {
            if drawn {
                return self.agenda.push(at, Event::Arrive, id.0);
            }
            let Hop { delay, mix } = self.packets.hop(id, hop);
            self.packets.get_mut(id).slot = ZERO;
            return self.agenda.push_flight(at, Flight { id, mix, delay, slot });
        }
        // All that an observer learns, it learns when the packet leaves its last mix.
        let mut complete = false;
        if let Some(mass) = self.masses.of(slot) {
            complete = self.tracker.delivered(mass, receiver as usize);
            if self.scenario.measures.challenge
                && let Some(batch) = self.batch_of(now)
            {
                self.result.batches[batch]
                    .likelihood
                    .judge(mass[Tracker::<L>::challenge_lane(0)], mass[Tracker::<L>::challenge_lane(1)]);
            }
        }
        self.masses.release(slot);
        self.packets.get_mut(id).slot = ZERO;
        if complete {
            self.finish_targets();
        }
        if drawn {
            return self.agenda.push(at, Event::End, id.0);
        }
        self.agenda.push_flight(at, Flight { id, mix: Flight::END, delay: 0, slot: ZERO });
    }

    fn finish_targets(&mut self) {
        while let Some(lane) = self.tracker.finish(false) {
            self.masses.close_lane(lane);
        }
    }

    fn lose(&mut self, now: Time, id: PacketId, slot: u32, refused: bool) {
        let packet = *self.packets.get(id);
        if self.masses.of(slot).is_some_and(|mass| self.tracker.lost(mass)) {
            self.finish_targets();
        }
        self.masses.release(slot);
        if let Some(batch) = self.batch_of(packet.sent) {
            self.outstanding -= 1;
            let batch = &mut self.result.batches[batch];
            if refused {
                batch.refused += 1;
            } else {
                batch.lost_on_links += 1;
            }
        }
        if let Some(wire) = &mut self.wire {
            wire.forget(id);
        }
        self.observer.ended(now, id, &self.packets, false);
        self.packets.remove(id);
    }

    #[inline]
    fn arrive(&mut self, now: Time, flight: Flight) {
        let Flight { id, mix, delay, slot } = flight;
        if !self.mixes[mix as usize].mix.arrive(now, id, Duration::from_nanos(delay)) {
            return self.lose(now, id, slot, true);
        }
        let slot = self.masses.arrive(mix as usize, slot);
        if slot != ZERO {
            self.packets.get_mut(id).slot = slot;
        }
        self.settle(now, mix);
    }

    /// Takes what leaves a mix now, and looks when the next packet does.
    #[inline]
    fn settle(&mut self, now: Time, mix: u32) {
        while let Some(id) = self.mixes[mix as usize].mix.poll(now) {
            let packet = self.packets.get_mut(id);
            packet.slot = self.masses.depart(mix as usize, packet.slot);
            packet.hop += 1;
            self.observer.departed(now, mix);
            self.travel(now, id);
        }
        let seat = &mut self.mixes[mix as usize];
        if let Some(wake) = seat.mix.poll_timeout()
            && wake < seat.wake
        {
            seat.wake = wake;
            self.agenda.push(wake, Event::Wake, mix);
        }
    }

    /// A packet has arrived where it ends.
    #[inline]
    fn end(&mut self, now: Time, id: PacketId) {
        let packet = *self.packets.get(id);
        self.result.delivered += 1;
        if let Some(wire) = &mut self.wire {
            wire.end(now, id);
        }
        if let Some(batch) = self.batch_of(packet.sent) {
            self.outstanding -= 1;
            let batch = &mut self.result.batches[batch];
            batch.arrived[packet.kind as usize] += 1;
            if packet.kind == Kind::Real {
                let latency = now - self.packets.written(id);
                batch.latency.add(latency.as_secs_f64());
                batch.latencies.add(latency);
                batch.transit.add((now - packet.sent).as_secs_f64());
            }
        }
        match packet.kind {
            Kind::Loop => {
                if let Some(monitor) = self.client_loops.get_mut(packet.sender as usize) {
                    monitor.returned(now, loop_id(packet.number));
                }
            }
            Kind::MixOut | Kind::MixIn => {
                let mix = packet.sender as usize - self.scenario.clients.count;
                self.mix_loops[mix].monitor.returned(now, loop_id(packet.number));
            }
            _ => {}
        }
        self.observer.ended(now, id, &self.packets, true);
        self.packets.remove(id);
    }
}

/// A loop's id: which of its sender's packets it is.
fn loop_id(number: u32) -> [u8; 16] {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    id
}
