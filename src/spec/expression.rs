//! Grammar of expressions.

use super::ast::{Arg, BinaryOp, Expr, ExprKind, Features, Ident, UnaryOp};
use super::lexer::Tok;
use super::stream::{
    Input, KEYWORDS, MAX_NESTING, Parsed, any_word, expected, list, name, nested, next, refused, symbol, token,
};
use winnow::combinator::{Infix, cut_err, expression as by_precedence, fail, opt};
use winnow::prelude::*;
use winnow::token::any;

/// An expression.
pub fn expression(input: &mut Input) -> Parsed<Expr> {
    nested(input, |input| {
        let condition = operators(input)?;
        if opt(symbol("?")).parse_next(input)?.is_none() {
            return Ok(condition);
        }
        let yes = cut_err(expression).parse_next(input)?;
        cut_err(symbol(":")).parse_next(input)?;
        let no = cut_err(expression).parse_next(input)?;
        let span = condition.span.to(no.span);
        let depth = 1 + condition.depth.max(yes.depth).max(no.depth);
        let kind = ExprKind::Choice(Box::new(condition), Box::new(yes), Box::new(no));
        bounded(input, Expr { kind, span, depth })
    })
}

/// Binary operators by precedence, all grouping from the left.
fn operators(input: &mut Input) -> Parsed<Expr> {
    macro_rules! left {
        ($power:literal, $op:ident) => {
            Infix::Left($power, |input, a, b| binary(input, BinaryOp::$op, a, b))
        };
    }
    let infix = |input: &mut Input<'_>| {
        let operator = match next(input).map(|t| &t.tok) {
            Some(Tok::Symbol(s)) => match *s {
                "||" => left!(1, Or),
                "&&" => left!(2, And),
                "==" => left!(3, Equal),
                "!=" => left!(3, NotEqual),
                "<" => left!(4, Less),
                "<=" => left!(4, LessOrEqual),
                ">" => left!(4, Greater),
                ">=" => left!(4, GreaterOrEqual),
                "+" => left!(5, Add),
                "-" => left!(5, Subtract),
                "*" => left!(6, Multiply),
                "/" => left!(6, Divide),
                "%" => left!(6, Remainder),
                _ => return fail.parse_next(input),
            },
            _ => return fail.parse_next(input),
        };
        any.parse_next(input)?;
        Ok(operator)
    };
    // The library tries the operand first and then a prefix, so this failure is the one that is heard.
    let no_operand = |input: &mut Input<'_>| Err(expected(input, "an expression"));
    by_precedence(unary).prefix(no_operand).infix(infix).parse_next(input)
}

fn binary(input: &mut Input, op: BinaryOp, a: Expr, b: Expr) -> Parsed<Expr> {
    let (span, depth) = (a.span.to(b.span), 1 + a.depth.max(b.depth));
    bounded(input, Expr { kind: ExprKind::Binary(op, Box::new(a), Box::new(b)), span, depth })
}

/// Prefix operators before an operand.
fn unary(input: &mut Input) -> Parsed<Expr> {
    let prefix = token("an operator", |t| match t.tok {
        Tok::Symbol("-") => Some((UnaryOp::Negate, t.span)),
        Tok::Symbol("!") => Some((UnaryOp::Not, t.span)),
        _ => None,
    });
    let Some((op, start)) = opt(prefix).parse_next(input)? else {
        return postfix(input);
    };
    nested(input, |input| {
        let operand = cut_err(unary).parse_next(input)?;
        let (span, depth) = (start.to(operand.span), 1 + operand.depth);
        bounded(input, Expr { kind: ExprKind::Unary(op, Box::new(operand)), span, depth })
    })
}

