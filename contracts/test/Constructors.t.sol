// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Escrow} from "../src/Escrow.sol";
import {Registry} from "../src/Registry.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Test} from "./base/Test.sol";

/// @notice Periods that do not fit together are refused, and the rest is kept as it was given.
contract ConstructorsTest is Test {
    uint32 private constant LIFE = 7200;
    uint32 private constant NOTICE = 10_800;
    uint32 private constant EPOCH = 3600;
    uint128 private constant STAKE = 5;
    IERC20 private constant TOKEN = IERC20(address(7));
    uint64 private constant NOW = 1_800_000_000;

    function setUp() public {
        vm.warp(NOW);
    }

    function test_kept() public {
        Escrow escrow = new Escrow(TOKEN, LIFE, NOTICE, NOW, EPOCH, STAKE);
        IRegistry registry = escrow.registry();
        vm.assertEq(escrow.token(), address(TOKEN), "token");
        vm.assertEq(registry.token(), address(TOKEN), "token of the registry");
        vm.assertEq(registry.escrow(), address(escrow), "escrow");
        vm.assertEq(escrow.maxTicketLife(), LIFE, "life");
        vm.assertEq(escrow.noticePeriod(), NOTICE, "notice");
        vm.assertEq(registry.noticePeriod(), NOTICE, "notice of the registry");
        vm.assertEq(registry.genesis(), NOW, "genesis");
        vm.assertEq(registry.epochLength(), EPOCH, "epoch");
        vm.assertEq(registry.minStake(), STAKE, "stake");
        vm.assertEq(registry.currentEpoch(), 0, "first epoch");
    }

    function test_noticeMustBeLongerThanATicketsLife() public {
        vm.expectRevert(IEscrow.InvalidPeriods.selector);
        new Escrow(TOKEN, 0, NOTICE, NOW, EPOCH, STAKE);
        vm.expectRevert(IEscrow.InvalidPeriods.selector);
        new Escrow(TOKEN, LIFE, LIFE, NOW, EPOCH, STAKE);
        vm.expectRevert(IRegistry.InvalidPeriods.selector);
        new Registry(TOKEN, LIFE, LIFE, NOW, EPOCH, STAKE);
    }

    function test_epochsMustHaveBegunAndHaveALength() public {
        vm.expectRevert(IRegistry.InvalidPeriods.selector);
        new Registry(TOKEN, LIFE, NOTICE, NOW, 0, STAKE);
        vm.expectRevert(IRegistry.InvalidPeriods.selector);
        new Registry(TOKEN, LIFE, NOTICE, NOW + 1, EPOCH, STAKE);
    }

    function test_aStakeHasASliceForEachEpochWhoseTicketsCanBeClaimed() public {
        vm.assertEq(new Registry(TOKEN, LIFE, NOTICE, NOW, EPOCH, STAKE).slices(), 3, "whole epochs");
        vm.assertEq(new Registry(TOKEN, LIFE + 1, NOTICE, NOW, EPOCH, STAKE).slices(), 4, "rounded up");
        vm.assertEq(new Registry(TOKEN, 1, NOTICE, NOW, EPOCH, STAKE).slices(), 2, "at least the next epoch");
    }
}
