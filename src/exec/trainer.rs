//! Training steps over a plan made with [`passes::train`](crate::passes::train): forward and backward on micro-batches, then the update.

use super::{Executor, Want};
use crate::error::{Error, Result};
use crate::graph::{Section, TensorId, TensorKind};
use crate::kernels::reduce::sum_rows;
use crate::kernels::softmax::IGNORED_TARGET;
use crate::ops::hyper;
use crate::passes::{Mode, autodiff, loss, optimizer};
use crate::plan::Plan;
use crate::tensor::DType;
use std::ops::Range;
use std::time::Instant;

/// What the optimiser needs to know beside the gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Number of this update, 1 for the first.
    pub step: usize,
    /// Learning rate.
    pub learning_rate: f64,
    /// Largest norm of all gradients together; `None` does not clip.
    pub max_norm: Option<f64>,
}

/// A training plan bound to memory and threads.
///
/// A step is [`Trainer::begin`], [`Trainer::micro_step`] once (or several times when the plan accumulates), [`Trainer::update`]. None of them
/// allocates. Every call takes whole sequences: slots × context tokens, slot by slot.
pub struct Trainer<'p> {
    executor: Executor<'p>,
    tokens: TensorId,
    targets: TensorId,
    hyper: Option<TensorId>,
    counters: Option<TensorId>,
    losses: TensorId,
    norm: Option<TensorId>,
    vocabulary: usize,
    forward: Range<usize>,
    backward: Range<usize>,
    update: Range<usize>,
    accumulates: bool,
    /// Whether backward holds the updates.
    updates_inside: bool,
    /// Micro-batches since [`Trainer::begin`].
    micro_steps: usize,
    loss_sum: f64,
    target_count: usize,
    /// Of the sections, since [`Trainer::begin`].
    seconds: [f64; 3],
}

impl<'p> Trainer<'p> {
    /// Binds a training plan. Parameters and states are zero; fill parameters with [`Trainer::parameter_mut`].
    ///
    /// # Errors
    /// A plan that is not for training; too little memory; threads that do not start.
    pub fn new(plan: &'p Plan, threads: usize) -> Result<Self> {
        if plan.mode != Mode::Train {
            return Err(Error::Plan("this plan is for inference; compile with --mode train".into()));
        }
        let graph = &plan.graph;
        let missing = |what: &str| Error::Plan(format!("the training graph has no {what}"));
        let tokens = graph.find("tokens").ok_or_else(|| missing("input 'tokens'"))?;
        let targets = graph.find(loss::TARGETS).ok_or_else(|| missing("input 'targets'"))?;
        let losses = graph.output(loss::LOSSES).ok_or_else(|| missing("result 'losses'"))?;
        let c = &plan.capacity;
        if c.step_rows != c.slots * c.context {
            let message = format!("a training plan computes {} × {} rows, not {}", c.slots, c.context, c.step_rows);
            return Err(Error::Plan(message));
        }
        let end_of = |section| graph.nodes.iter().rposition(|n| n.section <= section).map_or(0, |n| n + 1);
        let (forward, backward) = (end_of(Section::Forward), end_of(Section::Backward));
        if !graph.nodes.is_sorted_by_key(|n| n.section) {
            return Err(Error::Plan("forward, backward and update nodes are mixed up".into()));
        }
        let tables = graph.nodes.iter().filter(|n| n.op == "embedding" || n.op == "cross_entropy_head");
        let vocabulary = tables.filter_map(|n| match n.op.as_str() {
            "embedding" => graph.ty(n.operands[1]).shape.dims().first().copied(),
            _ => graph
                .ty(n.operands[1])
                .shape
                .dims()
                .iter()
                .copied()
                .find(|&d| d != graph.ty(n.operands[0]).shape.elements()),
        });
        let vocabulary = vocabulary.min().ok_or_else(|| missing("embedding"))?;
        let accumulates = graph.tensors.iter().any(|t| t.kind == TensorKind::State && t.name.contains(autodiff::SUM));
        let mut executor = Executor::new(plan, threads, &|_| None)?;
        let mut segments = Vec::with_capacity(c.slots);
        segments.extend((0..c.slots).map(|slot| (slot, 0, c.context)));
        executor.set_rows(&segments, Want::None);
        Ok(Trainer {
            executor,
            tokens,
            targets,
            hyper: graph.find(hyper::HYPER),
            counters: graph.find(hyper::COUNTERS),
            losses,
            norm: graph.output(optimizer::GRADIENT_NORM),
            vocabulary,
            forward: 0..forward,
            backward: forward..backward,
            update: backward..graph.nodes.len(),
            accumulates,
            updates_inside: graph.nodes[forward..backward].iter().any(|n| n.op == "adamw"),
            micro_steps: 0,
            loss_sum: 0.0,
            target_count: 0,
            seconds: [0.0; 3],
        })
    }

