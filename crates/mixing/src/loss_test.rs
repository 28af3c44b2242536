//! Wald's sequential test for packet loss.

/// A sequential probability ratio test (Wald, "Sequential tests of statistical hypotheses", 1945) between two loss
/// fractions: the ordinary one, `p0`, and one that deserves an alarm, `p1`.
///
/// Loops are looked at one by one, in the order in which they were sent. Each adds ln(p1/p0) to a sum if it was
/// lost and ln((1-p1)/(1-p0)) if it came back. The test ends with an alarm when the sum reaches
/// ln((1-beta)/alpha), and with "healthy" when it falls to ln(beta/(1-alpha)); then the next one starts. `alpha`
/// is the chance that one such round ends with an alarm although the loss is `p0`, `beta` that it ends without one
/// although the loss is `p1`.
///
/// How soon which loss is noticed: see [`LossTest::standard`] for its parameters, [`LossTest::alarm_probability`] and
/// [`LossTest::expected_loops`] for others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossTest {
    /// ln(p1/p0) > 0.
    on_loss: f64,
    /// ln((1-p1)/(1-p0)) < 0.
    on_return: f64,
    /// ln((1-beta)/alpha) > 0.
    alarm_at: f64,
    /// ln(beta/(1-alpha)) < 0.
    healthy_at: f64,
}

/// What the latest round of a [`LossTest`] said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// No round has ended yet.
    #[default]
    Undecided,
    /// The loss is nearer to the ordinary one.
    Healthy,
    /// The loss is nearer to the one that deserves an alarm, or above.
    Alarm,
}

/// Why a [`LossTest`] cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum LossTestError {
    /// The loss fractions are not in order.
    #[error("loss fractions must satisfy 0 < p0 < p1 < 1, not p0 = {p0}, p1 = {p1}")]
    Fractions {
        /// Ordinary loss.
        p0: f64,
        /// Loss that deserves an alarm.
        p1: f64,
    },
    /// The error probabilities are not usable.
    #[error("error probabilities must be above 0 and below 0.5, not alpha = {alpha}, beta = {beta}")]
    Errors {
        /// Of a false alarm.
        alpha: f64,
        /// Of a missed one.
        beta: f64,
    },
}

impl LossTest {
    /// A test of `p0` against `p1` with error probabilities `alpha` (false alarm) and `beta` (missed alarm) in each
    /// round.
    ///
    /// # Errors
    ///
    /// Unless 0 < p0 < p1 < 1 and both error probabilities lie between 0 and 0.5.
    pub fn new(p0: f64, p1: f64, alpha: f64, beta: f64) -> Result<LossTest, LossTestError> {
        if !(0.0 < p0 && p0 < p1 && p1 < 1.0) {
            return Err(LossTestError::Fractions { p0, p1 });
        }
        let usable = |error: f64| 0.0 < error && error < 0.5;
        if !(usable(alpha) && usable(beta)) {
            return Err(LossTestError::Errors { alpha, beta });
        }
        Ok(LossTest {
            on_loss: (p1 / p0).ln(),
            on_return: ((1.0 - p1) / (1.0 - p0)).ln(),
            alarm_at: ((1.0 - beta) / alpha).ln(),
            healthy_at: (beta / (1.0 - alpha)).ln(),
        })
    }

    /// 1 % against 10 %, one false alarm in 10^6 rounds, one missed in 1000.
    ///
    /// What it does, exactly (not by Wald's approximations). The last column is the mean number of loops from the
    /// beginning of a round to an alarm, in seconds if one loop is sent per second:
    ///
    /// | loss | rounds that end with an alarm | loops per round | loops until an alarm |
    /// |---|---|---|---|
    /// | 0 % | 0 | 73 | never |
    /// | 1 % | 4.7e-7 | 97 | 2.1e8 (6.6 years) |
    /// | 2 % | 3.8e-4 | 147 | 3.8e5 (4.4 days) |
    /// | 3 % | 2.7 % | 273 | 1.0e4 (2.8 hours) |
    /// | 5 % | 77.4 % | 396 | 512 |
    /// | 10 % | 99.9 % | 102 | 102 |
    /// | 20 % | 1 - 1e-7 | 38 | 38 |
    /// | 50 % | 1 | 14 | 14 |
    /// | 100 % | 1 | 6 | 6 |
    ///
    /// If the loss begins in the middle of a round, the sum may be up to 6.9 below zero: at 10 % that takes 48 more
    /// loops, at 100 % three.
    #[must_use]
    pub fn standard() -> LossTest {
        LossTest {
            on_loss: core::f64::consts::LN_10,
            on_return: (0.9_f64 / 0.99).ln(),
            alarm_at: 0.999e6_f64.ln(),
            healthy_at: (1e-3_f64 / (1.0 - 1e-6)).ln(),
        }
    }

