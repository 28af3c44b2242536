//! A client's folder: its keys, its settings, the network document.
//!
//! ```text
//! client.toml     version, gateway, authority
//! network.json    the network document
//! link.key        link identity, mode 0600
//! sphinx.key      Sphinx key, mode 0600
//! client.redb     outbox, inbox, reply blocks: see `crates/protocol/src/records.rs`
//! lineage.toml    serial number and digest of the document that was in force last
//! payment.toml    in a network with payment: the chain, and where the account's key is
//! tickets.redb    in a network with payment: what was signed
//! lock            held by the process that uses this client
//! ```

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tombola_link::LinkSecret;
use tombola_mixing::Rng;
use tombola_node::clock::unix_now;
use tombola_node::config::{self, ConfigError};
use tombola_node::derive;
use tombola_node::files::{self, Lock};
use tombola_node::keys::{KeyError, Link, SecretFile, Sphinx};
use tombola_node::membership::{MembershipError, current_view, load_network};
use tombola_node::payment::PaymentConfig;
use tombola_node::reload::{Documents, Lineage, ReloadError};
use tombola_protocol::client::ClientKeys;
use tombola_protocol::records::{OutboxMessage, Restore, tables};
use tombola_protocol::view::{EpochView, ViewError};
use tombola_sphinx::SecretKey;
use tombola_storage::{Format, Store, StoreError};
use tombola_topology::{AuthorityKey, ClientAddress, IdentityKey, MailboxId, Network, SphinxKey, UnixTime};

use crate::signed::Signer;

/// Version of what is in `client.redb`.
const STORE: Format = Format { name: "tombola-client", version: 1 };

/// Version of the folder, in `client.toml`. Version 1, of Tombola 0.1, had no such key.
const VERSION: u32 = 2;

/// `client.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Version of the folder.
    #[serde(default = "first_version")]
    version: u32,
    /// The key that signs the network document: 64 hexadecimal digits.
    authority: String,
    /// The gateway's identity: 64 hexadecimal digits.
    gateway: String,
}

fn first_version() -> u32 {
    1
}

impl Settings {
    fn load(path: &Path) -> Result<Self, HomeError> {
        Ok(config::load_versioned(&path.join("client.toml"), VERSION)?)
    }

    fn store(&self, path: &Path) -> Result<(), HomeError> {
        let at = |source| HomeError::Io { path: path.to_owned(), source };
        let text = toml::to_string(self).map_err(|error| at(io::Error::other(error)))?;
        files::replace(&path.join("client.toml"), text.as_bytes(), 0o644).map_err(at)
    }
}

