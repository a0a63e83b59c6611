//! `staticgrad train`: from scratch or finetuning, with checkpoints that a run continues from bit-identically.

mod directory;
pub(super) mod lora_options;
mod memory;
mod options;
mod planning_options;
mod progress;
mod saver;
pub(super) mod source;

use super::interrupt;
use super::output::{line, note};
use super::size;
use crate::disk::keep_input;
use crate::error::{Error, Result};
use crate::tensor::DType;
use crate::train::checkpoint::Saved;
use crate::train::sample::Sampling;
use crate::train::{Log, Planning, Record, Run, Settings, Step, init, planning};
use directory::RunDirectory;
pub use options::TrainArgs;
use progress::Progress;
use saver::Saver;
use source::{Data, ModelSource};
use std::sync::atomic::Ordering;

/// Files of a run's directory.
const CHECKPOINT: &str = "checkpoint.safetensors";
const LOG: &str = "log.jsonl";
const CURVE: &str = "loss.svg";
const BEST: &str = "best";

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<()> {
    for (option, zero) in [
        ("eval-every", args.eval_every == 0),
        ("eval-windows", args.eval_windows == Some(0)),
        ("sample-tokens", args.sample_tokens == 0),
        ("checkpoint-every", args.checkpoint_every == 0),
        ("log-every", args.log_every == 0),
    ] {
        if zero {
            return Err(Error::Usage(format!("--{option} must be at least 1")));
        }
    }
    let dtype = DType::from_name(&args.save_type).filter(|d| [DType::F32, DType::F16, DType::BF16].contains(d));
    let dtype = dtype.ok_or_else(|| Error::Usage(format!("--save-type {}: use f32, f16 or bf16", args.save_type)))?;
    let threads = args.threads.count()?;
    let mut directory = RunDirectory::open(&args.out)?;
    let path = directory.checkpoint();
    let saved = match (path.exists(), args.resume) {
        (true, true) => {
            let mut saved = Saved::open(&path)?;
            saved.set_planning(args.planning.over(saved.state().settings.planning));
            Some(saved)
        }
        (_, false) => {
            directory.refuse_run()?;
            None
        }
        (false, true) => None,
    };
    let settings = match &saved {
        Some(saved) => {
            args.numbers.agree_with(&saved.state().settings)?;
            saved.state().settings.validate()?;
            saved.state().settings.clone()
        }
        None => args.numbers.settings(args.planning.over(Planning::default())).map_err(|e| match args.resume {
            true => {
                Error::Usage(format!("{} holds no checkpoint to continue, and to start a run {e}", args.out.display()))
            }
            false => e,
        })?,
    };
    let source = ModelSource::open(&settings.model, settings.size.as_deref(), &settings.set)?;
    if source.checkpoint.is_some() {
        keep_input(settings.model.as_ref(), &args.out)?;
    }
    let rows = source.dim("T")?;
    if settings.context > rows {
        return Err(Error::Usage(format!("--context {}: the model's context is {rows}", settings.context)));
    }
    let data = Data::open(&settings, &source)?;
    if settings.lora.is_some() && source.checkpoint.is_none() {
        let message = format!("--lora-rank adapts a checkpoint, and --model {} is a spec", settings.model);
        return Err(Error::Usage(message));
    }
    let graph = planning::adapted(&source.graph, &settings)?;
    let planning::Planned { plan, budget } = planning::plan(&graph, &settings, threads)?;
    if let Some((curve, choice)) = budget {
        size::print_curve(&curve, &choice);
    }
    let sampling = match (args.sample_every, source.tokenizer(settings.tokenizer.as_deref())) {
        (0, _) | (_, Err(_)) => None,
        (_, Ok(tokenizer)) => Sampling::new(&graph, rows, tokenizer, source.dim("V")?, args.sample_tokens, threads)?,
    };
    memory::report(&plan, threads, &data, sampling.as_ref());

    let mut run = Run::new(&plan, threads, settings.clone(), data.train, data.validation)?;
    // A checkpoint of training has all that is trained; what is frozen comes from the model it began with.
    match &source.checkpoint {
        Some(checkpoint) if saved.is_none() || settings.lora.is_some() => {
            init::load(run.trainer_mut(), checkpoint, settings.seed)?;
            run.note_frozen();
        }
        None if saved.is_none() => init::initialise(run.trainer_mut(), settings.seed),
        _ => {}
    }
    if let Some(saved) = saved {
        run.resume(&path, saved)?;
    }
    directory.make()?;
    let saver = Saver {
        directory: &args.out,
        checkpoint: path,
        config: source.config(),
        tokenizer: source.tokenizer_source(settings.tokenizer.as_deref()),
        dtype,
        title: format!("{} on {}", source.graph.name, settings.data.file_name().unwrap_or_default().to_string_lossy()),
    };
    drop(source);
    if saver.config.is_none() {
        note("no Hugging Face model computes what this spec says: the run keeps checkpoints only");
    }
    Loop { args, settings: &settings, saver: &saver, sampling, run: &mut run }.train()
}

