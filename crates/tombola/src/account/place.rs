//! Whose account it is: what is in a client's folder, or in a node's configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tombola_client::Home;
use tombola_node::account::OpenAccount;
use tombola_node::clock::unix_now;
use tombola_node::config::{self, ConfigError};
use tombola_node::keys::{Link, Secret, SecretFile};
use tombola_node::membership::load_network;
use tombola_node::payment::PaymentConfig;
use tombola_tickets::Address;
use tombola_topology::{ChainAddress, IdentityKey, Network, UnixTime};

/// An owner, and what it pays with.
pub(super) struct Place {
    /// Where relative paths start.
    base: PathBuf,
    payment: PaymentConfig,
    pub(super) network: Network,
    pub(super) owner: Owner,
}

/// What there is besides the account.
pub(super) enum Owner {
    /// A client, and its gateway.
    Client(IdentityKey),
    /// A node.
    Node {
        /// What must survive it.
        data: PathBuf,
        /// Its identity.
        link: SecretFile<Link>,
    },
}

/// What a configuration has in common, whichever role it is of.
struct NodeConfig {
    network: PathBuf,
    authority: String,
    link_secret: PathBuf,
    data: PathBuf,
    payment: Option<PaymentConfig>,
}

impl NodeConfig {
    /// It is of the role as whose configuration it can be read: gateways must have keys that mix nodes must not have.
    fn load(path: &Path) -> Result<Self, ConfigError> {
        let of_mix = match config::load(path) {
            Ok(tombola_mixnode::Config { network, authority, link_secret, data, payment, .. }) => {
                return Ok(Self { network, authority, link_secret, data, payment });
            }
            Err(error) => error,
        };
        match config::load(path) {
            Ok(tombola_gateway::Config { network, authority, link_secret, data, payment, .. }) => {
                Ok(Self { network, authority, link_secret, data, payment })
            }
            // What is wrong with it is said by the role that understands more of it.
            Err(of_gateway) if understood(&of_gateway) > understood(&of_mix) => Err(of_gateway),
            Err(_) => Err(of_mix),
        }
    }
}

/// As far as this line every key is known.
fn understood(error: &ConfigError) -> usize {
    match error {
        ConfigError::UnknownKey { line, .. } => *line,
        _ => usize::MAX,
    }
}

impl Place {
    pub(super) fn of_node(path: &Path) -> Result<Self> {
        let NodeConfig { network, authority, link_secret, data, payment } = NodeConfig::load(path)?;
        let Some(payment) = payment else {
            bail!("{}: there is no section \"payment\", so it has no account", path.display());
        };
        let base = path.parent().unwrap_or(Path::new(".")).to_owned();
        let authority = authority.parse().context("the key \"authority\" of the configuration")?;
        let network = load_network(&base.join(network), &authority)?;
        let owner = Owner::Node { data: base.join(data), link: SecretFile::new(base.join(link_secret)) };
        Ok(Self { base, payment, network, owner })
    }

    pub(super) fn of_client(home: &Path) -> Result<Self> {
        let found = Home::payer_in(home)?;
        let Some(payment) = found.payment else {
            bail!("{}: there is no payment.toml, so this client has no account", home.display());
        };
        let (network, owner) = (found.network, Owner::Client(found.gateway));
        Ok(Self { base: home.to_owned(), payment, network, owner })
    }

    /// Opens key and chain.
    pub(super) async fn open(&self, patience: Duration) -> Result<OpenAccount> {
        OpenAccount::open(&self.payment, &self.base, &self.network, patience).await
    }

    /// A node's link secret.
    pub(super) fn secret(&self) -> Result<Option<Secret<Link>>> {
        match &self.owner {
            Owner::Client(_) => Ok(None),
            Owner::Node { link, .. } => Ok(Some(link.load()?)),
        }
    }

    /// The node to which an account belongs, if the document says so: the latest epoch that does counts.
    pub(super) fn node_of(&self, account: Address) -> Option<IdentityKey> {
        let account = ChainAddress(account.into());
        let epochs = self.network.epochs().iter().rev();
        let mut nodes = epochs.flat_map(|epoch| epoch.nodes());
        nodes.find(|node| node.account == Some(account)).map(|node| node.identity)
    }

