//! An EVM in memory, and the contracts as they are checked in under `contracts/artifacts`.

use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use alloy_sol_types::{SolCall, SolConstructor, sol};
use revm::context::result::ExecutionResult;
use revm::context::{CfgEnv, TxEnv};
use revm::database::InMemoryDB;
use revm::handler::{MainnetContext, MainnetEvm};
use revm::primitives::hardfork::SpecId;
use revm::{ExecuteCommitEvm, ExecuteEvm, MainBuilder};
use tombola_tickets::UnixSeconds;

sol! {
    #[allow(missing_docs)]
    contract Token {
        constructor(uint8 decimals);
        function mint(address to, uint256 amount);
        function approve(address spender, uint256 amount) returns (bool);
    }

    #[allow(missing_docs)]
    contract Escrow {
        constructor(
            address token,
            uint32 maxTicketLife,
            uint32 noticePeriod,
            uint64 genesis,
            uint32 epochLength,
            uint128 minStake
        );

        error InvalidClass();
        error NotRedeemer();
        error InvalidLength();
        error TooEarly(uint256 validFrom);
        error Expired(uint256 expiry);
        error WindowClaimed(address issuer, uint256 window);
        error SignerUnknown(address signer);
        error SignerRevoked(address signer);
        error TooLittle(uint256 paid, uint256 least);
        error NothingClaimed();
        error BatchOrder(uint256 number);
        error TicketOrder(uint256 k);
        error RootMismatch(uint256 k);
        error InvalidSignature();
        error NoWin(uint256 k);

        function deposit(address issuer, uint128 amount) returns (uint128 received);
        function setRedeemer(address redeemer);
        function addSigner(address signer, uint128 cap);
        function revokeSigner(address signer);
        function registerClass(
            uint128 face,
            uint64 winProbability,
            uint32 validFrom,
            uint32 expiry,
            uint32 epoch
        ) returns (uint32 class);
        function redeem(address recipient, bytes claims);
        function creditOf(address account) returns (uint128);
        function isClaimed(address issuer, address recipient, uint32 window) returns (bool);
        function domainSeparator() returns (bytes32);
    }
}

/// What a transaction may use, which is less than any may since the Osaka fork.
const GAS: u64 = 16_000_000;

/// Who makes contracts, and does what anybody may.
pub(crate) const ANYBODY: Address = Address::repeat_byte(0xaa);

/// Seconds from a class's `validFrom` to its `expiry`, at most.
pub(crate) const MAX_TICKET_LIFE: u32 = 2 * 86_400;

/// A chain without fees, on the Osaka fork.
pub(crate) struct Chain {
    evm: MainnetEvm<MainnetContext<InMemoryDB>>,
}

impl Chain {
    pub(crate) fn new(chain_id: u64, now: UnixSeconds) -> Self {
        let mut config = CfgEnv::new_with_spec(SpecId::OSAKA);
        config.disable_nonce_check = true;
        let mut evm =
            MainnetContext::new(InMemoryDB::default(), SpecId::OSAKA).with_cfg(config).build_mainnet();
        evm.ctx.cfg.chain_id = chain_id;
        evm.ctx.block.timestamp = U256::from(now.0);
        Self { evm }
    }

    pub(crate) fn set_now(&mut self, now: UnixSeconds) {
        self.evm.ctx.block.timestamp = U256::from(now.0);
    }

    /// What is called from now on is on a chain that has split off.
    pub(crate) fn set_chain_id(&mut self, chain_id: u64) {
        self.evm.ctx.cfg.chain_id = chain_id;
    }

    /// Puts the code that is at `from` also at `to`.
    pub(crate) fn copy_code(&mut self, from: Address, to: Address) {
        let database = &mut self.evm.ctx.journaled_state.database;
        let mut info = database.load_account(from).unwrap().info.clone();
        let code = database.cache.contracts.get(&info.code_hash).cloned();
        info.code = info.code.or(code);
        database.insert_account_info(to, info);
    }

