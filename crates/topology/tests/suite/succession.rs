//! What a new document may change, and what not.

use std::time::Duration;

use tombola_topology::{AuthoritySecret, Draft, EpochNumber, Network, Refusal, SphinxKey, UnixTime};

use crate::fixtures::{authority, draft, epoch};

/// Within epoch 4; epoch 5 begins at 1 018 000 and ends at 1 021 600.
const NOW: UnixTime = UnixTime(1_016_000);
const IN_5: UnixTime = UnixTime(1_018_000);
const AFTER_5: UnixTime = UnixTime(1_021_600);

fn sign(draft: &Draft) -> Network {
    draft.sign(&authority()).unwrap()
}

/// What becomes of the second document after the first.
fn changed(now: UnixTime, change: impl FnOnce(&mut Draft)) -> Result<(), Refusal> {
    let old = sign(&draft());
    let mut next = draft();
    next.serial += 1;
    change(&mut next);
    sign(&next).succeeds(&old, now)
}

#[test]
fn what_is_to_come_may_change() {
    assert_eq!(changed(NOW, |_| {}), Ok(()));
    assert_eq!(changed(NOW, |next| next.epochs.push(epoch(6, 2, &[2, 1, 1]))), Ok(()));
    assert_eq!(changed(NOW, |next| next.epochs[1] = epoch(5, 3, &[3, 2, 1])), Ok(()));
    assert_eq!(changed(NOW, |next| drop(next.epochs.pop())), Ok(()));
    let same = sign(&draft());
    assert_eq!(same.succeeds(&same, NOW), Ok(()));
    assert_eq!(changed(NOW, |next| next.serial = 1 << 40), Ok(()));
}

#[test]
fn an_epoch_goes_when_its_keys_are_dead_and_not_before() {
    let drop_4 = |next: &mut Draft| {
        next.epochs.remove(0);
        next.epochs.push(epoch(6, 2, &[2, 1, 1]));
    };
    assert_eq!(changed(NOW, drop_4), Err(Refusal::EpochMissing(EpochNumber(4))));
    assert_eq!(changed(UnixTime(AFTER_5.0 - 1), drop_4), Err(Refusal::EpochMissing(EpochNumber(4))));
    assert_eq!(changed(AFTER_5, drop_4), Ok(()));
    // A dead epoch that is there is what it was.
    let falsify = |next: &mut Draft| next.epochs[0].nodes[0].addresses[0] += "/p2p-circuit";
    assert_eq!(changed(AFTER_5, falsify), Err(Refusal::EpochChanged(EpochNumber(4))));
}

#[test]
fn an_epoch_that_has_begun_stays_as_it_is() {
    for change in [
        |next: &mut Draft| drop(next.epochs[1].nodes.pop()),
        |next: &mut Draft| next.epochs[1].valid_until.0 += 1,
        |next: &mut Draft| next.epochs[1].nodes[0].sphinx_key = SphinxKey::from_bytes([9; 32]),
        |next: &mut Draft| next.epochs[1].nodes[0].addresses.push("/ip4/127.0.0.1/tcp/1".into()),
        |next: &mut Draft| next.epochs[1].nodes.swap(0, 1),
    ] {
        // The document has one mix node in layers 2 and 3 only: another one takes the place of one that goes.
        let change = |next: &mut Draft| {
            next.epochs[1] = epoch(5, 3, &[3, 2, 2]);
            change(next);
        };
        let wide = |change: &dyn Fn(&mut Draft), now| {
            let mut first = draft();
            first.epochs[1] = epoch(5, 3, &[3, 2, 2]);
            let mut next = first.clone();
            next.serial += 1;
            change(&mut next);
            sign(&next).succeeds(&sign(&first), now)
        };
        assert_eq!(wide(&change, UnixTime(IN_5.0 - 1)), Ok(()));
        assert_eq!(wide(&change, IN_5), Err(Refusal::EpochChanged(EpochNumber(5))));
    }
    assert_eq!(changed(IN_5, |next| drop(next.epochs.pop())), Err(Refusal::EpochMissing(EpochNumber(5))));
}

#[test]
fn no_other_network_no_older_document_and_no_second_one() {
    let old = sign(&draft());
    let mut next = draft();
    next.serial += 1;
    let other = AuthoritySecret::from_seed([1; 32]);
    assert_eq!(
        next.sign(&other).unwrap().succeeds(&old, NOW),
        Err(Refusal::OtherAuthority { expected: authority().key(), found: other.key() })
    );
    let named = changed(NOW, |next| next.name = "test-net.2".into());
    assert!(matches!(named, Err(Refusal::OtherName { .. })), "{named:?}");
    assert_eq!(changed(NOW, |next| next.serial = 6), Err(Refusal::Older { expected: 7, found: 6 }));
    let second = changed(NOW, |next| {
        next.serial = 7;
        next.epochs.pop();
    });
    assert!(matches!(second, Err(Refusal::Equivocation { serial: 7, .. })), "{second:?}");
    assert_eq!(
        changed(NOW, |next| next.parameters.loop_interval += Duration::from_millis(1)),
        Err(Refusal::Parameters)
    );
}

#[test]
fn a_key_of_an_epoch_that_has_gone_does_not_come_back() {
    let back = |next: &mut Draft| {
        let key = next.epochs.remove(0).nodes[2].sphinx_key;
        next.epochs.push(epoch(6, 2, &[2, 1, 1]));
        next.epochs[1].nodes[1].sphinx_key = key;
    };
    assert_eq!(changed(AFTER_5, back), Err(Refusal::KeyReused { epoch: EpochNumber(6), node: 1 }));
}
