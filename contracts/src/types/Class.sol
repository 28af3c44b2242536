// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice A price class in one word: `face 128 | winProbability 64 | validFrom 32 | expiry 32`, from the highest bit.
/// A class that nobody registered is 0 and thereby expired.
type Class is uint256;

using ClassLibrary for Class global;

library ClassLibrary {
    function pack(uint128 face_, uint64 winProbability_, uint32 validFrom_, uint32 expiry_)
        internal
        pure
        returns (Class)
    {
        return Class.wrap(
            (uint256(face_) << 128) | (uint256(winProbability_) << 64) | (uint256(validFrom_) << 32) | expiry_
        );
    }

    /// @notice What a winning ticket pays, in the token's smallest unit.
    function face(Class self) internal pure returns (uint128) {
        return uint128(Class.unwrap(self) >> 128);
    }

    /// @notice How often a ticket wins, as a fraction of 2^64.
    function winProbability(Class self) internal pure returns (uint64) {
        return uint64(Class.unwrap(self) >> 64);
    }

    /// @notice The first second, of Unix time, at which tickets can be claimed.
    function validFrom(Class self) internal pure returns (uint32) {
        return uint32(Class.unwrap(self) >> 32);
    }

    /// @notice The last second, of Unix time, at which tickets can be claimed.
    function expiry(Class self) internal pure returns (uint32) {
        return uint32(Class.unwrap(self));
    }
}
