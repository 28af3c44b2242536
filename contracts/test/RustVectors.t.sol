// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Fixture} from "./base/Fixture.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";

/// @notice The vectors that the Rust side writes, `tests/vectors/tickets/{merkle,batch,lottery,claim}.json`.
contract RustVectorsTest is Fixture {
    string private constant FOLDER = "../tests/vectors/tickets/";

    /// The root over the first leaves: missing ones are 20 zero bytes.
    function _root(bytes[] memory leaves, uint256 count) private pure returns (bytes20) {
        uint256 width = 1;
        while (width < count) width *= 2;
        bytes20[] memory nodes = new bytes20[](width);
        for (uint256 i = 0; i < count; i++) {
            nodes[i] = bytes20(leaves[i]);
        }
        for (; width > 1; width /= 2) {
            for (uint256 i = 0; i < width / 2; i++) {
                nodes[i] = bytes20(keccak256(abi.encodePacked(nodes[2 * i], nodes[2 * i + 1])));
            }
        }
        return nodes[0];
    }

    function _read(string memory name) private view returns (string memory) {
        return vm.readFile(string.concat(FOLDER, name, ".json"));
    }

    function test_merkle() public view {
        string memory json = _read("merkle");
        bytes[] memory leaves = vm.parseJsonBytesArray(json, ".leaves");
        bytes[] memory roots = vm.parseJsonBytesArray(json, ".roots");
        uint256[] memory counts = vm.parseJsonUintArray(json, ".counts");
        eq(roots.length, counts.length, "roots");
        for (uint256 i = 0; i < counts.length; i++) {
            vm.assertEq(abi.encodePacked(_root(leaves, counts[i])), roots[i], "root");
        }
        _checkPath(json, ".path_5", leaves);
        _checkPath(json, ".path_256", leaves);
    }

    function _checkPath(string memory json, string memory at, bytes[] memory leaves) private pure {
        uint256 k = vm.parseJsonUint(json, string.concat(at, ".k"));
        bytes[] memory siblings = vm.parseJsonBytesArray(json, string.concat(at, ".siblings"));
        bytes20 node = bytes20(
            keccak256(abi.encodePacked(bytes16(vm.parseJsonBytes(json, string.concat(at, ".opener")))))
        );
        vm.assertEq(abi.encodePacked(node), leaves[k], "leaf");
        for (uint256 d = 0; d < siblings.length; d++) {
            bytes20 sibling = bytes20(siblings[d]);
            node = (k >> d) & 1 == 0
                ? bytes20(keccak256(abi.encodePacked(node, sibling)))
                : bytes20(keccak256(abi.encodePacked(sibling, node)));
        }
        uint256 count = vm.parseJsonUint(json, string.concat(at, ".count"));
        vm.assertEq(abi.encodePacked(node), abi.encodePacked(_root(leaves, count)), "path");
    }

    function test_batch() public {
        string memory json = _read("batch");
        bytes[] memory leaves = vm.parseJsonBytesArray(_read("merkle"), ".leaves");
        bytes32 separator = _domain(json);
        vm.assertEq(separator, vm.parseJsonBytes32(json, ".separator"), "separator");
        uint256 count = vm.parseJsonUint(json, ".count");
        bytes20 root = _root(leaves, count);
        vm.assertEq(abi.encodePacked(root), vm.parseJsonBytes(json, ".root"), "root");
        bytes16 salt = bytes16(vm.parseJsonBytes(json, ".salt"));
        bytes32 structHash = keccak256(
            abi.encode(
                TYPEHASH,
                vm.parseJsonAddress(json, ".issuer"),
                vm.parseJsonAddress(json, ".recipient"),
                uint32(vm.parseJsonUint(json, ".class")),
                uint32(vm.parseJsonUint(json, ".window")),
                uint8(vm.parseJsonUint(json, ".number")),
                uint16(count),
                vm.parseJsonBytes32(json, ".commitment"),
                root,
                salt
            )
        );
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", separator, structHash));
        vm.assertEq(digest, vm.parseJsonBytes32(json, ".digest"), "digest");
        uint256 key = uint256(vm.parseJsonBytes32(json, ".signer_key"));
        vm.assertEq(vm.addr(key), vm.parseJsonAddress(json, ".issuer"), "issuer");
        (bytes32 r, bytes32 vs) = vm.signCompact(key, digest);
        vm.assertEq(abi.encodePacked(r, vs), vm.parseJsonBytes(json, ".signature"), "signature");
    }

    function test_lottery() public view {
        string memory json = _read("lottery");
        bytes memory preimage = abi.encodePacked(
            vm.parseJsonBytes32(json, ".secret"),
            uint64(vm.parseJsonUint(json, ".chain_id")),
            vm.parseJsonAddress(json, ".escrow"),
            vm.parseJsonAddress(json, ".issuer"),
            uint32(vm.parseJsonUint(json, ".window"))
        );
        bytes16 r = bytes16(keccak256(preimage));
        vm.assertEq(abi.encodePacked(r), vm.parseJsonBytes(json, ".r"), "r");
        vm.assertEq(commitmentOf(r), vm.parseJsonBytes32(json, ".commitment"), "commitment");
        bytes32 digest = vm.parseJsonBytes32(json, ".digest");
        uint256 winProbability = vm.parseJsonUint(json, ".win_probability");
        bytes[] memory openers = vm.parseJsonBytesArray(json, ".openers");
        uint256[] memory winners = vm.parseJsonUintArray(json, ".winners");
        uint256 found = 0;
        for (uint256 k = 0; k < openers.length; k++) {
            bytes32 drawn = keccak256(abi.encodePacked(digest, uint8(k), bytes16(openers[k]), r));
            if (uint64(bytes8(drawn)) < winProbability) eq(winners[found++], k, "winner");
        }
        eq(found, winners.length, "winners");
    }

    /// The whole call, as it would be sent.
    function test_claim() public {
        string memory json = _read("claim");
        _domain(json);
        IEscrow target = IEscrow(vm.parseJsonAddress(json, ".escrow"));
        uint128 value = uint128(vm.parseJsonUint(json, ".value"));
        uint32 number = uint32(vm.parseJsonUint(json, ".class"));
        uint32 validFrom = uint32(vm.parseJsonUint(json, ".valid_from"));
        uint32 expiry = uint32(vm.parseJsonUint(json, ".expiry"));
        uint32 epoch = uint32(vm.parseJsonUint(json, ".epoch"));
        for (uint32 i = 0; i <= number; i++) {
            target.registerClass(
                uint128(vm.parseJsonUint(json, ".face_value")),
                uint64(vm.parseJsonUint(json, ".win_probability")),
                validFrom,
                expiry,
                epoch
            );
        }
        address payer = vm.parseJsonAddress(json, ".issuer");
        token.mint(address(this), value);
        token.approve(address(target), value);
        target.deposit(payer, value);

        vm.warp(expiry);
        address payee = vm.parseJsonAddress(json, ".recipient");
        vm.prank(payee);
        (bool paid,) = address(target).call(vm.parseJsonBytes(json, ".calldata"));
        vm.assertTrue(paid, "redeemed");
        eq(target.creditOf(payee), value, "credited");
        uint256[] memory windows = vm.parseJsonUintArray(json, ".windows");
        for (uint256 i = 0; i < windows.length; i++) {
            vm.assertTrue(target.isClaimed(payer, payee, uint32(windows[i])), "claimed");
        }
    }

    /// A contract at the vector's address, on the vector's chain, whose registry has the epochs of the vector's class. Made on
    /// another chain, so that it does not use the domain of the address at which it was made.
    function _domain(string memory json) private returns (bytes32) {
        uint32 epochLength = 86_400;
        uint64 genesis = 1_800_000_000 - epochLength;
        bytes memory arguments = abi.encode(token, epochLength, 2 * epochLength, genesis, epochLength, STAKE);
        vm.chainId(1);
        address made = vm.deployCode("Escrow.sol", arguments);
        vm.chainId(vm.parseJsonUint(json, ".chain_id"));
        address at = vm.parseJsonAddress(json, ".escrow");
        vm.etch(at, made.code);
        return IEscrow(at).domainSeparator();
    }
}
