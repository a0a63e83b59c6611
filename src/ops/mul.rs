//! `mul(a, b)`: y = a · b, element by element (gated MLPs). a, b, y: rows × C. da = dy·b, db = dy·a.

use super::pointwise::{BinaryKernel, pointwise_cost, row_case};
use super::{Case, Cost, GradBuilder, Kernel, Op, RefTensor, Signature, rule};
use crate::graph::{Attrs, TensorId};
use crate::kernels::elementwise;
use crate::kernels::vector::map::Write;
use crate::tensor::TensorType;

/// Product of two tensors.
pub struct Mul;

impl Op for Mul {
    fn keyword(&self) -> &'static str {
        "mul"
    }
    fn doc(&self) -> &'static str {
        "mul(a, b), or a * b: element by element."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 2)?;
        Ok(vec![rule::rows_like(operands, rule::same_width(operands, 0, 1)?)])
    }
    fn may_alias(&self, _sig: &Signature, _operand: usize, _output: usize) -> bool {
        true
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None; 2]) };
        let (a, b, wants) = (g.operand(0), g.operand(1), g.wants.clone());
        let mut of = |wanted: bool, other: TensorId| -> Result<Option<TensorId>, String> {
            if wanted { Ok(Some(g.emit("mul", vec![d, other], Attrs::new())?[0])) } else { Ok(None) }
        };
        let d_a = of(wants[0], b)?;
        let d_b = of(wants[1], a)?;
        Ok(vec![d_a, d_b])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 1.0, 3.0)
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(BinaryKernel {
            rows: |isa, a, b, out| elementwise::multiply(isa, a, b, out, Write::Overwrite),
            in_place: elementwise::multiply_inplace,
            commutes: true,
        }))
    }
    fn reference(&self, _sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let data = x[0].data.iter().zip(&x[1].data).map(|(a, b)| a * b).collect();
        Some(vec![RefTensor { data, ..x[0].clone() }])
    }
    fn cases(&self) -> Vec<Case> {
        row_case(2)
    }
}
