//! Each way to break a plan is caught by name, in memory and from a file.

mod sample_plans;

use sample_plans::{TINY, gpt2, training};
use staticgrad::graph::{TensorId, TensorKind};
use staticgrad::ops::build::signature;
use staticgrad::ops::{self, Capacity};
use staticgrad::passes::{Fusions, Layout, Mode, alias};
use staticgrad::plan::{BufferKind, Plan, compile_with, file, verify};
use staticgrad::tensor::RowExtent;
use std::path::Path;

/// A way to break a plan: what it is, what the refusal must say, and how.
type Mutation = (&'static str, &'static str, fn(&mut Plan));

fn transient(plan: &Plan, i: usize) -> usize {
    let all: Vec<usize> = (0..plan.buffers.len()).filter(|&b| !plan.buffers[b].kind.is_persistent()).collect();
    all[i % all.len()]
}

fn of_kind(plan: &Plan, kind: BufferKind) -> usize {
    plan.buffers.iter().position(|b| b.kind == kind).unwrap_or_else(|| panic!("no {} in the sample", kind.name()))
}

/// Two transient buffers, neither empty, that are live at one step.
fn live_together(plan: &Plan) -> (usize, usize) {
    let n = plan.buffers.len();
    let pairs = (0..n).flat_map(|a| (0..a).map(move |b| (a, b)));
    let mut found = pairs.filter(|&(a, b)| {
        let (x, y) = (&plan.buffers[a], &plan.buffers[b]);
        let transient = !x.kind.is_persistent() && !y.kind.is_persistent();
        transient && x.size >= y.size && y.size > 0 && x.lower.max(y.lower) < x.upper.min(y.upper)
    });
    found.next().expect("some buffers live together")
}

/// A tensor that takes over an operand's memory although its op need not.
fn aliased(plan: &Plan) -> TensorId {
    let free = |t: &TensorId| {
        plan.aliases[t.index()].is_some_and(|o| matches!(plan.graph.tensor(o).kind, TensorKind::Value(_)))
    };
    plan.graph.tensor_ids().find(free).expect("something happens in place")
}

/// Takes tensor `t` out of its buffer and puts it into that of `other`; its own buffer disappears.
fn share(plan: &mut Plan, t: TensorId, other: TensorId) {
    let gone = plan.tensor_buffer[t.index()].expect("it has a buffer");
    let kept = plan.tensor_buffer[other.index()];
    plan.aliases[t.index()] = Some(other);
    plan.tensor_buffer.iter_mut().filter(|b| **b == Some(gone)).for_each(|b| *b = kept);
    plan.buffers.remove(gone as usize);
    let after = plan.tensor_buffer.iter_mut().chain(&mut plan.node_scratch).flatten();
    after.filter(|b| **b > gone).for_each(|b| *b -= 1);
}

/// An output with a buffer of its own, and an operand that it could take over if nothing read that later.
fn too_early(plan: &Plan) -> (TensorId, TensorId) {
    let last = alias::last_readers(&plan.graph);
    for (n, node) in plan.graph.nodes.iter().enumerate() {
        let sig = signature(&plan.graph, node);
        let op = ops::find(&node.op).expect("a known op");
        for (o, &output) in node.outputs.iter().enumerate().filter(|(_, t)| plan.aliases[t.index()].is_none()) {
            for (i, &operand) in node.operands.iter().enumerate() {
                let later = last[operand.index()].is_some_and(|l| l > n);
                if later && op.may_alias(&sig, i, o) && alias::legal(&plan.graph, operand, output) {
                    return (output, operand);
                }
            }
        }
    }
    panic!("nothing is read again after an op that could have overwritten it")
}

