//! Who sends when: clients on the deployed emission schedule, and the users who write.

use core::time::Duration;
use std::collections::VecDeque;

use tombola_mixing::{EmissionSchedule, PoissonClock, Rates, Rng, Stream, Time};

use crate::engine::{Purpose, Seeds};
use crate::scenario::{Clients, Emission, Timing, User};

/// Clients with one schedule: one, or many whose schedules are superposed.
///
/// The superposition of n Poisson processes is one at n times the rate whose points go to the n at random (Kingman,
/// "Poisson processes", 1993, sections 2.2 and 5.2): so many clients with one schedule are what they are with one each.
struct Group {
    schedule: EmissionSchedule,
    first: u32,
    count: u32,
    /// Chooses the client, where there is a choice.
    choice: Option<Box<Rng>>,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// By whom.
    pub client: u32,
    /// For which stream.
    pub stream: Stream,
}

/// The next ticks of a schedule: a line of a processor's cache. A schedule takes eight, and with a million of them hardly any
/// is in the cache when it is due; so it is asked for some of its ticks together. Its instants depend on nothing but its
/// seed, not on when it is asked.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Ahead {
    /// [`Time::MAX`]: there is no such tick.
    at: [Time; AHEAD],
    streams: [Stream; AHEAD],
    next: u8,
}

const AHEAD: usize = 7;

const _: () = assert!(size_of::<Ahead>() == 64);

impl Ahead {
    /// The next tick, and no more: of many schedules not even all of the first ticks come up.
    fn first(schedule: &mut EmissionSchedule) -> Self {
        let mut ahead =
            Self { at: [Time::MAX; AHEAD], streams: [Stream::Main; AHEAD], next: AHEAD as u8 - 1 };
        ahead.fill(schedule);
        ahead
    }

    /// Asks for the ticks from the next one on.
    fn fill(&mut self, schedule: &mut EmissionSchedule) {
        for place in usize::from(self.next)..AHEAD {
            let (at, stream) = schedule.poll(schedule.poll_timeout()).unwrap_or((Time::MAX, Stream::Main));
            (self.at[place], self.streams[place]) = (at, stream);
        }
    }

    #[inline]
    fn next(&self) -> Time {
        self.at[usize::from(self.next)]
    }
}

/// All emission schedules.
pub struct Sources {
    groups: Vec<Group>,
    /// By group.
    ahead: Vec<Ahead>,
    /// Every client is a group.
    is_individual: bool,
}

/// The mean interval of a superposed schedule is at least this long: it is rounded to nanoseconds, and so is right to
/// 10^-5.
const LEAST_INTERVAL: Duration = Duration::from_micros(50);

/// How many of `count` clients may share a schedule if each has so many ticks per second.
fn in_a_group(rate: f64, count: usize) -> usize {
    let most = 1.0 / (rate * LEAST_INTERVAL.as_secs_f64());
    (most as usize).clamp(1, count)
}

impl Sources {
    /// Those of a scenario. Users who are on and off and send at once have none for their messages (see [`Users`]).
    #[must_use]
    pub fn new(clients: &Clients, seeds: &Seeds) -> Self {
        let main = match (clients.emission, clients.user) {
            (Emission::Loopix { main }, _) | (Emission::Direct, User::Poisson(main)) => Some(main),
            (Emission::Direct, User::OnOff { .. }) => None,
        };
        let streams = [main, clients.loops, clients.drops];
        if streams.iter().all(Option::is_none) {
            return Self { groups: Vec::new(), ahead: Vec::new(), is_individual: false };
        }
        let per_group = match clients.timing {
            Timing::Individual => 1,
            Timing::Superposed => {
                let rate: f64 = streams.iter().flatten().map(|interval| 1.0 / interval.as_secs_f64()).sum();
                in_a_group(rate, clients.count)
            }
        };
        let mut groups: Vec<_> = (0..clients.count)
            .step_by(per_group)
            .map(|first| {
                let count = per_group.min(clients.count - first) as u32;
                let scaled =
                    |interval: Option<Duration>| interval.map_or(Duration::MAX, |interval| interval / count);
                let [main, loops, drops] = streams.map(scaled);
                let mut rng = seeds.stream(Purpose::Emission, first as u64);
                let choice = (count > 1).then(|| Box::new(rng.fork()));
                let schedule = EmissionSchedule::new(Time::ZERO, Rates { main, loops, drops }, rng);
                Group { schedule, first: first as u32, count, choice }
            })
            .collect();
        let ahead = groups.iter_mut().map(|group| Ahead::first(&mut group.schedule)).collect();
        Self { groups, ahead, is_individual: per_group == 1 }
    }

