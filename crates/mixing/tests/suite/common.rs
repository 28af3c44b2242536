//! Two goodness-of-fit tests with their p values.

use core::time::Duration;

/// The least p value that passes. A sound generator with an unlucky seed falls below it once in 10 000 tests.
pub(crate) const P_MIN: f64 = 1e-4;

/// What a test with a planted defect must fall below.
pub(crate) const P_DEFECT: f64 = 1e-9;

pub(crate) fn seed(n: u8) -> [u8; 32] {
    [n; 32]
}

pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Kolmogorov and Smirnov: the p value of the greatest distance between `sample` and the distribution function
/// `cdf`, by the asymptotic series with Stephens's correction for n (Numerical Recipes, 14.3.3).
pub(crate) fn kolmogorov_smirnov(sample: &[f64], cdf: impl Fn(f64) -> f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let distance = sorted.iter().enumerate().fold(0.0_f64, |distance, (rank, &x)| {
        let p = cdf(x);
        distance.max(p - rank as f64 / n).max((rank + 1) as f64 / n - p)
    });
    let lambda = (n.sqrt() + 0.12 + 0.11 / n.sqrt()) * distance;
    if lambda < 0.2 {
        return 1.0;
    }
    let series: f64 = (1..=100)
        .map(|k| {
            let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
            sign * (-2.0 * f64::from(k * k) * lambda * lambda).exp()
        })
        .sum();
    series.clamp(0.0, 1.0)
}

/// The p value of `sample` under the exponential distribution with this mean, both in seconds.
pub(crate) fn is_exponential(sample: &[f64], mean: f64) -> f64 {
    kolmogorov_smirnov(sample, |x| 1.0 - (-x / mean).exp())
}

/// Pearson's chi-square: the p value of `observed` counts under equal probabilities.
pub(crate) fn is_uniform(observed: &[u64]) -> f64 {
    let expected = observed.iter().sum::<u64>() as f64 / observed.len() as f64;
    assert!(expected >= 5.0, "too few observations for a chi-square test");
    let statistic: f64 = observed.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    chi_square_p(statistic, (observed.len() - 1) as f64)
}

/// The p value of the hypothesis that the rows of a table of counts have the same distribution.
pub(crate) fn is_homogeneous<const COLUMNS: usize>(rows: &[[u64; COLUMNS]]) -> f64 {
    let total: u64 = rows.iter().flatten().sum();
    let mut statistic = 0.0;
    for row in rows {
        for column in 0..COLUMNS {
            let column_sum: u64 = rows.iter().map(|row| row[column]).sum();
            let expected = row.iter().sum::<u64>() as f64 * column_sum as f64 / total as f64;
            assert!(expected >= 5.0, "too few observations for a chi-square test");
            statistic += (row[column] as f64 - expected).powi(2) / expected;
        }
    }
    chi_square_p(statistic, ((rows.len() - 1) * (COLUMNS - 1)) as f64)
}

/// The dispersion test: the two-sided p value of independent `counts` being Poisson with one mean. (Variance over
/// mean, the index of dispersion, is 1 for Poisson; n - 1 times it is chi-square with n - 1 degrees of freedom.)
pub(crate) fn is_poisson(counts: &[u64]) -> f64 {
    let n = counts.len() as f64;
    let mean = counts.iter().sum::<u64>() as f64 / n;
    let statistic = counts.iter().map(|&count| (count as f64 - mean).powi(2)).sum::<f64>() / mean;
    let upper = chi_square_p(statistic, n - 1.0);
    2.0 * upper.min(1.0 - upper)
}

/// The probability that a chi-square variable with this many degrees of freedom exceeds `statistic`: the
/// regularised incomplete gamma function Q(degrees / 2, statistic / 2) (Numerical Recipes, 6.2).
fn chi_square_p(statistic: f64, degrees: f64) -> f64 {
    let (a, x) = (degrees / 2.0, statistic / 2.0);
    if x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let mut term = 1.0 / a;
        let mut sum = term;
        for k in 1..100_000 {
            term *= x / (a + f64::from(k));
            sum += term;
            if term < sum * 1e-15 {
                break;
            }
        }
        return 1.0 - front * sum;
    }
    let mut b = x + 1.0 - a;
    let mut c = 1e300;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for k in 1..100_000 {
        let factor = -f64::from(k) * (f64::from(k) - a);
        b += 2.0;
        d = 1.0 / (factor * d + b);
        c = b + factor / c;
        fraction *= c * d;
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// Stirling's series, after raising the argument above 10.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    shift + (x - 0.5) * x.ln() - x + 0.5 * core::f64::consts::TAU.ln() + series
}

#[test]
fn p_values_agree_with_tables() {
    // 5 % and 0.1 % points of chi-square.
    for (statistic, degrees, p) in
        [(3.841, 1.0, 0.05), (35.172, 23.0, 0.05), (49.728, 23.0, 0.001), (1074.679, 1000.0, 0.05)]
    {
        assert!((chi_square_p(statistic, degrees) / p - 1.0).abs() < 2e-3, "{statistic} {degrees}");
    }
    assert!((chi_square_p(10.0, 23.0) - 0.9912).abs() < 1e-3);
    // A sample whose distance from uniform is 1.358 / sqrt(n): the 5 % point of Kolmogorov's distribution.
    let n = 1_000_000;
    let shift = 1.358 / f64::from(n).sqrt();
    let sample: Vec<f64> = (0..n).map(|i| (f64::from(i) + 0.5) / f64::from(n) - shift).collect();
    let p = kolmogorov_smirnov(&sample, |x| x.clamp(0.0, 1.0));
    assert!((p - 0.05).abs() < 1e-3, "{p}");
}
