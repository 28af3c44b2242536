//! Every mistake in a configuration file gets a message that says where it is and what to do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tombola_node::config::{self, ConfigError};

#[derive(Debug, Deserialize, PartialEq)]
struct Node {
    network: String,
    metrics: Option<SocketAddr>,
    #[serde(default = "default_grace", with = "config::duration")]
    grace: Duration,
    #[serde(default)]
    mode: Mode,
    link: Link,
    #[serde(default)]
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize, PartialEq, Default)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Public,
    Private,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Link {
    listen: Vec<String>,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    share: f64,
    #[serde(default)]
    offset: i32,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Peer {
    name: Name,
    #[serde(default)]
    tcp: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Name(String);

fn default_grace() -> Duration {
    Duration::from_secs(2)
}

const GOOD: &str = r#"
network = "network.json"
metrics = "127.0.0.1:9100"
grace = "15ms"
mode = "private"

[link]
listen = ["/ip4/127.0.0.1/udp/0/quic-v1"]
port = 0x1f90
share = 0.5
offset = -3

[[peers]]
name = "a"
tcp = true

[[peers]]
name = "b"
"#;

fn error(text: &str) -> ConfigError {
    config::parse::<Node>(Path::new("node.toml"), text).unwrap_err()
}

/// The message for `GOOD` with one replacement.
fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from));
    error(&GOOD.replacen(from, to, 1)).to_string()
}

#[test]
fn a_good_file_is_read() {
    let node: Node = config::parse(Path::new("node.toml"), GOOD).unwrap();
    assert_eq!(node.metrics, Some("127.0.0.1:9100".parse().unwrap()));
    assert_eq!(node.grace, Duration::from_millis(15));
    assert_eq!(node.mode, Mode::Private);
    let link =
        Link { listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()], port: 8080, share: 0.5, offset: -3 };
    assert_eq!(node.link, link);
    assert_eq!(node.peers[1], Peer { name: Name("b".into()), tcp: false });
}

#[test]
fn defaults_fill_in() {
    let node: Node = config::parse(Path::new("n"), "network = \"n\"\nlink = { listen = [] }").unwrap();
    assert_eq!((node.grace, node.mode, node.metrics), (Duration::from_secs(2), Mode::Public, None));
}

#[test]
fn unknown_keys_are_errors_at_every_depth() {
    assert_eq!(
        broken("metrics =", "metrisc ="),
        "node.toml, line 3: unknown key \"metrisc\"; did you mean \"metrics\"?"
    );
    assert_eq!(
        broken("listen =", "lisen ="),
        "node.toml, line 8: unknown key \"link.lisen\"; did you mean \"listen\"?"
    );
    assert_eq!(broken("[link]", "[lnik]"), "node.toml, line 7: unknown key \"lnik\"; did you mean \"link\"?");
    assert_eq!(
        broken("tcp = true", "quic = true"),
        "node.toml, line 15: unknown key \"peers[0].quic\"; valid here: name, tcp"
    );
}

#[test]
fn missing_keys_are_named() {
    assert_eq!(
        broken("network = \"network.json\"", ""),
        "node.toml: the key \"network\" is missing; it has no default"
    );
    assert_eq!(
        broken("name = \"b\"", ""),
        "node.toml: the key \"peers[1].name\" is missing; it has no default"
    );
}

