//! What changes something.

use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use tombola_tickets::{ClassNumber, PriceClass};

use super::{Contracts, NodeRole, Operator, OpsError};
use crate::bindings::{Escrow, Registry, TestToken};

/// Functions that return nothing but that they were done.
macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $contract:ident, $call:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// See [`OpsError`].
        pub async fn $name(&self, contracts: &Contracts $(, $argument: $type)*) -> Result<(), OpsError> {
            self.call(contracts.$contract, &$call).await.map(drop)
        }
    )*};
}

/// Functions after which an event says how much moved.
macro_rules! movements {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $contract:ident, $call:expr, $event:path;)*) => {$(
        $(#[$doc])*
        /// Returns how much moved, in the smallest unit of the token.
        ///
        /// # Errors
        ///
        /// See [`OpsError`].
        pub async fn $name(&self, contracts: &Contracts $(, $argument: $type)*) -> Result<u128, OpsError> {
            let done = self.call(contracts.$contract, &$call).await?;
            let event = done.event::<$event>(stringify!($name), contracts.$contract)?;
            Ok(event.amount.try_into().unwrap_or(u128::MAX))
        }
    )*};
}

impl Operator {
    actions! {
        /// Makes tokens out of nothing, if it is the test token.
        mint(to: Address, amount: u128) => token, TestToken::mintCall { to, amount: U256::from(amount) };
        /// Lets a contract take up to so many tokens of this account.
        approve(spender: Address, amount: U256) => token, TestToken::approveCall { spender, value: amount };
        /// Sends tokens.
        transfer(to: Address, amount: u128) => token, TestToken::transferCall { to, value: U256::from(amount) };
        /// Announces that so much of the own deposit will leave; 0 takes that back.
        request_unlock(amount: u128) => escrow, Escrow::requestUnlockCall { amount };
        /// Announces that the reserve for a recipient will leave.
        close_reserve(recipient: Address) => escrow, Escrow::closeReserveCall { recipient };
        /// Moves credits into the own deposit.
        deposit_credits(amount: u128) => escrow, Escrow::depositCreditsCall { amount };
        /// Names the key that claims for this account; zero: the account itself.
        set_redeemer(redeemer: Address) => escrow, Escrow::setRedeemerCall { redeemer };
        /// Names where money goes when it leaves; zero: to this account.
        set_payout(payout: Address) => escrow, Escrow::setPayoutCall { payout };
        /// Lets a key sign batches; the greatest `cap` is none.
        add_signer(signer: Address, cap: u128) => escrow, Escrow::addSignerCall { signer, cap };
        /// Changes what the deposit pays for a key's batches in an epoch.
        cap_signer(signer: Address, cap: u128) => escrow, Escrow::capSignerCall { signer, cap };
        /// Revokes a key for good.
        revoke_signer(signer: Address) => escrow, Escrow::revokeSignerCall { signer };
        /// Ends the membership with the current epoch.
        leave() => registry, Registry::leaveCall {};
        /// Stakes, and joins; the registry must be approved before. Active from the next epoch on.
        join(role: NodeRole, identity: B256, stake: u128) => registry,
            Registry::joinCall { role: role.into(), identity, amount: stake };
    }

    movements! {
        /// Adds to an issuer's deposit; the escrow must be approved before.
        deposit(issuer: Address, amount: u128) => escrow,
            Escrow::depositCall { issuer, amount }, Escrow::Deposited;
        /// Takes what was announced of the deposit.
        withdraw_deposit() => escrow, Escrow::withdrawDepositCall {}, Escrow::DepositWithdrawn;
        /// Opens a reserve for a recipient, and funds it; the escrow must be approved before.
        open_reserve(recipient: Address, amount: u128) => escrow,
            Escrow::openReserveCall { recipient, amount }, Escrow::ReserveFunded;
        /// Adds to somebody's reserve for a recipient; the escrow must be approved before.
        fund_reserve(issuer: Address, recipient: Address, amount: u128) => escrow,
            Escrow::fundReserveCall { issuer, recipient, amount }, Escrow::ReserveFunded;
        /// Takes what is left of a reserve that was closed.
        withdraw_reserve(recipient: Address) => escrow,
            Escrow::withdrawReserveCall { recipient }, Escrow::ReserveWithdrawn;
        /// Sends what an account has earned from claims to its payout address.
        withdraw_credits(account: Address) => escrow,
            Escrow::withdrawCreditsCall { account }, Escrow::CreditsWithdrawn;
        /// Sends what an account has drawn from stakes to its payout address.
        withdraw_stake_credits(account: Address) => registry,
            Registry::withdrawCreditsCall { account }, Registry::CreditsWithdrawn;
        /// Takes what is left of the stake.
        withdraw_stake() => registry, Registry::withdrawStakeCall {}, Registry::StakeWithdrawn;
    }

    /// Lets a contract take so many tokens of this account, if it may not yet. Some tokens want that nothing is allowed before
    /// something else is.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn allow(&self, contracts: &Contracts, spender: Address, amount: u128) -> Result<(), OpsError> {
        let (allowed, amount) =
            (self.allowance(contracts, self.address(), spender).await?, U256::from(amount));
        if allowed >= amount {
            return Ok(());
        }
        if !allowed.is_zero() {
            self.approve(contracts, spender, U256::ZERO).await?;
        }
        self.approve(contracts, spender, amount).await
    }

    /// Sends of the chain's own money, in wei: what gas is paid with.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn send_wei(&self, to: Address, wei: U256) -> Result<(), OpsError> {
        self.transact("sending wei", TxKind::Call(to), wei, Bytes::new()).await.map(drop)
    }

    /// Registers a price class. Wait until it is final, and read it back, before it is used.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn register_class(
        &self,
        contracts: &Contracts,
        class: &PriceClass,
    ) -> Result<ClassNumber, OpsError> {
        let call = Escrow::registerClassCall {
            face: class.face_value,
            winProbability: class.win_probability.get(),
            validFrom: class.valid_from.0,
            expiry: class.expiry.0,
            epoch: class.epoch,
        };
        let done = self.call(contracts.escrow, &call).await?;
        let event = done.event::<Escrow::ClassRegistered>("registering a class", contracts.escrow)?;
        Ok(ClassNumber(event.class))
    }

    /// Claims windows at once, without the care of the redeemer. Returns the gas that was used.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn redeem(
        &self,
        contracts: &Contracts,
        recipient: Address,
        claims: Vec<u8>,
    ) -> Result<u64, OpsError> {
        let call = Escrow::redeemCall { recipient, claims: claims.into() };
        Ok(self.call(contracts.escrow, &call).await?.gas())
    }
}
