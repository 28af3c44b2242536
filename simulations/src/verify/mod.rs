//! Does the simulator agree with what is known? Exact values, published scenarios, distributions that theory predicts.

use crate::fidelity::WireError;
use crate::scenario::ScenarioError;

pub mod measures;
pub mod oracles;
pub mod reference;

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// What is right, or the least that is.
    pub expected: f64,
    /// What was found.
    pub found: f64,
    /// How far they may be apart; for a test of fit, nothing: its probability has to exceed `expected`.
    pub tolerance: Tolerance,
}

/// When a comparison is passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// The difference is at most this.
    Within(f64),
    /// The value found is the expected one or above.
    AtLeast,
    /// The scenario could not be understood or run.
    Impossible,
}

impl Check {
    /// The difference is at most `tolerance`.
    #[must_use]
    pub fn within(name: impl Into<String>, expected: f64, found: f64, tolerance: f64) -> Self {
        Self { name: name.into(), expected, found, tolerance: Tolerance::Within(tolerance) }
    }

    /// A test of fit refuses, at a level at which one in ten thousand right simulators is refused.
    #[must_use]
    pub fn fits(name: impl Into<String>, probability: f64) -> Self {
        Self { name: name.into(), expected: 1e-4, found: probability, tolerance: Tolerance::AtLeast }
    }

    /// Whether it is passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        match self.tolerance {
            Tolerance::Within(tolerance) => (self.found - self.expected).abs() <= tolerance,
            Tolerance::AtLeast => self.found >= self.expected,
            Tolerance::Impossible => false,
        }
    }
}

impl core::fmt::Display for Check {
    /// A row of the table.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { name, expected, found, tolerance } = self;
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        match tolerance {
            Tolerance::Within(tolerance) => {
                write!(f, "{name:<58} {expected:>12.5} {found:>12.5}  +- {tolerance:<9.5} {verdict}")
            }
            Tolerance::AtLeast => {
                write!(f, "{name:<58} {:>12} {found:>12.5}  > {expected:<10} {verdict}", "fits")
            }
            Tolerance::Impossible => write!(f, "{name:<58} {:>12} {:>12}  {:<12} {verdict}", "-", "-", ""),
        }
    }
}

/// The head of the table of checks.
#[must_use]
pub fn head() -> String {
    format!("{:<58} {:>12} {:>12}  {:<12} {}", "what", "expected", "found", "tolerance", "verdict")
}

/// How much is simulated for each check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Seconds in all: small scenarios, wider tolerances.
    Quick,
    /// Some minutes.
    Full,
}

/// What is needed for all checks.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// How much is simulated.
    pub effort: Effort,
    /// Threads.
    pub threads: usize,
}

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A scenario of its own is wrong.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// It cannot be run with real packets.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A file of references cannot be read.
    #[error("reference file: {0}; it should have the format of `simulations/reference/simulation.json`")]
    Reference(#[from] serde_json::Error),
    /// It was interrupted.
    #[error("interrupted")]
    Interrupted,
}
