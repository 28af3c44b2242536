//! The contracts, as the ABI has them. What each function takes, refuses and reports is said in
//! `contracts/src/interfaces`; a test (`tests/suite/bindings.rs`) compares this file with the artefacts that are checked in.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::too_many_arguments,
    reason = "generated; the interfaces document it"
)]

use alloy_sol_types::sol;

sol! {
    /// Deposits, reserves, credits, keys, price classes, claims.
    #[derive(Debug, PartialEq, Eq)]
    contract Escrow {
        constructor(
            address token_,
            uint32 maxTicketLife_,
            uint32 noticePeriod_,
            uint64 genesis,
            uint32 epochLength,
            uint128 minStake
        );

        error InvalidPeriods();
        error NothingToMove();
        error NotAllowed();
        error NoNotice();
        error NoticeRuns(uint256 until);
        error InvalidKey();
        error SignerKnown(address signer);
        error SignerUnknown(address signer);
        error InvalidClass();
        error NoClassLeft();
        error NotRedeemer();
        error InvalidLength();
        error TooEarly(uint256 validFrom);
        error Expired(uint256 expiry);
        error WindowClaimed(address issuer, uint256 window);
        error SignerRevoked(address signer);
        error TooLittle(uint256 paid, uint256 least);
        error NothingClaimed();
        error BatchOrder(uint256 number);
        error TicketOrder(uint256 k);
        error RootMismatch(uint256 k);
        error InvalidSignature();
        error NoWin(uint256 k);
        error AmountOverflow();
        error ImplausibleTransfer();
        error ReentrancyGuardReentrantCall();
        error SafeERC20FailedOperation(address token);

        event Deposited(address indexed issuer, uint256 amount);
        event UnlockRequested(address indexed issuer, uint256 amount, uint256 from);
        event DepositWithdrawn(address indexed issuer, uint256 amount);
        event ReserveOpened(address indexed issuer, address indexed recipient);
        event ReserveFunded(address indexed issuer, address indexed recipient, uint256 amount);
        event ReserveClosing(address indexed issuer, address indexed recipient, uint256 from);
        event ReserveWithdrawn(address indexed issuer, address indexed recipient, uint256 amount);
        event CreditsWithdrawn(address indexed account, uint256 amount);
        event CreditsDeposited(address indexed account, uint256 amount);
        event RedeemerSet(address indexed recipient, address redeemer);
        event PayoutSet(address indexed account, address payout);
        event SignerAdded(address indexed issuer, address indexed signer, uint256 cap);
        event SignerCapped(address indexed issuer, address indexed signer, uint256 cap);
        event SignerRevocation(address indexed issuer, address indexed signer, uint256 lastExpiry);
        event ClassRegistered(
            uint32 indexed class,
            uint128 face,
            uint64 winProbability,
            uint32 validFrom,
            uint32 expiry,
            uint32 epoch
        );
        event Redeemed(address indexed issuer, address indexed recipient, uint256 window, uint256 paid);
        event Shortfall(
            address indexed issuer,
            address indexed recipient,
            uint256 window,
            uint256 fromReserve,
            uint256 fromStake
        );

        function deposit(address issuer, uint128 amount) external returns (uint128 received);
        function requestUnlock(uint128 amount) external;
        function withdrawDeposit() external returns (uint128 amount);
        function depositOf(address issuer)
            external view returns (uint128 balance, uint128 unlocking, uint64 from);
        function openReserve(address recipient, uint128 amount) external returns (uint128 received);
        function fundReserve(address issuer, address recipient, uint128 amount)
            external returns (uint128 received);
        function closeReserve(address recipient) external;
        function withdrawReserve(address recipient) external returns (uint128 amount);
        function reserveOf(address issuer, address recipient)
            external view returns (uint128 balance, uint64 from);
        function withdrawCredits(address account) external returns (uint128 amount);
        function depositCredits(uint128 amount) external;
        function creditOf(address account) external view returns (uint128);
        function setRedeemer(address redeemer) external;
        function setPayout(address payout) external;
        function addSigner(address signer, uint128 cap) external;
        function capSigner(address signer, uint128 cap) external;
        function revokeSigner(address signer) external;
        function redeemerOf(address recipient) external view returns (address);
        function payoutOf(address account) external view returns (address);
        function signerOf(address issuer, address signer)
            external view returns (uint64 lastExpiry, uint128 cap);
        function spentBy(address issuer, address signer, uint32 epoch) external view returns (uint128);
        function registerClass(uint128 face, uint64 winProbability, uint32 validFrom, uint32 expiry, uint32 epoch)
            external returns (uint32 class);
        function classCount() external view returns (uint256);
        function classOf(uint32 class)
            external view
            returns (uint128 face, uint64 winProbability, uint32 validFrom, uint32 expiry, uint32 epoch);
        function redeem(address recipient, bytes calldata claims) external;
        function isClaimed(address issuer, address recipient, uint32 window) external view returns (bool);
        function claimedWindows(address issuer, address recipient, uint256 word)
            external view returns (uint256);
        function guaranteeOf(address issuer, address recipient) external view returns (uint256);
        function token() external view returns (address);
        function registry() external view returns (address);
        function maxTicketLife() external view returns (uint32);
        function noticePeriod() external view returns (uint32);
        function domainSeparator() external view returns (bytes32);
    }
}

