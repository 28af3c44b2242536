//! `tombola network`: what the authority of a network does, and what its nodes bring to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tombola_link::LinkSecret;
use tombola_node::clock::{unix_now, unix_time_now};
use tombola_node::entry::print_line;
use tombola_node::files;
use tombola_node::keyring::public_key;
use tombola_node::keys::{Authority, KeyError, Link, SecretFile, Sphinx};
use tombola_node::membership::{current_view, load_network};
use tombola_topology::{AuthoritySecret, Draft, Epoch, Network, Role, SphinxKey};

/// Arguments of `tombola network`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Make the key of an authority; prints the public key that participants' configurations name.
    Keygen {
        /// Where the secret is written.
        #[arg(long, value_name = "FILE", default_value = "authority/secret.key")]
        secret: PathBuf,
    },
    /// Make the keys of a node, link.key and sphinx/1.key; prints its entry for the network document, to be completed with
    /// role and addresses.
    NodeKeys {
        /// The node's folder.
        #[arg(long, value_name = "DIR", default_value = "node")]
        home: PathBuf,
        /// Only add another Sphinx key, for an epoch to come; prints its public key, for the document.
        #[arg(long)]
        next: bool,
    },
    /// Sign a document: {"network": {...}}.
    Sign {
        /// The document, unsigned or signed before.
        draft: PathBuf,
        /// The authority's secret.
        #[arg(long, value_name = "FILE", default_value = "authority/secret.key")]
        secret: PathBuf,
        /// Where the signed document is written.
        #[arg(long, value_name = "FILE", default_value = "network.json")]
        out: PathBuf,
    },
    /// Check a document as participants do, and show what it says.
    Check {
        /// The signed document.
        document: PathBuf,
        /// The authority's public key.
        #[arg(long, value_name = "KEY")]
        authority: String,
    },
}

/// Runs one command.
///
/// # Errors
/// A file is unusable, or the document is not valid.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Keygen { secret } => {
            let secret = SecretFile::<Authority>::new(secret).generate()?;
            print_line(AuthoritySecret::from_seed(*secret.expose()).key());
        }
        Command::NodeKeys { home, next: false } => node_keys(home)?,
        Command::NodeKeys { home, next: true } => print_line(add_sphinx_key(home)?),
        Command::Sign { draft, secret, out } => {
            let secret = SecretFile::<Authority>::new(secret).load()?;
            let text = std::fs::read_to_string(draft)
                .with_context(|| format!("{}: cannot be read", draft.display()))?;
            let name = || draft.display().to_string();
            let network = Draft::from_json(&text)
                .and_then(|draft| draft.sign(&AuthoritySecret::from_seed(*secret.expose())))
                .with_context(name)?;
            files::replace(out, network.to_json().as_bytes(), 0o644)
                .with_context(|| format!("{}: cannot be written", out.display()))?;
            print_line(format_args!("{}: signed by {}", out.display(), network.authority()));
        }
        Command::Check { document, authority } => check(document, authority)?,
    }
    Ok(())
}

fn node_keys(home: &Path) -> Result<()> {
    let link = SecretFile::<Link>::new(home.join("link.key")).generate()?;
    let sphinx_key = add_sphinx_key(home)?;
    let entry = json!({
        "role": "mix",
        "layer": 1,
        "identity": LinkSecret::from_seed(*link.expose()).identity().to_string(),
        "sphinx_key": sphinx_key.to_string(),
        "addresses": ["/ip4/192.0.2.1/tcp/9000", "/ip4/192.0.2.1/udp/9000/quic-v1"],
    });
    print_line(format_args!("{entry:#}"));
    Ok(())
}

/// Makes a key under the next number that is free. What it is called does not matter to the node.
fn add_sphinx_key(home: &Path) -> Result<SphinxKey> {
    let folder = home.join("sphinx");
    let mut number = 1_u32;
    loop {
        let file = SecretFile::<Sphinx>::new(folder.join(format!("{number}.key")));
        match file.generate() {
            Ok(_) => return Ok(public_key(&file)?),
            Err(KeyError::Exists(_)) => number += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

fn check(document: &Path, authority: &str) -> Result<()> {
    let authority = authority.parse().context("the authority's key")?;
    let network = load_network(document, &authority)?;
    print_line(format_args!("{} (serial {}), signed by {authority}", network.name(), network.serial()));
    let now = unix_time_now();
    for epoch in network.epochs() {
        let gateways = epoch.gateways().len();
        let layers: Vec<String> =
            (1..=epoch.layers()).map(|layer| epoch.layer(layer).len().to_string()).collect();
        print_line(format_args!(
            "epoch {}, Unix time {} to {} ({}): {gateways} gateways, layers of {} mix nodes",
            epoch.number().0,
            epoch.valid_from().0,
            epoch.valid_until().0,
            state_of(&network, epoch, now),
            layers.join(", "),
        ));
        for node in epoch.nodes() {
            let role = match node.role {
                Role::Mix { layer } => format!("mix {layer}"),
                Role::Gateway => "gateway".to_owned(),
            };
            let (identity, key) = (node.identity, node.sphinx_key);
            print_line(format_args!("  {role:<8} {identity} key {key} {}", node.addresses.join(" ")));
        }
    }
    let view = current_view(document, &network)?;
    print_line(format_args!("valid now (Unix time {}), epoch {}", unix_now(), view.epoch().number().0));
    Ok(())
}

/// What an epoch is used for at an instant.
fn state_of(network: &Network, epoch: &Epoch, now: Duration) -> String {
    let seconds = Duration::from_secs;
    if now < seconds(epoch.valid_from().0) {
        return "to come".to_owned();
    }
    if now < seconds(epoch.valid_until().0) {
        return match network.after(epoch) {
            Some(next) => format!("now; its keys are accepted until {}", next.valid_until().0),
            None => "now; no other is announced to follow".to_owned(),
        };
    }
    if now < network.death(epoch) { "before this one; its keys are still accepted" } else { "over" }
        .to_owned()
}
