//! The norms, per row, with a gain w (and an offset b). x, y: rows × C; w, b: [C].
//!
//! `layer_norm(x, weight, bias; eps)`: y = (x − μ)·r·w + b with μ the mean of the row and r = 1/√(variance + eps). With x̂ = (x − μ)·r and
//! g = dy·w: dx = r·(g − mean(g) − x̂·mean(g·x̂)), dw = Σ_rows dy·x̂, db = Σ_rows dy. Source: Ba, Kiros and Hinton, 2016.
//!
//! `rms_norm(x, weight; eps)`: y = x·r·w with r = 1/√(mean of x² + eps). With x̂ = x·r: dx = r·(g − x̂·mean(g·x̂)), dw = Σ_rows dy·x̂.
//! Source: Zhang and Sennrich, 2019.

mod kernels;
mod kind;

use super::{Case, Cost, GradBuilder, Kernel, Op, ParamSpec, RefTensor, RowDep, Signature};
use crate::graph::{Attrs, TensorId};
use crate::tensor::TensorType;
use kernels::{NormDInputKernel, NormDWeightKernel, NormKernel};
pub use kind::NormKind;

/// The norm.
pub struct Norm(pub NormKind);
/// `….d_input(d_out, x, statistics, weight[, d])`: gradient of the input, added to `d` when given.
pub struct NormDInput(pub NormKind);
/// `….d_weight(d_out, x, statistics[, d…])`: gradients of the parameters.
pub struct NormDWeight(pub NormKind);

impl Op for Norm {
    fn keyword(&self) -> &'static str {
        self.0.keywords()[0]
    }
    fn doc(&self) -> &'static str {
        match self.0 {
            NormKind::Layer => "layer_norm(x, PATH, eps = …): (x − mean) / √(variance + eps) · weight + bias, per row.",
            NormKind::Rms => "rms_norm(x, PATH, eps = …): x / √(mean of x² + eps) · weight, per row.",
        }
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["eps"]
    }
    fn params(&self, attrs: &Attrs, inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        self.0.params(attrs, inputs)
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        self.0.infer(attrs, operands)
    }
    fn may_alias(&self, _sig: &Signature, operand: usize, output: usize) -> bool {
        operand == 0 && output == 0
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        self.0.grad(g)
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        self.0.cost(sig, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        NormKernel::boxed(self.0, sig)
    }
    fn reference(&self, sig: &Signature, _case: &Case, operands: &[RefTensor]) -> Option<Vec<RefTensor>> {
        self.0.reference(sig, operands)
    }
    fn cases(&self) -> Vec<Case> {
        self.0.cases()
    }
}

impl Op for NormDInput {
    fn keyword(&self) -> &'static str {
        self.0.keywords()[1]
    }
    fn doc(&self) -> &'static str {
        match self.0 {
            NormKind::Layer => {
                "layer_norm.d_input(d_out, x, statistics, weight[, d]): gradient of x, added to d when given."
            }
            NormKind::Rms => {
                "rms_norm.d_input(d_out, x, statistics, weight[, d]): gradient of x, added to d when given."
            }
        }
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        self.0.infer_d_input(operands)
    }
    fn may_alias(&self, sig: &Signature, operand: usize, _output: usize) -> bool {
        operand == if sig.operands.len() == 5 { 4 } else { 0 }
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        self.0.cost(sig, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(NormDInputKernel { accumulate: sig.operands.len() == 5 }))
    }
}

impl Op for NormDWeight {
    fn keyword(&self) -> &'static str {
        self.0.keywords()[2]
    }
    fn doc(&self) -> &'static str {
        match self.0 {
            NormKind::Layer => {
                "layer_norm.d_weight(d_out, x, statistics[, d…]): gradients of the parameters, summed over rows, continuing d when given."
            }
            NormKind::Rms => {
                "rms_norm.d_weight(d_out, x, statistics[, d…]): gradients of the parameters, summed over rows, continuing d when given."
            }
        }
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        self.0.infer_d_weight(operands)
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        self.0.cost(sig, rows)
    }
    fn must_alias(&self, sig: &Signature, output: usize) -> Option<usize> {
        (sig.operands.len() > 3).then_some(3 + output)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let width = sig.outputs[0].shape.elements();
        Ok(Box::new(NormDWeightKernel::new(self.0, sig.operands.len() > 3, width)))
    }
}
