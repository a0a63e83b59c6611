//! Element types that rows are stored in and widened from.
#![allow(unsafe_code)]

use super::Simd;

/// An element that a vector of f32 can be loaded from.
pub trait Stored: Copy + Send + Sync + 'static {
    /// Whether the stored bits are f32 already.
    const IS_F32: bool;
    /// Whether it is bf16, two of which make a pair for [`Simd::dot_pairs`].
    const IS_BF16: bool;
    /// Its value; exact for all three types.
    fn widen(self) -> f32;
    /// # Safety
    /// `LANES` elements are readable at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;
    /// The first `n` ≤ `LANES` elements, zero in the other lanes.
    /// # Safety
    /// `n` elements are readable at `p`.
    unsafe fn load_partial<S: Simd>(s: S, p: *const Self, n: usize) -> S::V;
}

impl Stored for f32 {
    const IS_F32: bool = true;
    const IS_BF16: bool = false;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: the caller's contract.
        unsafe { s.load(p) }
    }
    #[inline(always)]
    unsafe fn load_partial<S: Simd>(s: S, p: *const Self, n: usize) -> S::V {
        // SAFETY: the caller's contract.
        unsafe { s.load_partial(p, n) }
    }
}

macro_rules! stored_half {
    ($type:ty, $load:ident, $bf16:literal) => {
        impl Stored for $type {
            const IS_F32: bool = false;
            const IS_BF16: bool = $bf16;
            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
                // SAFETY: the caller's contract; the type is a transparent u16.
                unsafe { s.$load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn load_partial<S: Simd>(s: S, p: *const Self, n: usize) -> S::V {
                debug_assert!(n <= S::LANES);
                let mut copy = [0u16; 64];
                // SAFETY: the caller's contract; the copy holds 64 ≥ LANES elements.
                unsafe {
                    std::ptr::copy_nonoverlapping(p.cast::<u16>(), copy.as_mut_ptr(), n);
                    s.$load(copy.as_ptr())
                }
            }
        }
    };
}
stored_half!(half::f16, load_f16, false);
stored_half!(half::bf16, load_bf16, true);
