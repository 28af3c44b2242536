//! Answers through reply blocks: whoever answers does not learn whom.

use core::time::Duration;

use tombola_protocol::client::{ClientEvent, FinalState, SendOptions};
use tombola_protocol::fragment::{FRAGMENT_DATA, MessageId};
use tombola_protocol::outbox::SendError;
use tombola_protocol::records::tables;

use crate::common::{Net, Place, Setup};

const MINUTE: Duration = Duration::from_secs(60);

fn allowing(replies: u16) -> SendOptions {
    SendOptions { replies, ..SendOptions::default() }
}

/// The bodies of answers that a client got to a message.
fn answers(net: &Net, client: usize, to: MessageId) -> Vec<Vec<u8>> {
    let mine = |got: &&&tombola_protocol::client::Received| got.reply_to == Some(to);
    net.inbox(client).iter().filter(mine).map(|got| got.body.clone()).collect()
}

#[test]
fn an_answer_comes_back_and_is_acknowledged() {
    let mut net = Net::new(Setup::new(220));
    let question = net.send_with(0, 1, b"question", allowing(4));
    net.run_for(Duration::from_secs(5));
    assert!(net.inbox(1)[0].answerable && net.inbox(1)[0].reply_to.is_none());
    let answer = net.reply(1, question, b"answer");
    net.run_for(Duration::from_secs(10));
    assert_eq!(answers(&net, 0, question), [b"answer"]);
    assert_eq!(net.ended(1), [(answer, FinalState::Acknowledged)]);
    assert!(!net.inbox(0)[0].answerable, "it came through a block, and has none of its own");
}

#[test]
fn without_leave_there_is_no_answer() {
    let mut net = Net::new(Setup::new(221));
    let id = net.send_message(0, 1, b"no answer, please");
    net.run_for(Duration::from_secs(5));
    assert!(!net.inbox(1)[0].answerable);
    let fresh = net.fresh_id();
    let refused = net.clients[1].handle_reply(net.now, fresh, id, vec![1], SendOptions::default());
    assert_eq!(refused, Err(SendError::NotAnswerable));
}

#[test]
fn a_long_answer_asks_for_the_blocks_that_it_needs_and_gets_no_more_than_the_budget() {
    let mut net = Net::new(Setup::new(222));
    let generous = net.send_with(0, 1, b"tell me everything", allowing(200));
    let stingy = net.send_with(0, 1, b"be brief", allowing(5));
    net.run_for(Duration::from_secs(5));
    let long: Vec<u8> = (0..60 * FRAGMENT_DATA).map(|n| (n / 7) as u8).collect();
    let (first, second) = (net.reply(1, generous, &long), net.reply(1, stingy, &long));
    net.run_for(4 * MINUTE);
    assert_eq!(answers(&net, 0, generous), [&long[..]]);
    assert!(answers(&net, 0, stingy).is_empty());
    assert_eq!(net.ended(1), [(first, FinalState::Acknowledged)]);
    assert!(net.clients[1].outbox().any(|id| id == second), "it waits for blocks until it expires");
    let sent = net.emitted(1).iter().filter(|emitted| emitted.message == second).count();
    // The budget, and three blocks that came with the message; nothing was lost.
    assert!(sent <= 5 + 3, "{sent} packets");
}

#[test]
fn answers_survive_loss() {
    let mut net = Net::new(Setup::new(223));
    let rng = core::cell::RefCell::new(tombola_mixing::Rng::from_seed([3; 32]));
    net.cut(move |from, to| {
        matches!((from, to), (Place::Node(_), Place::Node(_))) && rng.borrow_mut().below(100) < 5
    });
    let questions: Vec<_> = (0..20u8).map(|n| net.send_with(0, 1, &[n], allowing(100))).collect();
    // One in five is lost, so that one of twenty may well be lost twice; then it is sent again after more than a minute.
    net.run_for(3 * MINUTE);
    assert_eq!(net.inbox(1).len(), 20);
    for (n, question) in questions.iter().enumerate() {
        let body = vec![n as u8; if n == 0 { 20 * FRAGMENT_DATA } else { 10 }];
        net.reply(1, *question, &body);
    }
    for _ in 0..20 {
        if net.ended(1).len() < 20 {
            net.run_for(MINUTE);
        }
    }
    let arrived = questions.iter().filter(|question| answers(&net, 0, **question).len() == 1).count();
    assert_eq!(arrived, 20);
    assert_eq!(net.ended(1).len(), 20);
}

/// Nothing gets into a client's mailbox any more.
fn cut_off(net: &mut Net, client: usize) {
    let gateway = Place::Node(net.gateway_of(Place::Client(client)));
    net.cut(move |from, to| to == gateway && matches!(from, Place::Node(_)));
}

