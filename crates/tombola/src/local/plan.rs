//! What a local network consists of, before anything is started: folders, keys, ports, the signed document,
//! configurations.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tombola_link::LinkSecret;
use tombola_node::clock::unix_now;
use tombola_node::keyring::public_key;
use tombola_node::keys::{Link, Secret, SecretFile, Sphinx};
use tombola_node::payment::PaymentConfig;
use tombola_node::{derive, files};
use tombola_protocol::view::EpochView;
use tombola_tickets::Address;
use tombola_topology::{
    AuthoritySecret, ChainAddress, Draft, Epoch, EpochDraft, EpochNumber, Network, Node, NodeIndex,
    Parameters, Role, UnixTime,
};

use super::bank::{Bank, Till};
use super::network::{LocalError, Options, Transport};
use super::ports;

/// A node that is going to be started.
#[derive(Clone, Debug)]
pub(super) struct PlannedNode {
    /// Such as "mix 2.1" or "gateway 1".
    pub(super) name: String,
    /// Its role.
    pub(super) role: Role,
    /// Its configuration file.
    pub(super) config: PathBuf,
}

/// A network that is going to be started.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) nodes: Vec<PlannedNode>,
    pub(super) network: Network,
    pub(super) document: PathBuf,
}

/// Ports that were free a moment ago. They are held until all have been found, so that none is given out twice.
struct Ports {
    held: Vec<(UdpSocket, TcpListener)>,
}

impl Ports {
    /// Multiaddresses on one port, free for UDP and TCP alike.
    fn addresses(&mut self, transport: Transport) -> io::Result<Vec<String>> {
        let (udp, tcp) = ports::bind_any(|port| {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            Ok((UdpSocket::bind((Ipv4Addr::LOCALHOST, tcp.local_addr()?.port()))?, tcp))
        })?;
        let port = tcp.local_addr()?.port();
        self.held.push((udp, tcp));
        let (tcp, quic) =
            (format!("/ip4/127.0.0.1/tcp/{port}"), format!("/ip4/127.0.0.1/udp/{port}/quic-v1"));
        Ok(match transport {
            Transport::Both => vec![tcp, quic],
            Transport::Tcp => vec![tcp],
            Transport::Quic => vec![quic],
        })
    }
}

/// The folder of a node of that name.
pub(super) fn home(folder: &Path, name: &str) -> PathBuf {
    folder.join(name.replace(' ', "-"))
}

/// Makes everything in `folder`.
pub(super) fn make(folder: &Path, options: &Options, bank: Option<&Bank>) -> Result<Plan, LocalError> {
    let parameters = options.parameters();
    let least = parameters.max_delay * (u32::from(parameters.layers) + 1);
    if options.epoch_length < least {
        return Err(LocalError::EpochShort { least });
    }
    let at = |source| LocalError::Folder { path: folder.to_owned(), source };
    let mut ports = Ports { held: Vec::new() };
    let authority = AuthoritySecret::from_seed(derive::random_seed().map_err(at)?);
    let document = folder.join("network.json");
    let mut nodes = Vec::new();
    let mut listed = Vec::new();
    let mut secrets = Vec::new();
    let roles = (1..=options.layers)
        .flat_map(|layer| (1..=options.width).map(move |n| (format!("mix {layer}.{n}"), Role::Mix { layer })))
        .chain((1..=options.gateways).map(|n| (format!("gateway {n}"), Role::Gateway)));
    for (name, role) in roles {
        let home = home(folder, &name);
        DirBuilder::new().mode(0o700).create(&home).map_err(at)?;
        let link = SecretFile::<Link>::new(home.join("link.key")).generate()?;
        let mut keys = Vec::new();
        for epoch in 1..=options.epochs.max(1) {
            let file = SecretFile::<Sphinx>::new(home.join(format!("sphinx/epoch-{epoch}.key")));
            file.generate()?;
            keys.push(public_key(&file)?);
        }
        let addresses = ports.addresses(options.transport).map_err(LocalError::Ports)?;
        let client_addresses = match role {
            Role::Gateway => ports.addresses(options.transport).map_err(LocalError::Ports)?,
            Role::Mix { .. } => Vec::new(),
        };
        let identity = LinkSecret::from_seed(*link.expose()).identity();
        let (account, payment) = bank.map(|bank| bank.till().account(&home)).transpose()?.unzip();
        listed.push(
            keys.into_iter()
                .map(|sphinx_key| Node {
                    role,
                    identity,
                    sphinx_key,
                    addresses: addresses.clone(),
                    client_addresses: client_addresses.clone(),
                    account: account.map(|account| ChainAddress(account.into())),
                })
                .collect::<Vec<_>>(),
        );
        secrets.push(link);
        let key = authority.key().to_string();
        let text = configuration(role, &document, &key, addresses, client_addresses, payment);
        let config = home.join("node.toml");
        files::replace(&config, text?.as_bytes(), 0o644).map_err(at)?;
        nodes.push(PlannedNode { name, role, config });
    }
    let now = unix_now();
    let length = options.epoch_length.as_secs();
    let end_of = |epoch: u64| now.saturating_add(epoch.saturating_mul(length));
    let epochs =
        (1..=u64::from(options.epochs.max(1))).zip(transposed(listed)).map(|(epoch, nodes)| EpochDraft {
            number: EpochNumber(epoch),
            valid_from: match epoch {
                // An hour of grace for a clock that is set back while the network runs.
                1 => UnixTime(now.saturating_sub(3600)),
                _ => UnixTime(end_of(epoch - 1)),
            },
            valid_until: UnixTime(end_of(epoch)),
            payment: bank.map(Bank::payment),
            nodes,
        });
    let draft = Draft { name: "local".to_owned(), serial: now, parameters, epochs: epochs.collect() };
    let network = draft.sign(&authority).map_err(|source| LocalError::Document(Box::new(source)))?;
    files::replace(&document, network.to_json().as_bytes(), 0o644).map_err(at)?;
    if let Some(bank) = bank {
        fund(bank.till(), &network, &secrets)?;
    }
    Ok(Plan { nodes, network, document })
}

