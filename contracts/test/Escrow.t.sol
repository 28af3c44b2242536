// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {Fixture} from "./base/Fixture.sol";

/// @notice Deposits, reserves, classes, keys.
contract EscrowTest is Fixture {
    function test_depositLeavesAfterNotice() public {
        vm.startPrank(issuer);
        vm.expectRevert(IEscrow.NoNotice.selector);
        escrow.withdrawDeposit();
        escrow.requestUnlock(4000);
        uint256 from = block.timestamp + NOTICE;
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.NoticeRuns.selector, from));
        escrow.withdrawDeposit();
        vm.warp(from);
        eq(escrow.withdrawDeposit(), 4000, "what was announced");
        vm.expectRevert(IEscrow.NoNotice.selector);
        escrow.withdrawDeposit();
        vm.stopPrank();
        eq(token.balanceOf(issuer), 4000, "arrived");
        eq(depositOf(issuer), 6000, "left");
        // The signer beside the deposit is still there.
        class = register(FACE);
        redeem(claim(0, 1));
    }

    function test_depositUnderNoticeStillPays() public {
        bytes memory claims = claim(0, 2);
        vm.prank(issuer);
        escrow.requestUnlock(10_000);
        redeem(claims);
        vm.warp(block.timestamp + NOTICE);
        vm.prank(issuer);
        eq(escrow.withdrawDeposit(), 10_000 - 2 * FACE, "the rest");
    }

    function test_noticeCanBeTakenBack() public {
        vm.startPrank(issuer);
        escrow.requestUnlock(10_000);
        vm.warp(block.timestamp + NOTICE);
        escrow.requestUnlock(0);
        vm.expectRevert(IEscrow.NoNotice.selector);
        escrow.withdrawDeposit();
        // Another one begins anew.
        escrow.requestUnlock(1);
        vm.expectPartialRevert(IEscrow.NoticeRuns.selector);
        escrow.withdrawDeposit();
        vm.stopPrank();
    }

    function test_anybodyDepositsForAnIssuer() public {
        fund(stranger, 10);
        vm.prank(stranger);
        escrow.deposit(issuer, 10);
        eq(depositOf(issuer), 10_010, "deposit");
        vm.prank(stranger);
        vm.expectRevert(IEscrow.NothingToMove.selector);
        escrow.deposit(issuer, 0);
    }

    function test_reserve() public {
        openReserve(issuer, recipient, 100);
        eq(escrow.guaranteeOf(issuer, recipient), 100, "guaranteed");
        vm.prank(issuer);
        escrow.closeReserve(recipient);
        eq(escrow.guaranteeOf(issuer, recipient), 0, "under notice");
        // A stranger's gift does not change the notice.
        fund(stranger, 5);
        vm.prank(stranger);
        escrow.fundReserve(issuer, recipient, 5);
        vm.warp(block.timestamp + NOTICE - 1);
        vm.startPrank(issuer);
        vm.expectPartialRevert(IEscrow.NoticeRuns.selector);
        escrow.withdrawReserve(recipient);
        vm.warp(block.timestamp + 1);
        eq(escrow.withdrawReserve(recipient), 105, "all of it");
        vm.expectRevert(IEscrow.NoNotice.selector);
        escrow.withdrawReserve(recipient);
        vm.stopPrank();
        eq(token.balanceOf(issuer), 105, "arrived");
    }

    function test_reserveOpenedAgain() public {
        openReserve(issuer, recipient, 100);
        vm.prank(issuer);
        escrow.closeReserve(recipient);
        openReserve(issuer, recipient, 50);
        eq(escrow.guaranteeOf(issuer, recipient), 150, "guaranteed again");
        vm.warp(block.timestamp + NOTICE);
        vm.prank(issuer);
        vm.expectRevert(IEscrow.NoNotice.selector);
        escrow.withdrawReserve(recipient);
    }

    function test_closingReserveStillPays() public {
        openReserve(issuer, recipient, 10_000);
        vm.prank(issuer);
        escrow.closeReserve(recipient);
        vm.warp(block.timestamp + LIFE);
        uint32 validFrom = uint32(block.timestamp - LIFE);
        class = escrow.registerClass(15_000, WIN, validFrom, validFrom + LIFE, registry.epochAt(validFrom));
        redeem(claim(0, 1));
        eq(escrow.creditOf(recipient), 15_000, "at the end of the ticket's life");
    }

    function test_classes() public {
        uint32 from = uint32(block.timestamp);
        uint32 epoch = registry.currentEpoch();
        eq(escrow.registerClass(7, 9, from, from + 1, epoch), 1, "the second");
        eq(escrow.classCount(), 2, "two");
        (uint128 face, uint64 p, uint32 validFrom, uint32 expiry, uint32 e) = escrow.classOf(1);
        eq(face, 7, "face");
        eq(p, 9, "win probability");
        eq(validFrom, from, "valid from");
        eq(expiry, from + 1, "expiry");
        eq(e, epoch, "epoch");
        (face,,, expiry,) = escrow.classOf(2);
        eq(uint256(face) + expiry, 0, "none");
    }

    function test_classesThatAreRefused() public {
        uint32 from = uint32(block.timestamp);
        uint32 epoch = registry.currentEpoch();
        uint32 start = uint32(GENESIS + uint256(epoch) * EPOCH);
        _refuse(0, WIN, from, from + 1, epoch);
        _refuse(1, 0, from, from + 1, epoch);
        _refuse(1, WIN + 1, from, from + 1, epoch);
        _refuse(1, WIN, from, from, epoch);
        _refuse(1, WIN, from, from - 1, epoch);
        _refuse(1, WIN, from, from + LIFE + 1, epoch);
        _refuse(1, WIN, start - 1, start + 1, epoch);
        _refuse(1, WIN, start + EPOCH, start + EPOCH + 1, epoch);
        _refuse(1, WIN, uint32(GENESIS - 1), uint32(GENESIS), 0);
        escrow.registerClass(1, WIN, start, start + LIFE, epoch);
        escrow.registerClass(1, 1, start + EPOCH - 1, start + EPOCH - 1 + LIFE, epoch);
    }

    function _refuse(uint128 face, uint64 p, uint32 validFrom, uint32 expiry, uint32 epoch) private {
        vm.expectRevert(IEscrow.InvalidClass.selector);
        escrow.registerClass(face, p, validFrom, expiry, epoch);
    }

    /// An amount that would run into the key beside it is refused.
    function test_amountsDoNotRunIntoTags() public {
        deposit(issuer, type(uint128).max - 10_000);
        fund(stranger, 1);
        vm.prank(stranger);
        vm.expectRevert();
        escrow.deposit(issuer, 1);
        redeem(claim(0, 1));
        eq(escrow.creditOf(recipient), FACE, "the signer is still known");
    }
}
