//! Activations in the form that a product wants, in register blocks of a few rows.

use super::float;
use super::int8;
use super::layout::{Form, Layout};
use crate::kernels::interleave::{MOST_ROWS, Word, interleave};
use crate::kernels::isa::Isa;
use crate::kernels::view::View;
use crate::tensor::DType;
use std::ops::{Range, RangeInclusive};

/// The split of `rows` activation rows into register blocks of nearly equal size, for one instruction set and weight type. Of many blocks either
/// half has as many blocks and rows as the other, so that two workers which begin with half of them end together.
///
/// A prepared block of `r` rows holds, by form of the product:
/// * f32 and f16 weights: `[k][r]` f32;
/// * bf16 weights: `[k / 2][r][2]` bf16, odd `k` padded with zero; on tile registers `[k / 32][r][32]` bf16, `k` padded with zeros to a
///   multiple of 32;
/// * quantised weights, per 32 inputs: `[8][r][4]` int8, scale f32 `[r]`, -128 × sum i32 `[r]`, -128 × sum of the last 16 i32 `[r]`, the
///   scale's exponent of two f32 `[r]`; for more rows than a few on tile registers `[r][32]` int8 first. The scale is the largest
///   magnitude / 127, rounded up to three bits behind the leading one; values are rounded to nearest, ties to even. Behind all of them, per
///   768 inputs, scale × sum of each 32 as int8 `[6][r][4]` (fewer at the end), the exponent of their unit f32 `[r]`, −128 × their sum as integers
///   i32 `[r]`, and the sum of what they stand for f32 `[r]` (`int8/minima.rs`).
#[derive(Clone, Copy, Debug)]
pub struct RowBlocks {
    isa: Isa,
    form: Form,
    rows: usize,
    k: usize,
    blocks: usize,
    /// Both halves of many blocks, with equal numbers of blocks and, but for one, of rows; else the first has them all.
    halves: [Half; 2],
    row_bytes: usize,
}

/// Adjacent blocks, of which the first ones are the larger ones.
#[derive(Clone, Copy, Debug)]
struct Half {
    first_block: usize,
    first_row: usize,
    /// Rows of every block; the first `extra` blocks have one more.
    rows_each: usize,
    extra: usize,
}

impl Half {
    fn new(blocks: Range<usize>, rows: Range<usize>) -> Self {
        let count = blocks.len().max(1);
        let (rows_each, extra) = (rows.len() / count, rows.len() % count);
        Half { first_block: blocks.start, first_row: rows.start, rows_each, extra }
    }
}

impl RowBlocks {
    /// For products of `rows` rows of `k` inputs with weights of `dtype`.
    ///
    /// # Panics
    /// When `dtype` is not a weight type.
    pub fn new(isa: Isa, dtype: DType, rows: usize, k: usize) -> Self {
        let form = Layout::of(dtype).expect("a weight type").form();
        let blocks = block_count(isa, form, rows);
        let (block, row) = if blocks < FEWEST_TO_SPLIT { (blocks, rows) } else { (blocks / 2, rows.div_ceil(2)) };
        let halves = [Half::new(0..block, 0..row), Half::new(block..blocks, row..rows)];
        RowBlocks { isa, form, rows, k, blocks, halves, row_bytes: row_bytes(isa, form, k) }
    }

    /// Most bytes that the prepared form of `rows` rows of `k` inputs takes on any instruction set.
    pub fn bytes_for(dtype: DType, rows: usize, k: usize) -> usize {
        let form = Layout::of(dtype).expect("a weight type").form();
        rows * row_bytes(Isa::Portable, form, k).max(row_bytes(Isa::Amx, form, k))
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.blocks
    }

    /// Rows of all blocks.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Whether quantised products go on tile registers.
    pub(super) fn on_tiles(&self) -> bool {
        self.form == Form::Int8 && int8::uses_tiles(self.isa, self.rows)
    }

    /// The first row of block `block`.
    #[inline]
    fn start(&self, block: usize) -> usize {
        let half = &self.halves[usize::from(block >= self.halves[1].first_block)];
        let before = block - half.first_block;
        half.first_row + before * half.rows_each + before.min(half.extra)
    }

    /// Rows of block `block`.
    pub fn rows_of(&self, block: usize) -> Range<usize> {
        self.start(block)..self.start(block + 1)
    }

    /// The fewest and the most rows of a block; of no blocks, zero.
    pub(super) fn sizes(&self) -> RangeInclusive<usize> {
        let [first, second] = &self.halves;
        let fewest = if second.first_block < self.blocks { second.rows_each } else { first.rows_each };
        fewest..=first.rows_each + usize::from(first.extra > 0)
    }

    /// Bytes of all prepared blocks.
    pub fn bytes(&self) -> usize {
        self.rows * self.row_bytes
    }

    /// Where the prepared form of `blocks` lies among [`RowBlocks::bytes`].
    pub fn bytes_of(&self, blocks: Range<usize>) -> Range<usize> {
        let row = self.row_bytes;
        self.start(blocks.start) * row..self.start(blocks.end) * row
    }

