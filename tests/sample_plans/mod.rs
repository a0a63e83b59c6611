//! Small transformers, planned: what the tests of plans work on.

use staticgrad::graph::{Attr, Attrs, Graph, TensorId};
use staticgrad::ops::Capacity;
use staticgrad::ops::build::{Call, call};
use staticgrad::passes::{Layout, Mode};
use staticgrad::plan::{Plan, compile};
use staticgrad::tensor::{DType, RowExtent, Shape};

/// Sizes of a GPT-2.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub layers: usize,
    pub channels: usize,
    pub heads: usize,
    pub vocabulary: usize,
    pub context: usize,
}

/// Two layers, small enough to read.
pub const TINY: Sizes = Sizes { layers: 2, channels: 32, heads: 2, vocabulary: 64, context: 16 };

fn op(
    g: &mut Graph,
    op: &str,
    name: &str,
    path: Option<&str>,
    inputs: &[TensorId],
    attrs: &[(&str, Attr)],
) -> Vec<TensorId> {
    let attrs = attrs.iter().fold(Attrs::new(), |all, (name, value)| all.with(name, value.clone()));
    call(g, Call { op, name: name.into(), inputs: inputs.to_vec(), path, attrs }).expect("a sound call")
}

/// GPT-2 up to its logits.
pub fn gpt2(sizes: Sizes) -> Graph {
    let int = |n: usize| Attr::Int(n as i64);
    let Sizes { layers, channels: c, heads, vocabulary, context } = sizes;
    let mut graph = Graph::new("gpt2");
    let g = &mut graph;
    let tokens = g.add_input("tokens", DType::I32, RowExtent::Step, Shape::new([1]));
    let wte = op(g, "embedding", "wte", Some("wte"), &[tokens], &[("rows", int(vocabulary)), ("width", int(c))])[0];
    let wpe =
        op(g, "position_embedding", "wpe", Some("wpe"), &[tokens], &[("rows", int(context)), ("width", int(c))])[0];
    let mut x = op(g, "add", "x", None, &[wte, wpe], &[])[0];
    let linear = |g: &mut Graph, name: String, x: TensorId, out: usize, split: &[usize]| {
        let split = Attr::Ints(split.iter().map(|&n| n as i64).collect());
        let attrs =
            [("out", int(out)), ("bias", Attr::Bool(true)), ("layout", Attr::Str("in_out".into())), ("split", split)];
        let used = if matches!(&attrs[3].1, Attr::Ints(v) if v.is_empty()) { &attrs[..3] } else { &attrs[..] };
        op(g, "linear", &name, Some(&name), &[x], used)
    };
    for i in 0..layers {
        let name = |part: &str| format!("h.{i}.{part}");
        let n = op(g, "layer_norm", &name("ln_1"), Some(&name("ln_1")), &[x], &[("eps", Attr::Float(1e-5))])[0];
        let qkv = linear(g, name("attn.c_attn"), n, 3 * c, &[c, c, c]);
        let a = op(g, "causal_attention", &name("attn"), None, &qkv, &[("heads", int(heads))])[0];
        let p = linear(g, name("attn.c_proj"), a, c, &[])[0];
        x = op(g, "add", &name("attn.residual"), None, &[x, p], &[])[0];
        let n = op(g, "layer_norm", &name("ln_2"), Some(&name("ln_2")), &[x], &[("eps", Attr::Float(1e-5))])[0];
        let f = linear(g, name("mlp.c_fc"), n, 4 * c, &[])[0];
        let f = op(g, "gelu", &name("mlp.gelu"), None, &[f], &[])[0];
        let p = linear(g, name("mlp.c_proj"), f, c, &[])[0];
        x = op(g, "add", &name("mlp.residual"), None, &[x, p], &[])[0];
    }
    let n = op(g, "layer_norm", "ln_f", Some("ln_f"), &[x], &[("eps", Attr::Float(1e-5))])[0];
    let logits = op(g, "linear", "logits", Some("wte"), &[n], &[("out", int(vocabulary))])[0];
    g.outputs.push(("logits".into(), logits));
    graph
}

/// A GPT-2, planned for inference of one sequence in calls of `step_rows` rows.
pub fn planned(sizes: Sizes, step_rows: usize, layout: Layout) -> Plan {
    let wanted_rows = if layout == Layout::Full { step_rows } else { 1 };
    let capacity = Capacity { slots: 1, context: sizes.context, step_rows, wanted_rows };
    compile(gpt2(sizes), Mode::Infer(layout), capacity).expect("a sound graph")
}
