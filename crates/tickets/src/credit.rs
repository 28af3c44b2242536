//! How long a recipient works for an issuer before it is paid.

use crate::merkle::MAX_TICKETS;

/// Tickets for which a recipient works before they are signed: four batches.
///
/// A batch is signed when it is full, so one of them always waits for tickets. Only the others cover the time from a packet's
/// departure until its batch is with the recipient: acknowledgement, disk, batch, disk. With a credit of two batches, that time
/// must be less than 256 packets take: 0.05 s at 5000 packets a second on a link, and a busy disk takes longer.
pub const MOST_UNSIGNED: usize = 4 * MAX_TICKETS;

/// What an issuer guarantees to a recipient, and what the recipient has at risk with it; all links and epochs between
/// the two share one. In the smallest unit of the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    guaranteed: u128,
    unpaid: u128,
    open: u128,
    void: u128,
}

impl Credit {
    /// Its reserve for the recipient and the recipient's share of its stake, as the chain says. What is under notice does
    /// not count.
    pub const fn set_guaranteed(&mut self, guaranteed: u128) {
        self.guaranteed = guaranteed;
    }

    /// What is guaranteed.
    #[must_use]
    pub const fn guaranteed(&self) -> u128 {
        self.guaranteed
    }

    /// What is at risk: winners that are not paid, what tickets are worth on average that are not in a batch or not
    /// opened, and lists that the issuer lost.
    #[must_use]
    pub const fn at_risk(&self) -> u128 {
        self.unpaid.saturating_add(self.open).saturating_add(self.void)
    }

    /// Whether one more ticket may be worked for: the next might win `face_value`.
    #[must_use]
    pub const fn allows(&self, face_value: u128) -> bool {
        self.at_risk().saturating_add(face_value) <= self.guaranteed
    }

    /// How many tickets may be worked for that are worth `value` each on average, and `face_value` if they win.
    #[must_use]
    pub fn room(&self, face_value: u128, value: u128) -> u64 {
        let least = self.at_risk().saturating_add(face_value);
        let Some(left) = self.guaranteed.checked_sub(least) else { return 0 };
        let more = left.checked_div(value).unwrap_or(u128::MAX);
        u64::try_from(more).map_or(u64::MAX, |more| more.saturating_add(1))
    }

    pub(crate) const fn open(&mut self, value: u128) {
        self.open = self.open.saturating_add(value);
    }

    /// A ticket was opened or given up.
    pub(crate) const fn close(&mut self, value: u128) {
        self.open = self.open.saturating_sub(value);
    }

    pub(crate) const fn won(&mut self, value: u128) {
        self.unpaid = self.unpaid.saturating_add(value);
    }

    /// Winners were paid, or cannot be any more.
    pub(crate) const fn settled(&mut self, value: u128) {
        self.unpaid = self.unpaid.saturating_sub(value);
    }

    /// What was void of a class is not held against the issuer any more: the class has expired.
    pub(crate) const fn lapse(&mut self, value: u128) {
        self.void = self.void.saturating_sub(value);
    }

    /// A list was void: what it was worth is held against the issuer, until its class expires.
    pub(crate) const fn void(&mut self, value: u128) {
        self.close(value);
        self.void = self.void.saturating_add(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_ticket_might_win() {
        let mut credit = Credit::default();
        assert!(!credit.allows(1), "nothing is guaranteed");
        credit.set_guaranteed(100);
        assert!(credit.allows(100) && !credit.allows(101));
        credit.open(30);
        credit.won(20);
        assert!(credit.allows(50) && !credit.allows(51));
        credit.void(30);
        assert_eq!(credit.at_risk(), 50, "a void list is not forgotten");
        credit.settled(20);
        assert_eq!(credit.at_risk(), 30);
        credit.won(u128::MAX);
        assert!(!credit.allows(0));
    }

    #[test]
    fn as_many_tickets_as_there_is_room_for_are_allowed_one_by_one() {
        for guaranteed in 0..200 {
            let mut credit = Credit::default();
            credit.set_guaranteed(guaranteed);
            let room = credit.room(50, 7);
            let mut taken = 0;
            while credit.allows(50) {
                credit.open(7);
                taken += 1;
            }
            assert_eq!(room, taken, "{guaranteed}");
        }
        assert_eq!(Credit { guaranteed: 1, ..Credit::default() }.room(1, 0), u64::MAX);
    }
}
