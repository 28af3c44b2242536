// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {Fixture} from "./base/Fixture.sol";

/// @notice Claims that are in order.
contract RedeemTest is Fixture {
    function test_aWinnerIsPaidFromTheDeposit() public {
        bytes memory claims = claim(0, 1);
        vm.expectEmit();
        emit IEscrow.Redeemed(issuer, recipient, 0, FACE);
        redeem(claims);
        eq(escrow.creditOf(recipient), FACE, "credited");
        eq(depositOf(issuer), 10_000 - FACE, "deposit");
        vm.assertTrue(escrow.isClaimed(issuer, recipient, 0), "claimed");
        vm.assertFalse(escrow.isClaimed(issuer, recipient, 1), "another window");
    }

    function test_severalWinnersOfABatch() public {
        redeem(claim(7, 3));
        eq(escrow.creditOf(recipient), 3 * FACE, "credited");
    }

    /// Every count: depths 0 to 8, full trees and padded ones, every index of some.
    function test_everyDepth() public {
        uint16[12] memory counts = [uint16(1), 2, 3, 4, 5, 8, 9, 33, 64, 129, 255, 256];
        for (uint32 i = 0; i < counts.length; i++) {
            Window memory window = makeWindow(issuer, recipient, class, i);
            Batch memory batch = makeBatch(window, 0, counts[i], SIGNER_KEY, 0);
            uint256 before = escrow.creditOf(recipient);
            redeem(encodeWindow(window, uint16(batch.winners.length), batch));
            eq(escrow.creditOf(recipient) - before, batch.winners.length * FACE, "credited");
        }
    }

    function test_windowsOfManyBatchesAndIssuers() public {
        address other = named("other issuer");
        deposit(other, 10_000);
        addSigner(other, vm.addr(SIGNER_KEY));
        Window memory first = makeWindow(issuer, recipient, class, 3);
        Window memory second = makeWindow(other, recipient, class, 4_000_000_000);
        bytes memory one = abi.encodePacked(
            encodeBatch(makeBatch(first, 0, 64, SIGNER_KEY, 2)),
            encodeBatch(makeBatch(first, 5, 100, SIGNER_KEY, 1)),
            encodeBatch(makeBatch(first, 255, 1, SIGNER_KEY, 1))
        );
        bytes memory two = encodeBatch(makeBatch(second, 9, 256, SIGNER_KEY, 3));
        redeem(abi.encodePacked(encodeWindow(first, 4, 3, one), encodeWindow(second, 3, 1, two)));
        eq(escrow.creditOf(recipient), 7 * FACE, "credited");
        eq(depositOf(issuer), 10_000 - 4 * FACE, "first deposit");
        eq(depositOf(other), 10_000 - 3 * FACE, "second deposit");
    }

    function test_windowsInAnyOrder() public {
        redeem(claim(300, 1));
        redeem(claim(2, 1));
        redeem(claim(299, 1));
        eq(escrow.claimedWindows(issuer, recipient, 0), 1 << 2, "first word");
        eq(escrow.claimedWindows(issuer, recipient, 1), (1 << 44) | (1 << 43), "second word");
    }

    function test_theIssuerItselfMaySign() public {
        uint256 key = uint256(keccak256("an issuer's own key"));
        address own = vm.addr(key);
        deposit(own, 1000);
        Window memory window = makeWindow(own, recipient, class, 0);
        redeem(encodeWindow(window, 1, makeBatch(window, 0, 64, key, 1)));
        eq(escrow.creditOf(recipient), FACE, "credited");
    }

    function test_severalSignersInOneWindow() public {
        uint256 key = uint256(keccak256("second signer"));
        addSigner(issuer, vm.addr(key));
        Window memory window = makeWindow(issuer, recipient, class, 0);
        bytes memory batches = abi.encodePacked(
            encodeBatch(makeBatch(window, 0, 64, SIGNER_KEY, 1)),
            encodeBatch(makeBatch(window, 1, 64, key, 1))
        );
        redeem(encodeWindow(window, 2, 2, batches));
        eq(escrow.creditOf(recipient), 2 * FACE, "credited");
    }

    function test_withoutARedeemerTheRecipientRedeems() public {
        address other = named("other recipient");
        Window memory window = makeWindow(issuer, other, class, 0);
        bytes memory claims = encodeWindow(window, 1, makeBatch(window, 0, 64, SIGNER_KEY, 1));
        vm.prank(other);
        escrow.redeem(other, claims);
        eq(escrow.creditOf(other), FACE, "credited");
    }

    function test_claimedInTheFirstAndInTheLastSecond() public {
        bytes memory first = claim(0, 1);
        bytes memory last = claim(1, 1);
        redeem(first);
        vm.warp(block.timestamp + LIFE);
        redeem(last);
        eq(escrow.creditOf(recipient), 2 * FACE, "credited");
    }

    function test_creditsLeaveForThePayoutAddress() public {
        redeem(claim(0, 2));
        address payout = named("payout");
        vm.prank(recipient);
        escrow.setPayout(payout);
        vm.prank(stranger);
        vm.expectRevert(IEscrow.NotAllowed.selector);
        escrow.withdrawCredits(recipient);
        vm.prank(redeemer);
        escrow.withdrawCredits(recipient);
        eq(token.balanceOf(payout), 2 * FACE, "paid out");
        eq(escrow.creditOf(recipient), 0, "credits");
        vm.assertEq(escrow.redeemerOf(recipient), redeemer, "the redeemer stays");
    }

    function test_creditsBecomeADeposit() public {
        redeem(claim(0, 2));
        vm.prank(recipient);
        escrow.depositCredits(150);
        eq(depositOf(recipient), 150, "deposit");
        eq(escrow.creditOf(recipient), 50, "credits");
        vm.prank(recipient);
        vm.expectRevert();
        escrow.depositCredits(51);
    }

    function testFuzz_counts(uint256 count, uint32 number, uint8 ordinal, uint128 face) public {
        count = between(count, 1, 256);
        face = uint128(between(face, 1, type(uint128).max / 256));
        uint32 other = register(face);
        Window memory window = makeWindow(issuer, recipient, other, number);
        Batch memory batch = makeBatch(window, ordinal, count, SIGNER_KEY, 0);
        uint256 owed = batch.winners.length * uint256(face);
        deposit(issuer, uint128(owed));
        redeem(encodeWindow(window, uint16(batch.winners.length), batch));
        eq(escrow.creditOf(recipient), owed, "credited");
        eq(depositOf(issuer), 10_000, "deposit");
    }

    /// No byte of a claim may be another one, except `least`, where more is not paid.
    function testFuzz_anyChangedByteReverts(uint256 at, uint8 change) public {
        bytes memory claims = claim(0, 2);
        at = between(at, 0, claims.length - 1);
        vm.assume(change != 0 && at != 44 && at != 45);
        claims[at] = bytes1(uint8(claims[at]) ^ change);
        vm.prank(redeemer);
        vm.expectRevert();
        escrow.redeem(recipient, claims);
    }

    /// Whatever is claimed, nothing is paid without a signature.
    function testFuzz_garbageReverts(bytes calldata claims) public {
        vm.prank(redeemer);
        vm.expectRevert();
        escrow.redeem(recipient, claims);
    }
}
