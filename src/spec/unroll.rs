//! Runs the statements of a spec: repeats and blocks are unrolled into nodes of a graph.

mod block;

use super::ast::{Arg, BinaryOp, Body, Expr, GraphItem, Ident, Statement};
use super::check::Blocks;
use super::constants::{Constants, check};
use super::diagnostic::{Diagnostic, Span, did_you_mean};
use super::evaluate::{Context, Session, Stop, condition, deeper, evaluate, integer};
use super::value::{Path, Value};
use crate::graph::{Graph, TensorId};
use crate::tensor::{DType, RowExtent, Shape};
use std::collections::BTreeMap;

/// What a graph is built with.
pub struct Unroll<'a> {
    /// Errors and limits.
    pub session: &'a mut Session,
    /// Blocks that may be called.
    pub blocks: &'a Blocks<'a>,
    /// Dimensions and constants.
    pub constants: &'a Constants,
    /// What is built.
    pub graph: Graph,
    /// How often each node name is taken.
    pub names: BTreeMap<String, usize>,
    /// The graph's own names, then those of each block being unrolled.
    pub frames: Vec<Frame>,
}

/// Names of one body being unrolled.
#[derive(Default)]
pub struct Frame {
    /// Values by name.
    pub locals: BTreeMap<String, Value>,
    /// Start of the names of nodes that have no parameters.
    pub prefix: String,
    /// Whether definitions were lost, so that an unknown name is no error.
    damaged: bool,
}

/// How a body ended.
enum Flow {
    Next,
    Return(Vec<(Span, Value)>),
}

impl<'a> Unroll<'a> {
    /// Unrolls the graph of a spec.
    ///
    /// # Errors
    /// When evaluation reached a limit. All other errors are recorded.
    pub fn graph(mut self, item: &'a GraphItem) -> Result<Graph, Stop> {
        let tokens = self.graph.add_input("tokens", DType::I32, RowExtent::Step, Shape::new([1]));
        let mut frame = Frame::default();
        match item.inputs.as_slice() {
            [only] if only.text == "tokens" => {}
            inputs => {
                let span = inputs.first().map_or(item.span, |i| i.span);
                self.session.fail(span, "the graph has one input, 'tokens': write graph(tokens) -> logits");
            }
        }
        frame.locals.insert("tokens".into(), Value::Tensor(tokens));
        self.frames.push(frame);
        if let Flow::Return(values) = self.body(&item.body)? {
            let span = values.first().map_or(item.span, |(s, _)| *s);
            self.session.fail(span, "a graph has no 'return'; assign its results by name");
            return Ok(self.graph);
        }
        for result in &item.results {
            let frame = self.frames.last().expect("the graph's frame is there");
            match frame.locals.get(&result.text) {
                Some(Value::Tensor(t)) => self.graph.outputs.push((result.text.clone(), *t)),
                Some(Value::Poison) => {}
                None if frame.damaged => {}
                Some(other) => {
                    let message = format!("the result '{}' must be a tensor, and it is {other}", result.text);
                    self.session.fail(result.span, message);
                }
                None => {
                    self.session.fail(result.span, format!("the graph never assigns its result '{}'", result.text));
                }
            }
        }
        if !item.results.iter().any(|r| r.text == "logits") {
            let span = item.results.first().map_or(item.span, |r| r.span);
            self.session.fail(span, "one result of the graph must be called 'logits'");
        }
        Ok(self.graph)
    }

    fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("a body runs in a frame")
    }

    fn body(&mut self, body: &Body) -> Result<Flow, Stop> {
        self.frame().damaged |= body.damaged;
        for statement in &body.statements {
            if let Flow::Return(values) = self.statement(statement)? {
                return Ok(Flow::Return(values));
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &Statement) -> Result<Flow, Stop> {
        match statement {
            Statement::Assign(targets, value) => {
                let result = evaluate(self, value)?;
                self.assign(targets, value.span, result);
            }
            Statement::For(repeat) => {
                let (from, to) = (integer(self, &repeat.from)?, integer(self, &repeat.to)?);
                let (Some(from), Some(to)) = (from, to) else {
                    self.lose(&repeat.body);
                    return Ok(Flow::Next);
                };
                let name = &repeat.variable.text;
                let hidden = self.frame().locals.remove(name);
                for i in from..to {
                    self.frame().locals.insert(name.clone(), Value::Int(i));
                    if let flow @ Flow::Return(_) = deeper(self, repeat.variable.span, |s| s.body(&repeat.body))? {
                        return Ok(flow);
                    }
                }
                self.frame().locals.remove(name);
                hidden.and_then(|v| self.frame().locals.insert(name.clone(), v));
            }
            Statement::If(test, yes, no) => match condition(self, test)? {
                Some(holds) => return deeper(self, test.span, |s| s.body(if holds { yes } else { no })),
                None => [yes, no].into_iter().for_each(|b| self.lose(b)),
            },
            Statement::Require(require) => check(self, require)?,
            Statement::Return(values) => {
                let mut results = Vec::new();
                for value in values {
                    results.push((value.span, evaluate(self, value)?));
                }
                return Ok(Flow::Return(results));
            }
            Statement::Damaged(names) => {
                for name in names {
                    self.frame().locals.insert(name.clone(), Value::Poison);
                }
            }
        }
        Ok(Flow::Next)
    }

    fn assign(&mut self, targets: &[Ident], span: Span, value: Value) {
        let wrong = match (&value, targets) {
            (Value::Poison, _) => None,
            (Value::Many(values), _) if values.len() == targets.len() => None,
            (Value::Many(values), _) => Some((values.len(), targets.len())),
            (_, [_]) => None,
            _ => Some((1, targets.len())),
        };
        if let Some((results, names)) = wrong {
            let s = |n: usize| if n == 1 { "" } else { "s" };
            let message = format!("{results} result{} cannot be assigned to {names} name{}", s(results), s(names));
            let error = Diagnostic::new(targets[0].span, message).label(span, format!("gives {results}"));
            self.session.report(error);
        }
        for (i, target) in targets.iter().enumerate() {
            let value = match &value {
                _ if wrong.is_some() => Value::Poison,
                Value::Many(values) => values[i].clone(),
                other => other.clone(),
            };
            self.frame().locals.insert(target.text.clone(), value);
        }
    }

    /// Poisons what a body that cannot be run would assign.
    fn lose(&mut self, body: &Body) {
        self.frame().damaged = true;
        for statement in &body.statements {
            match statement {
                Statement::Assign(targets, _) => {
                    for target in targets {
                        self.frame().locals.insert(target.text.clone(), Value::Poison);
                    }
                }
                Statement::For(repeat) => self.lose(&repeat.body),
                Statement::If(_, yes, no) => [yes, no].into_iter().for_each(|b| self.lose(b)),
                _ => {}
            }
        }
    }

    /// A tensor operand of `+` or `*`; `None` when it is none (recorded).
    fn operand(&mut self, op: BinaryOp, expr: &Expr, value: &Value) -> Option<TensorId> {
        match value {
            Value::Tensor(t) => Some(*t),
            Value::Path(Path { free: true, text }) => {
                let hint = self.suggestion(text);
                self.session.fail(expr.span, format!("undefined name '{text}'{hint}"));
                None
            }
            other => {
                let message = format!("'{}' of tensors needs a tensor on both sides, and this is {other}", op.symbol());
                self.session.fail(expr.span, message);
                None
            }
        }
    }
}

impl Context for Unroll<'_> {
    fn session(&mut self) -> &mut Session {
        self.session
    }

    fn suggestion(&self, name: &str) -> String {
        let locals = self.frames.last().into_iter().flat_map(|f| f.locals.keys());
        did_you_mean(name, locals.chain(self.constants.values.keys()).map(String::as_str))
    }

    fn name(&mut self, name: &str, _span: Span) -> Result<Value, Stop> {
        let frame = self.frames.last().expect("names are looked up in a frame");
        Ok(match frame.locals.get(name).or_else(|| self.constants.values.get(name)) {
            Some(value) => value.clone(),
            None if frame.damaged || self.constants.damaged => Value::Poison,
            None => Value::Path(Path { text: name.into(), free: true }),
        })
    }

    fn call(&mut self, callee: &Ident, args: &[Arg], _span: Span) -> Result<Value, Stop> {
        let blocks = self.blocks;
        match blocks.by_name.get(callee.text.as_str()) {
            Some(block) => self.block(block, callee, args),
            None => self.op(callee, args),
        }
    }

    fn operator(&mut self, op: BinaryOp, operands: [(&Expr, Value); 2], span: Span) -> Result<Value, Stop> {
        let keyword = match op {
            BinaryOp::Add => "add",
            BinaryOp::Multiply => "mul",
            _ => {
                let message =
                    format!("'{}' does not apply to tensors or paths; '+' and '*' apply to tensors", op.symbol());
                return Ok(self.session.fail(span, message));
            }
        };
        let [a, b] = operands.map(|(expr, value)| (expr.span, self.operand(op, expr, &value)));
        match (a, b) {
            ((a_span, Some(a)), (b_span, Some(b))) => self.infix(keyword, [(a_span, a), (b_span, b)], span),
            _ => Ok(Value::Poison),
        }
    }
}
