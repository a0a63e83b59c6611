//! Gradients and optimiser steps against PyTorch's (fixtures), and the promises about bits: threads, accumulation, chunks.

#[path = "common/tiny_training.rs"]
mod tiny;

use staticgrad::exec::Update;
use staticgrad::ops::Capacity;
use staticgrad::passes::{self, Mode, Training};
use staticgrad::plan::{self, Plan};
use staticgrad::spec;
use tiny::*;

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
