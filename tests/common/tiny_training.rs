//! The tiny models with their references, bound to training plans.
#![allow(dead_code, reason = "each test binary uses a part")]

use safetensors::SafeTensors;
use staticgrad::exec::{Trainer, Update};
use staticgrad::graph::Graph;
use staticgrad::ops::Capacity;
use staticgrad::passes::{self, Mode, Training, optimizer::AdamW};
use staticgrad::plan::{self, Plan};
use staticgrad::spec;
use std::path::{Path, PathBuf};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn read_tensors(path: PathBuf) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    file.iter().map(|(name, view)| (name.to_string(), view.data().to_vec())).collect()
}

pub fn floats(tensors: &[(String, Vec<u8>)], name: &str) -> Vec<f32> {
    let found = tensors.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} is missing"));
    found.1.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
}

pub fn integers(tensors: &[(String, Vec<u8>)], name: &str) -> Vec<i32> {
    floats(tensors, name).into_iter().map(|f| f.to_bits() as i32).collect()
}

/// A tiny model with its reference.
pub struct Model {
    pub graph: Graph,
    pub weights: Vec<(String, Vec<u8>)>,
    pub reference: Vec<(String, Vec<u8>)>,
    /// Before parameter names in the checkpoint.
    pub prefix: &'static str,
}

pub fn model(name: &str) -> Model {
    model_with(name, &[])
}

pub fn model_with(name: &str, more: &[(&str, &str)]) -> Model {
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
    pub fn plan(&self, training: &Training, slots: usize, context: usize) -> Plan {
        let graph = passes::train(&self.graph, training).expect("the graph can be trained");
        let capacity = Capacity { slots, context, step_rows: slots * context, wanted_rows: 1 };
        plan::compile(graph, Mode::Train, capacity).expect("the training graph compiles")
    }

    pub fn trainer<'p>(&self, plan: &'p Plan, threads: usize) -> Trainer<'p> {
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

    pub fn batch(&self) -> (Vec<i32>, Vec<i32>) {
        (integers(&self.reference, "tokens"), integers(&self.reference, "targets"))
    }
}

pub fn with_adamw(accumulate: bool) -> Training {
    Training { accumulate, optimizer: Some(AdamW::default()), keep_gradients: true, ..Default::default() }
}

/// Norm of the difference over the norm of what is wanted.
pub fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut want.iter().map(|&b| f64::from(b))).max(1e-30)
}

/// Losses and norms of ten steps on the same batch.
pub fn ten_steps(trainer: &mut Trainer, tokens: &[i32], targets: &[i32], parts: usize) -> Vec<(f64, f32)> {
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

pub fn snapshot(trainer: &Trainer) -> Vec<u32> {
    let mut all = Vec::new();
    for name in trainer.parameters() {
        all.extend(trainer.parameter(name).expect("a parameter").iter().map(|v| v.to_bits()));
        let moments = trainer.moments(name).expect("moments");
        moments.iter().for_each(|m| all.extend(m.iter().map(|v| v.to_bits())));
    }
    all
}

/// A batch of 4 × 32 tokens.
pub fn larger_batch() -> (Vec<i32>, Vec<i32>) {
    let tokens: Vec<i32> = (0..128).map(|i| (i * i * 31 + i * 7) % 97).collect();
    let mut targets: Vec<i32> = tokens.iter().skip(1).copied().chain([5]).collect();
    targets[17] = -100;
    (tokens, targets)
}
