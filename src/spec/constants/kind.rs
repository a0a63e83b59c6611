//! Types of constants: what a default says, and what an override may be.

use super::super::ast::{Expr, ExprKind};
use super::super::value::Value;

/// Largest dimension, so that no product of two overflows.
pub const MAX_SIZE: i64 = i32::MAX as i64;

/// What the default of a constant says about its type.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Dim,
    Int,
    Float,
    Bool,
    Word,
    /// Computed.
    Any,
}

/// The kind a constant keeps when it is overridden.
pub(super) fn kind_of(default: Option<&Expr>) -> Kind {
    match default.map(|e| &e.kind) {
        Some(ExprKind::Int(_)) => Kind::Int,
        Some(ExprKind::Float(_)) => Kind::Float,
        Some(ExprKind::Bool(_)) => Kind::Bool,
        Some(ExprKind::Word(_)) => Kind::Word,
        Some(ExprKind::Unary(_, inner)) => kind_of(Some(inner)),
        _ => Kind::Any,
    }
}

/// `value` as a definition of this kind.
pub(super) fn typed(kind: Kind, value: Value) -> Result<Value, String> {
    match (kind, value) {
        (_, Value::Poison) => Ok(Value::Poison),
        (Kind::Dim, Value::Int(i)) if (1..=MAX_SIZE).contains(&i) => Ok(Value::Int(i)),
        (Kind::Dim, other) => Err(format!("a dimension is an integer from 1 to {MAX_SIZE}, not {other}")),
        (Kind::Float, Value::Int(i)) => Ok(Value::Float(i as f64)),
        (Kind::Int | Kind::Any, v @ Value::Int(_)) => Ok(v),
        (Kind::Float | Kind::Any, v @ Value::Float(_)) => Ok(v),
        (Kind::Bool | Kind::Any, v @ Value::Bool(_)) => Ok(v),
        (Kind::Word | Kind::Any, v @ Value::Word(_)) => Ok(v),
        (Kind::Int, other) => Err(format!("this constant is an integer, not {other}")),
        (Kind::Float, other) => Err(format!("this constant is a number, not {other}")),
        (Kind::Bool, other) => Err(format!("this constant is true or false, not {other}")),
        (Kind::Word, other) => Err(format!("this constant is a word, not {other}")),
        (Kind::Any, other) => Err(format!("a constant is a number, true, false or a word, not {other}")),
    }
}
