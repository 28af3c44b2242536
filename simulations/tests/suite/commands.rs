//! The program, as its README uses it.

use std::path::Path;
use std::process::{Command, Output};

use tombola_sim::output;

fn program(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tombola-sim"));
    command.args(arguments).current_dir(directory).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn two_commands_lead_to_a_figure() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let init = program(path, &["init", "scenario.toml"]);
    assert!(init.status.success(), "{}", text(&init.stderr));
    assert!(!program(path, &["init", "scenario.toml"]).status.success(), "nothing is overwritten");

    // The same, for a shorter time.
    let scenario = std::fs::read_to_string(path.join("scenario.toml")).unwrap();
    std::fs::write(path.join("scenario.toml"), scenario.replace("measure = \"60s\"", "measure = \"4s\""))
        .unwrap();
    let run = program(path, &["run", "scenario.toml", "--out", "results", "--plot"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let said = text(&run.stdout);
    assert!(said.contains("entropy_bits") && said.contains("figure: results/entropy.svg"), "{said}");
    for figure in ["entropy", "latency", "convergence"] {
        let svg = std::fs::read_to_string(path.join(format!("results/{figure}.svg"))).unwrap();
        assert!(svg.contains("width=\"85mm\""));
    }

    let table = output::read(&path.join("results"), "targets.parquet").unwrap();
    assert!(table.numbers("entropy_bits").iter().all(|&bits| (1.0..12.0).contains(&bits)));
    let note = |key: &str| table.notes.iter().find(|(known, _)| known == key).unwrap().1.clone();
    assert_eq!((note("seed"), note("version")), ("1".into(), env!("CARGO_PKG_VERSION").into()));
    let summary = std::fs::read(path.join("results/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(summary["scenario_sha256"], note("scenario_sha256"));
    assert_eq!(summary["complete"], true);
    let loops = summary["client_loops"]["delivery_ratio"].as_f64();
    assert!(loops.is_none_or(|ratio| ratio == 1.0));

    let plot = program(path, &["plot", "results", "--width", "60", "--formats", "png,pdf"]);
    assert!(plot.status.success(), "{}", text(&plot.stderr));
    assert_eq!(text(&plot.stdout).lines().count(), 6);
    assert!(std::fs::read(path.join("results/latency.pdf")).unwrap().starts_with(b"%PDF"));
}

#[test]
fn real_packets_run_the_same_scenario_with_mixes_loops_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(program(path, &["init", "scenario.toml"]).status.success());
    let scenario = std::fs::read_to_string(path.join("scenario.toml")).unwrap();
    let scenario = scenario
        .replace("measure = \"60s\"", "measure = \"300ms\"")
        .replace("\"auto\"", "\"1s\"")
        .replace("width = 10", "width = 2")
        .replace("loss = 0.0", "loss = 0.01")
        .replace("replications = 10", "replications = 2");
    std::fs::write(path.join("scenario.toml"), scenario).unwrap();
    let run = program(path, &["run", "scenario.toml", "--out", "results", "--fidelity", "packets"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let summary = std::fs::read(path.join("results/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(summary["fidelity"], "packets");
    assert!(summary["packets"]["sent"]["mix_out"].as_u64().unwrap() > 0);
    assert!(summary["packets"]["sent"]["mix_in"].as_u64().unwrap() > 0);
    let wire = &summary["wire"];
    assert!(wire["arrived"].as_u64().unwrap() > 100);
    for wrong in ["dropped", "astray", "wrong_end"] {
        assert_eq!(wire[wrong], 0, "{wrong}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("bad.toml"), "sede = 1").unwrap();
    let run = program(path, &["run", "bad.toml", "--out", "results"]);
    assert!(!run.status.success());
    assert!(
        text(&run.stderr).contains("bad.toml: unknown key `sede`: did you mean `seed`?"),
        "{}",
        text(&run.stderr)
    );
    let plot = program(path, &["plot", "nowhere"]);
    assert!(text(&plot.stderr).contains("nowhere/targets.parquet"), "{}", text(&plot.stderr));
    let bench = program(path, &["bench", "--scenario", "nothing"]);
    assert!(text(&bench.stderr).contains("million_clients"), "{}", text(&bench.stderr));
}
