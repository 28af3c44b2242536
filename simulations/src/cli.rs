//! The command line.

use core::time::Duration;
use std::io::{Stderr, Stdout, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};

use crate::experiment::{self, METRICS, Options, Outcome};
use crate::scenario::{Method, Scenario, TEMPLATE};
use crate::screen::Screen;
use crate::verify::{self, Check, Effort, Setting, VerifyError};
use crate::world::{Control, Fidelity};
use crate::{bench, output, plot};

#[derive(Parser)]
#[command(
    name = "tombola-sim",
    version,
    about = "Simulates mix networks with the code that Tombola's nodes and clients run"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes a commented scenario to begin with
    Init {
        /// Where to; must not be there yet
        #[arg(default_value = "scenario.toml")]
        file: PathBuf,
    },
    /// Runs a scenario and writes its results into a directory
    Run {
        /// The scenario
        scenario: PathBuf,
        /// Where results go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Threads; results do not depend on it [default: as many as there are processors]
        #[arg(long)]
        threads: Option<usize>,
        /// Whether packets are numbers, or Sphinx packets that real relays open
        #[arg(long, value_enum, default_value_t = FidelityArgument::Index)]
        fidelity: FidelityArgument,
        /// Keep a row for every packet, too
        #[arg(long)]
        trace: bool,
        /// Draw figures of the results as well, as SVG
        #[arg(long)]
        plot: bool,
    },
    /// Draws figures of the results in a directory
    Plot {
        /// What `run` wrote
        directory: PathBuf,
        /// Width of a figure in millimetres; 85 is a column of most papers
        #[arg(long, default_value_t = 85.0)]
        width: f64,
        /// Kinds of files
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = [plot::Format::Svg, plot::Format::Png, plot::Format::Pdf])]
        formats: Vec<plot::Format>,
    },
    /// Compares the simulator with exact values, published scenarios and the deployed code
    Verify {
        /// Compare with the scenarios of this file alone (format of simulations/reference/simulation.json)
        #[arg(long, value_name = "FILE")]
        reference: Option<PathBuf>,
        /// Small scenarios and wider tolerances
        #[arg(long)]
        quick: bool,
        /// Threads [default: as many as there are processors]
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Measures speed and memory, each scenario in a process of its own
    Bench {
        /// Write the figures as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Measure this scenario alone
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Run this one here, and print its figures
        #[arg(long, hide = true)]
        scenario: Option<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum FidelityArgument {
    Index,
    Packets,
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Init { file } => init(&file),
        Command::Run { scenario, out, threads, fidelity, trace, plot } => {
            let fidelity = match fidelity {
                FidelityArgument::Index => Fidelity::Index,
                FidelityArgument::Packets => Fidelity::Packets,
            };
            let options = Options { threads: threads.unwrap_or_else(processors).max(1), fidelity, trace };
            simulate(&scenario, &out, &options, plot)
        }
        Command::Plot { directory, width, formats } => {
            let drawn = plot::all(&directory, width, &formats)?;
            for file in &drawn.files {
                say(&file.display().to_string())?;
            }
            missing_figures(&drawn)?;
            Ok(if drawn.files.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Verify { reference, quick, threads } => {
            let effort = if quick { Effort::Quick } else { Effort::Full };
            let threads = threads.unwrap_or_else(processors).max(1);
            check(reference.as_deref(), Setting { effort, threads })
        }
        Command::Bench { json, only, scenario } => {
            measure(json.as_deref(), only.as_deref(), scenario.as_deref())
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("standard output")
}

fn init(file: &Path) -> anyhow::Result<ExitCode> {
    let mut output = std::fs::File::create_new(file)
        .with_context(|| format!("{}: choose another name, or remove it first", file.display()))?;
    output.write_all(TEMPLATE.as_bytes()).with_context(|| file.display().to_string())?;
    say(&format!("{}: next, tombola-sim run {} --out results --plot", file.display(), file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The terminal, shared by whoever reports results and whoever shows progress.
type Terminal = Mutex<Screen<Stdout, Stderr>>;

fn lock(terminal: &Terminal) -> MutexGuard<'_, Screen<Stdout, Stderr>> {
    terminal.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` while a line on the terminal says how far it is. Ctrl-C stops it; a second one ends the process.
fn watched<T: Send>(
    terminal: &Terminal,
    control: &Control,
    work: impl FnOnce() -> T + Send,
) -> anyhow::Result<T> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let signal = signal_hook::consts::SIGINT;
    signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))?;
    signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let found = work();
            done.store(true, Ordering::Relaxed);
            found
        });
        #[expect(clippy::disallowed_methods, reason = "for whoever waits, not for the simulation")]
        let begin = Instant::now();
        while !done.load(Ordering::Relaxed) && !worker.is_finished() {
            #[expect(clippy::disallowed_methods, reason = "the terminal is written to five times a second")]
            std::thread::sleep(Duration::from_millis(50));
            if interrupted.load(Ordering::Relaxed) {
                control.stop();
            }
            if begin.elapsed().as_millis() % 200 < 50 {
                lock(terminal).progress(&progress(control, begin.elapsed()));
            }
        }
        lock(terminal).clear();
        worker.join().map_err(|_| anyhow::anyhow!("a thread of the simulation ended in a panic"))
    })
}

fn progress(control: &Control, elapsed: Duration) -> String {
    let rate = control.events() as f64 / elapsed.as_secs_f64().max(1e-3) / 1e6;
    let (simulated, expected) = control.progress();
    let share = (simulated.as_secs_f64() / expected.as_secs_f64().max(1e-9)).min(1.0);
    let left = if share == 0.0 && !expected.is_zero() {
        String::from("beginning")
    } else if expected.is_zero() {
        String::from("finding the warm-up")
    } else {
        let seconds = elapsed.as_secs_f64() * (1.0 - share) / share;
        format!("{:3.0} %, {seconds:.0} s left", share * 100.0)
    };
    format!("  {rate:.2} million events per second, {left}")
}

fn simulate(file: &Path, out: &Path, options: &Options, draw: bool) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let scenario = Scenario::parse(&text).with_context(|| file.display().to_string())?;
    output::prepare(out)?;
    let control = Control::default();
    let outcome = watched(&Terminal::default(), &control, || experiment::run(&scenario, options, &control))??;
    if outcome.replications.is_empty() {
        bail!("interrupted before anything was finished: there are no results");
    }
    output::write(out, &scenario, options, &outcome)?;
    for line in table(&scenario, &outcome) {
        say(&line)?;
    }
    say(&format!("\nresults are in {}", out.display()))?;
    if draw {
        let drawn = plot::all(out, 85.0, &[plot::Format::Svg])?;
        for figure in &drawn.files {
            say(&format!("figure: {}", figure.display()))?;
        }
        missing_figures(&drawn)?;
    }
    if outcome.complete {
        return Ok(ExitCode::SUCCESS);
    }
    let what = match scenario.run.method {
        Method::Replications => "replications",
        Method::BatchMeans => "batches",
    };
    say(&format!("interrupted: the results are those of the {what} that were finished"))?;
    Ok(ExitCode::from(130))
}

fn missing_figures(drawn: &plot::Drawn) -> anyhow::Result<()> {
    drawn.empty.iter().try_for_each(|(figure, needs)| say(&format!("no figure {figure}: it needs {needs}")))
}

fn table(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let run = &scenario.run;
    let mut lines = vec![format!(
        "{:<24} {:>14} {:>14} {:>8}   {:.0} % interval",
        "metric",
        "mean",
        "+-",
        "values",
        100.0 * run.confidence
    )];
    for metric in METRICS {
        if let Some(found) = outcome.estimate(metric, run.confidence) {
            let half = found.half_width.map_or(String::from("-"), |half| format!("{half:.5}"));
            lines.push(format!("{metric:<24} {:>14.5} {half:>14} {:>8}", found.mean, found.count));
        }
    }
    let targets = outcome.targets().count();
    lines.push(format!(
        "\n{targets} targets, warm-up of {:.2} s{}",
        outcome.warm_up.length.as_secs_f64(),
        if outcome.warm_up.found == Some(true) { " (detected)" } else { "" },
    ));
    if outcome.warm_up.found == Some(false) {
        lines.push(String::from(
            "pilot runs did not show where the warm-up ends, so it may be measured: give run.warm_up",
        ));
    }
    let passed: u64 = outcome.replications.iter().map(|one| one.result.passed_over).sum();
    if passed as f64 > 0.01 * targets as f64 {
        lines.push(format!("{passed} targets found no free lane, which biases them: raise metrics.lanes or metrics.target_interval"));
    }
    let unfinished: u64 = outcome.replications.iter().map(|one| one.result.unfinished).sum();
    if unfinished > 0 {
        lines.push(format!(
            "{unfinished} targets had not come out when the run was given up, and are left out"
        ));
    }
    let correlated = outcome.correlated();
    if !correlated.is_empty() {
        lines.push(format!(
            "intervals are too narrow, because a batch is like the one before: raise run.measure ({})",
            correlated.join(", ")
        ));
    }
    if outcome.narrow == Some(false) {
        lines.push(String::from("the interval is wider than run.stop asks for: raise run.stop.at_most"));
    }
    lines
}

fn check(reference: Option<&Path>, setting: Setting) -> anyhow::Result<ExitCode> {
    let text = match reference {
        Some(file) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
        None => verify::reference::OWN.to_owned(),
    };
    let terminal = Terminal::default();
    lock(&terminal).say(&verify::head())?;
    let control = Control::default();
    let (mut passed, mut failed) = (0, 0);
    let mut report = |check: Check| {
        if check.passed() {
            passed += 1;
        } else {
            failed += 1;
        }
        let _ = lock(&terminal).say(&check.to_string());
    };
    let found: Result<(), VerifyError> = watched(&terminal, &control, || {
        if reference.is_none() {
            verify::oracles::run(setting, &control, &mut report)?;
        }
        verify::reference::run(&text, setting, &control, &mut report)
    })?;
    found?;
    say(&format!("\n{passed} passed, {failed} failed"))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(json: Option<&Path>, only: Option<&str>, scenario: Option<&str>) -> anyhow::Result<ExitCode> {
    if let Some(name) = scenario {
        say(&bench::one(name)?.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let program = std::env::current_exe().context("the path of this program")?;
    let figures = bench::all(&program, only, |name, value| {
        let number = |key: &str| value[key].as_f64().unwrap_or(f64::NAN);
        let _ = writeln!(
            std::io::stdout(),
            "{name:<24} {:>6.2} million events, {:>9.0} delivered per CPU second, {:>5.0} MiB, {:>5.1} CPU s",
            number("events_per_cpu_s") / 1e6,
            number("delivered_per_cpu_s"),
            number("rss_mib"),
            number("cpu_s"),
        );
    })?;
    if let Some(file) = json {
        std::fs::write(file, format!("{figures:#}\n")).with_context(|| file.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
