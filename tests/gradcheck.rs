//! Every op of the registry: kernels against the plain f64 reference, and gradients against finite differences of it.

use staticgrad::exec::{Executor, Want};
use staticgrad::graph::{Graph, Section, TensorId};
use staticgrad::ops::{self, Call, Capacity, Case, Op, RefTensor};
use staticgrad::passes::{Mode, autodiff};
use staticgrad::plan::{self, Plan};
use staticgrad::tensor::{DType, RowExtent, Shape};
use std::collections::BTreeMap;

/// Uniform numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    /// In −1..1, exact in f32.
    fn unit(&mut self) -> f64 {
        self.next() as f64 as f32 as f64 / f64::from(1u32 << 30) - 1.0
    }
}

/// A case as a graph with one node, and values for everything.
struct Setup {
    graph: Graph,
    case: Case,
    /// Values of the node's operands.
    values: Vec<RefTensor>,
}

fn setup(op: &dyn Op, case: Case) -> Setup {
    let mut graph = Graph::new(op.keyword());
    let inputs: Vec<TensorId> = case
        .inputs
        .iter()
        .enumerate()
        .map(|(i, ty)| graph.add_input(&format!("in{i}"), ty.dtype, ty.extent, ty.shape.clone()))
        .collect();
    let has_params = !op.params(&case.attrs, &case.inputs).expect("the case's parameters are known").is_empty();
    let call = Call {
        op: op.keyword(),
        name: "node".into(),
        inputs,
        path: has_params.then_some("p"),
        attrs: case.attrs.clone(),
    };
    let outputs = ops::build::call(&mut graph, call).unwrap_or_else(|e| panic!("{} {}: {e}", op.keyword(), case.name));
    graph.outputs = outputs.iter().enumerate().map(|(i, &t)| (format!("out{i}"), t)).collect();
    let mut random = Random(7 + case.rows as u64);
    let values = graph.nodes[0].operands.iter().map(|&t| {
        let ty = graph.ty(t);
        let last = ty.shape.dims().last().copied().unwrap_or(1);
        let (rows, width) = match ty.extent {
            RowExtent::Fixed => (ty.shape.elements() / last, last),
            _ => (case.slots * case.rows, ty.shape.elements()),
        };
        let mut value = || match ty.dtype {
            DType::I32 => (random.next() % case.int_limit.max(1) as u64) as f64,
            _ => random.unit(),
        };
        RefTensor { rows, width, data: (0..rows * width).map(|_| value()).collect() }
    });
    let values = values.collect();
    Setup { graph, case, values }
}

impl Setup {
    fn capacity(&self) -> Capacity {
        let rows = self.case.slots * self.case.rows;
        Capacity { slots: self.case.slots, context: self.case.rows, step_rows: rows, wanted_rows: 1 }
    }

    fn operands(&self) -> Vec<TensorId> {
        self.graph.nodes[0].operands.clone()
    }

    fn reference(&self, values: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let op = ops::find(&self.graph.nodes[0].op).expect("the op is registered");
        op.reference(&ops::build::signature(&self.graph, &self.graph.nodes[0]), &self.case, values)
    }

    /// Runs a plan with the case's values, and `more` by name.
    fn run<'p>(&self, plan: &'p Plan, more: &[(String, &RefTensor)]) -> Executor<'p> {
        let mut exec = Executor::new(plan, 2, &|_| None).expect("the plan binds");
        let mut set = |name: &str, value: &RefTensor| {
            let Some(t) = plan.graph.find(name) else { return };
            match plan.graph.ty(t).dtype {
                DType::I32 => exec.tensor_mut::<i32>(t).iter_mut().zip(&value.data).for_each(|(o, v)| *o = *v as i32),
                _ => exec.tensor_mut::<f32>(t).iter_mut().zip(&value.data).for_each(|(o, v)| *o = *v as f32),
            }
        };
        for (t, value) in self.operands().iter().zip(&self.values) {
            set(&self.graph.tensor(*t).name, value);
        }
        more.iter().for_each(|(name, value)| set(name, value));
        let segments: Vec<_> = (0..self.case.slots).map(|s| (s, 0, self.case.rows)).collect();
        exec.set_rows(&segments, Want::None);
        exec.execute(0..plan.graph.nodes.len());
        exec
    }

    fn compare(&self, what: &str, got: &[f32], want: &[f64], tolerance: f64) {
        let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let label = format!("{} {} {what}[{i}]", self.graph.nodes[0].op, self.case.name);
            assert!((f64::from(*g) - w).abs() <= tolerance * scale, "{label}: {g} instead of {w}");
        }
    }
}

