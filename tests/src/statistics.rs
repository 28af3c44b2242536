//! Two-sample tests: could these have come from the same source?

/// Probability of a difference of at least this size between two samples of one continuous distribution
/// (Kolmogorov-Smirnov, asymptotic).
pub fn kolmogorov_smirnov(a: &[f64], b: &[f64]) -> f64 {
    let sorted = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values
    };
    let (a, b) = (sorted(a), sorted(b));
    let (mut i, mut j, mut distance) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        let next = a[i].min(b[j]);
        while i < a.len() && a[i] <= next {
            i += 1;
        }
        while j < b.len() && b[j] <= next {
            j += 1;
        }
        distance = distance.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    let effective = (a.len() * b.len()) as f64 / (a.len() + b.len()) as f64;
    let lambda = (effective.sqrt() + 0.12 + 0.11 / effective.sqrt()) * distance;
    if lambda < 0.2 {
        return 1.0;
    }
    let term =
        |k: i32| f64::from(1 - 2 * (k.rem_euclid(2) ^ 1)) * (-2.0 * f64::from(k * k) * lambda * lambda).exp();
    (2.0 * (1..100).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

/// Probability of counts that differ at least so much, if both rows come from one distribution over the columns
/// (chi-square test of homogeneity). Columns in which fewer than 10 are counted are put together.
pub fn homogeneity(rows: &[(u64, u64)]) -> f64 {
    let (mut columns, mut rare) = (Vec::new(), (0, 0));
    for &(a, b) in rows {
        if a + b >= 10 {
            columns.push((a, b));
        } else {
            rare = (rare.0 + a, rare.1 + b);
        }
    }
    if rare.0 + rare.1 >= 10 {
        columns.push(rare);
    }
    let total = columns.iter().fold((0.0, 0.0), |sum, &(a, b)| (sum.0 + a as f64, sum.1 + b as f64));
    let all = total.0 + total.1;
    if columns.len() < 2 || total.0 == 0.0 || total.1 == 0.0 {
        return 1.0;
    }
    let statistic: f64 = columns
        .iter()
        .map(|&(a, b)| {
            let share = (a + b) as f64 / all;
            let part = |found: u64, total: f64| (found as f64 - share * total).powi(2) / (share * total);
            part(a, total.0) + part(b, total.1)
        })
        .sum();
    let freedom = (columns.len() - 1) as f64;
    // Wilson and Hilferty (1931): the cube root of chi-square over its degrees of freedom is nearly normal.
    let spread = 2.0 / (9.0 * freedom);
    normal_tail(((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt())
}

/// Probability of more than `z` under the standard normal distribution (Abramowitz and Stegun 7.1.26).
fn normal_tail(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let coefficients = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let polynomial = coefficients.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    let tail = polynomial * (-x * x).exp() / 2.0;
    if z > 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exponential gaps from a counter: the test has the same data always.
    fn gaps(mean: f64, seed: u64) -> Vec<f64> {
        let mut state = seed;
        (0..800)
            .map(|_| {
                // Knuth's multiplier; the upper half of the state is good enough.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                -mean * (((state >> 33) as f64 + 0.5) / f64::from(1_u32 << 31)).ln()
            })
            .collect()
    }

    #[test]
    fn what_is_alike_passes_and_what_differs_does_not() {
        assert!(kolmogorov_smirnov(&gaps(20.0, 1), &gaps(20.0, 2)) > 0.01);
        assert!(kolmogorov_smirnov(&gaps(20.0, 1), &gaps(30.0, 2)) < 1e-6);
        assert!(homogeneity(&[(400, 390), (300, 310), (12, 9), (3, 2)]) > 0.1);
        assert!(homogeneity(&[(400, 300), (300, 400)]) < 1e-4);
        assert!((homogeneity(&[(5, 3)]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn known_quantiles() {
        assert!((normal_tail(1.959_964) - 0.025).abs() < 1e-5);
        assert!((normal_tail(-1.0) - 0.841_345).abs() < 1e-5);
        // 95 % quantile of chi-square with 1 degree of freedom: 3.841, here 2 x 2 x (a^2 / 100).
        let p = homogeneity(&[(590, 550), (410, 450)]);
        assert!((0.03..0.12).contains(&p), "{p}");
    }
}
