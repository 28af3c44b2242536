//! What an epoch says about payment: where tickets are worth something, and how much on each link.

use crate::error::{Invalid, Problem};
use crate::ids::ChainAddress;
use crate::json::Json;
use crate::parameters::MAX_LAYERS;
use crate::reader::{Path, Reader};

/// Links that a packet goes over and that are paid for: from the client, between the layers, to the recipient's gateway.
const MAX_CLASSES: usize = MAX_LAYERS as usize + 2;

/// The chain on which an epoch's tickets are redeemed, and the price classes of its links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// EIP-155 number of the chain.
    pub chain_id: u64,
    /// The escrow's address there.
    pub escrow: ChainAddress,
    /// The class on each link, in the order of a packet's way: client to gateway, gateway to layer 1, each layer to the next,
    /// last layer to gateway.
    pub classes: Vec<u32>,
}

/// Names in the document.
const FIELDS: &[&str] = &["chain_id", "classes", "escrow"];

impl Payment {
    pub(crate) fn read(reader: &Reader<'_>) -> Result<Self, Invalid> {
        let object = reader.object(FIELDS)?;
        let classes = object.required("classes")?;
        Ok(Self {
            chain_id: object.required("chain_id")?.integer()?,
            escrow: object.required("escrow")?.chain_address()?,
            classes: classes
                .array(MAX_CLASSES)?
                .map(|class| class.narrow(0, u32::MAX))
                .collect::<Result<_, _>>()?,
        })
    }

    /// One class for each link of a route through so many layers.
    pub(crate) fn validate_at(&self, path: &Path<'_>, layers: u8) -> Result<(), Invalid> {
        let (expected, found) = (usize::from(layers) + 2, self.classes.len());
        if found != expected {
            return Err(Path::Field(path, "classes").invalid(Problem::Classes { expected, found }));
        }
        Ok(())
    }

    pub(crate) fn to_json(&self) -> Json {
        Json::object([
            ("chain_id", Json::Integer(self.chain_id)),
            ("escrow", Json::text(self.escrow)),
            (
                "classes",
                Json::Array(self.classes.iter().map(|class| Json::Integer((*class).into())).collect()),
            ),
        ])
    }
}
