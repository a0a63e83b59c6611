//! Products for training: `C[m, n] = Σ_k A[m, k] · B[k, n]` with both operands stored as they are, either way round, and packed tile by tile
//! into scratch that the caller provides.
//!
//! | product | A | B | packed for all workers |
//! | --- | --- | --- | --- |
//! | forward `[rows, out]` | input | weight, transposed when stored `[out, in]` | A |
//! | d_input `[rows, in]` | d_out | weight, transposed when stored `[in, out]` | A |
//! | d_weight `[out, in]` | d_out, transposed | input | B |
//! | d_weight `[in, out]` | input, transposed | d_out | A or B |
//!
//! One operand is packed once into scratch that all workers share (activations: their size is bounded by the rows of a step), in
//! [`Gemm::pack_tiles`] tiles; after that each of [`Gemm::tiles`] tiles packs its part of the other operand into the worker's own scratch and
//! multiplies. Transposition happens while packing.
//!
//! **Order of accumulation.** As in [`crate::kernels::linear`], every element of C is one chain over ascending `k` that starts
//! from what [`Epilogue::start`](crate::kernels::linear::Epilogue::start) says. With [`Accumulate`] it starts from the value in C: when the
//! reduction is cut into several calls (for bf16 at multiples of [`STEP`]), the result has the bits of one call over everything.

mod accumulate;
mod matrix;
mod operand;
mod product;
mod shape;
mod tile;

#[cfg(test)]
mod tests;

pub use accumulate::Accumulate;
pub use matrix::Matrix;
pub use operand::Operand;
pub use product::Gemm;
pub use shape::{Precision, STEP, Shape, Shared};
