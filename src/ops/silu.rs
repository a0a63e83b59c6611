//! `silu(x)`: y = x·σ(x), element by element, with σ the logistic function.
//!
//! x, y: rows × C. dy/dx = σ(x)·(1 + x·(1 − σ(x))).

use super::pointwise::{BinaryKernel, UnaryKernel, map, pointwise_cost, row_case};
use super::{Case, Cost, GradBuilder, Kernel, Op, RefTensor, Signature, rule};
use crate::graph::{Attrs, TensorId};
use crate::kernels::activation;
use crate::kernels::vector::map::Write;
use crate::tensor::TensorType;

/// SiLU, also known as swish.
pub struct Silu;
/// `silu.d_input(d_out, x)`: d_input = d_out · silu'(x).
pub struct SiluDInput;

impl Op for Silu {
    fn keyword(&self) -> &'static str {
        "silu"
    }
    fn doc(&self) -> &'static str {
        "silu(x): x / (1 + e^−x), element by element."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 1)?;
        Ok(vec![rule::rows_like(operands, rule::width(operands, 0)?)])
    }
    fn may_alias(&self, _sig: &Signature, _operand: usize, _output: usize) -> bool {
        true
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None]) };
        let operands = vec![d, g.operand(0)];
        Ok(vec![Some(g.emit("silu.d_input", operands, Attrs::new())?[0])])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 15.0, 2.0)
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(UnaryKernel { rows: activation::silu_rows, in_place: activation::silu_rows_inplace }))
    }
    fn reference(&self, _sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        Some(vec![map(&x[0], |v| v / (1.0 + (-v).exp()))])
    }
    fn cases(&self) -> Vec<Case> {
        row_case(1)
    }
}

impl Op for SiluDInput {
    fn keyword(&self) -> &'static str {
        "silu.d_input"
    }
    fn doc(&self) -> &'static str {
        "silu.d_input(d_out, x): d_out · silu'(x)."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 2)?;
        Ok(vec![rule::rows_like(operands, rule::same_width(operands, 0, 1)?)])
    }
    fn may_alias(&self, _sig: &Signature, operand: usize, _output: usize) -> bool {
        operand == 0
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 20.0, 3.0)
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(BinaryKernel {
            rows: |isa, d, x, out| activation::silu_backward(isa, x, d, out, Write::Overwrite),
            in_place: |isa, d, x| activation::silu_backward_inplace(isa, x, d),
            commutes: false,
        }))
    }
}
