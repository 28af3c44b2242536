//! Which epochs are in use when, by a table that was worked out by hand.

use std::time::Duration;

use tombola_topology::{EpochError, EpochNumber, Network, Phases, Role};

use crate::fixtures::{authority, draft, epoch};

/// M is 10 s, L is 3; epochs 4, 5 and 6 of an hour, from 1 014 400 on.
fn network() -> Network {
    let mut draft = draft();
    draft.parameters.max_delay = Duration::from_secs(10);
    draft.epochs.push(epoch(6, 2, &[2, 1, 1]));
    draft.sign(&authority()).unwrap()
}

const START: u64 = 1_014_400;
const HOUR: u64 = 3600;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(START + seconds)
}

fn used(network: &Network, now: Duration) -> (u64, Option<u64>) {
    let phases = Phases::at(network, now).unwrap();
    (phases.current.number().0, phases.old.map(|old| old.number().0))
}

#[test]
fn senders_begin_late_and_use_the_old_epoch_until_its_first_key_is_retired() {
    let network = network();
    let tick = Duration::from_nanos(1);
    for (now, expected) in [
        // The first epoch of a document is used at once.
        (at(0), (4, None)),
        (at(HOUR), (4, None)),
        (at(HOUR + 10) - tick, (4, None)),
        (at(HOUR + 10), (5, Some(4))),
        // 40 s before the end of epoch 5.
        (at(2 * HOUR - 40) - tick, (5, Some(4))),
        (at(2 * HOUR - 40), (5, None)),
        (at(2 * HOUR + 10) - tick, (5, None)),
        (at(2 * HOUR + 10), (6, Some(5))),
        (at(3 * HOUR - 40), (6, None)),
        (at(3 * HOUR) - tick, (6, None)),
    ] {
        assert_eq!(used(&network, now), expected, "at {now:?}");
    }
    let expired = Phases::at(&network, at(3 * HOUR));
    assert!(matches!(expired, Err(EpochError::Expired { .. })));
    assert!(matches!(Phases::at(&network, at(0) - tick), Err(EpochError::NotYet { .. })));
}

#[test]
fn keys_are_retired_layer_by_layer_and_the_slot_is_free_for_the_epoch_after_the_next() {
    let network = network();
    let window = |number, role| network.key_window(EpochNumber(number), role).unwrap();
    for (role, early) in [
        (Role::Mix { layer: 1 }, 30),
        (Role::Mix { layer: 2 }, 20),
        (Role::Mix { layer: 3 }, 10),
        (Role::Gateway, 0),
    ] {
        assert_eq!(window(4, role), at(0) - Duration::from_secs(early)..at(2 * HOUR - early), "{role:?}");
        assert_eq!(window(4, role).end, window(6, role).start, "the same slot");
        // The epoch after the last is not announced yet.
        assert_eq!(window(6, role).end, at(3 * HOUR));
        // Whoever sends finds the slot open, and every old packet leaves before the next layer retires its key.
        let senders = at(HOUR + 10);
        assert!(window(5, role).start < senders);
    }
    assert_eq!(network.key_window(EpochNumber(7), Role::Gateway), None);
    let five = network.epoch(EpochNumber(5)).unwrap();
    assert_eq!(network.link_window(five), at(HOUR - 40)..at(3 * HOUR));
    assert_eq!(network.death(five), at(3 * HOUR));
}

#[test]
fn between_two_changes_nothing_changes() {
    let network = network();
    let roles = [1, 2, 3].map(|layer| Role::Mix { layer }).into_iter().chain([Role::Gateway]);
    let state = |now: Duration| {
        let open: Vec<_> = network
            .epochs()
            .iter()
            .flat_map(|epoch| roles.clone().map(|role| network.key_window(epoch.number(), role).unwrap()))
            .map(|window| window.contains(&now))
            .collect();
        let linked: Vec<_> =
            network.epochs().iter().map(|epoch| network.link_window(epoch).contains(&now)).collect();
        (Phases::at(&network, now).ok(), open, linked)
    };
    let mut now = Duration::ZERO;
    let mut changes = 0;
    while let Some(next) = network.next_change(now) {
        assert!(next > now);
        assert_eq!(state(now), state(next - Duration::from_nanos(1)), "from {now:?} to {next:?}");
        changes += usize::from(state(now) != state(next));
        now = next;
    }
    assert_eq!(now, at(3 * HOUR));
    assert!(changes > 12, "{changes}");
}
