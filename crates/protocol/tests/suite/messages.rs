//! Long messages: in pieces, out of order, several at once, and never in the way of short ones.

use core::time::Duration;

use tombola_protocol::client::ClientEvent;
use tombola_protocol::drops::DropReason;
use tombola_protocol::fragment::{FRAGMENT_DATA, MessageId};
use tombola_protocol::frame::Frame;
use tombola_sphinx::PLAINTEXT_MAX;

use crate::common::{ByHand, Hop, Net, Place, Setup, dropped};

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
    assert_eq!((inbox.len(), inbox[0].fragments), (1, 101));
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

/// A mail whose plaintext is this fragment.
fn mail(by_hand: &mut ByHand, net: &Net, message: MessageId, index: u32, count: u32, data: &[u8]) -> Frame {
    let mut plaintext = [0; PLAINTEXT_MAX];
    plaintext[0] = 1;
    plaintext[1..17].copy_from_slice(&message.0);
    plaintext[17..21].copy_from_slice(&index.to_be_bytes());
    plaintext[21..25].copy_from_slice(&count.to_be_bytes());
    plaintext[25..25 + data.len()].copy_from_slice(data);
    let mut frame = by_hand.packet(&[Hop::last(net.clients[0].public_key())], &plaintext[..25 + data.len()]);
    frame.set_mail(by_hand.parity, Duration::ZERO, 1);
    frame
}

#[test]
fn a_correspondent_who_only_begins_messages_costs_bounded_memory_and_each_loss_is_counted() {
    let mut net = Net::offline(Setup::new(113));
    let mut by_hand = ByHand::new(&net.world.view, 113);
    let full = [1; FRAGMENT_DATA];
    for n in 0..300u128 {
        let frame = mail(&mut by_hand, &net, MessageId(n.to_be_bytes()), 0, 2, &full);
        net.clients[0].handle_frame(net.now, frame);
    }
    assert_eq!(dropped(net.clients[0].drops()), [(DropReason::ReassemblyFull, 300 - 256)]);
    // The last ones can still be completed.
    let frame = mail(&mut by_hand, &net, MessageId(299u128.to_be_bytes()), 1, 2, b"end");
    net.clients[0].handle_frame(net.now, frame);
    // Whatever is never completed goes.
    net.run_for(Duration::from_secs(16 * 60));
    assert_eq!(dropped(net.clients[0].drops()), [(DropReason::ReassemblyFull, 299)]);
    net.connect(Place::Client(0));
    let inbox = net.inbox(0);
    assert_eq!((inbox.len(), inbox[0].body.len()), (1, FRAGMENT_DATA + 3));
}

#[test]
fn contradictions_and_duplicates_change_nothing() {
    let mut net = Net::offline(Setup::new(114));
    let mut by_hand = ByHand::new(&net.world.view, 114);
    let id = MessageId([1; 16]);
    let full = [1; FRAGMENT_DATA];
    let sequence = [
        mail(&mut by_hand, &net, id, 0, 3, &full),
        mail(&mut by_hand, &net, id, 0, 3, &[9; FRAGMENT_DATA]), // the first one counts
        mail(&mut by_hand, &net, id, 1, 2, b"another end"),
        mail(&mut by_hand, &net, id, 1, 3, &[2; FRAGMENT_DATA - 1]), // not full
        mail(&mut by_hand, &net, id, 2, 3, b"end"),
        mail(&mut by_hand, &net, id, 1, 3, &full),
        mail(&mut by_hand, &net, id, 0, 1, b"once more"),
    ];
    for frame in sequence {
        net.clients[0].handle_frame(net.now, frame);
    }
    net.connect(Place::Client(0));
    let inbox = net.inbox(0);
    assert_eq!(inbox.len(), 1);
    assert_eq!(inbox[0].body, [&full[..], &full, b"end"].concat());
    let expected = [(DropReason::BadFragment, 2), (DropReason::DuplicateFragment, 2)];
    assert_eq!(dropped(net.clients[0].drops()), expected);
}
