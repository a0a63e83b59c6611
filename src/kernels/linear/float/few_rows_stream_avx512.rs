//! AVX-512 products of one to four rows as [`super::few_rows_avx512`], for CPUs that read one stream fastest: one panel after the other.
//!
//! What keeps memory busy is that the loads of a panel follow those of the last one at once: a kernel goes through all panels of a call, and
//! whatever else happens to finished sums happens after it.
#![allow(unsafe_code)]

use super::few_rows_avx512::{BF16, F16, F32, by_type, dots, step, step_bytes, steps, widened};
use crate::kernels::linear::few_rows::{MOST_PANELS, Panels, PanelsKernel};
use crate::kernels::linear::layout::{Layout, PANEL};
use std::arch::x86_64::*;

/// Bytes between what is multiplied and what is asked for: a page, from which on hardware prefetching begins anew.
const DISTANCE: usize = 4 << 10;

/// The kernel for `rows` rows, for each number of panels; `bf16` says whether the CPU has bf16 dot products to use.
pub(super) fn kernels(layout: Layout, rows: usize, bf16: bool) -> &'static [PanelsKernel] {
    macro_rules! table {
        ($kernel:ident, $type:expr) => {
            match rows {
                1 => &[$kernel::<1, $type> as PanelsKernel; MOST_PANELS],
                2 => &[$kernel::<2, $type> as PanelsKernel; MOST_PANELS / 2],
                3 => &[$kernel::<3, $type> as PanelsKernel; MOST_PANELS / 3],
                4 => &[$kernel::<4, $type> as PanelsKernel; MOST_PANELS / 4],
                _ => &[],
            }
        };
    }
    by_type!(layout, bf16, table)
}

/// Defines a kernel of `R` rows with the given features and way to multiply pairs of bf16.
macro_rules! define {
    ($name:ident, $features:literal, $pairs:ident) => {
        /// # Safety
        /// The CPU has the features; `panels` are adjacent panels of `k` inputs of the layout, `x` is a prepared block of `R` rows (aligned to
        /// 4 bytes), `out` has room for `R × PANEL` sums of each panel.
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const TYPE: u8>(panels: Panels, x: *const u8, k: usize, out: *mut f32) {
            let (bytes, steps) = (const { step_bytes(TYPE) }, steps(TYPE, k));
            let mut out = out;
            for p in 0..panels.count {
                let mut w = panels.at.wrapping_add(p * panels.stride);
                let mut sums = [[_mm512_setzero_ps(); 2]; R];
                let mut v = x.cast::<f32>();
                for _ in 0..steps {
                    let ahead = w.wrapping_add(DISTANCE);
                    // Past the outer caches, which keep nothing that is read once: what they would drop for it costs bandwidth too.
                    _mm_prefetch::<_MM_HINT_NTA>(ahead.cast());
                    if TYPE != F16 {
                        _mm_prefetch::<_MM_HINT_NTA>(ahead.wrapping_add(64).cast());
                    }
                    // SAFETY: `w` walks the `steps` rows of panel `p`.
                    let b = unsafe { step::<TYPE>(w) };
                    for (r, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: `v` walks the block of `steps × R` words.
                        let a = _mm512_set1_ps(unsafe { *v.add(r) });
                        for (sum, &b) in sums.iter_mut().zip(&b) {
                            *sum = if TYPE == BF16 { $pairs(a, b, *sum) } else { _mm512_fmadd_ps(a, b, *sum) };
                        }
                    }
                    w = w.wrapping_add(bytes);
                    v = v.wrapping_add(R);
                }
                for sums in &sums {
                    // SAFETY: the next of `R` rows of sums of the panel.
                    unsafe {
                        _mm512_storeu_ps(out, sums[0]);
                        _mm512_storeu_ps(out.add(16), sums[1]);
                    }
                    out = out.wrapping_add(PANEL);
                }
            }
        }
    };
}

define!(multiply, "avx512f,avx512bw", widened);
define!(multiply_dots, "avx512f,avx512bw,avx512bf16", dots);
