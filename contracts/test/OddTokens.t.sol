// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Vault} from "../src/Vault.sol";
import {TestToken} from "../src/TestToken.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {Fixture} from "./base/Fixture.sol";
import {OddToken} from "./base/OddToken.sol";

/// @notice Tokens that are allowed, but not what one expects.
contract OddTokensTest is Fixture {
    OddToken private _odd;

    function makeToken() internal override returns (TestToken) {
        _odd = new OddToken(18);
        return TestToken(address(_odd));
    }

    /// Nobody can be paid what others own.
    function _solvent() private view {
        vm.assertGe(
            token.balanceOf(address(escrow)),
            depositOf(issuer) + depositOf(stranger) + reserveOf(issuer, recipient)
                + escrow.creditOf(recipient) + escrow.creditOf(stranger),
            "escrow"
        );
        vm.assertGe(
            token.balanceOf(address(registry)),
            uint256(registry.nodeOf(issuer).left) + registry.nodeOf(stranger).left
                + registry.creditOf(recipient),
            "registry"
        );
    }

    function test_feeOnTransfer() public {
        _odd.become(OddToken.Oddity.Fee);
        deposit(issuer, 1000);
        eq(depositOf(issuer), 10_990, "what arrived");
        openReserve(issuer, recipient, 100);
        eq(reserveOf(issuer, recipient), 99, "what arrived in the reserve");
        fund(issuer, 2 * STAKE);
        vm.prank(issuer);
        vm.expectPartialRevert(IRegistry.StakeTooSmall.selector);
        registry.join(IRegistry.Role.Mix, 0, STAKE);
        vm.prank(issuer);
        registry.join(IRegistry.Role.Mix, 0, STAKE + STAKE / 50);
        eq(registry.nodeOf(issuer).left, (STAKE + STAKE / 50) * 99 / 100, "what arrived as stake");
        redeem(claim(0, 1));
        _solvent();
        vm.prank(recipient);
        escrow.withdrawCredits(recipient);
        eq(token.balanceOf(recipient), 99, "less the fee");
        _solvent();
    }

    function test_noReturnValue() public {
        _odd.become(OddToken.Oddity.NoReturn);
        deposit(issuer, 1000);
        redeem(claim(0, 1));
        vm.prank(recipient);
        escrow.withdrawCredits(recipient);
        eq(token.balanceOf(recipient), FACE, "paid");
    }

    function test_falseIsAFailure() public {
        fund(stranger, 1000);
        redeem(claim(0, 1));
        _odd.become(OddToken.Oddity.False);
        vm.prank(stranger);
        vm.expectRevert();
        escrow.deposit(stranger, 1000);
        vm.prank(recipient);
        vm.expectRevert();
        escrow.withdrawCredits(recipient);
        eq(escrow.creditOf(recipient), FACE, "not lost");
    }

    function test_moreThanWasSentIsRefused() public {
        fund(stranger, 1000);
        _odd.become(OddToken.Oddity.Gift);
        vm.prank(stranger);
        vm.expectRevert(Vault.ImplausibleTransfer.selector);
        escrow.deposit(stranger, 1000);
    }

    /// The token calls back into every function that moves money, as somebody who may use it.
    function test_reentrance() public {
        // The token itself has money everywhere.
        address attacker = address(_odd);
        deposit(attacker, 1000);
        openReserve(attacker, recipient, 1000);
        fund(attacker, 10 * STAKE);
        vm.startPrank(attacker);
        escrow.requestUnlock(1000);
        escrow.closeReserve(recipient);
        vm.stopPrank();
        vm.warp(block.timestamp + NOTICE);

        bytes[6] memory data = [
            abi.encodeCall(escrow.withdrawDeposit, ()),
            abi.encodeCall(escrow.withdrawReserve, (recipient)),
            abi.encodeCall(escrow.deposit, (attacker, 10)),
            abi.encodeCall(escrow.fundReserve, (attacker, recipient, 10)),
            abi.encodeCall(escrow.openReserve, (recipient, 10)),
            abi.encodeCall(escrow.withdrawCredits, (attacker))
        ];
        fund(stranger, 1_000_000);
        for (uint256 i = 0; i < data.length; i++) {
            _odd.callBack(address(escrow), data[i]);
            vm.prank(stranger);
            escrow.deposit(stranger, 100);
            vm.assertTrue(_odd.called(), "called back");
            vm.assertFalse(_odd.succeeded(), "and refused");
            _solvent();
        }
        eq(depositOf(stranger), 600, "counted once each");

        // While a deposit leaves.
        _odd.callBack(address(escrow), data[0]);
        vm.prank(attacker);
        escrow.withdrawDeposit();
        vm.assertFalse(_odd.succeeded(), "not twice");
        _solvent();

        _odd.callBack(address(registry), abi.encodeCall(registry.join, (IRegistry.Role.Mix, 0, STAKE)));
        vm.prank(stranger);
        registry.join(IRegistry.Role.Mix, 0, STAKE);
        vm.assertFalse(_odd.succeeded(), "registry");
        _solvent();
    }

    /// Claiming in the middle of a transfer is harmless, and not prevented.
    function test_claimWhileATokenMoves() public {
        bytes memory claims = claim(0, 1);
        vm.prank(recipient);
        escrow.setRedeemer(address(_odd));
        fund(stranger, 1000);
        _odd.callBack(address(escrow), abi.encodeCall(escrow.redeem, (recipient, claims)));
        vm.prank(stranger);
        escrow.deposit(issuer, 1000);
        vm.assertTrue(_odd.succeeded(), "claimed");
        eq(depositOf(issuer), 11_000 - FACE, "deposit");
        eq(escrow.creditOf(recipient), FACE, "credited");
        _solvent();
    }

    function test_withoutDecimals() public {
        class = register(1);
        redeem(claim(0, 3));
        eq(escrow.creditOf(recipient), 3, "three whole tokens");
    }

    function test_twentyFourDecimals() public {
        uint128 face = 1_000_000 * 10 ** 24;
        deposit(issuer, 3 * face);
        class = register(face);
        redeem(claim(0, 3));
        eq(escrow.creditOf(recipient), 3 * uint256(face), "three million tokens");
    }
}