/// An operand with `.name` and `[index]` after it.
fn postfix(input: &mut Input) -> Parsed<Expr> {
    let mut base = operand(input)?;
    loop {
        if opt(symbol(".")).parse_next(input)?.is_some() {
            let field = cut_err(any_word("a name after '.' (an index is written [i])")).parse_next(input)?;
            let (span, depth) = (base.span.to(field.span), 1 + base.depth);
            base = bounded(input, Expr { kind: ExprKind::Field(Box::new(base), field), span, depth })?;
        } else if next(input).is_some_and(|t| t.is("[") && !t.line_start) {
            symbol("[")(input)?;
            let index = cut_err(expression).parse_next(input)?;
            let close = cut_err(symbol("]")).parse_next(input)?;
            let (span, depth) = (base.span.to(close), 1 + base.depth.max(index.depth));
            base = bounded(input, Expr { kind: ExprKind::Index(Box::new(base), Box::new(index)), span, depth })?;
        } else {
            return Ok(base);
        }
    }
}

/// A literal, a name, a call, a list or an expression in parentheses.
fn operand(input: &mut Input) -> Parsed<Expr> {
    let Some(first) = next(input) else {
        return Err(expected(input, "an expression"));
    };
    let leaf = |kind| Expr { kind, span: first.span, depth: 1 };
    let expr = match &first.tok {
        Tok::Int(i) => leaf(ExprKind::Int(*i)),
        Tok::Float(x) => leaf(ExprKind::Float(*x)),
        Tok::Text(t) => leaf(ExprKind::Word(t.clone())),
        Tok::Damaged => leaf(ExprKind::Damaged),
        Tok::Word(w) if w == "true" || w == "false" => leaf(ExprKind::Bool(w == "true")),
        Tok::Word(w) if !KEYWORDS.contains(&w.as_str()) => leaf(ExprKind::Name(w.clone())),
        Tok::Symbol("(") => return parentheses(input),
        Tok::Symbol("[") => return bracketed(input),
        _ => return Err(expected(input, "an expression")),
    };
    any.parse_next(input)?;
    match expr.kind {
        ExprKind::Name(text) if next(input).is_some_and(|t| t.is("(") && !t.line_start) => {
            call(input, Ident { text, span: expr.span })
        }
        _ => Ok(expr),
    }
}

fn parentheses(input: &mut Input) -> Parsed<Expr> {
    symbol("(")(input)?;
    let inside = cut_err(expression).parse_next(input)?;
    cut_err(symbol(")")).parse_next(input)?;
    Ok(inside)
}

fn bracketed(input: &mut Input) -> Parsed<Expr> {
    let open = symbol("[")(input)?;
    let (items, close) = list(input, "]", expression)?;
    let depth = 1 + items.iter().map(|e| e.depth).max().unwrap_or(0);
    bounded(input, Expr { kind: ExprKind::List(items), span: open.to(close), depth })
}

fn call(input: &mut Input, callee: Ident) -> Parsed<Expr> {
    symbol("(")(input)?;
    let (args, close) = list(input, ")", argument)?;
    let depth = 1 + args.iter().map(|a| a.value.depth).max().unwrap_or(0);
    let span = callee.span.to(close);
    bounded(input, Expr { kind: ExprKind::Call(callee, args), span, depth })
}

fn argument(input: &mut Input) -> Parsed<Arg> {
    let label = opt((name("a name"), symbol("="))).parse_next(input)?;
    let value = if label.is_some() { cut_err(expression).parse_next(input)? } else { expression(input)? };
    Ok(Arg { name: label.map(|(name, _)| name), value })
}

/// A `[C]` list of features, as parameters and results declare them.
pub fn features(input: &mut Input) -> Parsed<Features> {
    let open = symbol("[")(input)?;
    let (sizes, close) = list(input, "]", expression)?;
    Ok(Features { sizes, span: open.to(close) })
}

fn bounded(input: &Input, expr: Expr) -> Parsed<Expr> {
    if expr.depth > MAX_NESTING {
        return Err(refused(input, format!("this expression has more than {MAX_NESTING} levels; name parts of it")));
    }
    Ok(expr)
}
