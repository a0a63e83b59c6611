//! `add(a, b)`: y = a + b, element by element (the residual stream). a, b, y: rows × C. da = db = dy.

use super::pointwise::{BinaryKernel, pointwise_cost, row_case};
use super::{Case, Cost, GradBuilder, Kernel, Op, RefTensor, Signature, rule};
use crate::graph::{Attrs, TensorId};
use crate::kernels::elementwise;
use crate::tensor::TensorType;

/// Sum of two tensors.
pub struct Add;

impl Op for Add {
    fn keyword(&self) -> &'static str {
        "add"
    }
    fn doc(&self) -> &'static str {
        "add(a, b), or a + b: element by element."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 2)?;
        Ok(vec![rule::rows_like(operands, rule::same_width(operands, 0, 1)?)])
    }
    fn may_alias(&self, _sig: &Signature, _operand: usize, _output: usize) -> bool {
        true
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        Ok(vec![g.d_outputs[0]; 2])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 1.0, 3.0)
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(BinaryKernel { rows: elementwise::add, in_place: elementwise::add_inplace, commutes: true }))
    }
    fn reference(&self, _sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let data = x[0].data.iter().zip(&x[1].data).map(|(a, b)| a + b).collect();
        Some(vec![RefTensor { data, ..x[0].clone() }])
    }
    fn cases(&self) -> Vec<Case> {
        row_case(2)
    }
}
