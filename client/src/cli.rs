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
use tombola_topology::{ClientAddress, duration};

use crate::content::Content;
use crate::event::{Event, Received};
use crate::home::{Home, NewHome};
use crate::session::{Client, ClientError, ConnectOptions, MessageOptions};
use crate::{FinalState, MESSAGE_MAX, MessageId, lines, progress};

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
        /// Do not connect. The gateway keeps mail for this client only after it has connected once.
        #[arg(long)]
        offline: bool,
    },
    /// Print the address that others send to.
    Address,
    /// Send a text or a file. What is not acknowledged yet is sent again whenever this client runs.
    Send {
        /// The recipient's address.
        address: String,
        #[command(flatten)]
        what: What,
        /// How many packets the recipient may answer with, without learning whom.
        #[arg(long, value_name = "PACKETS", default_value_t = 0)]
        replies: u16,
    },
    /// Answer a message that was received.
    Reply {
        /// The message's id, as `receive` shows it.
        id: MessageId,
        #[command(flatten)]
        what: What,
    },
    /// Measure the way to an address and back, without disturbing whoever has it.
    Ping {
        /// The address.
        address: String,
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 1)]
        count: u32,
        /// How long to wait for each, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
    },
    /// Take a new network document; a client that runs takes it up by itself.
    Update {
        /// The network document.
        #[arg(long, value_name = "FILE")]
        network: PathBuf,
    },
    /// List the messages that are not acknowledged.
    Outbox,
    /// Call a message back: nothing more of it is sent.
    Cancel {
        /// The message's id.
        id: MessageId,
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
        /// Received messages count as taken only when they are accepted by a command.
        #[arg(long)]
        manual_accept: bool,
    },
}

/// A message.
#[derive(Clone, Debug, clap::Args)]
struct What {
    /// The text.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    text: Option<String>,
    /// The file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Say who sent it, signed. Otherwise the sender is anonymous.
    #[arg(long)]
    signed: bool,
    /// Wait until the recipient has it.
    #[arg(long)]
    wait: bool,
    /// How long it is tried, such as "1d".
    #[arg(long, value_name = "DURATION", default_value = "14d", value_parser = duration::parse)]
    expires: Duration,
}

impl What {
    fn content(&self) -> Result<Content> {
        match (&self.text, &self.file) {
            (_, Some(path)) => read_file(path),
            (Some(text), None) => Ok(Content::Text(text.clone())),
            (None, None) => bail!("nothing to send: give a text or --file"),
        }
    }

    fn options(&self, replies: u16) -> MessageOptions {
        MessageOptions { replies, signed: self.signed, lifetime: Some(self.expires) }
    }
}

/// What a client without a mailbox is told.
const NO_MAILBOX: &str = "the client is made, but its gateway does not know it yet and refuses its mail until it connects for \
     the first time, with `receive` or `run`";
/// What a client without an account is told, in a network that wants one.
const NO_ACCOUNT: &str = "packets of this network are paid for: the client needs an account, in payment.toml in its folder, before \
     it is used; its gateway does not know it yet and refuses its mail until it connects for the first time";

