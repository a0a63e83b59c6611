//! Adding calls of ops to a graph: parameters are created or shared, shapes inferred.

use super::{Op, Signature, find};
use crate::graph::{Attr, Attrs, Graph, Layout, Node, NodeId, ParamInfo, RowSpace, Section, TensorId, TensorKind};
use crate::tensor::{DType, RowExtent, TensorType};

/// One call of an op, as a spec writes it.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Keyword.
    pub op: &'a str,
    /// Name of the node; made unique with a numeric suffix when taken.
    pub name: String,
    /// Inputs (not parameters).
    pub inputs: Vec<TensorId>,
    /// Path of the parameters (`h.0.attn.c_attn`), for ops that have some.
    pub path: Option<&'a str>,
    /// Attributes; `init_std` (a number) and `decay` (a boolean) override the op's defaults for its matrix.
    pub attrs: Attrs,
}

/// Signature of a node.
pub fn signature(graph: &Graph, node: &Node) -> Signature {
    Signature {
        attrs: node.attrs.clone(),
        operands: node.operands.iter().map(|&t| graph.ty(t).clone()).collect(),
        outputs: node.outputs.iter().map(|&t| graph.ty(t).clone()).collect(),
    }
}

/// A name that no tensor or node of the graph has yet: `name`, or `name` with a number.
pub fn unique_name(graph: &Graph, name: &str) -> String {
    // Several outputs of a node are called `name.0`, `name.1`, …; parameters such as `name.weight` are no obstacle.
    let is_output = |rest: &str| rest.strip_prefix('.').is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit()));
    let taken = |n: &str| {
        graph.nodes.iter().any(|x| x.name == n)
            || graph.tensors.iter().any(|t| t.name == n || t.name.strip_prefix(n).is_some_and(is_output))
    };
    if !taken(name) {
        return name.to_string();
    }
    (2..).map(|i| format!("{name}_{i}")).find(|n| !taken(n)).expect("the numbers do not run out")
}

/// The row extent of what a node computes from these operands: that of the first operand with rows, [`RowExtent::Step`]
/// for kept ones, and fixed when none has rows.
pub fn result_extent(operands: &[TensorType]) -> RowExtent {
    operands.iter().map(|t| t.extent).find(|&e| e != RowExtent::Fixed).map_or(RowExtent::Fixed, |e| match e {
        RowExtent::Wanted => RowExtent::Wanted,
        _ => RowExtent::Step,
    })
}

/// Adds a call: finds the op, creates or shares its parameters, infers the outputs.
///
/// # Errors
/// One line without position: unknown op or attribute, a missing path, shapes that do not fit, a shared parameter used with
/// another shape.
pub fn call(graph: &mut Graph, call: Call<'_>) -> Result<Vec<TensorId>, String> {
    let op = find(call.op).ok_or_else(|| unknown(call.op))?;
    let mut attrs = call.attrs;
    let init_std =
        attrs.0.remove("init_std").map(|a| Attrs::new().with("init_std", a).float("init_std")).transpose()?;
    let decay = attrs.0.remove("decay").map(|a| Attrs::new().with("decay", a).bool_or("decay", true)).transpose()?;
    check_attributes(op, &attrs)?;
    let inputs: Vec<TensorType> = call.inputs.iter().map(|&t| graph.ty(t).clone()).collect();
    let params = op.params(&attrs, &inputs)?;
    let mut operands = call.inputs;
    if !params.is_empty() {
        let path = call.path.ok_or_else(|| format!("{} needs a parameter path, such as h[i].ln_1", op.keyword()))?;
        for mut p in params {
            if let Some(std) = init_std.filter(|_| p.shape.rank() >= 2) {
                p.init = crate::graph::Init::Normal(std);
            }
            p.decay = decay.unwrap_or(p.decay);
            operands.push(parameter(graph, &format!("{path}.{}", p.suffix), p)?);
        }
    } else if let Some(path) = call.path {
        return Err(format!("{} has no parameters, so the path {path} is out of place", op.keyword()));
    }
    add(graph, op, call.name, operands, attrs, Section::Forward)
}

/// Adds a node whose operands (parameters included) are all given.
///
/// # Errors
/// What the op's shape rule refuses.
pub fn add(
    graph: &mut Graph,
    op: &dyn Op,
    name: String,
    operands: Vec<TensorId>,
    attrs: Attrs,
    section: Section,
) -> Result<Vec<TensorId>, String> {
    let types: Vec<TensorType> = operands.iter().map(|&t| graph.ty(t).clone()).collect();
    let outputs = op.infer(&attrs, &types)?;
    let space = space_of(&outputs, &types);
    let name = unique_name(graph, &name);
    let node = Node {
        op: op.keyword().to_string(),
        name,
        operands,
        outputs: Vec::new(),
        attrs,
        space,
        section,
        recomputed: false,
    };
    Ok(graph.add_node(node, outputs))
}

/// Row space of a node from its types: wanted when an output or operand is, fixed when nothing has rows.
pub fn space_of(outputs: &[TensorType], operands: &[TensorType]) -> RowSpace {
    let extents = || outputs.iter().chain(operands).map(|t| t.extent);
    if extents().any(|e| e == RowExtent::Wanted) {
        RowSpace::Wanted
    } else if extents().any(|e| e != RowExtent::Fixed) {
        RowSpace::New
    } else {
        RowSpace::Fixed
    }
}

fn unknown(keyword: &str) -> String {
    let nearest = super::registry()
        .iter()
        .map(|op| op.keyword())
        .filter(|k| !k.contains('.'))
        .min_by_key(|k| edit_distance(k, keyword))
        .unwrap_or("");
    format!("unknown op '{keyword}'; did you mean '{nearest}'?")
}

