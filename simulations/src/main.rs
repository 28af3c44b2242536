//! The program `tombola-sim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tombola_sim::cli::main()
}
