// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IRegistry} from "../../src/interfaces/IRegistry.sol";
import {Fixture} from "./Fixture.sol";

/// @notice Four parties that do anything that the contracts allow, and some things that they must not, at any time. A
/// call that is refused counts as no call.
contract Actors is Fixture {
    uint256 public constant COUNT = 4;
    address[] public actors;
    uint256[] private _keys;
    uint32 private _nextWindow;
    bytes[] private _redeemed;
    uint256[] private _redeemedFor;
    /// What came in, what claims paid, and how many windows were paid.
    uint256 public received;
    uint256 public paid;
    uint256 public windows;

    constructor() {
        super.setUp();
        for (uint256 i = 0; i < COUNT; i++) {
            address actor = named(string.concat("actor ", vm.toString(i)));
            actors.push(actor);
            _keys.push(uint256(keccak256(abi.encode("key", i))));
            addSigner(actor, vm.addr(_keys[i]));
            fund(actor, 10 ** 12);
        }
        received = 10_000;
    }

    /// Not to be called by a fuzzer.
    function setUp() public pure override {
        revert();
    }

    function contracts() external view returns (address, address, address) {
        return (address(escrow), address(registry), address(token));
    }

    function warp(uint256 by) external {
        vm.warp(block.timestamp + between(by, 1, by % 8 == 0 ? NOTICE : EPOCH / 2));
        class = register(uint128(between(by, 1, 5000)));
    }

    function addDeposit(uint256 who, uint128 amount) external {
        vm.prank(_actor(who));
        received += escrow.deposit(_actor(who + 1), uint128(between(amount, 1, 20_000)));
    }

    function unlock(uint256 who, uint128 amount) external {
        vm.prank(_actor(who));
        escrow.requestUnlock(uint128(between(amount, 0, 20_000)));
    }

    function withdrawDeposit(uint256 who) external {
        vm.prank(_actor(who));
        escrow.withdrawDeposit();
    }

    function addReserve(uint256 from, uint256 to, uint128 amount, bool open) external {
        amount = uint128(between(amount, 1, 5000));
        vm.prank(_actor(from));
        if (open) received += escrow.openReserve(_actor(to), amount);
        else received += escrow.fundReserve(_actor(from), _actor(to), amount);
    }

    function closeReserve(uint256 from, uint256 to) external {
        vm.prank(_actor(from));
        escrow.closeReserve(_actor(to));
    }

    function withdrawReserve(uint256 from, uint256 to) external {
        vm.prank(_actor(from));
        escrow.withdrawReserve(_actor(to));
    }

    function join(uint256 who, uint128 amount) external {
        amount = uint128(between(amount, STAKE, 2 * STAKE));
        vm.prank(_actor(who));
        registry.join(IRegistry.Role.Mix, 0, amount);
        received += amount;
    }

    function leave(uint256 who) external {
        vm.prank(_actor(who));
        registry.leave();
    }

    function withdrawStake(uint256 who) external {
        vm.prank(_actor(who));
        registry.withdrawStake();
    }

    function cap(uint256 who, uint128 amount) external {
        vm.prank(_actor(who));
        escrow.capSigner(vm.addr(_keys[who % COUNT]), amount % 3 == 0 ? NO_CAP : uint128(amount % 5000));
    }

    /// @notice A fresh window with some winners, claimed whatever there is to pay it.
    function claimWindow(uint256 from, uint256 to, uint256 winners) external {
        Window memory window = makeWindow(_actor(from), _actor(to), class, _nextWindow++);
        Batch memory batch = makeBatch(window, 0, 64, _keys[from % COUNT], between(winners, 1, 2));
        bytes memory claims = encodeWindow(window, 0, batch);
        uint256 before = _creditsOf(_actor(to));
        vm.prank(_actor(to));
        escrow.redeem(_actor(to), claims);
        uint256 difference = _creditsOf(_actor(to)) - before;
        (uint128 face,,,,) = escrow.classOf(class);
        vm.assertLe(difference, batch.winners.length * uint256(face), "no more than the winners are worth");
        paid += difference;
        windows++;
        _redeemed.push(claims);
        _redeemedFor.push(to);
    }

    /// @notice Something that was claimed before.
    function claimAgain(uint256 which) external {
        if (_redeemed.length == 0) return;
        which %= _redeemed.length;
        address account = _actor(_redeemedFor[which]);
        vm.prank(account);
        (bool success,) = address(escrow).call(abi.encodeCall(escrow.redeem, (account, _redeemed[which])));
        vm.assertFalse(success, "a window pays once");
    }

    function withdrawCredits(uint256 who, bool stake) external {
        vm.prank(_actor(who));
        if (stake) registry.withdrawCredits(_actor(who));
        else escrow.withdrawCredits(_actor(who));
    }

    function depositCredits(uint256 who, uint128 amount) external {
        vm.prank(_actor(who));
        escrow.depositCredits(uint128(between(amount, 0, 5000)));
    }

    function _creditsOf(address account) private view returns (uint256) {
        return uint256(escrow.creditOf(account)) + registry.creditOf(account);
    }

    function _actor(uint256 which) private view returns (address) {
        return actors[which % COUNT];
    }
}
