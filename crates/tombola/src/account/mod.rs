//! `tombola account`: what a client or a node has on the chain, and what its owner does with it.
//!
//! Keys come from the keystore of the section `[payment]`, nothing else. What is printed is for people, in the token's units, or
//! with `--json` for programs, in the smallest unit, as decimal strings. Every transaction is waited for until it is final.

mod balance;
mod deposit;
mod earnings;
mod place;
mod redeem;
mod withdraw;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tombola_chain::ops::OpsError;
use tombola_chain::{LedgerError, Refusal, Units};
use tombola_node::account::OpenAccount;
use tombola_node::entry::{RunFlags, print_line};
use tombola_node::shutdown::Shutdown;
use tombola_tickets::Address;
use tombola_topology::duration;

use place::Place;

/// Its flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The account of the client in this folder.
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "config")]
    home: Option<PathBuf>,
    /// The account of the mix node or gateway with this configuration file.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print one JSON object; amounts are decimal strings in the smallest unit.
    #[arg(long, global = true)]
    json: bool,
    /// How long to wait for the next news of a transaction.
    #[arg(long, value_name = "DURATION", global = true, default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    run: RunFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what the account has: money for gas, tokens, deposit, credit, reserves, stake.
    Balance,
    /// Put tokens into the deposit, which serves all next hops, or into the reserve for one recipient.
    Deposit(deposit::Flags),
    /// Take money out: credit at once; deposit and reserves in two steps, since they leave only after notice.
    Withdraw(withdraw::Flags),
    /// Show what was won, what waits, and what was redeemed; also while the node runs.
    Earnings(earnings::Flags),
    /// Claim everything that can be claimed, at once. For a node that is stopped: one that runs does it by itself.
    Redeem,
}

/// What amounts are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Unit {
    /// The token, with its decimals.
    #[default]
    Token,
    /// The token's smallest unit.
    Smallest,
}

impl Unit {
    fn parse(self, units: &Units, text: &str) -> Result<u128> {
        let amount = match self {
            Self::Token => units.parse(text),
            Self::Smallest => Units::smallest().parse(text),
        }
        .context("the amount")?;
        if amount == 0 {
            bail!("the amount is 0: there is nothing to do");
        }
        Ok(amount)
    }
}

/// What a command says: to people, line by line, or to programs.
struct Said {
    lines: Vec<String>,
    json: Value,
}

/// Runs one command.
///
/// # Errors
/// Each says what is wrong and what to do.
pub fn run(args: &Args) -> Result<()> {
    args.run.init_logging()?;
    let home = args.home.clone().or_else(|| {
        let found = std::env::var_os("TOMBOLA_HOME").map(PathBuf::from);
        found.filter(|_| args.config.is_none())
    });
    let place = match (&args.config, home) {
        (Some(config), _) => Place::of_node(config)?,
        (None, Some(home)) => Place::of_client(&home)?,
        (None, None) => {
            bail!(
                "whose account? name a client's folder with --home, or a node's configuration file with --config"
            )
        }
    };
    let said = args.run.runtime(2)?.block_on(async {
        let ended = Shutdown::new();
        if args.run.exit_with_stdin {
            ended.on_stdin_closed()?;
        }
        tokio::select! {
            cause = ended.triggered() => bail!("{cause}; what was sent may still be executed: look at `balance`"),
            said = act(args, &place) => said,
        }
    })?;
    if args.json {
        print_line(said.json);
    } else {
        said.lines.iter().for_each(print_line);
    }
    Ok(())
}

async fn act(args: &Args, place: &Place) -> Result<Said> {
    let account = place.open(args.timeout).await?;
    match &args.command {
        Command::Balance => balance::show(place, &account).await,
        Command::Deposit(flags) => deposit::run(place, &account, flags).await,
        Command::Withdraw(flags) => withdraw::run(place, &account, flags).await,
        Command::Earnings(flags) => earnings::show(place, &account, flags).await,
        Command::Redeem => redeem::run(place, &account, args.timeout).await,
    }
}

/// Nothing of this key may be under way: it might be what is about to be done.
async fn nothing_waits(account: &OpenAccount) -> Result<()> {
    if account.operator.is_waiting().await? {
        bail!(
            "a transaction of {} is in no block yet, perhaps one of this command that was interrupted: wait until it is, look at \
             `balance`, and then try again",
            account.key()
        );
    }
    Ok(())
}

/// What an operator is to do where the chain only says what it lacks.
fn explain(error: OpsError, key: Address) -> anyhow::Error {
    let poor = matches!(
        error,
        OpsError::Ledger { source: LedgerError::Transaction { reason: Refusal::Funds, .. }, .. }
    );
    let error = anyhow::Error::from(error);
    if poor {
        error.context(format!("{key} cannot pay for gas: send it some of the chain's own money"))
    } else {
        error
    }
}

/// When something is due, for people: `now` is the chain's time.
fn when(due: u64, now: u64) -> String {
    let date = tombola_node::logging::utc(due);
    match due.checked_sub(now) {
        None | Some(0) => format!("{date}, which is now"),
        Some(seconds) => {
            let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
            match (days, hours) {
                (0, 0) => format!("{date}, in {minutes} min"),
                (0, _) => format!("{date}, in {hours} h {minutes} min"),
                _ => format!("{date}, in {days} d {hours} h"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_words() {
        assert_eq!(when(86_400, 86_400), "1970-01-02T00:00:00Z, which is now");
        assert_eq!(when(86_400, 90_000), "1970-01-02T00:00:00Z, which is now");
        assert_eq!(when(86_400, 86_000), "1970-01-02T00:00:00Z, in 6 min");
        assert_eq!(when(86_400, 0), "1970-01-02T00:00:00Z, in 1 d 0 h");
        assert_eq!(when(86_400, 7200 + 60), "1970-01-02T00:00:00Z, in 21 h 59 min");
    }

    #[test]
    fn amounts_are_read_in_the_unit_that_is_named() {
        let units = Units::new(6, "T");
        assert_eq!(Unit::Token.parse(&units, "1.5").unwrap(), 1_500_000);
        assert_eq!(Unit::Smallest.parse(&units, "15").unwrap(), 15);
        assert!(Unit::Smallest.parse(&units, "1.5").is_err() && Unit::Token.parse(&units, "0.0").is_err());
    }
}
