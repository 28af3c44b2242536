//! Which instructions are used.

use crate::erase::{Leavings, SMALL, erase_stack};
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512};

/// A set of instructions that this processor has, and code for it.
///
/// All paths give the same bytes, each in constant time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path(pub(crate) Isa);

/// See [`Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// The same processor, with a vector for each point; see [`few`](crate::few).
    #[cfg(target_arch = "x86_64")]
    Few(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable,
}

impl Path {
    /// One lane, on every processor.
    pub const PORTABLE: Self = Self(Isa::Portable);

    /// The fastest path for full batches.
    #[must_use]
    pub fn best() -> Self {
        Self::all().next().unwrap_or(Self::PORTABLE)
    }

    /// The fastest path for that many points.
    #[must_use]
    pub fn for_points(points: usize) -> Self {
        // A vector with a point in each lane costs the same however many of them are filled: about as much as four vectors
        // with one point, or as three points of the portable path in four lanes.
        let worth_it = |path: &Self| match path.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => points > 3,
            #[cfg(target_arch = "x86_64")]
            Isa::Few(_) => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => points >= 3,
            Isa::Portable => true,
        };
        Self::all().find(worth_it).unwrap_or(Self::PORTABLE)
    }

    /// Every path that this processor has, the fastest for full batches first; `avx512ifma-few` comes behind `avx512ifma`.
    pub fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vectors = {
            let avx512 = Avx512::detect();
            [avx512.map(Isa::Avx512), avx512.map(Isa::Few), Avx2::detect().map(Isa::Avx2)]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let vectors: [Option<Isa>; 0] = [];
        vectors.into_iter().flatten().chain([Isa::Portable]).map(Self)
    }

    /// `avx512ifma`, `avx512ifma-few`, `avx2` or `portable`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512ifma",
            #[cfg(target_arch = "x86_64")]
            Isa::Few(_) => "avx512ifma-few",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            Isa::Portable => "portable",
        }
    }

    /// How many points are multiplied by the same instructions: 8, 4 or 1.
    #[must_use]
    pub const fn lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => 8,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => 4,
            #[cfg(target_arch = "x86_64")]
            Isa::Few(_) => 1,
            Isa::Portable => 1,
        }
    }

    /// How many words of 64 bits are hashed by the same instructions: 8, 4 or 1.
    pub(crate) const fn words(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Few(_) => 8,
            _ => self.lanes(),
        }
    }
}

/// Values side by side in the lanes of registers.
pub(crate) trait Lanes: Copy {
    /// Shows that this processor has the instructions: nobody gets one without having asked it.
    type Proof: Copy;
    /// Values side by side.
    const LANES: usize;
}

/// Does work on one lane, and erases what it left on the stack.
pub(crate) fn in_one_lane<L: Lanes<Proof = ()>>(work: impl Work<L>) {
    /// Not inlined: what it leaves would be part of its caller's frame.
    #[inline(never)]
    fn enter<L: Lanes<Proof = ()>, W: Work<L>>(work: W) -> Leavings {
        work.run(());
        W::LEAVES
    }
    if !matches!(enter(work), Leavings::Public) {
        erase_stack::<SMALL>();
    }
}

/// Work that is written for any implementation of some lanes, and compiled for each.
pub(crate) trait Work<L: Lanes> {
    /// What of the stack is erased afterwards.
    const LEAVES: Leavings;

    /// Does it. Implementations are `#[inline(always)]`, and all that they call is too or is portable: only then do they
    /// become part of a function that may use the vector instructions. Hence no closures in them either.
    fn run(self, proof: L::Proof);
}
