//! What runs yield.

use core::time::Duration;

use tombola_mixing::Rng;
use tombola_sim::experiment::{self, Options, Outcome};
use tombola_sim::mixes::stop_and_go::StopAndGo;
use tombola_sim::mixes::{Mix, MixKind};
use tombola_sim::output;
use tombola_sim::scenario::Scenario;
use tombola_sim::world::{Control, Kind};

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
    let rule = format!("{SHORT}\nstop = {{ metric = \"entropy_bits\", half_width = 0.08, at_most = 60 }}");
    let scenario = scenario(LOOPIX, &rule);
    let outcomes = [1, 3].map(|threads| {
        let options = Options { threads, ..Options::default() };
        experiment::run(&scenario, &options, &Control::default()).unwrap()
    });
    assert_eq!(outcomes[0], outcomes[1]);
    let count = outcomes[0].replications.len();
    assert!((5..60).contains(&count), "{count}");
    assert_eq!(outcomes[0].narrow, Some(true));
    assert!(outcomes[0].estimate("entropy_bits", 0.95).unwrap().half_width.unwrap() <= 0.08);
}

#[test]
fn batch_means_agree_with_replications() {
    let replicated = run(&scenario(LOOPIX, "warm_up = \"2s\"\nmeasure = \"20s\"\nreplications = 10"));
    let batches =
        scenario(LOOPIX, "warm_up = \"2s\"\nmeasure = \"20s\"\nreplications = 10\nmethod = \"batch-means\"");
    let batches = run(&batches);
    assert_eq!((batches.replications.len(), batches.values().len()), (1, 10));
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

#[test]
fn what_is_finished_when_it_is_stopped_stays() {
    let endless = scenario(LOOPIX, "warm_up = \"1s\"\nmeasure = \"5s\"\nreplications = 1000000");
    let control = Control::default();
    let outcome = std::thread::scope(|scope| {
        let runs = scope.spawn(|| experiment::run(&endless, &Options::default(), &control).unwrap());
        while control.events() == 0 {
            std::thread::yield_now();
        }
        control.stop();
        runs.join().unwrap()
    });
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