    /// How many schedules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// When a schedule wants to be asked.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self, group: u32) -> Time {
        self.ahead[group as usize].next()
    }

    /// The first of the clients with this schedule.
    #[inline]
    #[must_use]
    pub fn first_client(&self, group: u32) -> u32 {
        if self.is_individual { group } else { self.groups[group as usize].first }
    }

    /// What a schedule sends now.
    #[inline]
    pub fn poll(&mut self, group: u32, now: Time) -> Option<Tick> {
        let ahead = &mut self.ahead[group as usize];
        let at = ahead.next();
        if at > now || at == Time::MAX {
            return None;
        }
        let stream = ahead.streams[usize::from(ahead.next)];
        ahead.next += 1;
        if usize::from(ahead.next) == AHEAD {
            ahead.next = 0;
            ahead.fill(&mut self.groups[group as usize].schedule);
        }
        if self.is_individual {
            return Some(Tick { client: group, stream });
        }
        let group = &mut self.groups[group as usize];
        let choice = group.choice.as_mut().map_or(0, |rng| rng.below(group.count.into()) as u32);
        Some(Tick { client: group.first + choice, stream })
    }
}

/// What a user's event was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserEvent {
    /// A message.
    Writes(u32),
    /// It becomes active, and writes nothing yet.
    Begins,
}

/// Poisson users who share a clock.
struct UserGroup {
    clock: PoissonClock,
    first: u32,
    count: u32,
    /// Chooses whose message it is.
    choice: Rng,
}

/// Users who write messages apart from any schedule: those of Loopix clients, and those who are on and off.
pub struct Users {
    user: User,
    /// Poisson users as a few processes.
    superposed: Vec<UserGroup>,
    /// When the phase of activity ends, by client.
    active_until: Vec<Time>,
    /// How often each was asked.
    asked: Vec<u32>,
    rng: Rng,
    /// Messages that wait, by when they were written.
    waiting: Vec<VecDeque<Time>>,
    /// How many of them there are.
    waits: usize,
}

impl Users {
    /// Those of a scenario, and when each (or each group of them) wants to be asked first; `None` if messages leave on the tick of a schedule.
    #[must_use]
    pub fn new(clients: &Clients, seeds: &Seeds) -> Option<(Self, Vec<(Time, u32)>)> {
        let loopix = matches!(clients.emission, Emission::Loopix { .. });
        if !loopix && matches!(clients.user, User::Poisson(_)) {
            return None;
        }
        let count = clients.count as u32;
        let waiting = if loopix { vec![VecDeque::new(); clients.count] } else { Vec::new() };
        let mut users = Self {
            user: clients.user,
            superposed: Vec::new(),
            active_until: Vec::new(),
            asked: Vec::new(),
            rng: seeds.stream(Purpose::Users, 0),
            waiting,
            waits: 0,
        };
        let first = match (clients.user, clients.timing) {
            (User::Poisson(interval), Timing::Superposed) => {
                let per_group = in_a_group(1.0 / interval.as_secs_f64(), clients.count);
                let group = |first: usize| {
                    let count = per_group.min(clients.count - first) as u32;
                    let mut rng = seeds.stream(Purpose::Users, u64::MAX - first as u64);
                    let choice = rng.fork();
                    let clock = PoissonClock::new(Time::ZERO, interval / count, rng);
                    UserGroup { clock, first: first as u32, count, choice }
                };
                users.superposed = (0..clients.count).step_by(per_group).map(group).collect();
                users.superposed.iter().map(|group| group.clock.poll_timeout()).zip(0..).collect()
            }
            (user, _) => {
                users.asked = vec![0; clients.count];
                users.active_until = vec![Time::MAX; clients.count];
                (0..count)
                    .map(|client| {
                        let rng = users.draw(client);
                        let at = match user {
                            User::Poisson(interval) => Time::ZERO + rng.exponential(interval),
                            User::OnOff { on, off, .. } => {
                                // Whether it is active at the beginning is as it is at any time. It then becomes so now.
                                let both = on.saturating_add(off);
                                if rng.uniform(both) < on {
                                    Time::ZERO
                                } else {
                                    Time::ZERO + rng.exponential(off)
                                }
                            }
                        };
                        if matches!(user, User::OnOff { .. }) {
                            users.active_until[client as usize] = Time::ZERO;
                        }
                        (at, client)
                    })
                    .collect()
            }
        };
        Some((users, first))
    }

    /// The generator for the client's next event.
    fn draw(&mut self, client: u32) -> &mut Rng {
        let asked = &mut self.asked[client as usize];
        let stream = u64::from(client) << 32 | u64::from(*asked);
        *asked += 1;
        self.rng.restart(stream);
        &mut self.rng
    }

