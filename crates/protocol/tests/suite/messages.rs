//! Long messages: in pieces, out of order, several at once, and never in the way of short ones.

use core::time::Duration;

use tombola_protocol::client::ClientEvent;
use tombola_protocol::drops::DropReason;
use tombola_protocol::erasure::Parity;
use tombola_protocol::fragment::{FRAGMENT_DATA, MessageId, Place, Shape};
use tombola_protocol::frame::Frame;
use tombola_protocol::payload::Plaintext;
use tombola_protocol::records::tables;

use crate::common::{ByHand, Hop, Net, Place as Link, Setup, dropped};

fn file(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 11) as u8).collect()
}

#[test]
fn fragments_arrive_in_another_order_and_make_the_same_message() {
    let mut net = Net::new(Setup::new(110));
    let body = file(100 * FRAGMENT_DATA + 1, 1);
    net.send_message(0, 1, &body);
    net.run_for(Duration::from_secs(10));
    let sent = net.emitted(0);
    assert_eq!(sent.len(), 101);
    let overtaken =
        sent.windows(2).filter(|pair| pair[1].emitted + pair[1].delays < pair[0].emitted + pair[0].delays);
    assert!(overtaken.count() > 30, "delays are much longer than what lies between two fragments");
    let inbox = net.inbox(1);
    assert_eq!((inbox.len(), inbox[0].packets), (1, 101));
    assert!(inbox[0].body == body);
    let progress: Vec<_> = net.events[1]
        .iter()
        .filter_map(|event| match event {
            ClientEvent::Progress { have, count: 101, .. } => Some(*have),
            _ => None,
        })
        .collect();
    assert_eq!(progress, (1..=100).collect::<Vec<_>>());
}

#[test]
fn short_messages_overtake_files_and_files_share_what_is_left() {
    let mut net = Net::new(Setup::new(111));
    let files = [file(200_000, 1), file(200_000, 2)];
    let ids: Vec<_> = files.iter().map(|file| net.send_message(0, 1, file)).collect();
    let mut short = vec![];
    for n in 0..30 {
        // Not in step with anything.
        net.run_for(Duration::from_millis(150 + 7 * n));
        short.push(net.send_message(0, 1, &[n as u8]));
    }
    net.run_for(Duration::from_secs(8));

    let sent = net.emitted(0);
    let place = |id: &MessageId| sent.iter().position(|emitted| emitted.message == *id).unwrap();
    let mut waits = vec![];
    for id in &short {
        let message = sent[place(id)];
        // Fragments that left between the moment the message was handed over and its own tick.
        let before = sent[..place(id)].iter().filter(|other| other.emitted > message.queued).count();
        assert!(before <= 2, "{before} fragments of the files left before a message that waited");
        waits.push((message.emitted - message.queued).as_secs_f64());
    }
    let mean = waits.iter().sum::<f64>() / waits.len() as f64;
    let interval = net.world.setup.parameters.main_interval.as_secs_f64();
    println!("a short message waits {:.2} ticks on average while files are sent", mean / interval);
    assert!(mean < 2.0 * interval);

    // In the middle of it both files are equally far.
    let half = &sent[..sent.len() / 2];
    let [first, second] = [0, 1].map(|at| half.iter().filter(|emitted| emitted.message == ids[at]).count());
    assert!(first.abs_diff(second) <= 2, "{first} and {second}");
    let inbox = net.inbox(1);
    assert_eq!(inbox.len(), 32);
    for (id, file) in ids.iter().zip(&files) {
        assert!(inbox.iter().find(|got| got.message == *id).unwrap().body == *file);
    }
}

#[test]
fn a_flood_of_short_messages_does_not_starve_a_file() {
    let mut net = Net::new(Setup::new(112));
    let id = net.send_message(0, 1, &file(20 * FRAGMENT_DATA, 1));
    for n in 0..200 {
        net.send_message(0, 1, &[n]);
    }
    net.run_for(Duration::from_secs(8));
    let sent = net.emitted(0);
    let of_file = sent.iter().filter(|emitted| emitted.message == id).count();
    assert_eq!(of_file, 20);
    let last = sent.iter().rposition(|emitted| emitted.message == id).unwrap();
    assert!((70..90).contains(&last), "one turn in four is the file's: {last}");
}

