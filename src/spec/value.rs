//! Values of expressions and arithmetic on constants. Nothing overflows, divides inexactly or rounds silently.

use super::ast::{BinaryOp, UnaryOp};
use crate::graph::{Attr, TensorId};
use std::fmt;
use std::rc::Rc;

/// What an expression evaluates to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer.
    Int(i64),
    /// A finite real number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A word.
    Word(Rc<str>),
    /// A list of integers.
    List(Rc<[i64]>),
    /// `normal(std)`: an initialiser.
    Normal(f64),
    /// A tensor of the graph.
    Tensor(TensorId),
    /// A parameter path.
    Path(Path),
    /// Several results of one call.
    Many(Rc<[Value]>),
    /// A value whose definition failed: whatever is made of it fails silently.
    Poison,
}

/// A parameter path such as `h.0.attn.c_attn`.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// With dots.
    pub text: Rc<str>,
    /// Whether it is a bare name that nothing defines, so that it may be a mistyped one.
    pub free: bool,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(i) => write!(f, "the integer {i}"),
            Value::Float(x) => write!(f, "the number {x:?}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Word(w) => write!(f, "the word \"{w}\""),
            Value::List(l) => write!(f, "the list {l:?}"),
            Value::Normal(std) => write!(f, "the initialiser normal({std:?})"),
            Value::Tensor(_) => write!(f, "a tensor"),
            Value::Path(p) => write!(f, "the parameter path {}", p.text),
            Value::Many(v) => write!(f, "{} results", v.len()),
            Value::Poison => write!(f, "a value in error"),
        }
    }
}

impl Value {
    /// As an attribute or constant of the graph, if it can be one.
    pub fn attr(&self) -> Option<Attr> {
        Some(match self {
            Value::Int(i) => Attr::Int(*i),
            Value::Float(x) => Attr::Float(*x),
            Value::Bool(b) => Attr::Bool(*b),
            Value::Word(w) => Attr::Str(w.to_string()),
            Value::List(l) => Attr::Ints(l.to_vec()),
            _ => return None,
        })
    }

    /// As a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Int(i) => Some(*i as f64),
            Value::Float(x) => Some(*x),
            _ => None,
        }
    }
}

/// Whether either operand is in error.
pub fn poisoned(a: &Value, b: &Value) -> bool {
    matches!(a, Value::Poison) || matches!(b, Value::Poison)
}

/// `op a`
///
/// # Errors
/// What does not fit, in words.
pub fn unary(op: UnaryOp, a: &Value) -> Result<Value, String> {
    match (op, a) {
        (_, Value::Poison) => Ok(Value::Poison),
        (UnaryOp::Negate, Value::Int(i)) => i.checked_neg().map(Value::Int).ok_or_else(|| format!("-({i}) overflows")),
        (UnaryOp::Negate, Value::Float(x)) => Ok(Value::Float(-x)),
        (UnaryOp::Not, Value::Bool(b)) => Ok(Value::Bool(!b)),
        (UnaryOp::Negate, other) => Err(format!("'-' needs a number, not {other}")),
        (UnaryOp::Not, other) => Err(format!("'!' needs true or false, not {other}")),
    }
}

