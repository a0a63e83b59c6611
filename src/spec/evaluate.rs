//! Evaluation of expressions, the same for constants and for the graph; what names and calls mean is up to the [`Context`].

use super::ast::{Arg, BinaryOp, Expr, ExprKind, Ident};
use super::diagnostic::{Diagnostic, Diagnostics, Span};
use super::value::{self, FUNCTIONS, Path, Value};

/// Expressions, statements and repeats that one spec may evaluate. The largest published models need some ten thousand.
const MAX_STEPS: u64 = 2_000_000;

/// Levels of nesting (calls of blocks, bodies, expressions) that evaluation may reach.
const MAX_DEPTH: usize = 160;

/// Longest parameter path.
const MAX_PATH: usize = 200;

/// Evaluation reached a limit and ended; the error is recorded.
#[derive(Debug)]
pub struct Stop;

/// Errors so far, and how far evaluation has gone.
pub struct Session {
    /// Sources and errors.
    pub diagnostics: Diagnostics,
    /// Blocks being unrolled, outermost first, and where they are called.
    pub calls: Vec<(String, Span)>,
    steps: u64,
    depth: usize,
}

impl Session {
    /// A session that has done nothing yet.
    pub fn new(diagnostics: Diagnostics) -> Self {
        Session { diagnostics, calls: Vec::new(), steps: 0, depth: 0 }
    }

    /// Records an error, saying which calls of blocks led to it; the value it leaves behind.
    pub fn report(&mut self, mut error: Diagnostic) -> Value {
        for (block, span) in self.calls.iter().rev() {
            let place = self.diagnostics.position(*span);
            error = error.note(format!("in block '{block}', called at {place}"));
        }
        self.diagnostics.report(error);
        Value::Poison
    }

    /// Records an error that a message says all about.
    pub fn fail(&mut self, span: Span, message: impl Into<String>) -> Value {
        self.report(Diagnostic::new(span, message))
    }

    /// Counts one step.
    ///
    /// # Errors
    /// When there were too many.
    pub fn step(&mut self, span: Span) -> Result<(), Stop> {
        self.steps += 1;
        if self.diagnostics.is_full() {
            return Err(Stop);
        }
        if self.steps > MAX_STEPS {
            return Err(self.stop(span, format!("unrolling takes more than {MAX_STEPS} steps")));
        }
        Ok(())
    }

    /// Records the error that ends evaluation.
    pub fn stop(&mut self, span: Span, message: String) -> Stop {
        self.report(Diagnostic::new(span, message).note("evaluation stopped here"));
        Stop
    }
}

/// What names and calls mean, and where errors go.
pub trait Context {
    /// Errors and limits.
    fn session(&mut self) -> &mut Session;

    /// `; did you mean 'x'?` for a name that nothing defines, or nothing.
    fn suggestion(&self, name: &str) -> String;

    /// The value of a name.
    fn name(&mut self, name: &str, span: Span) -> Result<Value, Stop>;

    /// A call of anything but a function on constants.
    fn call(&mut self, callee: &Ident, args: &[Arg], span: Span) -> Result<Value, Stop>;

    /// An operator with at least one operand that is a tensor or a path.
    fn operator(&mut self, op: BinaryOp, operands: [(&Expr, Value); 2], span: Span) -> Result<Value, Stop>;
}

/// Runs `body` one level deeper.
///
/// # Errors
/// When that is too deep, or `body` stopped.
pub fn deeper<C: Context, T>(
    context: &mut C,
    span: Span,
    body: impl FnOnce(&mut C) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let session = context.session();
    session.step(span)?;
    if session.depth >= MAX_DEPTH {
        return Err(session.stop(span, format!("nested more than {MAX_DEPTH} levels deep when unrolled")));
    }
    session.depth += 1;
    let result = body(context);
    context.session().depth -= 1;
    result
}

