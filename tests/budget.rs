//! Memory budgets: plans get smaller, arithmetic grows, loss and gradients keep their bits.

mod common;

use staticgrad::exec::Trainer;
use staticgrad::graph::Section;
use staticgrad::ops::Capacity;
use staticgrad::passes::optimizer::AdamW;
use staticgrad::passes::{Mode, Training, recompute, train};
use staticgrad::plan::budget::{self, FuseOptimizer};
use staticgrad::plan::{Plan, compile};
use staticgrad::spec;

fn sets(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
}

fn graph(model: &str, training: &Training) -> staticgrad::graph::Graph {
    let sets = sets(&[("V", "97"), ("T", "32"), ("C", "32"), ("H", "4"), ("L", "3")]);
    let extra = if model == "llama" { self::sets(&[("KV", "2"), ("F", "48")]) } else { Vec::new() };
    let source = spec::builtin(model).expect("built in");
    let graph = spec::compile(&source, &[sets, extra].concat(), None).expect("compiles");
    train(&graph, training).expect("differentiates")
}

const CAPACITY: Capacity = Capacity { slots: 2, context: 32, step_rows: 64, wanted_rows: 64 };

/// A trainer whose parameters are filled, and their names.
fn filled(plan: &Plan) -> (Trainer<'_>, Vec<String>) {
    let mut trainer = Trainer::new(plan, 2).expect("starts");
    let names: Vec<String> = trainer.parameters().map(str::to_string).collect();
    for (p, name) in names.iter().enumerate() {
        let values = trainer.parameter_mut(name).expect("a parameter");
        values.iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 37 + p * 101) as f32).sin() * 0.2 + 0.05);
    }
    (trainer, names)
}

/// Bits of loss and of all gradients of one step.
fn step(plan: &Plan) -> Vec<u32> {
    let (mut trainer, names) = filled(plan);
    let tokens: Vec<i32> = (0..64).map(|i| (i * 13 + i * i) % 97).collect();
    let targets: Vec<i32> = (0..64).map(|i| (i * 17 + 3) % 97).collect();
    trainer.begin(1);
    trainer.micro_step(&tokens, &targets, 1.0 / 64.0).expect("fits");
    let mut bits = vec![(trainer.loss() as f32).to_bits()];
    for name in &names {
        bits.extend(trainer.gradient(name).expect("kept").iter().map(|x| x.to_bits()));
    }
    bits
}

#[test]
fn recomputation_does_not_change_a_bit() {
    for model in ["gpt2", "llama"] {
        let training = Training { keep_gradients: true, ..Training::default() };
        let graph = graph(model, &training);
        let whole = compile(graph.clone(), Mode::Train, CAPACITY).expect("plans");
        let expected = step(&whole);
        let blocks = recompute::blocks(&graph, 1);
        assert!(blocks.len() >= 2, "{model}: {} blocks", blocks.len());
        let cheap = recompute::cheap_nodes(&graph);
        let all: Vec<_> = blocks.concat();
        for nodes in [cheap, blocks[0].clone(), all] {
            let plan = compile(recompute::recompute(&graph, &nodes), Mode::Train, CAPACITY).expect("plans");
            assert!(plan.graph.nodes.iter().any(|n| n.recomputed));
            assert!(step(&plan) == expected, "{model}: {} recomputed nodes", nodes.len());
        }
    }
}

/// Keys and queries before their rotation are of no use to backward, so that rotating them again would keep as much and cost more.
#[test]
fn only_what_saves_memory_is_computed_again() {
    let graph = graph("llama", &Training { keep_gradients: true, ..Training::default() });
    let cheap = recompute::cheap_nodes(&graph);
    let ops = |op: &str| cheap.iter().filter(|n| graph.node(**n).op == op).count();
    assert_eq!([ops("rms_norm"), ops("silu"), ops("mul"), ops("rope")], [7, 3, 3, 0]);
    let transient = |nodes: &[_]| {
        let graph = recompute::recompute(&graph, nodes);
        compile(graph, Mode::Train, CAPACITY).expect("plans").totals.transient
    };
    let rotations =
        graph.node_ids().filter(|&n| graph.node(n).op == "rope" && graph.node(n).section == Section::Forward);
    let mut more: Vec<_> = cheap.iter().copied().chain(rotations).collect();
    more.sort_unstable();
    assert!(more.len() == cheap.len() + 6 && transient(&cheap) <= transient(&more));
}

