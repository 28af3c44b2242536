//! Mailboxes on a disk: what is durable is never lost, what was acknowledged never comes again, numbers are never used
//! twice, and memory stays flat, whenever the process or the disk fails.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tombola_mixing::Time;
use tombola_protocol::drops::DropReason;
use tombola_protocol::frame::{Frame, FrameKind};
use tombola_protocol::gateway::GatewayInput;
use tombola_protocol::mailbox::UNWRITTEN_MAX;
use tombola_topology::IdentityKey;

use crate::common::{Post, Setup, dropped, marks};

/// Fifty slots.
const SECOND: Duration = Duration::from_secs(1);
const SLOT: Duration = Duration::from_millis(20);

fn other(n: u8) -> IdentityKey {
    IdentityKey::of_seed(&[n; 32])
}

/// A post whose client is away.
fn away(setup: Setup) -> Post {
    let mut post = Post::new(setup);
    post.leave(post.client);
    post
}

fn packets_in_memory(post: &Post) -> usize {
    post.gateway.counts().mail.in_memory
}

#[test]
fn a_long_mailbox_goes_down_in_order_through_a_small_window_without_a_gap_in_the_slots() {
    let mut post = away(Setup::new(200));
    (0..1000).for_each(|mark| post.mail(post.client, mark));
    assert_eq!((packets_in_memory(&post), post.disk.mails()), (0, 1000), "all on disk, none in memory");
    post.visit(post.client);
    let mut most = 0;
    for expected in 0..1000 {
        assert_eq!(post.mails(SLOT), [(u64::from(expected) + 1, expected)]);
        post.acknowledge(post.client, u64::from(expected) + 1);
        most = most.max(packets_in_memory(&post));
    }
    assert!((32..=64).contains(&most), "{most} packets in memory");
    let mail = post.gateway.counts().mail;
    assert!((1000 / 64..=1000 / 32 + 1).contains(&(mail.fetches as usize)), "{} reads", mail.fetches);
    assert_eq!((mail.late, mail.packets, post.disk.mails()), (0, 0, 0));
}

