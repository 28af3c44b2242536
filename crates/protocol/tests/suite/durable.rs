//! Nothing leaves a node before its tag is durable, and nobody is woken when nothing waits.

use core::time::Duration;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tombola_mixing::Time;
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::frame::{Frame, FrameKind};
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayOutput};
use tombola_protocol::opener::{Inbound, Occupancy, Opened, Opener};
use tombola_protocol::relay::{Relay, RelayInput, RelayOutput};
use tombola_protocol::taglog::{LogRefused, TagLog};
use tombola_topology::{IdentityKey, MailboxId};

use crate::common::{ByHand, Disk, Hop, Setup, World, at_layer_3, dropped};

const MS: Duration = Duration::from_millis(1);

/// A log on a disk that obeys the test.
#[derive(Default)]
struct FakeLog {
    /// How many fingerprints came with each call.
    appended: Mutex<Vec<u64>>,
    durable: AtomicU64,
    needed: Mutex<Vec<(u64, Duration)>>,
    full: AtomicBool,
}

impl FakeLog {
    fn position(&self) -> u64 {
        self.appended.lock().unwrap().iter().sum()
    }

    fn sync_to(&self, position: u64) {
        self.durable.store(position, Ordering::Relaxed);
    }

    fn needed(&self) -> Vec<(u64, Duration)> {
        std::mem::take(&mut *self.needed.lock().unwrap())
    }
}

impl TagLog for FakeLog {
    fn append(&self, fingerprints: &[u64]) -> Result<u64, LogRefused> {
        if self.full.load(Ordering::Relaxed) {
            return Err(LogRefused::Failing);
        }
        assert!(!fingerprints.is_empty() && !fingerprints.contains(&0));
        self.appended.lock().unwrap().push(fingerprints.len() as u64);
        Ok(self.position())
    }

    fn durable(&self) -> u64 {
        self.durable.load(Ordering::Relaxed)
    }

    fn need(&self, position: u64, within: Duration) {
        self.needed.lock().unwrap().push((position, within));
    }
}

/// A node with a log: 6 is of layer 3, 0 a gateway.
struct Bench {
    world: World,
    by_hand: ByHand,
    log: Arc<FakeLog>,
    opener: Opener,
    occupancy: Occupancy,
    drops: Arc<DropCounters>,
    from: IdentityKey,
    now: Time,
}

impl Bench {
    fn new(node: u32, from: u32) -> Self {
        let world = Setup::new(160).world();
        let log: Arc<FakeLog> = Arc::default();
        let (occupancy, drops) = (Occupancy::new(1000), Arc::default());
        let opener = Opener::new(&world.setup.parameters, occupancy.clone(), Arc::clone(&drops));
        opener.open(world.seat(0, node), world.key(0, node, Some(log.clone())));
        let (by_hand, from) = (ByHand::new(&world.view, 160), world.identity(from));
        let now = Time::ZERO + Duration::from_secs(1);
        Self { world, by_hand, log, opener, occupancy, drops, from, now }
    }

    fn relay() -> (Self, Relay) {
        let mut bench = Self::new(6, 4);
        let (_, relay) = bench.world.relay(6, &bench.occupancy, &bench.drops);
        (bench, relay)
    }

    /// A packet for a gateway that layer 3 holds that long.
    fn packet(&mut self, delay: Duration) -> Frame {
        at_layer_3(&mut self.by_hand, &self.world.view, 6, 0, delay.as_nanos() as u64)
    }

    fn open(&self, frames: Vec<Frame>) -> Vec<Opened> {
        let inbound = |frame| Inbound { arrived: self.now, from: self.from, frame };
        let (mut opened, mut spare) = (vec![], vec![]);
        self.opener.open_batch(&mut frames.into_iter().map(inbound).collect(), &mut opened, &mut spare);
        opened
    }

    /// Hands packets with these delays to the relay, as one batch.
    fn feed(&mut self, relay: &mut Relay, delays: &[Duration]) -> Vec<[u8; 32]> {
        let frames = delays.iter().map(|delay| self.packet(*delay)).collect();
        let mut alphas = vec![];
        for opened in self.open(frames) {
            alphas.push(*opened.frame.packet().first_chunk().unwrap());
            relay.handle(self.now, RelayInput::Opened(opened));
        }
        alphas
    }
}

