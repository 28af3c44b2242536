// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IRegistry} from "./IRegistry.sol";

/// @title Where issuers keep money for their hops, and recipients claim winning tickets
/// @notice Amounts are in the token's smallest unit, times in seconds, points in time in Unix seconds, epochs are the
/// registry's. An *account* is any address: it is an issuer, a recipient, or both. Formats are those of docs/payment.md.
interface IEscrow {
    // ------------------------------------------------------------------------------------------------- what goes wrong

    /// @notice The constructor's periods do not fit together: the notice must be longer than a ticket's life.
    error InvalidPeriods();
    /// @notice An amount of 0, or a transfer by which nothing arrived.
    error NothingToMove();
    /// @notice The caller may not do this for this account.
    error NotAllowed();
    /// @notice Nothing was announced that could be withdrawn.
    error NoNotice();
    /// @notice The notice has not passed; it does at this time.
    error NoticeRuns(uint256 until);
    /// @notice A key of which the last 16 bytes are zero.
    error InvalidKey();
    /// @notice This key signs for the issuer already, or did and was revoked.
    error SignerKnown(address signer);
    /// @notice This key does not sign for the issuer.
    error SignerUnknown(address signer);
    /// @notice A class of face value 0, of a win probability of 0 or more than 2^58, whose life is 0 or longer than
    /// `maxTicketLife`, or that is not valid from a time in its epoch on.
    error InvalidClass();
    /// @notice All 2^32 numbers are taken.
    error NoClassLeft();

    /// @notice The caller is not the recipient's redeemer.
    error NotRedeemer();
    /// @notice The claims are empty, end within a window, or go on after the last.
    error InvalidLength();
    /// @notice The class cannot be claimed before this time.
    error TooEarly(uint256 validFrom);
    /// @notice The class could be claimed until this time; 0 if it does not exist.
    error Expired(uint256 expiry);
    /// @notice This window was claimed before.
    error WindowClaimed(address issuer, uint256 window);
    /// @notice The signer was revoked, and this class expires too late to have been in use then.
    error SignerRevoked(address signer);
    /// @notice The issuer has less than the claim insists on.
    error TooLittle(uint256 paid, uint256 least);

    // ---------------------------------------------------------------------------------------------------- what happened

    /// @notice Money was added to an issuer's deposit.
    event Deposited(address indexed issuer, uint256 amount);
    /// @notice An issuer may withdraw so much of its deposit from that time on; an amount of 0 takes a notice back.
    event UnlockRequested(address indexed issuer, uint256 amount, uint256 from);
    /// @notice A part of a deposit left.
    event DepositWithdrawn(address indexed issuer, uint256 amount);
    /// @notice A reserve was opened, or opened again while it was about to close.
    event ReserveOpened(address indexed issuer, address indexed recipient);
    /// @notice Money was added to a reserve.
    event ReserveFunded(address indexed issuer, address indexed recipient, uint256 amount);
    /// @notice A reserve may be withdrawn from that time on.
    event ReserveClosing(address indexed issuer, address indexed recipient, uint256 from);
    /// @notice A reserve was withdrawn.
    event ReserveWithdrawn(address indexed issuer, address indexed recipient, uint256 amount);
    /// @notice Credits left.
    event CreditsWithdrawn(address indexed account, uint256 amount);
    /// @notice Credits became part of the account's own deposit.
    event CreditsDeposited(address indexed account, uint256 amount);
    /// @notice From now on this key redeems for the recipient; zero: the recipient itself.
    event RedeemerSet(address indexed recipient, address redeemer);
    /// @notice From now on what an account withdraws goes there; zero: to the account itself.
    event PayoutSet(address indexed account, address payout);
    /// @notice A key signs batches for an issuer; `cap` limits what the deposit pays for them in an epoch.
    event SignerAdded(address indexed issuer, address indexed signer, uint256 cap);
    /// @notice The limit of a key has changed.
    event SignerCapped(address indexed issuer, address indexed signer, uint256 cap);
    /// @notice A key's batches are void if their class expires after `lastExpiry`.
    event SignerRevocation(address indexed issuer, address indexed signer, uint256 lastExpiry);
    /// @notice A price class got its number.
    event ClassRegistered(
        uint32 indexed class,
        uint128 face,
        uint64 winProbability,
        uint32 validFrom,
        uint32 expiry,
        uint32 epoch
    );
    /// @notice A window was claimed, and so much was paid for it, from all sources together.
    event Redeemed(address indexed issuer, address indexed recipient, uint256 window, uint256 paid);
    /// @notice A deposit did not suffice for a window; this came from the reserve and from the stake.
    event Shortfall(
        address indexed issuer,
        address indexed recipient,
        uint256 window,
        uint256 fromReserve,
        uint256 fromStake
    );

