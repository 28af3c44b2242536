// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @notice Takes and gives one token. What arrives counts, not what was sent, so that a token may take a fee. A token
/// whose balances change by themselves does not work.
abstract contract Vault is ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice More arrived than can be counted, which no honest token does.
    error ImplausibleTransfer();

    IERC20 internal immutable _token;

    constructor(IERC20 token_) {
        _token = token_;
    }

    /// @dev Takes `amount` from the caller; the caller of this function guards against reentrance, and changes its state
    /// afterwards only.
    function _pull(uint128 amount) internal returns (uint128 received) {
        uint256 before = _token.balanceOf(address(this));
        _token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 difference = _token.balanceOf(address(this)) - before;
        if (difference > amount) revert ImplausibleTransfer();
        // No more than `amount`, which has 128 bits.
        return uint128(difference);
    }

    /// @dev Gives `amount` to `to`; the caller of this function has changed its state before.
    function _push(address to, uint128 amount) internal {
        _token.safeTransfer(to, amount);
    }
}
