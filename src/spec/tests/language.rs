//! What the constructs of the language mean.

use super::{attempt, errors, graph};
use crate::graph::{Attr, Init, TensorKind};
use crate::tensor::{DType, RowExtent};

/// A spec whose graph does `body` to `x: [8]` and takes its logits from `y`.
fn with(items: &str, body: &str) -> String {
    format!(
        "model m\ndims {{ V = 10  C = 8 }}\n{items}\ngraph(tokens) -> logits {{\n\
         x = embedding(tokens, wte, rows = V, width = C)\n{body}\nlogits = linear(y, head, out = V)\n}}\n"
    )
}

fn constant(text: &str, overrides: &[(&str, &str)], name: &str) -> Attr {
    graph(text, overrides, None).constants[name].clone()
}

#[test]
fn input_and_result() {
    let g = graph(&with("", "y = x"), &[], None);
    assert_eq!(g.name, "m");
    let tokens = g.tensor(g.find("tokens").expect("the input"));
    assert_eq!((tokens.ty.dtype, tokens.ty.extent, tokens.ty.shape.dims()), (DType::I32, RowExtent::Step, &[1][..]));
    assert_eq!(tokens.kind, TensorKind::Input);
    assert_eq!(g.ty(g.output("logits").expect("the result")).shape.dims(), [10]);
}

