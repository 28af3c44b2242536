//! Why a contract refused, in words.

use alloy_primitives::{Address, Bytes};
use alloy_sol_types::{Revert as TextRevert, SolError, SolInterface};
use core::fmt;

use crate::bindings::Escrow::EscrowErrors;
use crate::bindings::Registry::RegistryErrors;
use crate::bindings::TestToken::TestTokenErrors;

/// What a contract said when it reverted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revert {
    /// An error of the escrow, or one that the registry has too.
    Escrow(EscrowErrors),
    /// An error of the registry.
    Registry(RegistryErrors),
    /// An error of the token.
    Token(TestTokenErrors),
    /// A text.
    Text(String),
    /// Bytes that say nothing to us; none, if the gas ran out.
    Other(Bytes),
}

impl Revert {
    /// Reads the data of a revert.
    #[must_use]
    pub fn decode(data: &Bytes) -> Self {
        if let Ok(error) = EscrowErrors::abi_decode(data) {
            return Self::Escrow(error);
        }
        if let Ok(error) = RegistryErrors::abi_decode(data) {
            return Self::Registry(error);
        }
        if let Ok(error) = TestTokenErrors::abi_decode(data) {
            return Self::Token(error);
        }
        match TextRevert::abi_decode(data) {
            Ok(revert) => Self::Text(revert.reason.chars().take(200).collect()),
            Err(_) => Self::Other(data.clone()),
        }
    }
}

impl Revert {
    /// The name of the contract's error, without what it is about: for logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let selector = match self {
            Self::Escrow(error) => EscrowErrors::name_by_selector(error.selector()),
            Self::Registry(error) => RegistryErrors::name_by_selector(error.selector()),
            Self::Token(error) => TestTokenErrors::name_by_selector(error.selector()),
            Self::Text(_) => Some("a text"),
            Self::Other(_) => Some("unknown"),
        };
        selector.unwrap_or("unknown")
    }
}

impl fmt::Display for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Escrow(error) => escrow(error, f),
            Self::Registry(error) => registry(error, f),
            Self::Token(error) => token(error, f),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Other(data) if data.is_empty() => f.write_str("no reason, or no gas left"),
            Self::Other(data) => write!(f, "an error that is not known here: {data}"),
        }
    }
}

fn escrow(error: &EscrowErrors, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use EscrowErrors as E;
    match error {
        E::InvalidPeriods(_) => f.write_str("the notice must be longer than a ticket's life"),
        E::NothingToMove(_) => f.write_str("there is nothing to move: the amount is 0, or nothing arrived"),
        E::NotAllowed(_) => f.write_str("this account may not do that for the other one"),
        E::NoNotice(_) => f.write_str("nothing was announced that could be withdrawn: ask for it first, and wait"),
        E::NoticeRuns(e) => write!(f, "the notice runs until {} (Unix seconds)", e.until),
        E::InvalidKey(_) => f.write_str("the last 16 bytes of this address are zero"),
        E::SignerKnown(e) => write!(f, "{} signs for the issuer already, or was revoked", e.signer),
        E::SignerUnknown(e) => write!(f, "{} does not sign for the issuer", e.signer),
        E::InvalidClass(_) => f.write_str(
            "no such class can be: face value and win probability are not 0, the probability at most 2^58, its life not \
             longer than a ticket's, its beginning in its epoch",
        ),
        E::NoClassLeft(_) => f.write_str("all numbers of classes are taken"),
        E::NotRedeemer(_) => {
            f.write_str("this key does not redeem for the recipient: `setRedeemer` from the recipient's account")
        }
        E::TooEarly(e) => write!(f, "the class cannot be claimed before {} (Unix seconds)", e.validFrom),
        E::Expired(e) => write!(f, "the class could be claimed until {} (Unix seconds)", e.expiry),
        E::WindowClaimed(e) => write!(f, "window {} of {} was claimed before", e.window, e.issuer),
        E::SignerRevoked(e) => write!(f, "{} was revoked before the class was in use", e.signer),
        E::TooLittle(e) => write!(f, "the issuer can pay {} and the claim insists on {}", e.paid, e.least),
        E::NoWin(e) => write!(f, "ticket {} did not win", e.k),
        E::InvalidSignature(_) => f.write_str("a batch of the claim has no valid signature"),
        other => write!(f, "the claim or the token is not as it should be: {}", name_of(other)),
    }
}

