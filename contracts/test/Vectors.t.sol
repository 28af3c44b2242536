// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Fixture} from "./base/Fixture.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";

/// @notice The vector that the contract and the other implementations share: `tests/vectors/tickets/contract.json`.
contract VectorsTest is Fixture {
    string private constant PATH = "../tests/vectors/tickets/contract.json";
    /// Of the vector's signer. Worth nothing: everybody knows it.
    uint256 private constant TEST_KEY = uint256(keccak256("tombola test key, not a secret"));
    uint256 private constant CHAIN = 100;
    address private constant ESCROW = 0x000000000000000000000000000000000000e5c0;

    IEscrow private _escrow = IEscrow(ESCROW);

    /// The contract at the vector's address, on the vector's chain. What it computed for its own domain when it was
    /// created does not count on another chain.
    function setUp() public override {
        super.setUp();
        vm.etch(ESCROW, address(escrow).code);
        vm.chainId(CHAIN);
    }

    /// With `TOMBOLA_WRITE_VECTORS=true` writes the file anew.
    function test_vector() public {
        if (vm.envOr("TOMBOLA_WRITE_VECTORS", false)) vm.writeFile(PATH, _make());
        _check(vm.readFile(PATH));
    }

    function _check(string memory json) private {
        eq(vm.parseJsonUint(json, ".chainId"), CHAIN, "chain");
        vm.assertEq(vm.parseJsonAddress(json, ".escrow"), ESCROW, "escrow");
        vm.assertEq(
            vm.parseJsonBytes32(json, ".domainSeparator"), _escrow.domainSeparator(), "domain separator"
        );

        Window memory window;
        window.issuer = vm.parseJsonAddress(json, ".issuer");
        window.recipient = vm.parseJsonAddress(json, ".recipient");
        window.class = uint32(vm.parseJsonUint(json, ".class.number"));
        window.winProbability = uint64(vm.parseJsonUint(json, ".class.winProbability"));
        window.number = uint32(vm.parseJsonUint(json, ".window.number"));
        window.domain = _escrow.domainSeparator();
        window.r = _secretR(vm.parseJsonBytes32(json, ".window.secret"), window);
        vm.assertEq(abi.encodePacked(window.r), vm.parseJsonBytes(json, ".window.r"), "r");
        vm.assertEq(commitmentOf(window.r), vm.parseJsonBytes32(json, ".window.commitment"), "commitment");

        Batch memory batch;
        batch.signerKey = vm.parseJsonUint(json, ".testPrivateKey");
        batch.number = uint8(vm.parseJsonUint(json, ".batch.number"));
        batch.salt = bytes16(vm.parseJsonBytes(json, ".batch.salt"));
        bytes[] memory openers = vm.parseJsonBytesArray(json, ".batch.openers");
        bytes[] memory leaves = vm.parseJsonBytesArray(json, ".batch.leaves");
        batch.openers = new bytes16[](openers.length);
        for (uint256 k = 0; k < openers.length; k++) {
            batch.openers[k] = bytes16(openers[k]);
        }
        batch.levels = treeOf(batch.openers);
        for (uint256 k = 0; k < leaves.length; k++) {
            vm.assertEq(abi.encodePacked(batch.levels[0][k]), leaves[k], "leaf");
        }
        vm.assertEq(abi.encodePacked(rootOf(batch)), vm.parseJsonBytes(json, ".batch.root"), "root");
        batch.digest = digestOf(window, batch);
        vm.assertEq(batch.digest, vm.parseJsonBytes32(json, ".batch.digest"), "digest");
        (bytes32 r, bytes32 vs) = vm.signCompact(batch.signerKey, batch.digest);
        vm.assertEq(abi.encodePacked(r, vs), vm.parseJsonBytes(json, ".batch.signature"), "signature");

        bytes[] memory draws = vm.parseJsonBytesArray(json, ".batch.draws");
        for (uint256 k = 0; k < draws.length; k++) {
            vm.assertEq(abi.encodePacked(_draw(window, batch, k)), draws[k], "draw");
        }
        batch.winners = vm.parseJsonUintArray(json, ".batch.winners");
        uint16 least = uint16(vm.parseJsonUint(json, ".least"));
        bytes memory claims = vm.parseJsonBytes(json, ".claims");
        vm.assertEq(encodeWindow(window, least, batch), claims, "encoding");
        _redeemVector(json, window, batch, claims);
    }

    function _redeemVector(string memory json, Window memory window, Batch memory batch, bytes memory claims)
        private
    {
        uint128 face = uint128(vm.parseJsonUint(json, ".class.face"));
        uint32 validFrom = uint32(vm.parseJsonUint(json, ".class.validFrom"));
        uint32 expiry = uint32(vm.parseJsonUint(json, ".class.expiry"));
        vm.warp(validFrom);
        while (_escrow.classCount() <= window.class) {
            _escrow.registerClass(
                face, window.winProbability, validFrom, expiry, uint32(vm.parseJsonUint(json, ".class.epoch"))
            );
        }
        fund(window.issuer, 10 * face);
        vm.startPrank(window.issuer);
        token.approve(ESCROW, type(uint256).max);
        _escrow.deposit(window.issuer, 10 * face);
        _escrow.addSigner(vm.addr(batch.signerKey), NO_CAP);
        vm.stopPrank();
        vm.prank(window.recipient);
        _escrow.redeem(window.recipient, claims);
        eq(_escrow.creditOf(window.recipient), vm.parseJsonUint(json, ".credited"), "credited");
    }

    function _draw(Window memory window, Batch memory batch, uint256 k) private pure returns (bytes8) {
        return bytes8(keccak256(abi.encodePacked(batch.digest, uint8(k), batch.openers[k], window.r)));
    }

    function _secretR(bytes32 secret, Window memory window) private pure returns (bytes16) {
        return
            bytes16(keccak256(abi.encodePacked(secret, uint64(CHAIN), ESCROW, window.issuer, window.number)));
    }

    // ------------------------------------------------------------------------------------------------------ writing it

    function _make() private view returns (string memory) {
        Window memory window = makeWindow(issuer, recipient, 2, 7);
        window.domain = _escrow.domainSeparator();
        window.r = _secretR(keccak256("tombola test secret"), window);
        Batch memory batch = makeBatch(window, 3, 3, TEST_KEY, 0);
        return string.concat(_makeHead(window), _makeBatch(window, batch), _makeClaims(window, batch));
    }

    function _makeHead(Window memory window) private pure returns (string memory) {
        string memory head = string.concat(
            '{\n  "chainId": ',
            vm.toString(CHAIN),
            ',\n  "escrow": "',
            vm.toString(ESCROW),
            '",\n  "domainSeparator": "',
            vm.toString(window.domain),
            '",\n  "testPrivateKey": "',
            vm.toString(bytes32(TEST_KEY)),
            '",\n  "signer": "',
            vm.toString(vm.addr(TEST_KEY)),
            '",\n  "issuer": "',
            vm.toString(window.issuer),
            '",\n  "recipient": "',
            vm.toString(window.recipient)
        );
        uint32 start = uint32(GENESIS + 20 * uint256(EPOCH));
        head = string.concat(
            head,
            '",\n  "class": { "number": 2, "face": "1000", "winProbability": "',
            vm.toString(uint256(window.winProbability)),
            '", "validFrom": ',
            vm.toString(uint256(start)),
            ', "expiry": ',
            vm.toString(uint256(start + LIFE)),
            ', "epoch": 20 },\n  "window": {\n    "number": 7,\n    "secret": "',
            vm.toString(keccak256("tombola test secret")),
            '",\n    "r": "'
        );
        return string.concat(
            head,
            vm.toString(abi.encodePacked(window.r)),
            '",\n    "commitment": "',
            vm.toString(commitmentOf(window.r)),
            '"\n  },\n'
        );
    }

    function _makeBatch(Window memory window, Batch memory batch) private pure returns (string memory) {
        string memory openers;
        string memory leaves;
        string memory draws;
        for (uint256 k = 0; k < batch.openers.length; k++) {
            string memory comma = k == 0 ? "" : ", ";
            openers = string.concat(openers, comma, '"', vm.toString(abi.encodePacked(batch.openers[k])), '"');
            leaves = string.concat(leaves, comma, '"', vm.toString(abi.encodePacked(batch.levels[0][k])), '"');
            draws =
                string.concat(draws, comma, '"', vm.toString(abi.encodePacked(_draw(window, batch, k))), '"');
        }
        string memory winners = vm.toString(batch.winners[0]);
        for (uint256 i = 1; i < batch.winners.length; i++) {
            winners = string.concat(winners, ", ", vm.toString(batch.winners[i]));
        }
        (bytes32 r, bytes32 vs) = vm.signCompact(batch.signerKey, batch.digest);
        string memory text = string.concat(
            '  "batch": {\n    "number": 3,\n    "count": 3,\n    "salt": "',
            vm.toString(abi.encodePacked(batch.salt)),
            '",\n    "openers": [',
            openers,
            '],\n    "leaves": [',
            leaves,
            '],\n    "root": "',
            vm.toString(abi.encodePacked(rootOf(batch)))
        );
        return string.concat(
            text,
            '",\n    "digest": "',
            vm.toString(batch.digest),
            '",\n    "signature": "',
            vm.toString(abi.encodePacked(r, vs)),
            '",\n    "draws": [',
            draws,
            '],\n    "winners": [',
            winners,
            "]\n  },\n"
        );
    }

    function _makeClaims(Window memory window, Batch memory batch) private pure returns (string memory) {
        uint16 least = uint16(batch.winners.length);
        return string.concat(
            '  "least": ',
            vm.toString(uint256(least)),
            ',\n  "claims": "',
            vm.toString(encodeWindow(window, least, batch)),
            '",\n  "credited": ',
            vm.toString(uint256(least) * 1000),
            "\n}\n"
        );
    }
}