/// A mail whose plaintext is this fragment of a message of that length.
fn mail(
    by_hand: &mut ByHand,
    net: &Net,
    message: MessageId,
    length: usize,
    position: u8,
    data: &[u8],
) -> Frame {
    let place = Place { segment: 0, position };
    let text = Plaintext::fragment(message, Shape::of(length).unwrap(), place, data);
    let mut frame = by_hand.packet(&[Hop::last(net.clients[0].public_key())], text.as_bytes());
    frame.set_mail(by_hand.parity, Duration::ZERO, 1);
    frame
}

#[test]
fn a_correspondent_who_only_begins_messages_costs_bounded_memory_and_each_loss_is_counted() {
    let mut setup = Setup::new(113);
    setup.parameters.mailbox_retention = Duration::from_secs(600);
    let mut net = Net::offline(setup);
    let mut by_hand = ByHand::new(&net.world.view, 113);
    let full = [1; FRAGMENT_DATA];
    let length = 2 * FRAGMENT_DATA;
    for n in 0..1100u128 {
        let frame = mail(&mut by_hand, &net, MessageId(n.to_be_bytes()), length, 0, &full);
        net.clients[0].handle_frame(net.now, frame);
        net.clients[0].expire(net.now);
    }
    assert_eq!(dropped(net.clients[0].drops()), [(DropReason::ReassemblyFull, 1100 - 1024)]);
    // The last ones can still be completed, by parity too.
    let parity = Parity::of(Shape::of(length).unwrap(), 0, &[full, full].concat());
    let last = MessageId(1099u128.to_be_bytes());
    let frame = mail(&mut by_hand, &net, last, length, 2, parity.get(0).unwrap());
    net.clients[0].handle_frame(net.now, frame);
    net.connect(Link::Client(0));
    assert_eq!(net.inbox(0).len(), 1);
    assert_eq!(net.stores[0].count(tables::PARTIAL), 1023);
    // Whatever is never completed goes, from the store too.
    net.disconnect(Link::Client(0));
    net.run_for(Duration::from_secs(660));
    net.clients[0].expire(net.now);
    net.run_for(Duration::from_secs(1));
    assert_eq!(dropped(net.clients[0].drops()), [(DropReason::ReassemblyFull, 1099)]);
    assert_eq!(net.stores[0].count(tables::PARTIAL) + net.stores[0].count(tables::FRAGMENTS), 0);
}

#[test]
fn contradictions_and_duplicates_change_nothing() {
    let mut net = Net::offline(Setup::new(114));
    let mut by_hand = ByHand::new(&net.world.view, 114);
    let id = MessageId([1; 16]);
    let full = [1; FRAGMENT_DATA];
    let mut end = [0; FRAGMENT_DATA];
    end[..3].copy_from_slice(b"end");
    let length = 2 * FRAGMENT_DATA + 3;
    let sequence = [
        mail(&mut by_hand, &net, id, length, 0, &full),
        mail(&mut by_hand, &net, id, length, 0, &[9; FRAGMENT_DATA]), // the first one counts
        mail(&mut by_hand, &net, id, length - 3, 1, &full),           // another end
        mail(&mut by_hand, &net, id, length, 1, &full[1..]),          // not full
        mail(&mut by_hand, &net, id, length, 2, &end),
        mail(&mut by_hand, &net, id, length, 1, &full),
        mail(&mut by_hand, &net, id, length, 0, &full), // once more
    ];
    for frame in sequence {
        net.clients[0].handle_frame(net.now, frame);
    }
    net.connect(Link::Client(0));
    let inbox = net.inbox(0);
    assert_eq!(inbox.len(), 1);
    assert_eq!(inbox[0].body, [&full[..], &full, b"end"].concat());
    let expected = [(DropReason::BadFragment, 2), (DropReason::DuplicateFragment, 2)];
    assert_eq!(dropped(net.clients[0].drops()), expected);
}
