//! `tombola account balance`.

use anyhow::Result;
use serde_json::{Value, json};
use tombola_chain::Units;
use tombola_chain::ops::{Balances, Reserve};
use tombola_node::account::OpenAccount;
use tombola_node::clock::unix_now;
use tombola_node::membership::current_view;
use tombola_protocol::payment::EpochPrices;
use tombola_tickets::Address;

use super::place::Place;
use super::{Said, when};

/// A mix node's own account at a gateway.
struct LoopAccount {
    account: Address,
    gateway: Address,
    reserve: u128,
}

pub(super) async fn show(place: &Place, account: &OpenAccount) -> Result<Said> {
    let (operator, contracts, own) = (&account.operator, &account.contracts, account.own);
    let balances = operator.balances(contracts, own).await?;
    let key = operator.balances(contracts, account.key()).await?;
    let start = account.config().start_block;
    let reserves = operator.reserves(contracts, own, start).await?;
    let (redeemer, payout) = operator.roles(contracts, own).await?;
    let loops = loop_accounts(place, account).await?;
    let now = operator.chain_time().await?;
    let json = json!({
        "account": own.to_string(),
        "key": account.key().to_string(),
        "redeemer": redeemer.to_string(),
        "payout": payout.to_string(),
        "token": {
            "address": contracts.token.to_string(),
            "symbol": account.units.symbol(),
            "decimals": account.units.decimals(),
        },
        "escrow": contracts.escrow.to_string(),
        "gas": { "wei": key.wei.to_string() },
        "tokens": key.tokens.to_string(),
        "deposit": deposit(&balances),
        "credit": {
            "total": (balances.credits.saturating_add(balances.stake_credits)).to_string(),
            "from_claims": balances.credits.to_string(),
            "from_stakes": balances.stake_credits.to_string(),
        },
        "reserves": reserves.iter().map(|reserve| of_reserve(place, reserve)).collect::<Vec<_>>(),
        "stake": (balances.stake > 0).then(|| json!({
            "amount": balances.stake.to_string(),
            "leaves_at": some(balances.stake_leaves_at),
        })),
        "loop_accounts": loops.iter().map(|one| json!({
            "account": one.account.to_string(),
            "recipient": one.gateway.to_string(),
            "reserve": one.reserve.to_string(),
        })).collect::<Vec<_>>(),
    });
    Ok(Said {
        lines: lines(place, account, &balances, &key, (&reserves, &loops), (redeemer, payout), now),
        json,
    })
}

fn lines(
    place: &Place,
    account: &OpenAccount,
    balances: &Balances,
    key: &Balances,
    (reserves, loops): (&[Reserve], &[LoopAccount]),
    (redeemer, payout): (Address, Address),
    now: u64,
) -> Vec<String> {
    let units = &account.units;
    let row = |name: &str, value: String| format!("{name:<10} {value}");
    let mut lines = vec![row("account", account.own.to_string())];
    if !account.is_own_key() {
        lines.push(row("key", account.key().to_string()));
    }
    lines.push(row("gas", Units::ether().show(key.wei)));
    lines.push(row("tokens", units.show(key.tokens)));
    let free = balances.deposit.saturating_sub(balances.unlocking);
    lines.push(row("deposit", units.show(free)));
    if balances.unlocking > 0 {
        let due = when(balances.unlocks_at, now);
        lines.push(row("", format!("{} under notice, may leave {due}", units.show(balances.unlocking))));
    }
    lines.push(row("credit", units.show(balances.credits.saturating_add(balances.stake_credits))));
    for Reserve { recipient, balance, leaves_at } in reserves {
        let notice = match leaves_at {
            0 => String::new(),
            due => format!(", under notice, may leave {}", when(*due, now)),
        };
        lines
            .push(row("reserve", format!("{} for {}{notice}", units.show(*balance), place.name(*recipient))));
    }
    for LoopAccount { account, gateway, reserve } in loops {
        let to = place.name(*gateway);
        lines.push(row("loops", format!("{} in the reserve of {account} for {to}", units.show(*reserve))));
    }
    if balances.stake > 0 {
        let leaves = match balances.stake_leaves_at {
            0 => String::new(),
            due => format!(", may leave {}", when(due, now)),
        };
        lines.push(row("stake", format!("{}{leaves}", units.show(balances.stake))));
    }
    if redeemer != account.own {
        lines.push(row("redeemer", redeemer.to_string()));
    }
    if payout != account.own {
        lines.push(row("payout", payout.to_string()));
    }
    lines
}

/// A time, if there is one.
pub(super) fn some(time: u64) -> Option<u64> {
    (time > 0).then_some(time)
}

/// A deposit, for programs.
pub(super) fn deposit(balances: &Balances) -> Value {
    json!({
        "total": balances.deposit.to_string(),
        "free": balances.deposit.saturating_sub(balances.unlocking).to_string(),
        "under_notice": balances.unlocking.to_string(),
        "leaves_at": some(balances.unlocks_at),
    })
}

/// A reserve, for programs.
pub(super) fn of_reserve(place: &Place, reserve: &Reserve) -> Value {
    json!({
        "recipient": reserve.recipient.to_string(),
        "node": place.node_of(reserve.recipient).map(|identity| identity.to_string()),
        "amount": reserve.balance.to_string(),
        "under_notice": reserve.leaves_at > 0,
        "leaves_at": some(reserve.leaves_at),
    })
}

/// The accounts from which a mix node pays for its loops in this epoch.
async fn loop_accounts(place: &Place, account: &OpenAccount) -> Result<Vec<LoopAccount>> {
    let (Some(secret), Ok(view)) =
        (place.secret()?, current_view(std::path::Path::new("the document"), &place.network))
    else {
        return Ok(Vec::new());
    };
    let identity = tombola_link::LinkSecret::from_seed(*secret.expose()).identity();
    let node = view.epoch().index_of(&identity).and_then(|index| view.epoch().node(index));
    let is_mix = node.is_some_and(|node| matches!(node.role, tombola_topology::Role::Mix { .. }));
    if !is_mix || EpochPrices::of(&view).is_none() || unix_now() > view.epoch().valid_until().0 {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (gateway, from) in tombola_mixnode::paying_accounts(&view, secret.expose()) {
        let node = view.gateway(&gateway).and_then(|index| view.epoch().node(index));
        let Some(to) = node.and_then(|node| node.account) else { continue };
        let to = Address::from(to.0);
        let (reserve, _) = account.operator.reserve(&account.contracts, from, to).await?;
        found.push(LoopAccount { account: from, gateway: to, reserve });
    }
    Ok(found)
}
