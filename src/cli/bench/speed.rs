//! Tokens a second of a model, beside the limit that the machine shows in the same run.

use super::super::model::Model;
use super::super::profile;
use crate::error::{Error, Result};
use crate::exec::{Session, Want};
use crate::graph::{Node, RowSpace};
use crate::kernels::isa::Isa;
use crate::kernels::roofline::{Arithmetic, Passes, arithmetic_peak, read_bandwidth_of};
use crate::ops::{self, Capacity};
use crate::plan::Plan;
use crate::tensor::{DType, RowExtent};
use crate::weights::ParamStore;
use std::time::Instant;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A prompt of so many rows in one call, from nothing.
    Prefill(usize),
    /// [`DECODE_TOKENS`] tokens, one a call, after a prompt of so many rows.
    Decode(usize),
}

/// Tokens generated after the prompt.
pub const DECODE_TOKENS: usize = 64;

/// What a measurement gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Speed {
    /// Rows of the prompt.
    pub rows: usize,
    /// Type of most bytes of the matrices.
    pub dtype: DType,
    /// Bytes of all weights in memory.
    pub weights: usize,
    /// Tokens a second: the best run and the median one.
    pub best: f64,
    /// See `best`.
    pub median: f64,
    /// Bytes of weights, keys and values that the best run read a second.
    pub bytes_per_second: f64,
    /// Operations of products and attention that it did a second.
    pub flops_per_second: f64,
    /// In percent of the limit: the median over runs, each beside what the machine does just before and after it, because a shared machine
    /// changes within seconds. For prefill that is arithmetic in registers; for decode a plain sum over the weights themselves. Means of
    /// passes stand beside a mean of tokens.
    pub percent_of_limit: f64,
    /// What the runs were measured beside.
    pub limit: Limit,
    /// Time and work per kind of op in the mean run, as a table, if asked for.
    pub profile: Option<String>,
}

/// What the machine does beside the runs: operations a second for prefill, bytes for decode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// The median over runs of what passes just before and after the run did a second.
    pub median: f64,
    /// The best run in percent of the single fastest pass.
    pub percent_of_best_pass: f64,
}

impl Work {
    /// Word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Work::Prefill(_) => "prefill",
            Work::Decode(_) => "decode",
        }
    }

    /// Rows of the prompt.
    pub fn rows(self) -> usize {
        match self {
            Work::Prefill(rows) | Work::Decode(rows) => rows,
        }
    }

    /// The work with defaults, if the model's context has room for it.
    ///
    /// # Errors
    /// When it has not.
    pub fn fitting(self, model: &Model) -> Result<Work> {
        let context = model.context()?;
        match self {
            Work::Prefill(rows) => Ok(Work::Prefill(rows.min(context))),
            Work::Decode(rows) if rows + DECODE_TOKENS > context => Err(Error::Usage(format!(
                "--rows {rows} and {DECODE_TOKENS} tokens exceed the context of {context} rows"
            ))),
            Work::Decode(_) => Ok(self),
        }
    }

    /// A plan made to measure, and its parameters.
    ///
    /// # Errors
    /// Weights that do not load.
    pub fn load(self, model: &Model) -> Result<(Plan, ParamStore)> {
        let rows = self.rows();
        let plan = model.plan(match self {
            Work::Prefill(_) => Capacity { slots: 1, context: rows, step_rows: rows, wanted_rows: 1 },
            Work::Decode(_) => {
                Capacity { slots: 1, context: rows + DECODE_TOKENS, step_rows: rows.min(256), wanted_rows: 1 }
            }
        })?;
        let store = model.store(&plan)?;
        Ok((plan, store))
    }

    /// The tokens of all rows.
    pub fn text(self, vocabulary: usize) -> Vec<i32> {
        let count = match self {
            Work::Prefill(rows) => rows,
            Work::Decode(rows) => rows + DECODE_TOKENS,
        };
        tokens(count, vocabulary)
    }

    /// Runs once; tokens a second. The prompt of a decode is computed the first time only.
    ///
    /// # Errors
    /// What the session refuses.
    pub fn run(self, session: &mut Session, text: &[i32]) -> Result<f64> {
        session.truncate(0, if let Work::Decode(rows) = self { rows } else { 0 });
        match self {
            Work::Prefill(rows) => {
                let step_rows = session.executor().plan().capacity.step_rows;
                let start = Instant::now();
                text.chunks(step_rows).try_for_each(|part| session.run(&[(0, part)], Want::Last))?;
                Ok(rows as f64 / start.elapsed().as_secs_f64())
            }
            Work::Decode(rows) => {
                if session.tokens(0).len() < rows {
                    session.advance_to(0, &text[..rows])?;
                }
                let start = Instant::now();
                text[rows..].iter().try_for_each(|&t| session.run(&[(0, &[t])], Want::Last))?;
                Ok(DECODE_TOKENS as f64 / start.elapsed().as_secs_f64())
            }
        }
    }
}

/// Tokens that are as good as any: the same for every run and every program.
pub fn tokens(n: usize, vocabulary: usize) -> Vec<i32> {
    (0..n).map(|i| (i * 7919 % vocabulary.min(49000)) as i32).collect()
}

