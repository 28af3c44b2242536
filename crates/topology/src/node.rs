//! One node of an epoch.

use crate::error::{Invalid, Problem};
use crate::ids::{ChainAddress, IdentityKey, SphinxKey};
use crate::json::Json;
use crate::parameters::MAX_LAYERS;
use crate::reader::{Path, Reader, excerpt};

/// Addresses that a node may list per kind.
pub const MAX_ADDRESSES: usize = 16;

/// Length of one address in bytes.
pub const MAX_ADDRESS_LEN: usize = 256;

/// What a node does in its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Mixes packets in one layer.
    Mix {
        /// From 1 (next to the sender's gateway) to the network's number of layers.
        layer: u8,
    },
    /// Serves clients: sends their packets to layer 1 and keeps what the last layer sends them.
    Gateway,
}

/// One node as the network document lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it does.
    pub role: Role,
    /// Who it is on every link.
    pub identity: IdentityKey,
    /// Opens the packets of this epoch.
    pub sphinx_key: SphinxKey,
    /// Where its neighbours reach it: multiaddr text, at least one.
    pub addresses: Vec<String>,
    /// Where clients reach it: multiaddr text, at least one at a gateway, none at a mix node.
    pub client_addresses: Vec<String>,
    /// Where it is paid, and pays from, in a network with payment.
    pub account: Option<ChainAddress>,
}

/// Names in the document.
const FIELDS: &[&str] =
    &["account", "addresses", "client_addresses", "identity", "layer", "role", "sphinx_key"];

impl Node {
    pub(crate) fn read(reader: &Reader<'_>) -> Result<Self, Invalid> {
        let object = reader.object(FIELDS)?;
        let role = object.required("role")?;
        let (layer, client_addresses) = (object.optional("layer"), object.optional("client_addresses"));
        let role = match role.string()? {
            "mix" => {
                if let Some(present) = client_addresses {
                    return Err(present.path().invalid(Problem::MixClientAddresses));
                }
                Role::Mix { layer: object.required("layer")?.narrow(1, MAX_LAYERS)? }
            }
            "gateway" => {
                if let Some(present) = layer {
                    return Err(present.path().invalid(Problem::GatewayLayer));
                }
                Role::Gateway
            }
            other => return Err(role.path().invalid(Problem::Role { found: excerpt(other, 40) })),
        };
        let strings = |list: Reader<'_>| -> Result<Vec<String>, Invalid> {
            list.array(MAX_ADDRESSES)?.map(|item| Ok(item.string()?.to_owned())).collect()
        };
        Ok(Self {
            role,
            identity: IdentityKey::from_bytes(object.required("identity")?.hex()?),
            sphinx_key: SphinxKey::from_bytes(object.required("sphinx_key")?.hex()?),
            addresses: strings(object.required("addresses")?)?,
            client_addresses: match role {
                Role::Mix { .. } => Vec::new(),
                Role::Gateway => strings(object.required("client_addresses")?)?,
            },
            account: object.optional("account").map(|account| account.chain_address()).transpose()?,
        })
    }

    /// Checks what can be checked of a node alone.
    pub(crate) fn validate_at(&self, path: &Path<'_>, layers: u8) -> Result<(), Invalid> {
        match self.role {
            Role::Mix { layer } if !(1..=layers).contains(&layer) => {
                let problem = Problem::Layer { layers, found: layer.into() };
                return Err(Path::Field(path, "layer").invalid(problem));
            }
            Role::Mix { .. } if !self.client_addresses.is_empty() => {
                return Err(Path::Field(path, "client_addresses").invalid(Problem::MixClientAddresses));
            }
            Role::Mix { .. } => {}
            Role::Gateway => {
                validate_addresses(&Path::Field(path, "client_addresses"), &self.client_addresses)?;
            }
        }
        if !self.identity.is_valid() {
            return Err(Path::Field(path, "identity").invalid(Problem::Identity));
        }
        validate_addresses(&Path::Field(path, "addresses"), &self.addresses)
    }

    pub(crate) fn to_json(&self) -> Json {
        let strings = |list: &[String]| Json::Array(list.iter().map(Json::text).collect());
        let mut fields = vec![
            ("identity", Json::text(self.identity)),
            ("sphinx_key", Json::text(self.sphinx_key)),
            ("addresses", strings(&self.addresses)),
        ];
        match self.role {
            Role::Mix { layer } => {
                fields.push(("role", Json::text("mix")));
                fields.push(("layer", Json::Integer(layer.into())));
            }
            Role::Gateway => fields.push(("role", Json::text("gateway"))),
        }
        if let Some(account) = self.account {
            fields.push(("account", Json::text(account)));
        }
        // A mix node's are written as well, if there are any: reading them back then names the mistake.
        if self.role == Role::Gateway || !self.client_addresses.is_empty() {
            fields.push(("client_addresses", strings(&self.client_addresses)));
        }
        Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// At least one, and each of them harmless text; the link layer knows which multiaddrs it can dial.
fn validate_addresses(path: &Path<'_>, addresses: &[String]) -> Result<(), Invalid> {
    match addresses.len() {
        0 => return Err(path.invalid(Problem::Empty)),
        found if found > MAX_ADDRESSES => {
            return Err(path.invalid(Problem::TooMany { limit: MAX_ADDRESSES, found }));
        }
        _ => {}
    }
    for (index, address) in addresses.iter().enumerate() {
        let printable = address.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || address.len() > MAX_ADDRESS_LEN || !address.starts_with('/') {
            let problem = Problem::Address { found: excerpt(address, 80) };
            return Err(Path::Index(path, index).invalid(problem));
        }
    }
    Ok(())
}