    /// Writes the prepared form of the rows of `blocks`. `dst` is exactly the part [`RowBlocks::bytes_of`], aligned to 4 bytes;
    /// several threads may prepare disjoint ranges.
    ///
    /// # Panics
    /// When `x` is not `rows × k` or `dst` has the wrong size or alignment.
    pub fn prepare(&self, x: &View<f32>, blocks: Range<usize>, dst: &mut [u8]) {
        assert!(x.rows() == self.rows && x.width() == self.k, "activations are not {} × {}", self.rows, self.k);
        assert_eq!(dst.len(), self.bytes_of(blocks.clone()).len(), "prepared size");
        let mut rest = dst;
        for block in blocks {
            let rows = self.rows_of(block);
            let (here, after) = rest.split_at_mut(rows.len() * self.row_bytes);
            rest = after;
            match self.form {
                Form::F32 => self.interleave(Word::F32, x, rows, bytemuck::cast_slice_mut(here)),
                #[cfg(target_arch = "x86_64")]
                Form::Bf16 if float::uses_tiles(self.isa, Layout::Bf16) => float::tile_rows::prepare(x, rows, here),
                Form::Bf16 => self.interleave(Word::Bf16Pair, x, rows, bytemuck::cast_slice_mut(here)),
                Form::Int8 => int8::prepare(self.isa, x, rows, self.on_tiles(), here),
            }
        }
    }

    fn interleave(&self, word: Word, x: &View<f32>, rows: Range<usize>, dst: &mut [u32]) {
        let mut slices: [&[f32]; MOST_ROWS] = [&[]; MOST_ROWS];
        let count = rows.len();
        for (slice, row) in slices.iter_mut().zip(rows) {
            *slice = x.row(row);
        }
        interleave(self.isa, word, &slices[..count], dst, count);
    }
}

/// Prepared activations.
#[derive(Clone, Copy)]
pub struct Prepared<'a> {
    blocks: RowBlocks,
    bytes: &'a [u8],
}

impl<'a> Prepared<'a> {
    /// What [`RowBlocks::prepare`] wrote for all blocks.
    ///
    /// # Panics
    /// When the size or the alignment (4 bytes) is wrong.
    pub fn new(blocks: RowBlocks, bytes: &'a [u8]) -> Self {
        assert!(bytes.len() == blocks.bytes() && bytes.as_ptr().addr().is_multiple_of(4), "prepared activations");
        Prepared { blocks, bytes }
    }

    /// One row of f32, which is its own prepared form for f32 and f16 weights.
    ///
    /// # Panics
    /// When `dtype` is neither f32 nor f16.
    pub fn from_row(isa: Isa, dtype: DType, row: &'a [f32]) -> Self {
        let blocks = RowBlocks::new(isa, dtype, 1, row.len());
        assert_eq!(blocks.form, Form::F32, "{dtype} products do not take f32 rows");
        Prepared { blocks, bytes: bytemuck::cast_slice(row) }
    }

    /// The split into blocks.
    pub fn blocks(&self) -> RowBlocks {
        self.blocks
    }

    pub(super) fn block(&self, block: usize) -> &'a [u8] {
        &self.bytes[self.blocks.bytes_of(block..block + 1)]
    }
}

/// Rows in a full register block.
pub(super) fn block_rows(isa: Isa, form: Form) -> usize {
    match form {
        Form::F32 => float::block_rows(isa, Layout::F32),
        Form::Bf16 => float::block_rows(isa, Layout::Bf16),
        Form::Int8 => int8::block_rows(isa),
    }
}

/// Blocks from which on rows are split into two halves.
pub(super) const FEWEST_TO_SPLIT: usize = 8;

/// Blocks of `rows` rows.
pub(super) fn block_count(isa: Isa, form: Form, rows: usize) -> usize {
    let blocks = rows.div_ceil(block_rows(isa, form));
    if blocks < FEWEST_TO_SPLIT { blocks } else { blocks.next_multiple_of(2) }
}

/// Bytes of a full prepared block.
pub(super) fn block_bytes(isa: Isa, form: Form, k: usize) -> usize {
    block_rows(isa, form) * row_bytes(isa, form, k)
}

fn row_bytes(isa: Isa, form: Form, k: usize) -> usize {
    match form {
        Form::F32 => 4 * k,
        Form::Bf16 if float::uses_tiles(isa, Layout::Bf16) => float::tile_rows::row_bytes(k),
        Form::Bf16 => k.div_ceil(2) * 4,
        Form::Int8 => int8::row_bytes(k),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_rows_and_halves_of_many_are_alike() {
        for isa in Isa::available() {
            for dtype in [DType::F32, DType::BF16, DType::Q8_0] {
                for rows in 0..300 {
                    let blocks = RowBlocks::new(isa, dtype, rows, 64);
                    let ranges: Vec<Range<usize>> = (0..blocks.count()).map(|block| blocks.rows_of(block)).collect();
                    let ends = [0].into_iter().chain(ranges.iter().map(|r| r.end));
                    assert!(ranges.iter().map(|r| r.start).eq(ends.take(ranges.len())), "{rows} rows: {ranges:?}");
                    assert_eq!(ranges.last().map_or(0, |r| r.end), rows);
                    let sizes = || ranges.iter().map(|r| r.len());
                    let (fewest, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
                    assert_eq!(blocks.sizes(), fewest..=most, "{rows} rows: {ranges:?}");
                    assert!(most <= block_rows(isa, blocks.form) && most - fewest <= 1, "{rows} rows: {ranges:?}");
                    if ranges.len() < FEWEST_TO_SPLIT {
                        continue;
                    }
                    assert!(ranges.len().is_multiple_of(2), "{rows} rows: {ranges:?}");
                    for half in ranges.chunks(ranges.len() / 2) {
                        let count = half.last().expect("blocks").end - half[0].start;
                        assert!(count.abs_diff(rows - count) <= 1, "{rows} rows: {ranges:?}");
                        assert!(half.is_sorted_by(|a, b| a.len() >= b.len()), "{rows} rows: {ranges:?}");
                    }
                }
            }
        }
    }
}
