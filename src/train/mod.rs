//! Training: data in, schedules, logs and charts.
//!
//! * [`TokenFile`], [`TokenSource`]: tokens from llm.c's files, by memory map, or from plain text.
//! * [`Loader`]: deterministic batches, resumable from a [`Position`]; [`ValidationWindows`] for measuring.
//! * [`Schedule`]: the learning rate as a pure function of the step.
//! * [`Log`], [`Record`], [`chart`]: what happened, as JSON lines and as a picture.

mod atomic_file;
pub mod chart;
mod evals;
mod loader;
mod log;
mod schedule;
mod tokenize;
mod tokens;

pub use atomic_file::AtomicFile;
pub use evals::{EvalFile, Example};
pub use loader::{Loader, Order, Position, ValidationWindows};
pub use log::{Log, Record};
pub use schedule::{Schedule, ScheduleKind};
pub use tokenize::{TokenizeOptions, TokenizeReport, tokenize};
pub use tokens::{TokenFile, TokenSource, TokenWidth, TokenWriter};
