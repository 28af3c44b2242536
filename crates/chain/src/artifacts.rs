//! The contracts' bytecode, as it is checked in under `contracts/artifacts`.

use alloy_primitives::Bytes;
use alloy_sol_types::SolConstructor;
use serde::Deserialize;
use thiserror::Error;

use crate::bindings::{Escrow, TestToken};

/// An artefact that was built into the program is not one. A fault of ours, which the tests find.
#[derive(Debug, Error)]
#[error("the artefact of {contract} that was built into this program is broken: {source}")]
pub struct ArtifactError {
    contract: &'static str,
    source: serde_json::Error,
}

#[derive(Deserialize)]
struct Artifact {
    bytecode: Bytes,
}

fn bytecode(contract: &'static str, text: &str) -> Result<Bytes, ArtifactError> {
    let artifact: Artifact =
        serde_json::from_str(text).map_err(|source| ArtifactError { contract, source })?;
    Ok(artifact.bytecode)
}

fn with_arguments(bytecode: &Bytes, arguments: &[u8]) -> Bytes {
    [bytecode, arguments].concat().into()
}

/// What creates an escrow, and with it its registry.
///
/// # Errors
///
/// See [`ArtifactError`].
pub fn escrow(arguments: &Escrow::constructorCall) -> Result<Bytes, ArtifactError> {
    let code = bytecode("Escrow", include_str!("../../../contracts/artifacts/Escrow.json"))?;
    Ok(with_arguments(&code, &arguments.abi_encode()))
}

/// What creates a token that anybody mints.
///
/// # Errors
///
/// See [`ArtifactError`].
pub fn test_token(decimals: u8) -> Result<Bytes, ArtifactError> {
    let code = bytecode("TestToken", include_str!("../../../contracts/artifacts/TestToken.json"))?;
    Ok(with_arguments(&code, &TestToken::constructorCall { decimals_: decimals }.abi_encode()))
}
