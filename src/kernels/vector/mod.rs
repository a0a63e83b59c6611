//! One vector of f32 lanes per instruction set, so that a kernel is written once.
//!
//! A kernel is a struct that implements [`Kernel`]; [`dispatch`] runs its body inside a function compiled for the instruction
//! set. Everything the body calls must be `#[inline(always)]` to be compiled for that set too (closures are not: avoid them).
//!
//! Tails use partial loads, never a different formula, so an element has the same bits at any position and alignment.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "several arrays of lanes or operands run in step")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod map;
pub mod math;
mod portable;
pub mod stored;

use super::isa::Isa;

/// Vectors of [`Simd::LANES`] f32 values. A value of the type is the proof that the CPU has the instructions.
///
/// Pointers need no alignment. Partial accesses touch the first `n` lanes only (`n` ≤ `LANES`); lanes not loaded are zero.
pub trait Simd: Copy {
    /// The vector.
    type V: Copy;
    /// `LANES` vectors.
    type Block: AsRef<[Self::V]>;
    /// Vectors of eight lanes of the same instruction set.
    type Eight: Simd;
    /// Lanes of a vector.
    const LANES: usize;
    /// Vectors side by side in a tile product, chosen to fill the registers beside four rows.
    const TILE_VECTORS: usize;
    /// Whether [`Simd::dot_pairs`] is one instruction.
    const BF16_DOTS: bool;

    /// The token of vectors of eight lanes.
    fn eight(self) -> Self::Eight;
    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `LANES` values are readable at `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `n` values are readable at `p`, and `n` ≤ `LANES`.
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::V;
    /// # Safety
    /// `LANES` values are writable at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// # Safety
    /// `n` values are writable at `p`, and `n` ≤ `LANES`.
    unsafe fn store_partial(self, p: *mut f32, v: Self::V, n: usize);
    /// Asks the second-level cache for the line at `p`; any address is allowed.
    fn prefetch<T>(self, p: *const T);

    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a − b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, in one rounding where the instruction set has it (portable: two).
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c − a · b, rounded as [`Simd::fma`].
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` when either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` when either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Square root.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// Nearest integer, ties to even; any integer value is exact below 2^22.
    fn round(self, a: Self::V) -> Self::V;
    /// a · 2^n for integer-valued n in −252..=254, with overflow to infinity and gradual underflow.
    fn scale2(self, a: Self::V, n: Self::V) -> Self::V;
    /// a · 2^n for integer-valued n in −126..=127 with a normal result, and zero in the lanes where x < `least`, whatever a and n are there:
    /// nothing underflows, which takes some CPUs longer than all the rest of an exponential.
    fn scale2_from(self, a: Self::V, n: Self::V, x: Self::V, least: f32) -> Self::V;
    /// Per lane: `yes` where a < b, else `no` (also for NaN).
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// The first `n` lanes of `a`, `fill` in the others.
    fn keep_first(self, a: Self::V, n: usize, fill: Self::V) -> Self::V;
    /// Sum of the lanes, by halving.
    fn reduce_add(self, a: Self::V) -> f32;
    /// Largest lane.
    fn reduce_max(self, a: Self::V) -> f32;

    /// Widens `LANES` IEEE half-precision values.
    /// # Safety
    /// `LANES` values are readable at `p`.
    unsafe fn load_f16(self, p: *const u16) -> Self::V;
    /// Widens `LANES` bfloat16 values.
    /// # Safety
    /// `LANES` values are readable at `p`.
    unsafe fn load_bf16(self, p: *const u16) -> Self::V;
    /// Rounds each lane to half precision and replaces it by `table[its 16 bits]`, widened from half precision.
    fn lookup_f16(self, table: &[u16; 1 << 16], a: Self::V) -> Self::V;

    /// The two bf16 values of each lane as f32: the early ones, from the low halves, and the late ones.
    fn halves(self, a: Self::V) -> [Self::V; 2];
    /// c + the products of the bf16 values of each lane of `a` and `b`. Products are exact; how the sums are rounded, and whether
    /// subnormal numbers count as zero, is the instruction set's.
    #[inline(always)]
    fn dot_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let ([a0, a1], [b0, b1]) = (self.halves(a), self.halves(b));
        self.fma(a1, b1, self.fma(a0, b0, c))
    }
    /// Rounds 2 · `LANES` values to bf16 (to nearest even) and packs them two to a lane: those of `a`, then those of `b`.
    fn narrow(self, a: Self::V, b: Self::V) -> Self::V;
    /// Pairs of bf16 values: those at `early` in the low halves, those at `late` in the high halves.
    /// # Safety
    /// `LANES` values are readable at both.
    unsafe fn zip_bf16(self, early: *const u16, late: *const u16) -> Self::V;

    /// Runs `kernel` for the same instruction set, as a call of its own: keeps large bodies from being inlined many times.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    /// Loads a block transposed: vector `j` of the result is column `column + j` of the rows, for `j` < `count`; lane `i` belongs
    /// to `rows[i]`, converted to f32, and is zero beyond `rows.len()`. Vectors from `count` on are zero.
    /// # Safety
    /// `count` ≤ `LANES` elements are readable at each pointer of `rows` (at most `LANES` of them), after adding `column`.
    unsafe fn load_transposed<E: stored::Stored>(self, rows: &[*const E], column: usize, count: usize) -> Self::Block;
}

/// The body of a kernel, generic over the vector. Implement `run` with `#[inline(always)]`.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// Runs it.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Runs `kernel` compiled for `isa`.
///
/// # Panics
/// When the CPU does not have `isa` ([`Isa::available`] lists what it has).
#[inline]
pub fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        Isa::Portable => kernel.run(portable::Portable),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            assert!(
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"),
                "the avx2 path was chosen on a CPU without it"
            );
            // SAFETY: the CPU has the features.
            unsafe { run_avx2(kernel) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => {
            assert!(
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl"),
                "the avx512 path was chosen on a CPU without it"
            );
            // SAFETY: the CPU has the features (every CPU with AVX-512 has AVX2, FMA and F16C).
            unsafe { run_avx512(kernel) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => unreachable!("{} is not available on this architecture", isa.name()),
    }
}

/// As [`dispatch`], with [`Simd::BF16_DOTS`] where [`Isa::uses_bf16_dots`].
#[inline]
pub fn dispatch_pairs<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if isa.uses_bf16_dots() {
        // SAFETY: the CPU has the features.
        return unsafe { run_avx512_bf16(kernel) };
    }
    dispatch(isa, kernel)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function is compiled for the features and only called where the CPU has them.
    kernel.run(unsafe { avx2::Avx2::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function is compiled for the features and only called where the CPU has them.
    kernel.run(unsafe { avx512::Avx512::<false>::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn run_avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function is compiled for the features and only called where the CPU has them.
    kernel.run(unsafe { avx512::Avx512::<true>::new() })
}

#[cfg(test)]
mod tests;
