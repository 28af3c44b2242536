//! What a paid network was worth: every node's own books beside the chain's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tombola_chain::ops::Audit;
use tombola_node::metrics::TICKETS_TOTAL;
pub use tombola_node::settled::Settled;
use tombola_tickets::Address;

use super::network::{LocalError, LocalNetwork};
use super::node::NodeInfo;
use super::scrape;

/// How long nodes may take until everything was claimed and paid: windows end after a minute at most, are claimed after the
/// longest delay, and the chain takes some seconds. On a machine that has much else to do all of it takes longer.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long nodes may take to earn enough for luck to even out. On a machine with time to spare it takes some ten seconds.
const EARNING: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(50);

/// The part `tickets` of the report: all nodes' books and the chain's. Amounts are in the smallest unit of the token.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tickets {
    /// Tickets for which nodes hold a signature.
    pub issued: u64,
    /// Of these: opened.
    pub opened: u64,
    /// Of these: winners.
    pub won: u64,
    /// Of these: paid on the chain.
    pub redeemed: u64,
    /// Of these: not paid.
    pub lost: u64,
    /// What claims have paid, as the chain says.
    #[serde(serialize_with = "decimal::serialize")]
    pub paid: u128,
    /// The face values of all winners, as the nodes say.
    #[serde(serialize_with = "decimal::serialize")]
    pub expected_paid: u128,
    /// All that was ever deposited: deposits, reserves, stakes.
    #[serde(serialize_with = "decimal::serialize")]
    pub deposits_before: u128,
    /// What is left of it.
    #[serde(serialize_with = "decimal::serialize")]
    pub deposits_after: u128,
    /// What has left the contracts.
    #[serde(serialize_with = "decimal::serialize")]
    pub withdrawn: u128,
    /// What was earned and has not left.
    #[serde(serialize_with = "decimal::serialize")]
    pub credited: u128,
    /// What each node has earned less what it has paid on, on the chain, by identity.
    pub fees_by_node: BTreeMap<String, String>,
    #[serde(skip)]
    rows: Vec<Row>,
    #[serde(skip)]
    conserved: bool,
    #[serde(skip)]
    ended_early: bool,
}

#[derive(Clone, Debug)]
struct Row {
    name: String,
    settled: Settled,
    earned: u128,
    spent: u128,
}

mod decimal {
    use serde::Serializer;

    pub(super) fn serialize<S: Serializer>(amount: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(amount)
    }
}

impl LocalNetwork {
    /// Waits until every node can expect so many wins, as its metrics say, or five minutes. Returns how many cannot by
    /// then; none, if it is interrupted.
    pub(super) fn wait_for_wins(
        &mut self,
        wins: u32,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<usize, LocalError> {
        let tickets = f64::from(wins) * f64::from(super::bank::ONE_IN);
        let deadline = Instant::now() + EARNING;
        while !interrupted() {
            self.supervise()?;
            let has = |node: &NodeInfo| {
                let samples = scrape::scrape(node.metrics).unwrap_or_default();
                let stages = scrape::by_label(&samples, TICKETS_TOTAL, "stage");
                stages.into_iter().any(|(stage, count)| stage == "opened" && count >= tickets)
            };
            let lacking = self.nodes().filter(|node| !has(node)).count();
            if lacking == 0 || Instant::now() >= deadline {
                return Ok(lacking);
            }
            std::thread::sleep(4 * PAUSE);
        }
        Ok(0)
    }

    /// Ends the earning: nodes send no packets of their own any more, claim what they have won, and wait until it was paid. `None`
    /// in a network without payment. Clients should be gone: what they send would be refused. What the network was worth
    /// is complete then; it earns nothing any more.
    ///
    /// # Errors
    /// A node has not come to an end in five minutes, or keeps ending before.
    pub fn wind_up(&mut self, interrupted: &dyn Fn() -> bool) -> Result<Option<Tickets>, LocalError> {
        if !self.is_paid() {
            return Ok(None);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut told: BTreeMap<String, u32> = BTreeMap::new();
        let mut settled: BTreeMap<String, Settled> = BTreeMap::new();
        loop {
            self.supervise()?;
            for (name, pid) in self.nodes().map(|node| (node.name.clone(), node.pid)).collect::<Vec<_>>() {
                // One that was started again since has forgotten that it was told.
                if told.insert(name, pid) != Some(pid) {
                    signal(pid);
                }
            }
            for (name, line) in self.lines() {
                if let Some(one) = Settled::of_line(&line) {
                    settled.insert(name, one);
                }
            }
            let waited_for = self.nodes().find(|node| !settled.contains_key(&node.name));
            let Some(late) = waited_for.map(|node| node.name.clone()) else { break };
            if interrupted() {
                return Err(LocalError::Interrupted);
            }
            if Instant::now() > deadline {
                return Err(self.late(&late, "has not got all its claims paid", PATIENCE));
            }
            std::thread::sleep(PAUSE);
        }
        let Some(bank) = self.bank() else { return Ok(None) };
        let audit = bank.till().audit()?;
        Ok(Some(Tickets::new(self, &settled, &audit)))
    }
}

/// Tells a process to wind up. One that is gone will be told when it is back.
fn signal(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::USR1);
    }
}

/// The worst of [`Tickets::problems`].
pub const NOT_CONSERVED: &str = "money is not conserved";

