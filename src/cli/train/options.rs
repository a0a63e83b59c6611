//! Options of `train`, and how they become settings.

use super::super::ThreadArgs;
use super::lora_options::LoraArgs;
use super::planning_options::PlanningArgs;
use super::source::ModelSource;
use crate::error::{Error, Result};
use crate::train::{Planning, Precision, ScheduleKind, Settings};
use clap::Args;
use std::path::PathBuf;

/// Options of `train`.
#[derive(Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub numbers: NumberArgs,
    #[command(flatten)]
    pub planning: PlanningArgs,
    /// Directory of the run: checkpoint, log, loss curve, and the model itself as a Hugging Face directory.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Continue the run in DIR; its options hold, so they need not be repeated.
    #[arg(long)]
    pub resume: bool,
    /// Steps between validations.
    #[arg(long, value_name = "N", default_value_t = 250)]
    pub eval_every: u64,
    /// Windows that a validation measures [default: all]; the last validation measures all.
    #[arg(long, value_name = "N")]
    pub eval_windows: Option<usize>,
    /// Steps between generated samples; 0 is never.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub sample_every: u64,
    /// Tokens of a sample.
    #[arg(long, value_name = "N", default_value_t = 160)]
    pub sample_tokens: usize,
    /// Steps between checkpoints; there is always one at the end.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub checkpoint_every: u64,
    /// Steps between lines of the log, which hold means.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub log_every: u64,
    /// Type of the saved model's weights: f32, f16 or bf16.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub save_type: String,
    /// Save the model to DIR/best whenever a validation is the best so far.
    #[arg(long)]
    pub keep_best: bool,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// Options that decide the numbers; a resumed run cannot change them.
#[derive(Args)]
pub struct NumberArgs {
    #[command(flatten)]
    lora: LoraArgs,
    /// What to train: a spec (`gpt2`, `llama`, or a .sg file) from scratch, or a checkpoint to finetune.
    #[arg(long, value_name = "PATH|SPEC")]
    model: Option<String>,
    /// A named size of the spec.
    #[arg(long, value_name = "NAME")]
    size: Option<String>,
    /// Set a dimension or constant of the spec (repeatable), such as C=64.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Training data: a token file (.bin) made by `tokenize`, or a text file.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Validation data.
    #[arg(long, value_name = "FILE", conflicts_with = "val_fraction")]
    val: Option<PathBuf>,
    /// Share of a text, from its end, that is validation data [default: 0.1 without --val].
    #[arg(long, value_name = "X")]
    val_fraction: Option<f64>,
    /// Tokenizer of text: gpt2, bytes or a path [default: the model's; bytes when V = 256].
    #[arg(long, value_name = "NAME|PATH")]
    tokenizer: Option<String>,
    /// Optimiser steps.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Sequences of a micro-batch [default: 8].
    #[arg(long, value_name = "B")]
    batch: Option<usize>,
    /// Tokens of a sequence [default: the model's context].
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// Micro-batches of a step [default: 1].
    #[arg(long, value_name = "N")]
    accumulate: Option<usize>,
    /// Peak learning rate [default: 3e-4].
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// Last learning rate [default: a tenth of the peak].
    #[arg(long, value_name = "X")]
    min_lr: Option<f64>,
    /// constant, linear, cosine or warmup-stable-decay [default: cosine].
    #[arg(long, value_name = "NAME")]
    schedule: Option<ScheduleKind>,
    /// Steps of linear warmup [default: 100, at most a tenth of the steps].
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,
    /// Steps of the final fall of warmup-stable-decay [default: a fifth of the steps].
    #[arg(long, value_name = "N")]
    decay_steps: Option<u64>,
    /// Decoupled weight decay of matrices [default: 0.1].
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// Decay rate of the first moment [default: 0.9].
    #[arg(long, value_name = "X")]
    beta1: Option<f64>,
    /// Decay rate of the second moment [default: 0.95].
    #[arg(long, value_name = "X")]
    beta2: Option<f64>,
    /// Added to the root of the second moment [default: 1e-8].
    #[arg(long, value_name = "X")]
    eps: Option<f64>,
    /// Largest norm of all gradients together; 0 does not clip [default: 1].
    #[arg(long, value_name = "X")]
    clip: Option<f64>,
    /// What factors of matrix products are rounded to: f32 (not at all) or bf16 [default: f32].
    #[arg(long, value_name = "TYPE")]
    precision: Option<Precision>,
    /// What the optimiser's moments are stored as: f32, or bf16 with stochastic rounding, in half the memory [default: f32].
    #[arg(long, value_name = "TYPE")]
    moments: Option<Precision>,
    /// Seed of initialisation, data order, dropout and stochastic rounding [default: 0].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl NumberArgs {
    /// What the options say, with defaults for the rest.
    ///
    /// # Errors
    /// A missing option; values that make no sense.
    pub fn settings(&self, planning: Planning) -> Result<Settings> {
        let missing = |option: &str| Error::Usage(format!("--{option} is missing"));
        let model = located(self.model.as_ref().ok_or_else(|| missing("model PATH|SPEC"))?)?;
        let data = self.data.clone().ok_or_else(|| missing("data FILE"))?;
        let steps = self.steps.ok_or_else(|| missing("steps N"))?;
        let context = match self.context {
            Some(context) => context,
            None => ModelSource::open(&model, self.size.as_deref(), &self.set)?.dim("T")?,
        };
        let is_text = data.extension().is_none_or(|e| e != "bin");
        if self.val_fraction.is_some_and(|x| x > 0.0) && !is_text {
            return Err(Error::Usage(
                "--val-fraction splits text; give a token file's validation file as --val".into(),
            ));
        }
        let lr = self.lr.unwrap_or(3e-4);
        let settings = Settings {
            model,
            size: self.size.clone(),
            set: self.set.clone(),
            val_fraction: self.val_fraction.unwrap_or(if is_text && self.val.is_none() { 0.1 } else { 0.0 }),
            val: self.val.as_deref().map(absolute).transpose()?,
            data: absolute(&data)?,
            tokenizer: self.tokenizer.clone(),
            steps,
            batch: self.batch.unwrap_or(8),
            context,
            accumulate: self.accumulate.unwrap_or(1),
            schedule: self.schedule.unwrap_or(ScheduleKind::Cosine),
            lr,
            min_lr: self.min_lr.unwrap_or(lr / 10.0),
            warmup: self.warmup.unwrap_or(100.min(steps / 10)),
            decay_steps: self.decay_steps.unwrap_or(steps / 5),
            weight_decay: self.weight_decay.unwrap_or(0.1),
            beta1: self.beta1.unwrap_or(0.9),
            beta2: self.beta2.unwrap_or(0.95),
            eps: self.eps.unwrap_or(1e-8),
            clip: self.clip.unwrap_or(1.0),
            precision: self.precision.unwrap_or_default(),
            moments: self.moments.unwrap_or_default(),
            seed: self.seed.unwrap_or(0),
            lora: self.lora.adapters()?,
            planning,
        };
        settings.validate()?;
        Ok(settings)
    }

