//! `tombola account deposit`.

use anyhow::{Context, Result, bail};
use serde_json::json;
use tombola_chain::ops::Reserve;
use tombola_node::account::OpenAccount;

use super::place::{Owner, Place};
use super::{Said, Unit, balance, explain, nothing_waits};

/// Its flags.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// How much, such as 1.5.
    amount: String,
    /// Into the reserve for this recipient: an address, a node's identity, or, for a client, "gateway".
    #[arg(long, value_name = "RECIPIENT")]
    reserve: Option<String>,
    /// What the amount is written in.
    #[arg(long, value_enum, default_value_t)]
    unit: Unit,
}

pub(super) async fn run(place: &Place, account: &OpenAccount, flags: &Flags) -> Result<Said> {
    let (operator, contracts, units) = (&account.operator, &account.contracts, &account.units);
    let (own, key) = (account.own, account.key());
    let amount = flags.unit.parse(units, &flags.amount)?;
    let recipient = flags.reserve.as_deref().map(|text| place.recipient(text)).transpose()?;
    if recipient == Some(own) {
        bail!("{own} is this account itself: a reserve is for somebody else");
    }
    let have = operator.balances(contracts, key).await?;
    if u128::try_from(have.tokens).is_ok_and(|tokens| tokens < amount) {
        bail!("{key} has {}, and {} are needed", units.show(have.tokens), units.show(amount));
    }
    if have.wei.is_zero() {
        bail!("{key} has no money of the chain's own to pay for gas: send it some");
    }
    nothing_waits(account).await?;
    operator.allow(contracts, contracts.escrow, amount).await.map_err(|error| explain(error, key))?;
    let Some(recipient) = recipient else {
        let arrived = operator.deposit(contracts, own, amount).await.map_err(|error| explain(error, key))?;
        let balances = operator.balances(contracts, own).await?;
        let mut lines = vec![
            format!("deposited {}", units.show(arrived)),
            format!("deposit    {}", units.show(balances.deposit.saturating_sub(balances.unlocking))),
        ];
        if matches!(place.owner, Owner::Client(_)) {
            lines.push("a gateway relies on a client's reserve only: use --reserve gateway".to_owned());
        }
        let json = json!({ "deposited": arrived.to_string(), "deposit": balance::deposit(&balances) });
        return Ok(Said { lines, json });
    };
    let (_, notice) = operator.reserve(contracts, own, recipient).await?;
    // Only the account itself opens a reserve, and so takes back its notice; anybody adds to one.
    let arrived = if account.is_own_key() {
        operator.open_reserve(contracts, recipient, amount).await
    } else if notice > 0 {
        bail!("the reserve for {recipient} is under notice, which only the key of {own} takes back")
    } else {
        operator.fund_reserve(contracts, own, recipient, amount).await
    };
    let arrived = arrived.map_err(|error| explain(error, key)).context("the reserve")?;
    let (balance, leaves_at) = operator.reserve(contracts, own, recipient).await?;
    let to = place.name(recipient);
    let mut lines = vec![
        format!("deposited {}", units.show(arrived)),
        format!("reserve    {} for {to}", units.show(balance)),
    ];
    if notice > 0 {
        lines.push("the notice for this reserve is taken back".to_owned());
    }
    let reserve = balance::of_reserve(place, &Reserve { recipient, balance, leaves_at });
    Ok(Said { lines, json: json!({ "deposited": arrived.to_string(), "reserve": reserve }) })
}
