//! `tombola client`: what a person does with a client.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use tombola_node::entry::{RunFlags, print_line};
use tombola_node::shutdown::Shutdown;
use tombola_topology::ClientAddress;

use crate::content::Content;
use crate::home::{Home, NewHome};
use crate::session::{Client, ClientError, ConnectOptions, Event, Received};
use crate::{MESSAGE_MAX, MessageId, lines, progress};

/// Arguments of the client.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The client's folder.
    #[arg(long, value_name = "DIR", env = "TOMBOLA_HOME", default_value = "tombola-client")]
    home: PathBuf,
    #[command(flatten)]
    flags: RunFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Make a client: its keys, its mailbox at a gateway.
    Init {
        /// The network document.
        #[arg(long, value_name = "FILE")]
        network: PathBuf,
        /// The key that signs the network document, from whoever runs the network.
        #[arg(long, value_name = "KEY")]
        authority: String,
        /// The gateway, by its identity; default: a random one.
        #[arg(long, value_name = "IDENTITY")]
        gateway: Option<String>,
    },
    /// Print the address that others send to.
    Address,
    /// Send a text or a file.
    Send {
        /// The recipient's address.
        address: String,
        /// The text.
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        text: Option<String>,
        /// The file.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print texts and save files as they arrive, until interrupted.
    Receive {
        /// Where files are saved.
        #[arg(long, value_name = "DIR", default_value = ".")]
        save: PathBuf,
        /// End after this many messages.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// End after this many seconds without a message.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Serve a program: commands on standard input, events on standard output, one JSON object a line.
    Run {
        /// Where files are saved.
        #[arg(long, value_name = "DIR", default_value = ".")]
        save: PathBuf,
    },
}

/// Runs one command.
///
/// # Errors
/// Each says what is wrong and what to do.
pub fn run(args: &Args) -> Result<()> {
    args.flags.init_logging()?;
    match &args.command {
        Command::Init { network, authority, gateway } => {
            let new = NewHome { network, authority, gateway: gateway.as_deref() };
            let home = Home::create(&args.home, &new)?;
            print_line(home.address()?);
            Ok(())
        }
        Command::Address => {
            print_line(Home::address_in(&args.home)?);
            Ok(())
        }
        Command::Send { address, text, file } => {
            let to: ClientAddress = address.parse().context("the recipient's address")?;
            let content = match (text, file) {
                (_, Some(path)) => read_file(path)?,
                (Some(text), None) => Content::Text(text.clone()),
                (None, None) => bail!("nothing to send: give a text or --file"),
            };
            args.flags.runtime(1)?.block_on(send(&args.home, &to, &content))
        }
        Command::Receive { save, count, timeout } => {
            let wanted = Wanted { count: *count, timeout: timeout.map(Duration::from_secs) };
            args.flags.runtime(1)?.block_on(receive(&args.home, &args.flags, save, wanted))
        }
        Command::Run { save } => args.flags.runtime(1)?.block_on(lines::serve(&args.home, save)),
    }
}

pub(crate) fn read_file(path: &Path) -> Result<Content> {
    let unreadable = || format!("{}: cannot be read", path.display());
    let file = File::open(path).with_context(unreadable)?;
    // Before any of it is in memory, and before anybody is connected to.
    let len = usize::try_from(file.metadata().with_context(unreadable)?.len()).unwrap_or(usize::MAX);
    if len > MESSAGE_MAX {
        return Err(ClientError::TooLong { len }).with_context(|| path.display().to_string());
    }
    let mut bytes = Vec::with_capacity(len);
    // A device has no length, and may have no end.
    file.take(MESSAGE_MAX as u64 + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    Content::file(path, bytes).with_context(|| path.display().to_string())
}

async fn send(home: &Path, to: &ClientAddress, content: &Content) -> Result<()> {
    let home = Home::open(home)?;
    home.view().recipient(to)?;
    let options = ConnectOptions { collect: false, ..ConnectOptions::default() };
    let mut client = Client::connect_with(&home, options).await?;
    let id = client.send(to, content).await?;
    let mut bar: Option<ProgressBar> = None;
    loop {
        match client.event().await {
            Some(Event::Emitted(emitted)) if emitted.message == id => {
                bar.get_or_insert_with(|| progress::bar("sending".to_owned(), emitted.count)).inc(1);
                if emitted.index + 1 == emitted.count {
                    break;
                }
            }
            Some(Event::Disconnected) => tracing::warn!("the gateway is away; waiting for it"),
            Some(_) => {}
            None => return Err(client.ended().into()),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    client.flush().await?;
    client.close().await;
    print_line(format_args!("sent {id}"));
    Ok(())
}

#[derive(Clone, Copy)]
struct Wanted {
    count: Option<u64>,
    timeout: Option<Duration>,
}

async fn receive(home: &Path, flags: &RunFlags, save: &Path, wanted: Wanted) -> Result<()> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    if flags.exit_with_stdin {
        shutdown.on_stdin_closed()?;
    }
    let home = Home::open(home)?;
    let mut client = Client::connect(&home).await?;
    tracing::info!("connected; waiting for messages");
    let mut show = Show { save, bars: BTreeMap::new(), shown: 0 };
    while wanted.count.is_none_or(|count| show.shown < count) {
        let quiet = wanted.timeout.unwrap_or(Duration::MAX);
        let event = tokio::select! {
            _ = shutdown.triggered() => break,
            event = tokio::time::timeout(quiet, client.event()) => event,
        };
        match event {
            Ok(Some(event)) => show.event(event)?,
            Ok(None) => return Err(client.ended().into()),
            Err(_) => break,
        }
    }
    for event in client.close().await {
        show.event(event)?;
    }
    match wanted.count {
        Some(count) if show.shown < count && shutdown.cause().is_none() => {
            bail!("{} of {count} messages arrived in time", show.shown)
        }
        _ => Ok(()),
    }
}

struct Show<'a> {
    save: &'a Path,
    bars: BTreeMap<MessageId, ProgressBar>,
    shown: u64,
}

impl Show<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Progress { message, have, count } => {
                let bar =
                    self.bars.entry(message).or_insert_with(|| progress::bar("receiving".to_owned(), count));
                bar.set_position(u64::from(have));
            }
            Event::Received(received) => {
                if let Some(bar) = self.bars.remove(&received.message) {
                    bar.finish_and_clear();
                }
                self.shown += 1;
                self.received(received)?;
            }
            Event::Unreadable(message, error) => {
                tracing::warn!(%message, %error, "a message was passed over");
            }
            Event::Disconnected => tracing::warn!("the gateway is away; connecting again"),
            Event::Connected => tracing::info!("connected"),
            Event::Emitted(_) => {}
        }
        Ok(())
    }

    fn received(&self, received: Received) -> Result<()> {
        match received.content {
            Content::Text(text) => print_line(printable(&text)),
            Content::File { name, bytes } => {
                let path = save_file(self.save, &name, &bytes)?;
                print_line(format_args!("saved {} ({} bytes)", path.display(), bytes.len()));
            }
            Content::Bytes(bytes) => {
                print_line(format_args!("{} bytes: {}", bytes.len(), hex::encode(&bytes)));
            }
        }
        Ok(())
    }
}

/// A text as it can be shown without letting its sender steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Saves a received file under its own name, or `name.1`, `name.2`, … if that is taken: nothing is ever overwritten.
pub(crate) fn save_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    for attempt in 0..10_000 {
        let path = folder.join(if attempt == 0 { name.to_owned() } else { format!("{name}.{attempt}") });
        match tombola_node::files::create_new(&path, bytes, 0o600) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{}: cannot be written", path.display()));
            }
        }
    }
    bail!("{}: there are too many files called {name} already", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_file_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let first = save_file(folder.path(), "a", b"1").unwrap();
        let second = save_file(folder.path(), "a", b"2").unwrap();
        assert_ne!(first, second);
        assert_eq!(std::fs::read(first).unwrap(), b"1");
        assert_eq!(std::fs::read(second).unwrap(), b"2");
    }

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\tc\n"), "a\u{fffd}[2Jb\tc\n");
    }
}