/// What is wrong with any plan.
const MUTATIONS: &[Mutation] = &[
    ("overlap", "overlap", |p| {
        let (a, b) = live_together(p);
        p.buffers[b].offset = p.buffers[a].offset;
    }),
    ("too small", "bytes and needs", |p| {
        let b = transient(p, 3);
        p.buffers[b].size -= 4;
    }),
    ("too large", "bytes and needs", |p| {
        let b = transient(p, 3);
        p.buffers[b].size += 64;
    }),
    ("nothing", "bytes and needs", |p| p.buffers[0].size = 0),
    ("lifespan cut at the end", "lifespan", |p| {
        let b = p.buffers.iter().position(|b| !b.kind.is_persistent() && b.upper - b.lower > 1).expect("one");
        p.buffers[b].upper -= 1;
    }),
    ("lifespan cut at the start", "lifespan", |p| {
        let b = p.buffers.iter().position(|b| !b.kind.is_persistent() && b.upper - b.lower > 1).expect("one");
        p.buffers[b].lower += 1;
    }),
    ("lifespan beyond the schedule", "lifespan", |p| {
        let b = transient(p, 0);
        p.buffers[b].upper = p.graph.nodes.len() as u32 + 1;
    }),
    ("lifespan of a persistent buffer cut", "lifespan", |p| p.buffers[0].upper -= 1),
    ("misaligned", "not aligned", |p| {
        let b = transient(p, 1);
        p.buffers[b].offset += 32;
    }),
    ("outside the arena", "beyond the arena", |p| {
        let b = transient(p, 1);
        p.buffers[b].offset = (p.totals.persistent + p.totals.transient).next_multiple_of(64);
    }),
    ("offset that overflows", "overflows", |p| {
        let b = transient(p, 1);
        p.buffers[b].offset = u64::MAX - 63;
    }),
    ("alias of what is read later", "the operand is still read later", |p| {
        let (output, operand) = too_early(p);
        share(p, output, operand);
    }),
    ("alias of what is no operand", "it is not an operand of the node", |p| {
        let t = aliased(p);
        p.aliases[t.index()] = p.graph.nodes[p.graph.nodes.len() - 1].operands.first().copied();
    }),
    ("alias out of range", "it is not an operand of the node", |p| {
        let t = aliased(p);
        p.aliases[t.index()] = Some(TensorId(u32::MAX));
    }),
    ("alias that the op does not allow", "the op does not allow it", |p| {
        let node = p.graph.nodes.iter().find(|n| n.op == "causal_attention").expect("attention");
        let (output, query) = (node.outputs[0], node.operands[0]);
        share(p, output, query);
    }),
    ("alias of what is not computed", "it is not computed by a node", |p| {
        let input = p.graph.tensor_ids().find(|&t| p.graph.producer(t).is_none()).expect("an input");
        let value = aliased(p);
        share(p, input, value);
    }),
    ("alias with another buffer", "is an alias but has another buffer", |p| {
        let t = aliased(p);
        p.tensor_buffer[t.index()] = Some(u32::from(p.tensor_buffer[t.index()] == Some(0)));
    }),
    ("two buffers in one table entry", "belongs to", |p| {
        let (a, b) = live_together(p);
        let of = |b: usize| p.tensor_buffer.iter().position(|x| *x == Some(b as u32));
        let (Some(a), Some(b)) = (of(a), of(b)) else { panic!("both hold tensors") };
        p.tensor_buffer[a] = p.tensor_buffer[b];
    }),
    ("tables of another length", "tables", |p| {
        p.tensor_buffer.pop();
    }),
    ("scratch table of another length", "tables", |p| p.node_scratch.push(None)),
    ("alias table of another length", "tables", |p| {
        p.aliases.pop();
    }),
    ("buffer out of range", "out of range", |p| p.tensor_buffer[0] = Some(u32::MAX)),
    ("a buffer of nobody", "belongs to 0", |p| p.buffers.push(p.buffers[0].clone())),
    ("scratch missing", "belongs to 0", |p| {
        let n = p.node_scratch.iter().position(Option::is_some).expect("some node has scratch");
        p.node_scratch[n] = None;
    }),
    ("another name", "belongs to", |p| p.buffers[0].name.push('x')),
    ("another kind", "kind", |p| {
        let b = transient(p, 0);
        p.buffers[b].kind = BufferKind::State;
    }),
    ("persistent made transient", "kind", |p| p.buffers[0].kind = BufferKind::Activation),
    ("transient in the persistent region", "transient buffer", |p| {
        let b = transient(p, 0);
        p.buffers[b].offset = 0;
    }),
    ("persistent in the transient region", "persistent buffer", |p| p.buffers[0].offset = p.totals.persistent),
    ("two persistent buffers at one place", "overlap", |p| {
        let other = (1..p.buffers.len()).find(|&b| p.buffers[b].kind.is_persistent()).expect("a second one");
        p.buffers[other].offset = p.buffers[0].offset;
    }),
    ("persistent total", "totals", |p| {
        p.totals.persistent += 64;
        let start = p.totals.persistent;
        p.buffers.iter_mut().filter(|b| !b.kind.is_persistent()).for_each(|b| b.offset += 64);
        assert!(p.buffers.iter().all(|b| b.kind.is_persistent() || b.offset >= start));
    }),
    ("transient total", "totals", |p| p.totals.transient += 64),
    ("load", "totals", |p| p.totals.max_load -= 64),
    ("too little worker scratch", "scratch", |p| p.totals.scratch_per_worker = 0),
    ("too much worker scratch", "totals", |p| p.totals.scratch_per_worker += 64),
    ("totals that overflow", "overflow", |p| p.totals.transient = u64::MAX),
    ("no slots", "capacity", |p| p.capacity.slots = 0),
    ("more rows a call than there are", "capacity", |p| {
        p.capacity.step_rows = p.capacity.slots * p.capacity.context + 1
    }),
    ("sizes that overflow", "capacity", |p| p.capacity.slots = usize::MAX),
    ("more rows than positions", "lower --rows", |p| {
        p.capacity.context += 1;
        if p.mode == Mode::Train {
            p.capacity.step_rows = p.capacity.slots * p.capacity.context;
        }
    }),
    ("another mode", "does not go with", |p| {
        p.mode = if p.mode == Mode::Train { Mode::Infer(Layout::Full) } else { Mode::Train };
        p.capacity.step_rows = p.capacity.slots * p.capacity.context;
    }),
    ("unknown op", "unknown op", |p| p.graph.nodes[0].op = "add_".into()),
    ("another op", "causal_attention", |p| p.graph.nodes[0].op = "causal_attention".into()),
    ("wrong shape", "its shape rule gives", |p| {
        let t = aliased(p);
        p.graph.tensors[t.index()].ty.shape.0[0] += 1;
    }),
    ("operand out of range", "does not exist", |p| p.graph.nodes[1].operands[0] = TensorId(u32::MAX)),
    ("read before computed", "before it is computed", |p| p.graph.nodes.swap(1, 2)),
    ("names twice", "two tensors are called", |p| p.graph.tensors[1].name = p.graph.tensors[0].name.clone()),
    ("result that does not exist", "does not exist", |p| p.graph.outputs[0].1 = TensorId(u32::MAX)),
];

