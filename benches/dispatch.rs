//! What it costs to hand work to the workers, and to walk a plan: `cargo bench --bench dispatch`.

use divan::Bencher;
use divan::counter::ItemsCount;
use staticgrad::exec::workers::{Job, Workers};
use staticgrad::exec::{Session, Want};
use staticgrad::ops::Capacity;
use staticgrad::passes::{Layout, Mode};
use staticgrad::plan::compile;
use staticgrad::spec;
use staticgrad::tensor::DType;
use staticgrad::weights::ParamStore;

fn main() {
    divan::main();
}

/// Phases of tiles that do nothing.
struct Empty {
    phases: usize,
    tiles: usize,
}

impl Job for Empty {
    fn phases(&self) -> usize {
        self.phases
    }
    fn tiles(&self, _phase: usize) -> usize {
        self.tiles
    }
    fn run(&self, phase: usize, tile: usize, worker: usize) {
        divan::black_box((phase, tile, worker));
    }
}

/// Workers as the program has them.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Waking the workers for one phase of one tile.
#[divan::bench]
fn one_call(bencher: Bencher) {
    let workers = Workers::new(workers()).expect("threads start");
    bencher.bench_local(|| workers.run(&Empty { phases: 1, tiles: 1 }));
}

/// From one phase to the next; an item is a phase.
#[divan::bench(args = [1, 16, 64])]
fn phases(bencher: Bencher, tiles: usize) {
    let workers = Workers::new(workers()).expect("threads start");
    bencher.counter(ItemsCount::new(200usize)).bench_local(|| workers.run(&Empty { phases: 200, tiles }));
}

/// One token through a model so small that only the walk over its steps takes time; an item is a step.
#[divan::bench(args = [1, 2])]
fn token_of_a_tiny_model(bencher: Bencher, threads: usize) {
    let sets: Vec<(String, String)> = [("V", 64), ("T", 64), ("C", 32), ("H", 2), ("L", 12)]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .to_vec();
    let graph = spec::compile(&spec::builtin("gpt2").expect("built in"), &sets, None).expect("compiles");
    let capacity = Capacity { slots: 1, context: 64, step_rows: 1, wanted_rows: 1 };
    let plan = compile(graph, Mode::Infer(Layout::Compact), capacity).expect("plans");
    let parameters: Vec<(String, Vec<f32>)> = plan
        .graph
        .params()
        .map(|t| (plan.graph.tensor(t).name.clone(), vec![0.01; plan.graph.ty(t).shape.elements()]))
        .collect();
    let read = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice());
    let store = ParamStore::from_values(&plan.graph, DType::F32, &read).expect("packs");
    let mut session = Session::new(&plan, threads, &|name| store.get(name)).expect("starts");
    bencher.counter(ItemsCount::new(plan.graph.nodes.len())).bench_local(|| {
        session.truncate(0, 32);
        session.run(&[(0, &[7])], Want::Last).expect("fits");
    });
}
