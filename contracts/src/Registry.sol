// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

import {IEscrow} from "./interfaces/IEscrow.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Vault} from "./Vault.sol";

/// @title Where nodes stake, so that their recipients can rely on them
/// @notice Created by the escrow, and called by it when an issuer cannot pay. Has no owner and cannot be paused.
///
/// Why stakes suffice: tickets of an epoch can be claimed from its beginning until less than a ticket's life after its
/// end, that is, in at most `slices` epochs. An issuer that falls short in one of them is not active from the next on,
/// so that from then on at most the tickets of `slices` epochs can be covered by its stake, and of each no more than one
/// slice, whoever claims what in which order.
contract Registry is IRegistry, Vault {
    using Checkpoints for Checkpoints.Trace224;

    uint32 private constant NOT_LEFT = type(uint32).max;

    /// @inheritdoc IRegistry
    address public immutable override escrow;
    /// @inheritdoc IRegistry
    uint64 public immutable override genesis;
    /// @inheritdoc IRegistry
    uint32 public immutable override epochLength;
    /// @inheritdoc IRegistry
    uint32 public immutable override noticePeriod;
    /// @inheritdoc IRegistry
    uint128 public immutable override minStake;
    /// @inheritdoc IRegistry
    uint32 public immutable override slices;

    /// @inheritdoc IRegistry
    uint256 public override burned;

    mapping(address account => Node) private _nodes;
    mapping(address account => uint128) private _credits;
    /// @dev How many nodes are active, from which epoch on. The last entry is for the next epoch at most.
    Checkpoints.Trace224 private _active;
    mapping(address issuer => mapping(uint256 epoch => bool)) private _penalised;
    mapping(address issuer => mapping(address recipient => mapping(uint256 epoch => uint128))) private _drawn;

    /// @param maxTicketLife seconds from a class's `validFrom` to its `expiry`, at most
    constructor(
        IERC20 token_,
        uint32 maxTicketLife,
        uint32 noticePeriod_,
        uint64 genesis_,
        uint32 epochLength_,
        uint128 minStake_
    ) Vault(token_) {
        if (epochLength_ == 0 || genesis_ > block.timestamp || noticePeriod_ <= maxTicketLife) {
            revert InvalidPeriods();
        }
        escrow = msg.sender;
        noticePeriod = noticePeriod_;
        genesis = genesis_;
        epochLength = epochLength_;
        minStake = minStake_;
        // The epochs in which tickets of one can be claimed: itself, and those that begin within a ticket's life.
        uint256 count = 1 + (uint256(maxTicketLife) + epochLength_ - 1) / epochLength_;
        if (count > type(uint32).max) revert InvalidPeriods();
        slices = uint32(count);
    }

    // ------------------------------------------------------------------------------------------------------ membership

    /// @inheritdoc IRegistry
    function join(Role role, bytes32 identity, uint128 amount) external override nonReentrant {
        if (role == Role.None) revert InvalidRole();
        if (_nodes[msg.sender].role != Role.None) revert AlreadyJoined();
        uint128 stake = _pull(amount);
        // slither-disable-next-line incorrect-equality
        if (stake == 0 || stake < minStake) revert StakeTooSmall(stake, minStake);
        uint32 activeFrom = currentEpoch() + 1;
        _nodes[msg.sender] = Node({
            stake: stake,
            activeFrom: activeFrom,
            activeUntil: NOT_LEFT,
            releaseAt: 0,
            role: role,
            left: stake,
            identity: identity
        });
        // slither-disable-next-line unused-return
        _active.push(activeFrom, _active.latest() + 1);
        emit Joined(msg.sender, role, identity, stake, activeFrom);
    }

    /// @inheritdoc IRegistry
    function leave() external override {
        Node storage node = _nodes[msg.sender];
        if (node.role == Role.None) revert NotJoined();
        if (node.activeUntil != NOT_LEFT) revert AlreadyLeft();
        _retire(msg.sender, node);
    }

    /// @inheritdoc IRegistry
    function withdrawStake() external override nonReentrant returns (uint128 amount) {
        Node memory node = _nodes[msg.sender];
        if (node.role == Role.None) revert NotJoined();
        if (node.releaseAt == 0 || block.timestamp < node.releaseAt) revert NoticeRuns(node.releaseAt);
        delete _nodes[msg.sender];
        amount = node.left;
        emit StakeWithdrawn(msg.sender, amount);
        _push(IEscrow(escrow).payoutOf(msg.sender), amount);
    }

    /// @inheritdoc IRegistry
    function withdrawCredits(address account) external override nonReentrant returns (uint128 amount) {
        address payout = IEscrow(escrow).payoutOf(account);
        if (
            msg.sender != account && msg.sender != payout && msg.sender != IEscrow(escrow).redeemerOf(account)
        ) {
            revert NotAllowed();
        }
        amount = _credits[account];
        if (amount == 0) revert NothingToMove();
        delete _credits[account];
        emit CreditsWithdrawn(account, amount);
        _push(payout, amount);
    }

    /// @dev Ends a membership that has not ended with the current epoch.
    function _retire(address account, Node storage node) private {
        uint32 next = currentEpoch() + 1;
        // The end of the current epoch, and the notice from there.
        uint256 releaseAt = uint256(genesis) + uint256(next) * epochLength + noticePeriod;
        node.activeUntil = next;
        node.releaseAt = uint56(releaseAt);
        // slither-disable-next-line unused-return
        _active.push(next, _active.latest() - 1);
        emit Left(account, next, releaseAt);
    }

    // ---------------------------------------------------------------------------------------------------------- claims

    /// @inheritdoc IRegistry
    function cover(address issuer, address recipient, uint32 epoch, uint256 amount)
        external
        override
        returns (uint128 paid)
    {
        if (msg.sender != escrow) revert NotEscrow();
        Node storage node = _nodes[issuer];
        if (!_wasActive(node, epoch)) return 0;

        if (!_penalised[issuer][epoch]) {
            _penalised[issuer][epoch] = true;
            uint128 penalty = _penalty(node);
            node.left -= penalty;
            burned += penalty;
            if (node.activeUntil == NOT_LEFT) _retire(issuer, node);
            emit Penalised(issuer, epoch, penalty);
        }

        paid = shareOf(issuer, recipient, epoch);
        // Less than `paid`, hence 128 bits.
        if (amount < paid) paid = uint128(amount);
        if (paid != 0) {
            _drawn[issuer][recipient][epoch] += paid;
            node.left -= paid;
            _credits[recipient] += paid;
            emit ShareDrawn(issuer, recipient, epoch, paid);
        }
    }

    // ----------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IRegistry
    function nodeOf(address account) external view override returns (Node memory) {
        return _nodes[account];
    }

    /// @inheritdoc IRegistry
    function isActive(address account, uint32 epoch) public view override returns (bool) {
        return _wasActive(_nodes[account], epoch);
    }

    /// @inheritdoc IRegistry
    function activeNodes(uint32 epoch) public view override returns (uint256) {
        return _active.upperLookupRecent(epoch);
    }

    /// @inheritdoc IRegistry
    function shareOf(address issuer, address recipient, uint32 epoch) public view override returns (uint128) {
        Node storage node = _nodes[issuer];
        if (!_wasActive(node, epoch) || !isActive(recipient, epoch)) return 0;
        // There is an active node: the issuer. No more than the stake, hence 128 bits.
        uint128 share = uint128((_slice(node) - _penalty(node)) / activeNodes(epoch));
        return share - _drawn[issuer][recipient][epoch];
    }

    /// @inheritdoc IRegistry
    function drawnOf(address issuer, address recipient, uint32 epoch)
        external
        view
        override
        returns (uint128)
    {
        return _drawn[issuer][recipient][epoch];
    }

    /// @inheritdoc IRegistry
    function penaltyOf(address issuer) external view override returns (uint128) {
        return _penalty(_nodes[issuer]);
    }

    /// @inheritdoc IRegistry
    function isPenalised(address issuer, uint32 epoch) external view override returns (bool) {
        return _penalised[issuer][epoch];
    }

    /// @inheritdoc IRegistry
    function creditOf(address account) external view override returns (uint128) {
        return _credits[account];
    }

    /// @inheritdoc IRegistry
    function epochAt(uint256 time) public view override returns (uint32) {
        if (time < genesis) return 0;
        uint256 epoch = (time - genesis) / epochLength;
        // The last two numbers stand for "never".
        return epoch < NOT_LEFT - 1 ? uint32(epoch) : NOT_LEFT - 2;
    }

    /// @inheritdoc IRegistry
    function currentEpoch() public view override returns (uint32) {
        return epochAt(block.timestamp);
    }

    /// @inheritdoc IRegistry
    function token() external view override returns (address) {
        return address(_token);
    }

    // --------------------------------------------------------------------------------------------------------- helpers

    function _wasActive(Node storage node, uint32 epoch) private view returns (bool) {
        return node.role != Role.None && node.activeFrom <= epoch && epoch < node.activeUntil;
    }

    function _slice(Node storage node) private view returns (uint128) {
        return node.stake / slices;
    }

    /// @dev Half of a slice.
    function _penalty(Node storage node) private view returns (uint128) {
        return _slice(node) / 2;
    }
}
