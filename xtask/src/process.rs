//! Starting other programs: what runs is printed, and a failure names the command.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// A program about to be started in a directory.
pub(crate) struct Process {
    program: OsString,
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    directory: PathBuf,
}

/// `cargo` itself, the one that runs this program.
pub(crate) fn cargo(directory: &Path) -> Process {
    Process::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), directory)
}

impl Process {
    pub(crate) fn new(program: impl Into<OsString>, directory: &Path) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            directory: directory.into(),
        }
    }

    #[must_use]
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().into());
        self
    }

    #[must_use]
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().into()));
        self
    }

    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.into(), value.as_ref().into()));
        self
    }

    /// Runs it to its end with our own input and output.
    ///
    /// # Errors
    ///
    /// The program could not be started, or reported a failure.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        println!("  $ {}", self.shown());
        let status = self.command().status().with_context(|| format!("cannot start `{}`", self.shown()))?;
        if !status.success() {
            bail!("`{}` failed with {status}", self.shown());
        }
        Ok(())
    }

    /// Runs it to its end, gives every line of its standard output to `each`, and leaves its errors on the
    /// terminal.
    ///
    /// # Errors
    ///
    /// As [`Process::run`], or the output was not text.
    pub(crate) fn run_with_lines(&self, mut each: impl FnMut(&str)) -> anyhow::Result<()> {
        println!("  $ {}", self.shown());
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", self.shown()))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                each(&line.with_context(|| format!("`{}` wrote something that is not text", self.shown()))?);
            }
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("`{}` failed with {status}", self.shown());
        }
        Ok(())
    }

    /// Runs it silently and returns its standard output.
    ///
    /// # Errors
    ///
    /// As [`Process::run`]; the error then contains what the program wrote to its standard error.
    pub(crate) fn capture(&self) -> anyhow::Result<String> {
        let output = self.command().output().with_context(|| format!("cannot start `{}`", self.shown()))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("`{}` failed with {}\n{}", self.shown(), output.status, complaint.trim_end());
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{}` did not write text", self.shown()))
    }

    /// Runs it and returns whether it succeeded, and all that it wrote to its standard error.
    ///
    /// # Errors
    ///
    /// The program could not be started.
    pub(crate) fn try_capture_errors(&self) -> anyhow::Result<(bool, String)> {
        let (code, errors) = self.capture_code_and_errors()?;
        Ok((code == Some(0), errors))
    }

    /// Runs it and returns its exit code, which it has none of if a signal ended it, and all that it wrote to its standard
    /// error.
    ///
    /// # Errors
    ///
    /// The program could not be started.
    pub(crate) fn capture_code_and_errors(&self) -> anyhow::Result<(Option<i32>, String)> {
        let output = self.command().output().with_context(|| format!("cannot start `{}`", self.shown()))?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.directory);
        // `cargo run` describes xtask in these variables. Some build scripts watch them (that of `ring` does), so
        // that `cargo xtask test` and `cargo test` would rebuild half of the tree in turns.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The command line as one would type it.
    pub(crate) fn shown(&self) -> String {
        let program = Path::new(&self.program).file_stem().unwrap_or(&self.program);
        let variables = self.variables.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        let words = std::iter::once(program).chain(self.arguments.iter().map(OsString::as_os_str));
        variables.chain(words.map(quoted)).collect::<Vec<_>>().join(" ")
    }
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.contains(' ') { format!("'{word}'") } else { word.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_the_command_line() {
        let error = Process::new("false", Path::new(".")).arg("a b").env("X", "1").run().unwrap_err();
        assert!(error.to_string().starts_with("`X=1 false 'a b'` failed"), "{error}");
    }

    #[test]
    fn missing_program_is_an_error() {
        let error = Process::new("no-such-program-of-this-name", Path::new(".")).capture().unwrap_err();
        assert!(error.to_string().contains("cannot start"), "{error}");
    }

    #[test]
    fn lines_arrive_in_order() {
        let mut lines = Vec::new();
        let printf = Process::new("printf", Path::new(".")).args(["a\\nb\\n"]);
        printf.run_with_lines(|line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["a", "b"]);
    }
}
