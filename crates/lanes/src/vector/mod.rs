//! The one module with `unsafe`: vector instructions, and how the rest of the crate comes to run them.
//!
//! # Invariants
//!
//! 1. A value of [`Avx512`] or [`Avx2`] exists only on a processor that has the features of that name, those of
//!    [`with_avx512`] and [`with_avx2`]: `detect`, the only way to get one, asks the processor.
//! 2. A value of [`ifma::Eight`], [`quads::Sum`], [`avx2::Four`], [`avx2::Packed`] or the types of [`words`] exists
//!    only where its proof does: whatever makes one from anything else takes a proof. So a method of such a value may
//!    use the instructions.
//! 3. No intrinsic that is used reads or writes memory; between arrays of integers and registers, values are
//!    transmuted, both being plain bytes; secrets are overwritten through a reference to them. Nothing else in here is
//!    unsafe.

#![allow(unsafe_code, reason = "the module that the rule is lifted for; see the invariants above")]

/// An array written out, `$at` being each index: a closure that is not inlined may not use the instructions, and would be slow.
macro_rules! array {
    ($at:ident in $($index:literal)* => $each:expr) => {
        [$({
            const $at: usize = $index;
            $each
        }),*]
    };
}
macro_rules! five {
    ($at:ident => $each:expr) => {
        array!($at in 0 1 2 3 4 => $each)
    };
}

pub(crate) mod avx2;
pub(crate) mod ifma;
pub(crate) mod quads;
pub(crate) mod words;

use crate::erase::Leavings;
use crate::path::{Lanes, Work};

/// Shows that this processor has AVX-512 F, DQ, VL and IFMA, and AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512(());

/// Shows that this processor has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx512 {
    /// Asks the processor, or rather what the standard library remembers of its answer.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx2");
        has.then_some(Self(()))
    }
}

impl Avx2 {
    /// As [`Avx512::detect`].
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

/// Does some work with AVX-512, and erases what it left on the stack.
pub(crate) fn with_avx512<L: Lanes<Proof = Avx512>>(proof: Avx512, work: impl Work<L>) {
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma,avx2")]
    fn enter<L: Lanes<Proof = Avx512>, W: Work<L>>(proof: Avx512, work: W) -> Leavings {
        work.run(proof);
        W::LEAVES
    }
    // SAFETY: the proof shows that the processor has the features (invariant 1).
    unsafe { enter(proof, work) }.erase();
}

/// Does some work with AVX2, and erases what it left on the stack.
pub(crate) fn with_avx2<L: Lanes<Proof = Avx2>>(proof: Avx2, work: impl Work<L>) {
    #[target_feature(enable = "avx2")]
    fn enter<L: Lanes<Proof = Avx2>, W: Work<L>>(proof: Avx2, work: W) -> Leavings {
        work.run(proof);
        W::LEAVES
    }
    // SAFETY: the proof shows that the processor has the feature (invariant 1).
    unsafe { enter(proof, work) }.erase();
}
