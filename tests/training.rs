//! Gradients and optimiser steps against PyTorch's (fixtures), and the promises about bits: threads, accumulation, chunks.

use safetensors::SafeTensors;
use staticgrad::exec::{Trainer, Update};
use staticgrad::graph::Graph;
use staticgrad::ops::Capacity;
use staticgrad::passes::lora::{self, Lora};
use staticgrad::passes::{self, Mode, Training, optimizer::AdamW};
use staticgrad::plan::{self, Plan};
use staticgrad::spec;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read_tensors(path: PathBuf) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    file.iter().map(|(name, view)| (name.to_string(), view.data().to_vec())).collect()
}

fn floats(tensors: &[(String, Vec<u8>)], name: &str) -> Vec<f32> {
    let found = tensors.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} is missing"));
    found.1.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
}

fn integers(tensors: &[(String, Vec<u8>)], name: &str) -> Vec<i32> {
    floats(tensors, name).into_iter().map(|f| f.to_bits() as i32).collect()
}

/// A tiny model with its reference.
struct Model {
    graph: Graph,
    weights: Vec<(String, Vec<u8>)>,
    reference: Vec<(String, Vec<u8>)>,
    /// Before parameter names in the checkpoint.
    prefix: &'static str,
}

fn model(name: &str) -> Model {
    model_with(name, &[])
}

fn model_with(name: &str, more: &[(&str, &str)]) -> Model {
    let (spec, sizes, prefix): (&str, &[(&str, &str)], _) = match name {
        "gpt2-tiny" => ("gpt2", &[("V", "97"), ("T", "32"), ("C", "64"), ("H", "4"), ("L", "2")], "transformer."),
        _ => (
            "llama",
            &[
                ("V", "97"),
                ("T", "64"),
                ("C", "64"),
                ("H", "4"),
                ("KV", "2"),
                ("L", "2"),
                ("F", "160"),
                ("theta", "10000.0"),
            ],
            "",
        ),
    };
    let sizes: Vec<(String, String)> = sizes.iter().chain(more).map(|(n, v)| (n.to_string(), v.to_string())).collect();
    let graph = spec::compile(&spec::builtin(spec).expect("a built-in spec"), &sizes, None).expect("the spec compiles");
    let weights = read_tensors(fixture(name).join("model.safetensors"));
    Model { graph, weights, reference: read_tensors(fixture(name).join("reference.safetensors")), prefix }
}

impl Model {
    fn plan(&self, training: &Training, slots: usize, context: usize) -> Plan {
        let graph = passes::train(&self.graph, training).expect("the graph can be trained");
        let capacity = Capacity { slots, context, step_rows: slots * context, wanted_rows: 1 };
        plan::compile(graph, Mode::Train, capacity).expect("the training graph compiles")
    }

    fn trainer<'p>(&self, plan: &'p Plan, threads: usize) -> Trainer<'p> {
        let mut trainer = Trainer::new(plan, threads).expect("the plan binds");
        for name in trainer.parameters().collect::<Vec<_>>() {
            let stored = format!("{}{name}", self.prefix);
            let stored = if self.weights.iter().any(|(n, _)| *n == stored) { stored } else { name.to_string() };
            if !self.weights.iter().any(|(n, _)| *n == stored) {
                let a = stored.ends_with("lora_A.weight");
                assert!(a || stored.ends_with("lora_B.weight"), "{stored} is not in the checkpoint");
                let values = trainer.parameter_mut(name).expect("it is a parameter");
                values.iter_mut().enumerate().for_each(|(i, v)| *v = if a { (i as f32).sin() * 0.1 } else { 0.0 });
                continue;
            }
            let values = floats(&self.weights, &stored);
            trainer.parameter_mut(name).expect("it is a parameter").copy_from_slice(&values);
        }
        trainer
    }

    fn batch(&self) -> (Vec<i32>, Vec<i32>) {
        (integers(&self.reference, "tokens"), integers(&self.reference, "targets"))
    }
}

fn with_adamw(accumulate: bool) -> Training {
    Training { accumulate, optimizer: Some(AdamW::default()), keep_gradients: true, ..Default::default() }
}

fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut want.iter().map(|&b| f64::from(b))).max(1e-30)
}

#[test]
fn gradients_match_pytorch() {
    for name in ["gpt2-tiny", "llama-tiny"] {
        let model = model(name);
        for training in [Training::default(), with_adamw(true)] {
            let plan = model.plan(&training, 2, 16);
            let mut trainer = model.trainer(&plan, 2);
            let (tokens, targets) = model.batch();
            trainer.begin(1);
            trainer.micro_step(&tokens, &targets, 1.0 / 32.0).expect("a valid batch");
            let loss = floats(&model.reference, "loss")[0];
            assert!((trainer.loss() - f64::from(loss)).abs() < 1e-5, "{name}: loss {} for {loss}", trainer.loss());
            let mut worst: (f64, &str) = (0.0, "");
            for parameter in trainer.parameters() {
                // Contributions of tied parameters meet in the update.
                if training.accumulate && (parameter.contains("wte") || parameter.contains("embed_tokens")) {
                    continue;
                }
                let want = ["grad.", "grad.transformer."].iter().find_map(|prefix| {
                    let name = format!("{prefix}{parameter}");
                    model.reference.iter().any(|(n, _)| *n == name).then(|| floats(&model.reference, &name))
                });
                let want = want.unwrap_or_else(|| panic!("no reference gradient of {parameter}"));
                let off = relative(trainer.gradient(parameter).expect("every parameter has a gradient"), &want);
                assert!(off < 1e-4, "{name}: gradient of {parameter} is off by {off}");
                worst = if off > worst.0 { (off, parameter) } else { worst };
            }
            println!("{name}: loss {}, worst gradient {} of {}", trainer.loss(), worst.0, worst.1);
        }
    }
}

/// Losses and norms of ten steps on the same batch.
fn ten_steps(trainer: &mut Trainer, tokens: &[i32], targets: &[i32], parts: usize) -> Vec<(f64, f32)> {
    let rows = tokens.len() / parts;
    (1..=10)
        .map(|step| {
            trainer.begin(step);
            for part in 0..parts {
                let range = part * rows..(part + 1) * rows;
                trainer
                    .micro_step(&tokens[range.clone()], &targets[range], 1.0 / tokens.len() as f32)
                    .expect("a valid batch");
            }
            trainer.update(&Update { step, learning_rate: 1e-3, max_norm: Some(1.0) });
            (trainer.loss(), trainer.gradient_norm().expect("an optimiser that clips"))
        })
        .collect()
}

fn snapshot(trainer: &Trainer) -> Vec<u32> {
    let mut all = Vec::new();
    for name in trainer.parameters() {
        all.extend(trainer.parameter(name).expect("a parameter").iter().map(|v| v.to_bits()));
        let moments = trainer.moments(name).expect("moments");
        moments.iter().for_each(|m| all.extend(m.iter().map(|v| v.to_bits())));
    }
    all
}

#[test]
fn ten_steps_of_adamw_match_pytorch() {
    for name in ["gpt2-tiny", "llama-tiny"] {
        let model = model(name);
        let plan = model.plan(&with_adamw(false), 2, 16);
        let (tokens, targets) = model.batch();
        let mut results = Vec::new();
        for threads in [1, 2, 3] {
            let mut trainer = model.trainer(&plan, threads);
            let steps = ten_steps(&mut trainer, &tokens, &targets, 1);
            results.push((steps, snapshot(&trainer)));
        }
        assert!(results.iter().all(|r| *r == results[0]), "{name}: the bits depend on the threads");
        let (losses, norms) = (floats(&model.reference, "adamw.losses"), floats(&model.reference, "adamw.grad_norms"));
        for (i, (loss, norm)) in results[0].0.iter().enumerate() {
            assert!((loss - f64::from(losses[i])).abs() < 1e-4, "{name} step {i}: loss {loss} for {}", losses[i]);
            assert!(
                (norm - norms[i]).abs() < 1e-4 * norms[i].max(1.0),
                "{name} step {i}: norm {norm} for {}",
                norms[i]
            );
        }
    }
}

