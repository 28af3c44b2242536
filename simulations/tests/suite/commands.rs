//! The program, as its README uses it.

use core::time::Duration;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
    for loops in ["client_loops", "mix_loops"] {
        assert!(summary[loops]["due"].as_u64().unwrap() > 10, "{loops}");
        assert_eq!(summary[loops]["delivery_ratio"], 1.0, "{loops}");
    }

    let plot = program(path, &["plot", "results", "--width", "60", "--formats", "png,pdf"]);
    assert!(plot.status.success(), "{}", text(&plot.stderr));
    assert_eq!(text(&plot.stdout).lines().count(), 6);
    assert!(std::fs::read(path.join("results/latency.pdf")).unwrap().starts_with(b"%PDF"));
}

/// A small scenario in which all packets take the same time.
fn write_scenario(path: &Path, run: &str) {
    let text = format!(
        "[network]\nlayers = 2\nwidth = 2\n[mix]\ndelay = {{ constant = \"50ms\" }}\n[clients]\ncount = 20\n\
         user = {{ interval = \"100ms\" }}\n[run]\nwarm_up = \"1s\"\n{run}\n"
    );
    std::fs::write(path.join("scenario.toml"), text).expect("a file");
}

fn summary(path: &Path) -> serde_json::Value {
    let text = std::fs::read(path.join("results/summary.json")).expect("a summary");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn constant_delays_have_a_figure_and_earlier_results_do_not_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_scenario(path, "measure = \"1s\"\nreplications = 2");
    let there = |file: &str| path.join("results").join(file).exists();
    let run = program(path, &["run", "scenario.toml", "--out", "results", "--plot", "--trace"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(text(&run.stdout).contains("figure: results/latency.svg"), "{}", text(&run.stdout));
    assert!(there("trace.parquet") && there("latency.svg") && there("convergence.svg"));
    let run = program(path, &["run", "scenario.toml", "--out", "results"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(!there("trace.parquet") && !there("latency.svg") && there("targets.parquet"));
}

#[test]
fn a_directory_that_cannot_be_written_to_is_told_before_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    // Would take hours.
    write_scenario(path, "measure = \"1h\"\nreplications = 1000000");
    std::fs::write(path.join("results"), "").unwrap();
    let run = program(path, &["run", "scenario.toml", "--out", "results"]);
    assert!(!run.status.success());
    assert!(text(&run.stderr).contains("results: "), "{}", text(&run.stderr));
}

/// Runs the scenario until it says that it began, and then presses Ctrl-C.
#[cfg(unix)]
fn interrupt(path: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tombola-sim"));
    command.args(arguments).current_dir(path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    #[expect(
        clippy::disallowed_methods,
        reason = "it simulates meanwhile, some hundred times what it needs to finish a part"
    )]
    std::thread::sleep(Duration::from_secs(2));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill starts");
    assert!(kill.success(), "it still runs");
    child.wait_with_output().expect("it ends")
}

#[cfg(unix)]
#[test]
fn after_an_interruption_there_is_what_was_finished() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (method, what) in [("replications", "replications"), ("batch-means", "batches")] {
        write_scenario(path, &format!("measure = \"1s\"\nmethod = \"{method}\"\nreplications = 1000000"));
        let run = interrupt(path, &["run", "scenario.toml", "--out", "results", "--plot"]);
        let said = text(&run.stdout);
        assert_eq!(run.status.code(), Some(130), "{said} {}", text(&run.stderr));
        let expected = format!("interrupted: the results are those of the {what} that were finished");
        assert!(said.contains(&expected) && said.contains("figure: results/latency.svg"), "{said}");
        assert_eq!(summary(path)["complete"], false);
        assert!(summary(path)["metrics"]["entropy_bits"]["values"].as_u64().unwrap() > 1);
    }
    // Nothing is finished before a warm-up of days.
    write_scenario(path, "measure = \"1s\"");
    let scenario = std::fs::read_to_string(path.join("scenario.toml")).unwrap();
    std::fs::write(path.join("scenario.toml"), scenario.replace("warm_up = \"1s\"", "warm_up = \"99d\""))
        .unwrap();
    let run = interrupt(path, &["run", "scenario.toml", "--out", "results"]);
    assert!(text(&run.stderr).contains("interrupted before anything was finished"), "{}", text(&run.stderr));
    assert_eq!(run.status.code(), Some(1));
}

#[test]
fn figures_that_the_results_have_nothing_for_are_left_out_with_a_note() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    // Hardly anybody ever writes.
    write_scenario(path, "measure = \"1s\"\nreplications = 2");
    let scenario = std::fs::read_to_string(path.join("scenario.toml")).unwrap();
    std::fs::write(path.join("scenario.toml"), scenario.replace("\"100ms\" }", "\"99d\" }")).unwrap();
    let run = program(path, &["run", "scenario.toml", "--out", "results", "--plot"]);
    let said = text(&run.stdout);
    assert!(run.status.success(), "{said} {}", text(&run.stderr));
    for figure in ["entropy", "latency", "convergence"] {
        assert!(said.contains(&format!("no figure {figure}: it needs ")), "{said}");
    }
    assert!(!program(path, &["plot", "results"]).status.success(), "nothing was drawn");
}

