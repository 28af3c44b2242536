//! `tombola client run`: a client for other programs, one JSON object a line.
//!
//! Commands on standard input; the end of input closes the client in order, after at most four
//! seconds for what is still queued:
//!
//! ```json
//! {"send": {"to": "tombola1…", "text": "hello", "tag": "1", "replies": 8, "signed": true, "expires": "1d"}}
//! {"send": {"to": "tombola1…", "file": "/path/to/file"}}
//! {"reply": {"id": "<id of a received message>", "text": "hello yourself", "tag": "2"}}
//! {"cancel": {"id": "<id>"}}
//! {"accept": {"id": "<id>"}}
//! {"ping": {"to": "tombola1…", "tag": "3"}}
//! {"stats": {}}
//! ```
//!
//! | event | fields |
//! |---|---|
//! | `ready` | `address`, the own one |
//! | `connected`, `disconnected` | the link to the gateway |
//! | `queued` | `id`, `tag`, `bytes`: the message is in the outbox, durably |
//! | `emitted` | a packet left: `id`, `index`, `count`, `attempt` (0 the first time), `queued_ns`, `emitted_ns`, `delays_ns` |
//! | `sent` | `id`: everything of it has left once |
//! | `acknowledged`, `expired`, `cancelled` | `id` |
//! | `progress` | of a long message: `id`, `have`, `count` |
//! | `received` | `id`, `text` or `file` and `sha256` or `hex`, `bytes`, `packets`, `received_ns`, `held_ns`, `replies` (whether it can be answered), `reply_to`, `sender`, `again` |
//! | `unreadable` | `id`, `message` |
//! | `pong` | `tag`, `id`, `rtt_ns` |
//! | `backpressure` | `on`: soon commands that send wait |
//! | `storage` | `ok`, `message`: the disk |
//! | `document_refused` | `message` |
//! | `stats` | counts |
//! | `error` | `message`, `tag`: a command that could not be done, and changed nothing |
//!
//! Times are nanoseconds since 1970; durations are nanoseconds. A received message counts as taken when its line was
//! written, or, with `--manual-accept`, when `accept` says so; until then it comes again after a restart, with
//! `"again": true`. The end of a message (`acknowledged`, `expired`, `cancelled`) may be told twice, too, if the process
//! ends while it is told.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tombola_node::entry::{print_line, whole};
use tombola_node::shutdown::Shutdown;
use tombola_topology::duration;

use crate::cli::{read_file, save_file};
use crate::content::Content;
use crate::event::{Event, Received};
use crate::home::Home;
use crate::session::{Client, ConnectOptions, MessageOptions};
use crate::{FinalState, MessageId};

/// Longest command: a text of a mebibyte.
const LINE_MAX: usize = 1 << 20;
/// How long queued messages may take to leave once the input has ended.
const LAST_PATIENCE: Duration = Duration::from_secs(4);
/// Pings whose tags are remembered.
const PINGS_MAX: usize = 256;
/// Commands that may wait.
const COMMANDS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    Send(Send),
    Reply(Reply),
    Cancel(One),
    Accept(One),
    Ping(Ping),
    Stats {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    to: String,
    text: Option<String>,
    file: Option<PathBuf>,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    replies: u16,
    #[serde(default)]
    signed: bool,
    #[serde(default)]
    expires: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    id: String,
    text: Option<String>,
    file: Option<PathBuf>,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    signed: bool,
    #[serde(default)]
    expires: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {
    to: String,
    #[serde(default)]
    tag: Option<String>,
}

impl Command {
    fn tag(&self) -> Option<String> {
        match self {
            Self::Send(Send { tag, .. }) | Self::Reply(Reply { tag, .. }) | Self::Ping(Ping { tag, .. }) => {
                tag.clone()
            }
            Self::Cancel(_) | Self::Accept(_) | Self::Stats {} => None,
        }
    }
}

pub(crate) async fn serve(home: &Path, save: &Path, manual_accept: bool) -> Result<()> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let home = Home::open(home)?;
    let options = ConnectOptions { manual_accept, ..ConnectOptions::default() };
    let mut client = Client::start(&home, options).await?;
    // The gateway may be away: the outbox takes messages all the same.
    client.wait_connected(options.patience).await;
    say(&json!({ "event": "ready", "address": client.address().to_string() }));
    let mut commands = read_commands();
    let mut pings = BTreeMap::new();
    loop {
        tokio::select! {
            _ = shutdown.triggered() => break,
            event = client.event() => match event {
                Some(event) => say(&describe(event, save, &mut pings)),
                None => return Err(client.ended().into()),
            },
            command = commands.recv() => match command {
                Some(Ok(command)) => {
                    let tag = command.tag();
                    if let Err(error) = obey(&client, command, &mut pings).await {
                        say(&json!({ "event": "error", "message": whole(&error), "tag": tag }));
                    }
                }
                Some(Err(message)) => say(&json!({ "event": "error", "message": message })),
                None => {
                    // What was queued still leaves, if that does not take long: whoever closed the input may be gone.
                    let _ = tokio::time::timeout(LAST_PATIENCE, client.flush()).await;
                    break;
                }
            },
        }
    }
    client.close().await?;
    Ok(())
}

