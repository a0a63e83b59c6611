//! What a terminal, or a file behind standard error, shows of a run.

use super::super::output::note;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Seconds between plain lines.
const LINE_EVERY: f64 = 5.0;

/// A progress bar on a terminal, plain lines elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    steps: u64,
    start: u64,
    clock: Instant,
    last_line: Option<Instant>,
    validation: Option<f64>,
    /// Tokens per second, smoothed.
    rate: f64,
}

impl Progress {
    /// For steps `start` to `steps`.
    pub fn new(start: u64, steps: u64) -> Self {
        let style = "{bar:24} {pos}/{len}  {msg}";
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps).with_position(start);
            bar.set_style(ProgressStyle::with_template(style).expect("the template is right"));
            bar
        });
        Progress { bar, steps, start, clock: Instant::now(), last_line: None, validation: None, rate: 0.0 }
    }

    /// After a step; `lines` is how far logging is, `tokens_per_second` the speed of the step.
    pub fn step(&mut self, step: u64, loss: f64, tokens_per_second: f64) {
        self.rate = if self.rate == 0.0 { tokens_per_second } else { 0.9 * self.rate + 0.1 * tokens_per_second };
        let due = match &self.bar {
            Some(_) => true,
            None => step == self.steps || self.last_line.is_none_or(|t| t.elapsed().as_secs_f64() >= LINE_EVERY),
        };
        if !due {
            return;
        }
        let left = self.clock.elapsed().as_secs_f64() / (step - self.start) as f64 * (self.steps - step) as f64;
        let left = indicatif::HumanDuration(Duration::from_secs_f64(left));
        let validation = self.validation.map_or(String::new(), |v| format!("  validation {v:.4}"));
        let rate = self.rate;
        let message = format!("loss {loss:.4}{validation}  {rate:.0} tokens/s  {left} left");
        match &self.bar {
            Some(bar) => {
                bar.set_position(step);
                bar.set_message(message);
            }
            None => {
                note(&format!("step {step}/{}  {message}", self.steps));
                self.last_line = Some(Instant::now());
            }
        }
    }

    /// After a validation.
    pub fn validated(&mut self, step: u64, loss: f64, windows: usize) {
        self.validation = Some(loss);
        self.line(&format!("step {step}: validation loss {loss:.4} over {windows} windows"));
    }

    /// A line above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
