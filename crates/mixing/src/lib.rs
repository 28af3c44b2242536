#![doc = include_str!("../README.md")]

mod far;
mod heap;
mod loops;
mod loss_test;
mod near;
mod poisson;
mod pool;
mod rng;
mod schedule;
mod slots;
mod time;

pub use loops::{LoopMonitor, LoopStats, Lost, SendError};
pub use loss_test::{LossTest, LossTestError, Verdict};
pub use poisson::{MAX_LAG, PoissonClock};
pub use pool::{DelayPool, PoolFull};
pub use rng::Rng;
pub use schedule::{EmissionSchedule, Rates, Stream};
pub use slots::PacedSlots;
pub use time::Time;
