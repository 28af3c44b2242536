//! A command is a sequence of stages; each is announced and timed, and the first failure ends the command.

use std::time::{Duration, Instant};

use anyhow::Context;

/// What has run so far.
#[derive(Default)]
pub(crate) struct Stages {
    finished: Vec<(&'static str, Duration)>,
}

impl Stages {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Runs one stage.
    ///
    /// # Errors
    ///
    /// The stage's own error, with its name in front.
    pub(crate) fn run<T>(
        &mut self,
        name: &'static str,
        stage: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        println!("\n==> {name}");
        let started = Instant::now();
        let result = stage();
        let took = started.elapsed();
        self.finished.push((name, took));
        result.with_context(|| format!("stage `{name}` failed after {:.1} s", took.as_secs_f64()))
    }

    /// Prints the durations of a command that succeeded.
    pub(crate) fn finish(self) {
        let width = self.finished.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let total: Duration = self.finished.iter().map(|(_, took)| *took).sum();
        println!("\nAll {} stages passed.", self.finished.len());
        for (name, took) in &self.finished {
            println!("  {name:width$} {:8.1} s", took.as_secs_f64());
        }
        println!("  {:width$} {:8.1} s", "total", total.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_carries_the_name_of_its_stage() {
        let mut stages = Stages::new();
        stages.run("first", || Ok(())).unwrap();
        let error = stages.run("second", || -> anyhow::Result<()> { anyhow::bail!("broken") }).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with("stage `second` failed after") && text.ends_with("broken"), "{text}");
    }
}
