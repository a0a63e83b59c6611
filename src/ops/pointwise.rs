//! Ops that work element by element: GELU, its f16 table, SiLU, product and sum, with their derivatives.
//!
//! They share one executable form, cost and test case; each op's file holds its formula and its function.

use super::tiling::{row_tiles, tile_rows};
use super::{Case, Cost, Kernel, Operands, RefTensor, Signature, rule};
use crate::graph::Attrs;
use crate::kernels::elementwise::copy;
use crate::kernels::isa::Isa;
use crate::kernels::view::{InOut, View, ViewMut};
use crate::tensor::{RowExtent, Shape, TensorType};

/// Arithmetic and traffic of an elementwise op on `arrays` arrays.
pub(super) fn pointwise_cost(sig: &Signature, rows: usize, flops: f64, arrays: f64) -> Cost {
    let n = sig.outputs[0].shape.elements() as f64 * rows as f64;
    Cost { flops: flops * n, bytes: 4.0 * arrays * n }
}

/// One case: a few rows of odd width.
pub(super) fn row_case(inputs: usize) -> Vec<Case> {
    let ty = rule::rows_like(&[], 0);
    let ty = TensorType { extent: RowExtent::Step, shape: Shape::new([37]), ..ty };
    vec![Case { name: "rows", attrs: Attrs::new(), inputs: vec![ty; inputs], slots: 2, rows: 5, int_limit: 0 }]
}

/// Element-by-element reference.
pub(super) fn map(x: &RefTensor, f: impl Fn(f64) -> f64) -> RefTensor {
    RefTensor { data: x.data.iter().map(|&v| f(v)).collect(), ..x.clone() }
}

/// An elementwise function of one operand, in its two forms.
pub struct UnaryKernel {
    /// `out = f(a)`.
    pub rows: fn(Isa, &View<f32>, &mut ViewMut<f32>),
    /// `a = f(a)`.
    pub in_place: fn(Isa, &mut InOut<f32>),
}

impl Kernel for UnaryKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let mut out = o.fresh_output(0, rows.clone(), 0..o.output_width(0));
        if o.in_place(0, 0) {
            (self.in_place)(o.isa(), &mut out);
        } else {
            (self.rows)(o.isa(), &o.input(0).slice_rows(rows), &mut out);
        }
    }
}

/// An elementwise function of two operands, in its two forms.
pub struct BinaryKernel {
    /// `out = f(a, b)`.
    pub rows: fn(Isa, &View<f32>, &View<f32>, &mut ViewMut<f32>),
    /// `a = f(a, b)`.
    pub in_place: fn(Isa, &mut InOut<f32>, &View<f32>),
    /// Whether f(a, b) = f(b, a): then it may lie over its second operand, too.
    pub commutes: bool,
}

impl Kernel for BinaryKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let mut out = o.fresh_output(0, rows.clone(), 0..o.output_width(0));
        let operand = |i: usize| o.input(i).slice_rows(rows.clone());
        if o.in_place(0, 0) {
            (self.in_place)(o.isa(), &mut out, &operand(1));
        } else if self.commutes && o.in_place(1, 0) {
            (self.in_place)(o.isa(), &mut out, &operand(0));
        } else {
            (self.rows)(o.isa(), &operand(0), &operand(1), &mut out);
        }
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
