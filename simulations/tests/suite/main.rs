//! What a user of the simulator relies upon.

mod commands;
mod outcomes;
mod scenarios;
mod verification;

use tombola_sim::experiment::{self, Options, Outcome};
use tombola_sim::scenario::Scenario;
use tombola_sim::world::Control;

/// A scenario of 3 x 2 mixes and 40 clients, with `clients` and `run` as given.
fn scenario(clients: &str, run: &str) -> Scenario {
    let text = format!(
        "seed = 5\n[network]\nlayers = 3\nwidth = 2\ngateways = 2\n[mix]\ndelay = \"50ms\"\n[links]\ndelay = \"5ms\"\n\
         [clients]\ncount = 40\n{clients}\n[run]\n{run}\n"
    );
    Scenario::parse(&text).expect("a scenario")
}

const LOOPIX: &str = "emission = \"loopix\"\nmain_interval = \"500ms\"\nloop_interval = \"1s\"\ndrop_interval = \"2s\"\n\
                      user = { interval = \"1s\" }";
const SHORT: &str = "warm_up = \"1s\"\nmeasure = \"4s\"\nreplications = 4";

fn run(scenario: &Scenario) -> Outcome {
    experiment::run(scenario, &Options::default(), &Control::default()).expect("it can be run")
}
