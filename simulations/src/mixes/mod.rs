//! What a mix does with packets between their arrival and their departure.
//!
//! A mix of one's own is one file: a type for its parameters that implements [`MixKind`], and a type that implements
//! [`Mix`]. A `pub mod` and a line in `KINDS`, both in this file, make it known. [`threshold`] is a short example.

use core::fmt;
use core::time::Duration;

use tombola_mixing::{Rng, Time};

use crate::scenario::{ScenarioError, Section};

pub mod pool;
pub mod stop_and_go;
pub mod threshold;
pub mod timed;

/// A packet's place in the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketId(pub u32);

/// One mix. Driven like every state machine here: things go in with the time, `poll` hands things out, `poll_timeout` says
/// when it wants to be asked again.
///
/// The tracked probability follows from arrivals and departures alone (see [`crate::metrics::masses`]): whatever leaves is
/// taken for a uniformly random one of the packets inside. A mix whose departures tell an observer more than that
/// overstates its entropy.
pub trait Mix {
    /// A packet arrives that its sender wants to stay for `delay` (zero unless [`MixKind::delay`] says otherwise). `false`:
    /// there is no room, and the packet is lost.
    fn arrive(&mut self, now: Time, packet: PacketId, delay: Duration) -> bool;

    /// The next packet that leaves now. Called until `None`, after an arrival and when `poll_timeout` says so.
    fn poll(&mut self, now: Time) -> Option<PacketId>;

    /// When the next packet leaves if none arrives; `None` if none does.
    fn poll_timeout(&self) -> Option<Time>;

    /// Which packet is probably the next to leave, if that is known; only makes the simulation faster.
    fn next_hint(&self) -> Option<PacketId> {
        None
    }
}

/// A kind of mix with its parameters: makes the mixes of a network.
pub trait MixKind: fmt::Debug + Send + Sync {
    /// A mix whose own randomness comes from `rng`; `arrivals` is how many packets per second it will get on average while
    /// all users are active.
    fn build(&self, rng: Rng, arrivals: f64) -> Box<dyn Mix>;

    /// How senders draw a packet's delay at each mix of this kind.
    fn delay(&self) -> Delay {
        Delay::ZERO
    }

    /// The deployed relay that does the same while so many packets per second arrive; `None` if there is none.
    fn deployed(&self, arrivals: f64) -> Option<Deployed> {
        let _ = arrivals;
        None
    }

    /// Seconds that a packet spends in one mix on average, as far as that is known; for choosing how long to simulate.
    fn mean_stay(&self, arrivals: f64) -> f64;

    /// Seconds after which a packet is still in one mix with a probability of one in a thousand million, roughly.
    fn longest_stay(&self, arrivals: f64) -> f64;
}

/// What the deployed relay is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// Mean delay in a mix.
    pub mean_delay: Duration,
    /// What delays are cut to.
    pub max_delay: Duration,
    /// Packets for which it has room.
    pub capacity: usize,
}

/// A duration that is drawn: a packet's delay at a mix, or on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// Always the same.
    Constant(Duration),
    /// Exponential with this mean.
    Exponential(Duration),
    /// Uniform below this bound.
    Uniform(Duration),
    /// At least the first, and an exponential one with the second as its mean on top.
    Shifted(Duration, Duration),
}

impl Delay {
    /// None.
    pub const ZERO: Self = Self::Constant(Duration::ZERO);

    /// Draws one, as the deployed sender does: [`Rng::exponential`], [`Rng::uniform`].
    #[inline]
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> Duration {
        match *self {
            Self::Constant(delay) => delay,
            Self::Exponential(mean) => rng.exponential(mean),
            Self::Uniform(bound) => rng.uniform(bound),
            Self::Shifted(least, mean) => least + rng.exponential(mean),
        }
    }

    /// Its mean, in seconds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::Constant(delay) | Self::Exponential(delay) => delay.as_secs_f64(),
            Self::Uniform(bound) => bound.as_secs_f64() / 2.0,
            Self::Shifted(least, mean) => least.as_secs_f64() + mean.as_secs_f64(),
        }
    }

    /// Its variance, in seconds squared.
    #[must_use]
    pub fn variance(&self) -> f64 {
        match self {
            Self::Constant(_) => 0.0,
            Self::Exponential(mean) | Self::Shifted(_, mean) => mean.as_secs_f64().powi(2),
            Self::Uniform(bound) => bound.as_secs_f64().powi(2) / 12.0,
        }
    }

    /// What it exceeds with a probability of 10^-9, in seconds.
    #[must_use]
    pub fn longest(&self) -> f64 {
        match self {
            Self::Constant(delay) | Self::Uniform(delay) => delay.as_secs_f64(),
            Self::Exponential(mean) => mean.as_secs_f64() * MEANS_TO_1E9,
            Self::Shifted(least, mean) => least.as_secs_f64() + mean.as_secs_f64() * MEANS_TO_1E9,
        }
    }

    /// Whether every packet takes the same time, so that nothing has to be drawn.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }
}

/// ln(10^9): an exponential variable exceeds so many means with a probability of 10^-9.
pub const MEANS_TO_1E9: f64 = 20.72;

type Read = fn(&mut Section) -> Result<Box<dyn MixKind>, ScenarioError>;

/// All kinds: their names, as scenarios spell them, and what reads their parameters. The first one is the default.
const KINDS: [(&str, Read); 4] = [
    ("poisson", |section| Ok(Box::new(stop_and_go::StopAndGo::read(section)?))),
    ("pool", |section| Ok(Box::new(pool::Pool::read(section)?))),
    ("threshold", |section| Ok(Box::new(threshold::Threshold::read(section)?))),
    ("timed", |section| Ok(Box::new(timed::Timed::read(section)?))),
];

/// Reads the `[mix]` section of a scenario: `kind`, and the parameters of that kind.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(section: &mut Section) -> Result<Box<dyn MixKind>, ScenarioError> {
    let names = KINDS.map(|(name, _)| name);
    let found = section.one_of("kind", names[0], &names)?;
    let (_, read) = KINDS.into_iter().find(|(name, _)| *name == found).unwrap_or(KINDS[0]);
    read(section)
}
