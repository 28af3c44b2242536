//! What goes wrong, by the codes of JSON-RPC and EIP-1474.

use alloy_primitives::Bytes;
use serde_json::{Value, json};
use thiserror::Error;

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum RpcError {
    /// The text is no JSON.
    #[error("parse error: {0}")]
    Parse(String),
    /// The JSON is no request.
    #[error("invalid request: {0}")]
    Request(&'static str),
    /// There is no such method here.
    #[error("the method {0} does not exist or is not available")]
    Method(String),
    /// The parameters are others than the method takes.
    #[error("invalid params: {0}")]
    Params(String),
    /// There is no such block, or its state is not kept.
    #[error("{0}")]
    Missing(String),
    /// The transaction is not executed at all.
    #[error("{0}")]
    Rejected(String),
    /// More than is answered at once.
    #[error("{0}")]
    TooMuch(String),
    /// A call reverted.
    #[error("execution reverted")]
    Reverted(Bytes),
    /// A call ended in another way.
    #[error("EVM error {0}")]
    Halted(String),
    /// Our fault.
    #[error("internal error: {0}")]
    Internal(String),
}

impl RpcError {
    const fn code(&self) -> i32 {
        match self {
            Self::Parse(_) => -32700,
            Self::Request(_) => -32600,
            Self::Method(_) => -32601,
            Self::Params(_) => -32602,
            Self::Internal(_) => -32603,
            Self::Missing(_) => -32001,
            Self::Rejected(_) | Self::Halted(_) => -32003,
            Self::TooMuch(_) => -32005,
            Self::Reverted(_) => 3,
        }
    }

    /// The error object of a response.
    pub(super) fn to_json(&self) -> Value {
        let mut object = json!({ "code": self.code(), "message": self.to_string() });
        if let Self::Reverted(data) = self {
            object["data"] = json!(data);
        }
        object
    }
}
