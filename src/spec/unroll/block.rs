//! Calls of blocks: arguments, the body in a frame of its own, results.

use super::super::ast::{Arg, Block, Features, Ident};
use super::super::diagnostic::{Diagnostic, Span};
use super::super::evaluate::{Stop, deeper, described, evaluate, integers};
use super::super::value::Value;
use super::{Flow, Frame, Unroll};

impl<'a> Unroll<'a> {
    /// Unrolls a call of a block in a frame of its own; its results.
    pub(super) fn block(&mut self, block: &'a Block, callee: &Ident, args: &[Arg]) -> Result<Value, Stop> {
        if self.session.calls.iter().any(|(name, _)| *name == callee.text) {
            let chain: Vec<&str> =
                self.session.calls.iter().map(|(n, _)| n.as_str()).chain([callee.text.as_str()]).collect();
            let message = format!("block '{}' calls itself: {}", callee.text, chain.join(" → "));
            let error = Diagnostic::new(callee.span, message).note("blocks are unrolled; repeat with 'for' instead");
            return Ok(self.session.report(error));
        }
        let Some(bound) = self.bind(block, callee, args)? else { return Ok(Value::Poison) };
        let path = bound.iter().find_map(|(_, v)| if let Value::Path(p) = v { Some(p.text.to_string()) } else { None });
        let outer = path.unwrap_or_else(|| self.frame().prefix.clone());
        let prefix = if outer.is_empty() { callee.text.clone() } else { format!("{outer}.{}", callee.text) };
        let mut frame = Frame { prefix, ..Frame::default() };
        for (param, (_, value)) in block.params.iter().zip(&bound) {
            frame.locals.insert(param.name.text.clone(), value.clone());
        }
        self.frames.push(frame);
        for (param, (span, value)) in block.params.iter().zip(bound) {
            if let Some(features) = &param.features {
                let what = format!("parameter '{}' of block '{}'", param.name.text, block.name.text);
                let checked = self.checked(value, span, features, &what)?;
                self.frame().locals.insert(param.name.text.clone(), checked);
            }
        }
        self.session.calls.push((callee.text.clone(), callee.span));
        let flow = deeper(self, callee.span, |s| s.body(&block.body));
        let result = match flow? {
            Flow::Return(values) => self.results(block, values),
            Flow::Next if self.frame().damaged => Ok(Value::Poison),
            Flow::Next => {
                Ok(self.session.fail(block.name.span, format!("block '{}' has no 'return'", block.name.text)))
            }
        };
        self.session.calls.pop();
        self.frames.pop();
        result
    }

    /// The argument of each parameter and its place; `None` when they do not match (recorded).
    fn bind(&mut self, block: &Block, callee: &Ident, args: &[Arg]) -> Result<Option<Vec<(Span, Value)>>, Stop> {
        let mut bound: Vec<Option<(Span, Value)>> = vec![None; block.params.len()];
        let name = &block.name.text;
        let mut complete = true;
        for (i, arg) in args.iter().enumerate() {
            let value = evaluate(self, &arg.value)?;
            let position = match &arg.name {
                None => Some(i).filter(|&i| i < bound.len()),
                Some(n) => block.params.iter().position(|p| p.name.text == n.text),
            };
            let span = arg.name.as_ref().map_or(arg.value.span, |n| n.span);
            let taken = position.is_some_and(|p| bound[p].is_some());
            match position {
                Some(p) if !taken => bound[p] = Some((arg.value.span, value)),
                _ => {
                    let known: Vec<&str> = block.params.iter().map(|p| p.name.text.as_str()).collect();
                    let what = if taken { "is given twice" } else { "is one too many or unknown" };
                    let message = format!("this argument of block '{name}' {what}; it takes ({})", known.join(", "));
                    self.session.report(Diagnostic::new(span, message).label(block.name.span, "declared here"));
                    complete = false;
                }
            }
        }
        if let (true, Some(missing)) = (complete, bound.iter().position(|b| b.is_none())) {
            let message = format!("block '{name}' needs an argument '{}'", block.params[missing].name.text);
            let error = Diagnostic::new(callee.span, message);
            self.session.report(error.label(block.params[missing].name.span, "declared here"));
        }
        Ok(if complete { bound.into_iter().collect() } else { None })
    }

    fn results(&mut self, block: &Block, values: Vec<(Span, Value)>) -> Result<Value, Stop> {
        if let Some(declared) = block.returns.as_ref().filter(|r| r.len() != values.len()) {
            let message =
                format!("block '{}' declares {} results and returns {}", block.name.text, declared.len(), values.len());
            return Ok(self.session.fail(values[0].0, message));
        }
        let mut results = Vec::new();
        for (i, (span, value)) in values.into_iter().enumerate() {
            let what = format!("result of block '{}'", block.name.text);
            results.push(match block.returns.as_ref().map(|r| &r[i]) {
                Some(features) => self.checked(value, span, features, &what)?,
                None => value,
            });
        }
        Ok(if results.len() == 1 { results.remove(0) } else { Value::Many(results.into()) })
    }

    /// `value` if it is a tensor with these features, else an error at `span`.
    fn checked(&mut self, value: Value, span: Span, features: &Features, what: &str) -> Result<Value, Stop> {
        let Some(sizes) = integers(self, &features.sizes)? else { return Ok(Value::Poison) };
        let message = match &value {
            Value::Poison => return Ok(Value::Poison),
            Value::Tensor(t) => {
                let dims = self.graph.ty(*t).shape.dims();
                if dims.iter().map(|&d| d as i64).eq(sizes.iter().copied()) {
                    return Ok(value);
                }
                format!("the {what} has features {sizes:?}, and this tensor has {dims:?}")
            }
            other => format!("the {what} is a tensor, and this is {}", described(self, other)),
        };
        Ok(self.session.report(Diagnostic::new(span, message).label(features.span, format!("{sizes:?} declared here"))))
    }
}
