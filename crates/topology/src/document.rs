//! The network document: who belongs to a network, from when to when, under which parameters, signed.
//!
//! ```json
//! { "authority": "<64 hex>", "signature": "<128 hex>",
//!   "network": { "format": 1, "name": "…", "serial": 1, "parameters": {…}, "epochs": […] } }
//! ```
//!
//! The signature is ed25519 over [`SIGNATURE_DOMAIN`] and the canonical form of `network`, so that white
//! space and the order of fields in the file do not matter and everything else does.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::authority::{AuthorityKey, AuthoritySecret};
use crate::canonical::{canonical, pretty};
use crate::epoch::{Epoch, EpochDraft};
use crate::error::{DocumentError, EpochError, Invalid, Problem};
use crate::ids::{EpochNumber, SphinxKey, UnixTime};
use crate::json::Json;
use crate::parameters::Parameters;
use crate::reader::{Path, Reader, excerpt};

/// Bytes that a document may have, checked before it is parsed: 16 MiB. Whoever reads files or sockets stops
/// there.
pub const MAX_DOCUMENT_LEN: usize = 16 << 20;

/// The only format there is.
pub const FORMAT: u64 = 1;

/// What is signed begins with these bytes, so that the signature means nothing elsewhere.
pub const SIGNATURE_DOMAIN: &[u8] = b"tombola/network/1\0";

const MAX_NAME_LEN: usize = 64;
const MAX_EPOCHS: usize = 1024;

/// A network document that its authority has signed and that holds nothing invalid. There is no other way to
/// one than
/// [`Network::verify`] and [`Draft::sign`].
#[derive(Clone)]
pub struct Network {
    authority: AuthorityKey,
    name: String,
    serial: u64,
    parameters: Parameters,
    epochs: Vec<Arc<Epoch>>,
    digest: [u8; 32],
    json: String,
}

impl Network {
    /// Reads a document and checks all of it: length, form, authority, signature, then the content.
    ///
    /// Whether it is valid now is for [`Self::epoch_at`] to say.
    ///
    /// # Errors
    /// See [`DocumentError`]; whatever is wrong in one place comes with the path of that place.
    pub fn verify(json: &str, authority: &AuthorityKey) -> Result<Self, DocumentError> {
        let document = parse(json)?;
        let reader = Reader::new(&document);
        let object = reader.object(&["authority", "network", "signature"])?;

        let named = object.required("authority")?;
        let found = AuthorityKey::from_bytes(&named.hex()?).map_err(|error| named.path().invalid(error))?;
        if found != *authority {
            return Err(DocumentError::OtherAuthority { expected: *authority, found });
        }
        let signature = object.required("signature")?.hex()?;
        let network = object.required("network")?;
        let message = signed_message(network.value());
        if !authority.verifies(&message, &signature) {
            return Err(DocumentError::Signature);
        }

        let Draft { name, serial, parameters, epochs } = Draft::read(&network)?;
        let epochs = build_epochs(epochs, &parameters, network.path())?;
        Ok(Self {
            authority: *authority,
            name,
            serial,
            parameters,
            epochs: epochs.into_iter().map(Arc::new).collect(),
            digest: Sha256::digest(&message).into(),
            json: pretty(&document),
        })
    }

    /// Who signed it.
    #[must_use]
    pub fn authority(&self) -> AuthorityKey {
        self.authority
    }

    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Grows with every document that the authority publishes for this network.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// What all participants do alike.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// All epochs in the order of time, without gaps; at least one.
    #[must_use]
    pub fn epochs(&self) -> &[Arc<Epoch>] {
        &self.epochs
    }

    /// The epoch with this number.
    #[must_use]
    pub fn epoch(&self, number: EpochNumber) -> Option<&Arc<Epoch>> {
        // Numbers are consecutive.
        let offset = number.0.checked_sub(self.epochs[0].number().0)?;
        self.epochs.get(usize::try_from(offset).ok()?)
    }

