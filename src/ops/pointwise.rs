//! Ops that work element by element: GELU, its f16 table, SiLU, product and sum, with their derivatives.
//!
//! They share one executable form; each op's file holds its formula and its function.

use super::tiling::{row_tiles, tile_rows};
use super::{Kernel, Operands};
use crate::kernels::elementwise::copy;
use crate::kernels::isa::Isa;
use crate::kernels::view::{InOut, View};

/// `out = f(a)`.
pub type Unary = fn(Isa, &mut InOut<f32>);
/// `out = f(a, b)`, where `a` is overwritten.
pub type Binary = fn(Isa, &mut InOut<f32>, &View<f32>);

/// An elementwise function of one operand.
pub struct UnaryKernel(pub Unary);

impl Kernel for UnaryKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let mut out = output_with(o, 0, rows);
        self.0(o.isa(), &mut out);
    }
}

/// An elementwise function of two operands. `commutes`: it may also be computed over its second operand.
pub struct BinaryKernel {
    /// Computes over the first operand.
    pub function: Binary,
    /// Whether f(a, b) = f(b, a).
    pub commutes: bool,
}

impl Kernel for BinaryKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let (first, second) = if self.commutes && o.in_place(1, 0) { (1, 0) } else { (0, 1) };
        let mut out = output_with(o, first, rows.clone());
        (self.function)(o.isa(), &mut out, &o.input(second).slice_rows(rows));
    }
}

/// Rows of output 0 that hold operand `i`: the output itself when it lies over the operand, else a copy.
pub fn output_with(o: &dyn Operands, i: usize, rows: std::ops::Range<usize>) -> InOut<'_, f32> {
    let mut out = o.output(0, rows.clone(), 0..o.output_width(0));
    if !o.in_place(i, 0) {
        copy(&o.input(i).slice_rows(rows), &mut out);
    }
    out
}