#[test]
fn constants_in_any_order() {
    let items = "dims { F = 4 * D  D = C / 2 }\nconst { a = min(F, 3, 5.5)  b = max(1, 2) == 2 && !(F < C)  c = -7 % 4  d = sqrt(C * 2) }
        const { e = F > 10 ? 1.5 : 2  w = \"out_in\"  f = w != \"in_out\"  g = 1_000 + 2e3  h = true ? 1 : 1 / 0 }";
    let g = graph(&with(items, "y = x"), &[], None);
    let values = [
        ("F", Attr::Int(16)),
        ("a", Attr::Int(3)),
        ("b", Attr::Bool(true)),
        ("c", Attr::Int(-3)),
        ("d", Attr::Float(4.0)),
        ("e", Attr::Float(1.5)),
        ("f", Attr::Bool(true)),
        ("g", Attr::Float(3000.0)),
        ("h", Attr::Int(1)),
    ];
    for (name, value) in values {
        assert_eq!(g.constants[name], value, "{name}");
    }
}

#[test]
fn overrides_win_over_sizes_over_defaults() {
    let items = "dims { F = 4 * C }\nconst { theta = 1e4  tied = true  layout = \"in_out\" }
        size big { C = 32  theta = 500000 }";
    let text = with(items, "y = x");
    assert_eq!(constant(&text, &[], "F"), Attr::Int(32));
    assert_eq!(constant(&text, &[("size", "big")], "F"), Attr::Int(128));
    assert_eq!(constant(&text, &[("size", "big"), ("C", "16")], "F"), Attr::Int(64));
    assert_eq!(constant(&text, &[("F", "3 * C + V")], "F"), Attr::Int(34));
    assert_eq!(constant(&text, &[("size", "big")], "theta"), Attr::Float(500000.0));
    assert_eq!(constant(&text, &[("tied", "false")], "tied"), Attr::Bool(false));
    assert_eq!(constant(&text, &[("layout", "out_in")], "layout"), Attr::Str("out_in".into()));
    assert_eq!(constant(&text, &[("layout", "\"out_in\"")], "layout"), Attr::Str("out_in".into()));
    assert_eq!(graph(&text, &[], Some("big")).constants["C"], Attr::Int(32));
}

#[test]
fn blocks_repeats_and_conditions() {
    let items = "const { deep = true }
        block step(x: [n], p, n, i) -> [C], [C] {
            if i % 2 == 0 { y = linear(x, p.even, out = n) } else if deep { y = linear(x, p.odd, out = n) } else { y = x }
            require i < 4 \"i stays small\"
            return x + y, y * y
        }";
    let body = "for i in 1..4 { x, y = step(x, h[i], i = i, n = C) }";
    let g = graph(&with(items, body), &[], None);
    let names: Vec<&str> = g.params().map(|p| g.tensor(p).name.as_str()).filter(|n| n.ends_with("weight")).collect();
    assert_eq!(names, ["wte.weight", "h.1.odd.weight", "h.2.even.weight", "h.3.odd.weight", "head.weight"]);
    let g = graph(&with(items, body), &[("deep", "false")], None);
    assert_eq!(g.params().filter(|&p| g.tensor(p).name.contains(".odd.")).count(), 0);
}

#[test]
fn paths_are_values() {
    let items = "const { tied = true }";
    let body = "p = model.layers[2 * 1].self_attn  x = linear(x, p.q_proj, out = C, bias = false)
        y = linear(x, tied ? p.q_proj : p.k_proj, out = C, bias = false)";
    let tied = graph(&with(items, body), &[], None);
    assert!(tied.find("model.layers.2.self_attn.q_proj.weight").is_some());
    assert!(tied.find("model.layers.2.self_attn.k_proj.weight").is_none());
    let untied = graph(&with(items, body), &[("tied", "false")], None);
    assert!(untied.find("model.layers.2.self_attn.k_proj.weight").is_some());
}

#[test]
fn initialisers_and_decay() {
    let body = "y = linear(x, a, out = C, init = normal(0.02 / sqrt(4)), decay = false)";
    let g = graph(&with("", body), &[], None);
    let weight = g.param(g.find("a.weight").expect("the weight")).expect("a parameter");
    assert_eq!((weight.init, weight.decay), (Init::Normal(0.01), false));
}

#[test]
fn attributes_by_name_by_shorthand_and_as_words() {
    let items = "const { eps = 1e-5  layout = \"in_out\" }";
    let body = "x = layer_norm(x, ln, eps)  q, y = linear(x, a, out = C + 4, split = [4, C], layout)
        y = linear(y, b, out = C, layout = out_in)";
    let g = graph(&with(items, body), &[], None);
    let shape = |name: &str| g.ty(g.find(name).expect(name)).shape.dims().to_vec();
    assert_eq!(g.nodes[1].attrs.float("eps"), Ok(1e-5));
    assert_eq!(shape("a.weight"), [8, 12]);
    assert_eq!(shape("b.weight"), [8, 8]);
    let g = graph(&with(items, body), &[("layout", "out_in")], None);
    assert_eq!(g.ty(g.find("a.weight").expect("the weight")).shape.dims(), [12, 8]);
}

#[test]
fn node_names_are_unique_and_say_where() {
    let items = "block mlp(x: [C], p) -> [C] { return x + gelu(gelu(linear(x, p.fc, out = C))) }";
    let g = graph(&with(items, "y = x  for i in 0..2 { y = mlp(y, h[i]) }"), &[], None);
    let names: Vec<&str> = g.nodes.iter().map(|n| n.name.as_str()).collect();
    let wanted = [
        "wte",
        "h.0.fc",
        "h.0.mlp.gelu",
        "h.0.mlp.gelu_2",
        "h.0.mlp.add",
        "h.1.fc",
        "h.1.mlp.gelu",
        "h.1.mlp.gelu_2",
        "h.1.mlp.add",
        "head",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn a_value_in_error_causes_no_other_errors() {
    let body = "a = nothing(x)\nb = gelu(a)\nc, d = linear(b, c, out = C)\ny = c + d * a\nif a { y = x }\nz = y";
    let (rendered, count) = errors(&with("", body), &[], None);
    assert_eq!(count, 1, "{rendered}");
}

#[test]
fn requirements_show_the_values() {
    let (rendered, _) = errors(&with("require C % 3 == 0 \"C must divide by 3\"", "y = x"), &[], None);
    assert!(rendered.contains("C must divide by 3") && rendered.contains("here C = 8"), "{rendered}");
    assert!(attempt(&with("require C % 3 == 0", "y = x"), &[("C", "9")], None).is_ok());
}