/// Every mutation is refused with the word it must be refused with, in memory and from a file with sound checksums.
fn assert_caught(sample: &str, plan: &Plan, mutations: &[Mutation]) {
    verify::verify(plan).expect("the sample is sound");
    let mut missed = Vec::new();
    for (what, name, mutate) in mutations {
        let mut bad = plan.clone();
        mutate(&mut bad);
        assert_ne!(&bad, plan, "{sample}: '{what}' changes nothing");
        let from_file = file::from_bytes(Path::new("a.plan"), &file::to_bytes(&bad)).map_err(|e| e.to_string());
        match (verify::verify(&bad), from_file) {
            (Err(e), Err(line)) if e.to_string().contains(name) => {
                assert!(line.starts_with("a.plan: ") && line.lines().count() == 1, "{line}");
            }
            (Err(e), Err(_)) => missed.push(format!("{what}: refused as {e}")),
            (Ok(()), _) | (_, Ok(_)) => missed.push(format!("{what}: accepted")),
        }
    }
    assert!(missed.is_empty(), "{sample}:\n{}", missed.join("\n"));
}

#[test]
fn each_way_to_break_an_inference_plan_is_named() {
    let capacity = Capacity { slots: 1, context: 16, step_rows: 4, wanted_rows: 1 };
    let mode = Mode::Infer(Layout::Compact);
    let plan = compile_with(gpt2(TINY), mode, capacity, Fusions::NONE).expect("a sound graph");
    assert_caught("compact", &plan, MUTATIONS);
    assert_caught(
        "compact",
        &plan,
        &[
            ("another number of slots", "bytes and needs", |p| p.capacity.slots += 1),
            ("the full layout", "does not go with", |p| p.mode = Mode::Infer(Layout::Full)),
            ("a parameter in the arena", "binds it outside", |p| {
                let param = p.graph.params().next().expect("a parameter");
                p.tensor_buffer[param.index()] = Some(p.buffers.len() as u32);
                p.buffers.push(p.buffers[0].clone());
            }),
            ("kept rows called state", "kind", |p| {
                let b = of_kind(p, BufferKind::Kept);
                p.buffers[b].kind = BufferKind::State;
            }),
            ("keys that are not kept", "are not kept", |p| {
                let kept = |t: &TensorId| p.graph.producer(*t).is_some() && p.graph.ty(*t).extent == RowExtent::Kept;
                let t = p.graph.tensor_ids().find(kept).expect("keys are kept");
                p.graph.tensors[t.index()].ty.extent = RowExtent::Step;
            }),
        ],
    );
}

#[test]
fn each_way_to_break_a_training_plan_is_named() {
    for accumulate in [false, true] {
        let plan = training(TINY, 2, 16, accumulate);
        let name = if accumulate { "training with accumulation" } else { "training" };
        assert_caught(name, &plan, MUTATIONS);
        assert_caught(
            name,
            &plan,
            &[
                ("another number of slots", "capacity", |p| p.capacity.slots += 1),
                ("a parameter without buffer", "belongs to 0", |p| {
                    let param = p.graph.params().next().expect("a parameter");
                    p.tensor_buffer[param.index()] = None;
                }),
                ("moments that are called kept", "kind", |p| {
                    let b = of_kind(p, BufferKind::State);
                    p.buffers[b].kind = BufferKind::Kept;
                }),
            ],
        );
    }
}