    /// The executor below, for profiles and sizes.
    pub fn executor(&self) -> &Executor<'p> {
        &self.executor
    }

    /// The executor below.
    pub fn executor_mut(&mut self) -> &mut Executor<'p> {
        &mut self.executor
    }

    /// Tokens of one call: slots × context.
    pub fn rows(&self) -> usize {
        self.executor.plan().capacity.step_rows
    }

    /// Nodes of the forward pass, the backward pass and the update.
    pub fn sections(&self) -> [Range<usize>; 3] {
        [self.forward.clone(), self.backward.clone(), self.update.clone()]
    }

    /// Seed of dropout.
    pub fn set_seed(&mut self, seed: u64) {
        if let Some(counters) = self.counters {
            let counters = self.executor.tensor_mut::<i32>(counters);
            counters[hyper::SEED_LOW] = seed as u32 as i32;
            counters[hyper::SEED_HIGH] = (seed >> 32) as u32 as i32;
        }
    }

    /// Starts step `step` (1 for the first): forgets the losses of the last one.
    pub fn begin(&mut self, step: usize) {
        (self.micro_steps, self.loss_sum, self.target_count) = (0, 0.0, 0);
        self.seconds = [0.0; 3];
        if let Some(counters) = self.counters {
            self.executor.tensor_mut::<i32>(counters)[hyper::STEP] = step as i32;
        }
    }

    /// Forward and backward on one micro-batch; with updates inside backward, those too, unless the loss is not finite. `loss_scale` multiplies the
    /// loss of every row: 1 / number of targets of the whole step.
    ///
    /// # Errors
    /// Counts that differ from [`Trainer::rows`]; a token or target out of range; a second micro-batch without accumulation.
    pub fn micro_step(&mut self, tokens: &[i32], targets: &[i32], loss_scale: f32) -> Result<()> {
        if self.micro_steps > 0 && !self.accumulates {
            return Err(Error::Request("the plan does not accumulate gradients over micro-batches".into()));
        }
        self.load(tokens, targets)?;
        self.set_hyper(&[(hyper::LOSS_SCALE, loss_scale), (hyper::TRAINING, 1.0)]);
        if let Some(counters) = self.counters {
            let first = self.micro_steps * self.executor.plan().capacity.slots;
            self.executor.tensor_mut::<i32>(counters)[hyper::FIRST_SAMPLE] = first as i32;
        }
        self.execute(0);
        let losses = &self.executor.tensor::<f32>(self.losses)[..tokens.len()];
        self.loss_sum = sum_rows(losses, self.micro_steps * tokens.len(), self.loss_sum);
        self.target_count += count_targets(targets);
        self.micro_steps += 1;
        // Updates inside backward would spoil every parameter with a loss that is not finite.
        if self.loss_sum.is_finite() || !self.updates_inside {
            self.execute(1);
        }
        Ok(())
    }

    /// Forward only, without dropout: the sum of the losses of all rows with a target, in nats, and their number. Between steps only.
    ///
    /// # Errors
    /// As [`Trainer::micro_step`].
    pub fn evaluate(&mut self, tokens: &[i32], targets: &[i32]) -> Result<(f64, usize)> {
        self.load(tokens, targets)?;
        self.set_hyper(&[(hyper::TRAINING, 0.0)]);
        self.executor.execute(self.forward.clone());
        let losses = &self.executor.tensor::<f32>(self.losses)[..tokens.len()];
        Ok((sum_rows(losses, 0, 0.0), count_targets(targets)))
    }

    /// Sets what the next update needs. Plans with the optimiser inside backward read it during [`Trainer::micro_step`]; call this first.
    pub fn prepare_update(&mut self, update: &Update) {
        let max_norm = update.max_norm.unwrap_or(0.0) as f32;
        self.set_hyper(&[(hyper::LEARNING_RATE, update.learning_rate as f32), (hyper::MAX_NORM, max_norm)]);
        if let Some(counters) = self.counters {
            self.executor.tensor_mut::<i32>(counters)[hyper::STEP] = update.step as i32;
        }
    }

    /// Clips and applies the gradients of the step's micro-batches. Whether they were applied: when their norm is not finite, and the
    /// plan measures it before it updates anything, parameters and moments stay as they are.
    pub fn update(&mut self, update: &Update) -> bool {
        self.prepare_update(update);
        let start = Instant::now();
        let nodes = &self.executor.plan().graph.nodes[self.update.clone()];
        let measured = self.update.start + nodes.iter().position(|n| n.op == "grad_norm").map_or(0, |n| n + 1);
        self.executor.execute(self.update.start..measured);
        let finite = self.gradient_norm().is_none_or(f32::is_finite);
        if finite {
            self.executor.execute(measured..self.update.end);
        }
        self.seconds[2] += start.elapsed().as_secs_f64();
        finite
    }

    /// Seconds that forward, backward and update took since [`Trainer::begin`]. With the optimiser inside backward the update takes none.
    pub fn seconds(&self) -> [f64; 3] {
        self.seconds
    }

    /// Runs section `section` and adds up its time.
    fn execute(&mut self, section: usize) {
        let start = Instant::now();
        self.executor.execute(self.sections()[section].clone());
        self.seconds[section] += start.elapsed().as_secs_f64();
    }

    /// Mean loss of the step's rows with a target so far, in nats; 0 when there are none.
    pub fn loss(&self) -> f64 {
        if self.target_count == 0 { 0.0 } else { self.loss_sum / self.target_count as f64 }
    }

    /// Norm of all gradients before clipping, of the last update; `None` without an optimiser, or where it runs inside backward.
    pub fn gradient_norm(&self) -> Option<f32> {
        self.norm.map(|t| self.executor.tensor::<f32>(t)[0])
    }

    /// Names what is not finite first: a parameter, or the first node of the last micro-batch whose result is not. Runs the
    /// micro-batch again, node by node; accumulated gradients are spoilt after it.
    pub fn find_non_finite(&mut self) -> Option<String> {
        let plan = self.executor.plan();
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        for t in plan.graph.params().filter(|&t| plan.graph.ty(t).dtype == DType::F32) {
            if !finite(self.executor.tensor::<f32>(t)) {
                return Some(format!("parameter {}", plan.graph.tensor(t).name));
            }
        }
        for n in self.forward.start..self.backward.end {
            self.executor.execute(n..n + 1);
            let node = &plan.graph.nodes[n];
            let broken = node.outputs.iter().any(|&t| {
                let ty = plan.graph.ty(t);
                ty.dtype == DType::F32 && !finite(self.executor.tensor::<f32>(t))
            });
            if broken {
                return Some(format!("{} '{}'", node.op, node.name));
            }
        }
        None
    }

    fn set_hyper(&mut self, values: &[(usize, f32)]) {
        if let Some(hyper) = self.hyper {
            let hyper = self.executor.tensor_mut::<f32>(hyper);
            values.iter().for_each(|&(i, v)| hyper[i] = v);
        }
    }

    fn load(&mut self, tokens: &[i32], targets: &[i32]) -> Result<()> {
        let rows = self.rows();
        if tokens.len() != rows || targets.len() != rows {
            let message =
                format!("a batch of {} tokens and {} targets; the plan takes {rows}", tokens.len(), targets.len());
            return Err(Error::Request(message));
        }
        let known = 0..self.vocabulary as i32;
        let bad = tokens.iter().find(|t| !known.contains(t));
        if let Some(bad) = bad.or(targets.iter().find(|t| !known.contains(t) && **t != IGNORED_TARGET)) {
            return Err(Error::Request(format!("token {bad} is out of range: the model knows 0..{}", self.vocabulary)));
        }
        self.executor.tensor_mut::<i32>(self.tokens)[..rows].copy_from_slice(tokens);
        self.executor.tensor_mut::<i32>(self.targets)[..rows].copy_from_slice(targets);
        Ok(())
    }
}

fn count_targets(targets: &[i32]) -> usize {
    targets.iter().filter(|&&t| t != IGNORED_TARGET).count()
}
