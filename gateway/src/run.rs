//! From a configuration file to a running gateway, and back down in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;
use tombola_link::{CLIENT_PROTOCOL, ClientLimits, LinkConfig, Policy};
use tombola_mixing::Time;
use tombola_node::driver::Inputs;
use tombola_node::egress::Egress;
use tombola_node::entry::{RunFlags, Service, print_line};
use tombola_node::hop::{Hop, HopConfig, INPUTS};
use tombola_node::ingress::{InputSink, LinkChange};
use tombola_node::payment::{Bank, PaymentInput, wind_up};
use tombola_node::rotation::Standing;
use tombola_node::settled::Settled;
use tombola_node::shutdown::Shutdown;
use tombola_node::{config, derive, driver};
use tombola_protocol::frame::Frame;
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayMail};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_topology::Role;

use crate::config::Config;
use crate::disk::MailFile;
use crate::machine::{GatewayMachine, Out};

/// Frames that may wait for one client, some seconds of the downlink's pace; more mail stays in the mailbox.
const CLIENT_QUEUE: usize = 64;

/// Arguments of the gateway.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "gateway.toml")]
    pub config: PathBuf,
    #[command(flatten)]
    flags: RunFlags,
}

/// Runs a gateway until it is told to end.
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
    let mut hop = Hop::load(&settings, |role| matches!(role, Role::Gateway))?;
    let (inputs, received) = driver::inputs(INPUTS);
    let (mail, stored) = MailFile::open(&base.join(&config.data))?;
    let clock = WallClock { at_zero: UnixNanos(hop.clock.unix_nanos(Time::ZERO)) };
    let paid = hop.open_payment(&settings, &service).await?;
    let mut gateway = Gateway::new(
        hop.clock.now(),
        &hop.parameters,
        hop.standing_now().open.clone(),
        GatewayMail { packets: config.mail_packets, clock, stored },
        hop.occupancy.clone(),
        Arc::clone(&hop.drops),
        derive::random_seed()?,
    );
    let disk = mail.start(&inputs)?;
    let (mut purse, mut bank) = (None, None);
    if let Some(paid) = paid {
        let input_of = |input| match input {
            PaymentInput::Fact(fact) => GatewayInput::Fact(fact),
            PaymentInput::Durable(count) => GatewayInput::PaymentDurable(count),
        };
        let (payments, kept, chain) = paid.start(&inputs, input_of, &service.shutdown)?;
        gateway = gateway.with_payments(hop.clock.now(), payments);
        (purse, bank) = (Some(kept), Some(chain));
    }
    let openers = hop.start_openers(&settings, &inputs, GatewayInput::Opened, &service)?;
    let control = bank.is_some().then(|| {
        InputSink::new(inputs.clone(), |change| match change {
            LinkChange::Connected(peer) => GatewayInput::Link { peer, up: true },
            LinkChange::Disconnected(peer) => GatewayInput::Link { peer, up: false },
            LinkChange::Frame(peer, frame) => GatewayInput::Control(peer, frame),
        })
    });
    let links = hop.start_links(&settings, &openers, control).await?;

    let limits = ClientLimits {
        max_connections: hop.parameters.clients_per_gateway as usize,
        max_per_origin: (config.clients_per_origin > 0).then_some(config.clients_per_origin),
        ..ClientLimits::default()
    };
    let mut client_config = LinkConfig::new(hop.link_secret(), Policy::Clients(limits), CLIENT_PROTOCOL);
    client_config.listen.clone_from(&config.client_listen);
    client_config.outbound_queue = CLIENT_QUEUE;
    client_config.parting = Some(Frame::displaced());
    let sink = InputSink::new(inputs.clone(), |change| match change {
        LinkChange::Connected(client) => GatewayInput::ClientConnected(client),
        LinkChange::Disconnected(client) => GatewayInput::ClientDisconnected(client),
        LinkChange::Frame(client, frame) => GatewayInput::ClientFrame(client, frame),
    });
    let client_links = tombola_link::start(client_config, Vec::new(), Arc::new(sink)).await?;
    hop.links.add(client_links.clone());
    let (epochs, winding_up) = (inputs.clone(), inputs.clone());

    let hastened = bank.clone();
    let mut egress = Egress::new(links.clone(), Arc::clone(&hop.drops));
    let teller = bank.clone();
    let deliver = move |out: Option<Out>| match (out, &teller) {
        (Some(Out::Forward(to, frame)), _) => egress.send(&to, frame),
        (Some(Out::Claim(claim)), Some(bank)) => bank.claim(*claim),
        (Some(Out::Watch(account, signer)), Some(bank)) => bank.watch(account, signer),
        (Some(Out::Forget(account, signer)), Some(bank)) => bank.forget(account, signer),
        (Some(Out::Settled(sum)), _) => print_line(Settled::from(&*sum).line()),
        // Without payment there is nothing to claim.
        (Some(Out::Claim(_) | Out::Watch(..) | Out::Forget(..)), None) | (None, _) => {}
    };
    let machine = GatewayMachine {
        gateway,
        disk,
        clients: client_links.clone(),
        drops: Arc::clone(&hop.drops),
        openers: openers.way(),
        last: hop.clock.now(),
        purse,
    };
    let driver = hop.start_driver(&settings, "gateway", machine, received, deliver, &service)?;
    hop.start_rotation(&links, bank.clone(), &service)?;
    tokio::spawn(follow(hop.standing.clone(), epochs, bank, service.shutdown.clone()));
    tokio::spawn(hop.links.clone().publish(service.shutdown.clone()));
    tokio::spawn(wind_up(service.wind_up.clone(), winding_up, hastened, || GatewayInput::WindUp));
    tracing::info!("gateway started");
    service.announce(&links, Some(&client_links));
    hop.serve(&service, driver, openers, GatewayMachine::close).await
}

/// Tells the driver which epochs' packets are taken, whenever that changes.
async fn follow(
    mut standing: watch::Receiver<Arc<Standing>>,
    inputs: Inputs<GatewayInput>,
    bank: Option<Bank>,
    stop: Shutdown,
) {
    loop {
        let open = standing.borrow_and_update().open.clone();
        if let Some(bank) = &bank {
            bank.follow(&open);
        }
        inputs.pass(GatewayInput::Views(Box::new(open))).await;
        tokio::select! {
            _ = stop.triggered() => return,
            changed = standing.changed() => if changed.is_err() { return },
        }
    }
}
