//! Instants never wrap.

use core::time::Duration;

use proptest::prelude::*;
use tombola_mixing::Time;

proptest! {
    #[test]
    fn arithmetic_saturates(nanos in any::<u64>(), seconds in any::<u64>(), below in 0..1_000_000_000_u32) {
        let time = Time::from_nanos(nanos);
        let duration = Duration::new(seconds, below);
        let exact = u128::from(nanos) + duration.as_nanos();
        prop_assert_eq!(u128::from((time + duration).as_nanos()), exact.min(u128::from(u64::MAX)));
        let exact = u128::from(nanos).saturating_sub(duration.as_nanos());
        prop_assert_eq!(u128::from((time - duration).as_nanos()), exact);
        let mut sum = time;
        sum += duration;
        prop_assert_eq!(sum, time + duration);
    }

    #[test]
    fn differences_are_never_negative(a in any::<u64>(), b in any::<u64>()) {
        let (a, b) = (Time::from_nanos(a.min(b)), Time::from_nanos(a.max(b)));
        prop_assert_eq!(a + (b - a), b);
        prop_assert_eq!(a - b, Duration::ZERO);
        prop_assert!(Time::ZERO <= a && a <= b && b <= Time::MAX);
    }
}

#[test]
fn instants_print_as_seconds() {
    assert_eq!(format!("{:?}", Time::from_nanos(1_500_000_007)), "Time(1.500000007s)");
    assert_eq!(format!("{:?}", Time::MAX), "Time(never)");
}
