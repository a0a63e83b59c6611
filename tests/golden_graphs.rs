//! The graphs and plans of the shipped specs at small sizes, against texts in `tests/golden/graphs`: a pass or a planner that
//! changes them shows what it changed. `STATICGRAD_BLESS=1` rewrites the texts.

use staticgrad::graph::Graph;
use staticgrad::ops::Capacity;
use staticgrad::passes::{self, Fusions, Layout, Mode, Training, optimizer::AdamW};
use staticgrad::plan::{self, Plan};
use staticgrad::spec;
use std::fmt::Write;
use std::path::Path;

fn graph(spec: &str, sizes: &[(&str, &str)]) -> Graph {
    let sizes: Vec<(String, String)> = sizes.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    spec::compile(&spec::builtin(spec).expect("a built-in spec"), &sizes, None).expect("the spec compiles")
}

fn summary(text: &mut String, what: &str, plan: &Plan) {
    let (c, t) = (plan.capacity, plan.totals);
    writeln!(
        text,
        "plan {what}: {} slots × {} rows, {} rows a call, {} wanted; {} steps, {} buffers; persistent {} B, transient {} B, bound {} B",
        c.slots,
        c.context,
        c.step_rows,
        c.wanted_rows,
        plan.graph.nodes.len(),
        plan.buffers.len(),
        t.persistent,
        t.transient,
        t.max_load
    )
    .expect("text grows");
}

/// The unrolled graph, the graph that a compact plan runs, and the sizes of the plans.
fn describe(graph: &Graph) -> String {
    let compact = Mode::Infer(Layout::Compact);
    let lowered = passes::lower(graph.clone(), compact, Fusions::ALL).expect("the graph lowers");
    let mut text = format!("# unrolled\n{}\n# lowered, compact\n{}\n# plans\n", graph, lowered);
    let capacity = Capacity { slots: 1, context: 8, step_rows: 4, wanted_rows: 1 };
    for (what, layout) in [("compact", Layout::Compact), ("full", Layout::Full)] {
        let plan = plan::compile(graph.clone(), Mode::Infer(layout), capacity).expect("the plan compiles");
        summary(&mut text, what, &plan);
    }
    let training = Training { optimizer: Some(AdamW::default()), ..Training::default() };
    let trained = passes::train(graph, &training).expect("the graph can be trained");
    let capacity = Capacity { slots: 2, context: 8, step_rows: 16, wanted_rows: 16 };
    summary(&mut text, "train", &plan::compile(trained, Mode::Train, capacity).expect("the plan compiles"));
    text
}

fn compare(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/graphs").join(format!("{name}.txt"));
    if std::env::var_os("STATICGRAD_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory can be made");
        std::fs::write(&path, got).expect("the text can be written");
        return;
    }
    let want = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let first = want.lines().zip(got.lines()).position(|(a, b)| a != b);
    let line = first.unwrap_or_else(|| want.lines().count().min(got.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_string();
    assert!(
        want == got,
        "{name}, line {}:\n  was {}\n  is  {}\nSTATICGRAD_BLESS=1 accepts it",
        line + 1,
        at(&want),
        at(got)
    );
}

#[test]
fn gpt2() {
    let sizes = [("V", "97"), ("T", "8"), ("C", "8"), ("H", "2"), ("L", "2")];
    compare("gpt2", &describe(&graph("gpt2", &sizes)));
    let bare = [&sizes[..], &[("bias", "false"), ("tied", "false"), ("gelu_by_table", "true")]].concat();
    compare("gpt2-bare", &graph("gpt2", &bare).to_string());
}

#[test]
fn llama() {
    let sizes = [("V", "97"), ("T", "8"), ("C", "8"), ("H", "2"), ("KV", "1"), ("L", "2"), ("F", "12")];
    compare("llama", &describe(&graph("llama", &sizes)));
    let untied = [&sizes[..], &[("tied", "false"), ("pairing", "\"adjacent\"")]].concat();
    compare("llama-untied", &graph("llama", &untied).to_string());
}