/// Gives every node a deposit, reserves for those that it pays, and its accounts at gateways what they pay from.
fn fund(bank: &Till, network: &Network, secrets: &[Secret<Link>]) -> Result<(), LocalError> {
    let account_of = |epoch: &Epoch, index| {
        let account = epoch.node(index).and_then(|node| node.account)?;
        Some(Address::from(account.0))
    };
    let mut funded = BTreeSet::new();
    for epoch in network.epochs() {
        for (index, secret) in (0..).map(NodeIndex).zip(secrets) {
            let Some(own) = account_of(epoch, index) else { continue };
            if funded.insert((own, own)) {
                bank.deposit(own)?;
            }
            for next in epoch.successors(index) {
                let Some(next) = account_of(epoch, *next) else { continue };
                if funded.insert((own, next)) {
                    bank.reserve(own, next)?;
                }
            }
            let Ok(view) = EpochView::of(network, epoch) else { continue };
            for (gateway, account) in tombola_mixnode::paying_accounts(&view, secret.expose()) {
                let gateway = epoch.index_of(&gateway).and_then(|index| account_of(epoch, index));
                if let Some(gateway) = gateway {
                    bank.reserve(account, gateway)?;
                }
            }
        }
    }
    Ok(())
}

/// From the nodes' entries in all epochs to the epochs' lists of nodes.
fn transposed(nodes: Vec<Vec<Node>>) -> Vec<Vec<Node>> {
    let mut nodes: Vec<_> = nodes.into_iter().map(Vec::into_iter).collect();
    std::iter::from_fn(|| nodes.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>())
        .take_while(|list| !list.is_empty())
        .collect()
}

fn configuration(
    role: Role,
    document: &Path,
    authority: &str,
    listen: Vec<String>,
    client_listen: Vec<String>,
    payment: Option<PaymentConfig>,
) -> Result<String, LocalError> {
    let (network, authority) = (document.to_owned(), authority.to_owned());
    let (link_secret, sphinx_secrets) = (PathBuf::from("link.key"), Some(PathBuf::from("sphinx")));
    let (sphinx_secret, data) = (None, PathBuf::from("data"));
    let metrics = Some((Ipv4Addr::LOCALHOST, 0).into());
    // Many nodes share this machine's processors: none needs threads for packets that come one by one.
    let workers = Some(0);
    let text = match role {
        Role::Mix { .. } => toml::to_string(&tombola_mixnode::Config {
            network,
            authority,
            link_secret,
            sphinx_secrets,
            sphinx_secret,
            data,
            listen,
            metrics,
            workers,
            link_threads: 0,
            places: 16_384,
            payment,
        }),
        Role::Gateway => toml::to_string(&tombola_gateway::Config {
            network,
            authority,
            link_secret,
            sphinx_secrets,
            sphinx_secret,
            data,
            listen,
            client_listen,
            metrics,
            workers,
            link_threads: 0,
            places: 16_384,
            mail_packets: 262_144,
            clients_per_origin: 0,
            payment,
        }),
    };
    text.map_err(|source| LocalError::Folder { path: document.to_owned(), source: io::Error::other(source) })
}

/// The parameters that a local network has when nothing else is asked for.
pub(super) fn parameters(options: &Options) -> Parameters {
    let (layers, mean_delay) = (options.layers, options.mean_delay);
    let defaults = Parameters::default();
    // Of a short epoch at least the first half is left for its old share.
    let in_epoch = options.epoch_length / (2 * (u32::from(layers) + 1));
    let max_delay = defaults.max_delay.max(40 * mean_delay).min(in_epoch).max(4 * mean_delay);
    Parameters {
        layers,
        mean_delay,
        max_delay: Duration::from_millis(u64::try_from(max_delay.as_millis()).unwrap_or(u64::MAX)),
        loop_timeout: defaults.loop_timeout.max(30 * mean_delay),
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_the_transports_best_first() {
        for (transport, wanted) in [
            (Transport::Both, &["tcp", "quic"][..]),
            (Transport::Tcp, &["tcp"]),
            (Transport::Quic, &["quic"]),
        ] {
            let addresses = Ports { held: Vec::new() }.addresses(transport).unwrap();
            let kind = |address: &String| if address.ends_with("/quic-v1") { "quic" } else { "tcp" };
            assert!(addresses.iter().map(kind).eq(wanted.iter().copied()), "{addresses:?}");
        }
    }
}
