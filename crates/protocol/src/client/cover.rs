//! Cover that is built ahead, at constant effort.
//!
//! How much of it is built, and when, follows from the ticks of the clocks alone, whatever they carried: a batch for each
//! [`BATCH`] of them. What was not needed, because messages took its place, is thrown away. So the time that building cover
//! takes says nothing about whether there were messages, and none of it is spent between a tick and its packet. The time of a
//! client in all does: messages are built besides.

use std::collections::VecDeque;
use std::sync::Arc;

use tombola_mixing::Rng;
use tombola_sphinx::Path;

use crate::packet::{End, FirstLink, PacketBuilder, Prepared, Wanted};
use crate::payload::payload_type;
use crate::view::SendViews;

/// Packets for which registers have room at best: so many are built for as many ticks.
const BATCH: usize = 8;
/// Of what was built for earlier ticks so many may be left when the next batch is due. 24 kB with that.
const MARGIN: usize = 2;

/// Cover that ends at a random gateway.
pub(super) struct Cover {
    /// Draws routes and content; apart from what the builder draws, so that what is built does not depend on how many
    /// packets this processor builds at a time.
    routes: PacketBuilder,
    builder: PacketBuilder,
    ready: VecDeque<Prepared>,
    effort: Effort,
}

/// How much is to be built, and of that how much is kept.
#[derive(Debug)]
struct Effort {
    /// Since the last batch was due.
    ticks: usize,
    /// Packets that are due to be built.
    due: usize,
}

impl Effort {
    /// A batch is due at once; the second one comes early by the margin.
    const BEGIN: Self = Self { ticks: MARGIN, due: BATCH };
    /// Packets that are kept.
    const KEPT: usize = BATCH + MARGIN;

    fn tick(&mut self) {
        self.ticks += 1;
        if self.ticks >= BATCH {
            self.ticks = 0;
            self.due = (self.due + BATCH).min(Self::KEPT);
        }
    }

    /// How many packets are to be built now, where so many at a time share registers.
    fn next(&mut self, together: usize) -> usize {
        let count = self.due.min(together);
        self.due -= count;
        count
    }
}

impl Cover {
    pub(super) fn new(mut rng: Rng) -> Self {
        let (routes, builder) = (PacketBuilder::new(rng.fork()), PacketBuilder::new(rng.fork()));
        Self { routes, builder, ready: VecDeque::with_capacity(Effort::KEPT), effort: Effort::BEGIN }
    }

    /// A tick, which may take a packet or not.
    pub(super) fn tick(&mut self) {
        self.effort.tick();
    }

    /// A packet. Only where there was no time to build any ahead it is built now.
    pub(super) fn take(&mut self, views: &SendViews) -> Prepared {
        if self.ready.is_empty() {
            self.build(views, 1);
        }
        self.ready.pop_front().expect("one was built if there was none")
    }

    /// Builds as many packets as share registers, if some are due. Returns whether it did.
    pub(super) fn work(&mut self, views: &SendViews) -> bool {
        let count = self.effort.next(Path::best().lanes());
        if count > 0 {
            self.build(views, count);
        }
        let over = self.ready.len().saturating_sub(Effort::KEPT);
        self.ready.drain(..over);
        count > 0
    }

    /// What was built is of no use any more.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.effort = Effort::BEGIN;
    }

    fn build(&mut self, views: &SendViews, count: usize) {
        let drawn: Vec<_> = (0..count)
            .map(|_| {
                let view = Arc::clone(views.draw(self.routes.rng()));
                let mixes = view.draw_route(self.routes.rng());
                let end = End::Node(view.draw_gateway(self.routes.rng()));
                let identifier = self.routes.identifier();
                (view, mixes, end, identifier, self.routes.filler(payload_type::COVER))
            })
            .collect();
        let wanted: Vec<_> = drawn
            .iter()
            .map(|(view, mixes, end, identifier, plaintext)| Wanted {
                view,
                mixes,
                end,
                identifier: *identifier,
                plaintext,
            })
            .collect();
        self.ready.extend(self.builder.build_batch(FirstLink::FromClient, &wanted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is built after each tick, if there is time for all of it, and how many packets are ready then.
    fn effort(together: usize, is_taken: impl Fn(usize) -> bool) -> Vec<usize> {
        let (mut effort, mut ready) = (Effort::BEGIN, 0);
        let work = |effort: &mut Effort, ready: &mut usize| {
            let built: usize =
                core::iter::from_fn(|| Some(effort.next(together)).filter(|count| *count > 0)).sum();
            *ready = (*ready + built).min(Effort::KEPT);
            built
        };
        let mut built = vec![work(&mut effort, &mut ready)];
        for tick in 0..5 * BATCH {
            effort.tick();
            if is_taken(tick) {
                assert!(ready > 0, "tick {tick} has to wait until a packet is built");
                ready -= 1;
            }
            built.push(work(&mut effort, &mut ready));
        }
        built
    }

    #[test]
    fn what_is_built_follows_ticks_and_not_what_they_carried() {
        let all = effort(8, |_| true);
        assert!(all.iter().all(|built| [0, BATCH].contains(built)), "{all:?}");
        assert_eq!(all.iter().sum::<usize>(), 6 * BATCH);
        for together in [1, 4, 8] {
            assert_eq!(effort(together, |_| false), all, "{together} at a time");
            assert_eq!(effort(together, |tick| tick % 3 == 0), all, "{together} at a time");
        }
    }

    #[test]
    fn a_batch_that_is_late_by_a_tick_holds_up_none() {
        let (mut effort, mut ready) = (Effort::BEGIN, 0);
        let mut late = 0;
        for tick in 0..5 * BATCH {
            ready += core::mem::take(&mut late);
            late = core::iter::from_fn(|| Some(effort.next(8)).filter(|count| *count > 0)).sum();
            if tick == 0 {
                ready += core::mem::take(&mut late);
            }
            effort.tick();
            assert!(ready > 0, "tick {tick}");
            ready -= 1;
        }
    }
}
