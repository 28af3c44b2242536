//! Scenarios are read strictly.

use tombola_sim::scenario::{Scenario, TEMPLATE};

const MINIMAL: &str = "[network]\nlayers = 3\nwidth = 2\n[mix]\ndelay = \"50ms\"\n[clients]\ncount = 5\n\
                       [clients.user]\ninterval = \"1s\"\n[run]\nmeasure = \"1s\"\n";

fn error(text: &str) -> String {
    Scenario::parse(text).expect_err("it is wrong").to_string()
}

#[test]
fn the_template_and_the_least_scenario_are_read() {
    Scenario::parse(TEMPLATE).unwrap();
    Scenario::parse(MINIMAL).unwrap();
}

#[test]
fn an_unknown_key_is_told_its_nearest() {
    for (line, expected) in [
        ("widht = 2", "unknown key `network.widht`: did you mean `width`?"),
        ("gateway = 2", "unknown key `network.gateway`: did you mean `gateways`?"),
        (
            "corrupt_per_layers = 1",
            "unknown key `network.corrupt_per_layers`: did you mean `corrupt_per_layer`?",
        ),
    ] {
        assert_eq!(error(&MINIMAL.replace("layers = 3", &format!("layers = 3\n{line}"))), expected);
    }
    assert_eq!(error(&MINIMAL.replace("[run]", "[runs]\n[run]")), "unknown key `runs`: did you mean `run`?");
    let other = error(&MINIMAL.replace("[mix]", "[mix]\nthreshold = 3"));
    assert!(other.starts_with("unknown key `mix.threshold`: there are `kind`, `"), "{other}");
}

