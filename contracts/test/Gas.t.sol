// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Fixture} from "./base/Fixture.sol";

/// @notice What a whole transaction that redeems costs, as a receipt would say: must run with `--isolate`.
///
/// Steady state: the recipient has credits and a redeemer, each issuer a hot signer, a deposit, and a window in the same
/// word of the bitmap that was claimed before. Every winner comes from a batch of its own, of 256 tickets: the most
/// expensive case, and the usual one at realistic probabilities.
contract GasTest is Fixture {
    uint256 private constant TICKETS = 256;

    /// The limits that this project has set itself, in gas for each winner.
    uint256 private constant SINGLE = 55_000;
    uint256 private constant TEN = 16_000;
    uint256 private constant FIFTY = 14_000;

    address[] private _issuers;

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < 10; i++) {
            address account = named(string.concat("issuer ", vm.toString(i)));
            _issuers.push(account);
            deposit(account, 1_000_000);
            addSigner(account, vm.addr(SIGNER_KEY));
            // A window of the same word that was claimed.
            Window memory window = makeWindow(account, recipient, class, 255);
            redeem(encodeWindow(window, 1, makeBatch(window, 0, 64, SIGNER_KEY, 1)));
        }
    }

    /// A claim of windows with so many winners each, one window of each of `issuers` after the other.
    function _claims(uint256 issuers, uint256[] memory winners) private view returns (bytes memory claims) {
        for (uint256 i = 0; i < winners.length; i++) {
            Window memory window = makeWindow(_issuers[i % issuers], recipient, class, uint32(i / issuers));
            bytes memory batches;
            for (uint256 j = 0; j < winners[i]; j++) {
                batches = abi.encodePacked(
                    batches, encodeBatch(makeBatch(window, uint8(j), TICKETS, SIGNER_KEY, 1))
                );
            }
            claims = abi.encodePacked(
                claims, encodeWindow(window, uint16(winners[i]), uint8(winners[i]), batches)
            );
        }
    }

    /// Redeems, and returns what the transaction used.
    function _measure(string memory name, uint256 issuers, uint256[] memory winners)
        private
        returns (uint256 used)
    {
        bytes memory claims = _claims(issuers, winners);
        uint256 before = escrow.creditOf(recipient);
        vm.prank(redeemer);
        escrow.redeem(recipient, claims);
        used = vm.lastCallGas().gasTotalUsed;
        uint256 total = 0;
        for (uint256 i = 0; i < winners.length; i++) {
            total += winners[i];
        }
        eq(escrow.creditOf(recipient) - before, total * FACE, "all winners are paid");
        // The least that a transaction with this calldata can cost (EIP-7623), whatever it executes.
        uint256 floor = _floor(abi.encodeCall(escrow.redeem, (recipient, claims)));
        vm.assertGe(used, floor, "measured with the intrinsic cost: run this with --isolate");
        vm.snapshotValue("redeem", name, used);
        vm.snapshotValue("redeem", string.concat(name, "_per_ticket"), used / total);
        vm.snapshotValue("redeem", string.concat(name, "_floor"), floor);
        return used / total;
    }

    function _floor(bytes memory data) private pure returns (uint256) {
        uint256 tokens = 0;
        for (uint256 i = 0; i < data.length; i++) {
            tokens += data[i] == 0 ? 1 : 4;
        }
        return 21_000 + 10 * tokens;
    }

    function _same(uint256 windows, uint256 winners) private pure returns (uint256[] memory counts) {
        counts = new uint256[](windows);
        for (uint256 i = 0; i < windows; i++) {
            counts[i] = winners;
        }
    }

    function test_single() public {
        vm.assertLe(_measure("single", 1, _same(1, 1)), SINGLE, "single");
    }

    function test_twoIssuersTen() public {
        vm.assertLe(_measure("ten", 2, _same(2, 5)), TEN, "ten");
    }

    function test_tenIssuersFifty() public {
        vm.assertLe(_measure("fifty", 10, _same(10, 5)), FIFTY, "fifty");
    }

    /// An hour at 200 packets a second and p = 1/10000 is 72 winners in eleven windows of 256 batches of one issuer.
    /// What counts is the shape, so that tickets of another probability stand in for these.
    function test_hourOfOneIssuer() public {
        uint256[] memory winners = _same(11, 6);
        for (uint256 i = 0; i < 6; i++) {
            winners[i] = 7;
        }
        _measure("hour_window", 1, winners);
    }
}
