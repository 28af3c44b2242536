//! Loops: what is counted when, and how surely blocking is noticed.

use core::time::Duration;

use tombola_mixing::{LoopMonitor, LoopStats, LossTest, LossTestError, Lost, Rng, SendError, Time, Verdict};

use crate::common::seed;

const TIMEOUT: Duration = Duration::from_secs(30);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn id(n: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    id
}

fn expire(monitor: &mut LoopMonitor<u8>, now: Time) -> Vec<Lost<u8>> {
    core::iter::from_fn(|| monitor.poll_expired(now)).collect()
}

#[test]
fn loops_count_when_they_are_due() {
    let mut monitor = LoopMonitor::new(TIMEOUT, 100, LossTest::standard());
    assert_eq!(monitor.stats(&1).delivery_ratio(), None);
    monitor.sent(at(0), id(1), 1).unwrap();
    monitor.sent(at(1000), id(2), 1).unwrap();
    monitor.sent(at(2000), id(3), 2).unwrap();
    assert_eq!(monitor.returned(at(3000), id(2)), Some(Duration::from_secs(2)));
    assert_eq!(monitor.returned(at(3001), id(2)), None, "a second time");
    assert_eq!(monitor.returned(at(3001), id(9)), None, "unknown");
    // Counting the return at once, and the loss only later, would report a ratio of 1 here.
    assert_eq!(monitor.stats(&1), LoopStats { sent: 2, returned: 1, ..LoopStats::default() });
    assert_eq!(monitor.stats(&1).delivery_ratio(), None);

    assert_eq!(monitor.poll_timeout(), Some(at(30_000)));
    assert_eq!(expire(&mut monitor, at(29_999)), []);
    assert_eq!(monitor.returned(at(30_000), id(1)), None, "too late, though nobody has noticed yet");
    assert_eq!(
        expire(&mut monitor, at(40_000)),
        [Lost { id: id(1), key: 1, sent: at(0) }, Lost { id: id(3), key: 2, sent: at(2000) },]
    );
    assert_eq!(monitor.returned(at(40_000), id(3)), None, "too late");
    assert_eq!(monitor.stats(&1).delivery_ratio(), Some(0.5));
    assert_eq!(monitor.stats(&2).delivery_ratio(), Some(0.0));
    assert_eq!(monitor.total(), LoopStats { sent: 3, returned: 1, due: 3, lost: 2, rounds: 0, alarms: 0 });
    assert_eq!(monitor.iter().map(|(key, ..)| key).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((monitor.in_flight(), monitor.poll_timeout()), (0, None));
}

#[test]
fn total_loss_reads_as_zero_and_raises_the_alarm() {
    let mut monitor = LoopMonitor::new(TIMEOUT, 100, LossTest::standard());
    for n in 0..7 {
        monitor.sent(at(n * 1000), id(n), 1).unwrap();
    }
    assert_eq!(expire(&mut monitor, at(30_000)).len(), 1);
    assert_eq!(monitor.stats(&1).delivery_ratio(), Some(0.0));
    assert_eq!(monitor.verdict(&1), Verdict::Undecided);
    // Six losses in a row are more than ln(0.999e6) / ln(10) = 5.9996 can take.
    expire(&mut monitor, at(35_000));
    assert_eq!(monitor.verdict(&1), Verdict::Alarm);
    assert_eq!(monitor.verdict(&2), Verdict::Undecided);
    assert_eq!((monitor.stats(&1).rounds, monitor.stats(&1).alarms), (1, 1));
}

#[test]
fn memory_is_bounded_and_refusals_are_counted() {
    let mut monitor = LoopMonitor::new(TIMEOUT, 10, LossTest::standard());
    for n in 0..10 {
        monitor.sent(at(0), id(n), 0).unwrap();
    }
    for n in 10..1000 {
        assert_eq!(monitor.sent(at(0), id(n), 0), Err(SendError::TooManyInFlight));
    }
    assert_eq!((monitor.in_flight(), monitor.refused(), monitor.stats(&0).sent), (10, 990, 10));
    // A return does not make room: the loop stays until it is due.
    monitor.returned(at(1), id(0));
    assert_eq!(monitor.sent(at(1), id(10), 0), Err(SendError::TooManyInFlight));
    expire(&mut monitor, at(30_000));
    monitor.sent(at(30_000), id(1), 0).unwrap();
    assert_eq!(monitor.sent(at(30_000), id(1), 0), Err(SendError::DuplicateId));
    for key in 1..10 {
        monitor.sent(at(30_000), id(100 + u64::from(key)), key).unwrap();
        expire(&mut monitor, at(60_000));
    }
    assert_eq!(monitor.sent(at(60_000), id(200), 10), Err(SendError::TooManyKeys));
    monitor.retain(|&key| key == 0);
    assert_eq!(monitor.iter().count(), 1);
    monitor.sent(at(60_000), id(200), 10).unwrap();
}

#[test]
fn forgotten_keys_take_their_loops_along() {
    let mut monitor = LoopMonitor::new(TIMEOUT, 10, LossTest::standard());
    monitor.sent(at(0), id(1), 1).unwrap();
    monitor.sent(at(1), id(2), 2).unwrap();
    monitor.retain(|&key| key == 2);
    assert_eq!((monitor.in_flight(), monitor.poll_timeout()), (1, Some(at(30_001))));
    assert_eq!(monitor.returned(at(2), id(1)), None);
    // The key comes back: its old loop is not held against it.
    monitor.sent(at(2), id(3), 1).unwrap();
    assert_eq!(expire(&mut monitor, at(31_000)).len(), 2);
    assert_eq!(monitor.stats(&1), LoopStats { sent: 1, due: 1, lost: 1, ..LoopStats::default() });
}

#[test]
fn a_step_back_of_the_clock_keeps_deadlines_in_order() {
    let mut monitor = LoopMonitor::new(TIMEOUT, 10, LossTest::standard());
    monitor.sent(at(10_000), id(1), 1).unwrap();
    monitor.sent(at(0), id(2), 1).unwrap();
    assert_eq!(expire(&mut monitor, at(39_999)), []);
    assert_eq!(monitor.returned(at(39_999), id(2)), Some(Duration::from_millis(39_999)));
    assert_eq!(expire(&mut monitor, at(40_000)).len(), 1);
}

/// Rounds that ended, those with an alarm, and the loops they took, at a given loss: one loop per second, returns
/// after two seconds, losses seen after the timeout, as in a running node.
fn rounds(test: LossTest, loss_per_mille: u64, loops: u64, seed: [u8; 32]) -> (f64, f64, f64) {
    let mut rng = Rng::from_seed(seed);
    let mut monitor = LoopMonitor::new(TIMEOUT, 100, test);
    let lost: Vec<bool> = (0..loops).map(|_| rng.below(1000) < loss_per_mille).collect();
    for (n, _) in lost.iter().enumerate() {
        let now = at(n as u64 * 1000);
        monitor.sent(now, id(n as u64), 0).expect("there is room");
        if n >= 2 && !lost[n - 2] {
            monitor.returned(now, id(n as u64 - 2)).expect("it is in flight");
        }
        expire(&mut monitor, now);
    }
    let stats = monitor.stats(&0);
    (stats.rounds as f64, stats.alarms as f64, stats.due as f64)
}

/// Exactly what a round does: the chance that it ends with an alarm, and how many loops it takes on average. Sums
/// over all histories, by number of losses.
fn exact(p0: f64, p1: f64, alpha: f64, beta: f64, loss: f64) -> (f64, f64) {
    let (up, down) = ((p1 / p0).ln(), ((1.0 - p1) / (1.0 - p0)).ln());
    let (top, bottom) = (((1.0 - beta) / alpha).ln(), (beta / (1.0 - alpha)).ln());
    // at[l]: the probability of being undecided after n loops, l of them lost.
    let mut at = vec![1.0];
    let (mut alarm, mut loops) = (0.0, 0.0);
    for n in 1..20_000_u32 {
        loops += at.iter().sum::<f64>();
        let mut next = vec![0.0; at.len() + 1];
        for (lost, probability) in at.iter().enumerate() {
            next[lost] += probability * (1.0 - loss);
            next[lost + 1] += probability * loss;
        }
        for (lost, probability) in next.iter_mut().enumerate() {
            let sum = lost as f64 * up + (f64::from(n) - lost as f64) * down;
            if sum >= top {
                alarm += *probability;
                *probability = 0.0;
            } else if sum <= bottom {
                *probability = 0.0;
            }
        }
        while next.last() == Some(&0.0) {
            next.pop();
        }
        at = next;
    }
    (alarm, loops)
}

#[test]
fn blocking_is_noticed_as_the_power_curve_says() {
    let (p0, p1, alpha, beta) = (0.01, 0.1, 0.01, 0.05);
    let test = LossTest::new(p0, p1, alpha, beta).unwrap();
    for per_mille in [0, 10, 20, 50, 100, 200, 500] {
        let loss = per_mille as f64 / 1000.0;
        let (alarm, loops) = exact(p0, p1, alpha, beta, loss);
        let (rounds, alarms, due) = rounds(test, per_mille, 200_000, seed(80));
        // The monitor does what the test is: within 4.5 standard deviations (p = 7e-6) ...
        let deviation = (alarm * (1.0 - alarm) / rounds).sqrt();
        assert!(
            (alarms / rounds - alarm).abs() <= 4.5 * deviation + 1e-9,
            "{loss}: {alarms}/{rounds}, {alarm}"
        );
        assert!((due / rounds / loops - 1.0).abs() < 0.06, "{loss}: {}, {loops}", due / rounds);
        // ... and Wald's approximations hold, of which the error probabilities are bounds.
        assert!((test.alarm_probability(loss) - alarm).abs() < 0.03, "{loss}: {alarm}");
        assert!((0.75..1.01).contains(&(test.expected_loops(loss) / loops)), "{loss}: {loops}");
        if per_mille == 10 {
            assert!(alarm <= alpha / (1.0 - beta));
        }
        if per_mille == 100 {
            assert!(1.0 - alarm <= beta / (1.0 - alpha));
        }
    }
}

#[test]
fn the_standard_test_is_as_documented() {
    let test = LossTest::standard();
    assert_eq!(test, LossTest::new(0.01, 0.1, 1e-6, 1e-3).unwrap());
    for (loss, alarm, loops) in [
        (0.0, 0.0, 73.0),
        (0.01, 4.7e-7, 97.0),
        (0.02, 3.8e-4, 147.0),
        (0.03, 0.027, 273.0),
        (0.05, 0.774, 396.0),
        (0.1, 0.999, 102.0),
        (0.2, 1.0, 38.0),
        (0.5, 1.0, 14.0),
        (1.0, 1.0, 6.0),
    ] {
        let seen = exact(0.01, 0.1, 1e-6, 1e-3, loss);
        assert!((seen.0 - alarm).abs() <= alarm * 0.012, "{loss}: {}", seen.0);
        assert!((seen.1 - loops).abs() <= 0.5, "{loss}: {}", seen.1);
    }
}

#[test]
fn operating_characteristic_is_monotone_and_passes_the_given_points() {
    let test = LossTest::standard();
    assert!((test.alarm_probability(0.01) / 1e-6 - 1.0).abs() < 1e-3);
    assert!((test.alarm_probability(0.1) / 0.999 - 1.0).abs() < 1e-6);
    assert_eq!((test.alarm_probability(0.0), test.alarm_probability(1.0)), (0.0, 1.0));
    let mut last = 0.0;
    // Both ends closely: the exponentials there leave the range of floating-point numbers.
    let ends = (1..300).map(|k| f64::from(k) / 10.0).map(|k| 0.1_f64.powf(k));
    let mut losses: Vec<f64> = ends.flat_map(|end| [end, 1.0 - end]).collect();
    losses.extend((0..=10_000_u32).map(|step| f64::from(step) / 1e4));
    losses.sort_by(f64::total_cmp);
    for loss in losses {
        let alarm = test.alarm_probability(loss);
        assert!(alarm >= last - 1e-9 && alarm <= 1.0, "{loss}: {alarm}");
        assert!(test.expected_loops(loss) > 1.0, "{loss}: {}", test.expected_loops(loss));
        last = alarm;
    }
}

#[test]
fn senseless_tests_are_refused() {
    for (p0, p1) in [(0.0, 0.1), (0.1, 0.1), (0.2, 0.1), (0.1, 1.0), (f64::NAN, 0.1), (0.1, f64::NAN)] {
        assert!(matches!(LossTest::new(p0, p1, 0.01, 0.01), Err(LossTestError::Fractions { .. })));
    }
    for (alpha, beta) in [(0.0, 0.1), (0.1, 0.5), (f64::NAN, 0.1), (0.1, -1.0)] {
        assert!(matches!(LossTest::new(0.01, 0.1, alpha, beta), Err(LossTestError::Errors { .. })));
    }
}
