//! Attributes and shapes of `linear`, resolved.

use crate::graph::{Attrs, Layout};
use crate::ops::norm::NormKind;
use crate::ops::{RefTensor, gelu, product, rule};
use crate::tensor::TensorType;
use std::ops::Range;

/// What is applied after the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// GELU, tanh form.
    Gelu,
    /// GELU by the f16 table.
    GeluTable,
    /// SiLU.
    Silu,
    /// silu(first product) · second product.
    Swiglu,
}

/// A `linear` node, resolved: where each operand is and how wide everything is.
#[derive(Clone, Debug)]
pub struct Form {
    /// Inputs.
    pub k: usize,
    /// Outputs of each weight.
    pub outs: Vec<usize>,
    /// Widths of the node's outputs.
    pub parts: Vec<usize>,
    /// How weights are stored.
    pub layout: Layout,
    /// After the bias.
    pub activation: Activation,
    /// Norm of x before the product.
    pub norm: Option<(NormKind, f32)>,
    /// Operands of the norm's parameters start here.
    pub norm_operand: usize,
    /// Operands that are weights.
    pub weights: Range<usize>,
    /// Operands that are biases; empty without.
    pub biases: Range<usize>,
    /// Operand that is added last.
    pub residual: Option<usize>,
}

/// The `layout` attribute.
pub fn layout(attrs: &Attrs) -> Result<Layout, String> {
    match attrs.str_or("layout", "out_in")? {
        "out_in" => Ok(Layout::OutIn),
        "in_out" => Ok(Layout::InOut),
        other => Err(format!("layout = \"{other}\" is unknown; use \"out_in\" or \"in_out\"")),
    }
}

/// How the executor holds the weights of a `linear` node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Packed once for products (inference).
    Packed,
    /// As the checkpoint stores them (training).
    Plain,
}

/// The `storage` attribute.
pub fn storage(attrs: &Attrs) -> Result<Storage, String> {
    match attrs.str_or("storage", "packed")? {
        "packed" => Ok(Storage::Packed),
        "plain" => Ok(Storage::Plain),
        other => Err(format!("storage = \"{other}\" is unknown; use \"packed\" or \"plain\"")),
    }
}

impl Form {
    /// Resolves and checks a node.
    ///
    /// # Errors
    /// What does not fit, with both shapes.
    pub fn of(attrs: &Attrs, operands: &[TensorType]) -> Result<Form, String> {
        let k = rule::width(operands, 0)?;
        let layout = layout(attrs)?;
        let count = attrs.size_or("weights", 1)?;
        if count == 0 || count > 8 {
            return Err(format!("weights = {count} must be 1 to 8"));
        }
        let activation = match attrs.str_or("activation", "none")? {
            "none" => Activation::None,
            "gelu" => Activation::Gelu,
            "gelu_table" => Activation::GeluTable,
            "silu" => Activation::Silu,
            "swiglu" => Activation::Swiglu,
            other => return Err(format!("activation = \"{other}\" is unknown")),
        };
        let norm = match attrs.str_or("norm", "none")? {
            "none" => None,
            "layer" => Some((NormKind::Layer, attrs.float("eps")? as f32)),
            "rms" => Some((NormKind::Rms, attrs.float("eps")? as f32)),
            other => return Err(format!("norm = \"{other}\" is unknown")),
        };
        let norm_params = norm.map_or(0, |(kind, _)| kind.parameters());
        let weights = 1 + norm_params..1 + norm_params + count;
        let bias = attrs.bool_or("bias", false)?;
        let biases = weights.end..weights.end + if bias { count } else { 0 };
        let residual = attrs.bool_or("residual", false)?.then_some(biases.end);
        rule::arity(operands, biases.end + usize::from(residual.is_some()))?;
        (1..1 + norm_params).try_for_each(|i| rule::fixed(operands, i, &[k]))?;
        let mut outs = Vec::with_capacity(count);
        for i in weights.clone() {
            let dims = operands[i].shape.dims();
            let n = match (layout, dims) {
                (Layout::OutIn, &[n, inputs]) | (_, &[inputs, n]) if inputs == k && n > 0 => n,
                _ => {
                    let order = if layout == Layout::OutIn { "[out, in]" } else { "[in, out]" };
                    return Err(format!(
                        "the weight has shape {} ({order}), but x has features [{k}]",
                        operands[i].shape
                    ));
                }
            };
            rule::weight(operands, i, dims)?;
            if bias {
                rule::fixed(operands, i + count, &[n])?;
            }
            outs.push(n);
        }
        let total = if activation == Activation::Swiglu {
            if count != 2 || outs[0] != outs[1] {
                return Err(format!("swiglu takes two weights with as many outputs, not {outs:?}"));
            }
            outs[0]
        } else {
            outs.iter().sum()
        };
        let mut parts = attrs.sizes("split")?;
        if parts.is_empty() {
            parts.push(total);
        }
        if parts.iter().sum::<usize>() != total || parts.contains(&0) {
            return Err(format!("split = {parts:?} does not add up to {total} outputs"));
        }
        if let Some(r) = residual
            && (parts.len() != 1 || rule::width(operands, r)? != total)
        {
            return Err(format!("the residual has type {}, but the outputs are {parts:?}", operands[r]));
        }
        product::precision(attrs)?;
        let unfused = norm.is_none() && activation == Activation::None && count == 1 && residual.is_none();
        if storage(attrs)? == Storage::Plain && !unfused {
            return Err("fused forms need packed weights (storage = \"packed\")".into());
        }
        Ok(Form { k, outs, parts, layout, activation, norm, norm_operand: 1, weights, biases, residual })
    }

    /// Column of the concatenated products at which weight `i` starts.
    pub fn first_column(&self, i: usize) -> usize {
        self.outs[..i].iter().sum()
    }
}

/// The op in f64, for unfused forms.
pub fn reference(form: &Form, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
    if form.norm.is_some() || form.outs.len() != 1 || form.activation == Activation::Swiglu {
        return None;
    }
    let (k, n) = (form.k, form.outs[0]);
    let weight = &x[form.weights.start].data;
    let bias = x.get(form.biases.start).filter(|_| !form.biases.is_empty());
    let at = |i: usize, o: usize| if form.layout == Layout::OutIn { weight[o * k + i] } else { weight[i * n + o] };
    let mut parts: Vec<RefTensor> =
        form.parts.iter().map(|&width| RefTensor { rows: x[0].rows, width, data: Vec::new() }).collect();
    for (r, row) in x[0].data.chunks(k).enumerate() {
        let y = (0..n).map(|o| {
            let product: f64 = row.iter().enumerate().map(|(i, v)| v * at(i, o)).sum();
            let y = product + bias.map_or(0.0, |b| b.data[o]);
            let y = match form.activation {
                Activation::Gelu | Activation::GeluTable => gelu::gelu(y),
                Activation::Silu => y / (1.0 + (-y).exp()),
                _ => y,
            };
            y + form.residual.map_or(0.0, |i| x[i].data[r * n + o])
        });
        let y: Vec<f64> = y.collect();
        let mut rest = y.as_slice();
        for part in &mut parts {
            let (here, after) = rest.split_at(part.width);
            part.data.extend_from_slice(here);
            rest = after;
        }
    }
    Some(parts)
}
