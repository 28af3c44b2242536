//! The node's own client accounts, at gateways that are redrawn each epoch.

use tombola_link::LinkSecret;
use tombola_mixing::Rng;
use tombola_node::derive::derive_seed;
use tombola_protocol::client::ClientKeys;
use tombola_protocol::view::EpochView;
use tombola_sphinx::SecretKey;
use tombola_topology::IdentityKey;

/// Gateways at which a mix node keeps an account.
const ACCOUNTS: usize = 2;

/// One account: its gateway, where that serves clients, its keys.
pub(crate) struct Account {
    pub(crate) gateway: IdentityKey,
    pub(crate) addresses: Vec<String>,
    pub(crate) link: LinkSecret,
    pub(crate) keys: ClientKeys,
}

/// The accounts of this epoch. Everything follows from the node's secret and the epoch's number, so a node that
/// restarts finds its accounts again, and nobody else can tell which they are.
pub(crate) fn draw(view: &EpochView, secret: &[u8; 32]) -> Vec<Account> {
    let epoch = view.epoch().number().0.to_be_bytes();
    let mut gateways = view.epoch().gateways().to_vec();
    Rng::from_seed(*derive_seed(secret, b"tombola/accounts/gateways", &[&epoch])).shuffle(&mut gateways);
    gateways
        .into_iter()
        .take(ACCOUNTS)
        .filter_map(|index| {
            let node = view.epoch().node(index)?;
            let gateway = node.identity;
            let context: [&[u8]; 2] = [&epoch, gateway.as_bytes()];
            let link = LinkSecret::from_seed(*derive_seed(secret, b"tombola/accounts/link", &context));
            let sphinx = SecretKey::from_bytes(*derive_seed(secret, b"tombola/accounts/sphinx", &context));
            let keys = ClientKeys { sphinx, identity: link.identity(), gateway };
            Some(Account { gateway, addresses: node.client_addresses.clone(), link, keys })
        })
        .collect()
}