/// A batch of 4 × 32 tokens.
fn larger_batch() -> (Vec<i32>, Vec<i32>) {
    let tokens: Vec<i32> = (0..128).map(|i| (i * i * 31 + i * 7) % 97).collect();
    let mut targets: Vec<i32> = tokens.iter().skip(1).copied().chain([5]).collect();
    targets[17] = -100;
    (tokens, targets)
}

#[test]
fn micro_batches_have_the_bits_of_the_big_batch() {
    for name in ["gpt2-tiny", "llama-tiny"] {
        let model = model(name);
        let (tokens, targets) = larger_batch();
        let mut results = Vec::new();
        for (accumulate, slots, parts) in [(false, 4, 1), (true, 4, 1), (true, 2, 2)] {
            let plan = model.plan(&with_adamw(accumulate), slots, 32);
            let mut trainer = model.trainer(&plan, 2);
            let steps = ten_steps(&mut trainer, &tokens, &targets, parts);
            results.push((steps, snapshot(&trainer)));
        }
        assert_eq!(results[0].0, results[1].0, "{name}: accumulating one micro-batch");
        assert!(results[0].1 == results[1].1, "{name}: accumulating one micro-batch");
        assert_eq!(results[0].0, results[2].0, "{name}: two micro-batches");
        assert!(results[0].1 == results[2].1, "{name}: two micro-batches");
    }
}

#[test]
fn one_batch_is_learnt_by_heart() {
    let model = model("gpt2-tiny");
    let plan = model.plan(&with_adamw(false), 2, 16);
    let mut trainer = model.trainer(&plan, 2);
    let (tokens, targets) = model.batch();
    let mut loss = f64::INFINITY;
    for step in 1..=300 {
        trainer.begin(step);
        trainer.micro_step(&tokens, &targets, 1.0 / 32.0).expect("a valid batch");
        trainer.update(&Update { step, learning_rate: 3e-3, max_norm: Some(1.0) });
        loss = trainer.loss();
    }
    assert!(loss < 0.01, "loss {loss} after 300 steps on one batch");
    let (sum, count) = trainer.evaluate(&tokens, &targets).expect("a valid batch");
    assert!(count == 32 && sum / 32.0 < 0.01);
}

#[test]
fn dropout_depends_on_the_step_alone_and_rests_in_evaluation() {
    let model = model_with("gpt2-tiny", &[("dropout", "0.2")]);
    let (tokens, targets) = larger_batch();
    let mut results = Vec::new();
    for (accumulate, slots, parts, threads) in [(false, 4, 1, 1), (false, 4, 1, 3), (true, 2, 2, 2)] {
        let plan = model.plan(&with_adamw(accumulate), slots, 32);
        assert_eq!(plan.graph.nodes.iter().filter(|n| n.op == "dropout").count(), 10);
        let mut trainer = model.trainer(&plan, threads);
        trainer.set_seed(0x1234_5678_9abc_def0);
        let steps = ten_steps(&mut trainer, &tokens, &targets, parts);
        results.push((steps, snapshot(&trainer)));
    }
    assert!(results.iter().all(|r| *r == results[0]), "dropout depends on threads or micro-batches");
    let plan = model.plan(&with_adamw(false), 4, 32);
    let losses: Vec<f64> = [1u64, 1, 2]
        .into_iter()
        .map(|seed| {
            let mut trainer = model.trainer(&plan, 2);
            trainer.set_seed(seed);
            trainer.begin(1);
            trainer.micro_step(&tokens, &targets, 1.0 / 128.0).expect("a valid batch");
            trainer.loss()
        })
        .collect();
    assert!(losses[0] == losses[1] && losses[0] != losses[2], "{losses:?}");
    let (still, dropless) = (model.trainer(&plan, 2).evaluate(&tokens, &targets), {
        let without = crate::model("gpt2-tiny");
        let plan = without.plan(&with_adamw(false), 4, 32);
        let result = without.trainer(&plan, 2).evaluate(&tokens, &targets);
        result.expect("a valid batch")
    });
    assert_eq!(still.expect("a valid batch"), dropless);
}

