//! Plans of random graphs and placements of random lifespans are sound; the waterfall of a plan undoes recomputation.

mod sample_plans;

use proptest::prelude::*;
use sample_plans::{TINY, gpt2, training};
use staticgrad::graph::{Attr, Attrs, Graph, Node, Section, TensorId};
use staticgrad::ops::Capacity;
use staticgrad::ops::build::{Call, call};
use staticgrad::passes::optimizer::AdamW;
use staticgrad::passes::{self, Layout, Mode, Training, recompute};
use staticgrad::plan::placement::{self, Options};
use staticgrad::plan::report::Report;
use staticgrad::plan::{compile, file};
use staticgrad::tensor::{DType, RowExtent, Shape};
use std::path::Path;

/// A choice of op and of what it reads.
type Choice = (usize, prop::sample::Index, prop::sample::Index, usize);

/// A graph in which every op reads any earlier values of fitting widths; every value that nothing reads is a result, and so are some
/// others.
fn random_graph(choices: &[Choice]) -> Graph {
    const WIDTHS: [usize; 4] = [1, 7, 16, 40];
    let mut g = Graph::new("random");
    let mut values: Vec<TensorId> =
        WIDTHS.iter().map(|w| g.add_input(&format!("x{w}"), DType::F32, RowExtent::Step, Shape::new([*w]))).collect();
    for (i, (op, a, b, width)) in choices.iter().enumerate() {
        let x = values[a.index(values.len())];
        let same: Vec<TensorId> = values.iter().copied().filter(|&v| g.ty(v) == g.ty(x)).collect();
        let y = same[b.index(same.len())];
        let name = format!("n{i}");
        let (op, inputs, attrs) = match op % 7 {
            0 => ("gelu", vec![x], Attrs::new()),
            1 => ("silu", vec![x], Attrs::new()),
            2 | 3 => ("add", vec![x, y], Attrs::new()),
            4 => ("mul", vec![x, y], Attrs::new()),
            5 => ("layer_norm", vec![x], Attrs::new().with("eps", Attr::Float(1e-5))),
            _ => ("linear", vec![x], Attrs::new().with("out", Attr::Int(WIDTHS[width % 4] as i64))),
        };
        let path = matches!(op, "layer_norm" | "linear").then(|| format!("p{i}"));
        let made = call(&mut g, Call { op, name, inputs, path: path.as_deref(), attrs }).expect("widths fit");
        values.extend(made);
    }
    let readers = g.readers();
    let results = values.iter().filter(|v| g.producer(**v).is_some());
    let outputs = results.filter(|v| readers[v.index()].is_empty() || v.0 % 11 == 0);
    g.outputs = outputs.map(|&v| (format!("r{}", v.0), v)).collect();
    g
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    prop::collection::vec((0usize..7, any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..4), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_of_random_graphs_are_sound(choices in choices(), full in any::<bool>(), step_rows in 1usize..6) {
        let mode = Mode::Infer(if full { Layout::Full } else { Layout::Compact });
        let capacity = Capacity { slots: 2, context: 9, step_rows, wanted_rows: 1 };
        let plan = compile(random_graph(&choices), mode, capacity).expect("compiles and verifies");
        prop_assert!(plan.totals.transient >= plan.totals.max_load);
        let bytes = file::to_bytes(&plan);
        prop_assert_eq!(&file::from_bytes(Path::new("a.plan"), &bytes).expect("loads"), &plan);
        let again = compile(random_graph(&choices), mode, capacity).expect("compiles");
        prop_assert_eq!(file::to_bytes(&again), bytes, "the same graph gives the same bytes");
        let report = Report::of(&plan);
        prop_assert_eq!(report.peak.bytes, plan.totals.max_load);
        for pair in report.waterfall.windows(2).take(2) {
            prop_assert!(pair[1].bytes <= pair[0].bytes, "{:?}", report.waterfall);
        }
    }

    #[test]
    fn placements_of_random_lifespans_are_sound(
        spans in prop::collection::vec((0u64..40, 1u64..12, 0u64..500, 0u32..4), 0..60),
    ) {
        let buffers: Vec<placement::Buffer> = spans
            .iter()
            .map(|&(lower, length, size, align)| placement::Buffer::new(lower, lower + length, size).aligned(1 << (2 * align)))
            .collect();
        let options = Options { effort: 2000, ..Options::default() };
        let placed = placement::place(&buffers, &options).expect("places");
        prop_assert!(placement::verify(&buffers, &placed.offsets, placed.arena).is_ok());
        prop_assert!(placed.arena >= placement::max_load(&buffers));
        prop_assert_eq!(placement::place(&buffers, &options).expect("places").offsets, placed.offsets);
    }
}

/// The waterfall is rebuilt from the final graph alone: without recomputation it must find the load that the plan has without it.
#[test]
fn the_waterfall_undoes_recomputation() {
    let training = Training { optimizer: Some(AdamW::default()), ..Training::default() };
    let graph = passes::train(&gpt2(TINY), &training).expect("the graph can be trained");
    let capacity = Capacity { slots: 2, context: 16, step_rows: 32, wanted_rows: 1 };
    let again = recompute::recompute(&graph, &recompute::cheap_nodes(&graph));
    let plain = compile(graph, Mode::Train, capacity).expect("compiles");
    let thrifty = Report::of(&compile(again, Mode::Train, capacity).expect("compiles"));
    assert!(thrifty.recomputed_flops > 0.0);
    let bytes = |report: &Report, name: &str| report.waterfall.iter().find(|s| s.name == name).expect("a stage").bytes;
    let before = Report::of(&plain);
    for stage in ["naive", "lifespans", "in-place", "order"] {
        assert_eq!(bytes(&thrifty, stage), bytes(&before, stage), "{stage}");
    }
    assert_eq!(bytes(&thrifty, "recomputation"), thrifty.totals.max_load);
    assert_eq!(bytes(&before, "recomputation"), plain.totals.max_load);
}

/// The order of a plan is the written one or a better one, also where the optimiser takes norms of large gradients in backward.
#[test]
fn the_waterfall_finds_the_written_order() {
    let plan = training(&[("V", "1024"), ("T", "16"), ("C", "256"), ("H", "4"), ("L", "2")], 2, 16, false);
    let early = |n: &&Node| n.op == "block_norms" && n.section == Section::Backward;
    assert!(plan.graph.nodes.iter().filter(early).count() > 4);
    let stages = Report::of(&plan).waterfall;
    assert!(stages.iter().all(|stage| stage.saved >= 0), "{stages:?}");
}
