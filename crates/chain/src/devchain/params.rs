//! Parameters of requests.

use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::chain::{Chain, no_block};
use super::error::RpcError;
use super::execute::Call;

/// The parameters of a request, taken one after the other.
pub(super) struct Params {
    values: std::vec::IntoIter<Value>,
    taken: usize,
}

impl Params {
    pub(super) fn new(params: Value) -> Result<Self, RpcError> {
        match params {
            Value::Null => Ok(Self { values: Vec::new().into_iter(), taken: 0 }),
            Value::Array(values) => Ok(Self { values: values.into_iter(), taken: 0 }),
            _ => Err(RpcError::Params("a list is expected".into())),
        }
    }

    /// The next one, if it is there and not null.
    pub(super) fn optional<T: DeserializeOwned>(&mut self) -> Result<Option<T>, RpcError> {
        self.taken += 1;
        let Some(value) = self.values.next() else { return Ok(None) };
        if value.is_null() {
            return Ok(None);
        }
        let place = self.taken;
        serde_json::from_value(value)
            .map(Some)
            .map_err(|error| RpcError::Params(format!("parameter {place}: {error}")))
    }

    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<T, RpcError> {
        let found = self.optional()?;
        found.ok_or_else(|| RpcError::Params(format!("parameter {} is missing", self.taken)))
    }
}

/// A number as numbers are written, or in hexadecimal digits, as other chains for development take both.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    Plain(u64),
    Hex(U64),
}

impl Number {
    pub(super) fn get(self) -> u64 {
        match self {
            Self::Plain(number) => number,
            Self::Hex(number) => number.to(),
        }
    }
}

/// A block by number, hash or tag (EIP-1898).
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum BlockId {
    Text(String),
    #[serde(rename_all = "camelCase")]
    Hash {
        block_hash: B256,
    },
    #[serde(rename_all = "camelCase")]
    Number {
        block_number: U64,
    },
}

impl BlockId {
    /// The number, also of a block that does not exist yet.
    pub(super) fn number(&self, chain: &Chain) -> Result<u64, RpcError> {
        match self {
            Self::Hash { block_hash } => chain
                .number_of(block_hash)
                .ok_or_else(|| RpcError::Missing(format!("there is no block {block_hash}"))),
            Self::Number { block_number } => Ok(block_number.to()),
            Self::Text(text) => match text.as_str() {
                "latest" | "pending" | "safe" | "finalized" => Ok(chain.number()),
                "earliest" => Ok(0),
                number => {
                    let digits = number.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
                    digits
                        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                        .ok_or_else(|| RpcError::Params("a block is a number in 0x form, or a tag".into()))
                }
            },
        }
    }

    /// The number of a block that exists; that of the last one, if none is said.
    pub(super) fn existing(id: Option<Self>, chain: &Chain) -> Result<u64, RpcError> {
        let number = id.map_or(Ok(chain.number()), |id| id.number(chain))?;
        if number > chain.number() { Err(no_block(number)) } else { Ok(number) }
    }
}

/// What is called or estimated. Fields for fees are accepted and do not matter.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallRequest {
    #[serde(default)]
    from: Address,
    to: Option<Address>,
    gas: Option<U64>,
    #[serde(default)]
    value: U256,
    data: Option<Bytes>,
    input: Option<Bytes>,
}

impl CallRequest {
    pub(super) fn call(self) -> Call {
        Call {
            from: self.from,
            to: self.to.map_or(TxKind::Create, TxKind::Call),
            gas: self.gas.map(|gas| gas.to()),
            value: self.value,
            data: self.input.or(self.data).unwrap_or_default(),
        }
    }
}

/// One, several or any.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOf<T> {
    Any(()),
    One(T),
    Several(Vec<T>),
}

impl<T> Default for OneOf<T> {
    fn default() -> Self {
        Self::Any(())
    }
}

impl<T: PartialEq> OneOf<T> {
    fn admits(&self, found: Option<&T>) -> bool {
        match self {
            Self::Any(()) => true,
            Self::One(wanted) => found == Some(wanted),
            // An empty list is none at all.
            Self::Several(wanted) => wanted.is_empty() || found.is_some_and(|found| wanted.contains(found)),
        }
    }
}

/// Which logs are wanted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    from_block: Option<BlockId>,
    to_block: Option<BlockId>,
    block_hash: Option<B256>,
    #[serde(default)]
    address: OneOf<Address>,
    #[serde(default)]
    topics: Vec<OneOf<B256>>,
}

impl Filter {
    /// The first and the last block, if there are any.
    pub(super) fn range(&self, chain: &Chain) -> Result<core::ops::RangeInclusive<u64>, RpcError> {
        if let Some(hash) = self.block_hash {
            if self.from_block.is_some() || self.to_block.is_some() {
                return Err(RpcError::Params("a block's hash, or a range, but not both".into()));
            }
            let number = BlockId::Hash { block_hash: hash }.number(chain)?;
            return Ok(number..=number);
        }
        let bound = |id: &Option<BlockId>| id.as_ref().map_or(Ok(chain.number()), |id| id.number(chain));
        let (from, to) = (bound(&self.from_block)?, bound(&self.to_block)?);
        if from > to {
            return Err(RpcError::Params("the range ends before it begins".into()));
        }
        Ok(from..=to.min(chain.number()))
    }

    pub(super) fn admits(&self, log: &alloy_primitives::Log) -> bool {
        let topics = log.topics();
        self.address.admits(Some(&log.address))
            && self.topics.len() <= topics.len()
            && self.topics.iter().zip(topics).all(|(wanted, topic)| wanted.admits(Some(topic)))
    }
}
