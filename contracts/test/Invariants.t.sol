// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {TestToken} from "../src/TestToken.sol";
import {Actors} from "./base/Actors.sol";
import {Test} from "./base/Test.sol";

/// @notice What holds whatever anybody does in whatever order.
contract InvariantsTest is Test {
    Actors private _actors;
    IEscrow private _escrow;
    IRegistry private _registry;
    TestToken private _token;
    /// Of the fixture: an issuer with a deposit, who does nothing.
    address private _honest = address(uint160(uint256(keccak256("issuer"))));

    function setUp() public {
        _actors = new Actors();
        (address escrow, address registry, address token) = _actors.contracts();
        (_escrow, _registry, _token) = (IEscrow(escrow), IRegistry(registry), TestToken(token));
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_actors);
    }

    /// In one function, so that one campaign serves all.
    function invariant_all() public view {
        _tokensAreConserved();
        _noMoreIsPaidThanCameIn();
        _strangersDoNotTouchADeposit();
        _nodesAreCounted();
    }

    /// Every token is somebody's, or burned, and each only once.
    function _tokensAreConserved() private view {
        (uint256 total,,) = _escrow.depositOf(_honest);
        uint256 staked = _registry.burned();
        for (uint256 i = 0; i < _actors.COUNT(); i++) {
            address one = _actors.actors(i);
            (uint128 balance,,) = _escrow.depositOf(one);
            total += balance + _escrow.creditOf(one);
            staked += uint256(_registry.nodeOf(one).left) + _registry.creditOf(one);
            for (uint256 j = 0; j < _actors.COUNT(); j++) {
                (uint128 reserve,) = _escrow.reserveOf(one, _actors.actors(j));
                total += reserve;
            }
        }
        vm.assertEq(_token.balanceOf(address(_escrow)), total, "escrow");
        vm.assertEq(_token.balanceOf(address(_registry)), staked, "registry");
    }

    function _noMoreIsPaidThanCameIn() private view {
        vm.assertLe(_actors.paid(), _actors.received(), "paid");
    }

    function _strangersDoNotTouchADeposit() private view {
        (uint256 balance,,) = _escrow.depositOf(_honest);
        vm.assertEq(balance, 10_000, "the honest issuer's deposit");
    }

    function _nodesAreCounted() private view {
        uint32 epoch = _registry.currentEpoch();
        for (uint32 e = epoch; e <= epoch + 1; e++) {
            uint256 active = 0;
            for (uint256 i = 0; i < _actors.COUNT(); i++) {
                if (_registry.isActive(_actors.actors(i), e)) active++;
            }
            vm.assertEq(_registry.activeNodes(e), active, "active nodes");
        }
    }

    /// Whatever happened, everybody gets out everything, and nothing stays but what was burned.
    function afterInvariant() public {
        vm.assertTrue(_actors.windows() != 0, "something was claimed");
        uint32 notice = _escrow.noticePeriod();
        for (uint256 i = 0; i < _actors.COUNT(); i++) {
            address one = _actors.actors(i);
            vm.startPrank(one);
            _escrow.requestUnlock(type(uint128).max);
            for (uint256 j = 0; j < _actors.COUNT(); j++) {
                _escrow.closeReserve(_actors.actors(j));
            }
            IRegistry.Node memory node = _registry.nodeOf(one);
            if (node.role != IRegistry.Role.None && node.releaseAt == 0) _registry.leave();
            vm.stopPrank();
        }
        vm.warp(block.timestamp + notice + _registry.epochLength());
        for (uint256 i = 0; i < _actors.COUNT(); i++) {
            address one = _actors.actors(i);
            vm.startPrank(one);
            _escrow.withdrawDeposit();
            for (uint256 j = 0; j < _actors.COUNT(); j++) {
                _escrow.withdrawReserve(_actors.actors(j));
            }
            if (_escrow.creditOf(one) != 0) _escrow.withdrawCredits(one);
            if (_registry.creditOf(one) != 0) _registry.withdrawCredits(one);
            if (_registry.nodeOf(one).role != IRegistry.Role.None) _registry.withdrawStake();
            vm.stopPrank();
        }
        vm.assertEq(_token.balanceOf(address(_escrow)), 10_000, "only the honest issuer's deposit is left");
        vm.assertEq(_token.balanceOf(address(_registry)), _registry.burned(), "only what was burned is left");
    }
}