#[test]
fn an_answer_whose_blocks_are_all_lost_arrives_later() {
    let mut net = Net::new(Setup::new(227));
    let question = net.send_with(0, 1, b"question", allowing(1));
    net.run_for(Duration::from_secs(10));
    cut_off(&mut net, 0);
    net.reply(1, question, b"answer");
    net.run_for(2 * MINUTE);
    assert!(answers(&net, 0, question).is_empty());
    let sent = net.emitted(1).len();
    assert!((3..=5).contains(&sent), "{sent} packets: as many as there were blocks");
    net.cut(|_, _| false);
    // As soon as the loops of whoever asked return.
    net.run_for(3 * MINUTE);
    assert_eq!(answers(&net, 0, question), [b"answer"]);
    assert_eq!(net.ended(1).len(), 1);
}

#[test]
fn who_answers_into_an_outage_of_its_own_keeps_what_it_needs_to_answer_later() {
    let mut net = Net::new(Setup::new(228));
    let question = net.send_with(0, 1, b"question", allowing(1));
    net.run_for(Duration::from_secs(10));
    // Nothing of what client 1 sends gets past its gateway; the loops of who asked do not come this way.
    let entry = Place::Node(net.gateway_of(Place::Client(1)));
    net.cut(move |from, to| from == entry && matches!(to, Place::Node(_)));
    net.reply(1, question, b"answer");
    net.run_for(10 * MINUTE);
    assert!(answers(&net, 0, question).is_empty());
    net.cut(|_, _| false);
    net.run_for(3 * MINUTE);
    assert_eq!(answers(&net, 0, question), [b"answer"]);
}

#[test]
fn an_answer_whose_blocks_are_all_lost_arrives_when_who_asked_is_started_again() {
    let mut net = Net::new(Setup::new(229));
    let question = net.send_with(0, 1, b"question", allowing(1));
    net.run_for(Duration::from_secs(10));
    // It is gone while the answers are lost, so that none of its own loops is.
    net.crash(0);
    cut_off(&mut net, 0);
    net.reply(1, question, b"answer");
    net.run_for(4 * MINUTE);
    assert_eq!(net.stores[1].count(tables::BLOCKS), 0);
    net.cut(|_, _| false);
    net.connect(Place::Client(0));
    net.run_for(4 * MINUTE);
    assert_eq!(answers(&net, 0, question), [b"answer"]);
}

#[test]
fn both_sides_may_end_and_begin_again_between_question_and_answer() {
    let mut net = Net::new(Setup::new(224));
    let question = net.send_with(0, 1, b"question", allowing(8));
    net.run_for(Duration::from_secs(10));
    for client in 0..2 {
        net.crash(client);
        net.connect(Place::Client(client));
    }
    let again = net.inbox(1).into_iter().find(|got| got.again).unwrap();
    assert!(again.answerable);
    assert!(net.stores[0].count(tables::KEYS) > 0 && net.stores[1].count(tables::BLOCKS) > 0);
    net.reply(1, question, b"answer");
    net.run_for(Duration::from_secs(20));
    assert_eq!(answers(&net, 0, question), [b"answer"]);
}

#[test]
fn a_hundred_answers_at_once_leave_as_slowly_as_anything() {
    let trace = |burst: bool| {
        let mut net = Net::new(Setup::new(225));
        let mut questions = vec![];
        for n in 0..100u8 {
            questions.push(net.send_with(0, 1, &[n], allowing(2)));
        }
        net.run_for(MINUTE);
        assert_eq!(net.inbox(1).len(), 100);
        net.watch();
        if burst {
            for question in &questions {
                net.reply(1, *question, b"now");
            }
        }
        net.run_for(MINUTE);
        let all = questions.iter().map(|question| answers(&net, 0, *question).len()).sum::<usize>();
        assert_eq!(all, if burst { 100 } else { 0 });
        // Where the answers enter the network, and where they leave it.
        [(Place::Client(1), Place::Node(1)), (Place::Node(0), Place::Client(0))]
            .map(|(from, to)| net.on_link(from, to).iter().map(|seen| seen.sent).collect::<Vec<_>>())
    };
    assert!(trace(true) == trace(false));
}

#[test]
fn whoever_answers_sees_nothing_of_whom() {
    let mut net = Net::new(Setup::new(226));
    let address = net.clients[0].address();
    net.send_with(0, 1, b"question", allowing(8));
    net.run_for(Duration::from_secs(10));
    // Everything that the recipient has kept of it.
    for ((table, key), value) in &net.stores[1].records {
        for secret in
            [&address.sphinx_key.as_bytes()[..], address.gateway.as_bytes(), address.mailbox.as_bytes()]
        {
            let found =
                [key, value].iter().any(|bytes| bytes.windows(secret.len()).any(|window| window == secret));
            assert!(!found, "table {}", table.0);
        }
    }
    assert!(
        net.events[1]
            .iter()
            .all(|event| !matches!(event, ClientEvent::Received(got) if got.reply_to.is_some()))
    );
}
