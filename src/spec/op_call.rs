//! Calls of ops: arguments to inputs, parameter path and attributes; names of nodes.

use super::ast::{Arg, ExprKind, Ident};
use super::constants::MAX_SIZE;
use super::diagnostic::{Diagnostic, Span, did_you_mean};
use super::evaluate::{Context, Stop, described, evaluate};
use super::unroll::Unroll;
use super::value::{Path, Value};
use crate::graph::{Attr, Attrs, TensorId};
use crate::ops::{self, Call, Op};

/// Nodes that a spec may unroll to. The largest published models need some two thousand.
const MAX_NODES: usize = 8_000;

/// A call being put together.
#[derive(Default)]
struct Parts {
    inputs: Vec<(Span, TensorId)>,
    path: Option<(Span, Path)>,
    attrs: Attrs,
    /// Attributes given as a name that nothing defines, which makes it a word: attribute, name, place.
    words: Vec<(String, String, Span)>,
    /// `init` and `decay`.
    param_attrs: Vec<Span>,
    poisoned: bool,
}

impl Unroll<'_> {
    /// A call of an op written by keyword.
    pub fn op(&mut self, callee: &Ident, args: &[Arg]) -> Result<Value, Stop> {
        let op = ops::find(&callee.text);
        let mut parts = Parts::default();
        for arg in args {
            let value = evaluate(self, &arg.value)?;
            match (op, &arg.name) {
                (None, _) | (_, _) if matches!(value, Value::Poison) => parts.poisoned = true,
                (None, _) => {}
                (Some(op), None) => self.positional(op, &mut parts, arg, value),
                (Some(op), Some(name)) => self.attribute(op, &mut parts, name, arg.value.span, value),
            }
        }
        match op {
            // Unknown names are reported before evaluation; what is poisoned, where it went wrong.
            Some(op) if !parts.poisoned => self.emit(op, parts, callee.span),
            _ => Ok(Value::Poison),
        }
    }

    /// `a + b` and `a * b` on tensors.
    pub fn infix(&mut self, keyword: &str, operands: [(Span, TensorId); 2], span: Span) -> Result<Value, Stop> {
        let op = ops::find(keyword).expect("the ops behind '+' and '*' are in the registry");
        self.emit(op, Parts { inputs: operands.to_vec(), ..Parts::default() }, span)
    }

    fn positional(&mut self, op: &dyn Op, parts: &mut Parts, arg: &Arg, value: Value) {
        let span = arg.value.span;
        let keyword = op.keyword();
        match (&arg.value.kind, value) {
            (_, Value::Tensor(t)) => parts.inputs.push((span, t)),
            (_, Value::Path(path)) => match &parts.path {
                None => parts.path = Some((span, path)),
                Some(first) => {
                    let error = two_paths(self, keyword, first, &(span, path));
                    self.session.report(error);
                    parts.poisoned = true;
                }
            },
            (ExprKind::Name(name), value) if op.attributes().contains(&name.as_str()) => {
                self.attribute(op, parts, &Ident { text: name.clone(), span }, span, value);
            }
            (_, Value::Many(values)) => {
                let message = format!("this call has {} results; assign them to names and pass one", values.len());
                self.refuse(parts, span, message);
            }
            (_, other) => {
                let takes = attributes(op);
                let message = format!(
                    "{keyword} takes tensors and a parameter path here, not {other}; attributes are written NAME = value ({takes})"
                );
                self.refuse(parts, span, message);
            }
        }
    }

    fn attribute(&mut self, op: &dyn Op, parts: &mut Parts, name: &Ident, span: Span, value: Value) {
        let (keyword, text) = (op.keyword(), name.text.as_str());
        let known = || op.attributes().iter().copied().chain(["init", "decay"]);
        if !known().any(|k| k == text) {
            let hint = did_you_mean(text, known());
            let message = format!("{keyword} has no attribute '{text}'{hint}");
            let note = format!("it takes {}", attributes(op));
            self.session.report(Diagnostic::new(name.span, message).note(note));
            parts.poisoned = true;
            return;
        }
        let attr = match (text, value) {
            ("init", Value::Normal(std)) => {
                parts.param_attrs.push(name.span);
                return parts.attrs.set("init_std", Attr::Float(std));
            }
            ("init", other) => {
                let other = described(self, &other);
                return self.refuse(parts, span, format!("init is normal(std), not {other}"));
            }
            ("decay", Value::Bool(b)) => {
                parts.param_attrs.push(name.span);
                Some(Attr::Bool(b))
            }
            ("decay", other) => {
                let other = described(self, &other);
                return self.refuse(parts, span, format!("decay is true or false, not {other}"));
            }
            (_, Value::Path(Path { free: true, text: word })) => {
                parts.words.push((text.to_string(), word.to_string(), span));
                Some(Attr::Str(word.to_string()))
            }
            (_, value) => match value.attr() {
                Some(attr) => Some(attr),
                None => {
                    let message =
                        format!("the attribute {text} is a constant, a word or a list of integers, not {value}");
                    return self.refuse(parts, span, message);
                }
            },
        };
        let attr = attr.expect("every other case returned");
        let too_large = |i: i64| !(-MAX_SIZE..=MAX_SIZE).contains(&i);
        if matches!(&attr, Attr::Int(i) if too_large(*i))
            || matches!(&attr, Attr::Ints(l) if l.iter().any(|&i| too_large(i)))
        {
            return self.refuse(
                parts,
                span,
                format!("the attribute {text} = {attr} is out of range (at most {MAX_SIZE})"),
            );
        }
        if parts.attrs.get(text).is_some() {
            return self.refuse(parts, name.span, format!("the attribute {text} is given twice"));
        }
        parts.attrs.set(text, attr);
    }

    fn refuse(&mut self, parts: &mut Parts, span: Span, message: String) {
        self.session.fail(span, message);
        parts.poisoned = true;
    }

    /// Adds the node.
    fn emit(&mut self, op: &dyn Op, parts: Parts, span: Span) -> Result<Value, Stop> {
        if self.graph.nodes.len() >= MAX_NODES {
            return Err(self.session.stop(span, format!("the graph has more than {MAX_NODES} nodes")));
        }
        let types: Vec<_> = parts.inputs.iter().map(|&(_, t)| self.graph.ty(t).clone()).collect();
        let mut own = parts.attrs.clone();
        own.0.retain(|k, _| op.attributes().contains(&k.as_str()));
        if op.params(&own, &types).is_ok_and(|p| p.is_empty()) {
            if let Some((place, path)) = parts.path.as_ref().filter(|(_, p)| p.free) {
                let hint = self.suggestion(&path.text);
                return Ok(self.session.fail(*place, format!("undefined name '{}'{hint}", path.text)));
            }
            if let Some(&place) = parts.param_attrs.first() {
                let message = format!("{} has no parameters, so 'init' and 'decay' are out of place", op.keyword());
                return Ok(self.session.fail(place, message));
            }
        }
        let path = parts.path.as_ref().map(|(_, p)| p.text.to_string());
        let call = Call {
            op: op.keyword(),
            name: self.node_name(op.keyword(), path.as_deref()),
            inputs: parts.inputs.iter().map(|&(_, t)| t).collect(),
            path: path.as_deref(),
            attrs: parts.attrs,
        };
        match ops::build::call(&mut self.graph, call) {
            Ok(outputs) => Ok(match outputs.as_slice() {
                [one] => Value::Tensor(*one),
                several => Value::Many(several.iter().map(|&t| Value::Tensor(t)).collect()),
            }),
            Err(message) => {
                let mut error = Diagnostic::new(span, message);
                for &(place, t) in parts.inputs.iter().filter(|(place, _)| *place != span) {
                    error = error.label(place, format!("features {:?}", self.graph.ty(t).shape.dims()));
                }
                for (attribute, word, place) in &parts.words {
                    let hint = self.suggestion(word);
                    let message = format!("'{word}' is not defined, so {attribute} is the word \"{word}\"{hint}");
                    error = error.label(*place, message);
                }
                Ok(self.session.report(error))
            }
        }
    }

    /// A name for a node that no other has: its path, or the place in the spec and the op.
    fn node_name(&mut self, keyword: &str, path: Option<&str>) -> String {
        let prefix = self.frames.last().map_or("", |f| f.prefix.as_str());
        let base = match path {
            Some(path) if !self.names.contains_key(path) => path.to_string(),
            _ if prefix.is_empty() => keyword.to_string(),
            _ => format!("{prefix}.{keyword}"),
        };
        let count = self.names.entry(base.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { base } else { format!("{base}_{count}") }
    }
}

/// The error of a call with two parameter paths, one of which may be a mistyped tensor.
fn two_paths(context: &Unroll, keyword: &str, first: &(Span, Path), second: &(Span, Path)) -> Diagnostic {
    let (a, b) = (&first.1.text, &second.1.text);
    let undefined = |(span, path): &(Span, Path)| {
        let hint = context.suggestion(&path.text);
        Diagnostic::new(*span, format!("undefined name '{}'{hint}", path.text))
    };
    let similar = |path: &Path| path.free && !context.suggestion(&path.text).is_empty();
    match (first.1.free, second.1.free) {
        (true, false) => undefined(first),
        (true, true) if similar(&first.1) => undefined(first),
        (_, true) if similar(&second.1) || !first.1.free => undefined(second),
        _ => Diagnostic::new(second.0, format!("{keyword} takes one parameter path, and here are two: {a} and {b}"))
            .label(first.0, "the first one")
            .note("a name that nothing defines is read as a parameter path"),
    }
}

/// The attributes of an op, for messages.
fn attributes(op: &dyn Op) -> String {
    let own = op.attributes().join(", ");
    if own.is_empty() { "no attributes of its own".to_string() } else { own }
}
