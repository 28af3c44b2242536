// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice The memory in which one call checks all its claims, by its address. What stays the same is written once.
///
/// | at    | bytes | what                                                                       |
/// |-------|-------|----------------------------------------------------------------------------|
/// | 0x000 | 320   | the struct `Batch`: type hash and nine fields, of 32 bytes each             |
/// | 0x140 | 30    | nothing                                                                    |
/// | 0x15e | 66    | 0x1901, domain separator, struct hash: what the digest is the hash of      |
/// | 0x1a0 | 128   | what `ecrecover` reads: digest, 27 + y parity, r, s                        |
/// | 0x220 | 65    | what the lottery hashes: digest 32, k 1, opener 16, r of the window 16     |
/// | 0x261 | 31    | rest of the word that writing the window's r touches                       |
type Frame is uint256;

using Claims for Frame global;

/// @notice Reading and checking of claims, as in docs/payment.md. All positions are offsets in calldata.
///
/// Nothing here compares a position with the end of the claims: positions only grow, what lies behind the end reads as
/// something, and the caller refuses the whole call unless the last window ends exactly where the claims do.
library Claims {
    /// @notice A window without batches, or a batch without winners.
    error NothingClaimed();
    /// @notice Numbers of a window's batches must grow.
    error BatchOrder(uint256 number);
    /// @notice Indices of a batch's tickets must grow and be less than its count.
    error TicketOrder(uint256 k);
    /// @notice Winners of one batch lead to different roots.
    error RootMismatch(uint256 k);
    /// @notice The signature is no signature of any key, or its s is not in the lower half.
    error InvalidSignature();
    /// @notice The ticket did not win.
    error NoWin(uint256 k);

    bytes32 internal constant BATCH_TYPEHASH = keccak256(
        "Batch(address issuer,address recipient,uint32 class,uint32 window,uint8 number,uint16 count,bytes32 commitment,bytes20 root,bytes16 salt)"
    );

    /// @dev The least s that is not in the lower half: half of the order of secp256k1, rounded up.
    uint256 private constant AFTER_HALF_ORDER =
        0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1;

    /// @dev Bytes of a window before its batches, and of a batch before its winners.
    uint256 private constant WINDOW_HEAD = 47;
    uint256 private constant BATCH_HEAD = 83;

    /// @notice Reserves the memory, and writes what all batches of the call have in common.
    /// @param account the recipient
    function frame(bytes32 domainSeparator, address account) internal pure returns (Frame self) {
        bytes32 typeHash = BATCH_TYPEHASH;
        assembly ("memory-safe") {
            self := mload(0x40)
            mstore(0x40, add(self, 0x280))
            mstore(self, typeHash)
            mstore(add(self, 0x40), account)
            mstore(add(self, 0x140), 0x1901)
            mstore(add(self, 0x160), domainSeparator)
            // The lower half of the salt's word, which `digest` leaves alone. Memory need not be zero.
            mstore(add(self, 0x120), 0)
        }
    }

    /// @notice Reads the head of the window at `at`, and writes what its batches have in common.
    /// @return least how many winners must be paid in full
    /// @return batches how many batches follow, at least 1
    /// @return next where the first of them begins
    function window(Frame self, uint256 at)
        internal
        pure
        returns (uint256 least, uint256 batches, uint256 next)
    {
        assembly ("memory-safe") {
            // issuer 20 | class 4 | window 4 | (4 bytes of r)
            let word := calldataload(at)
            mstore(add(self, 0x20), shr(96, word))
            mstore(add(self, 0x60), and(shr(64, word), 0xffffffff))
            mstore(add(self, 0x80), and(shr(32, word), 0xffffffff))
            // There was no batch: its number is one less than the least.
            mstore(add(self, 0xa0), not(0))
            // r 16 | least 2 | batches 1 | (13 bytes of the first batch)
            word := calldataload(add(at, 28))
            least := and(shr(112, word), 0xffff)
            batches := and(shr(104, word), 0xff)
            // The lottery's r. The other half of the word is behind the 65 bytes that are hashed.
            mstore(add(self, 0x251), word)
            // commitment = keccak(r | "tombola window"), 30 bytes in the scratch space
            mstore(0x00, word)
            mstore(0x10, "tombola window")
            mstore(add(self, 0xe0), keccak256(0x00, 30))
        }
        if (batches == 0) revert NothingClaimed();
        unchecked {
            next = at + WINDOW_HEAD;
        }
    }

    /// @notice Who pays for the window.
    function issuer(Frame self) internal pure returns (address account) {
        assembly ("memory-safe") {
            account := mload(add(self, 0x20))
        }
    }

    /// @notice Who is paid.
    function recipient(Frame self) internal pure returns (address account) {
        assembly ("memory-safe") {
            account := mload(add(self, 0x40))
        }
    }

    /// @notice The number of the window's price class.
    function class(Frame self) internal pure returns (uint256 id) {
        assembly ("memory-safe") {
            id := mload(add(self, 0x60))
        }
    }

    /// @notice The window's number.
    function series(Frame self) internal pure returns (uint256 id) {
        assembly ("memory-safe") {
            id := mload(add(self, 0x80))
        }
    }

    /// @notice Checks the batch at `at` and all its winners, except for whether its signer may sign for the issuer.
    /// @param winProbability as a fraction of 2^64
    /// @return winners how many tickets won, at least 1
    /// @return signer whose signature it carries, never zero
    /// @return next what follows the batch
    function batch(Frame self, uint256 at, uint256 winProbability)
        internal
        view
        returns (uint256 winners, address signer, uint256 next)
    {
        unchecked {
            // number 1 | count - 1 1 | salt 16 | (14 bytes of the signature)
            uint256 last;
            {
                uint256 ordinal;
                uint256 previous;
                assembly ("memory-safe") {
                    let word := calldataload(at)
                    ordinal := byte(0, word)
                    last := byte(1, word)
                    previous := mload(add(self, 0xa0))
                    mstore(add(self, 0xa0), ordinal)
                    mstore(add(self, 0xc0), add(last, 1))
                    winners := byte(0, calldataload(add(at, 82)))
                }
                // One more than "none" is 0.
                if (ordinal < previous + 1) revert BatchOrder(ordinal);
            }
            if (winners == 0) revert NothingClaimed();
            next = at + BATCH_HEAD;

            uint256 root;
            uint256 k;
            (root, k, next) = _climb(self, next, last);
            if (k > last) revert TicketOrder(k);
            signer = _signer(self, at, root);
            // The digest depends on the root, hence the lottery comes last.
            if (_draw(self) >= winProbability) revert NoWin(k);

            for (uint256 more = winners - 1; more != 0; --more) {
                uint256 before = k;
                uint256 found;
                (found, k, next) = _climb(self, next, last);
                if (k <= before || k > last) revert TicketOrder(k);
                if (found != root) revert RootMismatch(k);
                if (_draw(self) >= winProbability) revert NoWin(k);
            }
        }
    }

    /// @dev Reads the winner at `at`, leaves its index and opener where the lottery reads them, and computes the root
    /// that its siblings lead to. A leaf is the hash of exactly 16 bytes and an inner node that of exactly 40, so that
    /// neither passes as the other.
    /// @param last the batch's greatest index: it has as many bits as the tree has levels
    /// @return root the root, in the upper 20 bytes of a word whose rest is zero
    /// @return k the ticket's index, which is not checked yet
    /// @return next what follows the winner
    function _climb(Frame self, uint256 at, uint256 last)
        private
        pure
        returns (uint256 root, uint256 k, uint256 next)
    {
        assembly ("memory-safe") {
            // k 1 | opener 16
            calldatacopy(add(self, 0x240), at, 17)
            // Only the upper 20 bytes of a hash are a node. The rest stays, and is overwritten or not hashed.
            root := keccak256(add(self, 0x241), 16)
            k := byte(0, calldataload(at))
            next := add(at, 17)

            // One level up. A left node goes to 0 and its sibling to 20, a right node to 20 and its sibling to 0. The
            // node is written first, in 32 bytes, and the sibling, in exactly 20, over what is too much.
            function up(node, bit, sibling) -> parent {
                let place := mul(20, and(bit, 1))
                mstore(place, node)
                calldatacopy(sub(20, place), sibling, 20)
                parent := keccak256(0x00, 40)
            }

            switch gt(last, 127)
            case 1 {
                // Nearly all batches have eight levels.
                root := up(root, k, next)
                root := up(root, shr(1, k), add(next, 20))
                root := up(root, shr(2, k), add(next, 40))
                root := up(root, shr(3, k), add(next, 60))
                root := up(root, shr(4, k), add(next, 80))
                root := up(root, shr(5, k), add(next, 100))
                root := up(root, shr(6, k), add(next, 120))
                root := up(root, shr(7, k), add(next, 140))
                next := add(next, 160)
            }
            default {
                let index := k
                for {} last { last := shr(1, last) } {
                    root := up(root, index, next)
                    index := shr(1, index)
                    next := add(next, 20)
                }
            }
            root := shl(96, shr(96, root))
        }
    }

    /// @dev Computes the digest of the batch at `at`, leaves it where the lottery reads it, and recovers its signer.
    function _signer(Frame self, uint256 at, uint256 root) private view returns (address signer) {
        bool found;
        assembly ("memory-safe") {
            mstore(add(self, 0x100), root)
            // The salt is the upper half of its word.
            calldatacopy(add(self, 0x120), add(at, 2), 16)
            mstore(add(self, 0x180), keccak256(self, 0x140))
            let digest := keccak256(add(self, 0x15e), 66)
            mstore(add(self, 0x220), digest)

            // r 32 | y parity 1 bit, s 255 bits
            let vs := calldataload(add(at, 50))
            let s := shr(1, shl(1, vs))
            mstore(add(self, 0x1a0), digest)
            mstore(add(self, 0x1c0), add(27, shr(255, vs)))
            calldatacopy(add(self, 0x1e0), add(at, 18), 32)
            mstore(add(self, 0x200), s)
            // From what is no signature, `ecrecover` returns nothing, rather than zero.
            found := staticcall(gas(), 1, add(self, 0x1a0), 0x80, 0x00, 0x20)
            found := and(and(found, eq(returndatasize(), 0x20)), lt(s, AFTER_HALF_ORDER))
            signer := mload(0x00)
        }
        if (!found) revert InvalidSignature();
    }

    /// @dev The number that the lottery draws for the ticket that was climbed last, less than 2^64.
    function _draw(Frame self) private pure returns (uint256 drawn) {
        assembly ("memory-safe") {
            drawn := shr(192, keccak256(add(self, 0x220), 65))
        }
    }
}