fn leaves(relay: &mut Relay, now: Time) -> Vec<[u8; 32]> {
    let mut out = vec![];
    while let Some(RelayOutput::Forward { frame, .. }) = relay.poll_output(now) {
        out.push(*frame.packet().first_chunk().unwrap());
    }
    assert!(relay.poll_timeout().is_none_or(|due| due > now), "it would spin");
    out
}

#[test]
fn a_packet_leaves_a_mix_node_only_when_its_tag_is_durable() {
    let (mut bench, mut relay) = Bench::relay();
    let [packet] = bench.feed(&mut relay, &[5 * MS])[..] else { panic!("one") };
    assert_eq!(bench.log.needed(), [(1, 5 * MS)], "the log is told for when");
    assert_eq!(relay.poll_timeout(), Some(bench.now + 5 * MS), "no wake-up before");
    let mut now = bench.now;
    for _ in 0..1000 {
        now += MS;
        assert!(leaves(&mut relay, now).is_empty());
    }
    assert_eq!((relay.counts().pool, bench.occupancy.taken(), relay.counts().late_tags), (1, 1, 1));
    bench.log.sync_to(1);
    now = relay.poll_timeout().unwrap();
    assert_eq!(leaves(&mut relay, now), [packet]);
    assert_eq!((relay.counts().pool, bench.occupancy.taken()), (0, 0));
    assert_eq!(relay.poll_timeout(), None, "nothing waits, nobody is woken");
}

#[test]
fn a_tag_that_is_durable_in_time_delays_nothing() {
    let (mut bench, mut relay) = Bench::relay();
    let [packet] = bench.feed(&mut relay, &[400 * MS])[..] else { panic!("one") };
    assert!(bench.log.needed().is_empty(), "it is synced before then anyway");
    bench.log.sync_to(1);
    let due = bench.now + 400 * MS;
    assert!(leaves(&mut relay, due - Duration::from_nanos(1)).is_empty());
    assert_eq!(relay.poll_timeout(), Some(due));
    assert_eq!(leaves(&mut relay, due), [packet]);
    assert_eq!(relay.counts().late_tags, 0);
}

#[test]
fn packets_that_waited_leave_in_the_order_of_their_deadlines_and_hold_up_nobody() {
    let (mut bench, mut relay) = Bench::relay();
    let early = bench.feed(&mut relay, &[50 * MS, 20 * MS]);
    bench.log.sync_to(2);
    let late = bench.feed(&mut relay, &[30 * MS, 10 * MS, 40 * MS]);
    // What is durable leaves, though what came later was due before.
    assert_eq!(leaves(&mut relay, bench.now + 25 * MS), [early[1]]);
    assert!(leaves(&mut relay, bench.now + 35 * MS).is_empty());
    bench.log.sync_to(5);
    let expected = [late[1], late[0], late[2], early[0]];
    assert_eq!(leaves(&mut relay, bench.now + 60 * MS), expected);
}

#[test]
fn packets_with_one_deadline_leave_in_random_order_after_the_disk_kept_them_waiting_too() {
    let mut orders = std::collections::BTreeMap::new();
    let (mut bench, mut relay) = Bench::relay();
    const ROUNDS: usize = 300;
    for _ in 0..ROUNDS {
        let fed = bench.feed(&mut relay, &[MS; 3]);
        bench.now += 2 * MS;
        assert!(leaves(&mut relay, bench.now).is_empty());
        bench.log.sync_to(bench.log.position());
        bench.now += 2 * MS;
        let left = leaves(&mut relay, bench.now);
        let order: Vec<_> = left.iter().map(|alpha| fed.iter().position(|a| a == alpha).unwrap()).collect();
        *orders.entry(order).or_insert(0) += 1;
    }
    // Each of six is binomial with mean 50 and deviation 6.5.
    assert_eq!(orders.len(), 6, "{orders:?}");
    assert!(orders.values().all(|count| (20..=80).contains(count)), "{orders:?}");
}

