//! `grad_norm(g…, hyper)`: [norm, scale] with norm = √(Σ over all gradients of g²) and scale = min(1, max norm / (norm + 1e-6)), the
//! factor that clips the gradients to `max norm` together (Pascanu, Mikolov and Bengio, 2013); 1 when `max norm` is 0.
//!
//! Squares add up in fixed blocks of each gradient, in order, whatever the threads.

use super::{Capacity, Cost, Kernel, Op, Operands, Scratch, Signature, hyper, rule};
use crate::graph::Attrs;
use crate::kernels::adamw::{SQUARE_BLOCK, square_sum};
use crate::tensor::TensorType;

/// Norm of all gradients.
pub struct GradNorm;

/// Elements of one tile.
const TILE: usize = 4 * SQUARE_BLOCK;

impl Op for GradNorm {
    fn keyword(&self) -> &'static str {
        "grad_norm"
    }
    fn doc(&self) -> &'static str {
        "grad_norm(g…, hyper): norm of all gradients together and the factor that clips them. Made by passes."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let last = operands.len().checked_sub(1).ok_or("takes gradients and hyper, not nothing")?;
        hyper::is_hyper(operands, last)?;
        (0..last).try_for_each(|i| rule::fixed(operands, i, operands[i].shape.dims()))?;
        Ok(vec![rule::fixed_type(&[2])])
    }
    fn cost(&self, sig: &Signature, _rows: usize, _context: usize) -> Cost {
        let n: f64 = sig.operands.iter().map(|t| t.shape.elements() as f64).sum();
        Cost { flops: 2.0 * n, bytes: 4.0 * n }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let gradients = &sig.operands[..sig.operands.len() - 1];
        Ok(Box::new(NormKernel { lengths: gradients.iter().map(|t| t.shape.elements()).collect() }))
    }
}

struct NormKernel {
    lengths: Vec<usize>,
}

impl NormKernel {
    fn sums(&self) -> usize {
        self.lengths.iter().map(|n| n.div_ceil(TILE)).sum()
    }

    /// Elements of shared scratch for the f64 sums; each has a cache line, since tiles write them side by side.
    const PITCH: usize = 16;
}

impl Kernel for NormKernel {
    fn scratch(&self, _capacity: &Capacity) -> Scratch {
        Scratch { shared: 4 * Self::PITCH * self.sums(), per_worker: 0 }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, _o: &dyn Operands, phase: usize) -> usize {
        if phase == 0 { self.sums() } else { 1 }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        if phase == 1 {
            let total: f64 = (0..self.sums())
                .map(|i| {
                    bytemuck::pod_read_unaligned::<f64>(bytemuck::cast_slice(
                        o.shared(i * Self::PITCH..i * Self::PITCH + 2).row(0),
                    ))
                })
                .fold(0.0, |a, b| a + b);
            let norm = total.sqrt();
            let max_norm = f64::from(o.fixed(self.lengths.len())[hyper::MAX_NORM]);
            let scale = if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
            o.fixed_output(0, 0..2).row_mut(0).copy_from_slice(&[norm as f32, scale as f32]);
            return;
        }
        let mut within = tile;
        for (i, &len) in self.lengths.iter().enumerate() {
            if within < len.div_ceil(TILE) {
                let sum = square_sum(o.isa(), &o.fixed(i)[within * TILE..((within + 1) * TILE).min(len)]);
                let mut out = o.shared_mut(tile * Self::PITCH..tile * Self::PITCH + 2);
                bytemuck::cast_slice_mut::<f32, u8>(out.row_mut(0)).copy_from_slice(&sum.to_ne_bytes());
                return;
            }
            within -= len.div_ceil(TILE);
        }
        unreachable!("tile {tile} beyond the gradients");
    }
}
