// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Where nodes stake, so that their recipients can rely on them
/// @notice Amounts are in the token's smallest unit, points in time in Unix seconds. An account's stake is divided into
/// as many slices as there are epochs whose tickets can be claimed at one time. Of the slice of an epoch one half is
/// divided among the nodes that were active in it, equally, and the other is the penalty for issuing more than one has.
interface IRegistry {
    /// @notice What a node does.
    enum Role {
        None,
        Mix,
        Gateway
    }

    /// @notice A member.
    struct Node {
        /// What was staked.
        uint128 stake;
        /// The first epoch in which it is active.
        uint32 activeFrom;
        /// The first epoch in which it is not active any more; the greatest value while it has not left.
        uint32 activeUntil;
        /// When what is left of the stake may be withdrawn; 0 while the node has not left.
        uint56 releaseAt;
        Role role;
        /// What is left of the stake.
        uint128 left;
        /// The ed25519 key that authenticates its links. Nobody proves here that it is theirs: the network document must.
        bytes32 identity;
    }

    // ------------------------------------------------------------------------------------------------- what goes wrong

    /// @notice The constructor's periods do not fit together.
    error InvalidPeriods();
    /// @notice Only the escrow may do this.
    error NotEscrow();
    /// @notice The caller may not do this for this account.
    error NotAllowed();
    /// @notice The account is a member already, or has not withdrawn what was left of its stake.
    error AlreadyJoined();
    /// @notice The account is no member.
    error NotJoined();
    /// @notice The account has left already.
    error AlreadyLeft();
    /// @notice A role is needed.
    error InvalidRole();
    /// @notice Less arrived than a node must stake.
    error StakeTooSmall(uint256 received, uint256 least);
    /// @notice The stake may be withdrawn at this time.
    error NoticeRuns(uint256 until);
    /// @notice There is nothing to withdraw.
    error NothingToMove();

    // ---------------------------------------------------------------------------------------------------- what happened

    /// @notice A node is active from that epoch on.
    event Joined(address indexed account, Role role, bytes32 identity, uint256 stake, uint32 activeFrom);
    /// @notice A node is not active from that epoch on, and may withdraw its stake at that time.
    event Left(address indexed account, uint32 activeUntil, uint256 releaseAt);
    /// @notice A node issued more than it had in this epoch: so much of its stake was burned. It is barred from the next
    /// epoch, and until it has withdrawn and joined again.
    event Penalised(address indexed issuer, uint32 indexed epoch, uint256 burned);
    /// @notice A recipient got this from its share of an issuer's stake.
    event ShareDrawn(address indexed issuer, address indexed recipient, uint32 indexed epoch, uint256 amount);
    /// @notice What was left of a stake was withdrawn.
    event StakeWithdrawn(address indexed account, uint256 amount);
    /// @notice Credits were withdrawn.
    event CreditsWithdrawn(address indexed account, uint256 amount);

    // ------------------------------------------------------------------------------------------------------ membership

    /// @notice Makes the caller a node, active from the next epoch on.
    /// @param identity the ed25519 key that authenticates its links
    /// @param amount what is taken from the caller; what arrives must be at least `minStake`
    function join(Role role, bytes32 identity, uint128 amount) external;

    /// @notice Ends the caller's membership with the current epoch. The stake stays until all tickets of that epoch have
    /// expired, and a margin longer.
    function leave() external;

    /// @notice Pays out what is left of the caller's stake, to its payout address.
    /// @return amount what left
    function withdrawStake() external returns (uint128 amount);

    /// @notice Pays out all credits to the account's payout address. The account, its redeemer and its payout address
    /// may call this.
    /// @return amount what left
    function withdrawCredits(address account) external returns (uint128 amount);

    // ---------------------------------------------------------------------------------------------------------- claims

    /// @notice Stands in for an issuer that cannot pay: penalises it, once for each epoch, and credits the recipient up
    /// to what is left of its share. Does nothing unless the issuer was active in the epoch. Only the escrow may call it.
    /// @param amount what the issuer could not pay
    /// @return paid what was credited
    function cover(address issuer, address recipient, uint32 epoch, uint256 amount)
        external
        returns (uint128 paid);

    // ----------------------------------------------------------------------------------------------------------- views

    /// @notice A member; all zero if the account is none.
    function nodeOf(address account) external view returns (Node memory);

    /// @notice Whether an account is active in an epoch that is not later than the next.
    function isActive(address account, uint32 epoch) external view returns (bool);

    /// @notice How many nodes are active in an epoch that is not later than the next.
    function activeNodes(uint32 epoch) external view returns (uint256);

    /// @notice What of its share of an issuer's stake a recipient can still draw for an epoch.
    function shareOf(address issuer, address recipient, uint32 epoch) external view returns (uint128);

    /// @notice What a recipient has drawn of it.
    function drawnOf(address issuer, address recipient, uint32 epoch) external view returns (uint128);

    /// @notice What an issuer's penalty for one epoch is.
    function penaltyOf(address issuer) external view returns (uint128);

    /// @notice Whether an issuer was penalised for an epoch.
    function isPenalised(address issuer, uint32 epoch) external view returns (bool);

    /// @notice What stakes have paid an account and it has not withdrawn.
    function creditOf(address account) external view returns (uint128);

    /// @notice What was burned: it stays here for ever and belongs to nobody.
    function burned() external view returns (uint256);

    /// @notice The number of the epoch in which a time falls; 0 before the genesis.
    function epochAt(uint256 time) external view returns (uint32);

    /// @notice The number of the current epoch.
    function currentEpoch() external view returns (uint32);

    /// @notice The token in which nodes stake.
    function token() external view returns (address);

    /// @notice The contract that created this one.
    function escrow() external view returns (address);

    /// @notice When epoch 0 began.
    function genesis() external view returns (uint64);

    /// @notice Seconds in an epoch.
    function epochLength() external view returns (uint32);

    /// @notice Between the end of a node's last epoch and the release of its stake, in seconds.
    function noticePeriod() external view returns (uint32);

    /// @notice What a node must stake at least.
    function minStake() external view returns (uint128);

    /// @notice Into how many slices a stake is divided.
    function slices() external view returns (uint32);
}