fn name_of(error: &EscrowErrors) -> &'static str {
    EscrowErrors::name_by_selector(error.selector()).unwrap_or("unknown")
}

fn registry(error: &RegistryErrors, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use RegistryErrors as E;
    match error {
        E::NotEscrow(_) => f.write_str("only the escrow may do that"),
        E::AlreadyJoined(_) => {
            f.write_str("the account is a member, or has not withdrawn what was left of its stake")
        }
        E::NotJoined(_) => f.write_str("the account is no member"),
        E::AlreadyLeft(_) => f.write_str("the account has left already"),
        E::InvalidRole(_) => f.write_str("a role is needed"),
        E::StakeTooSmall(e) => write!(f, "a node stakes at least {}, and {} arrived", e.least, e.received),
        other => f.write_str(RegistryErrors::name_by_selector(other.selector()).unwrap_or("unknown")),
    }
}

fn token(error: &TestTokenErrors, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use TestTokenErrors as E;
    match error {
        E::ERC20InsufficientAllowance(e) => {
            write!(
                f,
                "{} may take {} of the tokens and needs {}: approve it first",
                e.spender, e.allowance, e.needed
            )
        }
        E::ERC20InsufficientBalance(e) => {
            write!(f, "{} has {} tokens and needs {}", e.sender, e.balance, e.needed)
        }
        other => f.write_str(TestTokenErrors::name_by_selector(other.selector()).unwrap_or("unknown")),
    }
}

/// A window that a revert says was claimed.
#[must_use]
pub fn claimed_window(revert: &Revert) -> Option<(Address, u32)> {
    match revert {
        Revert::Escrow(EscrowErrors::WindowClaimed(error)) => {
            Some((error.issuer, u32::try_from(error.window).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::{Escrow, Registry, TestToken};
    use alloy_primitives::U256;

    #[test]
    fn reverts_are_readable() {
        let text = |data: Vec<u8>| Revert::decode(&data.into()).to_string();
        let little = Escrow::TooLittle { paid: U256::from(3), least: U256::from(5) };
        assert_eq!(text(little.abi_encode()), "the issuer can pay 3 and the claim insists on 5");
        let small = Registry::StakeTooSmall { received: U256::from(3), least: U256::from(5) };
        assert_eq!(text(small.abi_encode()), "a node stakes at least 5, and 3 arrived");
        let (sender, needed) = (Address::ZERO, U256::from(5));
        let poor = TestToken::ERC20InsufficientBalance { sender, balance: U256::ZERO, needed };
        assert!(text(poor.abi_encode()).ends_with("has 0 tokens and needs 5"));
        assert_eq!(text(TextRevert::from("why").abi_encode()), "\"why\"");
        assert_eq!(text(vec![]), "no reason, or no gas left");
        assert_eq!(text(vec![1, 2, 3, 4]), "an error that is not known here: 0x01020304");
        assert!(text(Escrow::RootMismatch { k: U256::ZERO }.abi_encode()).ends_with("RootMismatch"));
    }

    #[test]
    fn a_claimed_window_is_named() {
        let issuer = Address::repeat_byte(7);
        let revert = Escrow::WindowClaimed { issuer, window: U256::from(9) };
        assert_eq!(claimed_window(&Revert::decode(&revert.abi_encode().into())), Some((issuer, 9)));
        let revert = Escrow::NotRedeemer {};
        assert_eq!(claimed_window(&Revert::decode(&revert.abi_encode().into())), None);
    }
}