sol! {
    /// Stakes, roles, identity keys, epochs, shares of stakes, penalties.
    #[derive(Debug, PartialEq, Eq)]
    contract Registry {
        enum Role { None, Mix, Gateway }

        struct Node {
            uint128 stake;
            uint32 activeFrom;
            uint32 activeUntil;
            uint56 releaseAt;
            Role role;
            uint128 left;
            bytes32 identity;
        }

        error InvalidPeriods();
        error NotEscrow();
        error NotAllowed();
        error AlreadyJoined();
        error NotJoined();
        error AlreadyLeft();
        error InvalidRole();
        error StakeTooSmall(uint256 received, uint256 least);
        error NoticeRuns(uint256 until);
        error NothingToMove();
        error ImplausibleTransfer();
        error ReentrancyGuardReentrantCall();
        error SafeERC20FailedOperation(address token);
        error CheckpointUnorderedInsertion();

        event Joined(
            address indexed account,
            Role role,
            bytes32 identity,
            uint256 stake,
            uint32 activeFrom
        );
        event Left(address indexed account, uint32 activeUntil, uint256 releaseAt);
        event Penalised(address indexed issuer, uint32 indexed epoch, uint256 burned);
        event ShareDrawn(
            address indexed issuer,
            address indexed recipient,
            uint32 indexed epoch,
            uint256 amount
        );
        event StakeWithdrawn(address indexed account, uint256 amount);
        event CreditsWithdrawn(address indexed account, uint256 amount);

        function join(Role role, bytes32 identity, uint128 amount) external;
        function leave() external;
        function withdrawStake() external returns (uint128 amount);
        function withdrawCredits(address account) external returns (uint128 amount);
        function nodeOf(address account) external view returns (Node memory);
        function isActive(address account, uint32 epoch) external view returns (bool);
        function activeNodes(uint32 epoch) external view returns (uint256);
        function shareOf(address issuer, address recipient, uint32 epoch) external view returns (uint128);
        function drawnOf(address issuer, address recipient, uint32 epoch) external view returns (uint128);
        function penaltyOf(address issuer) external view returns (uint128);
        function isPenalised(address issuer, uint32 epoch) external view returns (bool);
        function creditOf(address account) external view returns (uint128);
        function burned() external view returns (uint256);
        function epochAt(uint256 time) external view returns (uint32);
        function currentEpoch() external view returns (uint32);
        function token() external view returns (address);
        function escrow() external view returns (address);
        function genesis() external view returns (uint64);
        function epochLength() external view returns (uint32);
        function noticePeriod() external view returns (uint32);
        function minStake() external view returns (uint128);
        function slices() external view returns (uint32);
    }
}

sol! {
    /// A worthless token that anybody mints.
    #[derive(Debug, PartialEq, Eq)]
    contract TestToken {
        constructor(uint8 decimals_);

        error ERC20InsufficientAllowance(address spender, uint256 allowance, uint256 needed);
        error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
        error ERC20InvalidApprover(address approver);
        error ERC20InvalidReceiver(address receiver);
        error ERC20InvalidSender(address sender);
        error ERC20InvalidSpender(address spender);

        event Transfer(address indexed from, address indexed to, uint256 value);
        event Approval(address indexed owner, address indexed spender, uint256 value);

        function mint(address to, uint256 amount) external;
        function approve(address spender, uint256 value) external returns (bool);
        function transfer(address to, uint256 value) external returns (bool);
        function allowance(address owner, address spender) external view returns (uint256);
        function balanceOf(address account) external view returns (uint256);
        function totalSupply() external view returns (uint256);
        function decimals() external view returns (uint8);
        function symbol() external view returns (string memory);
    }
}
