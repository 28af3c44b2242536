//! `tombola account redeem`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tombola_chain::watcher::Settled;
use tombola_node::account::OpenAccount;
use tombola_node::data::{DataError, DataFolder};
use tombola_node::redeem;

use super::Said;
use super::place::{Owner, Place};

pub(super) async fn run(place: &Place, account: &OpenAccount, patience: Duration) -> Result<Said> {
    let (Owner::Node { data, .. }, Some(secret)) = (&place.owner, place.secret()?) else {
        bail!("a client earns nothing, so there is nothing to redeem");
    };
    if !data.exists() {
        bail!("{}: there is no such folder: this node has never run", data.display());
    }
    let folder = match DataFolder::open(data) {
        Ok(folder) => folder,
        Err(DataError::InUse(path)) => bail!(
            "the node runs ({} is in use) and redeems by itself, as `redeem_spread` says: stop it to claim everything at once; \
             `earnings` shows what waits",
            path.display()
        ),
        Err(error) => return Err(error.into()),
    };
    // What the node, or an earlier call, has sent and did not see become final.
    let start = account.config().start_block;
    let (earlier, _) = account.operator.redemptions(&account.contracts, account.own, start).await?;
    let earlier: BTreeSet<_> = earlier.iter().map(|one| (one.issuer, one.window)).collect();
    let done = redeem::redeem(account, &folder, secret.expose(), patience).await?;
    let is_earlier = |settled: &&Settled| earlier.contains(&(settled.issuer, settled.window));
    let (before, now): (Vec<_>, Vec<_>) = done.paid.iter().partition(is_earlier);
    let sum = |of: &[&Settled]| of.iter().fold(0, |sum: u128, one| sum.saturating_add(one.amount));
    let balances = account.operator.balances(&account.contracts, account.own).await?;
    let units = &account.units;
    let mut lines = vec![
        format!("redeemed  {} in {} windows", units.show(sum(&now)), now.len()),
        format!("credit    {}", units.show(balances.credits)),
    ];
    if !before.is_empty() {
        let sum = units.show(sum(&before));
        lines.push(format!("settled   {sum} in {} windows, which had been claimed before", before.len()));
    }
    lines.extend(done.left.iter().map(|(window, why)| {
        let issuer = place.name(window.issuer);
        format!("left: window {} of {issuer}, {} winners: {why}", window.window.0, window.winners)
    }));
    let of = |settled: &[&Settled]| {
        let windows = settled.iter().map(|one| {
            let (issuer, window) = (one.issuer.to_string(), one.window.0);
            json!({ "issuer": issuer, "window": window, "amount": one.amount.to_string() })
        });
        json!({ "amount": sum(settled).to_string(), "windows": windows.collect::<Vec<_>>() })
    };
    let left = done.left.iter().map(|(window, why)| {
        let (issuer, number) = (window.issuer.to_string(), window.window.0);
        json!({ "issuer": issuer, "window": number, "winners": window.winners, "reason": why })
    });
    let json = json!({
        "redeemed": of(&now),
        "redeemed_before": of(&before),
        "left": left.collect::<Vec<_>>(),
        "credit": balances.credits.to_string(),
    });
    Ok(Said { lines, json })
}
