//! The specs that come with the program describe the published models.

use super::super::{builtin, compile, load};
use crate::graph::Graph;

fn build(name: &str, overrides: &[(&str, &str)], size: Option<&str>) -> Graph {
    let overrides: Vec<(String, String)> = overrides.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    compile(&builtin(name).expect(name), &overrides, size).unwrap_or_else(|e| panic!("{e}"))
}

fn parameters(g: &Graph) -> u64 {
    g.params().map(|p| g.ty(p).shape.elements() as u64).sum()
}

/// Names and shapes of all parameters, sorted.
fn listed(g: &Graph) -> Vec<(String, Vec<usize>)> {
    let mut all: Vec<_> = g.params().map(|p| (g.tensor(p).name.clone(), g.ty(p).shape.dims().to_vec())).collect();
    all.sort();
    all
}

/// `PREFIX.{0,1}.NAME` for each pair, and the pairs of `rest` as they are.
fn expected(prefix: &str, layer: &[(&str, &[usize])], rest: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    let mut all: Vec<_> = rest.iter().map(|(n, s)| (n.to_string(), s.to_vec())).collect();
    for i in 0..2 {
        all.extend(layer.iter().map(|(n, s)| (format!("{prefix}.{i}.{n}"), s.to_vec())));
    }
    all.sort();
    all
}

const GPT2_TINY: [(&str, &str); 5] = [("V", "97"), ("T", "32"), ("C", "64"), ("L", "2"), ("H", "4")];

#[test]
fn gpt2_parameters_are_those_of_the_checkpoint() {
    let layer: [(&str, &[usize]); 12] = [
        ("ln_1.weight", &[64]),
        ("ln_1.bias", &[64]),
        ("attn.c_attn.weight", &[64, 192]),
        ("attn.c_attn.bias", &[192]),
        ("attn.c_proj.weight", &[64, 64]),
        ("attn.c_proj.bias", &[64]),
        ("ln_2.weight", &[64]),
        ("ln_2.bias", &[64]),
        ("mlp.c_fc.weight", &[64, 256]),
        ("mlp.c_fc.bias", &[256]),
        ("mlp.c_proj.weight", &[256, 64]),
        ("mlp.c_proj.bias", &[64]),
    ];
    let mut rest: Vec<(&str, &[usize])> =
        vec![("wte.weight", &[97, 64]), ("wpe.weight", &[32, 64]), ("ln_f.weight", &[64]), ("ln_f.bias", &[64])];
    assert_eq!(listed(&build("gpt2", &GPT2_TINY, None)), expected("h", &layer, &rest));
    rest.push(("lm_head.weight", &[97, 64]));
    let untied = [&GPT2_TINY[..], &[("tied", "false")]].concat();
    assert_eq!(listed(&build("gpt2", &untied, None)), expected("h", &layer, &rest));
}

#[test]
fn llama_parameters_are_those_of_the_checkpoint() {
    let layer: [(&str, &[usize]); 9] = [
        ("input_layernorm.weight", &[64]),
        ("self_attn.q_proj.weight", &[64, 64]),
        ("self_attn.k_proj.weight", &[32, 64]),
        ("self_attn.v_proj.weight", &[32, 64]),
        ("self_attn.o_proj.weight", &[64, 64]),
        ("post_attention_layernorm.weight", &[64]),
        ("mlp.gate_proj.weight", &[160, 64]),
        ("mlp.up_proj.weight", &[160, 64]),
        ("mlp.down_proj.weight", &[64, 160]),
    ];
    let rest: [(&str, &[usize]); 2] = [("model.embed_tokens.weight", &[97, 64]), ("model.norm.weight", &[64])];
    let set =
        [("V", "97"), ("T", "64"), ("C", "64"), ("L", "2"), ("H", "4"), ("KV", "2"), ("F", "160"), ("theta", "1e4")];
    assert_eq!(listed(&build("llama", &set, None)), expected("model.layers", &layer, &rest));
    let wide = build("llama", &[&set[..], &[("D", "32"), ("tied", "false")]].concat(), None);
    let shape = |name: &str| wide.ty(wide.find(name).expect(name)).shape.dims().to_vec();
    assert_eq!(shape("model.layers.1.self_attn.q_proj.weight"), [128, 64]);
    assert_eq!(shape("model.layers.1.self_attn.o_proj.weight"), [64, 128]);
    assert_eq!(shape("lm_head.weight"), [97, 64]);
}

#[test]
fn parameter_counts_are_the_published_ones() {
    let sizes = [
        ("gpt2", "small", 124_439_808),
        ("gpt2", "medium", 354_823_168),
        ("gpt2", "large", 774_030_080),
        ("gpt2", "xl", 1_557_611_200),
        ("llama", "smollm2_135m", 134_515_008),
        ("llama", "smollm2_360m", 361_821_120),
        ("llama", "smollm2_1_7b", 1_711_376_384),
        ("llama", "tinyllama_1_1b", 1_100_048_384),
        ("llama", "llama2_7b", 6_738_415_616),
        ("llama", "llama3_8b", 8_030_261_248),
    ];
    for (spec, size, count) in sizes {
        assert_eq!(parameters(&build(spec, &[], Some(size))), count, "{spec} {size}");
    }
    assert_eq!(build("gpt2", &[], None), build("gpt2", &[], Some("small")));
    assert_eq!(build("llama", &[], None), build("llama", &[], Some("smollm2_135m")));
}

#[test]
fn gpt2_nodes_and_initialisers() {
    let g = build("gpt2", &GPT2_TINY, None);
    let std = |name: &str| match g.param(g.find(name).expect(name)).expect(name).init {
        crate::graph::Init::Normal(std) => std,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(std("h.1.attn.c_attn.weight"), 0.02);
    assert_eq!(std("h.1.mlp.c_proj.weight"), 0.01, "0.02 / sqrt(2 L) with two layers");
    assert_eq!(std("wpe.weight"), 0.02);
    let table = build("gpt2", &[&GPT2_TINY[..], &[("gelu_by_table", "true")]].concat(), None);
    assert_eq!(table.nodes.iter().filter(|n| n.op == "gelu_table").count(), 2);
    let plain = build("gpt2", &[&GPT2_TINY[..], &[("bias", "false"), ("layout", "out_in")]].concat(), None);
    assert!(plain.find("h.0.mlp.c_fc.bias").is_none());
    assert_eq!(plain.ty(plain.find("h.0.mlp.c_fc.weight").expect("a weight")).shape.dims(), [256, 64]);
}

#[test]
fn loading() {
    assert_eq!(load("gpt2").expect("built in"), builtin("gpt2").expect("built in"));
    let message = load("gpt3").expect_err("no such spec").to_string();
    assert!(message.contains("gpt2, llama") && message.contains("did you mean 'gpt2'?"), "{message}");
    assert!(load("no/such/file.sg").expect_err("no such file").to_string().contains("no/such/file.sg"));
}

#[test]
fn the_documentation_mentions_every_op() {
    let text = include_str!("../../../graph-specs/README.md");
    for op in super::super::check::ops_in_specs() {
        assert!(text.contains(&format!("`{op}(")), "graph-specs/README.md says nothing of `{op}(…)`");
    }
}
