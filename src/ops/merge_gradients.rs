//! `merge_gradients(a, b)`: a + b in the memory of a, and zeros in b. Both hold sums of one parameter's gradient over micro-batches that
//! different uses of the parameter contribute; kept apart, they add up in the order in which one big batch adds them.

use super::tiling::part;
use super::{Cost, Kernel, Op, Operands, Signature, rule};
use crate::graph::Attrs;
use crate::kernels::elementwise::add_slices;
use crate::tensor::TensorType;

/// Sum of two accumulated gradients.
pub struct MergeGradients;

/// Elements of one tile.
const TILE: usize = 1 << 15;

impl Op for MergeGradients {
    fn keyword(&self) -> &'static str {
        "merge_gradients"
    }
    fn doc(&self) -> &'static str {
        "merge_gradients(a, b): a + b over a, and zeros over b. Made by passes."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 2)?;
        let dims = operands[0].shape.dims();
        rule::fixed(operands, 0, dims)?;
        rule::fixed(operands, 1, dims)?;
        Ok(vec![rule::fixed_type(dims)])
    }
    fn must_alias(&self, _sig: &Signature, _output: usize) -> Option<usize> {
        Some(0)
    }
    fn mutates(&self, _sig: &Signature, operand: usize) -> bool {
        operand == 1
    }
    fn cost(&self, sig: &Signature, _rows: usize, _context: usize) -> Cost {
        let n = sig.outputs[0].shape.elements() as f64;
        Cost { flops: n, bytes: 16.0 * n }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(MergeKernel { len: sig.outputs[0].shape.elements() }))
    }
}

struct MergeKernel {
    len: usize,
}

impl Kernel for MergeKernel {
    fn tiles(&self, _o: &dyn Operands, _phase: usize) -> usize {
        self.len.div_ceil(TILE)
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let elements = part(tile, self.tiles(o, phase), self.len);
        let (mut a, mut b) = (o.fixed_output(0, elements.clone()), o.fixed_in_place(1, elements));
        add_slices(o.isa(), a.row_mut(0), b.row(0));
        b.row_mut(0).fill(0.0);
    }
}
