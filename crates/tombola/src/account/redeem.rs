//! `tombola account redeem`.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
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
    let done = redeem::redeem(account, &folder, secret.expose(), patience).await?;
    let balances = account.operator.balances(&account.contracts, account.own).await?;
    let units = &account.units;
    let mut lines = vec![
        format!("redeemed  {} in {} windows", units.show(done.sum()), done.paid.len()),
        format!("credit    {}", units.show(balances.credits)),
    ];
    lines.extend(done.left.iter().map(|(window, why)| {
        let issuer = place.name(window.issuer);
        format!("left: window {} of {issuer}, {} winners: {why}", window.window.0, window.winners)
    }));
    let paid = done.paid.iter().map(|settled| {
        let (issuer, window) = (settled.issuer.to_string(), settled.window.0);
        json!({ "issuer": issuer, "window": window, "amount": settled.amount.to_string() })
    });
    let left = done.left.iter().map(|(window, why)| {
        let (issuer, number) = (window.issuer.to_string(), window.window.0);
        json!({ "issuer": issuer, "window": number, "winners": window.winners, "reason": why })
    });
    let json = json!({
        "redeemed": { "windows": done.paid.len(), "amount": done.sum().to_string() },
        "paid": paid.collect::<Vec<_>>(),
        "left": left.collect::<Vec<_>>(),
        "credit": balances.credits.to_string(),
    });
    Ok(Said { lines, json })
}