/// `a op b` on constants; `&&` and `||` here only when both sides are evaluated.
///
/// # Errors
/// What does not fit, in words.
pub fn binary(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, String> {
    use BinaryOp::{And, Equal, NotEqual, Or};
    match (op, a, b) {
        _ if poisoned(a, b) => Ok(Value::Poison),
        (And, Value::Bool(a), Value::Bool(b)) => Ok(Value::Bool(*a && *b)),
        (Or, Value::Bool(a), Value::Bool(b)) => Ok(Value::Bool(*a || *b)),
        (And | Or, a, b) => Err(format!("'{}' needs true or false on both sides, not {a} and {b}", op.symbol())),
        (Equal, Value::Word(a), Value::Word(b)) => Ok(Value::Bool(a == b)),
        (NotEqual, Value::Word(a), Value::Word(b)) => Ok(Value::Bool(a != b)),
        (Equal, Value::Bool(a), Value::Bool(b)) => Ok(Value::Bool(a == b)),
        (NotEqual, Value::Bool(a), Value::Bool(b)) => Ok(Value::Bool(a != b)),
        (_, Value::Int(a), Value::Int(b)) => integers(op, *a, *b),
        _ => match (a.number(), b.number()) {
            (Some(a), Some(b)) => reals(op, a, b),
            _ => Err(format!("'{}' does not apply to {a} and {b}", op.symbol())),
        },
    }
}

fn integers(op: BinaryOp, a: i64, b: i64) -> Result<Value, String> {
    let result = match op {
        BinaryOp::Add => a.checked_add(b),
        BinaryOp::Subtract => a.checked_sub(b),
        BinaryOp::Multiply => a.checked_mul(b),
        BinaryOp::Divide | BinaryOp::Remainder if b == 0 => {
            return Err(format!("{a} {} 0: division by zero", op.symbol()));
        }
        BinaryOp::Divide => match (a.checked_rem(b), a.checked_div(b)) {
            (Some(0), quotient) => quotient,
            (Some(rest), _) => return Err(format!("{a} / {b} is not exact: {rest} is left over")),
            (None, _) => None,
        },
        BinaryOp::Remainder => a.checked_rem(b),
        other => return comparison(other, &a, &b),
    };
    result.map(Value::Int).ok_or_else(|| format!("{a} {} {b} overflows", op.symbol()))
}

fn reals(op: BinaryOp, a: f64, b: f64) -> Result<Value, String> {
    let result = match op {
        BinaryOp::Add => a + b,
        BinaryOp::Subtract => a - b,
        BinaryOp::Multiply => a * b,
        BinaryOp::Divide => a / b,
        BinaryOp::Remainder => a % b,
        other => return comparison(other, &a, &b),
    };
    finite(result).ok_or_else(|| format!("{a:?} {} {b:?} is not a finite number", op.symbol()))
}

/// `a op b` on two numbers, where `op` is no arithmetic.
fn comparison<T: PartialOrd + fmt::Display>(op: BinaryOp, a: &T, b: &T) -> Result<Value, String> {
    let holds = match op {
        BinaryOp::Equal => a == b,
        BinaryOp::NotEqual => a != b,
        BinaryOp::Less => a < b,
        BinaryOp::LessOrEqual => a <= b,
        BinaryOp::Greater => a > b,
        BinaryOp::GreaterOrEqual => a >= b,
        _ => return Err(format!("'{}' does not apply to {a} and {b}", op.symbol())),
    };
    Ok(Value::Bool(holds))
}

fn finite(x: f64) -> Option<Value> {
    x.is_finite().then_some(Value::Float(x))
}

/// Functions on constants.
pub const FUNCTIONS: [&str; 4] = ["sqrt", "min", "max", "normal"];

/// `sqrt(x)`, `min(a, b, …)`, `max(a, b, …)`, `normal(std)`.
///
/// # Errors
/// What does not fit, in words.
pub fn function(name: &str, args: &[Value]) -> Result<Value, String> {
    if args.contains(&Value::Poison) {
        return Ok(Value::Poison);
    }
    if let Some(other) = args.iter().find(|a| a.number().is_none()) {
        return Err(format!("{name} needs numbers, not {other}"));
    }
    match (name, args) {
        ("sqrt", [x]) => {
            let x = x.number().unwrap_or(f64::NAN);
            finite(x.sqrt()).ok_or_else(|| format!("sqrt({x:?}): the square root of a negative number"))
        }
        ("normal", [std]) => match std.number() {
            Some(std) if std >= 0.0 => Ok(Value::Normal(std)),
            _ => Err(format!("normal needs a standard deviation that is not negative, not {std}")),
        },
        ("sqrt" | "normal", _) => Err(format!("{name} takes one argument, not {}", args.len())),
        (_, []) => Err(format!("{name} needs at least one argument")),
        (_, [first, rest @ ..]) => rest.iter().try_fold(first.clone(), |best, next| {
            let less = binary(BinaryOp::Less, next, &best)? == Value::Bool(true);
            Ok(if less == (name == "min") { next.clone() } else { best })
        }),
    }
}
