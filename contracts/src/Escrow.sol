// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {IEscrow} from "./interfaces/IEscrow.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Claims, Frame} from "./libraries/Claims.sol";
import {Registry} from "./Registry.sol";
import {Class, ClassLibrary} from "./types/Class.sol";
import {Purse, PurseLibrary} from "./types/Purse.sol";
import {Vault} from "./Vault.sol";

/// @title Where issuers keep money for their hops, and recipients claim winning tickets
/// @notice Has no owner, cannot be paused or replaced: a new version is a new contract, to which everyone moves.
contract Escrow is IEscrow, Vault {
    /// @dev What an issuer announced to withdraw from its deposit.
    struct Unlock {
        uint128 amount;
        uint64 from;
    }

    struct Reserve {
        uint128 balance;
        /// When it may be withdrawn; 0 without notice.
        uint64 from;
    }

    struct Signer {
        /// Batches of classes that expire later are void. 0: no signer; the greatest value: not revoked.
        uint64 lastExpiry;
        /// The greatest value: no limit.
        uint128 cap;
    }

    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    uint64 private constant NOT_REVOKED = type(uint64).max;
    uint128 private constant NO_CAP = type(uint128).max;

    /// @dev 256 tickets of a batch win four times on average at most. A recipient ends a window at 32 winners, so that those
    /// of a window fit one transaction.
    uint64 private constant MAX_WIN_PROBABILITY = 1 << 58;

    /// @inheritdoc IEscrow
    IRegistry public immutable override registry;
    /// @inheritdoc IEscrow
    uint32 public immutable override maxTicketLife;
    /// @inheritdoc IEscrow
    uint32 public immutable override noticePeriod;

    uint256 private immutable _chainId;
    bytes32 private immutable _domainSeparator;

    /// @inheritdoc IEscrow
    uint256 public override classCount;

    /// @dev The issuer's deposit, tagged with a signer that is neither revoked nor limited, so that a claim need not look
    /// that up. Most issuers have exactly one.
    mapping(address issuer => Purse) private _deposits;
    /// @dev The account's credits, tagged with its redeemer.
    mapping(address account => Purse) private _credits;
    mapping(address issuer => Unlock) private _unlocks;
    mapping(address issuer => mapping(address recipient => Reserve)) private _reserves;
    mapping(address issuer => mapping(address signer => Signer)) private _signers;
    mapping(address issuer => mapping(address signer => mapping(uint256 epoch => uint128))) private _spent;
    mapping(address recipient => address) private _redeemers;
    mapping(address account => address) private _payouts;
    mapping(uint256 class => Class) private _classes;
    mapping(uint256 class => uint32) private _classEpochs;
    mapping(address issuer => mapping(address recipient => mapping(uint256 word => uint256))) private
        _claimed;

    /// @param token_ any ERC-20 whose balances do not change by themselves
    /// @param maxTicketLife_ seconds, at least 1; includes the time to claim
    /// @param noticePeriod_ seconds, more than `maxTicketLife_` by a margin for reorganisations and censorship
    /// @param genesis when epoch 0 of the registry began
    /// @param epochLength seconds
    /// @param minStake what a node stakes at least
    constructor(
        IERC20 token_,
        uint32 maxTicketLife_,
        uint32 noticePeriod_,
        uint64 genesis,
        uint32 epochLength,
        uint128 minStake
    ) Vault(token_) {
        if (maxTicketLife_ == 0 || noticePeriod_ <= maxTicketLife_) revert InvalidPeriods();
        maxTicketLife = maxTicketLife_;
        noticePeriod = noticePeriod_;
        _chainId = block.chainid;
        _domainSeparator = _computeDomainSeparator();
        registry = new Registry(token_, maxTicketLife_, noticePeriod_, genesis, epochLength, minStake);
    }

    // -------------------------------------------------------------------------------------------------------- deposits

    /// @inheritdoc IEscrow
    function deposit(address issuer, uint128 amount)
        external
        override
        nonReentrant
        returns (uint128 received)
    {
        received = _receive(amount);
        _deposits[issuer] = _deposits[issuer].add(received);
        emit Deposited(issuer, received);
    }

    /// @inheritdoc IEscrow
    function requestUnlock(uint128 amount) external override {
        uint64 from = amount == 0 ? 0 : _noticeEnd();
        _unlocks[msg.sender] = Unlock(amount, from);
        emit UnlockRequested(msg.sender, amount, from);
    }

    /// @inheritdoc IEscrow
    function withdrawDeposit() external override nonReentrant returns (uint128 amount) {
        Unlock memory announced = _unlocks[msg.sender];
        _requirePassed(announced.from);
        delete _unlocks[msg.sender];
        Purse purse = _deposits[msg.sender];
        amount = purse.amount() < announced.amount ? purse.amount() : announced.amount;
        _deposits[msg.sender] = purse.sub(amount);
        emit DepositWithdrawn(msg.sender, amount);
        _push(payoutOf(msg.sender), amount);
    }

    /// @inheritdoc IEscrow
    function depositOf(address issuer)
        external
        view
        override
        returns (uint128 balance, uint128 unlocking, uint64 from)
    {
        Unlock memory announced = _unlocks[issuer];
        return (_deposits[issuer].amount(), announced.amount, announced.from);
    }

    // -------------------------------------------------------------------------------------------------------- reserves

    /// @inheritdoc IEscrow
    function openReserve(address recipient, uint128 amount)
        external
        override
        nonReentrant
        returns (uint128 received)
    {
        received = _receive(amount);
        Reserve storage reserve = _reserves[msg.sender][recipient];
        reserve.balance += received;
        reserve.from = 0;
        emit ReserveOpened(msg.sender, recipient);
        emit ReserveFunded(msg.sender, recipient, received);
    }

    /// @inheritdoc IEscrow
    function fundReserve(address issuer, address recipient, uint128 amount)
        external
        override
        nonReentrant
        returns (uint128 received)
    {
        received = _receive(amount);
        _reserves[issuer][recipient].balance += received;
        emit ReserveFunded(issuer, recipient, received);
    }

    /// @inheritdoc IEscrow
    function closeReserve(address recipient) external override {
        uint64 from = _noticeEnd();
        _reserves[msg.sender][recipient].from = from;
        emit ReserveClosing(msg.sender, recipient, from);
    }

    /// @inheritdoc IEscrow
    function withdrawReserve(address recipient) external override nonReentrant returns (uint128 amount) {
        Reserve memory reserve = _reserves[msg.sender][recipient];
        _requirePassed(reserve.from);
        delete _reserves[msg.sender][recipient];
        amount = reserve.balance;
        emit ReserveWithdrawn(msg.sender, recipient, amount);
        _push(payoutOf(msg.sender), amount);
    }

    /// @inheritdoc IEscrow
    function reserveOf(address issuer, address recipient)
        external
        view
        override
        returns (uint128 balance, uint64 from)
    {
        Reserve memory reserve = _reserves[issuer][recipient];
        return (reserve.balance, reserve.from);
    }

    // --------------------------------------------------------------------------------------------------------- credits

    /// @inheritdoc IEscrow
    function withdrawCredits(address account) external override nonReentrant returns (uint128 amount) {
        address payout = payoutOf(account);
        if (msg.sender != account && msg.sender != payout && msg.sender != redeemerOf(account)) {
            revert NotAllowed();
        }
        Purse purse = _credits[account];
        amount = purse.amount();
        if (amount == 0) revert NothingToMove();
        _credits[account] = purse.sub(amount);
        emit CreditsWithdrawn(account, amount);
        _push(payout, amount);
    }

    /// @inheritdoc IEscrow
    function depositCredits(uint128 amount) external override {
        _credits[msg.sender] = _credits[msg.sender].sub(amount);
        _deposits[msg.sender] = _deposits[msg.sender].add(amount);
        emit CreditsDeposited(msg.sender, amount);
    }

    /// @inheritdoc IEscrow
    function creditOf(address account) external view override returns (uint128) {
        return _credits[account].amount();
    }

    // ------------------------------------------------------------------------------------------------------------ keys

    /// @inheritdoc IEscrow
    function setRedeemer(address redeemer) external override {
        uint128 tag = PurseLibrary.tagOf(redeemer);
        // The tag 0 means that there is none.
        if (redeemer != address(0) && tag == 0) revert InvalidKey();
        _redeemers[msg.sender] = redeemer;
        _credits[msg.sender] = _credits[msg.sender].withTag(tag);
        emit RedeemerSet(msg.sender, redeemer);
    }

    /// @inheritdoc IEscrow
    function setPayout(address payout) external override {
        _payouts[msg.sender] = payout;
        emit PayoutSet(msg.sender, payout);
    }

    /// @inheritdoc IEscrow
    function addSigner(address signer, uint128 cap) external override {
        if (PurseLibrary.tagOf(signer) == 0) revert InvalidKey();
        if (_signers[msg.sender][signer].lastExpiry != 0) revert SignerKnown(signer);
        _signers[msg.sender][signer] = Signer(NOT_REVOKED, cap);
        _tagSigner(signer, cap);
        emit SignerAdded(msg.sender, signer, cap);
    }

    /// @inheritdoc IEscrow
    function capSigner(address signer, uint128 cap) external override {
        if (_signers[msg.sender][signer].lastExpiry != NOT_REVOKED) revert SignerUnknown(signer);
        _signers[msg.sender][signer].cap = cap;
        _untagSigner(signer);
        _tagSigner(signer, cap);
        emit SignerCapped(msg.sender, signer, cap);
    }

    /// @inheritdoc IEscrow
    function revokeSigner(address signer) external override {
        if (_signers[msg.sender][signer].lastExpiry != NOT_REVOKED) revert SignerUnknown(signer);
        uint64 lastExpiry = uint64(block.timestamp) + maxTicketLife;
        _signers[msg.sender][signer].lastExpiry = lastExpiry;
        _untagSigner(signer);
        emit SignerRevocation(msg.sender, signer, lastExpiry);
    }

    /// @dev Puts a signer of the caller beside its deposit if it may stand there and the place is free.
    function _tagSigner(address signer, uint128 cap) private {
        Purse purse = _deposits[msg.sender];
        // slither-disable-next-line incorrect-equality
        if (cap == NO_CAP && purse.tag() == 0) {
            _deposits[msg.sender] = purse.withTag(PurseLibrary.tagOf(signer));
        }
    }

    /// @dev Takes a signer of the caller away from there.
    function _untagSigner(address signer) private {
        Purse purse = _deposits[msg.sender];
        // slither-disable-next-line incorrect-equality
        if (purse.tag() == PurseLibrary.tagOf(signer)) _deposits[msg.sender] = purse.withTag(0);
    }

    /// @inheritdoc IEscrow
    function redeemerOf(address recipient) public view override returns (address) {
        address redeemer = _redeemers[recipient];
        return redeemer == address(0) ? recipient : redeemer;
    }

    /// @inheritdoc IEscrow
    function payoutOf(address account) public view override returns (address) {
        address payout = _payouts[account];
        return payout == address(0) ? account : payout;
    }

    /// @inheritdoc IEscrow
    function signerOf(address issuer, address signer)
        external
        view
        override
        returns (uint64 lastExpiry, uint128 cap)
    {
        Signer memory found = _signers[issuer][signer];
        return (found.lastExpiry, found.cap);
    }

    /// @inheritdoc IEscrow
    function spentBy(address issuer, address signer, uint32 epoch) external view override returns (uint128) {
        return _spent[issuer][signer][epoch];
    }

    // --------------------------------------------------------------------------------------------------------- classes

    /// @inheritdoc IEscrow
    function registerClass(uint128 face, uint64 winProbability, uint32 validFrom, uint32 expiry, uint32 epoch)
        external
        override
        returns (uint32 class)
    {
        if (face == 0 || winProbability == 0 || winProbability > MAX_WIN_PROBABILITY) revert InvalidClass();
        // No ticket outlives a notice that is given when it is accepted.
        if (expiry <= validFrom || expiry - validFrom > maxTicketLife) revert InvalidClass();
        // No stake stands in for more epochs at a time than it has slices.
        if (validFrom < registry.genesis() || registry.epochAt(validFrom) != epoch) revert InvalidClass();
        uint256 number = classCount;
        if (number > type(uint32).max) revert NoClassLeft();
        classCount = number + 1;
        class = uint32(number);
        _classes[class] = ClassLibrary.pack(face, winProbability, validFrom, expiry);
        _classEpochs[class] = epoch;
        emit ClassRegistered(class, face, winProbability, validFrom, expiry, epoch);
    }

    /// @inheritdoc IEscrow
    function classOf(uint32 class)
        external
        view
        override
        returns (uint128 face, uint64 winProbability, uint32 validFrom, uint32 expiry, uint32 epoch)
    {
        Class found = _classes[class];
        return (found.face(), found.winProbability(), found.validFrom(), found.expiry(), _classEpochs[class]);
    }

    // ---------------------------------------------------------------------------------------------------------- claims

    /// @inheritdoc IEscrow
    /// @dev Makes no call except to `ecrecover` and, on a shortfall, to the registry, which calls nobody. Hence it needs
    /// no guard, and may be called while a token moves.
    function redeem(address recipient, bytes calldata claims) external override {
        Purse credits = _credits[recipient];
        uint128 tag = credits.tag();
        if (tag == 0 ? msg.sender != recipient : PurseLibrary.tagOf(msg.sender) != tag) revert NotRedeemer();

        uint256 at;
        uint256 end;
        assembly ("memory-safe") {
            at := claims.offset
            end := add(at, claims.length)
        }
        if (at == end) revert InvalidLength();
        Frame frame = Claims.frame(domainSeparator(), recipient);
        uint256 earned = 0;
        while (at < end) {
            uint256 paid;
            // slither-disable-next-line reentrancy-no-eth,reentrancy-events
            (paid, at) = _redeemWindow(frame, at);
            // Sums of what was deposited, in 128 bits each: no overflow within a block's gas.
            unchecked {
                earned += paid;
            }
        }
        if (at != end) revert InvalidLength();
        _credits[recipient] = credits.add(earned);
    }

    /// @dev Claims the window at `at`.
    /// @return paid what must be credited to the recipient here
    /// @return next what follows the window
    function _redeemWindow(Frame frame, uint256 at) private returns (uint256 paid, uint256 next) {
        uint256 least;
        uint256 batches;
        (least, batches, next) = frame.window(at);
        Class class = _classes[frame.class()];
        if (block.timestamp > class.expiry()) revert Expired(class.expiry());
        if (block.timestamp < class.validFrom()) revert TooEarly(class.validFrom());
        _markClaimed(frame);

        Purse purse = _deposits[frame.issuer()];
        // What the batches are worth together, and what of it the deposit may pay.
        uint256 owed = 0;
        // Counts of at most 255 batches of 255 winners, and their face values of 128 bits: nothing overflows.
        unchecked {
            for (; batches != 0; --batches) {
                uint256 winners;
                address signer;
                (winners, signer, next) = frame.batch(next, class.winProbability());
                uint256 worth = winners * class.face();
                owed += worth;
                // A signer beside the deposit, or the issuer itself, needs no look.
                if (PurseLibrary.tagOf(signer) != purse.tag() && signer != frame.issuer()) {
                    worth = _clear(frame, class, purse, paid, signer, worth);
                }
                paid += worth;
            }
            if (paid > purse.amount()) paid = purse.amount();
            least *= class.face();
        }
        _deposits[frame.issuer()] = purse.sub(paid);

        uint256 covered = paid;
        if (paid < owed) {
            // slither-disable-next-line reentrancy-events
            (uint256 fromReserve, uint256 fromStake) = _cover(frame, owed - paid);
            paid += fromReserve;
            covered = paid + fromStake;
        }
        if (covered < least) revert TooLittle(covered, least);
        emit Redeemed(frame.issuer(), frame.recipient(), frame.series(), covered);
    }

    /// @dev Sets the window's bit, before anything is paid.
    function _markClaimed(Frame frame) private {
        uint256 series = frame.series();
        mapping(uint256 word => uint256) storage words = _claimed[frame.issuer()][frame.recipient()];
        uint256 word = words[series >> 8];
        uint256 bit = 1 << (series & 0xff);
        if (word & bit != 0) revert WindowClaimed(frame.issuer(), series);
        words[series >> 8] = word | bit;
    }

    /// @dev Looks up a signer that is not beside the deposit.
    /// @param purse the deposit before the window
    /// @param taken what earlier batches of the window take from it
    /// @param worth what this batch would take
    /// @return how much of that the deposit may pay
    function _clear(Frame frame, Class class, Purse purse, uint256 taken, address signer, uint256 worth)
        private
        returns (uint256)
    {
        Signer memory found = _signers[frame.issuer()][signer];
        if (found.lastExpiry == 0) revert SignerUnknown(signer);
        if (class.expiry() > found.lastExpiry) revert SignerRevoked(signer);
        if (found.cap == NO_CAP) return worth;
        mapping(uint256 epoch => uint128) storage spents = _spent[frame.issuer()][signer];
        uint256 epoch = _classEpochs[frame.class()];
        uint256 spent = spents[epoch];
        uint256 room = found.cap > spent ? found.cap - spent : 0;
        // What the deposit does not have does not count against the limit.
        uint256 balance = purse.amount() > taken ? purse.amount() - taken : 0;
        if (room > balance) room = balance;
        if (worth > room) worth = room;
        // No more than the limit or what it was before, which have 128 bits.
        spents[epoch] = uint128(spent + worth);
        return worth;
    }

    /// @dev Takes what the deposit did not pay from the reserve, then from the stake.
    function _cover(Frame frame, uint256 missing) private returns (uint256 fromReserve, uint256 fromStake) {
        Reserve storage reserve = _reserves[frame.issuer()][frame.recipient()];
        fromReserve = reserve.balance;
        if (fromReserve > missing) fromReserve = missing;
        if (fromReserve != 0) {
            reserve.balance -= uint128(fromReserve);
            missing -= fromReserve;
        }
        if (missing != 0) {
            // slither-disable-next-line calls-loop,reentrancy-events
            fromStake =
                registry.cover(frame.issuer(), frame.recipient(), _classEpochs[frame.class()], missing);
        }
        emit Shortfall(frame.issuer(), frame.recipient(), frame.series(), fromReserve, fromStake);
    }

    /// @inheritdoc IEscrow
    function isClaimed(address issuer, address recipient, uint32 window)
        external
        view
        override
        returns (bool)
    {
        return (_claimed[issuer][recipient][window >> 8] >> (window & 0xff)) & 1 != 0;
    }

    /// @inheritdoc IEscrow
    function claimedWindows(address issuer, address recipient, uint256 word)
        external
        view
        override
        returns (uint256)
    {
        return _claimed[issuer][recipient][word];
    }

    /// @inheritdoc IEscrow
    function guaranteeOf(address issuer, address recipient) external view override returns (uint256) {
        Reserve memory reserve = _reserves[issuer][recipient];
        // slither-disable-next-line incorrect-equality
        uint256 lasting = reserve.from == 0 ? reserve.balance : 0;
        return lasting + registry.shareOf(issuer, recipient, registry.currentEpoch());
    }

    // ------------------------------------------------------------------------------------------------------- constants

    /// @inheritdoc IEscrow
    function token() external view override returns (address) {
        return address(_token);
    }

    /// @inheritdoc IEscrow
    function domainSeparator() public view override returns (bytes32) {
        // A chain that splits off gets another id, and signatures of this one are worth nothing there.
        return block.chainid == _chainId ? _domainSeparator : _computeDomainSeparator();
    }

    function _computeDomainSeparator() private view returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN_TYPEHASH, keccak256("Tombola"), keccak256("1"), block.chainid, address(this))
        );
    }

    // --------------------------------------------------------------------------------------------------------- helpers

    /// @dev Takes tokens from the caller; some must arrive.
    function _receive(uint128 amount) private returns (uint128 received) {
        received = _pull(amount);
        // slither-disable-next-line incorrect-equality
        if (received == 0) revert NothingToMove();
    }

    function _noticeEnd() private view returns (uint64) {
        return uint64(block.timestamp) + noticePeriod;
    }

    function _requirePassed(uint64 from) private view {
        if (from == 0) revert NoNotice();
        if (block.timestamp < from) revert NoticeRuns(from);
    }
}
