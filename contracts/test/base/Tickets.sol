// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Test} from "./Test.sol";

/// @notice What issuers and recipients compute off the chain, written from docs/payment.md in the plainest way, so that
/// it shares nothing with what it tests.
abstract contract Tickets is Test {
    bytes32 internal constant TYPEHASH = keccak256(
        "Batch(address issuer,address recipient,uint32 class,uint32 window,uint8 number,uint16 count,bytes32 commitment,bytes20 root,bytes16 salt)"
    );

    struct Window {
        address issuer;
        address recipient;
        uint32 class;
        uint32 number;
        bytes16 r;
        uint64 winProbability;
        bytes32 domain;
    }

    struct Batch {
        uint8 number;
        bytes16 salt;
        bytes16[] openers;
        /// All nodes, level by level, leaves first.
        bytes20[][] levels;
        uint256 signerKey;
        bytes32 digest;
        /// Indices of the winners that are claimed.
        uint256[] winners;
    }

    function commitmentOf(bytes16 r) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(r, "tombola window"));
    }

    function treeOf(bytes16[] memory openers) internal pure returns (bytes20[][] memory levels) {
        uint256 depth = 0;
        while (2 ** depth < openers.length) depth++;
        levels = new bytes20[][](depth + 1);
        levels[0] = new bytes20[](2 ** depth);
        for (uint256 i = 0; i < openers.length; i++) {
            levels[0][i] = bytes20(keccak256(abi.encodePacked(openers[i])));
        }
        for (uint256 d = 1; d <= depth; d++) {
            levels[d] = new bytes20[](2 ** (depth - d));
            for (uint256 i = 0; i < levels[d].length; i++) {
                levels[d][i] =
                    bytes20(keccak256(abi.encodePacked(levels[d - 1][2 * i], levels[d - 1][2 * i + 1])));
            }
        }
    }

    function rootOf(Batch memory batch) internal pure returns (bytes20) {
        return batch.levels[batch.levels.length - 1][0];
    }

    function digestOf(Window memory window, Batch memory batch) internal pure returns (bytes32) {
        bytes32 structHash = keccak256(
            abi.encode(
                TYPEHASH,
                window.issuer,
                window.recipient,
                window.class,
                window.number,
                batch.number,
                uint16(batch.openers.length),
                commitmentOf(window.r),
                rootOf(batch),
                batch.salt
            )
        );
        return keccak256(abi.encodePacked(hex"1901", window.domain, structHash));
    }

    function wins(Window memory window, Batch memory batch, uint256 k) internal pure returns (bool) {
        bytes32 drawn = keccak256(abi.encodePacked(batch.digest, uint8(k), batch.openers[k], window.r));
        return uint64(bytes8(drawn)) < window.winProbability;
    }

    /// @notice A batch of `count` tickets of which at least `least` win, and exactly so many are claimed; 0: all that win,
    /// and at least one. The salt is tried until it fits, which no issuer would do.
    function makeBatch(Window memory window, uint8 number, uint256 count, uint256 signerKey, uint256 least)
        internal
        pure
        returns (Batch memory batch)
    {
        batch.number = number;
        batch.signerKey = signerKey;
        batch.openers = new bytes16[](count);
        for (uint256 k = 0; k < count; k++) {
            batch.openers[k] =
                bytes16(keccak256(abi.encode(window.issuer, window.recipient, window.number, number, k)));
        }
        batch.levels = treeOf(batch.openers);
        for (uint256 attempt = 0;; attempt++) {
            saltBatch(window, batch, attempt);
            if (batch.winners.length >= (least == 0 ? 1 : least)) break;
        }
        if (least != 0) {
            uint256[] memory winners = batch.winners;
            assembly ("memory-safe") {
                mstore(winners, least)
            }
        }
    }

    /// @notice Gives a batch a salt, and finds all its winners.
    function saltBatch(Window memory window, Batch memory batch, uint256 attempt) internal pure {
        batch.salt = bytes16(keccak256(abi.encode("salt", window.number, batch.number, attempt)));
        batch.digest = digestOf(window, batch);
        uint256 count = 0;
        uint256[] memory winners = new uint256[](batch.openers.length);
        for (uint256 k = 0; k < batch.openers.length; k++) {
            if (wins(window, batch, k)) winners[count++] = k;
        }
        assembly ("memory-safe") {
            mstore(winners, count)
        }
        batch.winners = winners;
    }

    function encodeWinner(Batch memory batch, uint256 k) internal pure returns (bytes memory encoded) {
        encoded = abi.encodePacked(uint8(k), batch.openers[k]);
        for (uint256 d = 0; d + 1 < batch.levels.length; d++) {
            encoded = abi.encodePacked(encoded, batch.levels[d][(k >> d) ^ 1]);
        }
    }

    function encodeHead(Batch memory batch, uint8 winners) internal pure returns (bytes memory) {
        (bytes32 r, bytes32 vs) = vm.signCompact(batch.signerKey, batch.digest);
        return abi.encodePacked(
            batch.number, uint8(batch.openers.length - 1), batch.salt, abi.encodePacked(r, vs), winners
        );
    }

    function encodeBatch(Batch memory batch) internal pure returns (bytes memory encoded) {
        encoded = encodeHead(batch, uint8(batch.winners.length));
        for (uint256 i = 0; i < batch.winners.length; i++) {
            encoded = abi.encodePacked(encoded, encodeWinner(batch, batch.winners[i]));
        }
    }

    function encodeWindow(Window memory window, uint16 least, uint8 batches, bytes memory encodedBatches)
        internal
        pure
        returns (bytes memory)
    {
        return abi.encodePacked(
            window.issuer, window.class, window.number, window.r, least, batches, encodedBatches
        );
    }

    /// @notice A window with one batch.
    function encodeWindow(Window memory window, uint16 least, Batch memory batch)
        internal
        pure
        returns (bytes memory)
    {
        return encodeWindow(window, least, 1, encodeBatch(batch));
    }
}
