//! A parameter as kernels take it.

use super::linear::PackedMatrix;

/// A parameter that lives outside the arena.
#[derive(Clone, Copy)]
pub enum Param<'a> {
    /// A matrix packed for products.
    Packed(PackedMatrix<'a>),
    /// Plain values.
    Plain(&'a [f32]),
    /// Plain values in bf16, of a matrix that products read.
    PlainBf16(&'a [half::bf16]),
}
