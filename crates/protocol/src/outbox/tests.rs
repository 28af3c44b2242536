use super::*;

const QUESTION: MessageId = MessageId([1; 16]);
const ANSWER: MessageId = MessageId([2; 16]);

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn pace() -> Pace {
    Pace { round_trip: Duration::from_secs(10), quiet: Duration::from_secs(5) }
}

fn outbox() -> Outbox {
    Outbox::new(SendLimits::default(), pace())
}

/// A short answer that was queued at 0, and leaves then and `more` times.
fn sent(more: u32) -> (Outbox, Time) {
    let mut outbox = outbox();
    outbox.push(at(0), ANSWER, Target::Reply(QUESTION), vec![1; 10], 0, at(1_000_000)).unwrap();
    let mut now = at(0);
    for _ in 0..=more {
        outbox.handle_timeouts(now, 1.0);
        assert!(outbox.next(|_| true).is_some());
        outbox.emitted(now, ANSWER, 1.0);
        now = outbox.resends.first().unwrap().0;
    }
    (outbox, now)
}

fn is_due(outbox: &mut Outbox, now: Time) -> bool {
    outbox.handle_timeouts(now, 1.0);
    outbox.next(|_| true).is_some()
}

#[test]
fn what_left_in_trouble_is_sent_again_and_nothing_else() {
    // It left at 0, 10 and 30 seconds.
    let (mut outbox, next) = sent(2);
    assert_eq!(next, at(90));
    let mut rng = Rng::from_seed([1; 32]);
    outbox.handle_mended(at(40), at(31), &mut rng);
    assert!(!is_due(&mut outbox, at(89)), "it left before");
    outbox.handle_mended(at(40), at(30), &mut rng);
    assert!(is_due(&mut outbox, at(89)));
}

#[test]
fn trouble_that_comes_and_goes_does_not_undo_the_waiting() {
    let (mut outbox, _) = sent(4);
    let mut rng = Rng::from_seed([2; 32]);
    let (mut now, mut times) = (at(300), 0);
    while now < at(3600) {
        outbox.handle_mended(now, at(0), &mut rng);
        now += Duration::from_secs(30);
        if is_due(&mut outbox, now) {
            // Half of what is sent and reported gets lost: the level grows slowly.
            outbox.emitted(now, ANSWER, 0.7);
            times += 1;
        }
    }
    assert!((2..=10).contains(&times), "{times}");
}

#[test]
fn what_is_due_at_once_is_not_sent_at_once() {
    let mut rng = Rng::from_seed([3; 32]);
    let mut outbox = outbox();
    let ids: Vec<_> = (0..50u8).map(|n| MessageId([n; 16])).collect();
    for id in &ids {
        let shape = Shape::of(10).unwrap();
        let mut outgoing =
            Outgoing::new(Target::Reply(QUESTION), vec![1; 10], shape, 0, at(0), at(1_000_000));
        (outgoing.sent, outgoing.cursor, outgoing.left) = (true, 1, Some(at(0)));
        outbox.restore(at(0), *id, outgoing, &mut rng);
    }
    let spread = |outbox: &Outbox| {
        let times: BTreeSet<_> = outbox.resends.iter().map(|(at, _)| *at).collect();
        assert_eq!(times.len(), ids.len(), "each has a time of its own");
        *times.last().unwrap() - *times.first().unwrap()
    };
    assert!(spread(&outbox) > pace().quiet, "after a restart");
    ids.iter().for_each(|id| outbox.wait_until(*id, at(10_000)));
    outbox.handle_mended(at(100), at(0), &mut rng);
    assert!(spread(&outbox) > pace().round_trip, "after an outage");
}

#[test]
fn a_client_that_is_started_often_does_not_fill_a_mailbox() {
    let (minute, weeks) = (Duration::from_secs(60), Duration::from_secs(14 * 86_400));
    let mut rng = Rng::from_seed([4; 32]);
    let (mut tries, mut age, mut packets) = (1, minute, 0);
    while age < weeks {
        let shape = Shape::of(10).unwrap();
        let mut outgoing =
            Outgoing::new(Target::Reply(QUESTION), vec![1; 10], shape, 0, at(0), at(2_000_000));
        (outgoing.sent, outgoing.cursor, outgoing.older) = (true, 1, age);
        outgoing.restore_extra(tries);
        let mut outbox = outbox();
        outbox.restore(at(0), ANSWER, outgoing, &mut rng);
        // It runs for a minute.
        if is_due(&mut outbox, at(60)) {
            outbox.emitted(at(60), ANSWER, 1.0);
            packets += 1;
            tries += 1;
        }
        age += minute;
    }
    assert!((50..150).contains(&packets), "{packets}");
}

#[test]
fn a_report_says_better_what_is_missing_than_parity_that_nobody_asked_for() {
    let mut outbox = outbox();
    let body = vec![1; 40 * FRAGMENT_DATA];
    outbox.push(at(0), ANSWER, Target::Reply(QUESTION), body, 0, at(1_000_000)).unwrap();
    let leave = |outbox: &mut Outbox, now| {
        let mut parts = vec![];
        while let Some(next) = outbox.next(|_| true) {
            parts.push(next.part);
            outbox.emitted(now, ANSWER, 1.0);
        }
        parts
    };
    assert_eq!(leave(&mut outbox, at(0)).len(), 41);
    // Parity is due, unasked; before it leaves the recipient says that it has all but two.
    outbox.handle_timeouts(at(20), 1.0);
    let mut there = Positions::default();
    (2..40).for_each(|position| there.insert(position));
    let report = Report::Partial { open: vec![(0, there)], more: false };
    assert!(!outbox.handle_report(at(20), ANSWER, report.clone(), 1.0));
    let parts = leave(&mut outbox, at(21));
    assert_eq!(parts.len(), 3, "two fragments and a question: {parts:?}");
    let first_parity = Part::Fragment(Place { segment: 0, position: 40 });
    assert!(parts.contains(&first_parity), "what was taken back is there again: {parts:?}");
    // What was asked for is not taken back.
    assert!(!outbox.handle_report(at(60), ANSWER, report.clone(), 1.0));
    outbox.handle_report(at(61), ANSWER, Report::Nothing, 1.0);
    assert_eq!(leave(&mut outbox, at(62)).len(), 3);
}

#[test]
fn blocks_bring_an_answer_on_its_way_again_but_not_one_that_just_left() {
    let (mut outbox, _) = sent(2);
    outbox.handle_blocks(at(39), QUESTION);
    outbox.handle_blocks(at(41), ANSWER);
    assert!(!is_due(&mut outbox, at(41)));
    outbox.handle_blocks(at(41), QUESTION);
    assert!(is_due(&mut outbox, at(41)));
}

#[test]
fn a_wait_is_at_most_twice_the_age_however_often_a_process_was_started() {
    let mut outbox = outbox();
    let shape = Shape::of(10).unwrap();
    let mut restored = Outgoing::new(Target::Reply(QUESTION), vec![1; 10], shape, 0, at(0), at(1_000_000));
    restored.older = Duration::from_secs(100);
    (restored.sent, restored.cursor) = (true, 1);
    restored.restore_extra(12);
    outbox.restore(at(0), ANSWER, restored, &mut Rng::from_seed([1; 32]));
    assert!(is_due(&mut outbox, at(90)));
    outbox.emitted(at(90), ANSWER, 1.0);
    assert_eq!(outbox.resends.first().unwrap().0, at(90 + 2 * 190));
}
