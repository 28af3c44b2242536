// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice An ERC-20 in most respects.
contract OddToken {
    enum Oddity {
        None,
        /// Takes a hundredth of each transfer.
        Fee,
        /// Returns nothing.
        NoReturn,
        /// Returns false and transfers nothing.
        False,
        /// Calls a contract in the middle of a transfer, which goes on whatever becomes of that.
        Calls,
        /// Gives the receiver more than was sent.
        Gift
    }

    uint8 public immutable decimals;
    Oddity public oddity;
    mapping(address account => uint256) public balanceOf;
    mapping(address account => mapping(address spender => uint256)) public allowance;

    address private _target;
    bytes private _data;
    /// What became of the call.
    bool public called;
    bool public succeeded;

    constructor(uint8 decimals_) {
        decimals = decimals_;
    }

    function become(Oddity oddity_) external {
        oddity = oddity_;
    }

    function callBack(address target, bytes calldata data) external {
        oddity = Oddity.Calls;
        (_target, _data) = (target, data);
        called = false;
        succeeded = false;
    }

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        return true;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private {
        if (oddity == Oddity.False) _return(0);
        balanceOf[from] -= amount;
        balanceOf[to] += oddity == Oddity.Fee ? amount - amount / 100 : amount;
        if (oddity == Oddity.Gift) balanceOf[to] += 1;
        if (oddity == Oddity.Calls && !called) {
            called = true;
            (succeeded,) = _target.call(_data);
        }
        if (oddity != Oddity.NoReturn) _return(1);
    }

    function _return(uint256 value) private pure {
        assembly ("memory-safe") {
            mstore(0x00, value)
            return(0x00, 0x20)
        }
    }
}