    // -------------------------------------------------------------------------------------------------------- deposits

    /// @notice Adds to the deposit of an issuer, from which all its recipients are paid. Anybody may.
    /// @param amount what is taken from the caller; what arrives counts
    /// @return received what arrived
    function deposit(address issuer, uint128 amount) external returns (uint128 received);

    /// @notice Announces that the caller will withdraw `amount` of its deposit. Replaces an earlier notice, also if that
    /// has passed; 0 takes it back. The deposit pays until it is withdrawn.
    function requestUnlock(uint128 amount) external;

    /// @notice Pays out what was announced, or what is left of it, once the notice has passed.
    /// @return amount what left
    function withdrawDeposit() external returns (uint128 amount);

    /// @notice What an issuer has deposited.
    /// @return balance what claims can be paid from now
    /// @return unlocking how much of it is under notice: not there for tickets that expire after `from`
    /// @return from when that may leave; 0 without notice
    function depositOf(address issuer) external view returns (uint128 balance, uint128 unlocking, uint64 from);

    // -------------------------------------------------------------------------------------------------------- reserves

    /// @notice Opens a reserve of the caller for one recipient, and funds it. Takes back the notice of one that exists.
    /// @return received what arrived
    function openReserve(address recipient, uint128 amount) external returns (uint128 received);

    /// @notice Adds to a reserve. Anybody may; a notice goes on.
    /// @return received what arrived
    function fundReserve(address issuer, address recipient, uint128 amount)
        external
        returns (uint128 received);

    /// @notice Announces that the caller will withdraw its reserve for this recipient. It pays until then.
    function closeReserve(address recipient) external;

    /// @notice Pays out what is left of a reserve, once the notice has passed.
    /// @return amount what left
    function withdrawReserve(address recipient) external returns (uint128 amount);

    /// @notice What one issuer has set aside for one recipient.
    /// @return balance what this recipient's claims can be paid from
    /// @return from when it may leave; 0 without notice
    function reserveOf(address issuer, address recipient) external view returns (uint128 balance, uint64 from);

    // --------------------------------------------------------------------------------------------------------- credits

    /// @notice Pays out all credits to the account's payout address. The account, its redeemer and its payout address
    /// may call this.
    /// @return amount what left
    function withdrawCredits(address account) external returns (uint128 amount);

    /// @notice Moves credits of the caller into its own deposit.
    function depositCredits(uint128 amount) external;

    /// @notice What claims have earned an account and it has not withdrawn. The registry has further credits.
    function creditOf(address account) external view returns (uint128);

    // ------------------------------------------------------------------------------------------------------------ keys

    /// @notice Sets who may claim for the caller: one key, instead of the caller itself. Zero: the caller again.
    function setRedeemer(address redeemer) external;

    /// @notice Sets where deposits, reserves, credits and stake of the caller go when they leave. Zero: to the caller.
    function setPayout(address payout) external;

