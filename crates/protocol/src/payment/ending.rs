//! The end of an account: what was won is claimed, and nothing follows.

use core::time::Duration;

use tombola_mixing::Time;

use super::{PaymentOutput, Payments};

/// Nothing has come for so long when an account that winds up ends its windows. Longer than an exponential delay ever
/// takes at each of three hops, but for one in a thousand.
const QUIET: Duration = Duration::from_secs(4);
/// It does not wait longer, whatever still comes.
const WINDING_UP: Duration = Duration::from_secs(60);

/// How far an account is that shall end.
#[derive(Clone, Copy, Debug)]
pub(super) enum WindingUp {
    /// It shall not. When the last packet came.
    No { last: Time },
    /// It waits until nothing comes any more.
    Quieting { since: Time, last: Time },
    /// No windows follow those that there are.
    Finishing,
    /// Everything was claimed and paid.
    Settled,
}

impl WindingUp {
    /// A packet came.
    pub(super) fn packet(&mut self, now: Time) {
        if let Self::No { last } | Self::Quieting { last, .. } = self {
            *last = now;
        }
    }

    /// Whether no windows follow.
    pub(super) fn ends_windows(self) -> bool {
        matches!(self, Self::Finishing | Self::Settled)
    }
}

impl Payments {
    /// The account shall end. When nothing comes any more, or after a minute, no windows follow those that there are, and what
    /// is won is claimed as soon as nothing can be added to it. Then [`PaymentOutput::Settled`] comes.
    pub fn wind_up(&mut self, now: Time) {
        if let WindingUp::No { last } = self.winding_up {
            self.winding_up = WindingUp::Quieting { since: now, last };
        }
    }

    pub(super) fn tend_winding_up(&mut self, now: Time) {
        match self.winding_up {
            WindingUp::Quieting { since, last } if now - last >= QUIET || now - since >= WINDING_UP => {
                self.finish();
            }
            WindingUp::Finishing if self.is_settled() => {
                self.winding_up = WindingUp::Settled;
                self.out.push_back(PaymentOutput::Settled(Box::new(self.books.ledger.sum())));
            }
            _ => {}
        }
    }

    /// No windows follow: what is won is claimed as soon as nothing can be added to it any more.
    pub fn finish(&mut self) {
        self.winding_up = WindingUp::Finishing;
        for earning in self.machines.earning.values_mut() {
            earning.finish_once(&self.books);
        }
        self.collect();
    }

    /// Whether nothing is left to be signed for us, to be opened, or to be claimed.
    pub fn is_settled(&self) -> bool {
        self.machines.earning.values().all(|earning| earning.recipient.is_settled())
    }
}
