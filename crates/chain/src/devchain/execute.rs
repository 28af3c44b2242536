//! One transaction through revm.

use alloy_consensus::{Header, Transaction, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use revm::context::{BlockEnv, CfgEnv, TxEnv};
use revm::database::WrapDatabaseRef;
use revm::handler::MainnetContext;
use revm::primitives::AddressMap;
use revm::primitives::hardfork::SpecId;
use revm::state::Account;
use revm::{ExecuteEvm, MainBuilder};

use super::error::RpcError;
use super::state::View;

/// What a transaction may use at most (EIP-7825).
pub(super) const MOST_GAS: u64 = 1 << 24;

/// What is called or estimated.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    pub(super) from: Address,
    pub(super) to: TxKind,
    pub(super) gas: Option<u64>,
    pub(super) value: U256,
    pub(super) data: Bytes,
}

/// A block's surroundings.
pub(super) fn block_env(header: &Header) -> BlockEnv {
    let mut env = BlockEnv {
        number: U256::from(header.number),
        beneficiary: header.beneficiary,
        timestamp: U256::from(header.timestamp),
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        difficulty: U256::ZERO,
        prevrandao: Some(header.mix_hash),
        ..BlockEnv::default()
    };
    env.set_blob_excess_gas_and_price(0, revm::primitives::eip4844::BLOB_BASE_FEE_UPDATE_FRACTION_PRAGUE);
    env
}

/// What a transaction does in a block on a state.
pub(super) fn transact(
    view: View<'_>,
    chain_id: u64,
    block: BlockEnv,
    transaction: TxEnv,
    is_call: bool,
) -> Result<(ExecutionResult, AddressMap<Account>), RpcError> {
    let mut config = CfgEnv::new_with_spec(SpecId::OSAKA);
    config.disable_nonce_check = is_call;
    config.disable_eip3607 = is_call;
    config.chain_id = chain_id;
    let mut evm = MainnetContext::new(WrapDatabaseRef(view), SpecId::OSAKA).with_cfg(config).build_mainnet();
    evm.set_block(block);
    let done = evm.transact(transaction).map_err(refused)?;
    Ok((done.result, done.state))
}

/// A signed transaction as revm takes it.
pub(super) fn tx_env(envelope: &TxEnvelope, from: Address) -> TxEnv {
    TxEnv {
        tx_type: envelope.tx_type() as u8,
        caller: from,
        gas_limit: envelope.gas_limit(),
        gas_price: envelope.max_fee_per_gas(),
        kind: envelope.kind(),
        value: envelope.value(),
        data: envelope.input().clone(),
        nonce: envelope.nonce(),
        chain_id: envelope.chain_id(),
        access_list: envelope.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: envelope.max_priority_fee_per_gas(),
        ..TxEnv::default()
    }
}

/// A call, which pays no fee.
pub(super) fn call_env(call: &Call, gas_limit: u64, chain_id: u64) -> TxEnv {
    TxEnv {
        caller: call.from,
        gas_limit,
        gas_price: 0,
        kind: call.to,
        value: call.value,
        data: call.data.clone(),
        chain_id: Some(chain_id),
        ..TxEnv::default()
    }
}

/// Calls without an effect. The gas that was used, and the output.
pub(super) fn call(
    view: View<'_>,
    chain_id: u64,
    mut block: BlockEnv,
    call: &Call,
    gas: u64,
) -> Result<(u64, Bytes), RpcError> {
    block.basefee = 0;
    let transaction = call_env(call, gas, chain_id);
    match transact(view, chain_id, block, transaction, true)?.0 {
        ExecutionResult::Success { gas, output, .. } => {
            Ok((gas.total_gas_spent().max(gas.floor_gas()), output.into_data()))
        }
        ExecutionResult::Revert { output, .. } => Err(RpcError::Reverted(output)),
        ExecutionResult::Halt { reason, .. } => Err(RpcError::Halted(format!("{reason:?}"))),
    }
}

/// The least gas limit, or somewhat more, with which a call succeeds.
pub(super) fn estimate(
    view: View<'_>,
    chain_id: u64,
    block: &BlockEnv,
    wanted: &Call,
) -> Result<u64, RpcError> {
    let most = wanted.gas.unwrap_or(MOST_GAS).min(MOST_GAS).min(block.gas_limit);
    let succeeds = |gas| call(view, chain_id, block.clone(), wanted, gas);
    let (used, _) = succeeds(most)?;
    // A call passes on 63 of 64 parts of what it has: what was used may not be enough as a limit.
    let (mut fails, mut enough) = (used.saturating_sub(1), most);
    for guess in [used, used.saturating_add(used / 63).saturating_add(3000)] {
        if guess > fails && guess < enough {
            match succeeds(guess) {
                Ok(_) => enough = guess,
                Err(_) => fails = guess,
            }
        }
    }
    while enough - fails > 1 + enough / 128 {
        let middle = fails + (enough - fails) / 2;
        match succeeds(middle) {
            Ok(_) => enough = middle,
            Err(_) => fails = middle,
        }
    }
    Ok(enough)
}

/// Why a transaction is not executed at all, in the words that other servers use, which callers look for.
fn refused(error: EVMError<super::state::Never, InvalidTransaction>) -> RpcError {
    let error = match error {
        EVMError::Transaction(error) => error,
        other => return RpcError::Internal(other.to_string()),
    };
    RpcError::Rejected(match error {
        InvalidTransaction::NonceTooLow { tx, state } => {
            format!("nonce too low: next nonce {state}, tx nonce {tx}")
        }
        InvalidTransaction::NonceTooHigh { tx, state } => {
            format!(
                "nonce too high: next nonce {state}, tx nonce {tx}; nothing waits here for nonces between"
            )
        }
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => {
            format!("insufficient funds for gas * price + value: have {balance}, want {fee}")
        }
        InvalidTransaction::GasPriceLessThanBasefee => "max fee per gas less than block base fee".into(),
        InvalidTransaction::PriorityFeeGreaterThanMaxFee => {
            "max priority fee per gas higher than max fee per gas".into()
        }
        InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            format!("intrinsic gas too low: have {gas_limit}, want {initial_gas}")
        }
        InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
            format!("intrinsic gas too low: have {gas_limit}, want the floor {gas_floor}")
        }
        InvalidTransaction::TxGasLimitGreaterThanCap { gas_limit, cap } => {
            format!("transaction gas limit too high (cap: {cap}, tx: {gas_limit})")
        }
        InvalidTransaction::CallerGasLimitMoreThanBlock => "exceeds block gas limit".into(),
        InvalidTransaction::InvalidChainId => "invalid chain id for signer".into(),
        other => other.to_string(),
    })
}

/// A block number that was never produced stands for no randomness: `PREVRANDAO` follows from the parent.
pub(super) fn randomness(parent: &B256) -> B256 {
    alloy_primitives::keccak256([b"tombola devchain randomness".as_slice(), parent.as_slice()].concat())
}
