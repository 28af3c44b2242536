// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {TestToken} from "../../src/TestToken.sol";
import {IEscrow} from "../../src/interfaces/IEscrow.sol";
import {IRegistry} from "../../src/interfaces/IRegistry.sol";
import {Tickets} from "./Tickets.sol";

/// @notice The contracts, an issuer with a hot signer and a deposit, and a recipient with a redeemer.
abstract contract Fixture is Tickets {
    uint32 internal constant LIFE = 7200;
    uint32 internal constant NOTICE = 10_800;
    uint32 internal constant EPOCH = 3600;
    uint64 internal constant GENESIS = 1_800_000_000;
    uint128 internal constant STAKE = 60_000;
    uint128 internal constant FACE = 100;
    uint64 internal constant WIN = 1 << 58;
    uint256 internal constant SIGNER_KEY = uint256(keccak256("signer"));
    uint128 internal constant NO_CAP = type(uint128).max;

    TestToken internal token;
    IEscrow internal escrow;
    IRegistry internal registry;
    address internal issuer = named("issuer");
    address internal recipient = named("recipient");
    address internal redeemer = named("redeemer");
    address internal stranger = named("stranger");
    uint32 internal class;

    function setUp() public virtual {
        vm.warp(GENESIS + 10 * EPOCH + 100);
        token = makeToken();
        // By name, so that the compiler need not put the contracts into each test.
        escrow = IEscrow(vm.deployCode("Escrow.sol", abi.encode(token, LIFE, NOTICE, GENESIS, EPOCH, STAKE)));
        registry = escrow.registry();
        class = register(FACE);
        addSigner(issuer, vm.addr(SIGNER_KEY));
        vm.prank(recipient);
        escrow.setRedeemer(redeemer);
        deposit(issuer, 10_000);
    }

    function makeToken() internal virtual returns (TestToken) {
        return TestToken(vm.deployCode("TestToken.sol", abi.encode(uint8(18))));
    }

    /// @notice A class of the current epoch that is valid now.
    function register(uint128 face) internal returns (uint32) {
        return escrow.registerClass(
            face, WIN, uint32(block.timestamp), uint32(block.timestamp + LIFE), registry.currentEpoch()
        );
    }

    function addSigner(address account, address signer) internal {
        vm.prank(account);
        escrow.addSigner(signer, NO_CAP);
    }

    /// @notice Gives an account tokens, which it allows both contracts to take.
    function fund(address account, uint256 amount) internal {
        token.mint(account, amount);
        vm.prank(account);
        token.approve(address(escrow), type(uint256).max);
        vm.prank(account);
        token.approve(address(registry), type(uint256).max);
    }

    function deposit(address account, uint128 amount) internal {
        fund(account, amount);
        vm.prank(account);
        escrow.deposit(account, amount);
    }

    function openReserve(address account, address to, uint128 amount) internal {
        fund(account, amount);
        vm.prank(account);
        escrow.openReserve(to, amount);
    }

    function join(address account, uint128 stake) internal {
        fund(account, stake);
        vm.prank(account);
        registry.join(IRegistry.Role.Mix, keccak256(abi.encode(account)), stake);
    }

    function nextEpoch() internal {
        vm.warp(GENESIS + (uint256(registry.currentEpoch()) + 1) * EPOCH);
    }

    function makeWindow(address from, address to, uint32 class_, uint32 number)
        internal
        view
        returns (Window memory)
    {
        return Window({
            issuer: from,
            recipient: to,
            class: class_,
            number: number,
            r: bytes16(keccak256(abi.encode("r", from, to, number))),
            winProbability: WIN,
            domain: escrow.domainSeparator()
        });
    }

    /// @notice A window from issuer to recipient with one batch of 64 tickets, `winners` of which win and are claimed,
    /// all of which must be paid.
    function claim(uint32 number, uint256 winners) internal view returns (bytes memory) {
        Window memory window = makeWindow(issuer, recipient, class, number);
        return encodeWindow(window, uint16(winners), makeBatch(window, 0, 64, SIGNER_KEY, winners));
    }

    function redeem(bytes memory claims) internal {
        vm.prank(redeemer);
        escrow.redeem(recipient, claims);
    }

    function depositOf(address account) internal view returns (uint256 balance) {
        (balance,,) = escrow.depositOf(account);
    }

    function reserveOf(address from, address to) internal view returns (uint256 balance) {
        (balance,) = escrow.reserveOf(from, to);
    }

    function eq(uint256 left, uint256 right, string memory what) internal pure {
        vm.assertEq(left, right, what);
    }
}
