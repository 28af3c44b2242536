//! A run is a function of its seed, and of nothing else.

use core::time::Duration;

use tombola_mixing::Time;

use crate::common::{Net, Place, Setup, Sighting};

const END: Time = Time::from_nanos(2_000_000_000);

fn start(seed: u64) -> Net {
    let mut setup = Setup::new(seed);
    setup.accounts = 1;
    setup.parameters.mean_delay = Duration::from_millis(100);
    Net::new(setup)
}

fn run(mut net: Net, step: Duration) -> Net {
    net.watch();
    net.send_message(0, 1, &[1; 10_000]);
    net.send_message(1, 0, b"short");
    while net.now < END {
        net.run_until(END.min(net.now + step));
    }
    net
}

#[test]
fn the_same_seed_gives_the_same_frames_on_the_same_links_at_the_same_instants() {
    let whole = run(start(120), Duration::from_secs(10));
    let again = run(start(120), Duration::from_micros(1900));
    assert!(whole.seen.len() > 1000);
    assert!(whole.seen == again.seen, "how often somebody looks changes nothing");
    let other = run(start(121), Duration::from_secs(10));
    let count = whole.seen.iter().filter(|seen| other.seen.contains(seen)).count();
    assert_eq!(count, 0, "another seed has no frame in common, at no instant");
}

#[test]
fn a_machine_that_never_works_ahead_emits_at_the_same_instants() {
    let ahead = run(start(122), Duration::from_secs(10));
    let mut lazy = start(122);
    lazy.lazy = true;
    let lazy = run(lazy, Duration::from_secs(10));
    let instants = |net: &Net| -> Vec<_> {
        let of_clients = |seen: &&Sighting| !matches!(seen.from, Place::Node(_));
        net.seen.iter().filter(of_clients).map(|seen| (seen.sent, seen.from)).collect()
    };
    assert!(instants(&ahead).len() > 300);
    assert_eq!(instants(&ahead), instants(&lazy));
    assert_eq!((lazy.inbox(0).len(), lazy.inbox(1).len()), (1, 1));
}