#[test]
fn bf16_products_stay_close_and_keep_the_promises_about_bits() {
    for name in ["gpt2-tiny", "llama-tiny"] {
        let model = model(name);
        let (tokens, targets) = larger_batch();
        let mut results = Vec::new();
        for (accumulate, slots, parts, threads) in [(false, 4, 1, 1), (false, 4, 1, 2), (true, 2, 2, 2)] {
            let plan = model.plan(&Training { bf16: true, ..with_adamw(accumulate) }, slots, 32);
            let mut trainer = model.trainer(&plan, threads);
            let steps = ten_steps(&mut trainer, &tokens, &targets, parts);
            results.push((steps, snapshot(&trainer)));
        }
        assert!(results.iter().all(|r| *r == results[0]), "{name}: bits depend on threads or micro-batches");
        let plan = model.plan(&with_adamw(false), 4, 32);
        let exact = ten_steps(&mut model.trainer(&plan, 2), &tokens, &targets, 1);
        for ((loss, _), (want, _)) in results[0].0.iter().zip(&exact) {
            assert!((loss / want - 1.0).abs() < 0.01 && loss != want, "{name}: {loss} in bf16, {want} in f32");
        }
    }
}

#[test]
fn adapters_train_while_the_base_is_frozen() {
    for (name, modules) in [("gpt2-tiny", vec!["c_attn".to_string(), "mlp.c_proj".into()]), ("llama-tiny", Vec::new())]
    {
        let base = model(name);
        let lora = Lora { rank: 4, alpha: 8.0, modules: modules.clone() };
        let graph = lora::attach(&base.graph, &lora).expect("adapters fit");
        let adapted = Model { graph, ..model(name) };
        let (tokens, targets) = base.batch();
        let base_plan = base.plan(&with_adamw(false), 2, 16);
        let before = base.trainer(&base_plan, 2).evaluate(&tokens, &targets).expect("a valid batch");
        let plan = adapted.plan(&with_adamw(false), 2, 16);
        let mut trainer = adapted.trainer(&plan, 2);
        assert_eq!(trainer.evaluate(&tokens, &targets).expect("a valid batch"), before, "B = 0 changes nothing");
        ten_steps(&mut trainer, &tokens, &targets, 1);
        let after = trainer.evaluate(&tokens, &targets).expect("a valid batch");
        assert!(after.0 < 0.98 * before.0, "{name}: {} after ten steps, {} before", after.0, before.0);
        let mut adapters = 0;
        let untouched = base.trainer(&base_plan, 1);
        for parameter in trainer.parameters() {
            match untouched.parameter(parameter) {
                Some(values) => assert_eq!(trainer.parameter(parameter).expect("a parameter"), values, "{parameter}"),
                None => adapters += 1,
            }
            assert_eq!(trainer.moments(parameter).is_some(), untouched.parameter(parameter).is_none(), "{parameter}");
        }
        assert_eq!(adapters, if modules.is_empty() { 2 * 2 * 7 } else { 2 * 2 * 2 });
        assert!(plan.totals.persistent < base_plan.totals.persistent / 2);
    }
    let unknown = Lora { rank: 4, alpha: 8.0, modules: vec!["nothing".into()] };
    assert!(lora::attach(&model("gpt2-tiny").graph, &unknown).is_err());
}

#[test]
fn dead_memory_is_never_read() {
    let model = model("llama-tiny");
    let plan = model.plan(&with_adamw(false), 2, 16);
    let (tokens, targets) = model.batch();
    let run = |poison: bool| {
        let mut trainer = model.trainer(&plan, 2);
        trainer.begin(1);
        trainer.micro_step(&tokens, &targets, 1.0 / 32.0).expect("a valid batch");
        if poison {
            for n in 0..plan.graph.nodes.len() {
                trainer.executor_mut().execute(n..n + 1);
                trainer.executor_mut().poison_dead(n);
            }
        } else {
            trainer.executor_mut().execute(0..plan.graph.nodes.len());
        }
        snapshot(&trainer)
    };
    assert!(run(true) == run(false), "a step reads memory that the plan calls dead");
}