/// The steps of a run with all that happens between them.
struct Loop<'a, 'p> {
    args: &'a TrainArgs,
    settings: &'a Settings,
    saver: &'a Saver<'a>,
    sampling: Option<Sampling>,
    run: &'a mut Run<'p>,
}

impl Loop<'_, '_> {
    fn train(mut self) -> Result<()> {
        let stop = interrupt::noticed()?;
        let start = self.run.state().step;
        let steps = self.settings.steps;
        let log_path = self.args.out.join(LOG);
        let mut log = if start == 0 { Log::create(&log_path)? } else { Log::resume(&log_path, start)? };
        if start >= steps {
            self.saver.save(self.run)?;
            line(&format!("all {steps} steps are done already; the model is in {}", self.args.out.display()));
            return Ok(());
        }
        if start == 0 {
            self.run.save(&self.saver.checkpoint)?;
        }
        let mut progress = Progress::new(start, steps);
        let mut mean = Mean::default();
        while self.run.state().step < steps && !stop.load(Ordering::Relaxed) {
            let step = self.run.step()?;
            mean.add(&step);
            progress.step(step.number, step.loss, self.settings.tokens_per_step() as f64 / step.seconds);
            let due = |every: u64| step.number % every == 0 || step.number == steps;
            if due(self.args.log_every) {
                log.append(&mean.record(self.settings.tokens_per_step(), self.run.state().seconds))?;
                mean = Mean::default();
            }
            if due(self.args.eval_every) {
                self.validate(&step, &mut log, &mut progress)?;
            }
            if let Some(sampling) = self.sampling.as_ref().filter(|_| due(self.args.sample_every)) {
                let text = sampling.generate(self.run.trainer(), step.number)?;
                log.append(&Record { step: step.number, sample: Some(text.clone()), ..Default::default() })?;
                progress.line(&format!("--- sample after {} steps ---\n{}\n---", step.number, text.trim()));
            }
            if step.number % self.args.checkpoint_every == 0 && step.number < steps {
                self.saver.save(self.run)?;
            }
        }
        progress.finish();
        self.saver.save(self.run)?;
        self.report()
    }

    fn validate(&mut self, step: &Step, log: &mut Log, progress: &mut Progress) -> Result<()> {
        let limit = if step.number == self.settings.steps { None } else { self.args.eval_windows };
        let Some(loss) = self.run.validate(limit)? else { return Ok(()) };
        if !loss.is_finite() {
            return Err(Error::Request(format!(
                "the validation loss after step {} is {loss}; lower --lr",
                step.number
            )));
        }
        log.append(&Record { step: step.number, val_loss: Some(loss), ..Default::default() })?;
        let windows = self.run.validation_windows().min(limit.unwrap_or(usize::MAX));
        progress.validated(step.number, loss, windows);
        if self.run.note_validation(loss) && self.args.keep_best {
            self.saver.model(self.run, &self.args.out.join(BEST))?;
        }
        Ok(())
    }

    fn report(&self) -> Result<()> {
        let state = self.run.state();
        let out = self.args.out.display();
        if state.step < self.settings.steps {
            line(&format!(
                "stopped after step {} of {}; continue with --resume --out {out}",
                state.step, self.settings.steps
            ));
            return Ok(());
        }
        let best = state
            .best
            .map_or(String::new(), |(step, loss)| format!("; best validation loss {loss:.4} after step {step}"));
        let what = if self.settings.lora.is_some() { "adapter" } else { "model" };
        line(&format!("{} steps in {:.0} s{best}; the {what} is in {out}", state.step, state.seconds));
        Ok(())
    }
}

/// Means over the steps since the last line of the log.
#[derive(Default)]
struct Mean {
    steps: f64,
    loss: f64,
    seconds: f64,
    last: Option<Step>,
}

impl Mean {
    fn add(&mut self, step: &Step) {
        self.steps += 1.0;
        self.loss += step.loss;
        self.seconds += step.seconds;
        self.last = Some(*step);
    }

    fn record(&self, tokens_per_step: usize, seconds: f64) -> Record {
        Record {
            step: self.last.map_or(0, |s| s.number),
            loss: Some(self.loss / self.steps),
            learning_rate: self.last.map(|s| s.learning_rate),
            grad_norm: self.last.and_then(|s| s.gradient_norm),
            tokens_per_second: Some(self.steps * tokens_per_step as f64 / self.seconds),
            seconds: Some(seconds),
            ..Default::default()
        }
    }
}
