//! `cargo xtask soak`: kills processes of a running network in which every packet is paid for, for a long time, and checks that
//! nothing that was accepted is lost, doubled or replayed, and that every winning ticket is paid once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a tool of the tests: a panic says what is wrong"
)]

use std::time::Instant;

use serde_json::json;
use tombola_node::derive::random_bytes;
use tombola_tests::kills::{self, Plan};
use tombola_tests::replays::Bench;

/// Kills of the bench for replays: one in so many of all.
const BENCH_SHARE: u32 = 10;
/// Packets of each of its rounds.
const BENCH_PACKETS: u32 = 200;
/// Everything that was ever sent comes again in each round, so rounds are bounded.
const BENCH_ROUNDS: u32 = 30;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut kills, mut seed, mut file) = (300, u64::from_be_bytes(random_bytes().unwrap()) >> 16, None);
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--kills" => kills = value.parse().unwrap_or_else(|_| panic!("--kills {value}: not a number")),
            "--seed" => seed = value.parse().unwrap_or_else(|_| panic!("--seed {value}: not a number")),
            "--json" => file = Some(value),
            _ => panic!("{name}: there are --kills, --seed and --json"),
        }
    }
    let begun = Instant::now();
    println!("seed {seed}: {kills} kills; the same again with --seed {seed}");
    let outcome = kills::run_paid(&Plan::new(kills, seed), &mut |line| println!("{line}"));
    let totals = outcome.totals;
    let tickets = outcome.tickets.unwrap();
    println!(
        "everything has arrived {:.1} s after the last kill, and was paid; now a mix node by itself",
        outcome.settling.as_secs_f64()
    );
    let mut bench = Bench::start(seed);
    for _ in 0..(kills / BENCH_SHARE).clamp(1, BENCH_ROUNDS) {
        bench.round(BENCH_PACKETS);
    }
    let replays = bench.finish();

    let by_kind: Vec<String> = outcome.kills.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    println!(
        "\n  kills              {}, and {} of the mix node by itself",
        by_kind.join(", "),
        replays.kills
    );
    println!(
        "  accepted           {} messages, of them {} answers and {} files",
        totals.messages, totals.replies, totals.files
    );
    println!("  lost, doubled      0, 0");
    println!("  came again         {} after a kill of the recipient, marked as such", totals.again);
    println!("  sent again         {} packets", totals.retransmissions);
    println!(
        "  tickets            {} signed, {} opened, {} have won, {} were paid on the chain, {} lost",
        tickets.issued, tickets.opened, tickets.won, tickets.redeemed, tickets.lost
    );
    println!(
        "  paid               {} = expected {}, in the smallest unit of the token",
        tickets.paid, tickets.expected_paid
    );
    println!(
        "  replays            {} of {} frames refused; none of {} packets left the node twice",
        replays.refused, replays.repeated, replays.packets
    );
    println!("  duration           {:.0} s", begun.elapsed().as_secs_f64());
    if let Some(file) = file {
        let report = json!({
            "seed": seed,
            "kills": outcome.kills,
            "messages": {
                "accepted": totals.messages, "replies": totals.replies, "files": totals.files,
                "lost": 0, "doubled": 0, "again": totals.again,
                "unconfirmed": totals.unconfirmed, "unanswered": totals.unanswered,
            },
            "retransmissions": totals.retransmissions,
            "tickets": tickets,
            "replays": {
                "kills": replays.kills, "packets": replays.packets, "repeated": replays.repeated,
                "refused": replays.refused, "late": replays.late, "left_twice": 0,
            },
            "under_fire_s": outcome.under_fire.as_secs_f64(),
            "settling_s": outcome.settling.as_secs_f64(),
            "duration_s": begun.elapsed().as_secs_f64(),
        });
        std::fs::write(&file, serde_json::to_string_pretty(&report).unwrap() + "\n")
            .unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}
