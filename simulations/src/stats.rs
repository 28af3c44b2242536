//! Intervals, tests of fit, and the end of the warm-up.

use statrs::distribution::{ChiSquared, ContinuousCDF as _, StudentsT};

use crate::metrics::Moments;

/// A mean with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Of the values of replications or batches.
    pub mean: f64,
    /// Standard deviation of the mean; `None` for fewer than two values.
    pub standard_error: Option<f64>,
    /// Half the width of the interval; `None` for fewer than two values.
    pub half_width: Option<f64>,
    /// How many values.
    pub count: u64,
}

impl Estimate {
    /// The interval of Student's distribution around the mean of independent values; `None` without any.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = f64>, confidence: f64) -> Option<Self> {
        Self::of(&values.into_iter().collect(), confidence)
    }

    /// The same of values that are summed up already.
    #[must_use]
    pub fn of(moments: &Moments, confidence: f64) -> Option<Self> {
        let mean = moments.mean()?;
        let standard_error = moments.variance().map(|variance| (variance / moments.count() as f64).sqrt());
        let half_width = standard_error.and_then(|error| {
            let student = StudentsT::new(0.0, 1.0, (moments.count() - 1) as f64).ok()?;
            Some(error * student.inverse_cdf(0.5 + confidence / 2.0))
        });
        Some(Self { mean, standard_error, half_width, count: moments.count() })
    }
}

/// Correlation of each value with the next one (lag 1); `None` for fewer than ten values, or if all are the same.
#[must_use]
pub fn serial_correlation(values: &[f64]) -> Option<f64> {
    let moments: Moments = values.iter().copied().collect();
    let (mean, variance) = (moments.mean()?, moments.variance()?);
    let products: f64 = values.windows(2).map(|two| (two[0] - mean) * (two[1] - mean)).sum();
    let correlation = products / (variance * (moments.count() - 1) as f64);
    (moments.count() >= 10 && correlation.is_finite()).then_some(correlation)
}

/// Whether so great a [`serial_correlation`] of so many values hardly occurs among independent ones: once in two hundred times
/// (its mean is then -1/n, its variance 1/n; Bartlett, "On the theoretical specification and sampling properties of
/// autocorrelated time-series", 1946).
#[must_use]
pub fn is_correlated(correlation: f64, values: u64) -> bool {
    let n = values as f64;
    (correlation + 1.0 / n) * n.sqrt() > 2.576
}

/// The probability of a deviation as great as that of these counts from the expected ones (Pearson's chi-square test).
/// Neighbouring cells are put together until each expects ten; `parameters` were estimated from the same counts. Zero if that
/// leaves too few cells to compare: nothing fits for want of data.
#[must_use]
pub fn chi_square(observed: &[f64], expected: &[f64], parameters: usize) -> f64 {
    let mut cells: Vec<(f64, f64)> = Vec::new();
    let mut open = (0.0, 0.0);
    for (observed, expected) in observed.iter().zip(expected) {
        open = (open.0 + observed, open.1 + expected);
        if open.1 >= 10.0 {
            cells.push(core::mem::take(&mut open));
        }
    }
    if let Some(last) = cells.last_mut() {
        *last = (last.0 + open.0, last.1 + open.1);
    }
    let freedom = cells.len().saturating_sub(1 + parameters);
    if freedom == 0 {
        return 0.0;
    }
    let statistic: f64 =
        cells.iter().map(|(observed, expected)| (observed - expected).powi(2) / expected).sum();
    ChiSquared::new(freedom as f64).map_or(0.0, |distribution| distribution.sf(statistic))
}

/// The probability that a sample of the distribution `cdf` deviates from it as much as this one (Kolmogorov's test, with
/// Stephens' correction for the size, 1970). Zero of an empty one.
#[must_use]
pub fn kolmogorov(sample: &mut [f64], cdf: impl Fn(f64) -> f64) -> f64 {
    sample.sort_by(f64::total_cmp);
    if sample.is_empty() {
        return 0.0;
    }
    let size = sample.len() as f64;
    let distance = sample.iter().zip(0_u32..).fold(0.0_f64, |greatest, (&value, rank)| {
        let (below, at) = (f64::from(rank) / size, (f64::from(rank) + 1.0) / size);
        let expected = cdf(value);
        greatest.max(expected - below).max(at - expected)
    });
    let x = distance * (size.sqrt() + 0.12 + 0.11 / size.sqrt());
    if x < 0.3 {
        return 1.0;
    }
    let term = |k: i32| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k).powi(2) * x * x).exp()
    };
    (1..100).map(term).sum::<f64>().clamp(0.0, 1.0)
}

/// How many values at the beginning of a series belong to the warm-up: what to leave out so that the rest has the least
/// standard error, of means of five (MSER-5; White, "An effective truncation heuristic for bias reduction in simulation
/// output", 1997). `None` if that is more than half, or nothing ever changes: the series is too short to tell.
#[must_use]
pub fn warm_up(series: &[f64]) -> Option<usize> {
    let means: Vec<f64> = series.chunks_exact(5).map(|five| five.iter().sum::<f64>() / 5.0).collect();
    if means.iter().all(|mean| *mean == means[0]) {
        return None;
    }
    let error_without = |first: usize| {
        let rest: Moments = means[first..].iter().copied().collect();
        rest.variance().map(|variance| variance / rest.count() as f64)
    };
    // What little is left at the end has a small error by chance.
    let candidates =
        (0..means.len().saturating_sub(5)).filter_map(|first| Some((error_without(first)?, first)));
    let (_, first) = candidates.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (first <= means.len() / 2).then_some(5 * first)
}

