//! Appends the optimiser: norm of all gradients, then AdamW for each parameter, in place.

use super::autodiff::GRADIENT;
use crate::error::{Error, Result};
use crate::graph::{Attr, Attrs, Graph, Section, TensorId, TensorKind};
use crate::ops::{self, hyper};
use crate::tensor::DType;

/// Result that holds [norm of all gradients before clipping, factor applied to them].
pub const GRADIENT_NORM: &str = "gradient_norm";
/// Suffix of the first moment's name.
pub const FIRST_MOMENT: &str = ".first_moment";
/// Suffix of the second moment's name.
pub const SECOND_MOMENT: &str = ".second_moment";

/// Constants of AdamW that do not change during training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of the parameters that decay.
    pub weight_decay: f64,
    /// Whether moments are kept in bf16, rounded stochastically, instead of f32.
    pub bf16_moments: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, bf16_moments: false }
    }
}

/// Adds the nodes; `clear` zeroes each gradient after its use (gradients that accumulate).
///
/// # Errors
/// When nothing is trainable.
pub fn attach(mut graph: Graph, adamw: &AdamW, clear: bool) -> Result<Graph> {
    let gradients: Vec<(TensorId, TensorId)> = graph
        .params()
        .filter_map(|p| Some((p, graph.output(&format!("{GRADIENT}{}", graph.tensor(p).name))?)))
        .collect();
    if gradients.is_empty() {
        return Err(Error::Plan("nothing to train: every parameter is frozen".into()));
    }
    let (hyper_input, counters) = (hyper::hyper(&mut graph), hyper::counters(&mut graph));
    let add = |graph: &mut Graph, op: &str, name: String, operands, attrs| {
        let op = ops::find(op).expect("the op is in the registry");
        ops::build::add(graph, op, name, operands, attrs, Section::Update).map_err(Error::Plan)
    };
    let mut operands: Vec<TensorId> = gradients.iter().map(|&(_, g)| g).collect();
    operands.push(hyper_input);
    let norm = add(&mut graph, "grad_norm", "grad_norm".into(), operands, Attrs::new())?[0];
    graph.outputs.push((GRADIENT_NORM.into(), norm));
    for (number, (p, g)) in gradients.into_iter().enumerate() {
        let (name, mut ty) = (graph.tensor(p).name.clone(), graph.ty(p).clone());
        if adamw.bf16_moments {
            ty.dtype = DType::BF16;
        }
        let decays = graph.param(p).is_some_and(|info| info.decay);
        let m = graph.add_tensor(format!("{name}{FIRST_MOMENT}"), ty.clone(), TensorKind::State);
        let v = graph.add_tensor(format!("{name}{SECOND_MOMENT}"), ty, TensorKind::State);
        let mut attrs = Attrs::new()
            .with("beta1", Attr::Float(adamw.beta1))
            .with("beta2", Attr::Float(adamw.beta2))
            .with("eps", Attr::Float(adamw.eps))
            .with("weight_decay", Attr::Float(if decays { adamw.weight_decay } else { 0.0 }))
            .with("clear", Attr::Bool(clear));
        if adamw.bf16_moments {
            attrs.set("moments", Attr::Str("bf16".into()));
            attrs.set("number", Attr::Int(number as i64));
        }
        add(&mut graph, "adamw", format!("{name}.adamw"), vec![p, g, m, v, hyper_input, counters, norm], attrs)?;
    }
    Ok(graph)
}
