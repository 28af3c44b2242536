// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {Test} from "./base/Test.sol";

/// @notice Periods that do not fit together are refused, and the rest is kept as it was given.
contract ConstructorsTest is Test {
    uint32 private constant LIFE = 7200;
    uint32 private constant NOTICE = 10_800;
    uint32 private constant EPOCH = 3600;
    uint128 private constant STAKE = 5;
    address private constant TOKEN = address(7);
    uint64 private constant NOW = 1_800_000_000;

    function setUp() public {
        vm.warp(NOW);
    }

    function test_kept() public {
        IEscrow escrow = _escrow(LIFE, NOTICE, NOW, EPOCH);
        IRegistry registry = escrow.registry();
        vm.assertEq(escrow.token(), TOKEN, "token");
        vm.assertEq(registry.token(), TOKEN, "token of the registry");
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
        _escrow(0, NOTICE, NOW, EPOCH);
        vm.expectRevert(IEscrow.InvalidPeriods.selector);
        _escrow(LIFE, LIFE, NOW, EPOCH);
        vm.expectRevert(IRegistry.InvalidPeriods.selector);
        _registry(LIFE, LIFE, NOW, EPOCH);
    }

    function test_epochsMustHaveBegunAndHaveALength() public {
        vm.expectRevert(IRegistry.InvalidPeriods.selector);
        _registry(LIFE, NOTICE, NOW, 0);
        vm.expectRevert(IRegistry.InvalidPeriods.selector);
        _registry(LIFE, NOTICE, NOW + 1, EPOCH);
    }

    function test_aStakeHasASliceForEachEpochWhoseTicketsCanBeClaimed() public {
        vm.assertEq(_registry(LIFE, NOTICE, NOW, EPOCH).slices(), 3, "whole epochs");
        vm.assertEq(_registry(LIFE + 1, NOTICE, NOW, EPOCH).slices(), 4, "rounded up");
        vm.assertEq(_registry(1, NOTICE, NOW, EPOCH).slices(), 2, "at least the next epoch");
    }

    function _escrow(uint32 life, uint32 notice, uint64 genesis, uint32 epochLength)
        private
        returns (IEscrow)
    {
        bytes memory arguments = abi.encode(TOKEN, life, notice, genesis, epochLength, STAKE);
        return IEscrow(_create(abi.encodePacked(vm.getCode("Escrow.sol"), arguments)));
    }

    function _registry(uint32 life, uint32 notice, uint64 genesis, uint32 epochLength)
        private
        returns (IRegistry)
    {
        bytes memory arguments = abi.encode(TOKEN, life, notice, genesis, epochLength, STAKE);
        return IRegistry(_create(abi.encodePacked(vm.getCode("Registry.sol"), arguments)));
    }

    /// Passes on why it failed.
    function _create(bytes memory code) private returns (address created) {
        assembly ("memory-safe") {
            created := create(0, add(code, 0x20), mload(code))
            if iszero(created) {
                let pointer := mload(0x40)
                returndatacopy(pointer, 0, returndatasize())
                revert(pointer, returndatasize())
            }
        }
    }
}