fn cases() -> impl Iterator<Item = (&'static dyn Op, Case)> {
    ops::registry().iter().flat_map(|op| op.cases().into_iter().map(move |case| (*op, case)))
}

#[test]
fn kernels_match_their_reference() {
    let mut checked = 0;
    for (op, case) in cases() {
        let setup = setup(op, case);
        let want = setup.reference(&setup.values).expect("an op with cases has a reference");
        let plan = plan::compile(setup.graph.clone(), Mode::Train, setup.capacity()).expect("the case compiles");
        let exec = setup.run(&plan, &[]);
        for (i, want) in want.iter().enumerate() {
            let out = plan.graph.output(&format!("out{i}")).expect("the result is kept");
            let tolerance = if op.keyword() == "gelu_table" { 1e-3 } else { 2e-6 };
            setup.compare(&format!("out{i}"), exec.tensor::<f32>(out), &want.data, tolerance);
        }
        checked += 1;
    }
    assert!(checked > 15, "only {checked} cases");
}

/// Most elements of an operand that are checked; of a larger one, elements at equal distances.
const MOST_ELEMENTS: usize = 150;

/// Gradients of Σ upstream · outputs by central differences of the reference, for elements 0, `pitch`, 2·`pitch`, … of operand `i`.
fn differences(setup: &Setup, upstream: &[RefTensor], i: usize, pitch: usize) -> Vec<f64> {
    let objective = |values: &[RefTensor]| -> f64 {
        let outputs = setup.reference(values).expect("checked before");
        outputs.iter().zip(upstream).flat_map(|(o, u)| o.data.iter().zip(&u.data)).map(|(o, u)| o * u).sum()
    };
    let mut values = setup.values.clone();
    let step = 1e-5;
    (0..values[i].data.len())
        .step_by(pitch)
        .map(|e| {
            let at = values[i].data[e];
            let mut shifted = |by: f64| {
                values[i].data[e] = at + by;
                objective(&values)
            };
            let slope = (shifted(step) - shifted(-step)) / (2.0 * step);
            values[i].data[e] = at;
            slope
        })
        .collect()
}

#[test]
fn gradients_match_finite_differences() {
    let mut checked = 0;
    for (op, case) in cases().filter(|(op, _)| op.keyword() != "gelu_table") {
        let setup = setup(op, case);
        let mut random = Random(99);
        let mut graph = setup.graph.clone();
        let outputs: Vec<TensorId> = graph.nodes[0].outputs.clone();
        // A loss differentiates itself, times the loss scale.
        let scale = if op.is_loss() { setup.values[3].data[ops::hyper::LOSS_SCALE] } else { 0.0 };
        let upstream: Vec<RefTensor> = setup
            .reference(&setup.values)
            .expect("an op with cases has a reference")
            .into_iter()
            .map(|o| RefTensor {
                data: o.data.iter().map(|_| if op.is_loss() { scale } else { random.unit() }).collect(),
                ..o
            })
            .collect();
        let mut seeds = BTreeMap::new();
        if !op.is_loss() {
            for (i, &out) in outputs.iter().enumerate() {
                let ty = graph.ty(out).clone();
                seeds.insert(out, graph.add_input(&format!("up{i}"), ty.dtype, ty.extent, ty.shape));
            }
        }
        let of: Vec<TensorId> =
            setup.operands().into_iter().filter(|&t| graph.ty(t).dtype == DType::F32 && !is_hyper(&setup, t)).collect();
        if of.is_empty() {
            continue;
        }
        let graph = autodiff::differentiate_from(graph, &seeds, &of).expect("the op has a derivative");
        let plan = plan::compile(graph, Mode::Train, setup.capacity()).expect("the gradients compile");
        assert!(
            plan.graph.nodes.iter().any(|n| n.section == Section::Backward) || op.is_loss() || op.keyword() == "add"
        );
        let more: Vec<_> = upstream.iter().enumerate().map(|(i, u)| (format!("up{i}"), u)).collect();
        let exec = setup.run(&plan, &more);
        for &t in &of {
            let name = &setup.graph.tensor(t).name;
            let i = setup.operands().iter().position(|&o| o == t).expect("it is an operand");
            let got = plan.graph.output(&format!("grad.{name}")).expect("every operand has a gradient");
            // An odd distance visits every column of a row whose width is even.
            let pitch = setup.values[i].data.len().div_ceil(MOST_ELEMENTS) | 1;
            let got: Vec<f32> = exec.tensor::<f32>(got).iter().copied().step_by(pitch).collect();
            setup.compare(&format!("d_{name}"), &got, &differences(&setup, &upstream, i, pitch), 2e-5);
            checked += 1;
        }
    }
    assert!(checked > 25, "only {checked} gradients");
}