#[cfg(test)]
mod tests {
    use tombola_mixing::Rng;

    use super::*;

    fn uniform(rng: &mut Rng) -> f64 {
        rng.next_u64() as f64 / 2.0_f64.powi(64)
    }

    #[test]
    fn intervals_are_those_of_student() {
        let estimate = Estimate::new([1.0, 2.0, 3.0, 4.0, 5.0], 0.95).unwrap();
        assert_eq!((estimate.mean, estimate.count), (3.0, 5));
        // t(0.975; 4) = 2.776445, s = sqrt(2.5).
        assert!((estimate.half_width.unwrap() - 2.776_445 * (2.5_f64 / 5.0).sqrt()).abs() < 1e-5);
        assert_eq!(Estimate::new([7.0], 0.95).unwrap().half_width, None);
        assert_eq!(Estimate::new([], 0.95), None);
    }

    #[test]
    fn intervals_cover_the_truth_as_often_as_they_say() {
        let mut rng = Rng::from_seed([1; 32]);
        let covered = (0..4000)
            .filter(|_| {
                let sample: Vec<f64> = (0..10).map(|_| uniform(&mut rng)).collect();
                let estimate = Estimate::new(sample, 0.9).unwrap();
                (estimate.mean - 0.5).abs() <= estimate.half_width.unwrap()
            })
            .count();
        // 3600 expected, 19 is a standard deviation.
        assert!((3500..3700).contains(&covered), "{covered}");
    }

    #[test]
    fn tests_of_fit_accept_what_fits_and_refuse_what_does_not() {
        let mut rng = Rng::from_seed([2; 32]);
        let mut low = [0; 2];
        for _ in 0..400 {
            let mut sample: Vec<f64> = (0..500).map(|_| uniform(&mut rng)).collect();
            let mut counts = [0.0; 20];
            sample.iter().for_each(|value| counts[(value * 20.0) as usize] += 1.0);
            low[0] += u32::from(chi_square(&counts, &[25.0; 20], 0) < 0.1);
            low[1] += u32::from(kolmogorov(&mut sample, |value| value) < 0.1);
        }
        // 40 expected, 6 is a standard deviation.
        assert!(low.iter().all(|low| (16..64).contains(low)), "{low:?}");
        let mut skewed: Vec<f64> = (0..500).map(|_| uniform(&mut rng).powf(1.3)).collect();
        assert!(kolmogorov(&mut skewed, |value| value) < 1e-3);
        assert!(chi_square(&[30.0, 20.0, 30.0, 45.0], &[25.0, 25.0, 25.0, 50.0], 0) > 0.05);
        assert!(chi_square(&[300.0, 200.0, 300.0, 450.0], &[250.0, 250.0, 250.0, 500.0], 0) < 1e-6);
    }

    #[test]
    fn too_few_counts_fit_nothing() {
        assert_eq!(chi_square(&[9.0], &[9.0], 0), 0.0);
        assert_eq!(chi_square(&[30.0, 40.0], &[35.0, 35.0], 1), 0.0);
        assert_eq!(chi_square(&[], &[], 0), 0.0);
        assert!(chi_square(&[30.0, 40.0], &[35.0, 35.0], 0) > 0.1);
        let mut all: Vec<f64> = Vec::new();
        assert_eq!(kolmogorov(&mut all, |value| value), 0.0);
    }

    #[test]
    fn dependent_values_are_noticed_and_independent_ones_are_not() {
        assert_eq!(serial_correlation(&[1.0; 20]), None);
        assert_eq!(serial_correlation(&[1.0, 2.0, 3.0]), None);
        let alternating: Vec<f64> = (0..100).map(|at| f64::from(at % 2)).collect();
        assert!((serial_correlation(&alternating).unwrap() + 0.99).abs() < 1e-9);
        let mut rng = Rng::from_seed([4; 32]);
        let mut noticed = [0; 2];
        for _ in 0..1000 {
            let mut last = 0.0;
            for (noticed, memory) in noticed.iter_mut().zip([0.0, 0.8]) {
                let next = |_| {
                    last = memory * last + uniform(&mut rng);
                    last
                };
                let values: Vec<f64> = (0..40).map(next).collect();
                let correlation = serial_correlation(&values).unwrap();
                *noticed += u32::from(is_correlated(correlation, 40));
            }
        }
        // Five of a thousand by chance.
        assert!(noticed[0] < 15 && noticed[1] > 900, "{noticed:?}");
    }

    #[test]
    fn the_warm_up_is_found() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut series = |rise: f64, length: usize| -> Vec<f64> {
            (0..length)
                .map(|at| 100.0 * (1.0 - (-(at as f64) / rise).exp()) + uniform(&mut rng) * 10.0)
                .collect()
        };
        let found = warm_up(&series(20.0, 400)).unwrap();
        assert!((50..150).contains(&found), "{found}");
        assert!(warm_up(&series(1e-9, 400)).unwrap() < 100);
        assert_eq!(warm_up(&series(300.0, 400)), None);
        assert_eq!(warm_up(&[0.0; 400]), None);
    }
}
