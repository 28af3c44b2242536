//! Erases secrets that are not needed any more.
//!
//! The crate `zeroize` writes arrays element by element: of bytes, that takes longer than to derive them. Here the whole is
//! overwritten with stores as wide as the processor has them, and its barrier sees to it that the compiler does not think
//! them useless.

use std::ops::{Deref, DerefMut};

use zeroize::optimization_barrier;

/// Plain numbers, and arrays of them.
pub trait Plain: Copy {
    /// Zeros.
    const ZERO: Self;
}

impl Plain for u8 {
    const ZERO: Self = 0;
}

impl Plain for u32 {
    const ZERO: Self = 0;
}

impl Plain for u64 {
    const ZERO: Self = 0;
}

impl<T: Plain, const N: usize> Plain for [T; N] {
    const ZERO: Self = [T::ZERO; N];
}

/// Overwrites a secret with zeros.
#[inline(always)]
pub fn erase<T: Plain>(secret: &mut T) {
    *secret = T::ZERO;
    optimization_barrier(secret);
}

/// A secret that is erased when it is dropped.
#[derive(Clone)]
pub struct Erasing<T: Plain>(T);

impl<T: Plain> Erasing<T> {
    /// Keeps a secret, which the caller may have copies of.
    #[inline(always)]
    pub const fn new(secret: T) -> Self {
        Self(secret)
    }
}

impl<T: Plain> Deref for Erasing<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Plain> DerefMut for Erasing<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Plain> Drop for Erasing<T> {
    #[inline(always)]
    fn drop(&mut self) {
        erase(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left() {
        let mut secret = [[0xa5_u8; 7]; 3];
        erase(&mut secret);
        assert_eq!(secret, [[0; 7]; 3]);
        let mut kept = Erasing::new([1_u64, 2]);
        kept[1] = 3;
        assert_eq!(*kept, [1, 3]);
    }
}