#[test]
fn what_is_not_finite_is_named() {
    let model = model("gpt2-tiny");
    let plan = model.plan(&with_adamw(false), 2, 16);
    let mut trainer = model.trainer(&plan, 2);
    let (tokens, targets) = model.batch();
    trainer.parameter_mut("h.0.mlp.c_fc.bias").expect("a parameter")[3] = 3e38;
    trainer.parameter_mut("h.0.mlp.c_proj.weight").expect("a parameter").fill(1e3);
    trainer.begin(1);
    trainer.micro_step(&tokens, &targets, 1.0 / 32.0).expect("a valid batch");
    assert!(!trainer.loss().is_finite());
    let first = trainer.find_non_finite().expect("something is not finite");
    assert!(first.starts_with("linear '"), "{first}");
    trainer.parameter_mut("ln_f.weight").expect("a parameter")[0] = f32::NAN;
    assert_eq!(trainer.find_non_finite().as_deref(), Some("parameter ln_f.weight"));
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let model = model("gpt2-tiny");
    let plan = model.plan(&with_adamw(false), 2, 16);
    let mut trainer = model.trainer(&plan, 1);
    let (tokens, mut targets) = model.batch();
    assert!(trainer.micro_step(&tokens[1..], &targets, 1.0).is_err());
    targets[0] = 97;
    assert!(trainer.micro_step(&tokens, &targets, 1.0).is_err());
    targets[0] = -1;
    assert!(trainer.micro_step(&tokens, &targets, 1.0).is_err());
    targets[0] = -100;
    trainer.begin(1);
    trainer.micro_step(&tokens, &targets, 1.0).expect("an ignored target is valid");
    assert!(trainer.micro_step(&tokens, &targets, 1.0).is_err(), "a second micro-batch without accumulation");
}

/// Bytes beyond parameters and moments, and the largest buffers at the step with the most.
fn beyond_parameters_and_moments(plan: &Plan, threads: usize) -> (u64, Vec<(String, u64)>) {
    use staticgrad::plan::BufferKind;
    let optimiser = |name: &str| name.ends_with("_moment");
    let kept: u64 = plan
        .buffers
        .iter()
        .filter(|b| b.kind == BufferKind::Parameter || b.kind == BufferKind::State && optimiser(&b.name))
        .map(|b| b.size.next_multiple_of(plan::ALIGN))
        .sum();
    let live =
        |step: u32| plan.buffers.iter().filter(move |b| !b.kind.is_persistent() && b.lower <= step && step < b.upper);
    let load = |step: u32| live(step).map(|b| b.size).sum::<u64>();
    let peak = (0..plan.graph.nodes.len() as u32).max_by_key(|&s| load(s)).expect("there are steps");
    let mut largest: Vec<(String, u64)> =
        live(peak).map(|b| (format!("{} {}", b.kind.name(), b.name), b.size)).collect();
    largest.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    largest.truncate(5);
    largest.push((format!("peak at {}", plan.graph.nodes[peak as usize].name), load(peak)));
    (plan.totals.arena(threads) - kept, largest)
}

#[test]
fn gpt2_124m_trains_in_500_mib_beyond_parameters_and_moments() {
    let graph = spec::compile(&spec::builtin("gpt2").expect("a built-in spec"), &[], None).expect("the spec compiles");
    let graph = passes::train(&graph, &Training { keep_gradients: false, ..with_adamw(false) }).expect("trainable");
    let capacity = Capacity { slots: 4, context: 64, step_rows: 256, wanted_rows: 1 };
    let plan = plan::compile(graph, Mode::Train, capacity).expect("compiles");
    let (bytes, largest) = beyond_parameters_and_moments(&plan, 2);
    println!("{:.1} MiB beyond parameters and moments; {:?}", bytes as f64 / (1 << 20) as f64, plan.totals);
    largest.iter().for_each(|(name, size)| println!("{:10.1} MiB  {name}", *size as f64 / (1 << 20) as f64));
    assert!(bytes <= 500 << 20, "{bytes} bytes");
}
