//! The kernel of many rows that takes products of scales from [levels](super::levels).
#![allow(unsafe_code)]

use super::levels::{FEWEST_ROWS, Tables};
use super::weights_avx512::quants;
use super::{LAYOUTS, LEVELS, ROW_BLOCK_BYTES, RowBlock, SCALE_BITS, add_minima_avx512, by_layout};
use crate::kernels::linear::float::avx512::Rows;
use crate::kernels::linear::layout::{BLOCK, Layout};
use crate::kernels::linear::{Ahead, Sums};
use std::arch::x86_64::*;

/// Multiplies the blocks of one span: panel at the span, tables, prepared row block at the span and its sums of the span, inputs, where sums
/// go, what to prefetch.
pub(super) type LevelKernel = unsafe fn(*const u8, *const Tables, (*const u8, *const u8), usize, Sums, Ahead);

/// The kernel for `rows` rows (8 to 12).
pub(super) fn kernel(layout: Layout, rows: usize) -> LevelKernel {
    macro_rules! table {
        (3) => {
            unreachable!("scales of 16 inputs have no levels")
        };
        ($code:literal) => {
            [
                multiply::<8, $code>,
                multiply::<9, $code>,
                multiply::<10, $code>,
                multiply::<11, $code>,
                multiply::<12, $code>,
            ][rows - FEWEST_ROWS] as LevelKernel
        };
    }
    by_layout!(layout, table)
}

/// Repeats a block for each row below `$R`, at most 12: written out, as the compiler would not unroll so long a loop.
macro_rules! each_row {
    ($r:ident of $R:ident, $body:block) => {
        each_row!(@ $r, $R, $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $r:ident, $R:ident, $body:block, $($row:literal)*) => {
        $(if $row < $R {
            let $r = $row;
            $body
        })*
    };
}

/// # Safety
/// The CPU has the features; `panel` holds the panel of `k` inputs that the layout prescribes, or starts at any 256 inputs of one; `x` is a
/// prepared block of `R` rows (aligned to 4 bytes), `tables` are those of these `k` inputs, one span of minima at most, whose sums are at `y`;
/// `out` addresses `R` rows of `PANEL` values.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply<const R: usize, const LAYOUT: usize>(
    panel: *const u8,
    tables: *const Tables,
    (x, y): (*const u8, *const u8),
    k: usize,
    out: Sums,
    mut ahead: Ahead,
) {
    let layout = const { LAYOUTS[LAYOUT] };
    let blocks = k / BLOCK;
    let mut next = Rows::<R>::after(&out, blocks, 1);
    for half in 0..2 {
        let mut sums = [[_mm512_setzero_ps()]; R];
        if !out.fresh {
            each_row!(r of R, {
                // SAFETY: 16 of the 32 values of row `r`.
                sums[r] = [unsafe { _mm512_loadu_ps(out.value(r, half * 16)) }];
            });
        }
        for b in 0..blocks {
            let block = panel.wrapping_add(layout.block_offset(b).0);
            let rows = RowBlock::<R>(x.wrapping_add(b * ROW_BLOCK_BYTES * R));
            ahead.fetch();
            next.fetch();
            let mut dots = [_mm512_setzero_si512(); R];
            if !layout.has_min() {
                each_row!(r of R, {
                    // SAFETY: row `r` of the prepared block.
                    dots[r] = _mm512_set1_epi32(unsafe { *rows.minus_sum(r) });
                });
            }
            // SAFETY: inside the quants of the block.
            let w = |group| unsafe { quants(block, layout, group, half) };
            // SAFETY: row `r < R` of the prepared block.
            let values = |group, r| _mm512_set1_epi32(unsafe { *rows.values(group, r) });
            for group in 0..7 {
                let w = w(group);
                each_row!(r of R, {
                    dots[r] = _mm512_dpbusd_epi32(dots[r], w, values(group, r));
                });
            }
            // After its last group a row is scaled at once: conversions and powers of two, which run on the units of additions, then lie among dot
            // products (measured on AMD Zen 4: 10.19 slots of multipliers for a row and block, 10.26 with all of them behind the last product).
            let w = w(7);
            each_row!(r of R, {
                dots[r] = _mm512_dpbusd_epi32(dots[r], w, values(7, r));
                // SAFETY: row `r` of the prepared block, and one of the `LEVELS` vectors of the block and half.
                let d = unsafe {
                    // Read one by one: levels of several rows at once would leave a vector by instructions that take slots of multipliers.
                    let scale = rows.scale(r).cast::<u32>().read_volatile();
                    let level = scale as usize >> (23 - SCALE_BITS) & (LEVELS - 1);
                    let level = Tables::level(tables, b, half, level);
                    _mm512_scalef_ps(_mm512_load_ps(level), _mm512_set1_ps(*rows.exponent(r)))
                };
                sums[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), d, sums[r][0]);
            });
        }
        if layout.has_min() {
            // SAFETY: these minima, and the sums of the span, were written.
            unsafe { add_minima_avx512::add::<R>(&mut sums, Tables::minima(tables), half, blocks, y) }
        }
        each_row!(r of R, {
            // SAFETY: 16 of the 32 values of row `r`.
            unsafe { _mm512_storeu_ps(out.value(r, half * 16), sums[r][0]) }
        });
    }
}
