//! From a configuration file to a running mix node, and back down in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use tombola_link::{CLIENT_PROTOCOL, LinkConfig, Links, Peer, Policy};
use tombola_node::egress::Egress;
use tombola_node::entry::{RunFlags, Service};
use tombola_node::hop::{Hop, HopConfig, INPUTS};
use tombola_node::ingress::{InputSink, LinkChange};
use tombola_node::{config, derive, driver, meters};
use tombola_protocol::client::Client;
use tombola_protocol::frame::Frame;
use tombola_protocol::relay::{Relay, RelayInput, RelayOutput};
use tombola_topology::{IdentityKey, Role};

use crate::accounts;
use crate::config::Config;
use crate::machine::RelayMachine;

/// Frames that may wait for an account's gateway.
const ACCOUNT_QUEUE: usize = 256;

/// Arguments of the mix node.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "mixnode.toml")]
    pub config: PathBuf,
    #[command(flatten)]
    flags: RunFlags,
}

/// Runs a mix node until it is told to end.
///
/// # Errors
/// The configuration, a key, the network document or an address is unusable; each error says which and what to do.
pub fn run(args: &Args) -> Result<()> {
    args.flags.init_logging()?;
    let config: Config = config::load(&args.config)?;
    let base = args.config.parent().unwrap_or(Path::new("."));
    args.flags.runtime(config.link_threads)?.block_on(serve(&config, base, &args.flags))
}

async fn serve(config: &Config, base: &Path, flags: &RunFlags) -> Result<()> {
    let service = Service::start(flags, config.metrics).await?;
    let settings = HopConfig {
        base,
        network: &config.network,
        authority: &config.authority,
        link_secret: &config.link_secret,
        sphinx_secret: &config.sphinx_secret,
        listen: &config.listen,
        workers: config.workers,
        link_threads: config.link_threads,
        places: config.places,
    };
    let hop = Hop::load(&settings, |role| matches!(role, Role::Mix { .. }))?;
    let (inputs, received) = driver::inputs(INPUTS);
    let openers = hop.start_openers(&settings, &inputs, RelayInput::Opened, &service)?;
    let links = hop.start_links(&settings, &openers).await?;

    let mut all_links = vec![links.clone()];
    let mut gateways = Vec::new();
    let mut clients = Vec::new();
    for (account, drawn) in accounts::draw(&hop.view, hop.secret.expose()).into_iter().enumerate() {
        let client = Client::new(hop.clock.now(), Arc::clone(&hop.view), drawn.keys, derive::random_seed()?)
            .context("a gateway left the node list while it was read")?;
        clients.push(client);
        let mut link = LinkConfig::new(drawn.link, Policy::DialOnly, CLIENT_PROTOCOL);
        link.outbound_queue = ACCOUNT_QUEUE;
        let sink = InputSink::new(inputs.clone(), move |change| match change {
            LinkChange::Connected(_) => RelayInput::AccountLink { account, connected: true },
            LinkChange::Disconnected(_) => RelayInput::AccountLink { account, connected: false },
            LinkChange::Frame(_, frame) => RelayInput::AccountFrame { account, frame },
        })
        .without_padding();
        let gateway = Peer::dialled(drawn.gateway, drawn.addresses);
        let account_links = tombola_link::start(link, vec![gateway], Arc::new(sink)).await?;
        all_links.push(account_links.clone());
        gateways.push((drawn.gateway, account_links));
    }
    drop(inputs);

    let relay = Relay::new(
        hop.clock.now(),
        Arc::clone(&hop.view),
        links.identity(),
        clients,
        hop.occupancy.clone(),
        Arc::clone(&hop.drops),
        derive::random_seed()?,
    );
    let egress = Egress::new(links.clone(), Arc::clone(&hop.drops));
    let deliver = move |output| match output {
        RelayOutput::Forward { to, frame } => egress.send(&to, frame),
        RelayOutput::Account { account, frame } => send_for(&gateways, account, frame),
    };
    let machine = RelayMachine { relay, drops: Arc::clone(&hop.drops), openers: openers.way() };
    let driver = hop.start_driver(&settings, "relay", machine, received, deliver, &service)?;
    tokio::spawn(meters::publish_links(all_links.clone(), service.shutdown.clone()));
    tracing::info!("mix node started");
    service.announce(&links, None);
    hop.serve(&service, driver, all_links, openers, |_| Ok(())).await
}

/// An account that cannot send loses cover only.
fn send_for(gateways: &[(IdentityKey, Links)], account: usize, frame: Frame) {
    if let Some((gateway, links)) = gateways.get(account) {
        let _ = links.send(gateway, frame);
    }
}
