//! Every fusion pass, alone and together with the others, against the unfused graph: fewer nodes, the same bits.

mod common;

use common::{open, session, tokens};
use staticgrad::exec::Want;
use staticgrad::ops::Capacity;
use staticgrad::passes::{Fusions, Layout, Mode};
use staticgrad::plan::compile_with;
use staticgrad::tensor::DType;
use staticgrad::weights::{ParamStore, WeightsType};

/// Bits of the logits, and how many nodes the graph has.
fn run(model: &str, fusions: Fusions, types: WeightsType) -> (Vec<u32>, usize) {
    let (checkpoint, graph) = open(model);
    let capacity = Capacity { slots: 1, context: 20, step_rows: 20, wanted_rows: 20 };
    let plan = compile_with(graph, Mode::Infer(Layout::Compact), capacity, fusions).expect("compiles");
    let store = ParamStore::load(&plan.graph, &checkpoint, types).expect("loads");
    let mut session = session(&plan, &store, 2);
    let mut bits = Vec::new();
    for part in tokens(20, 97).chunks(13) {
        session.run(&[(0, part)], Want::All).expect("fits");
        (0..part.len()).for_each(|i| bits.extend(session.logits(i).iter().map(|x| x.to_bits())));
    }
    (bits, plan.graph.nodes.len())
}

#[test]
fn fused_graphs_compute_the_same_bits() {
    for model in ["gpt2-tiny", "llama-tiny"] {
        for types in [DType::F32, DType::BF16, DType::Q8_0] {
            let types = WeightsType::Only(types);
            let (expected, unfused) = run(model, Fusions::NONE, types);
            let (all, fewest) = run(model, Fusions::ALL, types);
            assert!(all == expected, "{model} {types:?}: all passes");
            assert!(fewest < unfused, "{model}: {fewest} of {unfused} nodes");
            for name in Fusions::NAMES {
                let mut without = Fusions::ALL;
                assert!(without.switch_off(name));
                let (bits, nodes) = run(model, without, types);
                assert!(bits == expected, "{model} {types:?}: all but {name}");
                assert!(nodes >= fewest);
            }
        }
    }
}

#[test]
fn each_pass_finds_its_pattern() {
    let count = |model, fusions| run(model, fusions, WeightsType::Only(DType::F32)).1;
    for (name, model) in [
        ("gate-up", "llama-tiny"),
        ("activation", "gpt2-tiny"),
        ("products", "llama-tiny"),
        ("residual", "gpt2-tiny"),
        ("norm", "llama-tiny"),
    ] {
        let mut without = Fusions::ALL;
        without.switch_off(name);
        assert!(count(model, without) > count(model, Fusions::ALL), "{name} does nothing on {model}");
    }
}
