//! Small models that several integration tests share.
#![allow(dead_code, reason = "each test binary uses a part")]

use staticgrad::exec::Session;
use staticgrad::graph::Graph;
use staticgrad::ops::Capacity;
use staticgrad::passes::kept_type::keep_as;
use staticgrad::passes::{Layout, Mode};
use staticgrad::plan::{Plan, compile};
use staticgrad::spec;
use staticgrad::tensor::DType;
use staticgrad::weights::{Checkpoint, ConstValue, ParamStore, WeightsType};
use std::path::PathBuf;

/// A fixture under `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A checkpoint and its graph.
pub fn open(name: &str) -> (Checkpoint, Graph) {
    let checkpoint = Checkpoint::open(&fixture(name), &[]).expect("the fixture opens");
    let config = checkpoint.config();
    let mut sets: Vec<(String, String)> = config.dims.iter().map(|(n, v)| (n.clone(), v.to_string())).collect();
    for (name, value) in &config.consts {
        let name = if name == "rope_theta" { "theta" } else { name };
        let value = match value {
            ConstValue::Float(x) => format!("{x:?}"),
            ConstValue::Bool(b) => b.to_string(),
        };
        sets.push((name.to_string(), value));
    }
    let source = spec::builtin(config.spec).expect("a built-in spec");
    let graph = spec::compile(&source, &sets, None).expect("the spec compiles");
    (checkpoint, graph)
}

/// A plan and the parameters of a fixture.
pub fn planned(name: &str, layout: Layout, capacity: Capacity, types: WeightsType) -> (Plan, ParamStore) {
    planned_keeping(name, layout, capacity, types, DType::F32)
}

/// As [`planned`], with keys and values kept in the type `kept`.
pub fn planned_keeping(
    name: &str,
    layout: Layout,
    capacity: Capacity,
    types: WeightsType,
    kept: DType,
) -> (Plan, ParamStore) {
    let (checkpoint, graph) = open(name);
    let graph = keep_as(&graph, kept).expect("a type that rows are kept in");
    let plan = compile(graph, Mode::Infer(layout), capacity).expect("the plan compiles");
    let store = ParamStore::load(&plan.graph, &checkpoint, types).expect("the weights load");
    (plan, store)
}

/// A session on them.
pub fn session<'w>(plan: &'w Plan, store: &'w ParamStore, threads: usize) -> Session<'w> {
    Session::new(plan, threads, &|name| store.get(name)).expect("the session starts")
}

/// Tokens that cover a vocabulary unevenly.
pub fn tokens(n: usize, vocabulary: i32) -> Vec<i32> {
    (0..n as i32).map(|i| (i * 31 + i * i * 7) % vocabulary).collect()
}