#[test]
fn a_misspelt_key_that_has_to_be_there_is_told_its_name() {
    let loopix = "count = 5\nemission = \"loopix\"";
    for (from, to, expected) in [
        ("[network]", "[netwrok]", "unknown key `netwrok`: did you mean `network`?"),
        ("[clients]\n", "[client]\n", "unknown key `client`: did you mean `clients`?"),
        ("[clients.user]", "[clients.usr]", "unknown key `clients.usr`: did you mean `user`?"),
        ("[run]", "[links]\nloss = 0.0\n[rnu]", "unknown key `rnu`: did you mean `run`?"),
        ("width = 2", "widht = 2", "unknown key `network.widht`: did you mean `width`?"),
        ("delay = \"50ms\"", "dealy = \"50ms\"", "unknown key `mix.dealy`: did you mean `delay`?"),
        ("delay = \"50ms\"", "max_delay = \"50ms\"", "`mix.delay` is missing: add it"),
        ("count = 5", "cuont = 5", "unknown key `clients.cuont`: did you mean `count`?"),
        (
            "count = 5",
            &format!("{loopix}\nmain_intreval = \"1s\""),
            "unknown key `clients.main_intreval`: did you mean `main_interval`?",
        ),
        ("count = 5", &format!("{loopix}\nloop_interval = \"1s\""), "`clients.main_interval` is missing"),
        ("interval", "intervall", "unknown key `clients.user.intervall`: did you mean `interval`?"),
        ("measure", "mesure", "unknown key `run.mesure`: did you mean `measure`?"),
        (
            "measure",
            "stop = { halfwidth = 1, metric = \"loss\" }\nmeasure",
            "unknown key `run.stop.halfwidth`: did you mean `half_width`?",
        ),
        ("delay = \"50ms\"", "kind = \"threshold\"\nthreshhold = 9", "unknown key `mix.threshhold`"),
        ("delay = \"50ms\"", "kind = \"timed\"\ninterva = \"1s\"", "unknown key `mix.interva`"),
        ("delay = \"50ms\"", "kind = \"pool\"\nkep = 9\nbatch = 2", "unknown key `mix.kep`"),
    ] {
        let found = error(&MINIMAL.replace(from, to));
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    assert_eq!(error("seed = 1"), "`network` is missing: add it");
}

#[test]
fn what_cannot_be_simulated_is_refused_where_it_is_said() {
    let huge = 9_000_000_000_000_000_000_u64;
    for (from, to, expected) in [
        ("layers = 3", "layers = 256", "`network.layers`: a route has at most 255 mixes, found 256"),
        ("layers = 3", &format!("layers = {huge}"), "`network.layers`: a route has at most 255"),
        ("width = 2", &format!("width = {huge}"), "`network.width`: at most 100000 can be simulated"),
        ("width = 2", &format!("width = [{huge}, {huge}, {huge}]"), "`network.width`: at most 100000"),
        ("width = 2", &format!("width = 2\ngateways = {huge}"), "`network.gateways`: at most 100000"),
        ("width = 2", "width = 2\ngateways = 0", "`network.gateways`: expected at least 1"),
        ("count = 5", "count = 100000001", "`clients.count`: at least two clients, at most 100000000"),
        (
            "count = 5",
            "count = 5\nloop_interval = \"0s\"",
            "`clients.loop_interval`: expected more than zero",
        ),
        (
            "count = 5",
            "count = 5\ndrop_interval = \"0s\"",
            "`clients.drop_interval`: expected more than zero",
        ),
        ("[run]", "[mix_loops]\ninterval = \"0s\"\n[run]", "`mix_loops.interval`: expected more than zero"),
        ("[run]", "[metrics]\ntarget_interval = \"0s\"\n[run]", "`metrics.target_interval`: expected more"),
        ("[run]", "[metrics]\nloop_timeout = \"0s\"\n[run]", "`metrics.loop_timeout`: expected more than"),
        (
            "[run]",
            "[metrics]\nloop_timeout = \"10h\"\n[mix_loops]\ninterval = \"1ns\"\n[run]",
            "`metrics.loop_timeout`: 864000000000384 places for loops would be needed",
        ),
        (
            "width = 2",
            "width = 10000\n[metrics]\nloop_timeout = \"1d\"\n[mix_loops]\ninterval = \"1s\"",
            "`metrics.loop_timeout`: 10369920000 places for loops would be needed",
        ),
        (
            "count = 5",
            "count = 90000000\ntiming = \"individual\"",
            "`clients.count`: 90000000 such clients take some 75 GB for each thread",
        ),
        ("delay = \"50ms\"", &format!("kind = \"threshold\"\nthreshold = {huge}"), "`mix`: a packet may be"),
        ("delay = \"50ms\"", &format!("kind = \"pool\"\nkeep = {huge}\nbatch = 1"), "`mix`: a packet may be"),
        ("delay = \"50ms\"", "delay = \"5000d\"", "`mix`: a packet may be under way for"),
        ("delay = \"50ms\"", "kind = \"threshold\"\nthreshold = 0", "`mix.threshold`: expected at least 1"),
        ("delay = \"50ms\"", "kind = \"pool\"\nkeep = 1\nbatch = 0", "`mix.batch`: expected at least 1"),
        (
            "delay = \"50ms\"",
            "kind = \"timed\"\ninterval = \"0s\"",
            "`mix.interval`: expected more than zero",
        ),
        ("interval = \"1s\"", "interval = \"1ns\"", "`clients`: 7.500e8 packets would be under way"),
        ("measure = \"1s\"", "measure = \"200000d\"", "`run.measure`: at most 1000000000 s"),
        (
            "measure = \"1s\"",
            "measure = \"1s\"\nwarm_up = \"200000d\"",
            "`run.warm_up`: at most 1000000000 s",
        ),
        (
            "measure = \"1s\"",
            "measure = \"1h\"\nmethod = \"batch-means\"\nreplications = 1000000",
            "`run.measure`: at most 1000000000 s of virtual time can be simulated, found 3600000000 s in one run",
        ),
        (
            "measure = \"1s\"",
            "measure = \"1s\"\nreplications = 4000000000",
            "`run.replications`: at most 1000000, found 4000000000",
        ),
        (
            "measure = \"1s\"",
            "measure = \"1s\"\nstop = { half_width = nan }",
            "`run.stop.half_width`: no interval becomes as narrow as NaN",
        ),
        (
            "measure = \"1s\"",
            "measure = \"1s\"\nstop = { half_width = 0 }",
            "`run.stop.half_width`: no interval becomes as narrow as 0",
        ),
        (
            "measure = \"1s\"",
            "measure = \"1s\"\nreplications = 9\nstop = { half_width = 1 }",
            "`run.replications`: a stopping rule needs at least 10, found 9",
        ),
        (
            "measure = \"1s\"",
            "measure = \"1s\"\nreplications = 20\nstop = { half_width = 1, at_most = 19 }",
            "`run.stop.at_most`: expected at least `run.replications`, 20, found 19",
        ),
        (
            "count = 5",
            "count = 5\nmain_interval = \"1s\"",
            "`clients.main_interval`: only clients with `emission = \"loopix\"` have a main stream",
        ),
    ] {
        let found = error(&MINIMAL.replace(from, to));
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn as_much_as_is_allowed_can_be_run() {
    let most = MINIMAL
        .replace("layers = 3", "layers = 255")
        .replace("delay = \"50ms\"", &format!("delay = \"1ms\"\ncapacity = {}", i64::MAX));
    let scenario = Scenario::parse(&most).unwrap();
    let outcome = crate::run(&scenario);
    let transit = outcome.estimate("transit_s", 0.95).unwrap();
    assert!((transit.mean - 0.255).abs() < 0.01, "{transit:?}");
}

#[test]
fn errors_name_the_place_and_what_is_expected() {
    for (from, to, expected) in [
        ("count = 5", "count = 1", "`clients.count`: at least two clients"),
        ("count = 5", "count = \"5\"", "`clients.count`: expected a whole number, not negative, found \"5\""),
        ("width = 2", "width = 0", "`network.width`: a layer has at least one mix"),
        ("width = 2", "width = [1, 2]", "`network.width`: as many widths as `layers` says"),
        (
            "width = 2",
            "width = 2\ncorrupt_per_layer = 3",
            "`network.corrupt_per_layer`: more than a layer has mixes",
        ),
        ("delay = \"50ms\"", "delay = \"50\"", "`mix.delay`: expected a unit"),
        (
            "delay = \"50ms\"",
            "kind = \"poison\"",
            "`mix.kind`: expected \"poisson\", \"pool\", \"threshold\", \"timed\", found \"poison\"; did you mean \"poisson\"?",
        ),
        ("delay = \"50ms\"", "", "`mix.delay` is missing: add it"),
        (
            "delay = \"50ms\"",
            "kind = \"pool\"\nkeep = 3",
            "`mix.batch`: a pool mix needs `batch` or `interval`, neither is given",
        ),
        ("interval = \"1s\"", "interval = \"0s\"", "`clients.user.interval`: expected more than zero"),
        (
            "measure = \"1s\"",
            "measure = \"1s\"\nreplications = 1",
            "`run.replications`: an interval needs at least two",
        ),
        (
            "measure = \"1s\"",
            "measure = \"1s\"\nstop = { metric = \"entropy\", half_width = 1 }",
            "`run.stop.metric`: expected \"entropy_bits\"",
        ),
        (
            "[run]",
            "[metrics]\nreceivers = \"false\"\n[run]",
            "`metrics.receivers`: expected true or false, found \"false\"",
        ),
        ("[run]", "[metrics]\nlanes = 65\n[run]", "`metrics.lanes`: expected 1 to 64, found 65"),
        ("[run]", "[links]\nloss = 1.0\n[run]", "`links.loss`: expected a share from 0 to below 1, found 1"),
        (
            "[run]",
            "[links]\ndelay = { exponential = \"1s\", uniform = \"1s\" }\n[run]",
            "`links.delay`: expected a duration, or a table",
        ),
        (
            "interval = \"1s\"",
            "interval = \"1s\"\nbehaviour = \"on-off\"\non = \"1s\"",
            "`clients.user.off` is missing",
        ),
        (
            "count = 5",
            "count = 5\nemission = \"loopix\"\nmain_interval = \"1s\"",
            "`clients.main_interval`: a user writes 1.000000 messages a second on average, and the main stream takes 1.000000:",
        ),
    ] {
        let found = error(&MINIMAL.replace(from, to));
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    assert!(error("[network").starts_with("not TOML"));
}
