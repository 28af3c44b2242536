//! `tombola account earnings`: what was won and waits, from the node's own files, and what was redeemed, from the chain's events.
//!
//! A node that runs has its purse locked, and says in a file what is in it; one that is stopped has a copy of its purse read,
//! so that it can be started meanwhile. What is not final yet is in both: then the chain counts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tombola_chain::ops::Redemption;
use tombola_node::account::OpenAccount;
use tombola_node::clock::unix_now;
use tombola_node::data::DataFolder;
use tombola_node::earnings;
use tombola_node::purse::{FILE, PurseFile};
use tombola_tickets::{Address, ClassNumber, KeptWindow, Restore, WindowNumber};

use super::Said;
use super::place::{Owner, Place};

/// Its flags.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// List every window, too.
    #[arg(long)]
    windows: bool,
}

/// Where what waits is known from.
struct Kept {
    state: &'static str,
    /// When it was so, in Unix seconds.
    written: u64,
    windows: Vec<KeptWindow>,
}

/// Windows, winners, and what they are worth.
#[derive(Clone, Copy, Default)]
struct Sum {
    windows: u64,
    winners: u64,
    amount: u128,
}

impl Sum {
    fn add(&mut self, winners: u32, amount: u128) {
        self.windows += 1;
        self.winners += u64::from(winners);
        self.amount = self.amount.saturating_add(amount);
    }

    fn merge(&mut self, other: Self) {
        self.windows += other.windows;
        self.winners += other.winners;
        self.amount = self.amount.saturating_add(other.amount);
    }

    fn json(self) -> Value {
        json!({ "windows": self.windows, "winners": self.winners, "amount": self.amount.to_string() })
    }
}

/// What came from one issuer.
#[derive(Default)]
struct Issuer {
    open: Sum,
    claimed: Sum,
    redeemed: Sum,
    windows: BTreeMap<WindowNumber, Value>,
}

impl Issuer {
    fn won(&self) -> u128 {
        [self.open, self.claimed, self.redeemed].iter().fold(0, |sum, one| sum.saturating_add(one.amount))
    }
}

pub(super) async fn show(place: &Place, account: &OpenAccount, flags: &Flags) -> Result<Said> {
    let (operator, contracts) = (&account.operator, &account.contracts);
    // Before the chain: what is claimed in between is in both, and not in neither.
    let kept = kept(place)?;
    let start = account.config().start_block;
    let (earned, spent) = operator.redemptions(contracts, account.own, start).await?;
    let mut issuers: BTreeMap<Address, Issuer> = BTreeMap::new();
    for Redemption { issuer, window, paid, block, .. } in &earned {
        let of = issuers.entry(*issuer).or_default();
        of.redeemed.add(0, *paid);
        let value =
            json!({ "window": window.0, "state": "redeemed", "amount": paid.to_string(), "block": block });
        of.windows.insert(*window, value);
    }
    let mut faces: BTreeMap<ClassNumber, Option<u128>> = BTreeMap::new();
    for window in &kept.windows {
        let of = issuers.entry(window.issuer).or_default();
        if of.windows.contains_key(&window.window) {
            continue;
        }
        if let Entry::Vacant(place) = faces.entry(window.class) {
            let class = operator.class(contracts, window.class).await?;
            place.insert(class.map(|class| class.face_value));
        }
        let face = faces.get(&window.class).copied().flatten().unwrap_or_default();
        let worth = face.saturating_mul(window.winners.into());
        let (sum, state) = if window.claimed { (&mut of.claimed, "claimed") } else { (&mut of.open, "open") };
        sum.add(window.winners, worth);
        let value = json!({
            "window": window.window.0, "state": state, "winners": window.winners, "amount": worth.to_string(),
        });
        of.windows.insert(window.window, value);
    }
    let mut paid_out: BTreeMap<Address, Sum> = BTreeMap::new();
    spent.iter().for_each(|one| paid_out.entry(one.recipient).or_default().add(0, one.paid));
    let credit = operator.balances(contracts, account.own).await?;
    let credit = credit.credits.saturating_add(credit.stake_credits);
    let report = Report { place, account, kept, issuers, paid_out, credit };
    Ok(Said { lines: report.lines(flags.windows), json: report.json() })
}

fn kept(place: &Place) -> Result<Kept> {
    let now = unix_now();
    let nothing = |state| Kept { state, written: now, windows: Vec::new() };
    let Owner::Node { data, .. } = &place.owner else { return Ok(nothing("client")) };
    if !data.exists() {
        return Ok(nothing("stopped"));
    }
    if !DataFolder::is_in_use(data)? {
        let path = data.join(FILE);
        if !path.exists() {
            return Ok(nothing("stopped"));
        }
        let kept = read_copy(&path);
        // Who was started meanwhile has written to what was copied.
        if !DataFolder::is_in_use(data)? {
            return Ok(Kept { state: "stopped", written: now, windows: kept?.won_windows() });
        }
    }
    let told = earnings::read(data)?;
    let (written, windows) = told.context(
        "the node has just started, or has no account, and has not said what it has won: try again in some seconds",
    )?;
    Ok(Kept { state: "running", written, windows })
}