#[test]
fn a_batch_is_appended_at_once_and_what_is_refused_is_not() {
    let mut bench = Bench::new(6, 4);
    let mut frames: Vec<_> = (0..20).map(|_| bench.packet(MS)).collect();
    frames.push(frames[0].clone());
    let mut other = frames[1].clone();
    other.packet_mut()[40] ^= 1;
    frames.push(other);
    assert_eq!(bench.open(frames).len(), 20);
    assert_eq!(
        *bench.log.appended.lock().unwrap(),
        [20],
        "one append, without the replay and the forged one"
    );
    assert_eq!(dropped(&bench.drops), [(DropReason::BadMac, 1), (DropReason::Replay, 1)]);
    // A batch in which nothing is new costs no append.
    let packet = bench.packet(MS);
    bench.open(vec![packet.clone()]);
    bench.open(vec![packet]);
    assert_eq!(*bench.log.appended.lock().unwrap(), [20, 1]);
}

#[test]
fn what_the_log_does_not_take_is_dropped_and_counted_and_the_node_recovers() {
    let (mut bench, mut relay) = Bench::relay();
    bench.log.full.store(true, Ordering::Relaxed);
    assert!(bench.feed(&mut relay, &[MS; 5]).is_empty());
    assert_eq!(dropped(&bench.drops), [(DropReason::Storage, 5)]);
    assert_eq!((bench.occupancy.taken(), relay.counts().opened), (0, 0));
    bench.log.full.store(false, Ordering::Relaxed);
    assert_eq!(bench.feed(&mut relay, &[MS; 5]).len(), 5);
    assert_eq!(dropped(&bench.drops), [(DropReason::Storage, 5)]);
}

#[test]
fn a_key_without_a_log_waits_for_no_disk() {
    let (mut bench, mut relay) = Bench::relay();
    bench.opener.open(bench.world.seat(0, 6), bench.world.key(0, 6, None));
    let [packet] = bench.feed(&mut relay, &[MS])[..] else { panic!("one") };
    assert_eq!(leaves(&mut relay, bench.now + MS), [packet]);
}

#[test]
fn mail_reaches_a_client_only_when_its_tag_is_durable() {
    let mut bench = Bench::new(0, 6);
    let mut gateway = bench.world.gateway(0, &bench.occupancy, &bench.drops);
    let client = IdentityKey::of_seed(&[9; 32]);
    gateway.handle(bench.now, GatewayInput::ClientConnected(client));
    gateway.handle(bench.now, GatewayInput::ClientFrame(client, Frame::collect(true, 0)));
    Disk::default().serve(bench.now, &mut gateway);
    let (_, recipient) = bench.world.client(0);
    let hops = [Hop::store(&bench.world.view, 0, MailboxId::of(&client)), Hop::last(recipient.public_key())];
    let mail = bench.by_hand.packet(&hops, b"");
    for opened in bench.open(vec![mail]) {
        gateway.handle(bench.now, GatewayInput::Opened(opened));
    }
    let mails = |gateway: &mut Gateway, now: Time| {
        let mut mails = 0;
        while let Some(output) = gateway.poll_output(now) {
            let GatewayOutput::Deliver { frame, .. } = output else { panic!("nothing to forward") };
            mails += u32::from(frame.kind() == Ok(FrameKind::Mail));
        }
        assert!(gateway.poll_timeout().is_none_or(|due| due > now));
        mails
    };
    let mut now = bench.now;
    for _ in 0..500 {
        now += MS;
        assert_eq!(mails(&mut gateway, now), 0);
    }
    assert!(!bench.log.needed().is_empty());
    bench.log.sync_to(1);
    now += 30 * MS;
    assert_eq!(mails(&mut gateway, now), 1);
}

#[test]
fn a_node_that_drains_takes_nothing_new_and_lets_go_of_what_it_has() {
    let (mut bench, mut relay) = Bench::relay();
    let fed = bench.feed(&mut relay, &[MS, 2 * MS]);
    bench.opener.drain();
    assert!(bench.feed(&mut relay, &[MS]).is_empty());
    assert_eq!(dropped(&bench.drops), [(DropReason::Draining, 1)]);
    bench.log.sync_to(2);
    assert_eq!(leaves(&mut relay, bench.now + 2 * MS), fed);
    assert_eq!(bench.occupancy.taken(), 0);
}