#[test]
fn smaller_budgets_cost_more_arithmetic_and_the_impossible_is_explained() {
    let training = Training { optimizer: Some(AdamW::default()), ..Training::default() };
    let graph = graph("gpt2", &training);
    let fit = |bytes| budget::fit(graph.clone(), CAPACITY, bytes, 1, FuseOptimizer::Never);
    let roomy = fit(u64::MAX).expect("fits");
    assert_eq!(roomy.choice.extra, 0.0);
    let least = roomy.curve.iter().map(|c| c.bytes).min().expect("choices");
    assert!(least < roomy.choice.bytes);
    let tight = fit(least).expect("fits");
    assert!(tight.choice.extra > 0.0 && tight.choice.bytes <= least);
    let message = fit(1000).err().expect("too small").to_string();
    assert!(message.contains("1000") && message.contains(&least.to_string()), "{message}");
    assert!(message.contains("In the way is causal_attention.d_inputs"), "{message}");
    // Updates inside backward cost no arithmetic, so they come before recomputation.
    let fused = |bytes| budget::fit(graph.clone(), CAPACITY, bytes, 1, FuseOptimizer::WhereItHelps).expect("fits");
    assert!(!fused(u64::MAX).choice.name.contains("inside backward"));
    let extra = |c: &budget::Choice| (fit(c.bytes).expect("fits").choice.extra, fused(c.bytes).choice.extra);
    let pairs: Vec<(f64, f64)> = roomy.curve.iter().map(extra).collect();
    assert!(pairs.iter().all(|(apart, fused)| fused <= apart) && pairs.iter().any(|(apart, fused)| fused < apart));
}

#[test]
fn an_optimiser_inside_backward_updates_as_one_after_it() {
    let training = Training { optimizer: Some(AdamW::default()), ..Training::default() };
    let graph = graph("gpt2", &training);
    let after = compile(graph.clone(), Mode::Train, CAPACITY).expect("plans");
    let inside = budget::fit(graph, CAPACITY, u64::MAX, 1, FuseOptimizer::Always).expect("fits").plan;
    let run = |plan: &Plan| {
        let (mut trainer, names) = filled(plan);
        let tokens: Vec<i32> = (0..64).map(|i| (i * 13 + i * i) % 97).collect();
        for s in 1..=3 {
            let update = staticgrad::exec::Update { step: s, learning_rate: 1e-3, max_norm: None };
            trainer.begin(s);
            trainer.prepare_update(&update);
            trainer.micro_step(&tokens, &tokens, 1.0 / 64.0).expect("fits");
            trainer.update(&update);
        }
        names
            .iter()
            .flat_map(|n| trainer.parameter(n).expect("there").iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    assert!(run(&after) == run(&inside));
}

/// GPT-2 124M: what the budgets of the published sizes come to, in bytes beyond parameters and moments.
#[test]
fn gpt2_124m_fits_the_budgets_it_is_known_to_fit() {
    let source = spec::builtin("gpt2").expect("built in");
    let training = Training { optimizer: Some(AdamW::default()), ..Training::default() };
    let graph = train(&spec::compile(&source, &[], None).expect("compiles"), &training).expect("differentiates");
    let fit = |context: usize, mib: f64, fuse| {
        let capacity = Capacity { slots: 4, context, step_rows: 4 * context, wanted_rows: 4 * context };
        budget::fit(graph.clone(), capacity, (mib * 1048576.0) as u64, 1, fuse).map(|b| b.choice)
    };
    let cheap = fit(1024, 1792.0, FuseOptimizer::Never).expect("1.75 GiB without a matrix product recomputed");
    assert_eq!(cheap.name, "norms and activations");
    assert!(fit(1024, 716.8, FuseOptimizer::Never).expect("0.70 GiB").extra <= 0.18);
    assert_eq!(fit(64, 480.0, FuseOptimizer::Never).expect("480 MiB").extra, 0.0);
    assert!(fit(64, 190.0, FuseOptimizer::Always).expect("190 MiB with the optimiser inside backward").extra <= 0.18);
}