/// Reads a purse without locking it.
fn read_copy(path: &Path) -> Result<Restore> {
    struct Removed(PathBuf);

    impl Drop for Removed {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    // Beside it, where the owner alone looks, and with its mode.
    let copy = Removed(path.with_extension(format!("{}.copy", std::process::id())));
    std::fs::copy(path, &copy.0).with_context(|| path.display().to_string())?;
    let (_, kept) = PurseFile::open(&copy.0)?;
    Ok(kept)
}

struct Report<'a> {
    place: &'a Place,
    account: &'a OpenAccount,
    kept: Kept,
    issuers: BTreeMap<Address, Issuer>,
    paid_out: BTreeMap<Address, Sum>,
    credit: u128,
}

impl Report<'_> {
    fn sum(&self, of: impl Fn(&Issuer) -> Sum) -> Sum {
        let mut sum = Sum::default();
        self.issuers.values().for_each(|issuer| sum.merge(of(issuer)));
        sum
    }

    fn paid(&self) -> Sum {
        let mut sum = Sum::default();
        self.paid_out.values().for_each(|one| sum.merge(*one));
        sum
    }

    fn won(&self) -> u128 {
        self.issuers.values().fold(0, |sum, issuer| sum.saturating_add(issuer.won()))
    }

    fn node(&self, account: Address) -> Option<String> {
        self.place.node_of(account).map(|identity| identity.to_string())
    }

    fn json(&self) -> Value {
        let issuers = self.issuers.iter().map(|(issuer, of)| {
            json!({
                "issuer": issuer.to_string(),
                "node": self.node(*issuer),
                "won": of.won().to_string(),
                "open": of.open.json(),
                "claimed": of.claimed.json(),
                "redeemed": { "windows": of.redeemed.windows, "amount": of.redeemed.amount.to_string() },
                "windows": of.windows.values().collect::<Vec<_>>(),
            })
        });
        let paid_out = self.paid_out.iter().map(|(recipient, sum)| {
            json!({
                "recipient": recipient.to_string(),
                "node": self.node(*recipient),
                "windows": sum.windows,
                "amount": sum.amount.to_string(),
            })
        });
        let (redeemed, paid) = (self.sum(|of| of.redeemed), self.paid());
        json!({
            "account": self.account.own.to_string(),
            "state": self.kept.state,
            "written": self.kept.written,
            "won": self.won().to_string(),
            "open": self.sum(|of| of.open).json(),
            "claimed": self.sum(|of| of.claimed).json(),
            "redeemed": { "windows": redeemed.windows, "amount": redeemed.amount.to_string() },
            "credit": self.credit.to_string(),
            "issuers": issuers.collect::<Vec<_>>(),
            "paid_out": {
                "windows": paid.windows,
                "amount": paid.amount.to_string(),
                "recipients": paid_out.collect::<Vec<_>>(),
            },
        })
    }

    fn lines(&self, windows: bool) -> Vec<String> {
        let units = &self.account.units;
        let row = |name: &str, sum: Sum, what: &str| {
            format!("{name:<10} {} in {} windows{what}", units.show(sum.amount), sum.windows)
        };
        let mut lines = Vec::new();
        if self.kept.state == "running" {
            let age = unix_now().saturating_sub(self.kept.written);
            lines.push(format!(
                "the node runs; what waits is as it said {age} s ago or has not changed since"
            ));
        }
        if self.kept.state != "client" {
            lines.push(format!("{:<10} {}", "won", units.show(self.won())));
            lines.push(row("open", self.sum(|of| of.open), " that go on"));
            lines.push(row("claimed", self.sum(|of| of.claimed), " that wait for the chain"));
            lines.push(row("redeemed", self.sum(|of| of.redeemed), ""));
            lines.push(format!("{:<10} {}", "credit", units.show(self.credit)));
        }
        lines.push(row("paid out", self.paid(), ""));
        for (issuer, of) in &self.issuers {
            lines.push(format!(
                "from {}: won {}, of that {} redeemed",
                self.place.name(*issuer),
                units.show(of.won()),
                units.show(of.redeemed.amount)
            ));
            if windows {
                lines.extend(of.windows.values().map(|window| self.window(window)));
            }
        }
        for (recipient, sum) in &self.paid_out {
            lines.push(format!("to {}: paid {}", self.place.name(*recipient), units.show(sum.amount)));
        }
        lines
    }

    fn window(&self, window: &Value) -> String {
        let amount = window["amount"].as_str().and_then(|text| text.parse::<u128>().ok()).unwrap_or_default();
        let state = window["state"].as_str().unwrap_or_default();
        let more = match (window["winners"].as_u64(), window["block"].as_u64()) {
            (Some(winners), _) => format!(", {winners} winners"),
            (_, Some(block)) => format!(", in block {block}"),
            _ => String::new(),
        };
        format!("  window {}: {state}, {}{more}", window["window"], self.account.units.show(amount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purse_is_read_without_being_locked_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        drop(PurseFile::open(&path).unwrap());
        assert!(read_copy(&path).unwrap().is_empty());
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names, [path]);
    }
}