/// Best and median of some rates.
pub fn best_and_median(mut rates: Vec<f64>) -> (f64, f64) {
    rates.sort_by(f64::total_cmp);
    (rates[rates.len() - 1], rates[rates.len() / 2])
}

/// Measures `work` `repeat` times after one run to warm up, each time between two measurements of the limit.
/// With `trace`, the measured runs are profiled; unless it is empty, it names the file that gets their phases.
///
/// # Errors
/// Weights that do not load; rows that do not fit; a trace that cannot be written.
pub fn measure(model: &Model, work: Work, threads: usize, repeat: usize, trace: Option<&str>) -> Result<Speed> {
    let work = work.fitting(model)?;
    let (plan, store) = work.load(model)?;
    let mut session = Session::new(&plan, threads, &|name| store.get(name))?;
    let text = work.text(session.vocabulary());
    let dtype = main_type(&store);
    let isa = Isa::current();
    let whole = store.bytes().len() / size_of::<f32>() * size_of::<f32>();
    let weights: &[f32] = bytemuck::try_cast_slice(&store.bytes()[..whole])
        .map_err(|e| Error::Weights(format!("weights are not aligned: {e}")))?;
    let passes = || match work {
        Work::Prefill(_) => arithmetic_peak(isa, Arithmetic::of(dtype), threads),
        Work::Decode(_) => read_bandwidth_of(isa, threads, weights),
    };
    work.run(&mut session, &text)?;
    session.executor_mut().set_profile(trace.is_some(), trace.is_some_and(|file| !file.is_empty()));
    let (mut rates, mut limits, mut shares, mut most) = (Vec::new(), Vec::new(), Vec::new(), 0f64);
    for _ in 0..repeat {
        let before = passes();
        let rate = work.run(&mut session, &text)?;
        let beside = Passes::together([before, passes()]);
        rates.push(rate);
        limits.push(beside.mean);
        shares.push(rate / beside.mean);
        most = most.max(beside.best);
    }
    let (best, median) = best_and_median(rates);
    let (bytes, flops) = match work {
        Work::Prefill(rows) => {
            (bytes_per_call(&plan, &store) as f64 / rows as f64, flops(&plan, rows, rows) / rows as f64)
        }
        Work::Decode(rows) => {
            let position = rows + DECODE_TOKENS / 2;
            ((bytes_per_call(&plan, &store) + kept_bytes(&plan, position)) as f64, flops(&plan, 1, 2 * position + 1))
        }
    };
    let limited = match work {
        Work::Prefill(_) => flops,
        Work::Decode(_) => bytes,
    };
    let (rows, weights) = (work.rows(), store.bytes().len());
    let call = match work {
        Work::Prefill(rows) => (rows, 1, rows, 1),
        Work::Decode(rows) => (1, 1, rows + DECODE_TOKENS / 2, DECODE_TOKENS),
    };
    let profile = trace.map(|_| profile::table(session.executor(), &store, &[call], repeat));
    if let Some(file) = trace.filter(|file| !file.is_empty()) {
        profile::write_trace(session.executor(), file.as_ref())?;
    }
    Ok(Speed {
        rows,
        dtype,
        weights,
        best,
        median,
        bytes_per_second: best * bytes,
        flops_per_second: best * flops,
        percent_of_limit: 100.0 * limited * best_and_median(shares).1,
        limit: Limit { median: best_and_median(limits).1, percent_of_best_pass: 100.0 * best * limited / most },
        profile,
    })
}

/// Weight bytes that one call reads: every matrix that is multiplied by.
fn bytes_per_call(plan: &Plan, store: &ParamStore) -> usize {
    let multiplied = |name: &str| {
        let reads = |n: &Node| n.op == "linear" && n.operands.iter().any(|&t| plan.graph.tensor(t).name == name);
        plan.graph.nodes.iter().any(reads)
    };
    store.entries().iter().filter(|e| e.matrix.is_some() && multiplied(&e.name)).map(|e| e.len).sum()
}

/// Bytes of keys and values that a token at position `position` reads.
fn kept_bytes(plan: &Plan, position: usize) -> usize {
    let kept = plan.graph.tensors.iter().filter(|t| t.ty.extent == RowExtent::Kept && t.ty.dtype != DType::I32);
    kept.map(|t| t.ty.dtype.block_bytes() * t.ty.shape.elements() * (position + 1)).sum()
}

/// Arithmetic of a call of `rows` rows, of which one is wanted. `span` is the sum of the first and the last row's number of keys, less
/// one: their mean counts for attention.
fn flops(plan: &Plan, rows: usize, span: usize) -> f64 {
    let cost = |node: &Node| {
        let op = ops::find(&node.op).expect("the plan was verified");
        let live = if node.space == RowSpace::Wanted { 1 } else { rows };
        op.cost(&ops::build::signature(&plan.graph, node), live, span).flops
    };
    plan.graph.nodes.iter().filter(|n| n.op == "linear" || n.op == "causal_attention").map(cost).sum()
}

/// The type of most bytes of the matrices.
pub fn main_type(store: &ParamStore) -> DType {
    let matrix = |d: DType| {
        store.entries().iter().filter(move |e| e.matrix.is_some() && e.dtype == d).map(|e| e.len).sum::<usize>()
    };
    DType::ALL.into_iter().max_by_key(|&d| matrix(d)).unwrap_or(DType::F32)
}
