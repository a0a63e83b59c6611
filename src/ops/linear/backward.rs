//! Gradients of `linear`: of the input, the weight and the bias.
//!
//! The gradients of split outputs are read where they are, as if they stood side by side.

mod bias;
mod input;
mod weight;

pub use bias::LinearDBias;
pub use input::LinearDInput;
pub use weight::LinearDWeight;

use super::shape;
use crate::graph::{Attr, Attrs, Layout, TensorId};
use crate::kernels::gemm::Precision;
use crate::ops::{Cost, GradBuilder, Signature, product, rule};
use crate::tensor::TensorType;
use std::ops::Range;

/// Emits the three; sums of gradients go into the memory of the gradient that exists.
pub fn grad(g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
    let mut grads = vec![None; g.forward().operands.len()];
    if g.d_outputs.iter().all(Option::is_none) {
        return Ok(grads);
    }
    let d: Vec<TensorId> = g.d_outputs.iter().flatten().copied().collect();
    if d.len() != g.d_outputs.len() {
        return Err("a part of its split outputs has no gradient; leave the part out of the split".into());
    }
    let types: Vec<TensorType> = g.forward().operands.iter().map(|&t| g.graph.ty(t).clone()).collect();
    let form = shape::Form::of(&g.attrs(), &types)?;
    if form.norm.is_some() || form.outs.len() != 1 || form.activation != shape::Activation::None {
        return Err("a fused linear has no derivative; differentiate before fusing".into());
    }
    let layout = if form.layout == Layout::OutIn { "out_in" } else { "in_out" };
    let mut attrs = Attrs::new().with("parts", Attr::Int(d.len() as i64)).with("layout", Attr::Str(layout.into()));
    if let Some(precision) = g.attrs().get("precision") {
        attrs.set("precision", precision.clone());
    }
    let (weight, bias) = (form.weights.start, form.biases.clone().next());
    if let Some(bias) = bias.filter(|&b| g.wants[b]) {
        let mut operands = d.clone();
        operands.extend(g.take_existing(bias));
        grads[bias] = Some(g.emit("linear.d_bias", operands, attrs.clone())?[0]);
    }
    if g.wants[weight] {
        let mut operands = vec![g.operand(0)];
        operands.extend(&d);
        operands.extend(g.take_existing(weight));
        grads[weight] = Some(g.emit("linear.d_weight", operands, attrs.clone())?[0]);
    }
    if g.wants[0] {
        let mut operands = vec![g.operand(weight)];
        operands.extend(&d);
        operands.extend(g.take_existing(0));
        grads[0] = Some(g.emit("linear.d_input", operands, attrs)?[0]);
    }
    if let Some(residual) = form.residual {
        grads[residual] = Some(d[0]);
    }
    Ok(grads)
}

/// A gradient node, resolved.
#[derive(Clone, Debug)]
struct Form {
    layout: Layout,
    precision: Precision,
    /// Operands that are gradients of outputs.
    d_outs: Range<usize>,
    /// Width of each.
    parts: Vec<usize>,
    /// Operand that the result is added to.
    existing: Option<usize>,
}

impl Form {
    fn of(attrs: &Attrs, operands: &[TensorType], first: usize) -> Result<Form, String> {
        let count = attrs.size("parts")?;
        if count == 0 || count > 8 {
            return Err(format!("parts = {count} must be 1 to 8"));
        }
        let d_outs = first..first + count;
        if operands.len() != d_outs.end + 1 {
            rule::arity(operands, d_outs.end)?;
        }
        let parts = d_outs.clone().map(|i| rule::width(operands, i)).collect::<Result<Vec<_>, _>>()?;
        let existing = (operands.len() > d_outs.end).then_some(d_outs.end);
        Ok(Form { layout: shape::layout(attrs)?, precision: product::precision(attrs)?, d_outs, parts, existing })
    }

    fn total(&self) -> usize {
        self.parts.iter().sum()
    }

    /// Column of part `part` among all outputs.
    fn first_column(&self, part: usize) -> usize {
        self.parts[..part].iter().sum()
    }
}

fn flops(sig: &Signature, first: usize, rows: usize) -> Cost {
    let Ok(form) = Form::of(&sig.attrs, &sig.operands, first) else { return Cost::default() };
    let k = match first {
        0 => 0.5,
        _ => {
            (sig.operands[0].shape.elements() / if sig.operands[0].shape.rank() == 2 { form.total() } else { 1 }) as f64
        }
    };
    let n = form.total() as f64;
    Cost { flops: 2.0 * rows as f64 * n * k, bytes: 4.0 * rows as f64 * (n + k) }
}
