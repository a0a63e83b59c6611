//! Training: data in, schedules, logs and charts.
//!
//! * [`TokenFile`], [`TokenSource`]: tokens from llm.c's files, by memory map, or from plain text.
//! * [`Loader`]: deterministic batches, resumable from a [`Position`]; [`ValidationWindows`] for measuring.
//! * [`Schedule`]: the learning rate as a pure function of the step.
//! * [`Settings`], [`Run`]: what decides the numbers of a run, and its steps; [`checkpoint`] stores both.
//! * [`Log`], [`Record`], [`chart`]: what happened, as JSON lines and as a picture.

pub mod chart;
pub mod checkpoint;
mod evals;
pub mod init;
mod loader;
mod log;
pub mod model;
pub mod planning;
mod run;
pub mod sample;
mod schedule;
mod settings;
mod token_file;
mod tokenize;
mod tokens;

pub use evals::{EvalFile, Example};
pub use loader::{Loader, Position, ValidationWindows};
pub use log::{Log, Record};
pub use run::{Run, Step};
pub use schedule::{Schedule, ScheduleKind};
pub use settings::{Adapters, Planning, Precision, Settings};
pub use token_file::{TokenFile, TokenWidth, TokenWriter};
pub use tokenize::{TokenizeOptions, TokenizeReport, tokenize};
pub use tokens::TokenSource;