/// Why a client's folder cannot be made or used.
#[derive(Debug, Error)]
pub enum HomeError {
    /// There is a client already.
    #[error("{} holds a client already; choose another folder with --home, or remove that one if its messages and address are not needed", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("{} holds no client; make one with: tombola client --home {} init --network FILE --authority KEY", .0.display(), .0.display())]
    Missing(PathBuf),
    /// Another process uses it.
    #[error("{} is in use by another process; a client connects once at a time: end that process, or use another folder", .0.display())]
    InUse(PathBuf),
    /// The authority's key is mistyped.
    #[error(
        "the authority's key {text:?} is unusable: {reason}; it is 64 hexadecimal digits, from whoever runs the network"
    )]
    Authority {
        /// As given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// The gateway is mistyped or unknown.
    #[error("the gateway {text:?} is unusable: {reason}")]
    Gateway {
        /// As given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// `client.toml` is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file is unusable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The network document is unusable.
    #[error(transparent)]
    Network(#[from] MembershipError),
    /// The network document must not be used.
    #[error(transparent)]
    Document(#[from] ReloadError),
    /// An epoch of the network document cannot be used.
    #[error("the network document: {0}; get the current one with `update`")]
    View(#[from] ViewError),
    /// What the client has kept is unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// What a new client needs.
#[derive(Clone, Debug)]
pub struct NewHome<'a> {
    /// The network document, which is copied.
    pub network: &'a Path,
    /// The key that signs it, in hexadecimal.
    pub authority: &'a str,
    /// A gateway's identity in hexadecimal; `None`: a random one.
    pub gateway: Option<&'a str>,
}

/// What a client's folder says about payment.
#[derive(Clone, Debug)]
pub struct HomePayer {
    /// The network document.
    pub network: Network,
    /// The gateway that is paid.
    pub gateway: IdentityKey,
    /// How; `None` if the client does not pay.
    pub payment: Option<PaymentConfig>,
}

/// A client's folder, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    view: Arc<EpochView>,
    authority: AuthorityKey,
    gateway: IdentityKey,
    _lock: Lock,
}

impl Home {
    /// How it pays; `None` if it does not.
    ///
    /// # Errors
    /// The file is there and unusable.
    pub fn payment(&self) -> Result<Option<PaymentConfig>, HomeError> {
        payment_in(&self.path)
    }

    /// Whom the client in a folder pays, and how, also while another process uses it.
    ///
    /// # Errors
    /// There is none, or a file in it is unusable.
    pub fn payer_in(path: &Path) -> Result<HomePayer, HomeError> {
        if !path.join("client.toml").exists() {
            return Err(HomeError::Missing(path.to_owned()));
        }
        let settings = Settings::load(path)?;
        let network = load_network(&path.join("network.json"), &parse_authority(&settings.authority)?)?;
        let gateway = settings.gateway.parse::<IdentityKey>().map_err(|error| HomeError::Gateway {
            text: settings.gateway.clone(),
            reason: format!("{error}"),
        })?;
        Ok(HomePayer { network, gateway, payment: payment_in(path)? })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// Makes a client in a new or empty folder.
    ///
    /// # Errors
    /// There is one already, the document or the gateway is unusable, or the folder cannot be written.
    pub fn create(path: impl Into<PathBuf>, new: &NewHome<'_>) -> Result<Self, HomeError> {
        let path = path.into();
        if path.join("client.toml").exists() {
            return Err(HomeError::Exists(path));
        }
        let authority = parse_authority(new.authority)?;
        let network = load_network(new.network, &authority)?;
        let view = current_view(new.network, &network)?;
        let gateway = choose_gateway(&view, new.gateway).map_err(|reason| HomeError::Gateway {
            text: new.gateway.unwrap_or_default().to_owned(),
            reason,
        })?;
        let at = |source| HomeError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(at)?;
        let lock = lock(&path)?;
        // An attempt that was interrupted may have left keys behind.
        SecretFile::<Link>::new(path.join("link.key")).load_or_generate()?;
        SecretFile::<Sphinx>::new(path.join("sphinx.key")).load_or_generate()?;
        files::replace(&path.join("network.json"), network.to_json().as_bytes(), 0o644).map_err(at)?;
        let settings =
            Settings { version: VERSION, authority: authority.to_string(), gateway: gateway.to_string() };
        // Last: a folder without it holds no client.
        settings.store(&path)?;
        Ok(Self { path, view, authority, gateway, _lock: lock })
    }

    /// Opens a client's folder and locks it.
    ///
    /// # Errors
    /// There is none, another process uses it, or a file in it is unusable.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, HomeError> {
        let path = path.into();
        if !path.join("client.toml").exists() {
            return Err(HomeError::Missing(path));
        }
        let lock = lock(&path)?;
        let mut settings = Settings::load(&path)?;
        let authority = parse_authority(&settings.authority)?;
        let document = path.join("network.json");
        let network = load_network(&document, &authority)?;
        let view = current_view(&document, &network)?;
        let gateway = choose_gateway(&view, Some(&settings.gateway))
            .map_err(|reason| HomeError::Gateway { text: settings.gateway.clone(), reason })?;
        if settings.version < VERSION {
            // An older program would pass over what this one puts into the folder: from now on it refuses.
            settings.version = VERSION;
            settings.store(&path)?;
        }
        Ok(Self { path, view, authority, gateway, _lock: lock })
    }

    /// The address of the client in a folder, also while another process uses it.
    ///
    /// # Errors
    /// There is none, or a file in it is unusable.
    pub fn address_in(path: &Path) -> Result<ClientAddress, HomeError> {
        if !path.join("client.toml").exists() {
            return Err(HomeError::Missing(path.to_owned()));
        }
        let settings = Settings::load(path)?;
        let gateway = settings.gateway.parse::<IdentityKey>().map_err(|error| HomeError::Gateway {
            text: settings.gateway.clone(),
            reason: format!("{error}"),
        })?;
        let (link, keys) = load_keys(path, gateway)?;
        Ok(address_of(&link, &keys))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The epoch of the network that is valid now.
    #[must_use]
    pub fn view(&self) -> &Arc<EpochView> {
        &self.view
    }

    /// The client's address.
    ///
    /// # Errors
    /// A key file is unusable.
    pub fn address(&self) -> Result<ClientAddress, HomeError> {
        let (link, keys) = self.keys()?;
        Ok(address_of(&link, &keys))
    }

    /// The gateway that keeps its mail.
    #[must_use]
    pub fn gateway(&self) -> IdentityKey {
        self.gateway
    }

    /// Puts a new network document into a client's folder, also while another process uses it: that one takes it up by
    /// itself. Returns its serial number.
    ///
    /// # Errors
    /// There is no client, or the document must not follow the one that is there.
    pub fn update(path: &Path, document: &Path) -> Result<u64, HomeError> {
        if !path.join("client.toml").exists() {
            return Err(HomeError::Missing(path.to_owned()));
        }
        let authority = parse_authority(&Settings::load(path)?.authority)?;
        let network = load_network(document, &authority)?;
        lineage(path).admits(&network, document)?;
        let old = load_network(&path.join("network.json"), &authority)?;
        let now = UnixTime(unix_now());
        // Once the old one is over, any later one may follow.
        if now < old.valid_until() {
            let refused = |source| ReloadError::Refused { path: document.to_owned(), source };
            network.succeeds(&old, now).map_err(refused)?;
        }
        let at = |source| HomeError::Io { path: path.to_owned(), source };
        files::replace(&path.join("network.json"), network.to_json().as_bytes(), 0o644).map_err(at)?;
        Ok(network.serial())
    }

    pub(crate) fn documents(&self) -> Result<Documents, HomeError> {
        Ok(Documents::open(self.path.join("network.json"), self.authority, lineage(&self.path))?)
    }

    /// What the client keeps over its end.
    pub(crate) fn store(&self) -> Result<(Arc<Store>, Restore), HomeError> {
        let store = Store::open(&self.path.join("client.redb"), STORE)?;
        let mut restore = Restore::default();
        for table in tables::ALL {
            let feed =
                |key: &[u8], value: &[u8]| restore.feed(table, key, value).map_err(|error| error.to_string());
            store.for_each(table, feed)?;
        }
        Ok((Arc::new(store), restore))
    }

    /// The messages that are not acknowledged, as the last process has left them.
    ///
    /// # Errors
    /// The store is unusable.
    pub fn outbox(&self) -> Result<Vec<OutboxMessage>, HomeError> {
        Ok(self.store()?.1.outbox())
    }

    /// Signs messages as the identity that its mailbox belongs to.
    pub(crate) fn signer(&self) -> Result<Signer, HomeError> {
        let link = SecretFile::<Link>::new(self.path.join("link.key")).load()?;
        Ok(Signer::new(link.expose(), self.address()?))
    }

    pub(crate) fn keys(&self) -> Result<(LinkSecret, ClientKeys), HomeError> {
        load_keys(&self.path, self.gateway)
    }
}

fn payment_in(path: &Path) -> Result<Option<PaymentConfig>, HomeError> {
    let path = path.join("payment.toml");
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(config::load(&path)?))
}

fn lineage(path: &Path) -> Lineage {
    Lineage::new(path.join("lineage.toml"))
}

fn load_keys(path: &Path, gateway: IdentityKey) -> Result<(LinkSecret, ClientKeys), HomeError> {
    let link = SecretFile::<Link>::new(path.join("link.key")).load()?;
    let sphinx = SecretFile::<Sphinx>::new(path.join("sphinx.key")).load()?;
    let link = LinkSecret::from_seed(*link.expose());
    let sphinx = SecretKey::from_bytes(*sphinx.expose());
    let keys = ClientKeys { sphinx, identity: link.identity(), gateway };
    Ok((link, keys))
}

fn address_of(link: &LinkSecret, keys: &ClientKeys) -> ClientAddress {
    ClientAddress {
        sphinx_key: SphinxKey::from_bytes(keys.sphinx.public_key().to_bytes()),
        gateway: keys.gateway,
        mailbox: MailboxId::of(&link.identity()),
    }
}

fn lock(path: &Path) -> Result<Lock, HomeError> {
    let file = path.join("lock");
    match Lock::create(&file) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(HomeError::InUse(path.to_owned())),
        Err(source) => Err(HomeError::Io { path: file, source }),
    }
}

fn parse_authority(text: &str) -> Result<AuthorityKey, HomeError> {
    text.parse().map_err(|error: tombola_topology::AuthorityKeyError| HomeError::Authority {
        text: text.to_owned(),
        reason: error.to_string(),
    })
}

fn choose_gateway(view: &EpochView, wanted: Option<&str>) -> Result<IdentityKey, String> {
    let Some(text) = wanted else {
        let mut rng = Rng::from_seed(derive::random_seed().map_err(|error| error.to_string())?);
        let index = view.draw_gateway(&mut rng);
        return Ok(view.epoch().node(index).ok_or("the network has no gateway")?.identity);
    };
    let identity: IdentityKey = text.parse().map_err(|error| format!("{error}"))?;
    if view.gateway(&identity).is_none() {
        let known: Vec<String> = view
            .epoch()
            .gateways()
            .iter()
            .filter_map(|&index| Some(view.epoch().node(index)?.identity.to_string()))
            .collect();
        return Err(format!("no gateway of this network has that identity; there are {}", known.join(", ")));
    }
    Ok(identity)
}
