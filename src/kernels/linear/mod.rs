//! Inference products with weights packed once: `y[m, n] = Σ_k x[m, k] · W[n, k]`.
//!
//! 1. [`pack`] turns a weight matrix into panels of [`PANEL`] outputs, one layout per element type, the same for every instruction
//!    set (see [`Layout`]); [`PackedMatrix`] reads them.
//! 2. [`RowBlocks`] splits the rows of a call into register blocks and writes the activations in the form the product wants.
//! 3. [`product`] multiplies a range of panels with a range of row blocks and hands every finished row piece to an [`Epilogue`];
//!    [`Grid`] splits a whole product into such tiles. Few rows go over several panels at once ([`few_rows`]).
//!
//! **Order of accumulation.** Every output element is one chain over ascending `k`, whatever the tile and the number of rows:
//! one fused multiply-add per input for f32 and f16 weights; per pair of inputs, odd then even, for bf16, but on tile registers
//! per 32 inputs the sum of two chains of fused multiply-adds from zero, of the even and of the odd ones; for 8-bit and 4-bit weights an
//! exact integer dot product per block of 32 inputs (16 for Q6_K), then one fused multiply-add per block, and behind every 768 inputs,
//! where blocks have a minimum, what all of these add (`int8/minima.rs`). So a row has the same bits whether it is computed alone or among
//! 512.
//! The portable path multiplies and adds separately unless its target has fused multiply-add.

mod ahead;
mod blocks;
mod chunks;
pub(super) mod epilogue;
mod few_rows;
mod finish;
pub(super) mod float;
mod grid;
mod int8;
mod layout;
mod matrix;
mod pack;
mod product;
mod rows;
#[cfg(test)]
pub(super) mod store;

pub use ahead::Place;
use ahead::Shares;
pub(in crate::kernels) use ahead::{AHEAD_INPUTS, Ahead, PAIR, ROWS_AT_MEMORY_SPEED};
pub use epilogue::{Caching, Direct, Epilogue, PairEpilogue, add, copy, prefetch, prefetch_line};
pub(in crate::kernels) use finish::add_bias_to_sums;
pub use finish::{Added, add_bias, write_panels};
pub use grid::Grid;
pub use layout::{Layout, PANEL, packed_bytes, panel_bytes};
pub use matrix::PackedMatrix;
pub use pack::{Source, pack};
pub use product::{product, product_pair};
pub use rows::{Prepared, RowBlocks};

/// Multiplies one panel with one row block over the whole of `k`.
///
/// Arguments: panel bytes, prepared row-block bytes, `k`, where sums go, what to prefetch.
pub(super) type Kernel = unsafe fn(*const u8, *const u8, usize, Sums, Ahead);

/// Where a kernel writes `rows × PANEL` sums.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Sums {
    /// First sum of the first row.
    pub at: *mut f32,
    /// From one row to the next, in values.
    pub stride: usize,
    /// Whether sums start from zero; else from the values that are there.
    pub fresh: bool,
    /// Rows of [`PANEL`] values, as many, that are prefetched meanwhile.
    pub next: Place,
}

impl Sums {
    /// Sum `column` of row `row`.
    #[inline(always)]
    fn value(&self, row: usize, column: usize) -> *mut f32 {
        self.at.wrapping_add(row * self.stride + column)
    }
}

/// The table of one const-generic kernel for several row counts, with further generic arguments after the rows.
macro_rules! kernels_by_rows {
    ([$($rows:literal),+], $kernel:ident, $arguments:tt) => {
        [$(kernels_by_rows!(@one $kernel $rows $arguments)),+]
    };
    (@one $kernel:ident $rows:literal [$($argument:expr),*]) => {
        $kernel::<$rows, $({ $argument }),*> as $crate::kernels::linear::Kernel
    };
}
use kernels_by_rows;

#[cfg(test)]
mod tests;