    /// Executes a transaction, whose effects last until [`forget`](Self::forget). The output, or why it reverts.
    ///
    /// # Panics
    ///
    /// It uses too much gas or fails in another way that the contracts do not have.
    fn execute(&mut self, from: Address, kind: TxKind, data: Bytes) -> Result<ExecutionResult, &'static str> {
        let chain_id = Some(self.evm.ctx.cfg.chain_id);
        let transaction = TxEnv { caller: from, gas_limit: GAS, kind, data, chain_id, ..TxEnv::default() };
        match self.evm.transact_one(transaction).unwrap() {
            ExecutionResult::Revert { output, .. } => {
                let selector = output.first_chunk::<4>();
                let name = selector.and_then(|selector| Escrow::EscrowErrors::name_by_selector(*selector));
                Err(name.unwrap_or_else(|| panic!("reverts for no reason that is known: {output}")))
            }
            ExecutionResult::Halt { reason, .. } => panic!("halts: {reason:?}"),
            success => Ok(success),
        }
    }

    /// Calls a contract; effects last until [`forget`](Self::forget).
    pub(crate) fn attempt<C: SolCall>(
        &mut self,
        from: Address,
        to: Address,
        call: &C,
    ) -> Result<C::Return, &'static str> {
        let result = self.execute(from, TxKind::Call(to), call.abi_encode().into())?;
        Ok(C::abi_decode_returns(result.output().unwrap()).unwrap())
    }

    /// Undoes all attempts since the last one that was not undone.
    pub(crate) fn forget(&mut self) {
        let _ = self.evm.finalize();
    }

    /// Makes all attempts last.
    pub(crate) fn keep(&mut self) {
        self.evm.commit_inner();
    }

    /// Calls a contract, which must not revert.
    pub(crate) fn send<C: SolCall>(&mut self, from: Address, to: Address, call: &C) -> C::Return {
        let found = self.attempt(from, to, call);
        self.keep();
        found.unwrap_or_else(|reason| panic!("{}: {reason}", C::SIGNATURE))
    }

    /// Deploys the contract of an artefact.
    fn create(&mut self, artefact: &str, arguments: &[u8]) -> Address {
        let path = format!("{}/../../contracts/artifacts/{artefact}.json", env!("CARGO_MANIFEST_DIR"));
        let artefact: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut code = hex::decode(artefact["bytecode"].as_str().unwrap()).unwrap();
        code.extend_from_slice(arguments);
        let result = self.execute(ANYBODY, TxKind::Create, code.into()).unwrap();
        self.keep();
        result.created_address().unwrap()
    }

    /// Deploys a token and an escrow. Escrow first.
    pub(crate) fn deploy(&mut self, genesis: UnixSeconds, epoch_length: u32) -> (Address, Address) {
        let token = self.create("TestToken", &Token::constructorCall { decimals: 18 }.abi_encode());
        let arguments = Escrow::constructorCall {
            token,
            maxTicketLife: MAX_TICKET_LIFE,
            noticePeriod: MAX_TICKET_LIFE + 86_400,
            genesis: genesis.0.into(),
            epochLength: epoch_length,
            minStake: 1,
        };
        (self.create("Escrow", &arguments.abi_encode()), token)
    }

    /// Gives an issuer a deposit.
    pub(crate) fn deposit(&mut self, escrow: Address, token: Address, issuer: Address, amount: u128) {
        self.send(ANYBODY, token, &Token::mintCall { to: ANYBODY, amount: U256::from(amount) });
        self.send(ANYBODY, token, &Token::approveCall { spender: escrow, amount: U256::MAX });
        self.send(ANYBODY, escrow, &Escrow::depositCall { issuer, amount });
    }

    /// Redeems, as the recipient's redeemer. What is credited to the recipient from then on.
    pub(crate) fn redeem(
        &mut self,
        escrow: Address,
        redeemer: Address,
        recipient: Address,
        claims: &[u8],
    ) -> Result<u128, &'static str> {
        let call = Escrow::redeemCall { recipient, claims: claims.to_vec().into() };
        self.attempt(redeemer, escrow, &call)?;
        self.attempt(redeemer, escrow, &Escrow::creditOfCall { account: recipient })
    }
}
