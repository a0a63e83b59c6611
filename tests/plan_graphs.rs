//! Every graph-spec of the repository, inference and training, in all named sizes and several shapes: the placement ends at the bound, or
//! with a proof that none can. Effort is counted in search nodes, so the figures are the same on every machine.

use staticgrad::graph::Graph;
use staticgrad::ops::Capacity;
use staticgrad::passes::{self, Fusions, Layout, Mode, Training, fuse_optimizer, optimizer::AdamW};
use staticgrad::plan::placement::{self, Buffer, Options, Status};
use staticgrad::plan::{ALIGN, Plan, compile_with};
use staticgrad::spec;

/// A size by name, with what sets it.
type Size = (&'static str, &'static [(&'static str, &'static str)]);

/// Specs that come with the program, and their sizes; `inside` is that of the model inside the program.
const SPECS: [(&str, &[Size]); 2] = [
    (
        "gpt2",
        &[
            ("small", &[]),
            ("medium", &[("size", "medium")]),
            ("large", &[("size", "large")]),
            ("xl", &[("size", "xl")]),
            ("inside", &[("V", "256"), ("T", "256"), ("C", "192"), ("H", "6"), ("L", "5")]),
        ],
    ),
    (
        "llama",
        &[
            ("smollm2_135m", &[]),
            ("smollm2_360m", &[("size", "smollm2_360m")]),
            ("smollm2_1_7b", &[("size", "smollm2_1_7b")]),
            ("tinyllama_1_1b", &[("size", "tinyllama_1_1b")]),
            ("llama2_7b", &[("size", "llama2_7b")]),
            ("llama3_8b", &[("size", "llama3_8b")]),
        ],
    ),
];

/// Buffers up to which the bound must be reached, or refuted, within [`NODES`].
const SMALL: usize = 400;
/// Sequences and rows of a training step.
const SHAPES: [(usize, usize); 5] = [(1, 33), (4, 64), (6, 256), (1, 1024), (8, 1024)];
/// Search nodes of a small graph: one takes three to seven microseconds, so that five milliseconds suffice.
const NODES: u64 = 500;

fn graph(model: &str, (_, sets): &Size) -> Graph {
    let sets: Vec<(String, String)> = sets.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    spec::compile(&spec::builtin(model).expect("built in"), &sets, None).expect("compiles")
}

/// Places the transient buffers of a plan again, for what the search says beside the arena.
fn placed(plan: &Plan) -> (usize, placement::Placement) {
    let transient = plan.buffers.iter().filter(|b| !b.kind.is_persistent());
    let padded: Vec<Buffer> = transient
        .map(|b| Buffer::new(b.lower.into(), b.upper.into(), b.size.next_multiple_of(ALIGN)).aligned(ALIGN))
        .collect();
    (padded.len(), placement::place(&padded, &Options::default()).expect("places"))
}

fn check(what: &str, plan: &Plan) {
    let (buffers, placed) = placed(plan);
    let (status, nodes) = (placed.describe_status(), placed.nodes);
    println!("{what:60} {buffers:6} buffers  {status:18} {nodes:6} nodes  {}", placed.winner);
    assert_eq!((placed.arena, placed.bound), (plan.totals.transient, plan.totals.max_load), "{what}");
    assert_ne!(placed.status, Status::Gap, "{what}: {} of {}", placed.arena, placed.bound);
    assert!(buffers > SMALL || nodes <= NODES, "{what}: {nodes} nodes for {buffers} buffers");
}

#[test]
fn inference_plans_end_at_the_bound() {
    for (model, sizes) in SPECS {
        for size in sizes {
            let (graph, name) = (graph(model, size), size.0);
            let shapes = [(1, 64, 1, 1), (1, 1024, 64, 1), (3, 200, 7, 7), (4, 512, 512, 4)];
            for (slots, context, step_rows, wanted_rows) in
                shapes.into_iter().filter(|s| name != "inside" || s.1 <= 256)
            {
                let capacity = Capacity { slots, context, step_rows, wanted_rows };
                for (layout, fusions) in
                    [(Layout::Compact, Fusions::ALL), (Layout::Compact, Fusions::NONE), (Layout::Full, Fusions::ALL)]
                {
                    let wanted_rows = if layout == Layout::Full { step_rows } else { wanted_rows };
                    let capacity = Capacity { wanted_rows, ..capacity };
                    let plan = compile_with(graph.clone(), Mode::Infer(layout), capacity, fusions).expect("plans");
                    check(&format!("{model} {name} {slots} x {context}, {step_rows} a call, {layout:?}"), &plan);
                }
            }
        }
    }
}

#[test]
fn training_plans_end_at_the_bound() {
    for (model, sizes) in SPECS {
        for size in sizes {
            let (graph, name) = (graph(model, size), size.0);
            for (accumulate, fused) in [(false, false), (true, false), (false, true)] {
                let training = Training { accumulate, optimizer: Some(AdamW::default()), ..Training::default() };
                let graph = passes::train(&graph, &training).expect("differentiates");
                let graph = if fused { fuse_optimizer::run(graph).expect("fuses") } else { graph };
                for (slots, context) in SHAPES.into_iter().filter(|&(_, context)| name != "inside" || context <= 256) {
                    let step_rows = slots * context;
                    let capacity = Capacity { slots, context, step_rows, wanted_rows: step_rows };
                    let plan = compile_with(graph.clone(), Mode::Train, capacity, Fusions::ALL).expect("plans");
                    check(
                        &format!("{model} {name} {slots} x {context}, accumulate {accumulate}, fused {fused}"),
                        &plan,
                    );
                }
            }
        }
    }
}

/// Attention goes over tiles of keys: no buffer, and no scratch, has a size that grows with the square of the rows, as scores of all
/// rows by all rows would.
#[test]
fn twice_the_rows_take_at_most_twice_the_bytes() {
    for (model, size) in [("gpt2", ("long", &[("T", "4096")][..])), ("llama", ("smollm2_135m", &[][..]))] {
        let graph = graph(model, &size);
        let trained = passes::train(&graph, &Training { optimizer: Some(AdamW::default()), ..Training::default() });
        let trained = trained.expect("differentiates");
        for (graph, mode) in [(&graph, Mode::Infer(Layout::Compact)), (&trained, Mode::Train)] {
            let plan = |rows| {
                let capacity = Capacity { slots: 1, context: rows, step_rows: rows, wanted_rows: rows };
                compile_with(graph.clone(), mode, capacity, Fusions::ALL).expect("plans")
            };
            for (less, more) in [(plan(512), plan(1024)), (plan(1024), plan(2048))] {
                let rows = less.capacity.context;
                assert_eq!(less.buffers.len(), more.buffers.len());
                for (a, b) in less.buffers.iter().zip(&more.buffers) {
                    assert!(
                        b.size <= 2 * a.size,
                        "{model} {mode:?}, {rows} rows: {} has {} B, then {}",
                        a.name,
                        a.size,
                        b.size
                    );
                }
                let scratch = [&less, &more].map(|p| p.totals.scratch_per_worker);
                assert!(scratch[1] <= 2 * scratch[0], "{model} {mode:?}, {rows} rows: scratch {scratch:?}");
                assert!(scratch[1] < 4 * 1024 * 1024, "{model} {mode:?}, {rows} rows: scratch {scratch:?}");
            }
        }
    }
}