#[test]
fn mail_that_comes_while_its_client_catches_up_keeps_its_place() {
    let mut post = away(Setup::new(201));
    (0..200).for_each(|mark| post.mail(post.client, mark));
    post.visit(post.client);
    let mut got = vec![];
    for mark in 200..300 {
        post.mail(post.client, mark);
        got.extend(post.marks(SLOT));
        assert!(packets_in_memory(&post) <= 64);
    }
    got.extend(post.marks(5 * SECOND));
    assert_eq!(got, (0..300).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_reads_late_costs_padding_and_no_mail() {
    let mut post = away(Setup::new(202));
    (0..100).for_each(|mark| post.mail(post.client, mark));
    post.disk_stands = true;
    post.visit(post.client);
    let waiting = post.wait(SECOND);
    assert_eq!((waiting.len(), marks(&waiting)), (50, vec![]));
    assert_eq!(post.gateway.counts().mail.late, 50);
    assert_eq!(post.fetches.len(), 1, "it is asked once");
    post.disk_moves();
    assert_eq!(post.marks(3 * SECOND), (0..100).collect::<Vec<_>>());
}

#[test]
fn what_a_disk_does_not_give_is_asked_for_again_a_second_later_and_nobody_else_waits() {
    let mut post = away(Setup::new(203));
    let healthy = other(2);
    post.visit(healthy);
    post.leave(healthy);
    post.mail(post.client, 1);
    post.mail(healthy, 2);
    post.disk_stands = true;
    post.visit(post.client);
    post.visit(healthy);
    let fetches: Vec<_> = post.fetches.drain(..).collect();
    assert_eq!(fetches.len(), 2);
    let empty = GatewayInput::Fetched { mailbox: fetches[0].mailbox, mails: vec![] };
    post.handle(empty);
    post.fetches.push_back(fetches[1]);
    post.answer_fetches();
    assert_eq!(post.marks(SECOND), [2]);
    assert!(post.fetches.is_empty(), "it is not asked for all the time");
    post.gateway.expire(post.now);
    post.disk_moves();
    assert_eq!(post.marks(SECOND), [1]);
}

#[test]
fn mail_goes_down_before_it_is_written_and_is_not_read_again() {
    let mut post = Post::new(Setup::new(204));
    post.disk_stands = true;
    (1..=5).for_each(|mark| post.mail(post.client, mark));
    assert_eq!(post.marks(SECOND), [1, 2, 3, 4, 5]);
    post.acknowledge(post.client, 5);
    let mail = post.gateway.counts().mail;
    assert_eq!((mail.packets, mail.in_memory, mail.fetches), (0, 0, 0));
    // What is deleted was put before, so that the disk can leave out both.
    assert_eq!(post.disk.pending(), 6);
    post.disk_moves();
    assert_eq!(post.disk.mails(), 0);
}

#[test]
fn mail_that_is_not_written_yet_goes_down_again_in_a_new_session() {
    let mut post = Post::new(Setup::new(205));
    post.disk_stands = true;
    (1..=5).for_each(|mark| post.mail(post.client, mark));
    assert_eq!(post.marks(SECOND), [1, 2, 3, 4, 5]);
    // Its link broke with everything on it.
    post.visit_with(post.client, 2);
    assert_eq!(post.mails(SECOND), [(3, 3), (4, 4), (5, 5)]);
}

#[test]
fn no_more_than_1024_packets_are_under_way_unacknowledged() {
    let mut post = away(Setup::new(206));
    (0..1100).for_each(|mark| post.mail(post.client, mark));
    post.visit(post.client);
    let down = post.marks(60 * SECOND);
    assert_eq!(down, (0..1024).collect::<Vec<_>>());
    post.acknowledge(post.client, 10);
    assert_eq!(post.marks(60 * SECOND), (1024..1034).collect::<Vec<_>>());
    post.acknowledge(post.client, 1034);
    assert_eq!(post.marks(60 * SECOND), (1034..1100).collect::<Vec<_>>());
    assert_eq!(post.gateway.counts().wrong_acknowledgements, 0);
}

#[test]
fn the_low_bits_of_an_acknowledgement_are_enough_over_many_turns() {
    let mut setup = Setup::new(207);
    setup.parameters.downlink_interval = Duration::from_micros(100);
    setup.parameters.main_interval = Duration::from_millis(1);
    let mut post = Post::new(setup);
    for round in 0..400u64 {
        (0..500).for_each(|_| post.mail(post.client, 0));
        let down = post.mails(Duration::from_millis(60));
        assert_eq!((down.len(), down.last().unwrap().0), (500, (round + 1) * 500));
        post.acknowledge(post.client, (round + 1) * 500);
        assert_eq!(post.gateway.counts().mail.packets, 0, "round {round}");
    }
    assert_eq!(post.gateway.counts().acknowledged, 200_000);
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_deletes_nothing_and_is_counted_once() {
    let mut post = away(Setup::new(208));
    (1..=10).for_each(|mark| post.mail(post.client, mark));
    post.visit(post.client);
    let wrong = |post: &Post| {
        let counts = post.gateway.counts();
        (counts.wrong_acknowledgements, counts.mail.packets)
    };
    let down = post.wait(3 * SLOT);
    assert_eq!(marks(&down), [1, 2, 3]);
    for _ in 0..5 {
        post.acknowledge(post.client, 4);
    }
    assert_eq!(wrong(&post), (1, 10));
    post.acknowledge(post.client, 3);
    assert_eq!(wrong(&post), (1, 7));
    // An older one says nothing new.
    post.acknowledge(post.client, 2);
    assert_eq!(wrong(&post).1, 7);
    for wanted in [false, true] {
        for far in [5, 11, 1 << 61, u64::MAX] {
            post.handle(GatewayInput::ClientFrame(post.client, Frame::collect(wanted, far)));
        }
    }
    assert_eq!(wrong(&post).1, 7);
    assert_eq!(post.marks(SECOND), (4..=10).collect::<Vec<_>>());
    // What went down in another session was not sent in this one.
    post.visit_with(post.client, 3);
    post.acknowledge(post.client, 9);
    assert_eq!(wrong(&post).1, 7);
}

#[test]
fn a_client_that_stops_and_begins_to_collect_gets_everything_that_it_has_not_acknowledged() {
    let mut post = Post::new(Setup::new(209));
    (1..=6).for_each(|mark| post.mail(post.client, mark));
    assert_eq!(post.marks(3 * SLOT), [1, 2, 3]);
    post.handle(GatewayInput::ClientFrame(post.client, Frame::collect(false, 2)));
    assert_eq!((post.marks(SECOND), packets_in_memory(&post)), (vec![], 0));
    post.handle(GatewayInput::ClientFrame(post.client, Frame::collect(true, 2)));
    assert_eq!(post.marks(SECOND), [3, 4, 5, 6]);
}

#[test]
fn numbers_go_on_where_they_were_after_a_restart_with_an_empty_mailbox_and_after_a_crash() {
    let mut post = Post::new(Setup::new(210));
    (1..=3).for_each(|mark| post.mail(post.client, mark));
    assert_eq!(post.mails(SECOND), [(1, 1), (2, 2), (3, 3)]);
    post.acknowledge(post.client, 3);
    post.restart();
    post.mail(post.client, 4);
    post.visit_with(post.client, 3);
    assert_eq!(post.mails(SECOND), [(4, 4)], "in order, without a gap");
    // What is not durable is lost in a crash, but its number is not used again.
    post.disk_stands = true;
    post.mail(post.client, 5);
    assert_eq!(post.mails(SECOND), [(5, 5)]);
    post.crash();
    post.disk_moves();
    post.visit_with(post.client, 5);
    post.mail(post.client, 6);
    let down = post.mails(SECOND);
    assert_eq!(down.iter().map(|(_, mark)| *mark).collect::<Vec<_>>(), [6]);
    assert!(down[0].0 > 5);
    assert_eq!(post.gateway.counts().wrong_acknowledgements, 0);
}

#[test]
fn numbers_are_not_used_again_when_mail_expires_unread() {
    let mut setup = Setup::new(211);
    setup.parameters.mailbox_retention = Duration::from_secs(5);
    let mut post = Post::new(setup);
    (1..=3).for_each(|mark| post.mail(post.client, mark));
    assert_eq!(post.mails(SECOND).len(), 3);
    post.leave(post.client);
    post.wait(6 * SECOND);
    post.gateway.expire(post.now);
    assert_eq!(dropped(&post.drops), [(DropReason::MailExpired, 3)]);
    post.restart();
    post.mail(post.client, 4);
    post.visit_with(post.client, 1);
    let down = post.wait(SECOND);
    let mail =
        down.iter().find(|(_, frame)| frame.kind() == Ok(FrameKind::Mail)).map(|(_, mail)| mail).unwrap();
    assert_eq!((mail.mail_number(), mail.mail_previous()), (4, 0), "what is missing is gone");
}

#[test]
fn a_client_gets_its_new_mail_from_a_gateway_that_has_lost_its_disk() {
    for settles in [false, true] {
        let mut post = Post::new(Setup::new(212));
        (0..20).for_each(|mark| post.mail(post.client, mark));
        assert_eq!(post.marks(SECOND).len(), 20);
        post.acknowledge(post.client, 20);
        post.disk = Default::default();
        post.start();
        post.handle(GatewayInput::ClientConnected(post.client));
        if settles {
            // In between it was here with the wrong folder, which knows of no mail.
            post.visit_with(post.client, 0);
        }
        // Mail comes between the link and its first frame: with numbers that the client has had already.
        (100..105).for_each(|mark| post.mail(post.client, mark));
        post.handle(GatewayInput::ClientConnected(post.client));
        post.handle(GatewayInput::ClientFrame(post.client, Frame::collect(true, 20)));
        let expected: Vec<_> = (100..105u16).map(|mark| (u64::from(mark) - 79, mark)).collect();
        assert_eq!(post.mails(SECOND), expected, "{settles}");
        post.acknowledge(post.client, 23);
        // A crash changes nothing about it.
        post.crash();
        post.mail(post.client, 105);
        post.visit_with(post.client, 23);
        let down = post.mails(SECOND);
        assert_eq!(down[..2], [(24, 103), (25, 104)]);
        assert!(down.len() == 3 && down[2].0 > 25 && down[2].1 == 105, "{down:?}");
        assert_eq!(post.gateway.counts().wrong_acknowledgements, 0);
    }
}

#[test]
fn a_client_gets_its_new_mail_from_a_gateway_whose_disk_is_an_old_copy() {
    let mut post = Post::new(Setup::new(222));
    (0..10).for_each(|mark| post.mail(post.client, mark));
    assert_eq!(post.marks(SECOND).len(), 10);
    post.acknowledge(post.client, 10);
    post.restart();
    let copy = post.disk.clone();
    post.visit_with(post.client, 10);
    (10..20).for_each(|mark| post.mail(post.client, mark));
    assert_eq!(post.mails(SECOND).last(), Some(&(20, 19)));
    post.acknowledge(post.client, 20);
    post.disk = copy;
    post.start();
    // Mail comes, under numbers that the client knows, and the process starts again more than once before the client comes.
    (20..25).for_each(|mark| post.mail(post.client, mark));
    post.restart();
    (25..30).for_each(|mark| post.mail(post.client, mark));
    post.crash();
    post.visit_with(post.client, 20);
    assert_eq!(post.mails(SECOND), (20..30u16).map(|mark| (u64::from(mark) + 1, mark)).collect::<Vec<_>>());
}

#[test]
fn how_long_mail_was_held_counts_from_its_arrival_over_restarts() {
    let mut post = away(Setup::new(213));
    post.mail(post.client, 1);
    post.wait(100 * SECOND);
    post.crash();
    post.wait(50 * SECOND);
    post.restart();
    post.visit(post.client);
    let down = post.wait(SLOT);
    let [(_, mail)] = &down[..] else { panic!("one slot") };
    assert_eq!(mail.kind(), Ok(FrameKind::Mail));
    let held = mail.mail_held();
    assert!(held > 150 * SECOND && held <= 150 * SECOND + SLOT, "{held:?}");
}

#[test]
fn bounds_and_ages_hold_over_a_restart() {
    let mut setup = Setup::new(214);
    setup.memory = 100;
    setup.parameters.clients_per_gateway = 2;
    setup.parameters.mailbox_packets = 60;
    setup.parameters.mailbox_retention = 100 * SECOND;
    let mut post = away(setup);
    let second = other(2);
    post.visit(second);
    post.leave(second);
    (0..100).for_each(|mark| post.mail(post.client, mark));
    assert_eq!(post.drops.get(DropReason::MailboxFull), 40, "its quota");
    post.restart();
    (0..100).for_each(|mark| post.mail(second, mark));
    assert_eq!(post.drops.get(DropReason::MailboxFull), 60, "its own 25 places and what is left in common");
    post.wait(99 * SECOND);
    post.gateway.expire(post.now);
    post.restart();
    assert_eq!(post.gateway.counts().mail.packets, 100);
    post.wait(2 * SECOND);
    post.gateway.expire(post.now);
    assert_eq!(post.drops.get(DropReason::MailExpired), 100);
    post.restart();
    assert_eq!((post.gateway.counts().mail.packets, post.disk.mails()), (0, 0));
}

#[test]
fn the_place_of_whoever_was_away_longest_is_given_away_also_after_a_crash() {
    let mut setup = Setup::new(215);
    setup.parameters.clients_per_gateway = 3;
    setup.parameters.mailbox_retention = 80 * SECOND;
    let mut post = away(setup);
    let (second, third, fourth) = (other(2), other(3), other(4));
    post.wait(10 * SECOND);
    post.visit(second);
    post.wait(20 * SECOND);
    post.leave(second);
    // The third stays until the crash; that it does is noted now and then.
    post.visit(third);
    for _ in 0..60 {
        post.wait(SECOND);
        post.gateway.expire(post.now);
        assert_eq!(post.disk.pending(), 0);
        post.commit(0);
    }
    post.crash();
    assert_eq!(post.gateway.counts().mail.mailboxes, 3);
    post.visit(fourth);
    assert_eq!(post.gateway.counts().without_mailbox, 0, "the first was away for more than 80 s");
    post.mail(post.client, 1);
    assert_eq!(post.drops.get(DropReason::UnknownMailbox), 1, "it was the first one's place");
    post.visit(post.client);
    assert_eq!(post.gateway.counts().without_mailbox, 1, "the second was away for 60 s only");
    post.wait(21 * SECOND);
    post.visit(post.client);
    assert_eq!(post.gateway.counts().without_mailbox, 1);
    post.mail(second, 1);
    post.mail(third, 2);
    assert_eq!(
        post.drops.get(DropReason::UnknownMailbox),
        2,
        "it was the second one's place, not the third's"
    );
    post.restart();
    assert_eq!(post.gateway.counts().mail.mailboxes, 3);
}

#[test]
fn while_the_disk_stands_memory_is_bounded_mail_is_refused_and_nothing_is_lost() {
    let mut post = away(Setup::new(216));
    let online = other(2);
    post.visit(online);
    post.disk_stands = true;
    for mark in 0..6000 {
        post.mail(post.client, mark);
    }
    let refused = (6000 - UNWRITTEN_MAX) as u64;
    assert_eq!(dropped(&post.drops), [(DropReason::Storage, refused)]);
    let mail = post.gateway.counts().mail;
    assert_eq!((mail.packets, mail.in_memory, mail.unwritten), (UNWRITTEN_MAX, UNWRITTEN_MAX, UNWRITTEN_MAX));
    assert_eq!(post.wait(SECOND).len(), 50, "everybody has their slots");
    post.disk_moves();
    assert_eq!((packets_in_memory(&post), post.disk.mails()), (0, UNWRITTEN_MAX));
    post.mail(post.client, 6000);
    post.visit(post.client);
    let mut got = vec![];
    while got.len() <= UNWRITTEN_MAX {
        let down = post.mails(SECOND);
        assert!(!down.is_empty());
        post.acknowledge(post.client, down.last().unwrap().0);
        got.extend(down.into_iter().map(|(_, mark)| mark));
    }
    assert!(got.iter().copied().eq((0..UNWRITTEN_MAX as u16).chain([6000])));
}

#[test]
fn a_disk_that_stands_bounds_even_what_is_collected_at_once() {
    let mut setup = Setup::new(217);
    setup.parameters.downlink_interval = Duration::from_micros(100);
    setup.parameters.main_interval = Duration::from_millis(1);
    let mut post = Post::new(setup);
    post.disk_stands = true;
    let mut number = 0;
    for _ in 0..60 {
        (0..500).for_each(|_| post.mail(post.client, 0));
        let down = post.mails(Duration::from_millis(60));
        number = down.last().map_or(number, |(number, _)| *number);
        post.acknowledge(post.client, number);
    }
    // What could not be recorded before does not go down.
    assert!((500..=17_000).contains(&number), "{number} mails went down");
    let refused = post.drops.get(DropReason::Storage);
    assert!(refused > 0 && post.disk.pending() <= 2 * 16_384 + 100, "{} changes wait", post.disk.pending());
    post.disk_moves();
    let left = post.gateway.counts().mail.packets;
    assert_eq!(post.mails(10 * SECOND).len(), left.min(1024));
}

#[test]
fn while_the_disk_fails_only_what_needs_no_disk_is_taken() {
    let mut post = away(Setup::new(218));
    let online = other(2);
    post.visit(online);
    post.mail(post.client, 1);
    post.handle(GatewayInput::StorageTrouble(true));
    post.disk_stands = true;
    post.mail(post.client, 2);
    assert_eq!(dropped(&post.drops), [(DropReason::Storage, 1)]);
    (0..200).for_each(|mark| post.mail(online, mark));
    assert_eq!(post.drops.get(DropReason::Storage), 1 + 200 - 64, "what is beyond its window");
    assert_eq!(post.marks(2 * SECOND), (0..64).collect::<Vec<_>>());
    post.acknowledge(online, 64);
    post.handle(GatewayInput::StorageTrouble(false));
    post.disk_moves();
    post.mail(post.client, 3);
    post.visit(post.client);
    assert_eq!(post.marks(SECOND), [1, 3], "what was taken before is still there");
}

#[test]
fn a_flood_leaves_memory_flat() {
    let mut setup = Setup::new(219);
    setup.parameters.mailbox_packets = 20_000;
    let mut post = away(setup);
    for mark in 0..30_000 {
        post.mail(post.client, mark);
        assert!(packets_in_memory(&post) <= 1);
    }
    assert_eq!(dropped(&post.drops), [(DropReason::MailboxFull, 10_000)]);
    assert_eq!((post.gateway.counts().mail.packets, post.disk.mails()), (20_000, 20_000));
}

/// What may happen to a gateway with two clients.
#[derive(Clone, Debug)]
enum Event {
    Mail(usize),
    Connect(usize),
    Disconnect(usize),
    Acknowledge(usize),
    Slots(u8),
    Undelivered,
    DiskStands,
    DiskMoves,
    Commit(u8),
    Crash,
    Restart,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (0..2usize).prop_map(Event::Mail),
        3 => (0..2usize).prop_map(Event::Connect),
        2 => (0..2usize).prop_map(Event::Disconnect),
        5 => (0..2usize).prop_map(Event::Acknowledge),
        8 => (1..40u8).prop_map(Event::Slots),
        2 => Just(Event::Undelivered),
        2 => Just(Event::DiskStands),
        2 => Just(Event::DiskMoves),
        4 => (1..9u8).prop_map(Event::Commit),
        2 => Just(Event::Crash),
        1 => Just(Event::Restart),
    ]
}

/// A client that never forgets what it has acknowledged.
#[derive(Default)]
struct Reader {
    here: bool,
    /// Everything up to this number is safe here.
    safe: u64,
    /// What it said in this session.
    said: u64,
    /// Mark of each number that it ever saw.
    seen: BTreeMap<u64, u16>,
    got: BTreeSet<u16>,
    /// What the gateway may have lost: not durable when it crashed.
    lost: BTreeSet<u16>,
}

impl Reader {
    fn take(&mut self, frame: &Frame) {
        let mark = u16::from_be_bytes(*frame.packet().first_chunk().unwrap());
        let (number, previous) = (frame.mail_number(), frame.mail_previous());
        assert!(number > self.said, "mail {number} was acknowledged with {}", self.said);
        assert_eq!(*self.seen.entry(number).or_insert(mark), mark, "number {number} was used twice");
        assert!(previous < number);
        self.got.insert(mark);
        assert!(previous <= self.safe, "mail after {previous}, but it has {} only", self.safe);
        self.safe = self.safe.max(number);
    }
}

struct Model {
    post: Post,
    readers: [Reader; 2],
    /// Whose each mark is, and whether it was taken.
    mails: Vec<usize>,
}

impl Model {
    fn new() -> Self {
        let mut post = away(Setup::new(220));
        post.visit(other(2));
        post.leave(other(2));
        Self { post, readers: Default::default(), mails: vec![] }
    }

    fn client(&self, n: usize) -> IdentityKey {
        [self.post.client, other(2)][n]
    }

    fn who(&self, client: &IdentityKey) -> usize {
        usize::from(*client != self.post.client)
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Mail(n) => {
                let mark = u16::try_from(self.mails.len()).unwrap();
                self.mails.push(n);
                self.post.mail(self.client(n), mark);
            }
            Event::Connect(n) => {
                let reader = &mut self.readers[n];
                (reader.here, reader.said) = (true, reader.safe);
                let (client, safe) = (self.client(n), self.readers[n].safe);
                self.post.visit_with(client, safe);
            }
            Event::Disconnect(n) => {
                self.readers[n].here = false;
                self.post.leave(self.client(n));
            }
            Event::Acknowledge(n) if self.readers[n].here => {
                self.readers[n].said = self.readers[n].safe;
                let (client, safe) = (self.client(n), self.readers[n].safe);
                self.post.acknowledge(client, safe);
            }
            Event::Acknowledge(_) => {}
            Event::Slots(n) => {
                for (client, frame) in self.post.wait(u32::from(n) * SLOT) {
                    if frame.kind() == Ok(FrameKind::Mail) {
                        let who = self.who(&client);
                        self.readers[who].take(&frame);
                    }
                }
            }
            Event::Undelivered => {
                for (client, frame) in self.post.wait(SLOT) {
                    self.post.handle(GatewayInput::Undelivered(client, frame));
                }
            }
            Event::DiskStands => self.post.disk_stands = true,
            Event::DiskMoves => self.post.disk_moves(),
            Event::Commit(n) => self.post.commit(n.into()),
            Event::Crash => {
                let durable: BTreeSet<_> = self.post.disk.marks().collect();
                for (mark, n) in (0u16..).zip(&self.mails) {
                    if !durable.contains(&mark) {
                        self.readers[*n].lost.insert(mark);
                    }
                }
                self.post.crash();
                self.readers.iter_mut().for_each(|reader| reader.here = false);
            }
            Event::Restart => {
                self.post.disk_moves();
                self.post.restart();
                self.readers.iter_mut().for_each(|reader| reader.here = false);
            }
        }
        let counts = self.post.gateway.counts();
        assert_eq!(counts.wrong_acknowledgements, 0, "these clients do not lie");
        assert!(counts.mail.in_memory <= counts.mail.unwritten + 2 * 64);
    }

    fn finish(&mut self) {
        self.apply(Event::DiskMoves);
        for n in 0..2 {
            self.apply(Event::Connect(n));
        }
        for _ in 0..20 {
            self.apply(Event::Slots(30));
            self.apply(Event::Acknowledge(0));
            self.apply(Event::Acknowledge(1));
        }
        for (mark, n) in (0u16..).zip(&self.mails) {
            let reader = &self.readers[*n];
            assert!(reader.got.contains(&mark) || reader.lost.contains(&mark), "mail {mark} is lost");
        }
        assert_eq!((self.post.gateway.counts().mail.packets, self.post.disk.mails()), (0, 0));
        assert_eq!(packets_in_memory(&self.post), 0);
        // And it goes on, for whoever was here all the time and after another start.
        self.apply(Event::Mail(0));
        self.apply(Event::Restart);
        self.apply(Event::Mail(1));
        self.apply(Event::Connect(0));
        self.apply(Event::Connect(1));
        self.apply(Event::Slots(30));
        let last = u16::try_from(self.mails.len()).unwrap();
        assert!(self.readers[0].got.contains(&(last - 2)) && self.readers[1].got.contains(&(last - 1)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(220),
        max_shrink_iters: 4096,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_fails_when_durable_mail_arrives_and_acknowledged_mail_does_not_come_again(
        events in proptest::collection::vec(any_event(), 0..120),
    ) {
        let mut model = Model::new();
        for event in events {
            model.apply(event);
        }
        model.finish();
    }
}

#[test]
fn a_gateway_that_begins_late_counts_no_time_before() {
    // The machine's time and the wall clock are related at the start only.
    let mut post = away(Setup::new(221));
    post.mail(post.client, 1);
    post.now = Time::ZERO + 3600 * SECOND;
    post.crash();
    post.visit(post.client);
    assert_eq!(post.marks(SECOND), [1]);
}