    /// The account of a node, now or in the epoch that comes next.
    fn account_of(&self, identity: &IdentityKey) -> Option<Address> {
        let now = UnixTime(unix_now());
        let mut epochs = self.network.epochs().iter().filter(|epoch| epoch.valid_until() > now);
        epochs.find_map(|epoch| {
            let node = epoch.node(epoch.index_of(identity)?)?;
            Some(Address::from(node.account?.0))
        })
    }

    /// Who is to rely on a reserve: an address, a node's identity, or a client's `gateway`.
    pub(super) fn recipient(&self, text: &str) -> Result<Address> {
        if text.starts_with("0x") {
            return address(text).context("the recipient");
        }
        let identity: IdentityKey = match (text, &self.owner) {
            ("gateway", Owner::Client(gateway)) => *gateway,
            _ => text.parse().with_context(|| {
                format!(
                    "the recipient {text:?} is neither an address (0x and 40 hex digits), nor the identity of a node, nor, for a client, \
                     \"gateway\""
                )
            })?,
        };
        let account = self.account_of(&identity);
        account.with_context(|| format!("the network document names no account for the node {identity}"))
    }

    /// An address, and the node's identity if it is one's.
    pub(super) fn name(&self, account: Address) -> String {
        match self.node_of(account) {
            Some(identity) => format!("{account} (node {})", &identity.to_string()[..8]),
            None => account.to_string(),
        }
    }
}

/// An address. If it has capital and small letters they are its checksum (EIP-55).
pub(super) fn address(text: &str) -> Result<Address> {
    let plain = text.strip_prefix("0x").unwrap_or(text);
    let has = |is: fn(&char) -> bool| plain.chars().any(|c| is(&c));
    if has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase) {
        return Address::parse_checksummed(text, None).with_context(|| {
            format!(
                "{text:?} is mistyped, or no address: its capital letters are a checksum that does not match"
            )
        });
    }
    let parsed: ChainAddress =
        text.parse().with_context(|| format!("{text:?} is no address: it has 0x and 40 hex digits"))?;
    Ok(Address::from(parsed.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIX: &str = "network = \"n\"\nauthority = \"a\"\nlink_secret = \"l\"\nlisten = []\n";
    const GATEWAY: &str = "client_listen = []\n";

    fn load(text: &str) -> Result<NodeConfig, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        NodeConfig::load(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_configuration_is_read_whichever_role_it_is_of() {
        let payment = "[payment]\nrpc_url = \"u\"\nkeystore = \"k\"\npassword = \"p\"\n";
        for (text, data) in [
            (MIX.to_owned(), "data"),
            (format!("{MIX}{GATEWAY}"), "data"),
            (format!("{MIX}data = \"other\"\n{GATEWAY}"), "other"),
        ] {
            let config = load(&format!("{text}{payment}")).unwrap();
            assert_eq!((config.data.as_path(), config.payment.is_some()), (Path::new(data), true), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_explained_by_the_role_that_knows_the_other_keys() {
        for (text, expected) in [
            (format!("{MIX}plcaes = 5\n"), "did you mean \"places\"?"),
            (format!("{MIX}mail_packets = 5\n"), "the key \"client_listen\" is missing"),
            (format!("{MIX}{GATEWAY}mial_packets = 5\n"), "did you mean \"mail_packets\"?"),
            (format!("{MIX}{GATEWAY}[payment]\nrcp_url = \"u\"\n"), "did you mean \"rpc_url\"?"),
            (format!("{MIX}[payment]\nrcp_url = \"u\"\n"), "did you mean \"rpc_url\"?"),
            ("= 5".to_owned(), "line 1"),
        ] {
            let error = load(&text).err().unwrap();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let missing = NodeConfig::load(Path::new("/none/such.toml")).err().unwrap();
        assert!(missing.to_string().contains("there is no such file"));
    }

    #[test]
    fn a_mistyped_address_is_refused() {
        let right = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        assert_eq!(address(right).unwrap(), address(&right.to_lowercase()).unwrap());
        for wrong in
            [right.replace("5aA", "5aa"), right.replace("Aed", "aed"), right[..41].to_owned(), "0x".into()]
        {
            assert!(address(&wrong).is_err(), "{wrong}");
        }
        assert!(address(&right[2..]).is_err());
    }
}
