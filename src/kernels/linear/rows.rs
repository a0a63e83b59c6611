//! Activations in the form that a product wants, in register blocks of a few rows.

use super::float;
use super::int8;
use super::layout::{Form, Layout};
use crate::kernels::interleave::{MOST_ROWS, Word, interleave};
use crate::kernels::isa::Isa;
use crate::kernels::view::View;
use crate::tensor::DType;
use std::ops::Range;

/// The split of `rows` activation rows into register blocks of nearly equal size, for one instruction set and weight type.
///
/// A prepared block of `r` rows holds, by form of the product:
/// * f32 and f16 weights: `[k][r]` f32;
/// * bf16 weights: `[k / 2][r][2]` bf16, odd `k` padded with zero; on tile registers `[k / 32][r][32]` bf16, `k` padded with zeros to a
///   multiple of 32;
/// * quantised weights, per 32 inputs: `[8][r][4]` int8, scale f32 `[r]`, -128 × sum i32 `[r]`, -128 × sum of the last 16 i32 `[r]`, the
///   scale's exponent of two f32 `[r]`; for more rows than a few on tile registers `[r][32]` int8 first. The scale is the largest
///   magnitude / 127, rounded up to three bits behind the leading one; values are rounded to nearest, ties to even. Behind all of them, per
///   768 inputs, scale × sum of each 32 as i16 `[12][r][2]` (fewer at the end) and the exponent of their unit f32 `[r]` (`int8/minima.rs`).
#[derive(Clone, Copy, Debug)]
pub struct RowBlocks {
    isa: Isa,
    form: Form,
    rows: usize,
    k: usize,
    blocks: usize,
    /// Rows of every block; the first `extra` blocks have one more.
    rows_each: usize,
    extra: usize,
    row_bytes: usize,
}

impl RowBlocks {
    /// For products of `rows` rows of `k` inputs with weights of `dtype`.
    ///
    /// # Panics
    /// When `dtype` is not a weight type.
    pub fn new(isa: Isa, dtype: DType, rows: usize, k: usize) -> Self {
        let form = Layout::of(dtype).expect("a weight type").form();
        let blocks = rows.div_ceil(block_rows(isa, form));
        let (rows_each, extra) = (rows / blocks.max(1), rows % blocks.max(1));
        RowBlocks { isa, form, rows, k, blocks, rows_each, extra, row_bytes: row_bytes(isa, form, k) }
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

    fn start(&self, block: usize) -> usize {
        block * self.rows_each + block.min(self.extra)
    }

    /// Rows of block `block`.
    pub fn rows_of(&self, block: usize) -> Range<usize> {
        self.start(block)..self.start(block + 1)
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
