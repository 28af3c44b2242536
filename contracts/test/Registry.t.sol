// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {Fixture} from "./base/Fixture.sol";

/// @notice Membership, and stakes that stand in for issuers.
contract RegistryTest is Fixture {
    /// Of 60 000 staked: three slices, half of each for four nodes, or the penalty.
    uint128 private constant SLICE = STAKE / 3;
    uint128 private constant PENALTY = SLICE / 2;
    uint128 private constant SHARE = SLICE / 2 / 4;

    address private _second = named("second recipient");
    address private _outsider = named("recipient that never joined");
    uint32 private _epoch;

    function setUp() public override {
        super.setUp();
        join(issuer, STAKE);
        join(recipient, STAKE);
        join(_second, STAKE);
        join(stranger, STAKE);
        nextEpoch();
        _epoch = registry.currentEpoch();
        class = register(20_000);
    }

    /// A claim of one ticket by `to`, more than the deposit of 10 000, and what came of it.
    function _claim(address to, uint32 number, uint16 least) private returns (uint256 fromStake) {
        uint256 before = registry.creditOf(to);
        Window memory window = makeWindow(issuer, to, class, number);
        bytes memory claims = encodeWindow(window, least, makeBatch(window, 0, 64, SIGNER_KEY, 1));
        vm.prank(escrow.redeemerOf(to));
        escrow.redeem(to, claims);
        return registry.creditOf(to) - before;
    }

    function test_membership() public {
        eq(registry.slices(), 3, "the epoch, and two that begin within a ticket's life");
        eq(registry.activeNodes(_epoch - 1), 0, "before");
        eq(registry.activeNodes(_epoch), 4, "now");
        vm.assertFalse(registry.isActive(issuer, _epoch - 1), "not in the epoch in which it joined");
        vm.assertTrue(registry.isActive(issuer, _epoch), "in the next");

        vm.prank(issuer);
        registry.leave();
        vm.assertTrue(registry.isActive(issuer, _epoch), "to the end of the epoch");
        vm.assertFalse(registry.isActive(issuer, _epoch + 1), "no longer");
        eq(registry.activeNodes(_epoch), 4, "now");
        eq(registry.activeNodes(_epoch + 1), 3, "in the next");
        vm.prank(issuer);
        vm.expectRevert(IRegistry.AlreadyLeft.selector);
        registry.leave();

        uint256 release = GENESIS + uint256(_epoch + 1) * EPOCH + NOTICE;
        vm.warp(release - 1);
        vm.prank(issuer);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NoticeRuns.selector, release));
        registry.withdrawStake();
        vm.prank(issuer);
        vm.expectRevert(IRegistry.AlreadyJoined.selector);
        registry.join(IRegistry.Role.Mix, 0, STAKE);
        vm.warp(release);
        vm.prank(issuer);
        registry.withdrawStake();
        eq(token.balanceOf(issuer), STAKE, "all of it");
        vm.prank(issuer);
        vm.expectRevert(IRegistry.NotJoined.selector);
        registry.withdrawStake();
        join(issuer, STAKE);
        eq(registry.activeNodes(registry.currentEpoch() + 1), 4, "it is back");
    }

    function test_whoLeavesInTheEpochInWhichItJoinedIsNeverActive() public {
        address hasty = named("hasty");
        join(hasty, STAKE);
        vm.prank(hasty);
        registry.leave();
        for (uint32 epoch = _epoch; epoch < _epoch + 4; epoch++) {
            vm.assertFalse(registry.isActive(hasty, epoch), "never");
            eq(registry.activeNodes(epoch), 4, "not counted");
        }
    }

    function test_joiningTakesStakeAndARole() public {
        address poor = named("poor");
        fund(poor, STAKE);
        vm.startPrank(poor);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.StakeTooSmall.selector, STAKE - 1, STAKE));
        registry.join(IRegistry.Role.Mix, 0, STAKE - 1);
        vm.expectRevert(IRegistry.InvalidRole.selector);
        registry.join(IRegistry.Role.None, 0, STAKE);
        registry.join(IRegistry.Role.Gateway, bytes32(uint256(7)), STAKE);
        vm.stopPrank();
        IRegistry.Node memory node = registry.nodeOf(poor);
        eq(uint256(node.role), uint256(IRegistry.Role.Gateway), "role");
        eq(uint256(node.identity), 7, "identity");
        eq(node.stake, STAKE, "stake");
    }

    function test_manyEpochsWithoutAnybody() public {
        vm.warp(block.timestamp + 1_000_000 * uint256(EPOCH));
        eq(registry.activeNodes(registry.currentEpoch()), 4, "nothing to roll forward");
        join(_outsider, STAKE);
        eq(registry.activeNodes(registry.currentEpoch() + 1), 5, "one more");
    }

    function test_onlyTheEscrowDrawsOnStakes() public {
        vm.prank(recipient);
        vm.expectRevert(IRegistry.NotEscrow.selector);
        registry.cover(issuer, recipient, _epoch, 1);
    }

    // ----------------------------------------------------------------------------------------------- over-issuing

    /// The issuer signs many times over what it has: each recipient gets its share, whatever others took, and no more.
    function test_overIssuingToManyRecipients() public {
        vm.prank(stranger);
        escrow.setRedeemer(address(0));
        eq(escrow.guaranteeOf(issuer, _second), SHARE, "what it may rely on");
        eq(_claim(recipient, 0, 0), SHARE, "first");
        eq(escrow.creditOf(recipient), 10_000, "the deposit");
        eq(_claim(_second, 0, 0), SHARE, "second");
        eq(_claim(stranger, 0, 0), SHARE, "third");
        eq(_claim(_outsider, 0, 0), 0, "who was not active has no share");
        // Once for each, in however many windows.
        eq(_claim(_second, 1, 0), 0, "no second share");
        eq(registry.drawnOf(issuer, _second, _epoch), SHARE, "drawn");

        eq(registry.burned(), PENALTY, "burned once");
        eq(registry.nodeOf(issuer).left, STAKE - PENALTY - 3 * SHARE, "left");
        vm.assertTrue(registry.isActive(issuer, _epoch), "this epoch counts it");
        vm.assertFalse(registry.isActive(issuer, _epoch + 1), "barred from the next");
        vm.assertFalse(registry.isActive(issuer, _epoch + 2), "and later ones");
        eq(registry.activeNodes(_epoch), 4, "shares do not change within an epoch");
        eq(registry.activeNodes(_epoch + 1), 3, "one less");

        // It may leave with the rest, and come back, after the notice.
        vm.prank(issuer);
        vm.expectRevert(IRegistry.AlreadyLeft.selector);
        registry.leave();
        vm.warp(GENESIS + uint256(_epoch + 1) * EPOCH + NOTICE);
        vm.prank(issuer);
        registry.withdrawStake();
        eq(token.balanceOf(issuer), STAKE - PENALTY - 3 * SHARE, "the rest");
        eq(token.balanceOf(address(registry)), 3 * STAKE + PENALTY + 3 * SHARE, "the burned part stays");
    }

    function test_shareCountsTowardsTheLeast() public {
        class = register(10_000 + SHARE);
        eq(_claim(recipient, 0, 1), SHARE, "exactly enough");
    }

    function test_shareDoesNotSuffice() public {
        class = register(10_000 + SHARE + 1);
        Window memory window = makeWindow(issuer, recipient, class, 0);
        bytes memory claims = encodeWindow(window, 1, makeBatch(window, 0, 64, SIGNER_KEY, 1));
        vm.prank(redeemer);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.TooLittle.selector, 10_000 + SHARE, 10_000 + SHARE + 1)
        );
        escrow.redeem(recipient, claims);
        eq(registry.burned(), 0, "a refused call has no effect");
    }

    function test_shareInParts() public {
        class = register(10_500);
        eq(_claim(recipient, 0, 1), 500, "a part");
        class = register(SHARE - 501);
        eq(_claim(recipient, 1, 1), SHARE - 501, "another");
        class = register(100);
        eq(_claim(recipient, 2, 0), 1, "the rest");
        eq(registry.burned(), PENALTY, "one penalty");
    }

    function test_reserveComesBeforeTheStake() public {
        openReserve(issuer, recipient, 9000);
        eq(_claim(recipient, 0, 0), 1000, "the stake pays the rest");
        eq(reserveOf(issuer, recipient), 0, "reserve");
        eq(escrow.creditOf(recipient), 19_000, "deposit and reserve");
    }

    /// In all epochs whose tickets can be claimed at one time: each has its slice.
    function test_overIssuingInSeveralEpochs() public {
        uint32[3] memory classes;
        for (uint256 i = 0; i < 3; i++) {
            vm.warp(GENESIS + (uint256(_epoch) + i + 1) * EPOCH - 1);
            classes[i] = register(20_000);
        }
        // In this second tickets of all three can be claimed. Only now the shortfalls show.
        for (uint32 i = 0; i < 3; i++) {
            class = classes[i];
            eq(_claim(_second, i, 0), SHARE, "share of each epoch");
            eq(_claim(recipient, i, 0), SHARE, "for each");
            eq(_claim(stranger, i, 0), SHARE, "and each");
            eq(_claim(issuer, i, 0), SHARE, "and the issuer, as its own recipient");
        }
        eq(registry.burned(), 3 * PENALTY, "a penalty of each");
        eq(registry.nodeOf(issuer).left, 0, "nothing is left, and nothing was missing");
        // It was barred at the first: tickets of the next epoch are on nobody's stake.
        nextEpoch();
        class = register(20_000);
        eq(_claim(_second, 9, 0), 0, "barred");
    }

    function test_issuerWithoutStake() public {
        address client = named("client");
        addSigner(client, vm.addr(SIGNER_KEY));
        openReserve(client, recipient, 20_000);
        Window memory window = makeWindow(client, recipient, class, 0);
        redeem(encodeWindow(window, 1, makeBatch(window, 0, 64, SIGNER_KEY, 1)));
        eq(escrow.creditOf(recipient), 20_000, "the reserve");
        window.number = 1;
        redeem(encodeWindow(window, 0, makeBatch(window, 0, 64, SIGNER_KEY, 1)));
        eq(escrow.creditOf(recipient), 20_000, "no reserve, no credit");
        eq(registry.burned(), 0, "nothing to burn");
    }

    function test_leavingDoesNotEscapeClaims() public {
        vm.prank(issuer);
        registry.leave();
        vm.warp(block.timestamp + LIFE);
        eq(_claim(recipient, 0, 0), SHARE, "at the end of the ticket's life");
        eq(registry.burned(), PENALTY, "and the penalty");
        eq(registry.activeNodes(_epoch + 1), 3, "left once");
    }

    function test_sharesLeaveForThePayoutAddress() public {
        _claim(recipient, 0, 0);
        address payout = named("payout");
        vm.prank(recipient);
        escrow.setPayout(payout);
        vm.prank(stranger);
        vm.expectRevert(IRegistry.NotAllowed.selector);
        registry.withdrawCredits(recipient);
        vm.prank(redeemer);
        registry.withdrawCredits(recipient);
        eq(token.balanceOf(payout), SHARE, "share");
        vm.prank(redeemer);
        vm.expectRevert(IRegistry.NothingToMove.selector);
        registry.withdrawCredits(recipient);
    }

    /// A stolen signing key with a limit: the deposit loses no more than that, whoever claims.
    function test_cappedSignerOverIssues() public {
        vm.prank(issuer);
        escrow.capSigner(vm.addr(SIGNER_KEY), 1000);
        eq(_claim(recipient, 0, 0), SHARE, "recipients can rely on the stake all the same");
        eq(depositOf(issuer), 9000, "deposit");
    }
}
