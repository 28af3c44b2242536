//! From a configuration file to a running mix node, and back down in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;
use tombola_node::egress::Egress;
use tombola_node::entry::{RunFlags, Service, print_line};
use tombola_node::hop::{Hop, HopConfig, INPUTS};
use tombola_node::ingress::{InputSink, LinkChange};
use tombola_node::payment::{PaymentInput, wind_up};
use tombola_node::settled::Settled;
use tombola_node::{config, derive, driver};
use tombola_protocol::relay::{Relay, RelayInput, RelayOutput};
use tombola_topology::Role;

use crate::accounts::{AccountKeeper, AccountLinks, AccountPurses};
use crate::config::Config;
use crate::machine::RelayMachine;

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
        sphinx_secret: config.sphinx_secret.as_deref(),
        sphinx_secrets: config.sphinx_secrets.as_deref(),
        data: &config.data,
        listen: &config.listen,
        workers: config.workers,
        link_threads: config.link_threads,
        places: config.places,
        payment: config.payment.as_ref(),
    };
    let mut hop = Hop::load(&settings, |role| matches!(role, Role::Mix { .. }))?;
    let (inputs, received) = driver::inputs(INPUTS);
    let paid = hop.open_payment(&settings, &service).await?;
    let openers = hop.start_openers(&settings, &inputs, RelayInput::Opened, &service)?;
    let control = paid.is_some().then(|| {
        InputSink::new(inputs.clone(), |change| match change {
            LinkChange::Connected(peer) => RelayInput::Link { peer, up: true },
            LinkChange::Disconnected(peer) => RelayInput::Link { peer, up: false },
            LinkChange::Frame(peer, frame) => RelayInput::Control(peer, frame),
        })
    });
    let links = hop.start_links(&settings, &openers, control).await?;

    let standing = hop.standing_now();
    let account_links = AccountLinks::default();
    let mut relay = Relay::new(
        hop.clock.now(),
        standing.send.clone(),
        links.identity(),
        Vec::new(),
        hop.occupancy.clone(),
        Arc::clone(&hop.drops),
        derive::random_seed()?,
    );
    let (mut purse, mut bank, mut chain) = (None, None, None);
    let (needs, needed) = watch::channel(Vec::new());
    if let Some(paid) = paid {
        chain = Some(paid.client_chain());
        tokio::spawn(paid.funder()?.run(needed, service.shutdown.clone()));
        let input_of = |input| match input {
            PaymentInput::Fact(fact) => RelayInput::Fact(fact),
            PaymentInput::Durable(count) => RelayInput::Durable(count),
        };
        let (payments, kept, teller) = paid.start(&inputs, input_of, &service.shutdown)?;
        relay = relay.with_payments(hop.clock.now(), payments, &standing.open);
        (purse, bank) = (Some(kept), Some(teller));
    }
    let account_purses = AccountPurses::default();
    let winding_up = inputs.clone();
    let mut keeper = AccountKeeper {
        secret: Arc::clone(&hop.secret),
        clock: hop.clock,
        data: hop.data.path().to_owned(),
        chain,
        bank: bank.clone(),
        purses: account_purses.clone(),
        needs,
        stop: service.shutdown.clone(),
        inputs,
        links: account_links.clone(),
        registry: hop.links.clone(),
        count: 0,
        watching: Vec::new(),
        told: None,
    };
    keeper.apply(&standing).await?;
    let hastened = bank.clone();
    let mut egress = Egress::new(links.clone(), Arc::clone(&hop.drops));
    let deliver = move |output| match output {
        RelayOutput::Forward { to, frame } => egress.send(&to, frame),
        RelayOutput::Account { account, frame } => account_links.send(account, frame),
        RelayOutput::Claim(claim) => {
            if let Some(bank) = &bank {
                bank.claim(*claim);
            }
        }
        // A mix node has no clients.
        RelayOutput::Watch { .. } | RelayOutput::Forget { .. } => {}
        RelayOutput::Settled(sum) => print_line(Settled::from(&*sum).line()),
    };
    let machine =
        RelayMachine { relay, drops: Arc::clone(&hop.drops), openers: openers.way(), purse, account_purses };
    let driver = hop.start_driver(&settings, "relay", machine, received, deliver, &service)?;
    hop.start_rotation(&links, keeper.bank.clone(), &service)?;
    tokio::spawn(keeper.follow(hop.standing.clone(), service.shutdown.clone()));
    tokio::spawn(hop.links.clone().publish(service.shutdown.clone()));
    tokio::spawn(wind_up(service.wind_up.clone(), winding_up, hastened, || RelayInput::WindUp));
    tracing::info!("mix node started");
    service.announce(&links, None);
    hop.serve(&service, driver, openers, RelayMachine::close).await
}
