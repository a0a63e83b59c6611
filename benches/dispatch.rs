//! What it costs to hand work to the workers, and to walk a plan: `cargo bench --bench dispatch`.

use divan::Bencher;
use divan::counter::ItemsCount;
use staticgrad::exec::workers::{Job, Workers};
use staticgrad::exec::{Session, Want};
use staticgrad::ops::Capacity;
use staticgrad::passes::{Layout, Mode};
use staticgrad::plan::compile;
use staticgrad::spec;
use staticgrad::weights::{Checkpoint, ParamStore, WeightsType};

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
    fn run(&self, phase: usize, tiles: std::ops::Range<usize>, worker: usize) {
        divan::black_box((phase, tiles, worker));
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
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2-tiny");
    let checkpoint = Checkpoint::open(&path, &[]).expect("the fixture opens");
    let sets: Vec<(String, String)> =
        checkpoint.config().dims.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
    let graph = spec::compile(&spec::builtin("gpt2").expect("built in"), &sets, None).expect("compiles");
    let capacity = Capacity { slots: 1, context: 32, step_rows: 1, wanted_rows: 1 };
    let plan = compile(graph, Mode::Infer(Layout::Compact), capacity).expect("plans");
    let store = ParamStore::load(&plan.graph, &checkpoint, WeightsType::Native).expect("loads");
    let mut session = Session::new(&plan, threads, &|name| store.get(name)).expect("starts");
    bencher.counter(ItemsCount::new(plan.graph.nodes.len())).bench_local(|| {
        session.truncate(0, 16);
        session.run(&[(0, &[7])], Want::Last).expect("fits");
    });
}
