//! Plain Rust.
#![allow(unsafe_code)]

use super::minima::{self, SPAN};
use super::{LAYOUTS, ROW_BLOCK_BYTES, RowBlock, by_layout};
use crate::kernels::linear::layout::{BLOCK, Layout, PANEL};
use crate::kernels::linear::{Ahead, Kernel, Sums, blocks, kernels_by_rows};

/// The kernel for `rows` rows (1 to 4).
pub(super) fn kernel(layout: Layout, rows: usize) -> Kernel {
    macro_rules! table {
        ($code:literal) => {
            kernels_by_rows!([1, 2, 3, 4], multiply, [$code])[rows - 1]
        };
    }
    by_layout!(layout, table)
}

/// # Safety
/// `panel` holds the panel of `k` inputs that the layout prescribes, `x` a prepared block of `R` rows (aligned to 4 bytes), `out` addresses `R` rows of `PANEL` values.
unsafe fn multiply<const R: usize, const LAYOUT: usize>(panel: *const u8, x: *const u8, k: usize, out: Sums, _: Ahead) {
    let layout = LAYOUTS[LAYOUT];
    // SAFETY: the caller's panel, of the size that the layout prescribes.
    let panel = unsafe { std::slice::from_raw_parts(panel, layout.panel_bytes(k).expect("the panel exists")) };
    let mut all = [[0f32; PANEL]; R];
    if !out.fresh {
        for (r, sums) in all.iter_mut().enumerate() {
            // SAFETY: `out` has a row `r`.
            *sums = unsafe { out.value(r, 0).cast::<[f32; PANEL]>().read_unaligned() };
        }
    }
    let k_blocks = k / BLOCK;
    let mut span = [[0f32; PANEL]; SPAN];
    for b in 0..k_blocks {
        let rows = RowBlock::<R>(x.wrapping_add(b * ROW_BLOCK_BYTES * R));
        let quants = &panel[layout.block_offset(b).0..][..layout.quant_bytes()];
        let scales: [([f32; 2], f32); PANEL] = std::array::from_fn(|lane| blocks::scales(layout, panel, b, lane));
        for (r, sums) in all.iter_mut().enumerate() {
            // SAFETY: row `r` of a prepared block of `R` rows, which is aligned to 4 bytes.
            let (scale, sum, late) = unsafe { (*rows.scale(r), *rows.minus_sum(r), *rows.minus_late_sum(r)) };
            // Minus the quant that stands for zero, times a sum.
            let zero = |sum: i32| if layout.has_min() { 0 } else { sum >> (7 - layout.zero_shift()) };
            let mut dots = [[0i32; PANEL]; 2];
            for group in 0..8 {
                // SAFETY: as above.
                let a = unsafe { *rows.values(group, r) }.to_ne_bytes().map(|a| i32::from(a as i8));
                let (at, shift) = if layout.is_nibble() { (group % 4, group / 4 * 4) } else { (group, 0) };
                let mask = if layout.is_nibble() { 15 } else { 255 };
                for (dot, w) in dots[group / 4].iter_mut().zip(quants[at * 4 * PANEL..].chunks_exact(4)) {
                    *dot += a.iter().zip(w).map(|(a, w)| a * i32::from(w >> shift & mask)).sum::<i32>();
                }
            }
            let parts = if layout == Layout::Byte16 { 2 } else { 1 };
            for lane in 0..PANEL {
                let [early, after] = [dots[0][lane], dots[1][lane]];
                let exact = if parts == 2 {
                    [early + zero(sum - late), after + zero(late)]
                } else {
                    [early + after + zero(sum), 0]
                };
                for (dot, d) in exact.into_iter().zip(scales[lane].0).take(parts) {
                    sums[lane] = multiply_add(dot as f32, d * scale, sums[lane]);
                }
            }
        }
        if layout.has_min() {
            span[b % SPAN] = scales.map(|(_, minimum)| minimum);
            if (b + 1) % SPAN == 0 || b + 1 == k_blocks {
                let first = b / SPAN * SPAN;
                let span = &span[..b + 1 - first];
                let y = minima::sums_of(x, k_blocks, R, first).cast::<u32>();
                // SAFETY: the sums of this span of a prepared block, which is aligned to 4 bytes.
                let y = unsafe { std::slice::from_raw_parts(y, minima::row_bytes(span.len()) / 4 * R) };
                for (r, sums) in all.iter_mut().enumerate() {
                    minima::add(span, y, r, R, sums);
                }
            }
        }
    }
    for (r, sums) in all.iter().enumerate() {
        // SAFETY: `out` has a row `r`.
        unsafe { out.value(r, 0).cast::<[f32; PANEL]>().write_unaligned(*sums) }
    }
}

/// `sum + a·b`, fused where the target does that in one instruction.
#[inline(always)]
fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
    if cfg!(target_feature = "fma") { a.mul_add(b, sum) } else { sum + a * b }
}