/// The value of `expr`; [`Value::Poison`] when an error was recorded.
///
/// # Errors
/// When evaluation reached a limit.
pub fn evaluate<C: Context>(context: &mut C, expr: &Expr) -> Result<Value, Stop> {
    deeper(context, expr.span, |context| match &expr.kind {
        ExprKind::Int(i) => Ok(Value::Int(*i)),
        ExprKind::Float(x) => Ok(Value::Float(*x)),
        ExprKind::Bool(b) => Ok(Value::Bool(*b)),
        ExprKind::Word(w) => Ok(Value::Word(w.as_str().into())),
        ExprKind::Damaged => Ok(Value::Poison),
        ExprKind::Name(name) => context.name(name, expr.span),
        ExprKind::Field(base, field) => {
            let base_value = evaluate(context, base)?;
            Ok(extend(context, base, base_value, &field.text))
        }
        ExprKind::Index(base, index) => {
            let base_value = evaluate(context, base)?;
            match integer(context, index)? {
                None => Ok(Value::Poison),
                Some(i) if i < 0 => Ok(context.session().fail(index.span, format!("the index {i} is negative"))),
                Some(i) => Ok(extend(context, base, base_value, &i.to_string())),
            }
        }
        ExprKind::Call(callee, args) if FUNCTIONS.contains(&callee.text.as_str()) => function(context, callee, args),
        ExprKind::Call(callee, args) => context.call(callee, args, expr.span),
        ExprKind::List(items) => {
            let values = integers(context, items)?;
            Ok(values.map_or(Value::Poison, |v| Value::List(v.into())))
        }
        ExprKind::Unary(op, operand) => {
            let value = evaluate(context, operand)?;
            let result = value::unary(*op, &value);
            Ok(result.unwrap_or_else(|m| context.session().fail(expr.span, m)))
        }
        ExprKind::Binary(op, a, b) => operator(context, *op, a, b, expr.span),
        ExprKind::Choice(test, yes, no) => match condition(context, test)? {
            None => Ok(Value::Poison),
            Some(true) => evaluate(context, yes),
            Some(false) => evaluate(context, no),
        },
    })
}

fn operator<C: Context>(context: &mut C, op: BinaryOp, a: &Expr, b: &Expr, span: Span) -> Result<Value, Stop> {
    let left = evaluate(context, a)?;
    match (op, &left) {
        (BinaryOp::And, Value::Bool(false)) | (BinaryOp::Or, Value::Bool(true)) => return Ok(left),
        _ => {}
    }
    let right = evaluate(context, b)?;
    let special = |v: &Value| matches!(v, Value::Tensor(_) | Value::Path(_) | Value::Many(_));
    if !value::poisoned(&left, &right) && (special(&left) || special(&right)) {
        return context.operator(op, [(a, left), (b, right)], span);
    }
    let result = value::binary(op, &left, &right);
    Ok(result.unwrap_or_else(|m| context.session().fail(span, m)))
}

fn function<C: Context>(context: &mut C, callee: &Ident, args: &[Arg]) -> Result<Value, Stop> {
    let mut values = Vec::new();
    for arg in args {
        if let Some(name) = &arg.name {
            return Ok(context.session().fail(name.span, format!("{} takes no named arguments", callee.text)));
        }
        values.push(evaluate(context, &arg.value)?);
    }
    let result = value::function(&callee.text, &values);
    Ok(result.unwrap_or_else(|m| context.session().fail(callee.span, m)))
}

/// A path with one more part.
fn extend<C: Context>(context: &mut C, base: &Expr, value: Value, part: &str) -> Value {
    match value {
        Value::Poison => Value::Poison,
        Value::Path(p) if p.text.len() + part.len() < MAX_PATH => {
            Value::Path(Path { text: format!("{}.{part}", p.text).into(), free: false })
        }
        Value::Path(_) => context.session().fail(base.span, format!("a path of more than {MAX_PATH} characters")),
        other => context.session().fail(base.span, format!("only a parameter path has parts, and this is {other}")),
    }
}

/// The value of a condition; `None` when an error was recorded.
pub fn condition<C: Context>(context: &mut C, expr: &Expr) -> Result<Option<bool>, Stop> {
    match evaluate(context, expr)? {
        Value::Bool(b) => Ok(Some(b)),
        Value::Poison => Ok(None),
        other => {
            let other = described(context, &other);
            context.session().fail(expr.span, format!("a condition must be true or false, and this is {other}"));
            Ok(None)
        }
    }
}

/// An integer; `None` when an error was recorded.
pub fn integer<C: Context>(context: &mut C, expr: &Expr) -> Result<Option<i64>, Stop> {
    match evaluate(context, expr)? {
        Value::Int(i) => Ok(Some(i)),
        Value::Poison => Ok(None),
        other => {
            let other = described(context, &other);
            context.session().fail(expr.span, format!("expected an integer, found {other}"));
            Ok(None)
        }
    }
}

/// Several integers; `None` when an error was recorded.
pub fn integers<C: Context>(context: &mut C, items: &[Expr]) -> Result<Option<Vec<i64>>, Stop> {
    let mut values = Vec::new();
    for item in items {
        values.push(integer(context, item)?);
    }
    Ok(values.into_iter().collect())
}

/// A value in words; of a name that nothing defines, just that, with a suggestion.
pub fn described<C: Context>(context: &C, value: &Value) -> String {
    match value {
        Value::Path(p) if p.free => format!("the undefined name '{}'{}", p.text, context.suggestion(&p.text)),
        other => other.to_string(),
    }
}
