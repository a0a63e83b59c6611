//! Lines: 32 consecutive inputs of a row in bf16, as tile registers ([`crate::kernels::tiles`]) take the rows of their left operand. The lines of
//! a block of rows stand side by side: `[k / 32][rows][32]`, zero past the end of a row.
#![allow(unsafe_code)]

use super::avx512::transpose;
use super::words_avx512::{load_native, load_pairs, pair_exact, pair_native, values, wide_values};
use super::{Block, LINE, Value};
use crate::kernels::isa::Isa;
use crate::kernels::tiles::ROW_BYTES;
use crate::kernels::view::View;
use half::bf16;
use std::arch::x86_64::*;

const _: () = assert!(LINE * size_of::<bf16>() == ROW_BYTES);

/// Words of a line.
const WORDS: usize = LINE / 2;

/// Lines of a row that are made before the next row has its turn: lines of one row are far apart, those of neighbours adjacent.
const AT_A_TIME: usize = 2;

/// Writes the lines of stored rows: line `g` of row `r` of a block goes to `dst[start + (g × count + r) × 16 ..]`.
///
/// # Panics
/// When the path has no tile registers, a block has rows that are not stored, or `dst` is too short.
pub fn lines<V: Value>(isa: Isa, stored: &View<V>, blocks: &[Block], dst: &mut [u32]) {
    check(isa, stored.rows(), stored.width(), blocks, dst);
    for &block in blocks {
        // SAFETY: the path has AVX-512 with bf16 conversions; rows and room were checked.
        unsafe { V::lines(stored, block, dst.as_mut_ptr()) }
    }
}

/// As [`lines`] for the rows of the transpose: `k` stored rows, whose columns the blocks name.
///
/// # Panics
/// As [`lines`].
pub fn turned_lines<V: Value>(isa: Isa, stored: &View<V>, blocks: &[Block], dst: &mut [u32]) {
    check(isa, stored.width(), stored.rows(), blocks, dst);
    // SAFETY: the path has AVX-512 with bf16 conversions; columns and room were checked.
    unsafe { V::turned_lines(stored, blocks, dst.as_mut_ptr()) }
}

/// Checks blocks of `rows` rows of `k` inputs.
fn check(isa: Isa, rows: usize, k: usize, blocks: &[Block], dst: &[u32]) {
    assert!(isa == Isa::Amx, "lines are for tile registers");
    for block in blocks {
        assert!(block.first + block.count <= rows, "a block beyond {rows} rows");
        assert!(
            dst.len() >= block.start + k.div_ceil(LINE) * block.count * WORDS,
            "{k} inputs of {} rows",
            block.count
        );
    }
}

/// Defines lines of stored rows, made by `$load(pointer, values left)`.
macro_rules! define {
    ($name:ident, $features:literal, $stored:ty, $load:ident) => {
        /// # Safety
        /// The CPU has the features; the block's rows are stored, and `dst` has room for its lines.
        #[target_feature(enable = $features)]
        pub unsafe fn $name(stored: &View<$stored>, block: Block, dst: *mut u32) {
            let (k, count) = (stored.width(), block.count);
            for first in (0..k).step_by(AT_A_TIME * LINE) {
                for r in 0..count {
                    let row = stored.row_ptr(block.first + r);
                    for i in (first..k.min(first + AT_A_TIME * LINE)).step_by(LINE) {
                        let line = dst.wrapping_add(block.start + (i / LINE * count + r) * WORDS);
                        // SAFETY: reads at most the `k - i` values that are left; the line is one of the block's.
                        unsafe { _mm512_storeu_si512(line.cast(), $load(row.wrapping_add(i), (k - i).min(LINE))) };
                    }
                }
            }
        }
    };
}

define!(lines_f32, "avx512f,avx512bw,avx512vl,avx512bf16", f32, load_native);
define!(lines_bf16, "avx512f,avx512bw,avx512vl", bf16, load_pairs);