fn say(event: &Value) {
    print_line(event);
}

/// Reads commands on a thread of its own: standard input cannot be waited for otherwise without holding up the end.
fn read_commands() -> mpsc::Receiver<Result<Command, String>> {
    let (sender, receiver) = mpsc::channel(COMMANDS);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = std::io::Read::take(&mut input, LINE_MAX as u64 + 1);
            match limited.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if line.len() > LINE_MAX {
                let message = format!("a command is longer than {LINE_MAX} bytes; send a file instead");
                let _ = sender.blocking_send(Err(message));
                return;
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let command = serde_json::from_slice(&line).map_err(|error| format!("not a command: {error}"));
            if sender.blocking_send(command).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn obey(
    client: &Client,
    command: Command,
    pings: &mut BTreeMap<MessageId, Option<String>>,
) -> Result<()> {
    match command {
        Command::Send(Send { to, text, file, tag, replies, signed, expires }) => {
            let to = to.parse()?;
            let content = content_of(text, file)?;
            let options = MessageOptions { replies, signed, lifetime: lifetime_of(expires)? };
            let id = client.send_with(&to, &content, options).await?;
            say_queued(id, tag, &content);
        }
        Command::Reply(Reply { id, text, file, tag, signed, expires }) => {
            let content = content_of(text, file)?;
            let options = MessageOptions { replies: 0, signed, lifetime: lifetime_of(expires)? };
            let id = client.reply(id.parse()?, &content, options).await?;
            say_queued(id, tag, &content);
        }
        Command::Cancel(One { id }) => {
            let id: MessageId = id.parse()?;
            if !client.cancel(id).await? {
                anyhow::bail!("there is no message {id} in the outbox");
            }
        }
        Command::Accept(One { id }) => client.accept(id.parse()?).await?,
        Command::Ping(Ping { to, tag }) => {
            let id = client.ping(&to.parse()?).await?;
            if pings.len() >= PINGS_MAX {
                pings.pop_first();
            }
            pings.insert(id, tag);
        }
        Command::Stats {} => {
            let counts = client.snapshot().await?;
            let lengths = client.received_lengths();
            say(&json!({
                "event": "stats",
                "emitted": {
                    "real": counts.sent.real,
                    "control": counts.sent.control,
                    "cover": counts.sent.cover,
                    "loops": counts.sent.loops,
                    "drops": counts.sent.drops,
                },
                "received": {
                    "mail": counts.sent.mail,
                    "padding": client.counts().await?.padding,
                },
                "loops": { "returned": counts.loops_returned, "lost": counts.loops_lost },
                "waiting": counts.waiting,
                "unacknowledged": counts.unacknowledged,
                "retransmissions": counts.sent.retransmitted,
                "dropped": counts.drops.iter().map(|(reason, n)| (*reason, n)).collect::<BTreeMap<_, _>>(),
                "frame_lengths": lengths.iter().map(|(length, n)| (length.to_string(), n)).collect::<BTreeMap<_, _>>(),
            }));
        }
    }
    Ok(())
}

fn content_of(text: Option<String>, file: Option<PathBuf>) -> Result<Content> {
    match (text, file) {
        (Some(text), None) => Ok(Content::Text(text)),
        (None, Some(path)) => read_file(&path),
        _ => anyhow::bail!("a message takes either \"text\" or \"file\""),
    }
}

fn lifetime_of(expires: Option<String>) -> Result<Option<Duration>> {
    expires.map(|text| duration::parse(&text).with_context(|| format!("\"expires\": {text:?}"))).transpose()
}

fn say_queued(id: MessageId, tag: Option<String>, content: &Content) {
    say(&json!({ "event": "queued", "id": id.to_string(), "tag": tag, "bytes": content.as_bytes().len() }));
}

/// The event's name for the end of a message.
pub(crate) fn word_for(state: FinalState) -> &'static str {
    match state {
        FinalState::Acknowledged => "acknowledged",
        FinalState::Expired => "expired",
        FinalState::Cancelled => "cancelled",
    }
}

fn describe(event: Event, save: &Path, pings: &mut BTreeMap<MessageId, Option<String>>) -> Value {
    match event {
        Event::Connected => json!({ "event": "connected" }),
        Event::Disconnected => json!({ "event": "disconnected" }),
        Event::Emitted(emitted) => json!({
            "event": "emitted",
            "id": emitted.message.to_string(),
            "index": emitted.index,
            "count": emitted.count,
            "attempt": emitted.attempt,
            "queued_ns": emitted.queued_ns,
            "emitted_ns": emitted.emitted_ns,
            "delays_ns": nanos(emitted.delays),
        }),
        Event::Sent(id) => json!({ "event": "sent", "id": id.to_string() }),
        Event::Ended(id, state) => json!({ "event": word_for(state), "id": id.to_string() }),
        Event::Progress { message, have, count } => {
            json!({ "event": "progress", "id": message.to_string(), "have": have, "count": count })
        }
        Event::Unreadable(message, error) => {
            json!({ "event": "unreadable", "id": message.to_string(), "message": error.to_string() })
        }
        Event::Pong(id, took) => {
            let tag = pings.remove(&id).flatten();
            json!({ "event": "pong", "tag": tag, "id": id.to_string(), "rtt_ns": nanos(took) })
        }
        Event::Backpressure(on) => json!({ "event": "backpressure", "on": on }),
        Event::Storage(trouble) => {
            json!({ "event": "storage", "ok": trouble.is_none(), "message": trouble })
        }
        Event::DocumentRefused(message) => json!({ "event": "document_refused", "message": message }),
        Event::Received(received) => describe_received(&received, save),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn describe_received(received: &Received, save: &Path) -> Value {
    let mut value = json!({
        "event": "received",
        "id": received.message.to_string(),
        "bytes": received.content.as_bytes().len(),
        "packets": received.packets,
        "received_ns": received.received_ns,
        "held_ns": nanos(received.held),
        "replies": received.answerable,
        "again": received.again,
    });
    if let Some(own) = received.reply_to {
        value["reply_to"] = json!(own.to_string());
    }
    if let Some(sender) = received.sender {
        value["sender"] = json!(sender.to_string());
    }
    match &received.content {
        Content::Text(text) => value["text"] = json!(text),
        Content::Bytes(bytes) => value["hex"] = json!(hex::encode(bytes)),
        Content::File { name, bytes } => {
            value["sha256"] = json!(hex::encode(Sha256::digest(bytes)));
            match save_file(save, name, bytes) {
                Ok(path) => value["file"] = json!(path.display().to_string()),
                Err(error) => value["error"] = json!(whole(&error)),
            }
        }
    }
    value
}
