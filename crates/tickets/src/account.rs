//! How a client shows its gateway from which account it pays.

use alloy_primitives::Address;

use crate::batch::{Digest, Domain};
use crate::bytes::{concat, keccak};
use crate::signature::{CompactSignature, SignatureError, SignerKey};

const LABEL: &[u8; 17] = b"tombola/account/1";

/// Who a client says that it pays as. It holds for one link between two identities, so that nobody can use another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountProof {
    /// The account on the chain.
    pub account: Address,
    /// By a key that signs for that account.
    pub signature: CompactSignature,
}

impl AccountProof {
    /// Shows the gateway of this link identity that the client of that one pays from `account`.
    #[must_use]
    pub fn new(
        account: Address,
        key: &SignerKey,
        domain: &Domain,
        gateway: &[u8; 32],
        client: &[u8; 32],
    ) -> Self {
        Self { account, signature: key.sign(&digest(account, domain, gateway, client)) }
    }

    /// Who signed it. That this key signs for the account is for the chain to say.
    ///
    /// # Errors
    ///
    /// No key has made this signature.
    pub fn signer(
        &self,
        domain: &Domain,
        gateway: &[u8; 32],
        client: &[u8; 32],
    ) -> Result<Address, SignatureError> {
        self.signature.recover(&digest(self.account, domain, gateway, client))
    }
}

/// `keccak("tombola/account/1" | chain id 8 | escrow 20 | account 20 | gateway 32 | client 32)`, 129 bytes.
fn digest(account: Address, domain: &Domain, gateway: &[u8; 32], client: &[u8; 32]) -> Digest {
    Digest::from_bytes(keccak(&*concat::<129>(&[
        LABEL,
        &domain.chain_id().to_be_bytes(),
        domain.escrow().as_slice(),
        account.as_slice(),
        gateway,
        client,
    ])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_account_chain_and_link_only() {
        let key = SignerKey::from_bytes(&[7; 32]).unwrap();
        let (account, domain) = (Address::repeat_byte(1), Domain::new(1, Address::repeat_byte(2)));
        let proof = AccountProof::new(account, &key, &domain, &[3; 32], &[4; 32]);
        let signer = |proof: &AccountProof, domain: &Domain, gateway, client| {
            proof.signer(domain, &[gateway; 32], &[client; 32]) == Ok(key.address())
        };
        assert!(signer(&proof, &domain, 3, 4));
        assert!(!signer(&proof, &domain, 5, 4), "another gateway");
        assert!(!signer(&proof, &domain, 3, 5), "another client");
        assert!(!signer(&proof, &Domain::new(2, Address::repeat_byte(2)), 3, 4), "another chain");
        assert!(!signer(&proof, &Domain::new(1, Address::repeat_byte(3)), 3, 4), "another contract");
        let other = AccountProof { account: Address::repeat_byte(9), ..proof };
        assert!(!signer(&other, &domain, 3, 4), "another account");
    }
}