    /// The epoch that is valid at a time.
    ///
    /// # Errors
    /// Before the first and after the last.
    pub fn epoch_at(&self, now: UnixTime) -> Result<&Arc<Epoch>, EpochError> {
        let (begins, ended) = (self.valid_from(), self.valid_until());
        if now < begins {
            return Err(EpochError::NotYet { begins, now });
        }
        // Each epoch begins when the one before ends, so the first that has not ended has begun.
        let position = self.epochs.partition_point(|epoch| epoch.valid_until() <= now);
        self.epochs.get(position).ok_or(EpochError::Expired { ended, now })
    }

    /// When its first epoch begins.
    #[must_use]
    pub fn valid_from(&self) -> UnixTime {
        self.epochs[0].valid_from()
    }

    /// When its last epoch ends.
    #[must_use]
    pub fn valid_until(&self) -> UnixTime {
        self.epochs[self.epochs.len() - 1].valid_until()
    }

    /// SHA-256 of what was signed. Two participants who see the same digest see the same network; one who
    /// sees two digests under one serial is being lied to.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The document as indented JSON, which [`Self::verify`] accepts.
    #[must_use]
    pub fn to_json(&self) -> &str {
        &self.json
    }
}

impl fmt::Debug for Network {
    /// Without the nodes: there may be thousands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("authority", &self.authority)
            .field("name", &self.name)
            .field("serial", &self.serial)
            .field("valid_from", &self.valid_from())
            .field("valid_until", &self.valid_until())
            .finish_non_exhaustive()
    }
}

/// What an authority is about to sign, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// 1 to 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Greater than that of any document published before.
    pub serial: u64,
    /// What all participants do alike.
    pub parameters: Parameters,
    /// In the order of time.
    pub epochs: Vec<EpochDraft>,
}

/// Names in the document.
const FIELDS: &[&str] = &["epochs", "format", "name", "parameters", "serial"];

impl Draft {
    /// Reads an unsigned document, `{ "network": {…} }`, and checks its content. `authority` and `signature`
    /// may be there, so that a signed document can be changed and signed again; they are not looked at.
    ///
    /// # Errors
    /// As [`Network::verify`], except for authority and signature.
    pub fn from_json(json: &str) -> Result<Self, DocumentError> {
        let document = parse(json)?;
        let reader = Reader::new(&document);
        let network = reader.object(&["authority", "network", "signature"])?.required("network")?;
        let draft = Self::read(&network)?;
        build_epochs(draft.epochs.clone(), &draft.parameters, network.path())?;
        Ok(draft)
    }

    /// Signs the network if its content is valid.
    ///
    /// # Errors
    /// As [`Network::verify`]: what comes back has been read and checked like anybody's document.
    pub fn sign(&self, secret: &AuthoritySecret) -> Result<Network, DocumentError> {
        let network = self.to_json();
        let signature = secret.sign(&signed_message(&network));
        let document = Json::object([
            ("authority", Json::text(secret.key())),
            ("signature", Json::String(hex::encode(signature))),
            ("network", network),
        ]);
        Network::verify(&pretty(&document), &secret.key())
    }

    fn read(reader: &Reader<'_>) -> Result<Self, Invalid> {
        // The format comes first: everything else, unknown fields included, depends on it.
        let format = reader.object_of_any_fields()?.required("format")?;
        match format.integer()? {
            FORMAT => {}
            found => return Err(format.path().invalid(Problem::Format { found })),
        }
        let object = reader.object(FIELDS)?;
        let epochs = object.required("epochs")?;
        Ok(Self {
            name: read_name(&object.required("name")?)?,
            serial: object.required("serial")?.integer()?,
            parameters: Parameters::read(&object.required("parameters")?)?,
            epochs: epochs
                .array(MAX_EPOCHS)?
                .map(|item| EpochDraft::read(&item))
                .collect::<Result<_, _>>()?,
        })
    }

