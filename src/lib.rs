//! staticgrad: a static-graph compiler and executor for GPT-class transformers on CPUs.
//!
//! A static-graph compiler is a straight line. Data flows one way, and the folders say so:
//!
//! ```text
//! graph-specs/*.sg ──spec──▶ graph ──passes──▶ graph ──plan──▶ plan ──exec──▶ tokens / gradients
//!   (text)           parse    SSA DAG  rewrite           offsets   bind + run
//! ```
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`error`] | the one error type |
//! | [`tensor`] | element types, shapes, row extents |
//! | [`disk`] | files mapped for reading, or written whole or not at all |
//! | [`kernels`] | numeric code on views, a portable version beside each SIMD one |
//! | [`ops`] | everything about one op in one file; the op contract and the registry |
//! | [`graph`] | the SSA DAG, its invariants and its text form |
//! | [`spec`] | spec text → graph, every error with line and caret |
//! | [`passes`] | one rewrite a file; the order in one list; verified after each |
//! | [`plan`] | lifespans → placement → independent verification → file |
//! | [`weights`] | checkpoint formats in and out; packing |
//! | [`exec`] | a plan bound to its arena and workers; row skipping |
//! | [`text`] | tokenizers, sampler, streaming |
//! | [`train`] | data, schedules, checkpoints, the training loop |
//! | [`cli`] | the command line, the only place that prints |
//!
//! `tests/architecture.rs` holds the arrows between them and fails on one that is not in its table.
//!
//! **Rows and slots.** Activations are rows × features, a row is a token position, a slot a sequence. `run` takes segments (slot, first
//! row, count). Operands are per-row, or prefixes (attention's keys and values): what a prefix operand reads is kept between calls, all
//! else is sized for the rows of one call. Skipping computed rows is thus a property of the plan.
//!
//! **Numbers.** Threads split outputs, never a reduction; every output element has one accumulation order, whether its row is computed
//! alone or among 512; attention tiles and reductions over rows sit at absolute positions. Results are bit-identical for any thread
//! count and any split into calls, on one instruction set.
//!
//! **Memory.** The arena is `[persistent | transient | scratch of each worker]`, allocated once. Lifespans are half-open in schedule steps;
//! the most bytes live at one step bound the transient part from below. The verifier shares no code with the planner and always runs.
#![deny(unsafe_code)]
#![allow(rustdoc::private_intra_doc_links, reason = "the documentation is for those who read the source, too")]

pub mod cli;
pub mod disk;
pub mod error;
pub mod exec;
pub mod graph;
pub mod kernels;
pub mod ops;
pub mod passes;
pub mod plan;
pub mod spec;
pub mod tensor;
pub mod text;
pub mod train;
pub mod weights;
