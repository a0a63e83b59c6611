//! `block_norms(g…)`: √(Σ x²) of each block of 65536 elements of each gradient, in order: [blocks, 2], each norm as an f32 and the
//! rest that it leaves, which together keep 48 bits of it and overflow no sooner than the gradients' norm itself.
//!
//! Squares add up in fixed blocks of each gradient, in order, whatever the threads.

use super::{Cost, Kernel, Op, Operands, Signature, rule};
use crate::graph::Attrs;
use crate::kernels::square_sum::{SQUARE_BLOCK, square_sum};
use crate::tensor::TensorType;

/// Norms of the blocks of gradients.
pub struct BlockNorms;

/// Elements of a block, which is one tile.
pub const BLOCK: usize = 4 * SQUARE_BLOCK;

impl Op for BlockNorms {
    fn keyword(&self) -> &'static str {
        "block_norms"
    }
    fn doc(&self) -> &'static str {
        "block_norms(g…): norm of each block of each gradient, for grad_norm. Made by passes."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.is_empty() {
            return Err("takes gradients, not nothing".into());
        }
        (0..operands.len()).try_for_each(|i| rule::fixed(operands, i, operands[i].shape.dims()))?;
        let blocks = operands.iter().map(|g| g.shape.elements().div_ceil(BLOCK)).sum();
        Ok(vec![rule::fixed_type(&[blocks, 2])])
    }
    fn cost(&self, sig: &Signature, _rows: usize, _context: usize) -> Cost {
        let n: f64 = sig.operands.iter().map(|t| t.shape.elements() as f64).sum();
        Cost { flops: 2.0 * n, bytes: 4.0 * n }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(NormsKernel { lengths: sig.operands.iter().map(|t| t.shape.elements()).collect() }))
    }
}

struct NormsKernel {
    /// Elements of each gradient.
    lengths: Vec<usize>,
}

impl Kernel for NormsKernel {
    fn tiles(&self, _o: &dyn Operands, _phase: usize) -> usize {
        self.lengths.iter().map(|n| n.div_ceil(BLOCK)).sum()
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let mut within = tile;
        for (i, &len) in self.lengths.iter().enumerate() {
            if within < len.div_ceil(BLOCK) {
                let block = &o.fixed(i)[within * BLOCK..((within + 1) * BLOCK).min(len)];
                let norm = square_sum(o.isa(), block).sqrt();
                let high = norm as f32;
                // Nothing is left of what is not finite.
                let rest = if high.is_finite() { (norm - f64::from(high)) as f32 } else { 0.0 };
                o.fixed_output(0, 2 * tile..2 * tile + 2).row_mut(0).copy_from_slice(&[high, rest]);
                return;
            }
            within -= len.div_ceil(BLOCK);
        }
        unreachable!("tile {tile} beyond the gradients");
    }
}
