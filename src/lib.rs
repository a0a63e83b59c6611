//! staticgrad: a static-graph compiler and executor for GPT-class transformers on CPUs.
#![deny(unsafe_code)]

pub mod cli;
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
