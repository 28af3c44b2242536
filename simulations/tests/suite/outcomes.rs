//! What runs yield.

use core::time::Duration;

use std::sync::atomic::{AtomicU32, Ordering};

use tombola_mixing::{Rng, Time};
use tombola_sim::experiment::{self, Options, Outcome, Replication};
use tombola_sim::mixes::stop_and_go::StopAndGo;
use tombola_sim::mixes::{Mix, MixKind, PacketId};
use tombola_sim::output;
use tombola_sim::scenario::Scenario;
use tombola_sim::world::{Control, Fidelity, Kind};

use crate::{LOOPIX, SHORT, run, scenario};

#[test]
fn the_same_seed_gives_the_same_files_on_any_number_of_threads() {
    let scenario = scenario(
        &format!("{LOOPIX}\n"),
        &format!("{SHORT}\n[metrics]\nchallenge = true\n[mix_loops]\ninterval = \"1s\""),
    );
    let files = [1, 2, 5].map(|threads| {
        let options = Options { threads, trace: true, ..Options::default() };
        let outcome = experiment::run(&scenario, &options, &Control::default()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        output::write(directory.path(), &scenario, &options, &outcome).unwrap();
        ["targets.parquet", "replications.parquet", "latencies.parquet", "trace.parquet", "summary.json"]
            .map(|name| std::fs::read(directory.path().join(name)).unwrap())
    });
    assert!(files[0] == files[1] && files[0] == files[2]);
    assert!(files[0].iter().all(|file| file.len() > 100));
}

/// Equal links have a line of their own instead of a place in the queue.
#[test]
fn packets_arrive_alike_in_a_line_and_in_the_queue() {
    let line = scenario(LOOPIX, &format!("{SHORT}\n[mix_loops]\ninterval = \"1s\""));
    let drawn = "delay = { constant = \"5ms\", exponential = \"0s\" }";
    let queue = line.source.replace("[links]\ndelay = \"5ms\"", &format!("[links]\n{drawn}"));
    assert_ne!(queue, line.source);
    let queue = Scenario::parse(&queue).unwrap();
    let [line, queue] = [&line, &queue].map(|scenario| {
        let options = Options { trace: true, ..Options::default() };
        experiment::run(scenario, &options, &Control::default()).unwrap()
    });
    assert_eq!(line, queue);
    assert!(line.replications.iter().all(|one| one.result.delivered > 100));
}

#[test]
fn another_seed_gives_other_results() {
    let one = scenario(LOOPIX, SHORT);
    let other = Scenario::parse(&one.source.replace("seed = 5", "seed = 6")).unwrap();
    assert_ne!(run(&one), run(&other));
}

#[test]
fn every_packet_is_accounted_for() {
    let links = "[links]\nloss = 0.05\ndelay = { constant = \"1ms\", exponential = \"4ms\" }";
    let scenario = scenario(LOOPIX, SHORT);
    let text = scenario.source.replace("[links]\ndelay = \"5ms\"", links);
    let text = text.replace("delay = \"50ms\"", "delay = \"50ms\"\ncapacity = 4");
    let outcome = run(&Scenario::parse(&text).unwrap());
    for one in &outcome.replications {
        let batch = &one.result.batches[0];
        assert!(batch.lost_on_links > 0 && batch.refused > 0);
        assert_eq!(batch.all_sent(), batch.all_arrived() + batch.lost_on_links + batch.refused);
        assert_eq!((one.result.under_way, one.result.unfinished), (0, 0));
    }
}

fn sum(outcome: &Outcome, kind: Kind) -> f64 {
    outcome.replications.iter().map(|one| one.result.batches[0].sent[kind as usize] as f64).sum()
}

#[test]
fn streams_have_their_rates_and_cover_fills_the_main_one() {
    let outcome = run(&scenario(LOOPIX, "warm_up = \"5s\"\nmeasure = \"50s\"\nreplications = 4"));
    let seconds = 4.0 * 50.0 * 40.0;
    for (found, rate) in [
        (sum(&outcome, Kind::Real) + sum(&outcome, Kind::Cover), 2.0),
        (sum(&outcome, Kind::Real), 1.0),
        (sum(&outcome, Kind::Loop), 1.0),
        (sum(&outcome, Kind::Drop), 0.5),
    ] {
        let expected: f64 = seconds * rate;
        // Five standard deviations of a Poisson variable.
        assert!((found - expected).abs() < 5.0 * expected.sqrt(), "{found}, {expected}");
    }
    // Messages wait in a queue that is served at 2 and filled at 1 per second: 1/(2 - 1) s in the mean.
    let waiting = outcome.estimate("waiting_s", 0.95).unwrap();
    assert!((waiting.mean - 1.0).abs() < 0.1, "{waiting:?}");
}

#[test]
fn users_who_are_on_and_off_write_as_often_as_their_phases_say() {
    let clients = "user = { behaviour = \"on-off\", interval = \"200ms\", on = \"2s\", off = \"6s\" }";
    let outcome = run(&scenario(clients, "warm_up = \"2s\"\nmeasure = \"200s\"\nreplications = 4"));
    let expected = 4.0 * 200.0 * 40.0 * 0.25 / 0.2;
    let found = sum(&outcome, Kind::Real);
    // Phases make it vary more than a Poisson variable: 2 x 10 messages in a phase, squared, for each phase.
    assert!((found / expected - 1.0).abs() < 0.05, "{found}, {expected}");
}

#[test]
fn a_stopping_rule_ends_at_the_same_replication_on_any_number_of_threads() {
    let rule = "warm_up = \"1s\"\nmeasure = \"4s\"\nreplications = 10\n\
                stop = { metric = \"entropy_bits\", half_width = 0.04, at_most = 200 }";
    let scenario = scenario(LOOPIX, rule);
    let outcomes = [1, 3].map(|threads| {
        let options = Options { threads, ..Options::default() };
        experiment::run(&scenario, &options, &Control::default()).unwrap()
    });
    assert_eq!(outcomes[0], outcomes[1]);
    let count = outcomes[0].replications.len();
    assert!((11..200).contains(&count), "{count}");
    assert_eq!(outcomes[0].narrow, Some(true));
    assert!(outcomes[0].estimate("entropy_bits", 0.95).unwrap().half_width.unwrap() <= 0.04);
}

#[test]
fn batch_means_agree_with_replications() {
    let replicated = run(&scenario(LOOPIX, "warm_up = \"2s\"\nmeasure = \"20s\"\nreplications = 10"));
    let batches =
        scenario(LOOPIX, "warm_up = \"2s\"\nmeasure = \"20s\"\nreplications = 10\nmethod = \"batch-means\"");
    let batches = run(&batches);
    assert_eq!((batches.replications.len(), batches.values().count()), (1, 10));
    for metric in ["entropy_bits", "latency_s", "transit_s", "overhead"] {
        let [one, other] = [&replicated, &batches].map(|outcome| outcome.estimate(metric, 0.95).unwrap());
        let errors = one.standard_error.unwrap().hypot(other.standard_error.unwrap());
        assert!((one.mean - other.mean).abs() < 4.5 * errors, "{metric}: {one:?} {other:?}");
    }
}

#[test]
fn the_warm_up_of_slow_mixes_covers_their_filling() {
    let slow = scenario(LOOPIX, "measure = \"1s\"")
        .source
        .replace("delay = \"50ms\"", "kind = \"pool\"\nbatch = 10\nkeep = 200");
    let slow = Scenario::parse(&slow).unwrap();
    let [one, two] =
        [1, 2].map(|threads| experiment::find_warm_up(&slow, threads, &Control::default()).unwrap());
    assert_eq!(one, two, "pilots do not depend on threads");
    // 140 packets a second come to two mixes of each layer. Mixes send nothing until they hold 200, so layers fill one
    // after the other, in 400 / 140 s each: 8.6 s. Not much longer: the mean time under way is 3 x 20.5 rounds of 1/7 s.
    let found = one.length.as_secs_f64();
    assert!(one.found == Some(true) && (8.6..100.0).contains(&found), "{one:?}");
}

#[test]
fn the_warm_up_covers_the_queues_of_clients_who_write_nearly_as_much_as_they_send() {
    // Nine messages in ten ticks. A queue then takes 1 / (1 - sqrt(0.9))^2 = 380 ticks to come near to its mean, while
    // packets are under way for a sixth of one.
    let busy = "emission = \"loopix\"\nmain_interval = \"1s\"\nuser = { interval = \"1111ms\" }";
    let found =
        experiment::find_warm_up(&scenario(busy, "measure = \"1s\""), 2, &Control::default()).unwrap();
    assert!(found.found == Some(true) && found.length.as_secs() > 200, "{found:?}");
}

#[test]
fn a_warm_up_without_an_end_is_told() {
    // Nobody writes for hours: there is nothing to see.
    let rare = "user = { behaviour = \"on-off\", interval = \"10ms\", on = \"1s\", off = \"100h\" }";
    let outcome = run(&scenario(rare, "measure = \"1s\"\nreplications = 2"));
    assert_eq!(outcome.warm_up.found, Some(false));
    let options = Options::default();
    let given = run(&scenario(LOOPIX, SHORT));
    let summary = |outcome: &Outcome| output::summary(&scenario(LOOPIX, SHORT), &options, outcome);
    assert_eq!(summary(&outcome)["warm_up_detected"], false);
    assert!(summary(&given)["warm_up_detected"].is_null());
}

#[test]
fn a_panic_of_any_thread_is_one_of_the_whole() {
    /// Makes mixes on the test's own thread only.
    #[derive(Debug)]
    struct AtHome(std::thread::ThreadId);
    impl MixKind for AtHome {
        fn build(&self, rng: Rng, arrivals: f64) -> Box<dyn Mix> {
            assert_eq!(std::thread::current().id(), self.0, "on purpose");
            StopAndGo::exponential(Duration::from_millis(50)).build(rng, arrivals)
        }
        fn mean_stay(&self, _arrivals: f64) -> f64 {
            0.05
        }
        fn longest_stay(&self, _arrivals: f64) -> f64 {
            1.0
        }
    }
    let mut many = scenario(LOOPIX, "warm_up = \"1s\"\nmeasure = \"4s\"\nreplications = 1000");
    many.mix = Box::new(AtHome(std::thread::current().id()));
    let run = |threads| {
        let options = Options { threads, ..Options::default() };
        let work = || experiment::run(&many, &options, &Control::default());
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
    };
    let panic = run(2).expect_err("the other thread panics");
    assert!(panic.downcast_ref::<String>().is_some_and(|what| what.contains("on purpose")));
}

/// The outcome if it is stopped after so many events.
fn interrupted(scenario: &Scenario, events: u64) -> Outcome {
    let control = Control::default();
    std::thread::scope(|scope| {
        let runs = scope.spawn(|| experiment::run(scenario, &Options::default(), &control));
        while control.events() < events {
            std::thread::yield_now();
        }
        control.stop();
        runs.join().expect("no panic").expect("it can be run")
    })
}

#[test]
fn batches_that_are_complete_when_it_is_stopped_stay() {
    let batches = |count: u32| {
        let run = format!(
            "warm_up = \"1s\"\nmeasure = \"5s\"\nmethod = \"batch-means\"\nreplications = {count}\n\
             [metrics]\nchallenge = true\n[mix_loops]\ninterval = \"1s\""
        );
        scenario(LOOPIX, &run)
    };
    let stopped = interrupted(&batches(1_000_000), 1);
    let count = stopped.values().count();
    assert!(!stopped.complete && (5..1_000_000).contains(&count), "{count}");
    let result = &stopped.replications[0].result;
    assert!(result.interrupted && (result.unfinished, result.under_way) == (0, 0));
    assert!(result.targets.iter().all(|target| target.finished && (target.batch as usize) < count));
    // Each of them is what it is in a run that ends by itself.
    let whole = run(&batches(8));
    assert!(whole.complete);
    let values = |outcome: &Outcome| outcome.values().take(8).map(<[_]>::to_vec).collect::<Vec<_>>();
    assert_eq!(values(&stopped), values(&whole)[..count.min(8)]);
    assert!(interrupted(&scenario(LOOPIX, "warm_up = \"9h\"\nmeasure = \"5s\""), 1).replications.is_empty());
}

#[test]
fn both_fidelities_refuse_what_finds_no_room() {
    let text = scenario(LOOPIX, "warm_up = \"1s\"\nmeasure = \"3s\"\nreplications = 2").source;
    let small = Scenario::parse(&text.replace("delay = \"50ms\"", "delay = \"50ms\"\ncapacity = 3")).unwrap();
    let [index, packets] = [Fidelity::Index, Fidelity::Packets].map(|fidelity| {
        let options = Options { fidelity, ..Options::default() };
        experiment::run(&small, &options, &Control::default()).unwrap()
    });
    let count = |outcome: &Outcome| {
        outcome.replications.iter().map(|one| one.result.batches[0].refused as f64).sum::<f64>()
    };
    // A mix gets 70 packets a second and has 3.5 of them on average where there is room: Erlang's formula says that a
    // third finds none at the first, some 500 of 840 at all three. Only delays differ.
    let (index, found) = (count(&index), count(&packets));
    assert!(index > 200.0 && (found / index - 1.0).abs() < 0.25, "{index}, {found}");
    for one in &packets.replications {
        let wire = one.result.wire.unwrap();
        assert_eq!((wire.dropped, wire.astray, wire.wrong_end), (0, 0, 0));
    }
}

#[test]
fn loops_are_counted_from_the_end_of_the_warm_up_and_all_of_them() {
    let run_section = "warm_up = \"10s\"\nmeasure = \"4s\"\nreplications = 3\n\
                       [metrics]\nmonitored_clients = 40\n[mix_loops]\ninterval = \"1s\"";
    let outcome = run(&scenario(LOOPIX, run_section));
    for Replication { result, .. } in &outcome.replications {
        let sent = result.batches[0].sent;
        assert_eq!(result.client_loops.sent, sent[Kind::Loop as usize]);
        assert_eq!(result.mix_loops.sent, sent[Kind::MixOut as usize] + sent[Kind::MixIn as usize]);
        for loops in [result.client_loops, result.mix_loops] {
            assert!(loops.sent > 20 && (loops.due, loops.lost) == (loops.sent, 0), "{loops:?}");
        }
    }
}

/// The first mix that is made keeps every second packet for ever, all others send what comes at once.
#[derive(Debug, Default)]
struct Keeping(AtomicU32);

struct KeepingMix {
    keeps: bool,
    packets: u32,
    leaving: Option<PacketId>,
}

impl MixKind for Keeping {
    fn build(&self, _rng: Rng, _arrivals: f64) -> Box<dyn Mix> {
        let keeps = self.0.fetch_add(1, Ordering::Relaxed) == 0;
        Box::new(KeepingMix { keeps, packets: 0, leaving: None })
    }
    fn mean_stay(&self, _arrivals: f64) -> f64 {
        0.01
    }
    fn longest_stay(&self, _arrivals: f64) -> f64 {
        0.1
    }
}

impl Mix for KeepingMix {
    fn arrive(&mut self, _now: Time, packet: PacketId, _delay: Duration) -> bool {
        self.packets += 1;
        self.leaving = (!self.keeps || self.packets.is_multiple_of(2)).then_some(packet);
        true
    }
    fn poll(&mut self, _now: Time) -> Option<PacketId> {
        self.leaving.take()
    }
    fn poll_timeout(&self) -> Option<Time> {
        None
    }
}

#[test]
fn targets_that_never_come_out_are_left_out_and_counted() {
    let text = "seed = 5\n[network]\nlayers = 1\nwidth = 2\n[mix]\ndelay = \"1ms\"\n[clients]\ncount = 40\n\
                user = { interval = \"1s\" }\n[metrics]\nlanes = 62\ntarget_interval = \"1s\"\n\
                [run]\nwarm_up = \"1s\"\nmeasure = \"20s\"\nreplications = 2";
    let mut keeping = Scenario::parse(text).unwrap();
    // A fresh one for the first replication; in the second all mixes send.
    keeping.mix = Box::new(Keeping::default());
    let outcome = run(&keeping);
    let first = &outcome.replications[0].result;
    let finished = first.targets.iter().filter(|target| target.finished).count() as u64;
    assert!(finished > 3 && first.unfinished > 3, "{finished}, {}", first.unfinished);
    assert_eq!(first.unfinished + finished, first.targets.len() as u64);
    assert!(first.targets.iter().any(|target| target.entropy > 1.0));
    // What comes out at once is known.
    let entropy = outcome.estimate("entropy_bits", 0.95).unwrap();
    assert_eq!((entropy.mean, entropy.count), (0.0, 2));
    assert_eq!(outcome.estimate("residual", 0.95).unwrap().mean, 0.0);
    let rows = output::targets(&outcome).numbers("finished");
    assert_eq!(rows.iter().filter(|finished| **finished == 0.0).count() as u64, first.unfinished);
}

#[test]
fn batches_that_depend_on_each_other_are_named() {
    let clients = "user = { interval = \"200ms\" }";
    let slow = |run: &str| {
        let text = scenario(clients, run).source.replace("delay = \"50ms\"", "delay = \"5s\"");
        Scenario::parse(&text).unwrap()
    };
    let short = "warm_up = \"60s\"\nmeasure = \"1s\"\nreplications = 150\n[metrics]\nlanes = 62\n\
                 target_interval = \"1s\"";
    let batches = short.replacen("warm_up", "method = \"batch-means\"\nwarm_up", 1);
    let dependent = slow(&batches);
    let outcome = run(&dependent);
    assert!(
        outcome.correlated().contains(&"entropy_bits"),
        "{:?}",
        outcome.serial_correlation("entropy_bits")
    );
    let summary = output::summary(&dependent, &Options::default(), &outcome);
    assert!(summary["correlated_batches"].as_array().unwrap().contains(&"entropy_bits".into()));
    assert!(summary["metrics"]["entropy_bits"]["serial_correlation"].as_f64().unwrap() > 0.3);
    let independent = run(&slow(&short.replace("= 150", "= 12")));
    assert_eq!(independent.serial_correlation("entropy_bits"), None);
    assert!(independent.correlated().is_empty());
}

#[test]
fn what_is_finished_when_it_is_stopped_stays() {
    let endless = scenario(LOOPIX, "warm_up = \"1s\"\nmeasure = \"5s\"\nreplications = 1000000");
    let outcome = interrupted(&endless, 1);
    assert!(!outcome.complete && !outcome.replications.is_empty());
    assert!(outcome.replications.len() < 1_000_000);
    assert!(outcome.estimate("transit_s", 0.95).is_some());
}

#[test]
fn challenge_senders_who_rest_for_long_are_still_compared() {
    // Some 30 packets in each mix at any time, so none is ever empty; users rest for a thousand mean delays.
    let clients = "user = { behaviour = \"on-off\", interval = \"7ms\", on = \"10s\", off = \"10s\" }";
    let long =
        "warm_up = \"40s\"\nmeasure = \"40s\"\nreplications = 2\n[metrics]\nlanes = 1\nchallenge = true";
    let text = scenario(clients, long).source.replace("layers = 3\nwidth = 2", "layers = 1\nwidth = 1");
    let text = text.replace("delay = \"50ms\"", "delay = \"10ms\"");
    let outcome = run(&Scenario::parse(&text).unwrap());
    for one in &outcome.replications {
        let found = one.result.batches[0].likelihood;
        assert!(found.difference.is_finite(), "{found:?}");
        // Both senders have sent before, and whatever a pool that is never empty sends may be theirs.
        assert!(found.both > 50_000 && found.one == 0, "{found:?}");
    }
}
