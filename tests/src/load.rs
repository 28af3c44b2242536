//! A mix node under load: a real one, in a process of its own, between two more processes that play all of its neighbours;
//! and a whole network between many clients.
//!
//! One process plays the mix nodes of the layer before ([`player`]): it builds packets ahead and sends them at a given rate. The
//! other plays those of the layer behind, opens what comes and notes when. Both keep links, accounts on a chain for
//! development and stores of tickets as real nodes do, so that the node in between does everything that it does in a network.

pub mod crowd;
pub mod measure;
pub mod network;
pub mod player;
pub mod stage;

use std::io::BufRead;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock};

use tokio::sync::mpsc;

/// The program that plays neighbours and clients: the one that `TOMBOLA_LOAD_BIN` names, else one that is built first, for
/// release: a slow one would measure itself.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<std::path::PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| crate::program("TOMBOLA_LOAD_BIN", "tombola-tests", "tombola-load"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// The lines of standard input.
fn read_commands() -> mpsc::UnboundedReceiver<String> {
    let (lines, commands) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    commands
}