/// Defines lines of stored columns: 32 rows of 16 values make 16 vectors of pairs, and transposed the lines of 16 columns.
macro_rules! define_turned {
    ($name:ident, $features:literal, $stored:ty, $load:ident, $convert:ident) => {
        /// # Safety
        /// The CPU has the features; the blocks' columns are stored, and `dst` has room for their lines.
        #[target_feature(enable = $features)]
        pub unsafe fn $name(stored: &View<$stored>, blocks: &[Block], dst: *mut u32) {
            let k = stored.rows();
            for first in (0..k).step_by(LINE) {
                let here = LINE.min(k - first);
                for block in blocks {
                    let lines = dst.wrapping_add(block.start + first / LINE * block.count * WORDS);
                    for c in (0..block.count).step_by(16) {
                        let (column, left) = (block.first + c, (block.count - c).min(16));
                        let mut pairs = [_mm512_setzero_si512(); WORDS];
                        for (i, pair) in pairs.iter_mut().enumerate().take(here.div_ceil(2)) {
                            let row = first + 2 * i;
                            // SAFETY: both rows are stored, and `left` columns from `column` on.
                            unsafe {
                                let early = $load(stored.row_ptr(row).wrapping_add(column), left);
                                let late =
                                    (row + 1 < k).then(|| $load(stored.row_ptr(row + 1).wrapping_add(column), left));
                                *pair = $convert(early, late);
                            }
                        }
                        for (r, &line) in transpose(pairs).iter().enumerate().take(left) {
                            // SAFETY: the line of column `c + r` of the block.
                            unsafe { _mm512_storeu_si512(lines.wrapping_add((c + r) * WORDS).cast(), line) };
                        }
                    }
                }
            }
        }
    };
}

define_turned!(turned_f32, "avx512f,avx512bw,avx512vl,avx512bf16", f32, values, pair_native);
define_turned!(turned_bf16, "avx512f,avx512bw,avx512vl", bf16, wide_values, pair_exact);

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of `k` inputs that `value(row, input)` gives.
    fn expected(block: Block, k: usize, value: impl Fn(usize, usize) -> bf16) -> Vec<bf16> {
        let mut all = vec![bf16::ZERO; k.div_ceil(LINE) * block.count * LINE];
        for (r, i) in (0..block.count).flat_map(|r| (0..k).map(move |i| (r, i))) {
            all[(i / LINE * block.count + r) * LINE + i % LINE] = value(block.first + r, i);
        }
        all
    }

    #[test]
    fn rows_and_columns_become_lines() {
        if !Isa::available().contains(&Isa::Amx) {
            return;
        }
        for (k, pitch) in [(1usize, 70usize), (31, 64), (32, 65), (33, 67), (70, 64), (96, 81)] {
            let lengths = k.div_ceil(LINE) * WORDS;
            let blocks =
                [(0, 32), (32, 17), (49, 15)].map(|(first, count)| Block { first, count, start: first * lengths });
            let value = |i: usize| bf16::from_f32(i as f32 * 0.37 - 300.0);
            let mut dst = vec![7u32; 64 * lengths];
            let check = |what: &str, dst: &mut Vec<u32>, value: &dyn Fn(usize, usize) -> bf16| {
                for block in blocks {
                    let got: &[bf16] = bytemuck::cast_slice(&dst[block.start..][..lengths * block.count]);
                    assert!(got == expected(block, k, value), "{what} k={k} {block:?}");
                }
                dst.fill(7);
            };
            let turned = |r: usize, i: usize| value(i * pitch + r);
            let narrow: Vec<bf16> = (0..k * pitch).map(value).collect();
            let wide: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
            turned_lines(Isa::Amx, &View::new(&wide, k, pitch, 64), &blocks, &mut dst);
            check("columns of f32", &mut dst, &turned);
            turned_lines(Isa::Amx, &View::new(&narrow, k, pitch, 64), &blocks, &mut dst);
            check("columns of bf16", &mut dst, &turned);
            let plain = |r: usize, i: usize| value(r * (k + 3) + i);
            let narrow: Vec<bf16> = (0..64 * (k + 3)).map(value).collect();
            let wide: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
            lines(Isa::Amx, &View::new(&wide, 64, k + 3, k), &blocks, &mut dst);
            check("rows of f32", &mut dst, &plain);
            lines(Isa::Amx, &View::new(&narrow, 64, k + 3, k), &blocks, &mut dst);
            check("rows of bf16", &mut dst, &plain);
        }
    }
}
