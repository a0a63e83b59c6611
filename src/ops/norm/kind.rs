//! Which norm: parameters, statistics, shape rules, gradients, references.

use super::super::{Case, Cost, GradBuilder, ParamSpec, RefTensor, Signature, rule};
use crate::graph::{Attr, Attrs, Init, Layout, TensorId};
use crate::kernels::norm;
use crate::tensor::{RowExtent, Shape, TensorType};

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Mean and variance; gain and offset.
    Layer,
    /// Root mean square; gain only.
    Rms,
}

impl NormKind {
    /// Keywords of the norm, of the gradient of its input and of those of its parameters.
    pub fn keywords(self) -> [&'static str; 3] {
        match self {
            NormKind::Layer => ["layer_norm", "layer_norm.d_input", "layer_norm.d_weight"],
            NormKind::Rms => ["rms_norm", "rms_norm.d_input", "rms_norm.d_weight"],
        }
    }

    /// Saved statistics per row.
    pub fn statistics(self) -> usize {
        match self {
            NormKind::Layer => norm::LAYER_NORM_STATISTICS,
            NormKind::Rms => norm::RMS_NORM_STATISTICS,
        }
    }

    /// Parameters per call: gain, and offset for layer norm.
    pub fn parameters(self) -> usize {
        match self {
            NormKind::Layer => 2,
            NormKind::Rms => 1,
        }
    }

    pub(super) fn params(self, attrs: &Attrs, inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        attrs.float("eps")?;
        let shape = Shape::new([rule::width(inputs, 0)?]);
        let spec = |suffix, init| ParamSpec { suffix, shape: shape.clone(), init, decay: false, layout: Layout::Plain };
        Ok(match self {
            NormKind::Layer => vec![spec("weight", Init::Ones), spec("bias", Init::Zeros)],
            NormKind::Rms => vec![spec("weight", Init::Ones)],
        })
    }

    pub(super) fn infer(self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 1 + self.parameters())?;
        eps(attrs)?;
        let width = rule::width(operands, 0)?;
        (1..operands.len()).try_for_each(|i| rule::fixed(operands, i, &[width]))?;
        let mut outputs = vec![rule::rows_like(operands, width)];
        if attrs.bool_or("save_statistics", false)? {
            outputs.push(rule::rows_like(operands, self.statistics()));
        }
        Ok(outputs)
    }

    /// Emits d_input, d_weight and d_bias; adds to a gradient of the input that exists already.
    pub(super) fn grad(self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None; 1 + self.parameters()]) };
        let (x, weight) = (g.operand(0), g.operand(1));
        let statistics = g.save("save_statistics", 1)?;
        let mut grads = vec![None; 1 + self.parameters()];
        if (1..=self.parameters()).any(|i| g.wants[i]) {
            let mut operands = vec![d, x, statistics];
            let existing: Vec<_> = (1..=self.parameters()).filter_map(|i| g.take_existing(i)).collect();
            if !existing.is_empty() && existing.len() != self.parameters() {
                return Err("gain and offset must be used together".into());
            }
            operands.extend(existing);
            let of = g.emit(self.keywords()[2], operands, Attrs::new())?;
            of.into_iter().enumerate().for_each(|(i, t)| grads[1 + i] = Some(t));
        }
        if g.wants[0] {
            let mut operands = vec![d, x, statistics, weight];
            operands.extend(g.take_existing(0));
            grads[0] = Some(g.emit(self.keywords()[1], operands, Attrs::new())?[0]);
        }
        Ok(grads)
    }

    pub(super) fn infer_d_input(self, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.len() != 5 {
            rule::arity(operands, 4)?;
        }
        let width = rule::same_width(operands, 0, 1)?;
        if rule::width(operands, 2)? != self.statistics() {
            return Err(format!("the statistics have type {}, not {} a row", operands[2], self.statistics()));
        }
        rule::fixed(operands, 3, &[width])?;
        if operands.len() == 5 {
            rule::same_width(operands, 0, 4)?;
        }
        Ok(vec![rule::rows_like(operands, width)])
    }

    pub(super) fn infer_d_weight(self, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.len() != 3 + self.parameters() {
            rule::arity(operands, 3)?;
        }
        let width = rule::same_width(operands, 0, 1)?;
        (3..operands.len()).try_for_each(|i| rule::fixed(operands, i, &[width]))?;
        if rule::width(operands, 2)? != self.statistics() {
            return Err(format!("the statistics have type {}, not {} a row", operands[2], self.statistics()));
        }
        Ok(vec![rule::fixed_type(&[width]); self.parameters()])
    }

    pub(super) fn cost(self, sig: &Signature, rows: usize) -> Cost {
        let n = sig.operands[0].shape.elements() as f64 * rows as f64;
        Cost { flops: 8.0 * n, bytes: 8.0 * n }
    }

    pub(super) fn reference(self, sig: &Signature, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let eps = sig.attrs.float("eps").ok()?;
        let (input, n) = (&x[0], x[0].width as f64);
        let rows = input.data.chunks(input.width).flat_map(|row| {
            let mean = if self == NormKind::Layer { row.iter().sum::<f64>() / n } else { 0.0 };
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            let scale = 1.0 / (variance + eps).sqrt();
            let offset = |i: usize| if self == NormKind::Layer { x[2].data[i] } else { 0.0 };
            row.iter().enumerate().map(move |(i, v)| (v - mean) * scale * x[1].data[i] + offset(i)).collect::<Vec<_>>()
        });
        Some(vec![RefTensor { data: rows.collect(), ..input.clone() }])
    }

    pub(super) fn cases(self) -> Vec<Case> {
        let ty = |w: usize| TensorType { extent: RowExtent::Step, ..rule::fixed_type(&[w]) };
        let case = |name, w: usize, slots, rows| Case {
            name,
            attrs: Attrs::new().with("eps", Attr::Float(1e-5)),
            inputs: vec![ty(w)],
            slots,
            rows,
            int_limit: 0,
        };
        vec![case("rows", 37, 2, 5), case("two_row_tiles", 16, 2, 48)]
    }
}

/// The attribute `eps`.
pub(super) fn eps(attrs: &Attrs) -> Result<f32, String> {
    match attrs.float("eps")? {
        e if e.is_finite() && e >= 0.0 => Ok(e as f32),
        e => Err(format!("eps = {e} must be a finite number, not negative")),
    }
}
