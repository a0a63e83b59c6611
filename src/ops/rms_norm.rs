//! `rms_norm(x, weight; eps)`: y = x·r·w per row, with r = 1/√(mean of x² + eps).
//!
//! x, y: rows × C; w: [C]. With x̂ = x·r and g = dy·w: dx = r·(g − x̂·mean(g·x̂)), dw = Σ_rows dy·x̂.
//! Source: Zhang and Sennrich, 2019.

use super::norm::{NormDInputKernel, NormDWeightKernel, NormKernel, NormKind};
use super::{Case, Cost, GradBuilder, Kernel, Op, ParamSpec, RefTensor, RowDep, Signature};
use crate::graph::{Attrs, TensorId};
use crate::tensor::TensorType;

const KIND: NormKind = NormKind::Rms;

/// The norm.
pub struct RmsNorm;
/// `rms_norm.d_input(d_out, x, statistics, weight[, d])`: gradient of the input, added to `d` when given.
pub struct RmsNormDInput;
/// `rms_norm.d_weight(d_out, x, statistics[, d…])`: gradients of the parameters.
pub struct RmsNormDWeight;

impl Op for RmsNorm {
    fn keyword(&self) -> &'static str {
        "rms_norm"
    }
    fn doc(&self) -> &'static str {
        "rms_norm(x, PATH, eps = …): x / √(mean of x² + eps) · weight, per row."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["eps"]
    }
    fn params(&self, attrs: &Attrs, inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        KIND.params(attrs, inputs)
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        KIND.infer(attrs, operands)
    }
    fn may_alias(&self, _sig: &Signature, operand: usize, output: usize) -> bool {
        operand == 0 && output == 0
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        KIND.grad(g)
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        KIND.cost(sig, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        NormKernel::boxed(KIND, sig)
    }
    fn reference(&self, sig: &Signature, _case: &Case, operands: &[RefTensor]) -> Option<Vec<RefTensor>> {
        KIND.reference(sig, operands)
    }
    fn cases(&self) -> Vec<Case> {
        KIND.cases()
    }
}

impl Op for RmsNormDInput {
    fn keyword(&self) -> &'static str {
        "rms_norm.d_input"
    }
    fn doc(&self) -> &'static str {
        "rms_norm.d_input(d_out, x, statistics, weight[, d]): gradient of x, added to d when given."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        KIND.infer_d_input(operands)
    }
    fn may_alias(&self, sig: &Signature, operand: usize, _output: usize) -> bool {
        operand == if sig.operands.len() == 5 { 4 } else { 0 }
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        KIND.cost(sig, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(NormDInputKernel { accumulate: sig.operands.len() == 5 }))
    }
}

impl Op for RmsNormDWeight {
    fn keyword(&self) -> &'static str {
        "rms_norm.d_weight"
    }
    fn doc(&self) -> &'static str {
        "rms_norm.d_weight(d_out, x, statistics[, d…]): gradients of the parameters, summed over rows, continuing d when given."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        KIND.infer_d_weight(operands)
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        KIND.cost(sig, rows)
    }
    fn must_alias(&self, sig: &Signature, output: usize) -> Option<usize> {
        (sig.operands.len() > 3).then_some(3 + output)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(NormDWeightKernel { kind: KIND, accumulate: sig.operands.len() > 3 }))
    }
}
