//! Plain Rust vectors of eight lanes, autovectorised for the compiler's baseline target.
#![allow(unsafe_code)]

use super::stored::Stored;
use super::{Kernel, Simd};

const LANES: usize = 8;

/// The vector that every CPU has.
#[derive(Clone, Copy)]
pub struct Portable;

macro_rules! lanes {
    ($i:ident => $e:expr) => {{
        let mut out = [0.0f32; LANES];
        for $i in 0..LANES {
            out[$i] = $e;
        }
        out
    }};
}

impl Simd for Portable {
    type V = [f32; LANES];
    type Block = [Self::V; LANES];
    type Eight = Self;
    const LANES: usize = LANES;
    const TILE_VECTORS: usize = 1;
    const BF16_DOTS: bool = false;

    #[inline(always)]
    fn eight(self) -> Self {
        self
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: the caller's contract.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::V {
        let mut v = [0.0; LANES];
        // SAFETY: the caller's contract: n readable, n ≤ LANES.
        unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n) };
        v
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: the caller's contract.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: the caller's contract: n writable, n ≤ LANES.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), p, n) };
    }
    #[inline(always)]
    fn prefetch<T>(self, _p: *const T) {}

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(i => a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(i => c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        lanes!(i => a[i].sqrt())
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Adding 1.5 · 2^23 leaves no fraction bits, in the current rounding mode: to nearest even.
        const MAGIC: f32 = 12_582_912.0;
        lanes!(i => if a[i].abs() < 4_194_304.0 { (a[i] + MAGIC) - MAGIC } else { a[i] })
    }
    #[inline(always)]
    fn scale2(self, a: Self::V, n: Self::V) -> Self::V {
        lanes!(i => {
            let n = n[i] as i32;
            let half = n >> 1;
            a[i] * f32::from_bits(((half + 127) << 23) as u32) * f32::from_bits(((n - half + 127) << 23) as u32)
        })
    }
    #[inline(always)]
    fn scale2_from(self, a: Self::V, n: Self::V, x: Self::V, least: f32) -> Self::V {
        lanes!(i => if x[i] < least { 0.0 } else { a[i] * f32::from_bits(((n[i] as i32 + 127) << 23) as u32) })
    }
    #[inline(always)]
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        lanes!(i => if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn keep_first(self, a: Self::V, n: usize, fill: Self::V) -> Self::V {
        lanes!(i => if i < n { a[i] } else { fill[i] })
    }
    #[inline(always)]
    fn reduce_add(self, a: Self::V) -> f32 {
        let b = [a[0] + a[4], a[1] + a[5], a[2] + a[6], a[3] + a[7]];
        (b[0] + b[2]) + (b[1] + b[3])
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::V) -> f32 {
        let mut most = a[0];
        for &x in &a[1..] {
            most = if x > most { x } else { most };
        }
        most
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::V {
        // SAFETY: the caller's contract.
        lanes!(i => half::f16::from_bits(unsafe { p.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::V {
        // SAFETY: the caller's contract.
        lanes!(i => f32::from_bits(u32::from(unsafe { p.add(i).read_unaligned() }) << 16))
    }
    #[inline(always)]
    fn lookup_f16(self, table: &[u16; 1 << 16], a: Self::V) -> Self::V {
        lanes!(i => half::f16::from_bits(table[half::f16::from_f32(a[i]).to_bits() as usize]).to_f32())
    }

    #[inline(always)]
    fn halves(self, a: Self::V) -> [Self::V; 2] {
        [lanes!(i => f32::from_bits(a[i].to_bits() << 16)), lanes!(i => f32::from_bits(a[i].to_bits() & 0xffff_0000))]
    }
    #[inline(always)]
    fn narrow(self, a: Self::V, b: Self::V) -> Self::V {
        let bits = |i: usize| u32::from(half::bf16::from_f32(if i < LANES { a[i] } else { b[i - LANES] }).to_bits());
        lanes!(i => f32::from_bits(bits(2 * i) | bits(2 * i + 1) << 16))
    }
    #[inline(always)]
    unsafe fn zip_bf16(self, early: *const u16, late: *const u16) -> Self::V {
        // SAFETY: the caller's contract.
        let bits =
            unsafe { [early.cast::<[u16; LANES]>().read_unaligned(), late.cast::<[u16; LANES]>().read_unaligned()] };
        lanes!(i => f32::from_bits(u32::from(bits[0][i]) | u32::from(bits[1][i]) << 16))
    }

    #[inline(never)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    unsafe fn load_transposed<E: Stored>(self, rows: &[*const E], column: usize, count: usize) -> Self::Block {
        let mut block = [[0.0; LANES]; LANES];
        for j in 0..count {
            for i in 0..rows.len().min(LANES) {
                // SAFETY: the caller's contract: `count` elements after `column` in each row.
                block[j][i] = unsafe { rows[i].add(column + j).read_unaligned() }.widen();
            }
        }
        block
    }
}