impl Tickets {
    fn new(network: &LocalNetwork, settled: &BTreeMap<String, Settled>, audit: &Audit) -> Self {
        let mut tickets = Self {
            paid: audit.earned.values().sum(),
            deposits_before: audit.deposited,
            deposits_after: audit.held + audit.burned,
            withdrawn: audit.withdrawn,
            credited: audit.credited,
            conserved: audit.is_conserved(),
            ..Self::default()
        };
        let nodes = network.network().epochs().first().into_iter().flat_map(|epoch| epoch.nodes());
        for (info, node) in network.nodes().zip(nodes) {
            let of = |sums: &BTreeMap<Address, u128>| {
                let account = node.account.map(|account| Address::from(account.0));
                account.and_then(|account| sums.get(&account).copied()).unwrap_or_default()
            };
            let (earned, spent) = (of(&audit.earned), of(&audit.spent));
            let fee = match earned.checked_sub(spent) {
                Some(fee) => fee.to_string(),
                None => format!("-{}", spent - earned),
            };
            tickets.fees_by_node.insert(node.identity.to_string(), fee);
            let settled = settled.get(&info.name).copied().unwrap_or_default();
            tickets.issued += settled.signed;
            tickets.opened += settled.opened;
            tickets.won += settled.won.tickets;
            tickets.redeemed += settled.paid.tickets;
            tickets.lost += settled.lost.tickets + settled.expired.tickets;
            tickets.expected_paid += settled.won.value;
            tickets.rows.push(Row { name: info.name.clone(), settled, earned, spent });
        }
        tickets
    }

    /// The network was told to end before each node could expect to have won: that one has not is no problem then.
    #[must_use]
    pub(super) fn ended_early(self) -> Self {
        Self { ended_early: true, ..self }
    }

    /// What went wrong, if anything did.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.lost > 0 {
            wrong.push(format!("{} winning tickets were not paid", self.lost));
        }
        if self.paid != self.expected_paid {
            wrong.push(format!("{} were paid for winners worth {}", self.paid, self.expected_paid));
        }
        if !self.conserved || self.deposits_before != self.deposits_after + self.withdrawn + self.credited {
            wrong.push(NOT_CONSERVED.to_owned());
        }
        for row in &self.rows {
            let unlucky = self.ended_early && row.settled.won.tickets == 0;
            if !unlucky && (row.settled.won.tickets == 0 || row.settled.paid.tickets == 0) {
                wrong.push(format!(
                    "{} has won {} tickets, and was paid for {}",
                    row.name, row.settled.won.tickets, row.settled.paid.tickets
                ));
            }
            if row.settled.paid.value != row.earned {
                wrong.push(format!(
                    "{} counts {} paid, the chain {}",
                    row.name, row.settled.paid.value, row.earned
                ));
            }
        }
        wrong
    }

    /// A table for people.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "\n  node         tickets    won   paid    earned tokens    paid on tokens       fees tokens\n",
        );
        for Row { name, settled, earned, spent } in &self.rows {
            let fee = match earned.checked_sub(*spent) {
                Some(fee) => tokens(fee),
                None => format!("-{}", tokens(spent - earned)),
            };
            let _ = writeln!(
                text,
                "  {name:<10} {:>9} {:>6} {:>6}  {:>15}  {:>16}  {fee:>16}",
                settled.opened,
                settled.won.tickets,
                settled.paid.tickets,
                tokens(*earned),
                tokens(*spent),
            );
        }
        let _ = writeln!(
            text,
            "\n  {} tickets were signed, {} opened, {} have won, {} were paid on the chain, {} lost. Paid {} tokens = expected {}.",
            self.issued,
            self.opened,
            self.won,
            self.redeemed,
            self.lost,
            tokens(self.paid),
            tokens(self.expected_paid),
        );
        let _ = writeln!(
            text,
            "  Deposits, reserves and stakes: {} tokens before = {} after + {} withdrawn + {} credited.",
            tokens(self.deposits_before),
            tokens(self.deposits_after),
            tokens(self.withdrawn),
            tokens(self.credited),
        );
        text
    }
}

/// An amount of the test token, which has 18 decimals, without the zeros at its end.
fn tokens(amount: u128) -> String {
    const ONE: u128 = 10u128.pow(18);
    let text = format!("{}.{:018}", amount / ONE, amount % ONE);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_wins_is_a_problem_unless_the_network_ended_early() {
        let row = Row { name: "mix 1.1".to_owned(), settled: Settled::default(), earned: 0, spent: 0 };
        let tickets = Tickets { rows: vec![row], conserved: true, ..Tickets::default() };
        assert_eq!(tickets.problems(), ["mix 1.1 has won 0 tickets, and was paid for 0"]);
        let mut early = tickets.ended_early();
        assert_eq!(early.problems(), [""; 0]);
        early.rows[0].settled.won.tickets = 1;
        assert_eq!(early.problems().len(), 1, "a winner that was not paid is a problem at any time");
    }

    #[test]
    fn amounts_are_exact() {
        assert_eq!(tokens(0), "0");
        assert_eq!(tokens(1), "0.000000000000000001");
        assert_eq!(tokens(1_500_000_000_000_000_000), "1.5");
        assert_eq!(tokens(1_000_000_000_000_000_000_000), "1000");
    }
}
