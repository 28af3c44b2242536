//! What every role's process does alike: flags, logging, signals, metrics, a word to whoever started it, its end.

use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::runtime::{Builder, Runtime};
use tombola_link::Links;

use crate::driver::reduce_timer_slack;
use crate::logging::{self, LogFormat};
use crate::metrics;
use crate::rest::rest_between;
use crate::shutdown::Shutdown;

/// How often a node that drains looks whether it is empty.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Flags that every long-running role has.
#[derive(Clone, Debug, clap::Args)]
pub struct RunFlags {
    /// End when standard input ends: for a parent process whose death shall end this one.
    #[arg(long)]
    pub exit_with_stdin: bool,
    /// How log lines look on standard error.
    #[arg(long, value_name = "text|json", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged, such as "info" or "warn,tombola=debug"; default: TOMBOLA_LOG, else Tombola's own lines at info.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl RunFlags {
    /// Sets up logging as the flags say.
    ///
    /// # Errors
    /// The filter makes no sense.
    pub fn init_logging(&self) -> Result<()> {
        logging::init(self.log_format, self.log.as_deref())?;
        Ok(())
    }

    /// A runtime for links, on `threads` threads; on one, everything runs on the thread that waits in it. Workers, if there
    /// are any, have threads of their own.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn runtime(&self, threads: usize) -> Result<Runtime> {
        let mut builder = match threads {
            0 | 1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        if threads > 1 {
            builder.worker_threads(threads);
        } else {
            reduce_timer_slack();
            rest_between(&mut builder);
        }
        builder.thread_name("links").enable_all().build().context("the runtime did not start")
    }
}

/// A role's process.
#[derive(Debug)]
pub struct Service {
    /// Ends everything.
    pub shutdown: Shutdown,
    /// Asks to bring to an end what was begun, and then to end.
    pub drain: Shutdown,
    /// Asks to claim what was won, because the node leaves the network.
    pub wind_up: Shutdown,
    metrics: Option<SocketAddr>,
}

impl Service {
    /// Listens to signals (and standard input), and serves metrics if an address is given.
    ///
    /// # Errors
    /// The metrics address is unusable, or the operating system refused a handler.
    pub async fn start(flags: &RunFlags, metrics: Option<SocketAddr>) -> Result<Self> {
        let (shutdown, drain, wind_up) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
        shutdown.on_signals_draining(drain.clone())?;
        wind_up.on_user_signal()?;
        if flags.exit_with_stdin {
            shutdown.on_stdin_closed()?;
        }
        let metrics = match metrics {
            Some(address) => Some(metrics::serve(address, shutdown.clone()).await?),
            None => None,
        };
        Ok(Self { shutdown, drain, wind_up, metrics })
    }

    /// Says on standard output, as one line of JSON, that the process is up and where. Addresses are its own: nothing
    /// of a peer.
    pub fn announce(&self, links: &Links, clients: Option<&Links>) {
        let metrics = self.metrics.map_or_else(|| "null".to_owned(), |address| format!("\"{address}\""));
        print_line(format_args!(
            "{{\"event\":\"listening\",\"addresses\":{:?},\"client_addresses\":{:?},\"metrics\":{metrics}}}",
            links.listen_addresses(),
            clients.map(Links::listen_addresses).unwrap_or_default(),
        ));
    }

    /// Waits until the process is told to end. When it is told to bring to an end what it has begun, `drain` is called, then
    /// `is_drained` is asked until it says so, for at most that long.
    pub async fn until_end(&self, longest: Duration, drain: impl FnOnce(), is_drained: impl Fn() -> bool) {
        let drained = async {
            let cause = self.drain.triggered().await;
            tracing::info!(%cause, "draining");
            drain();
            let deadline = tokio::time::Instant::now() + longest;
            while !is_drained() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            cause
        };
        tokio::select! {
            cause = self.shutdown.triggered() => tracing::info!(%cause, "ending"),
            cause = drained => {
                tracing::info!("drained; ending");
                self.shutdown.trigger(cause);
            }
        }
    }

    /// How the process ended, for its exit code.
    ///
    /// # Errors
    /// Something that it cannot do without has failed.
    pub fn result(&self) -> Result<()> {
        match self.shutdown.cause() {
            Some(cause) if cause.is_failure() => bail!("{cause}"),
            _ => Ok(()),
        }
    }
}

/// Runs a program's body and turns its result into an exit code; an error goes to standard error, with everything that
/// led to it, in one line.
pub fn run(name: &str, body: impl FnOnce() -> Result<()>) -> ExitCode {
    tombola_link::install_crypto_provider();
    match body() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{name}: {}", whole(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with everything that led to it, in one line, each thing once: many messages say what caused them, since they are also
/// shown without what led to them.
pub fn whole(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            let colon = if line.is_empty() { "" } else { ": " };
            line.push_str(colon);
            line.push_str(&cause);
        }
    }
    line
}

/// Writes one line to standard output at once. A reader that has gone is no error of ours.
pub fn print_line(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the file {path}: {source}; check the disk")]
    struct Outer {
        path: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn what_led_to_an_error_is_said_once() {
        let source = std::io::Error::other("no space");
        let error = anyhow::Error::from(Outer { path: "a", source }).context("saving");
        assert_eq!(whole(&error), "saving: the file a: no space; check the disk");
        assert_eq!(
            format!("{error:#}"),
            "saving: the file a: no space; check the disk: no space",
            "as it would be"
        );
        let plain = anyhow::anyhow!("inner").context("middle").context("outer");
        assert_eq!(whole(&plain), "outer: middle: inner", "what is not said yet is said");
    }
}
