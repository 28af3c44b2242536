//! `tombola client run`: a client for other programs, one JSON object a line.
//!
//! Commands on standard input; the end of input closes the client in order, after at most four
//! seconds for what is still queued:
//!
//! ```json
//! {"send": {"to": "tombola1…", "text": "hello", "tag": "1"}}
//! {"send": {"to": "tombola1…", "file": "/path/to/file"}}
//! {"stats": {}}
//! ```
//!
//! Events on standard output: `ready` (with the own address), `connected`, `disconnected`, `queued` (with the id and the
//! command's `tag`), `emitted`, `progress`, `received`, `unreadable`, `stats`, `error`. Times are nanoseconds since 1970;
//! durations are nanoseconds. A command that cannot be done is answered by an `error` and changes nothing.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tombola_node::entry::print_line;
use tombola_node::shutdown::Shutdown;

use crate::cli::{read_file, save_file};
use crate::content::Content;
use crate::home::Home;
use crate::session::{Client, Event, Received};

/// Longest command: a text of a mebibyte.
const LINE_MAX: usize = 1 << 20;
/// How long queued messages may take to leave once the input has ended.
const LAST_PATIENCE: Duration = Duration::from_secs(4);
/// Commands that may wait.
const COMMANDS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    Send(Send),
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
}

pub(crate) async fn serve(home: &Path, save: &Path) -> Result<()> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let home = Home::open(home)?;
    let mut client = Client::connect(&home).await?;
    say(&json!({ "event": "ready", "address": client.address().to_string() }));
    let mut commands = read_commands();
    loop {
        tokio::select! {
            _ = shutdown.triggered() => break,
            event = client.event() => match event {
                Some(event) => say(&describe(event, save)),
                None => return Err(client.ended().into()),
            },
            command = commands.recv() => match command {
                Some(Ok(command)) => {
                    if let Err(error) = obey(&client, command).await {
                        say(&json!({ "event": "error", "message": format!("{error:#}") }));
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
    for event in client.close().await {
        say(&describe(event, save));
    }
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

async fn obey(client: &Client, command: Command) -> Result<()> {
    match command {
        Command::Send(Send { to, text, file, tag }) => {
            let to = to.parse()?;
            let content = match (text, file) {
                (Some(text), None) => Content::Text(text),
                (None, Some(path)) => read_file(&path)?,
                _ => anyhow::bail!("\"send\" takes either \"text\" or \"file\""),
            };
            let id = client.send(&to, &content).await?;
            say(
                &json!({ "event": "queued", "id": id.to_string(), "tag": tag, "bytes": content.as_bytes().len() }),
            );
        }
        Command::Stats {} => {
            let counts = client.snapshot().await?;
            let lengths = client.received_lengths();
            say(&json!({
                "event": "stats",
                "emitted": {
                    "real": counts.sent.real,
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
                "dropped": counts.drops.iter().map(|(reason, n)| (*reason, n)).collect::<std::collections::BTreeMap<_, _>>(),
                "frame_lengths": lengths.iter().map(|(length, n)| (length.to_string(), n)).collect::<std::collections::BTreeMap<_, _>>(),
            }));
        }
    }
    Ok(())
}

fn describe(event: Event, save: &Path) -> Value {
    match event {
        Event::Connected => json!({ "event": "connected" }),
        Event::Disconnected => json!({ "event": "disconnected" }),
        Event::Emitted(emitted) => json!({
            "event": "emitted",
            "id": emitted.message.to_string(),
            "index": emitted.index,
            "count": emitted.count,
            "queued_ns": emitted.queued_ns,
            "emitted_ns": emitted.emitted_ns,
            "delays_ns": u64::try_from(emitted.delays.as_nanos()).unwrap_or(u64::MAX),
        }),
        Event::Progress { message, have, count } => {
            json!({ "event": "progress", "id": message.to_string(), "have": have, "count": count })
        }
        Event::Unreadable(message, error) => {
            json!({ "event": "unreadable", "id": message.to_string(), "message": error.to_string() })
        }
        Event::Received(received) => describe_received(&received, save),
    }
}

fn describe_received(received: &Received, save: &Path) -> Value {
    let mut value = json!({
        "event": "received",
        "id": received.message.to_string(),
        "bytes": received.content.as_bytes().len(),
        "packets": received.packets,
        "received_ns": received.received_ns,
        "held_ns": u64::try_from(received.held.as_nanos()).unwrap_or(u64::MAX),
    });
    match &received.content {
        Content::Text(text) => value["text"] = json!(text),
        Content::Bytes(bytes) => value["hex"] = json!(hex::encode(bytes)),
        Content::File { name, bytes } => {
            value["sha256"] = json!(hex::encode(Sha256::digest(bytes)));
            match save_file(save, name, bytes) {
                Ok(path) => value["file"] = json!(path.display().to_string()),
                Err(error) => value["error"] = json!(format!("{error:#}")),
            }
        }
    }
    value
}
