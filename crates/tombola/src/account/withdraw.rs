//! `tombola account withdraw`: credit at once, deposit and reserves in two steps.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tombola_node::account::OpenAccount;
use tombola_tickets::Address;

use super::place::{Place, address};
use super::{Said, Unit, balance, explain, nothing_waits, when};

/// Its flags. Without any it withdraws the credit.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// So much of the deposit, all of it without an amount. The first call gives notice, one after the notice takes it.
    #[arg(long, value_name = "AMOUNT", num_args = 0..=1, default_missing_value = "all", group = "what")]
    deposit: Option<String>,
    /// The whole reserve for this recipient: an address, a node's identity, or, for a client, "gateway". The first call gives
    /// notice, one after the notice takes it.
    #[arg(long, value_name = "RECIPIENT", group = "what")]
    reserve: Option<String>,
    /// So many of the tokens that the key itself has, all without an amount; needs --to.
    #[arg(long, value_name = "AMOUNT", num_args = 0..=1, default_missing_value = "all", group = "what", requires = "to")]
    tokens: Option<String>,
    /// Where the money goes; default: where the account's money goes when it leaves (itself, if it has named nobody).
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// Take the notice for the deposit back.
    #[arg(long, requires = "deposit")]
    cancel: bool,
    /// What the amount is written in.
    #[arg(long, value_enum, default_value_t)]
    unit: Unit,
}

pub(super) async fn run(place: &Place, account: &OpenAccount, flags: &Flags) -> Result<Said> {
    let to = flags.to.as_deref().map(address).transpose()?;
    if to == Some(Address::ZERO) {
        bail!("--to is the zero address, from which nothing comes back");
    }
    nothing_waits(account).await?;
    if let Some(amount) = &flags.tokens {
        return tokens(account, amount, flags.unit, to).await;
    }
    let way = Way::find(account, to).await?;
    if let Some(amount) = &flags.deposit {
        own_key(account, "its deposit")?;
        return if flags.cancel {
            cancel(account).await
        } else {
            deposit(account, amount, flags.unit, way).await
        };
    }
    if let Some(recipient) = &flags.reserve {
        own_key(account, "its reserves")?;
        return reserve(place, account, recipient, way).await;
    }
    credit(account, way).await
}

fn own_key(account: &OpenAccount, what: &str) -> Result<()> {
    if !account.is_own_key() {
        bail!(
            "only the key of {} itself withdraws {what}; the keystore has the key of {}",
            account.own,
            account.key()
        );
    }
    Ok(())
}

/// How money leaves: the contracts send it to the account's payout address; from there it is sent on, if that is ours.
struct Way {
    payout: Address,
    on: Option<Address>,
}

impl Way {
    async fn find(account: &OpenAccount, to: Option<Address>) -> Result<Self> {
        let (_, payout) = account.operator.roles(&account.contracts, account.own).await?;
        let on = to.filter(|to| *to != payout);
        if let Some(to) = on
            && payout != account.key()
        {
            bail!(
                "money of this account leaves to {payout}, which it has named for that, and not to {to}: leave --to out, or name another \
                 address from the account"
            );
        }
        Ok(Self { payout, on })
    }

    fn end(&self) -> Address {
        self.on.unwrap_or(self.payout)
    }

    /// Sends on what has arrived, and says how much that is: of a token with fees it is less than has left.
    async fn go(&self, account: &OpenAccount, before: u128, left: u128) -> Result<u128> {
        let Some(to) = self.on else { return Ok(left) };
        let (operator, key) = (&account.operator, account.key());
        let now = held(account).await?;
        let amount = now.saturating_sub(before).min(left);
        tracing::info!("{} have left to {key}; sending them on", account.units.show(amount));
        let sent = operator.transfer(&account.contracts, to, amount).await;
        sent.map_err(|error| {
            explain(error, key).context(format!(
                "{} are with {key} and were not sent on to {to}: repeat that with withdraw --tokens",
                account.units.show(amount)
            ))
        })?;
        Ok(amount)
    }
}

/// Tokens that the key has.
async fn held(account: &OpenAccount) -> Result<u128> {
    let balances = account.operator.balances(&account.contracts, account.key()).await?;
    Ok(u128::try_from(balances.tokens).unwrap_or(u128::MAX))
}

fn taken(account: &OpenAccount, what: &str, amount: u128, to: Address, rest: Value) -> Said {
    let lines = vec![format!("withdrawn {} of the {what}, to {to}", account.units.show(amount))];
    let mut json = json!({ "step": "taken", "amount": amount.to_string(), "to": to.to_string() });
    json[what] = rest;
    Said { lines, json }
}

fn noticed(account: &OpenAccount, step: &str, amount: u128, due: u64, now: u64) -> Said {
    let amount_shown = account.units.show(amount);
    let due_shown = when(due, now);
    let line = match step {
        "notice" => {
            format!("notice given: {amount_shown} may leave {due_shown}; then call this again to take it")
        }
        _ => format!("under notice: {amount_shown} may leave {due_shown}; call this again then"),
    };
    let json = json!({ "step": step, "amount": amount.to_string(), "due": due });
    Said { lines: vec![line], json }
}

