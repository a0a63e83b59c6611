//! Sequences: what is computed already, what a new prompt shares with it, rolling back.

use super::{Executor, Want};
use crate::error::{Error, Result};
use crate::graph::TensorId;
use crate::kernels::param::Param;
use crate::passes::Mode;
use crate::plan::Plan;

/// Row-skipping inference over the slots of a plan.
///
/// Every slot has its own cursor: rows below `valid_rows` are computed and kept, and [`Session::run`] computes just the new ones.
pub struct Session<'w> {
    executor: Executor<'w>,
    tokens: TensorId,
    logits: TensorId,
    vocabulary: usize,
    valid: Vec<usize>,
    /// Segments of the current call; kept so that calls allocate nothing.
    segments: Vec<(usize, usize, usize)>,
    wanted: usize,
    poison: bool,
}

impl<'w> Session<'w> {
    /// Binds an inference plan. See [`Executor::new`].
    ///
    /// # Errors
    /// As [`Executor::new`]; a plan that is for training, or without `tokens` and `logits`.
    pub fn new(plan: &'w Plan, threads: usize, param: &dyn Fn(&str) -> Option<Param<'w>>) -> Result<Self> {
        if plan.mode == Mode::Train {
            return Err(Error::Plan("this plan is for training; compile with --mode infer".into()));
        }
        let tokens = plan.graph.find("tokens").ok_or_else(|| Error::Plan("the graph has no input 'tokens'".into()))?;
        let logits =
            plan.graph.output("logits").ok_or_else(|| Error::Plan("the graph has no result 'logits'".into()))?;
        let tables = plan.graph.nodes.iter().filter(|n| n.op == "embedding");
        let rows = tables.filter_map(|n| plan.graph.ty(n.operands[1]).shape.dims().first().copied());
        let vocabulary = rows.min().ok_or_else(|| Error::Plan("the graph embeds no tokens".into()))?;
        let executor = Executor::new(plan, threads, param)?;
        let slots = plan.capacity.slots;
        Ok(Session {
            executor,
            tokens,
            logits,
            vocabulary,
            valid: vec![0; slots],
            segments: Vec::with_capacity(slots),
            wanted: 0,
            poison: false,
        })
    }

    /// Fills dead memory with NaN after every step, for tests that prove that nothing reads it. Slow.
    pub fn set_poison(&mut self, on: bool) {
        self.poison = on;
    }