    /// @notice Lets a key sign batches for the caller.
    /// @param cap what the deposit pays at most for this key's batches of the classes of one epoch; the greatest value:
    /// no limit
    function addSigner(address signer, uint128 cap) external;

    /// @notice Changes a key's limit, at once. It protects the deposit only: reserves and stake are not limited.
    function capSigner(address signer, uint128 cap) external;

    /// @notice Revokes a key for good. Batches of classes that expire within `maxTicketLife` from now stay valid, since
    /// recipients may have accepted them; all others are void.
    function revokeSigner(address signer) external;

    /// @notice Who claims for a recipient.
    function redeemerOf(address recipient) external view returns (address);

    /// @notice Where money of an account goes when it leaves.
    function payoutOf(address account) external view returns (address);

    /// @notice Whether and how far a key signs for an issuer, apart from the issuer itself, which always does.
    /// @return lastExpiry batches are void if their class expires later; 0: no signer; the greatest value: not revoked
    /// @return cap the limit in an epoch; the greatest value: none
    function signerOf(address issuer, address signer) external view returns (uint64 lastExpiry, uint128 cap);

    /// @notice What the deposit has paid for this key's batches of classes of this epoch, while it had a limit.
    function spentBy(address issuer, address signer, uint32 epoch) external view returns (uint128);

    // --------------------------------------------------------------------------------------------------------- classes

    /// @notice Registers a price class. Anybody may; an issuer consents by signing its number.
    /// @param face what a winning ticket pays, at least 1
    /// @param winProbability as a fraction of 2^64; 1 to 2^58
    /// @param validFrom the first second at which tickets can be claimed, in the epoch `epoch`
    /// @param expiry the last second at which they can
    /// @param epoch that of the registry in which issuer and recipient must have been active for the stake to stand in
    /// @return class its number; numbers are given from 0 and never again
    function registerClass(uint128 face, uint64 winProbability, uint32 validFrom, uint32 expiry, uint32 epoch)
        external
        returns (uint32 class);

    /// @notice How many classes there are.
    function classCount() external view returns (uint256);

    /// @notice A class; all zero if there is none.
    function classOf(uint32 class)
        external
        view
        returns (uint128 face, uint64 winProbability, uint32 validFrom, uint32 expiry, uint32 epoch);

    // ---------------------------------------------------------------------------------------------------------- claims

    /// @notice Claims windows: checks every winner, pays each window's winners from the issuer's deposit, then its
    /// reserve for the recipient, then the recipient's share of its stake, and credits the sum to the recipient. What
    /// came from a stake is credited in the registry. Reverts as a whole if anything is not as it should be.
    /// @param recipient for whom; the caller must be its redeemer
    /// @param claims the windows, packed as in docs/payment.md
    function redeem(address recipient, bytes calldata claims) external;

    /// @notice Whether a window was claimed.
    function isClaimed(address issuer, address recipient, uint32 window) external view returns (bool);

    /// @notice Which of the windows from 256 * `word` on were claimed: the lowest bit for the first.
    function claimedWindows(address issuer, address recipient, uint256 word) external view returns (uint256);

    /// @notice What the recipient may rely on for tickets of the current epoch, whatever others claim: the reserve if it
    /// is not closing, and what is left of its share of the stake.
    function guaranteeOf(address issuer, address recipient) external view returns (uint256);

    // ------------------------------------------------------------------------------------------------------- constants

    /// @notice The token in which everything is paid.
    function token() external view returns (address);

    /// @notice Where nodes stake.
    function registry() external view returns (IRegistry);

    /// @notice From a class's `validFrom` to its `expiry`, at most; includes the time to claim. Seconds.
    function maxTicketLife() external view returns (uint32);

    /// @notice Between announcing that money leaves and its leaving; longer than `maxTicketLife`. Seconds.
    function noticePeriod() external view returns (uint32);

    /// @notice The EIP-712 domain separator on this chain.
    function domainSeparator() external view returns (bytes32);
}