/// Levenshtein distance, for "did you mean".
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &cb) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(ca != cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}

fn check_attributes(op: &dyn Op, attrs: &Attrs) -> Result<(), String> {
    match attrs.0.keys().find(|k| !op.attributes().contains(&k.as_str())) {
        None => Ok(()),
        Some(k) if op.attributes().is_empty() => {
            Err(format!("{} takes no attributes, so '{k}' is out of place", op.keyword()))
        }
        Some(k) => Err(format!("{} has no attribute '{k}'; it takes {}", op.keyword(), op.attributes().join(", "))),
    }
}

fn parameter(graph: &mut Graph, name: &str, spec: super::ParamSpec) -> Result<TensorId, String> {
    if let Some(t) = graph.find(name) {
        let tensor = graph.tensor(t);
        let Some(info) = graph.param(t) else {
            return Err(format!("'{name}' is the name of a value, not of a parameter"));
        };
        if tensor.ty.shape != spec.shape {
            return Err(format!(
                "parameter {name} has shape {} here and {} where it was first used",
                spec.shape, tensor.ty.shape
            ));
        }
        if info.layout == Layout::Plain && spec.layout != Layout::Plain {
            set_layout(graph, t, spec.layout);
        } else if spec.layout != Layout::Plain && info.layout != spec.layout {
            return Err(format!("parameter {name} is used as [out, in] in one place and as [in, out] in another"));
        }
        return Ok(t);
    }
    let info = ParamInfo { init: spec.init, decay: spec.decay, trainable: true, layout: spec.layout };
    let ty = TensorType { dtype: DType::F32, extent: RowExtent::Fixed, shape: spec.shape };
    Ok(graph.add_tensor(name, ty, TensorKind::Param(info)))
}

fn set_layout(graph: &mut Graph, t: TensorId, layout: Layout) {
    if let TensorKind::Param(info) = &mut graph.tensors[t.index()].kind {
        info.layout = layout;
    }
}

/// What [`Op::grad`] works with: the node, gradients of its outputs, and a way to emit nodes.
pub struct GradBuilder<'a> {
    /// The graph that grows.
    pub graph: &'a mut Graph,
    /// The forward node.
    pub node: NodeId,
    /// Gradients of the outputs; `None` where nothing depends on one.
    pub d_outputs: Vec<Option<TensorId>>,
    /// Which operands want a gradient.
    pub wants: Vec<bool>,
    /// Gradients of the operands that other uses have contributed already.
    pub existing: Vec<Option<TensorId>>,
}

impl GradBuilder<'_> {
    /// The forward node.
    pub fn forward(&self) -> &Node {
        self.graph.node(self.node)
    }

    /// An operand of the forward node.
    pub fn operand(&self, i: usize) -> TensorId {
        self.forward().operands[i]
    }

    /// An output of the forward node.
    pub fn output(&self, i: usize) -> TensorId {
        self.forward().outputs[i]
    }

    /// Emits a backward node named after the forward one.
    ///
    /// # Errors
    /// What the op's shape rule refuses.
    pub fn emit(&mut self, op: &str, operands: Vec<TensorId>, attrs: Attrs) -> Result<Vec<TensorId>, String> {
        let op = find(op).ok_or_else(|| unknown(op))?;
        let suffix = op.keyword().rsplit('.').next().expect("rsplit yields at least one part").to_string();
        let name = format!("{}.{suffix}", self.forward().name);
        add(self.graph, op, name, operands, attrs, Section::Backward)
    }

    /// Takes over the gradient that other uses of operand `i` contributed; the op then returns the sum.
    pub fn take_existing(&mut self, i: usize) -> Option<TensorId> {
        self.existing[i].take()
    }

    /// Switches on attribute `attr` of the forward node, which makes it save output `output` for backward, and returns that output.
    ///
    /// # Errors
    /// What the op's shape rule refuses.
    pub fn save(&mut self, attr: &str, output: usize) -> Result<TensorId, String> {
        let node = self.forward();
        if let Some(&saved) = node.outputs.get(output) {
            return Ok(saved);
        }
        let attrs = node.attrs.clone().with(attr, Attr::Bool(true));
        self.extend_forward(attrs, None, "saved")?;
        Ok(self.output(output))
    }

    /// Changes the attributes of the forward node and appends an operand, and adds the outputs that it has then beyond those it had;
    /// their names end in `suffix`.
    ///
    /// # Errors
    /// What the op's shape rule refuses.
    pub fn extend_forward(&mut self, attrs: Attrs, operand: Option<TensorId>, suffix: &str) -> Result<(), String> {
        let (id, node) = (self.node, self.graph.node(self.node));
        let mut operands = node.operands.clone();
        operands.extend(operand);
        let types: Vec<TensorType> = operands.iter().map(|&t| self.graph.ty(t).clone()).collect();
        let op = find(&node.op).ok_or_else(|| unknown(&node.op))?;
        let outputs = op.infer(&attrs, &types)?;
        let (name, first) = (format!("{}.{suffix}", node.name), node.outputs.len());
        for ty in outputs.into_iter().skip(first) {
            let name = unique_name(self.graph, &name);
            let t = self.graph.add_tensor(name, ty, TensorKind::Value(id));
            self.graph.nodes[id.index()].outputs.push(t);
        }
        let node = &mut self.graph.nodes[id.index()];
        (node.attrs, node.operands) = (attrs, operands);
        Ok(())
    }

    /// The attributes of the forward node.
    pub fn attrs(&self) -> Attrs {
        self.forward().attrs.clone()
    }
}
