//! Where the workers' cores have no cache in common, results are written past the caches and taken back from who has read them: the bits
//! are those of any other way.

#[path = "common/tiny_training.rs"]
mod tiny;

use staticgrad::exec::Trainer;
use staticgrad::graph::Graph;
use staticgrad::ops::Capacity;
use staticgrad::passes::lora::{self, Lora};
use staticgrad::passes::{self, Mode, Training};
use staticgrad::plan;
use staticgrad::spec;
use staticgrad::train::init;
use tiny::with_adamw;

const SLOTS: usize = 4;
const CONTEXT: usize = 64;
const VOCABULARY: usize = 331;

/// One layer whose products are as large as those that are treated so (the weights' gradients 1 MB).
fn graph(spec: &str) -> Graph {
    let sizes = [("C", 256), ("H", 4), ("KV", 2), ("F", 1088), ("L", 1), ("V", VOCABULARY), ("T", CONTEXT)];
    let known = |name: &str| spec == "llama" || !["KV", "F"].contains(&name);
    let sizes: Vec<(String, String)> =
        sizes.iter().filter(|(name, _)| known(name)).map(|(name, v)| (name.to_string(), v.to_string())).collect();
    spec::compile(&spec::builtin(spec).expect("a built-in spec"), &sizes, None).expect("the spec compiles")
}

fn tokens(first: usize) -> Vec<i32> {
    (first..first + SLOTS * CONTEXT).map(|i| (i * i * 7 % VOCABULARY) as i32).collect()
}

/// Losses, norms and parameters after ten steps.
fn trained(graph: &Graph, training: &Training, far: bool) -> (Vec<(f64, f32)>, Vec<u32>) {
    let graph = passes::train(graph, training).expect("the graph can be trained");
    let capacity = Capacity { slots: SLOTS, context: CONTEXT, step_rows: SLOTS * CONTEXT, wanted_rows: 1 };
    let plan = plan::compile(graph, Mode::Train, capacity).expect("the training graph compiles");
    let mut trainer = Trainer::new(&plan, 2).expect("the plan binds");
    init::initialise(&mut trainer, 1);
    trainer.executor_mut().assume_distance(far);
    let steps = tiny::ten_steps(&mut trainer, &tokens(0), &tokens(1), 1);
    let names: Vec<String> = trainer.parameters().map(String::from).collect();
    let values = names.iter().flat_map(|name| trainer.parameter(name).expect("a parameter"));
    (steps, values.map(|v| v.to_bits()).collect())
}

#[test]
fn training_has_the_same_bits_wherever_the_cores_are() {
    for spec in ["gpt2", "llama"] {
        let base = graph(spec);
        let adapters = Lora { rank: 8, alpha: 16.0, modules: Vec::new() };
        for (name, graph) in [("full", base.clone()), ("adapters", lora::attach(&base, &adapters).expect("they fit"))] {
            for bf16 in [false, true] {
                let training = Training { bf16, ..with_adamw(false) };
                let [near, far] = [false, true].map(|far| trained(&graph, &training, far));
                assert!(near.0.iter().all(|(loss, norm)| loss.is_finite() && *norm > 0.0), "{:?}", near.0);
                assert_eq!(near.0, far.0, "{spec} {name} bf16 {bf16}");
                assert!(near.1 == far.1, "{spec} {name} bf16 {bf16}: parameters");
            }
        }
    }
}