/// Whether an operand holds run-time scalars, which have no gradient.
fn is_hyper(setup: &Setup, t: TensorId) -> bool {
    let ty = setup.graph.ty(t);
    *ty == ops::hyper::hyper_type() && setup.graph.param(t).is_none()
}

#[test]
fn a_tensor_used_several_times_gets_the_sum() {
    // y = x·x + gelu(x): three uses of x, two of them by one node.
    let mut g = Graph::new("uses");
    let x = g.add_input("x", DType::F32, RowExtent::Step, Shape::new([5]));
    let up = g.add_input("up", DType::F32, RowExtent::Step, Shape::new([5]));
    let mut call = |op: &'static str, inputs: Vec<TensorId>| {
        let call = Call { op, name: op.into(), inputs, path: None, attrs: Default::default() };
        ops::build::call(&mut g, call).expect("the call fits")[0]
    };
    let square = call("mul", vec![x, x]);
    let smooth = call("gelu", vec![x]);
    let y = call("add", vec![square, smooth]);
    g.outputs.push(("y".into(), y));
    let g = autodiff::differentiate_from(g, &BTreeMap::from([(y, up)]), &[x]).expect("differentiable");
    let capacity = Capacity { slots: 1, context: 3, step_rows: 3, wanted_rows: 1 };
    let plan = plan::compile(g, Mode::Train, capacity).expect("compiles");
    let mut exec = Executor::new(&plan, 1, &|_| None).expect("binds");
    let mut random = Random(3);
    let [xs, ups]: [Vec<f64>; 2] = [0, 1].map(|_| (0..15).map(|_| random.unit()).collect());
    for (name, values) in [("x", &xs), ("up", &ups)] {
        let t = plan.graph.find(name).expect("in the graph");
        exec.tensor_mut::<f32>(t).iter_mut().zip(values).for_each(|(o, v)| *o = *v as f32);
    }
    exec.set_rows(&[(0, 0, 3)], Want::None);
    exec.execute(0..plan.graph.nodes.len());
    let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    let got = exec.tensor::<f32>(plan.graph.output("grad.x").expect("there"));
    for i in 0..15 {
        let f = |x: f64| x * x + gelu(x);
        let want = ups[i] * (f(xs[i] + 1e-6) - f(xs[i] - 1e-6)) / 2e-6;
        assert!((f64::from(got[i]) - want).abs() < 1e-5, "{i}: {} instead of {want}", got[i]);
    }
}

#[test]
fn frozen_parameters_have_no_gradient() {
    let mut setup =
        setup(ops::find("linear").expect("registered"), ops::find("linear").expect("registered").cases()[1].clone());
    for t in setup.graph.params().collect::<Vec<_>>() {
        if let staticgrad::graph::TensorKind::Param(info) = &mut setup.graph.tensors[t.index()].kind {
            info.trainable = false;
        }
    }
    let mut graph = setup.graph.clone();
    let out = graph.nodes[0].outputs[0];
    let up = graph.add_input("up", DType::F32, RowExtent::Step, graph.ty(out).shape.clone());
    let x = graph.nodes[0].operands[0];
    let graph = autodiff::differentiate_from(graph, &BTreeMap::from([(out, up)]), &[x]).expect("differentiable");
    let ops: Vec<&str> = graph.nodes.iter().map(|n| n.op.as_str()).collect();
    assert_eq!(ops, ["linear", "linear.d_input"]);
}
