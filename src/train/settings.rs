//! What decides the numbers of a training run. A checkpoint stores it whole, so that a resumed run cannot differ.

use super::schedule::{Schedule, ScheduleKind};
use crate::error::{Error, Result};
use crate::ops::Capacity;
use crate::passes::{Training, optimizer::AdamW};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Model, data and hyperparameters of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Checkpoint to finetune, or spec to start from scratch.
    pub model: String,
    /// A named size of the spec.
    pub size: Option<String>,
    /// `NAME=VALUE` overrides of the spec.
    pub set: Vec<String>,
    /// Training data: a token file or text.
    pub data: PathBuf,
    /// Validation data.
    pub val: Option<PathBuf>,
    /// Share of text, from its end, that is set aside when there is no validation file.
    #[serde(with = "exact")]
    pub val_fraction: f64,
    /// Tokenizer of text data, when it is not the model's own.
    pub tokenizer: Option<String>,
    /// Optimiser steps.
    pub steps: u64,
    /// Sequences of a micro-batch.
    pub batch: usize,
    /// Tokens of a sequence.
    pub context: usize,
    /// Micro-batches of a step.
    pub accumulate: usize,
    /// How the learning rate falls.
    pub schedule: ScheduleKind,
    /// Peak of the learning rate.
    #[serde(with = "exact")]
    pub lr: f64,
    /// Where the learning rate ends.
    #[serde(with = "exact")]
    pub min_lr: f64,
    /// Steps of linear warmup.
    pub warmup: u64,
    /// Steps of the final fall of a warmup-stable-decay schedule.
    pub decay_steps: u64,
    /// Decoupled weight decay of matrices.
    #[serde(with = "exact")]
    pub weight_decay: f64,
    /// Decay rate of the first moment.
    #[serde(with = "exact")]
    pub beta1: f64,
    /// Decay rate of the second moment.
    #[serde(with = "exact")]
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[serde(with = "exact")]
    pub eps: f64,
    /// Largest norm of all gradients together; 0 does not clip.
    #[serde(with = "exact")]
    pub clip: f64,
    /// What factors of matrix products are rounded to.
    pub precision: Precision,
    /// What moments are stored as; to bf16 they are rounded stochastically.
    #[serde(default)]
    pub moments: Precision,
    /// Seed of initialisation, data order, dropout and stochastic rounding.
    pub seed: u64,
    /// Adapters on a frozen checkpoint; without, every parameter is trained.
    #[serde(default)]
    pub lora: Option<Adapters>,
    /// How the plan is made.
    #[serde(default)]
    pub planning: Planning,
}

/// Low-rank adapters, and how the parameters below them are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adapters {
    /// Inner width.
    pub rank: usize,
    /// Products of adapters are scaled by alpha / rank.
    #[serde(with = "exact")]
    pub alpha: f64,
    /// Last parts of the paths of the linears to adapt; empty adapts all but the head.
    pub targets: Vec<String>,
    /// What the frozen matrices are kept in.
    #[serde(default)]
    pub base_type: Precision,
}

/// How a training plan is made. No bit of the result depends on it, so a run may continue with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Planning {
    /// Updates run inside backward.
    pub fuse_optimizer: bool,
    /// Most bytes of activations, gradients and scratch.
    pub memory_budget: Option<u64>,
}

/// What values are rounded to. Sums are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// bf16.
    Bf16,
}

impl std::str::FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err(Error::Usage(format!("unknown precision '{name}'; known are f32, bf16"))),
        }
    }
}

impl Settings {
    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// The option's name and what it may be.
    pub fn validate(&self) -> Result<()> {
        let refuse = |option: &str, value: String, rule: &str| {
            Err(Error::Usage(format!("--{option} {value}: it must be {rule}")))
        };
        for (option, path) in [("data", Some(&self.data)), ("val", self.val.as_ref())] {
            if let Some(path) = path.filter(|path| path.to_str().is_none()) {
                return refuse(option, path.display().to_string(), "a path in UTF-8, so that a checkpoint can name it");
            }
        }
        if self.steps == 0 {
            return refuse("steps", "0".into(), "at least 1");
        }
        for (option, value) in [("batch", self.batch), ("context", self.context), ("accumulate", self.accumulate)] {
            if value == 0 {
                return refuse(option, "0".into(), "at least 1");
            }
        }
        for (option, value) in [("beta1", self.beta1), ("beta2", self.beta2), ("val-fraction", self.val_fraction)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(option, value.to_string(), "at least 0 and below 1");
            }
        }
        for (option, value) in [("weight-decay", self.weight_decay), ("clip", self.clip)] {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(option, value.to_string(), "0 or more");
            }
        }
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return refuse("eps", self.eps.to_string(), "above 0");
        }
        let tokens = self.batch.checked_mul(self.context).and_then(|n| n.checked_mul(self.accumulate));
        if tokens.is_none_or(|n| n > i32::MAX as usize) {
            return Err(Error::Usage("--batch × --context × --accumulate: more tokens than a step can have".into()));
        }
        if let Some(lora) = &self.lora {
            if lora.rank == 0 {
                return refuse("lora-rank", "0".into(), "at least 1");
            }
            if !(lora.alpha > 0.0 && lora.alpha.is_finite()) {
                return refuse("lora-alpha", lora.alpha.to_string(), "above 0");
            }
        }
        if self.planning.fuse_optimizer && self.clip > 0.0 {
            return Err(Error::Usage(
                "--fuse-optimizer updates each parameter before all gradients exist, so nothing can be clipped; add --clip 0".into(),
            ));
        }
        if self.planning.fuse_optimizer && self.accumulate > 1 {
            return Err(Error::Usage(
                "--fuse-optimizer frees each gradient at once, which --accumulate needs to keep; use one of them"
                    .into(),
            ));
        }
        self.learning_rates().validate()
    }

    /// The learning rate of every step.
    pub fn learning_rates(&self) -> Schedule {
        Schedule {
            kind: self.schedule,
            peak: self.lr,
            minimum: self.min_lr,
            warmup: self.warmup,
            steps: self.steps,
            decay: self.decay_steps,
        }
    }

    /// What the training graph holds.
    pub fn training(&self) -> Training {
        let Settings { beta1, beta2, eps, weight_decay, .. } = *self;
        Training {
            accumulate: self.accumulate > 1,
            optimizer: Some(AdamW { beta1, beta2, eps, weight_decay, bf16_moments: self.moments == Precision::Bf16 }),
            keep_gradients: false,
            bf16: self.precision == Precision::Bf16,
        }
    }

    /// Sizes of the training plan.
    pub fn capacity(&self) -> Capacity {
        let rows = self.batch * self.context;
        Capacity { slots: self.batch, context: self.context, step_rows: rows, wanted_rows: rows }
    }

    /// Tokens that a step trains on.
    pub fn tokens_per_step(&self) -> usize {
        self.batch * self.context * self.accumulate
    }
}

/// Numbers as text, because the JSON reader may round the last bit of one with many digits.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:?}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