#[test]
fn verify_compares_with_a_file_and_fails_if_it_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let verify = |bits: f64| {
        let file = format!("{{\"single_mix_entropy_bits\": {{\"10\": {bits}}}}}");
        std::fs::write(path.join("reference.json"), file).unwrap();
        program(path, &["verify", "--quick", "--reference", "reference.json"])
    };
    let right = verify(4.763_046);
    let said = text(&right.stdout);
    assert!(right.status.success() && said.contains("1 passed, 0 failed"), "{said}");
    assert!(said.starts_with("what ") && said.contains("single mix, rho 10:"), "{said}");
    let wrong = verify(4.77);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stdout).contains("FAILED\n\n0 passed, 1 failed"), "{}", text(&wrong.stdout));
    let broken = program(path, &["verify", "--reference", "nowhere.json"]);
    assert!(text(&broken.stderr).contains("nowhere.json"), "{}", text(&broken.stderr));
}

#[test]
fn more_threads_than_a_system_has_are_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_scenario(path, "measure = \"1s\"\nreplications = 3");
    let run = program(path, &["run", "scenario.toml", "--out", "results", "--threads", "200000"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert_eq!(summary(path)["complete"], true);
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
    for option in ["--scenario", "--only"] {
        let bench = program(path, &["bench", option, "nothing"]);
        assert!(!bench.status.success());
        assert!(text(&bench.stderr).contains("million_clients"), "{}", text(&bench.stderr));
    }
}

#[test]
fn figures_of_a_benchmark_are_written_under_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let bench = program(path, &["bench", "--only", "mixim_default", "--json", "figures.json"]);
    assert!(bench.status.success(), "{}", text(&bench.stderr));
    assert!(text(&bench.stdout).starts_with("mixim_default "), "{}", text(&bench.stdout));
    let figures = std::fs::read(path.join("figures.json")).unwrap();
    let figures: serde_json::Value = serde_json::from_slice(&figures).unwrap();
    assert_eq!(figures.as_object().unwrap().keys().collect::<Vec<_>>(), ["mixim_default"]);
    let value = |key: &str| figures["mixim_default"][key].as_f64().unwrap();
    // 20 000 s and the warm-up at 50 messages a second, each of them eight queue items: sent, three arrivals, three departures,
    // the end.
    assert!((value("delivered") / 1.001e6 - 1.0).abs() < 0.01, "{figures}");
    assert!((value("events") / value("delivered") - 8.0).abs() < 0.05, "{figures}");
    assert!((value("events_per_cpu_s") * value("cpu_s") / value("events") - 1.0).abs() < 1e-6, "{figures}");
    assert!((value("entropy_bits") - 4.856).abs() < 0.1 && value("targets") > 1000.0, "{figures}");
    assert!(value("rss_mib") < 200.0 && value("simulated_s") > 20_020.0, "{figures}");
}
