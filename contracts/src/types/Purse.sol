// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice An amount and the key that acts on it most often, in one word: `tag 128 | amount 128`, from the highest bit.
/// The tag is the last 16 bytes of the key's address, 0 if there is none. Finding another key with the same tag takes
/// 2^128 work, as much as an opener of a ticket; in return a claim reads one storage slot less for each purse.
type Purse is uint256;

using PurseLibrary for Purse global;

library PurseLibrary {
    /// @notice The sum does not fit into 128 bits: the token's supply exceeds what this contract can count.
    error AmountOverflow();

    function amount(Purse self) internal pure returns (uint128) {
        return uint128(Purse.unwrap(self));
    }

    function tag(Purse self) internal pure returns (uint128) {
        return uint128(Purse.unwrap(self) >> 128);
    }

    /// @notice The tag of a key.
    function tagOf(address key) internal pure returns (uint128) {
        return uint128(uint160(key));
    }

    function withTag(Purse self, uint128 newTag) internal pure returns (Purse) {
        return Purse.wrap((uint256(newTag) << 128) | self.amount());
    }

    /// @notice The purse with `more` in it.
    function add(Purse self, uint256 more) internal pure returns (Purse) {
        if (more > type(uint128).max - self.amount()) revert AmountOverflow();
        // Cannot carry into the tag: the sum fits into the lower half.
        unchecked {
            return Purse.wrap(Purse.unwrap(self) + more);
        }
    }

    /// @notice The purse without `less`, which must not be more than is in it.
    function sub(Purse self, uint256 less) internal pure returns (Purse) {
        if (less > self.amount()) revert AmountOverflow();
        // Cannot borrow from the tag: the lower half is at least `less`.
        unchecked {
            return Purse.wrap(Purse.unwrap(self) - less);
        }
    }
}
