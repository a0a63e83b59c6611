//! The spec language: text to a graph. `graph-specs/README.md` describes the language.
//!
//! Text becomes tokens ([`lexer`]), tokens a tree ([`parse`]); names and calls are checked ([`check`]), dimensions and
//! constants evaluated ([`constants`]), and the statements run once to unroll repeats and blocks into nodes ([`unroll`]).
//! Every step records its errors and leaves poisoned values behind, so that independent errors are reported together and
//! none twice.

mod ast;
mod check;
mod constants;
mod diagnostic;
mod evaluate;
mod expression;
mod lexer;
mod op_call;
mod parse;
mod recovery;
mod stream;
mod unroll;
mod value;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::graph::Graph;
use ast::{Ast, Item};
use diagnostic::{Diagnostics, did_you_mean};
use evaluate::{Session, Stop};
use std::path::Path;

/// Specs longer than this are refused.
const MAX_BYTES: usize = 1 << 20;

/// The specs that come with the program.
const BUILTIN: [(&str, &str); 2] =
    [("gpt2", include_str!("../../graph-specs/gpt2.sg")), ("llama", include_str!("../../graph-specs/llama.sg"))];

/// The text of a spec and what messages call it.
#[derive(Clone, Debug, PartialEq)]
pub struct SpecSource {
    /// File name for messages.
    pub name: String,
    /// The spec.
    pub text: String,
}

/// The spec `gpt2` or `llama` that comes with the program.
pub fn builtin(name: &str) -> Option<SpecSource> {
    let (name, text) = BUILTIN.iter().find(|(n, _)| *n == name)?;
    Some(SpecSource { name: format!("{name}.sg"), text: text.to_string() })
}

/// The built-in spec of that name, or else the file at that path.
///
/// # Errors
/// A file that cannot be read, is too long or is not UTF-8; the message lists the built-in names.
pub fn load(path_or_name: impl AsRef<Path>) -> Result<SpecSource> {
    let path = path_or_name.as_ref();
    if let Some(source) = path.to_str().and_then(builtin) {
        return Ok(source);
    }
    let known = || BUILTIN.iter().map(|(n, _)| *n);
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.extension().is_none() => {
            let hint = did_you_mean(&path.to_string_lossy(), known());
            let names = known().collect::<Vec<_>>().join(", ");
            return Err(Error::file(path, format!("neither a file nor a built-in spec ({names}){hint}")));
        }
        result => result.map_err(|e| Error::io(path, "read", e))?,
    };
    let text = String::from_utf8(bytes)
        .map_err(|e| Error::file_at(path, e.utf8_error().valid_up_to() as u64, "a spec must be UTF-8 text"))?;
    Ok(SpecSource { name: path.display().to_string(), text })
}

/// Compiles a spec to an unrolled graph with the input `tokens` and the result `logits`.
///
/// `overrides` are pairs NAME, VALUE that replace dimensions and constants; a value is an expression. `size` is one of the
/// spec's named sizes; the pair `size`, NAME chooses one too. Overrides win over the size, the size over the defaults.
///
/// # Errors
/// [`Error::Spec`] with all independent errors found, rendered for a terminal.
pub fn compile(source: &SpecSource, overrides: &[(String, String)], size: Option<&str>) -> Result<Graph> {
    if source.text.len() > MAX_BYTES {
        let message = format!("a spec of {} bytes; the limit is {MAX_BYTES}", source.text.len());
        return Err(Error::file(&source.name, message));
    }
    let mut diagnostics = Diagnostics::new(&source.name, &source.text);
    let ast = parse::parse(&source.text, &mut diagnostics);
    let blocks = check::check(&ast, &mut diagnostics);
    let mut session = Session::new(diagnostics);
    match build(&ast, &blocks, overrides, size, &mut session) {
        Ok(graph) if session.diagnostics.is_empty() => Ok(graph),
        _ => Err(session.diagnostics.into_error()),
    }
}

fn build(
    ast: &Ast,
    blocks: &check::Blocks,
    overrides: &[(String, String)],
    size: Option<&str>,
    session: &mut Session,
) -> std::result::Result<Graph, Stop> {
    let constants = constants::resolve(ast, overrides, size, session)?;
    let model = ast.items.iter().find_map(|i| if let Item::Model(name) = i { Some(name.text.as_str()) } else { None });
    let mut graph = Graph::new(model.unwrap_or_default());
    graph.constants = constants.values.iter().filter_map(|(n, v)| Some((n.clone(), v.attr()?))).collect();
    let Some(item) = ast.items.iter().find_map(|i| if let Item::Graph(g) = i { Some(g) } else { None }) else {
        return Ok(graph);
    };
    let names = Default::default();
    unroll::Unroll { session, blocks, constants: &constants, graph, names, frames: Vec::new() }.graph(item)
}