    fn to_json(&self) -> Json {
        Json::object([
            ("format", Json::Integer(FORMAT)),
            ("name", Json::text(&self.name)),
            ("serial", Json::Integer(self.serial)),
            ("parameters", self.parameters.to_json()),
            ("epochs", Json::Array(self.epochs.iter().map(EpochDraft::to_json).collect())),
        ])
    }
}

fn read_name(reader: &Reader<'_>) -> Result<String, Invalid> {
    let name = reader.string()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !(1..=MAX_NAME_LEN).contains(&name.len()) || !name.bytes().all(plain) {
        return Err(reader.path().invalid(Problem::Name { found: excerpt(name, 80) }));
    }
    Ok(name.to_owned())
}

/// Checks the epochs, each by itself and all together. `path` is the network's.
fn build_epochs(
    drafts: Vec<EpochDraft>,
    parameters: &Parameters,
    path: &Path<'_>,
) -> Result<Vec<Epoch>, Invalid> {
    let path = Path::Field(path, "epochs");
    if drafts.is_empty() {
        return Err(path.invalid(Problem::Empty));
    }
    let mut epochs: Vec<Epoch> = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.into_iter().enumerate() {
        let path = Path::Index(&path, index);
        if let Some(before) = epochs.last() {
            validate_succession(&path, before, &draft)?;
        }
        epochs.push(Epoch::new_at(draft, parameters, &path)?);
    }
    validate_keys(&path, &epochs)?;
    Ok(epochs)
}

/// Bounds the length before anything is parsed.
fn parse(json: &str) -> Result<Json, DocumentError> {
    if json.len() > MAX_DOCUMENT_LEN {
        return Err(DocumentError::TooLong { found: json.len(), limit: MAX_DOCUMENT_LEN });
    }
    Json::parse(json)
}

fn signed_message(network: &Json) -> Vec<u8> {
    [SIGNATURE_DOMAIN, canonical(network).as_bytes()].concat()
}

/// One epoch follows another at once and with the next number.
fn validate_succession(path: &Path<'_>, before: &Epoch, draft: &EpochDraft) -> Result<(), Invalid> {
    let expected = EpochNumber(before.number().0.saturating_add(1));
    if draft.number != expected {
        let problem = Problem::EpochNumber { expected, found: draft.number };
        return Err(Path::Field(path, "number").invalid(problem));
    }
    if draft.payment.is_some() != before.payment().is_some() {
        return Err(Path::Field(path, "payment").invalid(Problem::MixedPayment));
    }
    let (expected, found) = (before.valid_until(), draft.valid_from);
    let path = Path::Field(path, "valid_from");
    match found.cmp(&expected) {
        core::cmp::Ordering::Less => Err(path.invalid(Problem::EpochOverlap { expected, found })),
        core::cmp::Ordering::Equal => Ok(()),
        core::cmp::Ordering::Greater => Err(path.invalid(Problem::EpochGap { expected, found })),
    }
}

/// No Sphinx key lives in two epochs: its replay filter is erased with the first, and whatever was recorded
/// then could be replayed in the second.
fn validate_keys(path: &Path<'_>, epochs: &[Epoch]) -> Result<(), Invalid> {
    fn field<R>(path: &Path<'_>, (epoch, node): (usize, usize), with: impl FnOnce(&Path<'_>) -> R) -> R {
        let epoch = Path::Index(path, epoch);
        let nodes = Path::Field(&epoch, "nodes");
        let node = Path::Index(&nodes, node);
        with(&Path::Field(&node, "sphinx_key"))
    }
    let mut seen: BTreeMap<SphinxKey, (usize, usize)> = BTreeMap::new();
    for (epoch_index, epoch) in epochs.iter().enumerate() {
        for (node_index, node) in epoch.nodes().iter().enumerate() {
            let here = (epoch_index, node_index);
            if let Some(earlier) = seen.insert(node.sphinx_key, here) {
                let first = field(path, earlier, |path| path.to_string());
                return Err(field(path, here, |path| path.invalid(Problem::DuplicateSphinxKey { first })));
            }
        }
    }
    Ok(())
}
