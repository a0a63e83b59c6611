//! Tests of the spec language.

mod errors;
mod language;
mod published;
mod robustness;

use super::{SpecSource, compile};
use crate::error::Error;
use crate::graph::Graph;

/// Compiles text that must be right.
fn graph(text: &str, overrides: &[(&str, &str)], size: Option<&str>) -> Graph {
    attempt(text, overrides, size).unwrap_or_else(|e| panic!("{e}"))
}

fn attempt(text: &str, overrides: &[(&str, &str)], size: Option<&str>) -> Result<Graph, Error> {
    let overrides: Vec<(String, String)> = overrides.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    compile(&SpecSource { name: "test.sg".into(), text: text.into() }, &overrides, size)
}

/// The rendered errors of text that must be wrong, and how many there are.
fn errors(text: &str, overrides: &[(&str, &str)], size: Option<&str>) -> (String, usize) {
    match attempt(text, overrides, size) {
        Err(Error::Spec { rendered, count }) => (rendered, count),
        other => panic!("expected errors of the spec, got {other:?}"),
    }
}