async fn credit(account: &OpenAccount, way: Way) -> Result<Said> {
    let (operator, contracts, own, key) = (&account.operator, &account.contracts, account.own, account.key());
    let balances = operator.balances(contracts, own).await?;
    if balances.credits == 0 && balances.stake_credits == 0 {
        bail!("there is no credit to withdraw");
    }
    let before = held(account).await?;
    let mut left = 0_u128;
    if balances.credits > 0 {
        left = operator.withdraw_credits(contracts, own).await.map_err(|error| explain(error, key))?;
    }
    if balances.stake_credits > 0 {
        let more = operator.withdraw_stake_credits(contracts, own).await;
        left = left.saturating_add(more.map_err(|error| explain(error, key))?);
    }
    let amount = way.go(account, before, left).await?;
    let after = operator.balances(contracts, own).await?;
    let rest = after.credits.saturating_add(after.stake_credits);
    Ok(taken(account, "credit", amount, way.end(), json!({ "total": rest.to_string() })))
}

async fn deposit(account: &OpenAccount, amount: &str, unit: Unit, way: Way) -> Result<Said> {
    let (operator, contracts, units) = (&account.operator, &account.contracts, &account.units);
    let (own, key) = (account.own, account.key());
    let balances = operator.balances(contracts, own).await?;
    let now = operator.chain_time().await?;
    let wanted = match amount {
        "all" => None,
        text => Some(unit.parse(units, text)?),
    };
    if balances.unlocking > 0 {
        if let Some(wanted) = wanted
            && wanted != balances.unlocking
        {
            bail!(
                "{} are under notice, not {}: withdraw those, or take the notice back with --deposit --cancel",
                units.show(balances.unlocking),
                units.show(wanted)
            );
        }
        if now < balances.unlocks_at {
            return Ok(noticed(account, "waiting", balances.unlocking, balances.unlocks_at, now));
        }
        let before = held(account).await?;
        let left = operator.withdraw_deposit(contracts).await.map_err(|error| explain(error, key))?;
        let amount = way.go(account, before, left).await?;
        let after = operator.balances(contracts, own).await?;
        return Ok(taken(account, "deposit", amount, way.end(), balance::deposit(&after)));
    }
    let wanted = wanted.unwrap_or(balances.deposit);
    if wanted > balances.deposit || wanted == 0 {
        bail!("the deposit has {}, and {} are asked for", units.show(balances.deposit), units.show(wanted));
    }
    operator.request_unlock(contracts, wanted).await.map_err(|error| explain(error, key))?;
    let after = operator.balances(contracts, own).await?;
    Ok(noticed(account, "notice", wanted, after.unlocks_at, operator.chain_time().await?))
}

async fn cancel(account: &OpenAccount) -> Result<Said> {
    let (operator, contracts, own) = (&account.operator, &account.contracts, account.own);
    if operator.balances(contracts, own).await?.unlocking == 0 {
        bail!("nothing of the deposit is under notice");
    }
    operator.request_unlock(contracts, 0).await.map_err(|error| explain(error, account.key()))?;
    let balances = operator.balances(contracts, own).await?;
    let lines =
        vec![format!("the notice is taken back; deposit    {}", account.units.show(balances.deposit))];
    Ok(Said { lines, json: json!({ "step": "cancelled", "deposit": balance::deposit(&balances) }) })
}

async fn reserve(place: &Place, account: &OpenAccount, recipient: &str, way: Way) -> Result<Said> {
    let (operator, contracts, own, key) = (&account.operator, &account.contracts, account.own, account.key());
    let recipient = place.recipient(recipient)?;
    let (amount, due) = operator.reserve(contracts, own, recipient).await?;
    if amount == 0 {
        bail!("there is no reserve for {}", place.name(recipient));
    }
    let now = operator.chain_time().await?;
    if due == 0 {
        operator.close_reserve(contracts, recipient).await.map_err(|error| explain(error, key))?;
        let (_, due) = operator.reserve(contracts, own, recipient).await?;
        return Ok(noticed(account, "notice", amount, due, operator.chain_time().await?));
    }
    if now < due {
        return Ok(noticed(account, "waiting", amount, due, now));
    }
    let before = held(account).await?;
    let left = operator.withdraw_reserve(contracts, recipient).await.map_err(|error| explain(error, key))?;
    let amount = way.go(account, before, left).await?;
    Ok(taken(account, "reserve", amount, way.end(), json!({ "recipient": recipient.to_string() })))
}

async fn tokens(account: &OpenAccount, amount: &str, unit: Unit, to: Option<Address>) -> Result<Said> {
    let (units, key) = (&account.units, account.key());
    let Some(to) = to.filter(|to| *to != key) else { bail!("--to is the key's own address: they are there") };
    let have = held(account).await?;
    let amount = match amount {
        "all" => have,
        text => unit.parse(units, text)?,
    };
    if amount > have || amount == 0 {
        bail!("{key} has {}, and {} are asked for", units.show(have), units.show(amount));
    }
    let sent = account.operator.transfer(&account.contracts, to, amount).await;
    sent.map_err(|error| explain(error, key))?;
    let rest = held(account).await?.to_string();
    Ok(taken(account, "tokens", amount, to, json!(rest)))
}
