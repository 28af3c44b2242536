//! What is going to happen.

use std::collections::VecDeque;

use tombola_mixing::Time;

use crate::engine::EventQueue;
use crate::mixes::PacketId;

/// Something that comes up at an instant of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A schedule is due.
    Emit,
    /// A user is due.
    User,
    /// A mix's outbound loop is due.
    MixOut,
    /// A mix's inbound loop is due.
    MixIn,
    /// A packet reaches a mix, over a link whose delay was drawn.
    Arrive,
    /// A mix wants to be asked.
    Wake,
    /// A packet reaches its end, over a link whose delay was drawn.
    End,
    /// The observer wants to look.
    Sample,
}

/// A packet on a link, with all that its arrival needs: hardly any of a million packets is still in a processor's cache
/// then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// Which packet.
    pub(super) id: PacketId,
    /// Where it goes; [`Flight::END`] if it is on its last link.
    pub(super) mix: u32,
    /// How long it is to stay there, in nanoseconds.
    pub(super) delay: u64,
    /// What is tracked of it.
    pub(super) slot: u32,
}

impl Flight {
    /// In place of a mix.
    pub(super) const END: u32 = u32::MAX;
}

/// What comes up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// An event, and what it happens to.
    Event(Event, u32),
    /// A packet is over a link.
    Flight(Flight),
}

/// Events and packets on links, in the order of time; at the same instant, in the order in which they were pushed.
///
/// If all links take the same time, packets arrive in the order in which they set out: a line, which needs no sorting.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: EventQueue<Numbered>,
    line: VecDeque<(Time, u32, Flight)>,
    /// At the head of the line: how many were announced.
    announced: usize,
    pushed: u32,
}

/// An event with the lower bits of its number. Two that come up at the same instant, of which one was pushed 2^28 numbers
/// before the other, may change places; that is not random, either.
#[derive(Clone, Copy, Debug)]
struct Numbered {
    id: u32,
    event_and_number: u32,
}

const EVENTS: [Event; 8] = [
    Event::Emit,
    Event::User,
    Event::MixOut,
    Event::MixIn,
    Event::Arrive,
    Event::Wake,
    Event::End,
    Event::Sample,
];
const EVENT_BITS: u32 = EVENTS.len().ilog2();

/// Packets in the line that are announced together.
const FEW: usize = 16;

impl Numbered {
    fn event(self) -> Event {
        EVENTS[self.event_and_number as usize % EVENTS.len()]
    }
}

impl Agenda {
    /// An event. [`Time::MAX`] is never.
    #[inline]
    pub(super) fn push(&mut self, at: Time, event: Event, id: u32) {
        if at == Time::MAX {
            return;
        }
        let event_and_number = self.pushed << EVENT_BITS | event as u32;
        self.pushed = self.pushed.wrapping_add(1);
        self.events.push(at, Numbered { id, event_and_number });
    }

    /// A packet on a link; none that was pushed before arrives later. [`Time::MAX`] is never.
    #[inline]
    pub(super) fn push_flight(&mut self, at: Time, flight: Flight) {
        if at == Time::MAX {
            return;
        }
        debug_assert!(self.line.back().is_none_or(|&(last, ..)| last <= at), "links take the same time");
        self.line.push_back((at, self.pushed, flight));
        self.pushed = self.pushed.wrapping_add(1);
    }

    /// What comes up next. `soon` hears of what is going to be among the next few, some of it more than once: whoever reads
    /// from memory then what they need does not have to wait for it later.
    #[inline]
    pub(super) fn pop(&mut self, mut soon: impl FnMut(Next)) -> Option<(Time, Next)> {
        let flight = self.line.front().map_or(Time::MAX, |&(at, ..)| at);
        let event = self.events.next_instant().unwrap_or(Time::MAX);
        if flight < event || flight == event && self.flight_is_first() {
            if self.announced == 0 {
                self.announced = FEW.min(self.line.len());
                self.line.iter().take(FEW).for_each(|&(.., flight)| soon(Next::Flight(flight)));
            }
            let (at, _, flight) = self.line.pop_front()?;
            self.announced -= 1;
            return Some((at, Next::Flight(flight)));
        }
        let (at, event) = self.events.pop_and_announce(|event| soon(Next::Event(event.event(), event.id)))?;
        Some((at, Next::Event(event.event(), event.id)))
    }

    /// Which one was pushed first, if both come up at the same instant.
    #[cold]
    fn flight_is_first(&mut self) -> bool {
        let Some(&(_, flight, _)) = self.line.front() else { return false };
        let Some(event) = self.events.first() else { return true };
        let (flight, event) = (flight << EVENT_BITS, event.event_and_number & !(EVENTS.len() as u32 - 1));
        flight.wrapping_sub(event) > u32::MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn events_are_what_they_were() {
        for (number, event) in (0..).zip(EVENTS) {
            assert_eq!(Numbered { id: 0, event_and_number: 8 * 77 + number }.event(), event);
            assert_eq!(event as u32, number);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Few instants, so that there are ties of all kinds; numbers that overflow.
        #[test]
        fn packets_and_events_come_up_in_the_order_of_one_queue(
            link in 0_u64..20,
            steps in proptest::collection::vec((proptest::option::of(0_u64..20), 0_usize..3), 1..400),
        ) {
            let mut agenda = Agenda { pushed: u32::MAX - 100, ..Agenda::default() };
            let mut oracle = EventQueue::default();
            let mut now = Time::ZERO;
            let later = |now: Time, nanos: u64| Time::from_nanos(now.as_nanos() + nanos);
            let agree = |agenda: &mut Agenda, oracle: &mut EventQueue<(bool, u32)>, now: &mut Time| {
                let found = agenda.pop(|_| {}).map(|(at, next)| match next {
                    Next::Event(event, id) => (at, (event != Event::Wake, id)),
                    Next::Flight(flight) => (at, (true, flight.id.0)),
                });
                let expected = oracle.pop();
                *now = expected.map_or(*now, |(at, _)| at);
                (found, expected)
            };
            for (number, (event, pops)) in (0..).zip(steps) {
                match event {
                    Some(distance) => {
                        agenda.push(later(now, distance), Event::Wake, number);
                        oracle.push(later(now, distance), (false, number));
                    }
                    None => {
                        let flight = Flight { id: PacketId(number), mix: 0, delay: 0, slot: 0 };
                        agenda.push_flight(later(now, link), flight);
                        oracle.push(later(now, link), (true, number));
                    }
                }
                for _ in 0..pops {
                    let (found, expected) = agree(&mut agenda, &mut oracle, &mut now);
                    prop_assert_eq!(found, expected);
                }
            }
            while !oracle.is_empty() {
                let (found, expected) = agree(&mut agenda, &mut oracle, &mut now);
                prop_assert_eq!(found, expected);
            }
            prop_assert_eq!(agenda.pop(|_| {}).map(|(at, _)| at), None);
        }
    }
}
