//! `gelu(x)`: y = ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), element by element (Hendrycks and Gimpel, 2016).
//!
//! x, y: rows × C. dy/dx = ½(1 + tanh u) + ½·x·(1 − tanh² u)·√(2/π)·(1 + 3·0.044715·x²) with u the argument of tanh.

use super::pointwise::{BinaryKernel, UnaryKernel, map, pointwise_cost, row_case};
use super::{Case, Cost, GradBuilder, Kernel, Op, RefTensor, Signature, rule};
use crate::graph::{Attrs, TensorId};
use crate::kernels::activation;
use crate::kernels::vector::map::Write;
use crate::tensor::TensorType;

/// GELU in the tanh form.
pub struct Gelu;
/// GELU by the table of all 2^16 f16 values: x ≤ −10 → 0, x ≥ 10 → x, else the value of x rounded to f16.
pub struct GeluTable;
/// `gelu.d_input(d_out, x)`: d_input = d_out · gelu'(x).
pub struct GeluDInput;

/// The formula, in f64.
pub fn gelu(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + u.tanh())
}

fn unary(operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
    rule::arity(operands, 1)?;
    Ok(vec![rule::rows_like(operands, rule::width(operands, 0)?)])
}

impl Op for Gelu {
    fn keyword(&self) -> &'static str {
        "gelu"
    }
    fn doc(&self) -> &'static str {
        "gelu(x): ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), element by element."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        unary(operands)
    }
    fn may_alias(&self, _sig: &Signature, _operand: usize, _output: usize) -> bool {
        true
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None]) };
        let operands = vec![d, g.operand(0)];
        Ok(vec![Some(g.emit("gelu.d_input", operands, Attrs::new())?[0])])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 20.0, 2.0)
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(UnaryKernel { rows: activation::gelu_rows, in_place: activation::gelu_rows_inplace }))
    }
    fn reference(&self, _sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        Some(vec![map(&x[0], gelu)])
    }
    fn cases(&self) -> Vec<Case> {
        row_case(1)
    }
}

impl Op for GeluTable {
    fn keyword(&self) -> &'static str {
        "gelu_table"
    }
    fn doc(&self) -> &'static str {
        "gelu_table(x): gelu by a table of all 2^16 f16 values; x ≤ −10 → 0, x ≥ 10 → x. Inference only."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        unary(operands)
    }
    fn may_alias(&self, _sig: &Signature, _operand: usize, _output: usize) -> bool {
        true
    }
    fn grad(&self, _g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        Err("gelu_table is for inference; train with gelu".into())
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 1.0, 2.0)
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(UnaryKernel { rows: activation::gelu_table_rows, in_place: activation::gelu_table_rows_inplace }))
    }
    fn reference(&self, _sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let table = |v: f64| match v {
            v if v <= -10.0 => 0.0,
            v if v >= 10.0 => v,
            v => half::f16::from_f64(gelu(half::f16::from_f32(v as f32).to_f64())).to_f64(),
        };
        Some(vec![map(&x[0], table)])
    }
    fn cases(&self) -> Vec<Case> {
        row_case(1)
    }
}

impl Op for GeluDInput {
    fn keyword(&self) -> &'static str {
        "gelu.d_input"
    }
    fn doc(&self) -> &'static str {
        "gelu.d_input(d_out, x): d_out · gelu'(x)."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 2)?;
        Ok(vec![rule::rows_like(operands, rule::same_width(operands, 0, 1)?)])
    }
    fn may_alias(&self, _sig: &Signature, operand: usize, _output: usize) -> bool {
        operand == 0
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 30.0, 3.0)
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(BinaryKernel {
            rows: |isa, d, x, out| activation::gelu_backward(isa, x, d, out, Write::Overwrite),
            in_place: |isa, d, x| activation::gelu_backward_inplace(isa, x, d),
            commutes: false,
        }))
    }
}