/// Runs one command.
///
/// # Errors
/// Each says what is wrong and what to do.
pub fn run(args: &Args) -> Result<()> {
    args.flags.init_logging()?;
    match &args.command {
        Command::Init { network, authority, gateway, offline } => {
            let new = NewHome { network, authority, gateway: gateway.as_deref() };
            let home = Home::create(&args.home, &new)?;
            print_line(home.address()?);
            if *offline {
                tracing::warn!("{NO_MAILBOX}");
                return Ok(());
            }
            if home.view().epoch().payment().is_some() {
                tracing::warn!("{NO_ACCOUNT}");
                return Ok(());
            }
            args.flags.runtime(1)?.block_on(open_mailbox(&home)).context(NO_MAILBOX)
        }
        Command::Address => {
            print_line(Home::address_in(&args.home)?);
            Ok(())
        }
        Command::Send { address, what, replies } => {
            let to = To::Address(address.parse().context("the recipient's address")?);
            let sent = send(&args.home, &to, what, what.content()?, what.options(*replies));
            args.flags.runtime(1)?.block_on(sent)
        }
        Command::Reply { id, what } => {
            let to = To::SenderOf(*id);
            let sent = send(&args.home, &to, what, what.content()?, what.options(0));
            args.flags.runtime(1)?.block_on(sent)
        }
        Command::Ping { address, count, timeout } => {
            let to = address.parse().context("the address")?;
            let pings = ping(&args.home, &to, *count, Duration::from_secs(*timeout));
            args.flags.runtime(1)?.block_on(pings)
        }
        Command::Update { network } => {
            let serial = Home::update(&args.home, network)?;
            print_line(format_args!("the network document with serial number {serial} is in place"));
            Ok(())
        }
        Command::Outbox => args.flags.runtime(1)?.block_on(outbox(&args.home)),
        Command::Cancel { id } => args.flags.runtime(1)?.block_on(cancel(&args.home, *id)),
        Command::Receive { save, count, timeout } => {
            let wanted = Wanted { count: *count, timeout: timeout.map(Duration::from_secs) };
            args.flags.runtime(1)?.block_on(receive(&args.home, &args.flags, save, wanted))
        }
        Command::Run { save, manual_accept } => {
            args.flags.runtime(1)?.block_on(lines::serve(&args.home, save, *manual_accept))
        }
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

enum To {
    Address(ClientAddress),
    SenderOf(MessageId),
}

async fn send(home: &Path, to: &To, what: &What, content: Content, options: MessageOptions) -> Result<()> {
    let home = Home::open(home)?;
    // Whoever waits collects acknowledgements, and with them messages, which stay in the inbox.
    let connect = ConnectOptions { collect: what.wait, manual_accept: true, ..ConnectOptions::default() };
    let mut client = Client::start(&home, connect).await?;
    let id = match to {
        To::Address(to) => client.send_with(to, &content, options).await?,
        To::SenderOf(id) => client.reply(*id, &content, options).await?,
    };
    if !client.wait_connected(connect.patience).await {
        client.close().await?;
        bail!(
            "the gateway did not answer within {} s; message {id} is in the outbox, and leaves when this client runs again",
            connect.patience.as_secs()
        );
    }
    let ended = follow(&mut client, id, what.wait).await?;
    if !what.wait {
        client.flush().await?;
    }
    client.close().await?;
    match ended {
        None => print_line(format_args!("sent {id}")),
        Some(FinalState::Acknowledged) => print_line(format_args!("acknowledged {id}")),
        Some(FinalState::Expired) => bail!("message {id} has expired: nobody acknowledged it in time"),
        Some(FinalState::Cancelled) => bail!("message {id} was called back"),
    }
    Ok(())
}

/// Waits until a message has left, or until it has ended.
async fn follow(client: &mut Client, id: MessageId, to_the_end: bool) -> Result<Option<FinalState>> {
    let mut bar: Option<ProgressBar> = None;
    let ended = loop {
        match client.event().await {
            Some(Event::Emitted(emitted)) if emitted.message == id => {
                bar.get_or_insert_with(|| progress::bar("sending".to_owned(), emitted.count)).inc(1);
            }
            Some(Event::Sent(sent)) if sent == id && !to_the_end => break None,
            Some(Event::Ended(ended, state)) if ended == id => break Some(state),
            Some(Event::Disconnected) => tracing::warn!("the gateway is away; waiting for it"),
            Some(Event::Storage(Some(trouble))) => tracing::warn!("{trouble}"),
            Some(_) => {}
            None => return Err(client.ended().into()),
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(ended)
}

async fn ping(home: &Path, to: &ClientAddress, count: u32, patience: Duration) -> Result<()> {
    let home = Home::open(home)?;
    let connect = ConnectOptions { manual_accept: true, ..ConnectOptions::default() };
    let mut client = Client::connect_with(&home, connect).await?;
    let mut answered = 0;
    for number in 1..=count {
        let id = client.ping(to).await?;
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match tokio::time::timeout_at(deadline, client.event()).await {
                Ok(Some(Event::Pong(pong, took))) if pong == id => {
                    print_line(format_args!(
                        "{number}: there and back in {:.0} ms",
                        took.as_secs_f64() * 1e3
                    ));
                    answered += 1;
                    break;
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(client.ended().into()),
                Err(_) => {
                    print_line(format_args!("{number}: no answer within {} s", patience.as_secs()));
                    break;
                }
            }
        }
    }
    client.close().await?;
    if answered == 0 {
        bail!("no ping was answered: the client is away, or the address is wrong");
    }
    Ok(())
}

async fn outbox(home: &Path) -> Result<()> {
    let home = Home::open(home)?;
    for message in home.outbox()? {
        let state = if message.sent { "sent" } else { "queued" };
        print_line(format_args!("{} {state} {} bytes", message.id, message.bytes));
    }
    Ok(())
}

async fn cancel(home: &Path, id: MessageId) -> Result<()> {
    let home = Home::open(home)?;
    let connect = ConnectOptions { collect: false, manual_accept: true, ..ConnectOptions::default() };
    let client = Client::start(&home, connect).await?;
    let was_there = client.cancel(id).await?;
    client.close().await?;
    if !was_there {
        bail!("there is no message {id} in the outbox");
    }
    print_line(format_args!("cancelled {id}"));
    Ok(())
}

#[derive(Clone, Copy)]
struct Wanted {
    count: Option<u64>,
    timeout: Option<Duration>,
}

/// Connects once, so that the gateway keeps mail from now on. Takes no mail, and says nothing about what it has.
async fn open_mailbox(home: &Home) -> Result<(), ClientError> {
    let options = ConnectOptions { collect: false, ..ConnectOptions::default() };
    let client = Client::connect_with(home, options).await?;
    let served = async {
        // Something comes down only to clients whom the gateway has taken in.
        while client.counts().await?.padding == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    let served = tokio::time::timeout(options.patience, served).await;
    let served = served.unwrap_or(Err(ClientError::Unreachable(options.patience)));
    client.close().await?;
    served
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
    client.close().await?;
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
            Event::Ended(message, state) => tracing::info!(%message, "{}", lines::word_for(state)),
            Event::Storage(Some(trouble)) => tracing::warn!("{trouble}"),
            Event::Storage(None) => tracing::info!("the disk takes everything again"),
            Event::DocumentRefused(reason) => {
                tracing::warn!("the new network document is not used: {reason}");
            }
            Event::Emitted(_) | Event::Sent(_) | Event::Pong(..) | Event::Backpressure(_) => {}
        }
        Ok(())
    }

    fn received(&self, received: Received) -> Result<()> {
        if let Some(sender) = received.sender {
            print_line(format_args!("from {sender}:"));
        }
        if let Some(own) = received.reply_to {
            print_line(format_args!("answer to {own}:"));
        }
        if received.answerable {
            print_line(format_args!("{} (can be answered with `reply`):", received.message));
        }
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
