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
    assert!(other.starts_with("unknown key `mix.threshold`: there are `kind`, `delay`"), "{other}");
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
