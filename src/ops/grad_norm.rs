//! `grad_norm(n…, hyper)`: [norm, scale] with norm = √(Σ over all gradients of g²) and scale = min(1, max norm / (norm + 1e-6)), the
//! factor that clips the gradients to `max norm` together (Pascanu, Mikolov and Bengio, 2013); 1 when `max norm` is 0. The operands come
//! from `block_norms`.

use super::{Cost, Kernel, Op, Operands, Signature, hyper, rule};
use crate::graph::Attrs;
use crate::tensor::TensorType;

/// Norm of all gradients.
pub struct GradNorm;

impl Op for GradNorm {
    fn keyword(&self) -> &'static str {
        "grad_norm"
    }
    fn doc(&self) -> &'static str {
        "grad_norm(n…, hyper): norm of all gradients together, from those of their blocks, and the factor that clips them. Made by passes."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let last = operands.len().checked_sub(1).ok_or("takes norms and hyper, not nothing")?;
        hyper::is_hyper(operands, last)?;
        for (i, norms) in operands[..last].iter().enumerate() {
            let &[blocks, 2] = norms.shape.dims() else {
                return Err(format!("operand {i} has shape {}, not pairs as block_norms gives them", norms.shape));
            };
            rule::fixed(operands, i, &[blocks, 2])?;
        }
        Ok(vec![rule::fixed_type(&[2])])
    }
    fn cost(&self, sig: &Signature, _rows: usize, _context: usize) -> Cost {
        let n: f64 = sig.operands.iter().map(|t| t.shape.elements() as f64).sum();
        Cost { flops: 2.0 * n, bytes: 4.0 * n }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(NormKernel { parts: sig.operands.len() - 1 }))
    }
}

struct NormKernel {
    /// Operands that hold norms; the next one is hyper.
    parts: usize,
}

impl Kernel for NormKernel {
    fn tiles(&self, _o: &dyn Operands, _phase: usize) -> usize {
        1
    }

    fn run(&self, o: &dyn Operands, _phase: usize, _tile: usize) {
        let pairs = (0..self.parts).flat_map(|i| o.fixed(i).chunks_exact(2));
        let total = pairs.map(|n| f64::from(n[0]) + f64::from(n[1])).fold(0.0, |sum, norm| sum + norm * norm);
        let norm = total.sqrt();
        let max_norm = f64::from(o.fixed(self.parts)[hyper::MAX_NORM]);
        let scale = if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
        o.fixed_output(0, 0..2).row_mut(0).copy_from_slice(&[norm as f32, scale as f32]);
    }
}