    /// The chance that a round ends with an alarm if each loop is lost with probability `loss`, independently
    /// (Wald's operating characteristic; it ignores by how much the sum overshoots its bounds).
    #[must_use]
    pub fn alarm_probability(&self, loss: f64) -> f64 {
        if loss <= 0.0 {
            return 0.0;
        }
        if loss >= 1.0 {
            return 1.0;
        }
        let Some(h) = self.conjugate(loss) else {
            // No drift: a fair game between the two bounds.
            return -self.healthy_at / (self.alarm_at - self.healthy_at);
        };
        // (1 - B^h) / (A^h - B^h), with A and B the bounds' exponentials; written so that nothing large is divided
        // by something large.
        let (up, down) = (h * self.alarm_at, h * self.healthy_at);
        if h > 0.0 {
            down.exp_m1() / (down.exp_m1() - up.exp_m1())
        } else {
            (-down).exp_m1() / (up - down).exp_m1()
        }
    }

    /// How many loops a round takes on average if each is lost with probability `loss` (Wald's average sample
    /// number).
    #[must_use]
    pub fn expected_loops(&self, loss: f64) -> f64 {
        let loss = loss.clamp(0.0, 1.0);
        let kept = 1.0 - loss;
        let drift = loss * self.on_loss + kept * self.on_return;
        if self.conjugate(loss).is_none() && 0.0 < loss && loss < 1.0 {
            let variance = loss * self.on_loss.powi(2) + kept * self.on_return.powi(2);
            return -self.alarm_at * self.healthy_at / variance;
        }
        let alarm = self.alarm_probability(loss);
        (alarm * self.alarm_at + (1.0 - alarm) * self.healthy_at) / drift
    }

    /// The non-zero solution h of E[exp(h * step)] = 1, if there is one worth the name (there is none where the
    /// drift vanishes).
    fn conjugate(&self, loss: f64) -> Option<f64> {
        let moment =
            |h: f64| loss * (h * self.on_loss).exp() + (1.0 - loss) * (h * self.on_return).exp() - 1.0;
        let drift = loss * self.on_loss + (1.0 - loss) * self.on_return;
        // The moment is convex in h, zero at h = 0, and falls from there towards the other solution.
        let direction = -drift.signum();
        let mut far = direction;
        while moment(far) < 0.0 {
            far *= 2.0;
        }
        let mut near = direction * 1e-6;
        if drift == 0.0 || moment(near) >= 0.0 {
            return None;
        }
        for _ in 0..100 {
            let middle = f64::midpoint(near, far);
            if moment(middle) < 0.0 {
                near = middle;
            } else {
                far = middle;
            }
        }
        Some(f64::midpoint(near, far))
    }
}

/// The sum of a round that has not ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round(f64);

impl Round {
    /// Takes the outcome of the next loop. If that ends the round, says how, and starts the next one at zero.
    pub(crate) fn observe(&mut self, test: &LossTest, lost: bool) -> Option<Verdict> {
        self.0 += if lost { test.on_loss } else { test.on_return };
        let verdict = if self.0 >= test.alarm_at {
            Verdict::Alarm
        } else if self.0 <= test.healthy_at {
            Verdict::Healthy
        } else {
            return None;
        };
        self.0 = 0.0;
        Some(verdict)
    }
}
