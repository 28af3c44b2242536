//! The emission schedule: rates as asked, and the same instants whatever the client has to say.

use core::time::Duration;
use std::collections::VecDeque;

use tombola_mixing::{EmissionSchedule, Rates, Rng, Stream, Time};

use crate::common::{P_MIN, is_exponential, is_homogeneous, is_poisson, seconds, seed};

const RATES: Rates = Rates {
    main: Duration::from_millis(40),
    loops: Duration::from_secs(1),
    drops: Duration::from_millis(500),
};

fn schedule(rates: Rates, n: u8) -> EmissionSchedule {
    EmissionSchedule::new(Time::ZERO, rates, Rng::from_seed(seed(n)))
}

/// What a client does: at each tick it emits what waits or else cover. It looks at its schedule after a time of its
/// own, which here depends on how much it has to do. Returns the instants and what was emitted.
fn client(
    mut schedule: EmissionSchedule,
    mut queue: VecDeque<u32>,
    until: Time,
) -> Vec<(Time, Stream, Option<u32>)> {
    let mut emitted = vec![];
    let mut now = Time::ZERO;
    while now < until {
        let busy = Duration::from_micros(if queue.is_empty() { 0 } else { 700_000 });
        now = (schedule.poll_timeout() + busy).min(until);
        while let Some((tick, stream)) = schedule.poll(now) {
            let real = if stream == Stream::Main { queue.pop_front() } else { None };
            emitted.push((tick, stream, real));
        }
    }
    emitted
}

#[test]
fn a_saturated_and_an_idle_client_emit_at_the_same_instants() {
    let until = Time::ZERO + Duration::from_secs(1000);
    let saturated = client(schedule(RATES, 60), (0..100_000).collect(), until);
    let idle = client(schedule(RATES, 60), VecDeque::new(), until);
    let half = client(schedule(RATES, 60), (0..10_000).collect(), until);
    let visible = |emitted: &[(Time, Stream, Option<u32>)]| -> Vec<(Time, Stream)> {
        emitted.iter().map(|&(tick, stream, _)| (tick, stream)).collect()
    };
    assert!(idle.len() > 20_000);
    assert_eq!(visible(&saturated), visible(&idle));
    assert_eq!(visible(&half), visible(&idle));
    // And yet one of them spoke all the time.
    assert!(saturated.iter().all(|&(_, stream, real)| (stream == Stream::Main) == real.is_some()));
    assert!(idle.iter().all(|(_, _, real)| real.is_none()));
    // Another seed, other instants.
    assert_ne!(visible(&client(schedule(RATES, 61), VecDeque::new(), until)), visible(&idle));
}

#[test]
fn each_stream_is_poisson_at_its_own_rate_and_independent_of_the_others() {
    let mut schedule = schedule(RATES, 62);
    let mut ticks: [Vec<Time>; 3] = Default::default();
    let mut all = vec![];
    // After a tick of one stream, which stream comes next? [main, loop, drop] after each.
    let mut follows = [[0_u64; 3]; 3];
    let mut last = None;
    for _ in 0..300_000 {
        let (tick, stream) = schedule.poll(schedule.poll_timeout()).unwrap();
        ticks[stream as usize].push(tick);
        all.push(tick);
        if let Some(last) = last.replace(stream) {
            follows[last as usize][stream as usize] += 1;
        }
    }
    assert!(is_homogeneous(&follows) > P_MIN);
    for (ticks, mean) in ticks.iter().zip([0.04, 1.0, 0.5]).chain([(&all, 1.0 / 28.0)]) {
        let gaps: Vec<f64> = ticks.windows(2).map(|pair| seconds(pair[1] - pair[0])).collect();
        assert!(is_exponential(&gaps, mean) > P_MIN, "{mean}");
        let end = ticks[ticks.len() - 1].as_nanos();
        let mut counts = vec![0; 1001];
        for tick in ticks {
            counts[usize::try_from(u128::from(tick.as_nanos()) * 1000 / u128::from(end)).unwrap()] += 1;
        }
        assert!(is_poisson(&counts[..1000]) > P_MIN, "{mean}");
    }
}

#[test]
fn streams_can_be_switched_off() {
    let off = Duration::MAX;
    for (rates, on) in [
        (Rates { main: off, ..RATES }, vec![Stream::Loop, Stream::Drop]),
        (Rates { loops: off, ..RATES }, vec![Stream::Main, Stream::Drop]),
        (Rates { drops: off, ..RATES }, vec![Stream::Main, Stream::Loop]),
        (Rates { main: off, loops: off, ..RATES }, vec![Stream::Drop]),
        (Rates { main: off, drops: off, ..RATES }, vec![Stream::Loop]),
        (Rates { loops: off, drops: off, ..RATES }, vec![Stream::Main]),
    ] {
        let mut schedule = schedule(rates, 63);
        let mut seen: Vec<Stream> =
            (0..1000).map(|_| schedule.poll(schedule.poll_timeout()).unwrap().1).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, on);
    }
    let mut silent = schedule(Rates { main: off, loops: off, drops: off }, 63);
    assert_eq!((silent.poll(Time::MAX), silent.poll_timeout()), (None, Time::MAX));
}

#[test]
fn waking_up_makes_a_bounded_burst() {
    let mut schedule = schedule(RATES, 64).with_max_lag(Duration::from_millis(500));
    let night = Time::ZERO + Duration::from_secs(8 * 3600);
    let burst = core::iter::from_fn(|| schedule.poll(night)).count();
    // 14 on average; 45 has a probability of 1e-10.
    assert!((1..45).contains(&burst), "{burst}");
    assert!(schedule.skipped() > 28 * 8 * 3600 * 99 / 100);
}