    /// The executor below.
    pub fn executor(&self) -> &Executor<'w> {
        &self.executor
    }

    /// The executor below, for profiles and for switching skipping off.
    pub fn executor_mut(&mut self) -> &mut Executor<'w> {
        &mut self.executor
    }

    /// Rows that a slot can hold.
    pub fn context(&self) -> usize {
        self.executor.plan.capacity.context
    }

    /// Tokens that the embedding knows.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Rows of `slot` that are computed.
    pub fn valid_rows(&self, slot: usize) -> usize {
        self.valid[slot]
    }

    /// Tokens of the computed rows of `slot`.
    pub fn tokens(&self, slot: usize) -> &[i32] {
        let context = self.context();
        &self.executor.tensor::<i32>(self.tokens)[slot * context..][..self.valid[slot]]
    }

    /// Rolls `slot` back to its first `rows` rows; more than it has changes nothing.
    pub fn truncate(&mut self, slot: usize, rows: usize) {
        self.valid[slot] = self.valid[slot].min(rows);
    }

    /// Appends tokens to slots and computes just these rows. Allocates nothing.
    ///
    /// Results are read with [`Session::logits`]: wanted rows in the order of `parts`.
    ///
    /// # Errors
    /// A token out of range, a slot that is full or named twice, more rows than one call of the plan computes. Nothing changes then.
    pub fn run(&mut self, parts: &[(usize, &[i32])], want: Want) -> Result<()> {
        self.check(parts, want)?;
        let context = self.context();
        self.segments.clear();
        for &(slot, tokens) in parts {
            let first = self.valid[slot];
            self.executor.tensor_mut::<i32>(self.tokens)[slot * context + first..][..tokens.len()]
                .copy_from_slice(tokens);
            self.segments.push((slot, first, tokens.len()));
            self.valid[slot] += tokens.len();
        }
        self.wanted = 0;
        self.executor.set_rows(&self.segments, want);
        self.wanted = self.executor.rows.wanted.len();
        let steps = self.executor.plan.graph.nodes.len();
        if self.poison {
            for step in 0..steps {
                self.executor.execute(step..step + 1);
                // What lives to the end (results) is read after the last step.
                if step + 1 < steps {
                    self.executor.poison_dead(step);
                }
            }
        } else {
            self.executor.execute(0..steps);
        }
        Ok(())
    }

    /// Makes `slot` hold exactly `tokens`, computing only from the first difference on, in calls of at most the plan's step rows.
    /// The last row is wanted. Returns how many rows were computed.
    ///
    /// # Errors
    /// As [`Session::run`]; an empty list.
    pub fn advance_to(&mut self, slot: usize, tokens: &[i32]) -> Result<usize> {
        if tokens.is_empty() {
            return Err(Error::Request("the prompt has no tokens".into()));
        }
        if tokens.len() > self.context() {
            let message =
                format!("the prompt has {} tokens, more than the context of {} rows", tokens.len(), self.context());
            return Err(Error::Request(message));
        }
        let shared = self.tokens(slot).iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let first = shared.min(tokens.len() - 1);
        if let Some(&bad) = tokens[first..].iter().find(|&&t| t < 0 || t as usize >= self.vocabulary) {
            return Err(self.out_of_range(bad));
        }
        self.truncate(slot, first);
        let mut rest = &tokens[first..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.executor.plan.capacity.step_rows));
            self.run(&[(slot, now)], if later.is_empty() { Want::Last } else { Want::None })?;
            rest = later;
        }
        Ok(tokens.len() - first)
    }

    /// Logits of wanted row `i` of the last call: one value per token of the vocabulary.
    ///
    /// # Panics
    /// When the last call wanted fewer rows.
    pub fn logits(&self, i: usize) -> &[f32] {
        assert!(i < self.wanted, "row {i} of {} wanted", self.wanted);
        let plan = self.executor.plan;
        let width = plan.graph.ty(self.logits).shape.elements();
        let row = match plan.graph.ty(self.logits).extent {
            crate::tensor::RowExtent::Kept => self.executor.rows.wanted.kept()[i] as usize,
            _ => i,
        };
        &self.executor.tensor::<f32>(self.logits)[row * width..][..width]
    }

    fn out_of_range(&self, token: i32) -> Error {
        Error::Request(format!("token {token} is out of range: the model knows 0..{}", self.vocabulary))
    }

    fn check(&self, parts: &[(usize, &[i32])], want: Want) -> Result<()> {
        let capacity = &self.executor.plan.capacity;
        let (mut rows, mut wanted) = (0, 0);
        for (i, &(slot, tokens)) in parts.iter().enumerate() {
            if slot >= capacity.slots {
                return Err(Error::Request(format!("slot {slot} does not exist; the plan has {}", capacity.slots)));
            }
            if parts[..i].iter().any(|&(s, _)| s == slot) {
                return Err(Error::Request(format!("slot {slot} is named twice in one call")));
            }
            if let Some(&bad) = tokens.iter().find(|&&t| t < 0 || t as usize >= self.vocabulary) {
                return Err(self.out_of_range(bad));
            }
            if self.valid[slot] + tokens.len() > capacity.context {
                let message = format!(
                    "slot {slot} holds {} of {} rows; {} more do not fit",
                    self.valid[slot],
                    capacity.context,
                    tokens.len()
                );
                return Err(Error::Request(message));
            }
            rows += tokens.len();
            wanted += match want {
                Want::None => 0,
                Want::Last => tokens.len().min(1),
                Want::All => tokens.len(),
            };
        }
        if rows > capacity.step_rows {
            return Err(Error::Request(format!(
                "{rows} rows in one call; the plan computes {} (--step-rows)",
                capacity.step_rows
            )));
        }
        if wanted > capacity.wanted_rows {
            return Err(Error::Request(format!(
                "{wanted} rows wanted in one call; the plan has room for {}",
                capacity.wanted_rows
            )));
        }
        Ok(())
    }
}