    /// Refuses an option that is given and differs from the settings of a run that is continued.
    ///
    /// # Errors
    /// The first such option.
    pub fn agree_with(&self, stored: &Settings) -> Result<()> {
        fn agrees<T: PartialEq>(given: &Option<T>, stored: &T) -> bool {
            given.as_ref().is_none_or(|given| given == stored)
        }
        let path = |given: &Option<PathBuf>, stored: Option<&PathBuf>| -> Result<bool> {
            Ok(given.as_deref().map(absolute).transpose()?.is_none_or(|given| Some(&given) == stored))
        };
        let options = [
            ("model", agrees(&self.model.as_deref().map(located).transpose()?, &stored.model)),
            ("size", self.size.is_none() || self.size == stored.size),
            ("set", self.set.is_empty() || self.set == stored.set),
            ("data", path(&self.data, Some(&stored.data))?),
            ("val", path(&self.val, stored.val.as_ref())?),
            ("val-fraction", agrees(&self.val_fraction, &stored.val_fraction)),
            ("tokenizer", self.tokenizer.is_none() || self.tokenizer == stored.tokenizer),
            ("steps", agrees(&self.steps, &stored.steps)),
            ("batch", agrees(&self.batch, &stored.batch)),
            ("context", agrees(&self.context, &stored.context)),
            ("accumulate", agrees(&self.accumulate, &stored.accumulate)),
            ("lr", agrees(&self.lr, &stored.lr)),
            ("min-lr", agrees(&self.min_lr, &stored.min_lr)),
            ("schedule", agrees(&self.schedule, &stored.schedule)),
            ("warmup", agrees(&self.warmup, &stored.warmup)),
            ("decay-steps", agrees(&self.decay_steps, &stored.decay_steps)),
            ("weight-decay", agrees(&self.weight_decay, &stored.weight_decay)),
            ("beta1", agrees(&self.beta1, &stored.beta1)),
            ("beta2", agrees(&self.beta2, &stored.beta2)),
            ("eps", agrees(&self.eps, &stored.eps)),
            ("clip", agrees(&self.clip, &stored.clip)),
            ("precision", agrees(&self.precision, &stored.precision)),
            ("moments", agrees(&self.moments, &stored.moments)),
            ("seed", agrees(&self.seed, &stored.seed)),
        ];
        let differs = options.iter().find(|(_, agrees)| !agrees).map(|(option, _)| *option);
        match differs.or_else(|| self.lora.differs_from(stored.lora.as_ref())) {
            None => Ok(()),
            Some(option) => Err(Error::Usage(format!(
                "--{option} differs from the run that is continued; leave it out, or start a new run with another --out"
            ))),
        }
    }
}

/// The whole path of a model that is a file or directory; the name of a spec as it is.
fn located(model: &str) -> Result<String> {
    if crate::spec::builtin(model).is_some() || !std::path::Path::new(model).exists() {
        return Ok(model.to_string());
    }
    Ok(absolute(model)?.to_string_lossy().into_owned())
}

fn absolute(path: impl AsRef<std::path::Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    std::path::absolute(path).map_err(|e| Error::io(path, "find", e))
}