    /// What happens at the instant of a user, or of a group of them, and when the next one is.
    pub fn poll(&mut self, client: u32, now: Time) -> (UserEvent, Time) {
        if let Some(UserGroup { clock, first, count, choice }) = self.superposed.get_mut(client as usize) {
            let _ = clock.poll(now);
            let client = *first + choice.below((*count).into()) as u32;
            return (UserEvent::Writes(client), clock.poll_timeout());
        }
        let user = self.user;
        let until = self.active_until[client as usize];
        let rng = self.draw(client);
        match user {
            User::Poisson(interval) => (UserEvent::Writes(client), now + rng.exponential(interval)),
            User::OnOff { interval, on, off } => {
                let begins = now >= until;
                let until = if begins { now + rng.exponential(on) } else { until };
                let next = now + rng.exponential(interval);
                // The phase ends first: it is asked again when the next one begins.
                let next = if next < until { next } else { until + rng.exponential(off) };
                self.active_until[client as usize] = until;
                (if begins { UserEvent::Begins } else { UserEvent::Writes(client) }, next)
            }
        }
    }

    /// One of the numbers that the client's next event is going to need.
    #[inline]
    pub(super) fn touch(&self, client: usize) -> u64 {
        let waiting = self.waiting.get(client).and_then(VecDeque::front);
        let asked = self.asked.get(client).copied().unwrap_or_default();
        let until = self.active_until.get(client).or(waiting).copied().unwrap_or_default();
        waiting.copied().unwrap_or_default().as_nanos() ^ until.as_nanos() ^ u64::from(asked)
    }

    /// A message waits for the client's next tick.
    pub fn queue(&mut self, client: u32, written: Time) {
        self.waiting[client as usize].push_back(written);
        self.waits += 1;
    }

    /// Takes the client's oldest message that waits.
    pub fn take(&mut self, client: u32) -> Option<Time> {
        let written = self.waiting.get_mut(client as usize)?.pop_front()?;
        self.waits -= 1;
        Some(written)
    }

    /// How many messages wait.
    #[must_use]
    pub fn waits(&self) -> usize {
        self.waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read ahead is what the schedule says when it is asked at each of its instants.
    #[test]
    fn ticks_are_those_of_the_deployed_schedule() {
        for (timing, main) in
            [(Timing::Individual, 40), (Timing::Superposed, 40), (Timing::Individual, u64::MAX >> 20)]
        {
            let main = Duration::from_millis(main);
            let clients = Clients {
                count: 3,
                emission: Emission::Loopix { main },
                timing,
                user: User::Poisson(Duration::from_secs(1)),
                loops: Some(Duration::from_secs(1)),
                drops: None,
            };
            let seeds = Seeds::new(7, 0);
            let mut sources = Sources::new(&clients, &seeds);
            let shared = clients.count as u32 / sources.len() as u32;
            let rates = Rates {
                main: main / shared,
                loops: Duration::from_secs(1) / shared,
                drops: Duration::MAX / shared,
            };
            let mut rng = seeds.stream(Purpose::Emission, 0);
            let mut choice = (shared > 1).then(|| rng.fork());
            let mut oracle = EmissionSchedule::new(Time::ZERO, rates, rng);
            for _ in 0..100 {
                let now = sources.poll_timeout(0);
                assert_eq!(now, oracle.poll_timeout());
                let (at, stream) = oracle.poll(now).unwrap();
                let client = choice.as_mut().map_or(0, |rng| rng.below(shared.into()) as u32);
                assert_eq!((sources.poll(0, now), at), (Some(Tick { client, stream }), now));
                assert_eq!(sources.poll(0, now), None);
            }
        }
    }

    #[test]
    fn many_users_who_write_often_write_as_often_as_they_say() {
        // A clock for all of them would tick every 2.5 ns, which no clock that counts nanoseconds does.
        let interval = Duration::from_micros(1);
        let clients = Clients {
            count: 400,
            emission: Emission::Loopix { main: interval / 2 },
            timing: Timing::Superposed,
            user: User::Poisson(interval),
            loops: None,
            drops: None,
        };
        let (mut users, first) = Users::new(&clients, &Seeds::new(1, 0)).unwrap();
        let end = Time::from_nanos(1_000_000);
        let mut wrote = vec![0_u32; 400];
        for (mut at, group) in first {
            while at < end {
                let (event, next) = users.poll(group, at);
                let UserEvent::Writes(client) = event else { panic!("they are always on") };
                wrote[client as usize] += 1;
                at = next;
            }
        }
        // 1000 each; a standard deviation of their sum is 632.
        let sum: u32 = wrote.iter().sum();
        assert!((397_000..403_000).contains(&sum), "{sum}");
        assert!(wrote.iter().all(|count| (830..1170).contains(count)), "{wrote:?}");
    }
}
