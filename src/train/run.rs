//! The training loop's body: a step, a validation, a checkpoint. Nothing here prints, and a step allocates nothing.

use super::checkpoint::{self, Saved, State};
use super::loader::{Loader, ValidationWindows};
use super::schedule::Schedule;
use super::settings::Settings;
use super::tokens::TokenSource;
use crate::error::{Error, Result};
use crate::exec::{Trainer, Update};
use crate::kernels::softmax::IGNORED_TARGET;
use crate::plan::Plan;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Steps done, this one included.
    pub number: u64,
    /// Mean loss before the update, nats per token.
    pub loss: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Norm of all gradients before clipping; `None` where each is used and freed before the next exists.
    pub gradient_norm: Option<f64>,
    /// Seconds it took.
    pub seconds: f64,
}

/// A run: trainer, data, and how far it is.
pub struct Run<'p> {
    trainer: Trainer<'p>,
    loader: Loader,
    validation: Option<ValidationWindows>,
    schedule: Schedule,
    state: State,
    inputs: Vec<i32>,
    targets: Vec<i32>,
}

impl<'p> Run<'p> {
    /// A run at step 0 whose parameters are zero: fill them through [`Run::trainer_mut`], or continue with [`Run::resume`].
    ///
    /// # Errors
    /// Too few tokens; too little memory; a model whose name and constants the plan lacks.
    pub fn new(
        plan: &'p Plan,
        threads: usize,
        settings: Settings,
        data: Arc<TokenSource>,
        validation: Option<Arc<TokenSource>>,
    ) -> Result<Self> {
        let rows = settings.batch * settings.context;
        let loader = Loader::new(data.clone(), settings.context, settings.seed)?;
        let validation = validation.map(|v| ValidationWindows::new(v, settings.context)).transpose()?;
        let mut trainer = Trainer::new(plan, threads)?;
        trainer.set_seed(settings.seed);
        Ok(Run {
            trainer,
            loader,
            validation,
            schedule: settings.learning_rates(),
            state: State::new(settings, &plan.graph, data.len() as u64),
            inputs: vec![0; rows],
            targets: vec![0; rows],
        })
    }

    /// Notes what the frozen parameters are, once they are loaded, so that a run continues on these alone.
    pub fn note_frozen(&mut self) {
        self.state.frozen = checkpoint::frozen_checksum(&self.trainer);
    }

    /// Continues where a checkpoint stopped; frozen parameters are loaded before.
    ///
    /// # Errors
    /// A checkpoint of another model, other data or other settings; a damaged one.
    pub fn resume(&mut self, path: &Path, saved: Saved) -> Result<()> {
        let other = saved.state();
        let differs = |what: &str| {
            Err(Error::file(path, format!("belongs to a run with other {what}; start a new run with another --out")))
        };
        if other.settings != self.state.settings {
            return differs("options");
        }
        if other.model_name != self.state.model_name || other.constants != self.state.constants {
            return differs("dimensions or constants of the model");
        }
        if other.frozen != self.state.frozen {
            return differs("frozen parameters");
        }
        if other.data_tokens != self.state.data_tokens {
            return differs("data");
        }
        self.state = saved.load(path, &mut self.trainer)?;
        self.loader.seek(self.state.position);
        Ok(())
    }

    /// One optimiser step.
    ///
    /// # Errors
    /// A loss or gradient that is not finite, with the step and the first op that made it. Save nothing after it.
    pub fn step(&mut self) -> Result<Step> {
        let clock = Instant::now();
        let settings = &self.state.settings;
        let number = self.state.step + 1;
        let scale = 1.0 / settings.tokens_per_step() as f32;
        let learning_rate = f64::from(self.schedule.learning_rate(self.state.step));
        let max_norm = (settings.clip > 0.0).then_some(settings.clip);
        let update = Update { step: number as usize, learning_rate, max_norm };
        self.trainer.begin(number as usize);
        self.trainer.prepare_update(&update);
        for _ in 0..settings.accumulate {
            self.loader.fill(&mut self.inputs, &mut self.targets);
            self.trainer.micro_step(&self.inputs, &self.targets, scale)?;
            if !self.trainer.loss().is_finite() {
                let loss = self.trainer.loss();
                return Err(self.not_finite(&format!("the loss of step {number} is {loss}")));
            }
        }
        let applied = self.trainer.update(&update);
        let gradient_norm = self.trainer.gradient_norm().map(f64::from);
        if !applied {
            let norm = gradient_norm.unwrap_or(f64::NAN);
            return Err(self.not_finite(&format!("the gradients of step {number} have norm {norm}")));
        }
        let seconds = clock.elapsed().as_secs_f64();
        self.state.step = number;
        self.state.position = self.loader.position();
        self.state.seconds += seconds;
        Ok(Step { number, loss: self.trainer.loss(), learning_rate, gradient_norm, seconds })
    }

    /// The error that ends a run: `what` happened, and the first op that made it.
    fn not_finite(&mut self, what: &str) -> Error {
        let first = self.trainer.find_non_finite().unwrap_or_else(|| "no op alone, only their sum".into());
        Error::Request(format!("{what}; first not finite: {first}. Lower --lr, or clip with --clip"))
    }

    /// Mean loss over the first `limit` validation windows (all when `None`), nats per token; `None` without validation data.
    ///
    /// # Errors
    /// None for data that was checked against the vocabulary.
    pub fn validate(&mut self, limit: Option<usize>) -> Result<Option<f64>> {
        let Some(windows) = &self.validation else { return Ok(None) };
        let context = self.state.settings.context;
        let count = windows.count().min(limit.unwrap_or(usize::MAX));
        let (mut sum, mut targets, mut first) = (0.0, 0, 0);
        while first < count {
            let wanted = (self.inputs.len() / context).min(count - first);
            self.targets.fill(IGNORED_TARGET);
            windows.fill(first, &mut self.inputs[..wanted * context], &mut self.targets[..wanted * context]);
            let (loss, n) = self.trainer.evaluate(&self.inputs, &self.targets)?;
            sum += loss;
            targets += n;
            first += wanted;
        }
        Ok(Some(sum / targets as f64))
    }

    /// Notes a validation loss; whether it is the best so far.
    pub fn note_validation(&mut self, loss: f64) -> bool {
        let better = self.state.best.is_none_or(|(_, best)| loss < best);
        if better {
            self.state.best = Some((self.state.step, loss));
        }
        better
    }

    /// Validation windows, 0 without validation data.
    pub fn validation_windows(&self) -> usize {
        self.validation.as_ref().map_or(0, ValidationWindows::count)
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// As [`checkpoint::save`].
    pub fn save(&self, path: &Path) -> Result<()> {
        checkpoint::save(path, &self.trainer, &self.state)
    }

    /// How far the run is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Weights and moments.
    pub fn trainer(&self) -> &Trainer<'p> {
        &self.trainer
    }

    /// Weights and moments, to fill.
    pub fn trainer_mut(&mut self) -> &mut Trainer<'p> {
        &mut self.trainer
    }
}