#[test]
fn wrong_types_and_values_are_named_with_their_line() {
    let cases = [
        (
            "grace = \"15ms\"",
            "grace = 15",
            "node.toml, line 4: \"grace\": expected a string, found integer `15`",
        ),
        (
            "\"15ms\"",
            "\"15 minutes\"",
            "node.toml, line 4: \"grace\": expected one whole number and one unit (ns, us, ms, s, m, h or d), like \
             \"250ms\", found \"15 minutes\"",
        ),
        ("\"127.0.0.1:9100\"", "\"9100\"", "node.toml, line 3: \"metrics\": invalid socket address syntax"),
        (
            "\"private\"",
            "\"privat\"",
            "node.toml, line 5: \"mode\": unknown value \"privat\"; did you mean \"private\"?",
        ),
        (
            "\"private\"",
            "\"x\"",
            "node.toml, line 5: \"mode\": unknown value \"x\"; valid here: public, private",
        ),
        ("\"private\"", "1", "node.toml, line 5: \"mode\": expected a string"),
        ("0x1f90", "70000", "node.toml, line 9: \"link.port\": expected u16, found integer `70000`"),
        (
            "0x1f90",
            "99999999999999999999",
            "node.toml, line 9: \"link.port\": the number 99999999999999999999 is too large",
        ),
        (
            "[\"/ip4/127.0.0.1/udp/0/quic-v1\"]",
            "[\"a\", 5]",
            "node.toml, line 8: \"link.listen[1]\": expected a string, found integer `5`",
        ),
        (
            "tcp = true",
            "tcp = \"yes\"",
            "node.toml, line 15: \"peers[0].tcp\": expected a boolean, found string \"yes\"",
        ),
        (
            "name = \"a\"",
            "name = []",
            "node.toml, line 14: \"peers[0].name\": expected a string, found sequence",
        ),
        (
            "tcp = true",
            "tcp = 2020-01-01",
            "node.toml, line 15: \"peers[0].tcp\": a date is not expected here; put a text into quotation marks",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(broken(from, to), expected);
    }
    assert_eq!(
        error("network = \"n\"\nlink = 5").to_string(),
        "node.toml, line 2: \"link\": expected a table, found a value of type integer"
    );
}

#[test]
fn a_check_of_the_whole_file_has_no_line() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "Node")]
    struct Checked;
    impl TryFrom<Node> for Checked {
        type Error = &'static str;
        fn try_from(node: Node) -> Result<Self, Self::Error> {
            if node.peers.len() == 2 { Err("there must not be two peers") } else { Ok(Checked) }
        }
    }
    let error = config::parse::<Checked>(Path::new("node.toml"), GOOD).unwrap_err();
    assert_eq!(error.to_string(), "node.toml, as a whole: there must not be two peers");
}

#[test]
fn syntax_errors_have_a_place() {
    let ConfigError::Syntax { line, column, .. } = error("network = \"n\"\ngrace = = 1\n") else { panic!() };
    assert_eq!((line, column), (2, 9));
    assert!(matches!(error("a = 1\na = 2\n"), ConfigError::Syntax { line: 2, .. }));
    assert!(matches!(error("x = \"unfinished"), ConfigError::Syntax { line: 1, .. }));
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let load = |path: &Path| config::load::<Node>(path).unwrap_err();
    let path = directory.path().join("node.toml");
    assert!(matches!(load(&path), ConfigError::Missing { .. }));
    assert_eq!(load(&path).to_string(), format!("{}: there is no such file", path.display()));
    assert!(matches!(load(directory.path()), ConfigError::Unreadable { .. }));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(load(&path), ConfigError::Unreadable { .. }));
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(matches!(load(&path), ConfigError::TooLarge { .. }));
    std::fs::write(&path, GOOD).unwrap();
    assert!(config::load::<Node>(&path).is_ok());
}

#[test]
fn a_file_of_a_later_version_is_named_as_that_whatever_else_is_in_it() {
    #[derive(Debug, Deserialize)]
    struct Written {
        version: Option<u32>,
        name: String,
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("written.toml");
    let load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        config::load_versioned::<Written>(&path, 2)
    };
    for (text, version) in
        [("name = 'a'", None), ("version = 1\nname = 'a'", Some(1)), ("version = 2\nname = 'a'", Some(2))]
    {
        let written = load(text).unwrap();
        assert_eq!((written.version, written.name.as_str()), (version, "a"));
    }
    for text in ["version = 3\nname = 'a'", "names = ['a', 'b']\nversion = 3"] {
        let error = load(text).unwrap_err();
        assert!(matches!(error, ConfigError::Version { found: 3, newest: 2, .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("written.toml") && message.contains("version 3"), "{message}");
    }
    assert!(matches!(load("version = 'three'\nname = 'a'"), Err(ConfigError::Value { .. })));
    assert!(matches!(load("version = -1\nname = 'a'"), Err(ConfigError::Value { .. })));
    assert!(matches!(load("version = 2\nnames = 'a'"), Err(ConfigError::UnknownKey { .. })));
}
