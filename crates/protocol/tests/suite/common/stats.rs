//! The one goodness-of-fit test that is needed here.

/// The least p value that passes. A sound network with an unlucky seed falls below it once in 10 000 tests.
pub(crate) const P_MIN: f64 = 1e-4;

/// Kolmogorov and Smirnov: the p value of `sample` under the exponential distribution with this mean, by the asymptotic
/// series with Stephens's correction for n (Numerical Recipes, 14.3.3).
pub(crate) fn is_exponential(sample: &[f64], mean: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let distance = sorted.iter().enumerate().fold(0.0_f64, |distance, (rank, x)| {
        let p = 1.0 - (-x / mean).exp();
        distance.max(p - rank as f64 / n).max((rank + 1) as f64 / n - p)
    });
    let lambda = (n.sqrt() + 0.12 + 0.11 / n.sqrt()) * distance;
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |k: i32| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k * k) * lambda * lambda).exp()
    };
    (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0)
}

#[test]
fn the_test_can_fail() {
    let quantile = |i: u32| -(1.0 - (f64::from(i) + 0.5) / 5000.0_f64).ln();
    let ideal: Vec<_> = (0..5000).map(quantile).collect();
    assert!(is_exponential(&ideal, 1.0) > 0.99);
    assert!(is_exponential(&ideal, 1.1) < P_MIN, "a mean that is 10 % off");
    let rounded: Vec<_> = ideal.iter().map(|x| (x * 4.0).floor() / 4.0).collect();
    assert!(is_exponential(&rounded, 1.0) < P_MIN, "delays in steps of a quarter");
    let clamped: Vec<_> = ideal.iter().map(|x| x.min(2.0)).collect();
    assert!(is_exponential(&clamped, 1.0) < P_MIN, "delays cut off at two means");
}
