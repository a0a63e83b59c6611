//! Small transformers, planned: what the tests of plans work on.
#![allow(dead_code, reason = "each test binary uses a part")]

use staticgrad::graph::Graph;
use staticgrad::ops::Capacity;
use staticgrad::passes::{self, Layout, Mode, Training, optimizer::AdamW};
use staticgrad::plan::{Plan, compile};
use staticgrad::spec;

/// Dimensions by name, for [`gpt2`].
pub type Sizes<'a> = &'a [(&'a str, &'a str)];

/// Two layers, small enough to read.
pub const TINY: Sizes = &[("V", "64"), ("T", "16"), ("C", "32"), ("H", "2"), ("L", "2")];

/// GPT-2 with these dimensions.
pub fn gpt2(sizes: Sizes) -> Graph {
    let sets: Vec<(String, String)> = sizes.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    spec::compile(&spec::builtin("gpt2").expect("a built-in spec"), &sets, None).expect("the spec compiles")
}

/// A GPT-2, planned for inference of one sequence of `context` rows in calls of `step_rows` rows.
pub fn planned_for(sizes: Sizes, context: usize, step_rows: usize, layout: Layout) -> Plan {
    let wanted_rows = if layout == Layout::Full { step_rows } else { 1 };
    let capacity = Capacity { slots: 1, context, step_rows, wanted_rows };
    compile(gpt2(sizes), Mode::Infer(layout), capacity).expect("a sound graph")
}

/// [`TINY`], planned for inference in calls of `step_rows` rows.
pub fn planned(step_rows: usize, layout: Layout) -> Plan {
    planned_for(TINY, 16, step_rows, layout)
}

/// A GPT-2, planned for training steps of `slots` sequences of `context` rows with AdamW.
pub fn training(sizes: Sizes, slots: usize, context: usize, accumulate: bool) -> Plan {
    let training = Training { accumulate, optimizer: Some(AdamW::default()), ..Training::default() };
    let graph = passes::train(&gpt2(sizes), &training).expect("the graph can be trained");
    let capacity = Capacity { slots, context, step_rows: slots * context, wanted_rows: 1 };
    compile(graph, Mode::Train, capacity).expect("the training graph compiles")
}
