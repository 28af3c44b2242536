// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {Claims} from "../src/libraries/Claims.sol";
import {Fixture} from "./base/Fixture.sol";

/// @notice Claims that must not be paid. Each begins with one that would be, so that it fails for the stated reason.
contract AttacksTest is Fixture {
    Window private _window;

    function setUp() public override {
        super.setUp();
        _window = makeWindow(issuer, recipient, class, 0);
    }

    function _refused(bytes memory claims, bytes memory reason) private {
        vm.prank(redeemer);
        vm.expectRevert(reason);
        escrow.redeem(recipient, claims);
        eq(escrow.creditOf(recipient), 0, "nothing is credited");
    }

    function _selector(bytes4 selector) private pure returns (bytes memory) {
        return abi.encodePacked(selector);
    }

    /// @notice A batch that was signed as part of the window `signed` and is claimed in `shown`, in which it would win.
    function _signatureOf(Window memory signed, Window memory shown) private {
        Batch memory batch = makeBatch(shown, 0, 64, SIGNER_KEY, 1);
        bytes memory inOrder = encodeWindow(shown, 1, batch);
        batch.digest = digestOf(signed, batch);
        bytes memory claims = encodeWindow(shown, 1, batch);
        vm.prank(redeemer);
        vm.expectPartialRevert(IEscrow.SignerUnknown.selector);
        escrow.redeem(recipient, claims);
        // The signature is all that was missing.
        redeem(inOrder);
    }

    // ------------------------------------------------------------------------------------------------ twice, early, late

    function test_claimTwice() public {
        bytes memory claims = claim(0, 1);
        redeem(claims);
        vm.prank(redeemer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.WindowClaimed.selector, issuer, 0));
        escrow.redeem(recipient, claims);
        eq(escrow.creditOf(recipient), FACE, "once");
    }

    function test_claimTwiceInOneCall() public {
        bytes memory claims = claim(0, 1);
        _refused(
            abi.encodePacked(claims, claims),
            abi.encodeWithSelector(IEscrow.WindowClaimed.selector, issuer, 0)
        );
    }

    /// The rest of a window after a part of it: the window is over.
    function test_claimInParts() public {
        redeem(encodeWindow(_window, 1, makeBatch(_window, 0, 64, SIGNER_KEY, 1)));
        bytes memory rest = encodeWindow(_window, 1, makeBatch(_window, 1, 64, SIGNER_KEY, 1));
        vm.prank(redeemer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.WindowClaimed.selector, issuer, 0));
        escrow.redeem(recipient, rest);
    }

    function test_batchSignedTwiceUnderTwoSalts() public {
        Batch memory one = makeBatch(_window, 0, 64, SIGNER_KEY, 1);
        Batch memory two = makeBatch(_window, 0, 64, SIGNER_KEY, 1);
        for (uint256 attempt = 1000;; attempt++) {
            saltBatch(_window, two, attempt);
            if (two.winners.length != 0) break;
        }
        bytes memory both = abi.encodePacked(encodeBatch(one), encodeBatch(two));
        _refused(encodeWindow(_window, 1, 2, both), abi.encodeWithSelector(Claims.BatchOrder.selector, 0));
        redeem(encodeWindow(_window, 1, one));
        bytes memory second = encodeWindow(_window, 1, two);
        vm.prank(redeemer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.WindowClaimed.selector, issuer, 0));
        escrow.redeem(recipient, second);
    }

    function test_batchesOutOfOrder() public {
        bytes memory batches = abi.encodePacked(
            encodeBatch(makeBatch(_window, 4, 64, SIGNER_KEY, 1)),
            encodeBatch(makeBatch(_window, 3, 64, SIGNER_KEY, 1))
        );
        _refused(encodeWindow(_window, 1, 2, batches), abi.encodeWithSelector(Claims.BatchOrder.selector, 3));
    }

    function test_ticketTwice() public {
        Batch memory batch = makeBatch(_window, 0, 64, SIGNER_KEY, 2);
        batch.winners[1] = batch.winners[0];
        _refused(
            encodeWindow(_window, 1, batch),
            abi.encodeWithSelector(Claims.TicketOrder.selector, batch.winners[0])
        );
    }

    function test_ticketsOutOfOrder() public {
        Batch memory batch = makeBatch(_window, 0, 64, SIGNER_KEY, 2);
        (batch.winners[0], batch.winners[1]) = (batch.winners[1], batch.winners[0]);
        _refused(
            encodeWindow(_window, 1, batch),
            abi.encodeWithSelector(Claims.TicketOrder.selector, batch.winners[1])
        );
    }

    function test_early() public {
        uint32 validFrom = uint32(block.timestamp + 1);
        class = escrow.registerClass(FACE, WIN, validFrom, validFrom + LIFE, registry.currentEpoch());
        bytes memory claims = claim(0, 1);
        _refused(claims, abi.encodeWithSelector(IEscrow.TooEarly.selector, validFrom));
        vm.warp(validFrom);
        redeem(claims);
    }

    function test_afterExpiry() public {
        bytes memory claims = claim(0, 1);
        vm.warp(block.timestamp + LIFE + 1);
        _refused(claims, abi.encodeWithSelector(IEscrow.Expired.selector, block.timestamp - 1));
    }

    function test_classThatDoesNotExist() public {
        class = 77;
        _refused(claim(0, 1), abi.encodeWithSelector(IEscrow.Expired.selector, 0));
    }

    // ---------------------------------------------------------------------------------------------- elsewhere, by others

    function test_onAnotherChain() public {
        Window memory there = makeWindow(issuer, recipient, class, 0);
        vm.chainId(block.chainid + 1);
        Window memory here = makeWindow(issuer, recipient, class, 0);
        _signatureOf(there, here);
    }

    function test_onAnotherContract() public {
        Window memory there = makeWindow(issuer, recipient, class, 0);
        there.domain = keccak256("another contract");
        _signatureOf(there, _window);
    }

    function test_afterAForkTheNewChainHasItsOwnTickets() public {
        vm.chainId(block.chainid + 1);
        redeem(claim(0, 1));
        eq(escrow.creditOf(recipient), FACE, "credited");
    }

    function test_strangerCopiesItFromTheMempool() public {
        bytes memory claims = claim(0, 1);
        vm.prank(stranger);
        vm.expectRevert(IEscrow.NotRedeemer.selector);
        escrow.redeem(recipient, claims);
        // The issuer, whom it would cost, neither; nor does a stranger's name in place of the recipient's help.
        vm.prank(issuer);
        vm.expectRevert(IEscrow.NotRedeemer.selector);
        escrow.redeem(recipient, claims);
        vm.prank(stranger);
        vm.expectRevert();
        escrow.redeem(stranger, claims);
        redeem(claims);
    }

    function test_recipientThatHasARedeemerIsNotItsOwn() public {
        bytes memory claims = claim(0, 1);
        vm.prank(recipient);
        vm.expectRevert(IEscrow.NotRedeemer.selector);
        escrow.redeem(recipient, claims);
        vm.prank(recipient);
        escrow.setRedeemer(address(0));
        vm.prank(redeemer);
        vm.expectRevert(IEscrow.NotRedeemer.selector);
        escrow.redeem(recipient, claims);
        vm.prank(recipient);
        escrow.redeem(recipient, claims);
    }

    function test_strangerCannotNameARedeemerForOthers() public {
        vm.prank(stranger);
        escrow.setRedeemer(stranger);
        vm.assertEq(escrow.redeemerOf(recipient), redeemer, "unchanged");
    }

    function test_aKeyWithAnEmptyTagIsRefused() public {
        address odd = address(uint160(1) << 128);
        vm.prank(recipient);
        vm.expectRevert(IEscrow.InvalidKey.selector);
        escrow.setRedeemer(odd);
        vm.prank(issuer);
        vm.expectRevert(IEscrow.InvalidKey.selector);
        escrow.addSigner(odd, NO_CAP);
    }

    // -------------------------------------------------------------------------------------------------- forged tickets

    function test_changedIndex() public {
        Batch memory batch = makeBatch(_window, 0, 64, SIGNER_KEY, 1);
        bytes memory claims = encodeWindow(_window, 1, batch);
        // Behind the heads of window and batch.
        for (uint256 k = 0; k < 256; k++) {
            if (k == batch.winners[0]) continue;
            claims[130] = bytes1(uint8(k));
            vm.prank(redeemer);
            vm.expectRevert();
            escrow.redeem(recipient, claims);
        }
        claims[130] = bytes1(uint8(batch.winners[0]));
        redeem(claims);
    }

    /// An index beyond the count, in a tree that has such a leaf: padding is no ticket.
    function test_indexBeyondTheCount() public {
        Batch memory batch = makeBatch(_window, 0, 33, SIGNER_KEY, 1);
        batch.winners[0] = 33;
        bytes16[] memory openers = new bytes16[](64);
        for (uint256 k = 0; k < 33; k++) {
            openers[k] = batch.openers[k];
        }
        bytes memory head = encodeHead(batch, 1);
        batch.openers = openers;
        _refused(
            encodeWindow(_window, 1, 1, abi.encodePacked(head, encodeWinner(batch, 33))),
            abi.encodeWithSelector(Claims.TicketOrder.selector, 33)
        );
    }

    /// The right opener with more bytes: they are read as siblings.
    function test_openerOfAnotherLength() public {
        Batch memory batch = makeBatch(_window, 0, 2, SIGNER_KEY, 1);
        uint256 k = batch.winners[0];
        bytes memory head = encodeHead(batch, 1);
        bytes20 sibling = batch.levels[0][k ^ 1];
        bytes memory longer = abi.encodePacked(uint8(k), batch.openers[k], bytes4(0), sibling);
        bytes memory shorter = abi.encodePacked(uint8(k), bytes12(batch.openers[k]), sibling);
        bytes memory right = abi.encodePacked(uint8(k), batch.openers[k], sibling);
        bytes[2] memory wrong = [longer, shorter];
        for (uint256 i = 0; i < 2; i++) {
            bytes memory claims = encodeWindow(_window, 1, 1, abi.encodePacked(head, wrong[i]));
            vm.prank(redeemer);
            vm.expectRevert();
            escrow.redeem(recipient, claims);
        }
        redeem(encodeWindow(_window, 1, 1, abi.encodePacked(head, right)));
    }

    /// A leaf that is the hash of 40 bytes, as an inner node is: the issuer signs a tree of one level whose first leaf
    /// is the root of two tickets. That leaf has no opener of 16 bytes, and the two tickets are one level too deep.
    function test_innerNodeAsLeaf() public {
        Batch memory batch = makeBatch(_window, 0, 2, SIGNER_KEY, 0);
        bytes20 inner = bytes20(keccak256(abi.encodePacked(batch.levels[0][0], batch.levels[0][1])));
        batch.levels[0][0] = inner;
        batch.levels[1][0] = bytes20(keccak256(abi.encodePacked(inner, batch.levels[0][1])));
        for (uint256 attempt = 0; attempt < 64; attempt++) {
            saltBatch(_window, batch, attempt);
            bytes memory head = encodeHead(batch, 1);
            // What an opener of the inner node could be: the first 16 of the 40 bytes.
            bytes memory claims = encodeWindow(
                _window,
                1,
                1,
                abi.encodePacked(head, uint8(0), bytes16(batch.levels[0][1]), batch.levels[0][1])
            );
            vm.prank(redeemer);
            vm.expectRevert();
            escrow.redeem(recipient, claims);
        }
    }

    function test_winnersOfOneBatchWithDifferentRoots() public {
        Batch memory batch = makeBatch(_window, 0, 64, SIGNER_KEY, 2);
        uint256 second = batch.winners[1];
        bytes memory claims = encodeWindow(_window, 1, batch);
        // The last byte of the last sibling.
        claims[claims.length - 1] ^= 0x01;
        _refused(claims, abi.encodeWithSelector(Claims.RootMismatch.selector, second));
    }

    function test_ticketThatDidNotWin() public {
        Batch memory batch = makeBatch(_window, 0, 64, SIGNER_KEY, 1);
        batch.winners[0] = batch.winners[0] == 0 ? 1 : 0;
        vm.assume(!wins(_window, batch, batch.winners[0]));
        _refused(
            encodeWindow(_window, 1, batch), abi.encodeWithSelector(Claims.NoWin.selector, batch.winners[0])
        );
    }

    /// The recipient chooses an r with which a ticket wins: the signature is for another commitment.
    function test_randomnessThatIsNotTheCommitted() public {
        Window memory committed = makeWindow(issuer, recipient, class, 0);
        _window.r = bytes16(keccak256("another r"));
        _signatureOf(committed, _window);
    }

    function test_anotherRecipientsTickets() public {
        _signatureOf(makeWindow(issuer, stranger, class, 0), _window);
    }

    function test_ticketsOfAnotherWindow() public {
        _signatureOf(makeWindow(issuer, recipient, class, 1), _window);
    }

    function test_aDearerClass() public {
        _window.class = register(50 * FACE);
        _signatureOf(makeWindow(issuer, recipient, class, 0), _window);
    }

    // ------------------------------------------------------------------------------------------------------ signatures

    function test_signatureOfNobody() public {
        Batch memory batch = makeBatch(_window, 0, 1, SIGNER_KEY, 1);
        bytes memory claims = encodeWindow(_window, 1, batch);
        // r = 0 is no signature: nothing is recovered, not the zero address.
        for (uint256 i = 65; i < 97; i++) {
            claims[i] = 0;
        }
        _refused(claims, _selector(Claims.InvalidSignature.selector));
    }

    /// The zero address has a deposit, and what cannot be recovered is not its signature.
    function test_zeroAddressAsIssuer() public {
        fund(stranger, 1000);
        vm.prank(stranger);
        escrow.deposit(address(0), 1000);
        _window.issuer = address(0);
        Batch memory batch = makeBatch(_window, 0, 1, SIGNER_KEY, 1);
        bytes memory claims = encodeWindow(_window, 1, batch);
        _refused(claims, abi.encodeWithSelector(IEscrow.SignerUnknown.selector, vm.addr(SIGNER_KEY)));
        for (uint256 i = 65; i < 97; i++) {
            claims[i] = 0;
        }
        _refused(claims, _selector(Claims.InvalidSignature.selector));
    }

    function test_signatureWithAHighS() public {
        // The least s that is too great, and the greatest that EIP-2098 can carry.
        bytes32[2] memory values = [
            bytes32(0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1),
            bytes32(0x7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff)
        ];
        Batch memory batch = makeBatch(_window, 0, 1, SIGNER_KEY, 1);
        bytes memory claims = encodeWindow(_window, 1, batch);
        for (uint256 i = 0; i < 2; i++) {
            for (uint256 j = 0; j < 32; j++) {
                claims[97 + j] = values[i][j];
            }
            _refused(claims, _selector(Claims.InvalidSignature.selector));
        }
    }

    function test_signerOfAnotherIssuer() public {
        uint256 key = uint256(keccak256("signer of another"));
        addSigner(stranger, vm.addr(key));
        _refused(
            encodeWindow(_window, 1, makeBatch(_window, 0, 64, key, 1)),
            abi.encodeWithSelector(IEscrow.SignerUnknown.selector, vm.addr(key))
        );
    }

    /// Batches of classes that were in use when the signer was revoked stay valid; later ones are void.
    function test_signerRevoked() public {
        bytes memory before = claim(0, 1);
        vm.warp(block.timestamp + 60);
        vm.prank(issuer);
        escrow.revokeSigner(vm.addr(SIGNER_KEY));
        redeem(before);
        eq(escrow.creditOf(recipient), FACE, "accepted before the revocation");

        // Expires exactly with the last that can have been accepted, and a second later.
        uint32 inUse = register(FACE);
        vm.warp(block.timestamp + 1);
        uint32 later = register(FACE);
        class = inUse;
        redeem(claim(1, 1));
        class = later;
        bytes memory claims = claim(2, 1);
        vm.prank(redeemer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.SignerRevoked.selector, vm.addr(SIGNER_KEY)));
        escrow.redeem(recipient, claims);
    }

    function test_revocationIsFinal() public {
        address signer = vm.addr(SIGNER_KEY);
        vm.prank(issuer);
        escrow.revokeSigner(signer);
        vm.warp(block.timestamp + 1000);
        vm.prank(issuer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.SignerUnknown.selector, signer));
        escrow.revokeSigner(signer);
        vm.prank(issuer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.SignerUnknown.selector, signer));
        escrow.capSigner(signer, NO_CAP);
        vm.prank(issuer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.SignerKnown.selector, signer));
        escrow.addSigner(signer, NO_CAP);
        (uint64 lastExpiry,) = escrow.signerOf(issuer, signer);
        eq(lastExpiry, block.timestamp - 1000 + LIFE, "from the first revocation");
    }

    function test_signerCapped() public {
        uint256 key = uint256(keccak256("capped signer"));
        vm.prank(issuer);
        escrow.addSigner(vm.addr(key), uint128(5 * FACE / 2));
        redeem(encodeWindow(_window, 2, makeBatch(_window, 0, 64, key, 2)));
        eq(escrow.creditOf(recipient), 2 * FACE, "within the limit");
        eq(escrow.spentBy(issuer, vm.addr(key), registry.currentEpoch()), 2 * FACE, "spent");
        _window.number = 1;
        Batch memory batch = makeBatch(_window, 0, 64, key, 2);
        bytes memory claims = encodeWindow(_window, 1, batch);
        vm.prank(redeemer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.TooLittle.selector, FACE / 2, FACE));
        escrow.redeem(recipient, claims);
        // What is left of the limit, for who is content with it. Other signers go on.
        redeem(encodeWindow(_window, 0, batch));
        eq(escrow.creditOf(recipient), 5 * FACE / 2, "the limit");
        redeem(claim(2, 1));
        eq(escrow.creditOf(recipient), 7 * FACE / 2, "another signer");
        // The limit is for an epoch's classes; it can be lifted.
        nextEpoch();
        _window.number = 3;
        _window.class = register(FACE);
        redeem(encodeWindow(_window, 1, makeBatch(_window, 0, 64, key, 1)));
        _window.number = 4;
        _window.class = class;
        vm.prank(issuer);
        escrow.capSigner(vm.addr(key), NO_CAP);
        redeem(encodeWindow(_window, 2, makeBatch(_window, 0, 64, key, 2)));
        eq(escrow.creditOf(recipient), 13 * FACE / 2, "lifted");
    }

    /// The signer that stands beside the deposit gets a limit: it does not stand there any more.
    function test_usualSignerCapped() public {
        vm.prank(issuer);
        escrow.capSigner(vm.addr(SIGNER_KEY), FACE);
        bytes memory claims = claim(0, 2);
        _refused(claims, abi.encodeWithSelector(IEscrow.TooLittle.selector, FACE, 2 * FACE));
    }

    // ---------------------------------------------------------------------------------------------------------- lengths

    function test_nothing() public {
        _refused("", _selector(IEscrow.InvalidLength.selector));
    }

    function test_trailingBytes() public {
        bytes memory claims = abi.encodePacked(claim(0, 1), uint8(0));
        vm.prank(redeemer);
        vm.expectRevert();
        escrow.redeem(recipient, claims);
    }

    /// Cut anywhere, also where what follows in the calldata is what was cut off.
    function test_truncated() public {
        bytes memory claims = claim(0, 2);
        bytes memory data = abi.encodeCall(escrow.redeem, (recipient, claims));
        for (uint256 length = 0; length < claims.length; length++) {
            // The length is the word before the claims.
            assembly ("memory-safe") {
                mstore(add(data, 0x64), length)
            }
            vm.prank(redeemer);
            (bool success,) = address(escrow).call(data);
            vm.assertFalse(success, "truncated claims are refused");
        }
        redeem(claims);
    }

    function test_windowWithoutBatches() public {
        _refused(encodeWindow(_window, 0, 0, ""), _selector(Claims.NothingClaimed.selector));
    }

    function test_batchWithoutWinners() public {
        Batch memory batch = makeBatch(_window, 0, 64, SIGNER_KEY, 1);
        _refused(encodeWindow(_window, 0, 1, encodeHead(batch, 0)), _selector(Claims.NothingClaimed.selector));
    }

    // ------------------------------------------------------------------------------------------------- drained deposits

    function test_drainedDeposit() public {
        // The issuer's second identity takes it all.
        address accomplice = named("accomplice");
        uint32 dear = register(10_000);
        Window memory window = makeWindow(issuer, accomplice, dear, 0);
        bytes memory drain = encodeWindow(window, 1, makeBatch(window, 0, 64, SIGNER_KEY, 1));
        vm.prank(accomplice);
        escrow.redeem(accomplice, drain);
        eq(depositOf(issuer), 0, "drained");

        bytes memory claims = claim(0, 2);
        _refused(claims, abi.encodeWithSelector(IEscrow.TooLittle.selector, 0, 2 * FACE));
        openReserve(issuer, recipient, 150);
        _refused(claims, abi.encodeWithSelector(IEscrow.TooLittle.selector, 150, 2 * FACE));
        // Nothing was lost with the refused call: the window can be claimed later.
        openReserve(issuer, recipient, 1000);
        redeem(claims);
        eq(escrow.creditOf(recipient), 2 * FACE, "from the reserve");
        eq(reserveOf(issuer, recipient), 950, "reserve");
    }

    function test_contentWithLess() public {
        uint32 dear = register(6000);
        Window memory window = makeWindow(issuer, recipient, dear, 0);
        redeem(encodeWindow(window, 1, makeBatch(window, 0, 64, SIGNER_KEY, 2)));
        eq(escrow.creditOf(recipient), 10_000, "what there was");
    }

    /// An issuer's reserve is nobody else's.
    function test_reserveOfAnotherRecipient() public {
        openReserve(issuer, stranger, 10_000);
        class = register(10_000);
        _refused(claim(0, 2), abi.encodeWithSelector(IEscrow.TooLittle.selector, 10_000, 20_000));
        eq(reserveOf(issuer, stranger), 10_000, "untouched");
    }
}
