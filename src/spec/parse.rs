//! Grammar of items and statements. An error is recorded and parsing goes on at the next statement or item.

use super::ast::{Ast, Block, Body, Entries, Expr, For, GraphItem, Ident, Item, Param, Require, Statement};
use super::diagnostic::Diagnostics;
use super::expression::{expression, features};
use super::lexer::{Tok, Token, tokens};
use super::recovery::{assigned, entry_starts, failure, item_resumes, item_starts, recover, report, statement_starts};
use super::stream::{Input, Parsed, expected, input, keyword, list, name, nested, next, position, symbol, token};
use winnow::combinator::{alt, cut_err, opt};
use winnow::prelude::*;

/// Parses a whole spec; what is wrong with it goes to `diagnostics`.
pub fn parse(text: &str, diagnostics: &mut Diagnostics) -> Ast {
    let tokens = tokens(0, text, diagnostics);
    let mut input = input(&tokens, 0);
    let mut items = Vec::new();
    while next(&input).is_some() {
        let start = position(&input);
        match item(&mut input) {
            Ok(item) => items.push(item),
            Err(error) => {
                let head = tokens[start].word().unwrap_or("").to_string();
                items.push(Item::Damaged(head, tokens.get(start + 1).and_then(|t| t.word()).map(str::to_string)));
                recover(&mut input, error, start, |rest, _, depth| depth == 0 && item_resumes(rest));
            }
        }
    }
    input.state.errors.drain(..).for_each(|e| diagnostics.report(e));
    Ast { items }
}

/// Parses one expression that makes up the whole of source number `source`.
pub fn parse_value(source: u32, text: &str, diagnostics: &mut Diagnostics) -> Option<Expr> {
    let tokens = tokens(source, text, diagnostics);
    let mut input = input(&tokens, source);
    let result = expression(&mut input).and_then(|e| match next(&input) {
        None => Ok(e),
        Some(_) => Err(expected(&input, "the end of the value")),
    });
    match result {
        Ok(expr) => Some(expr),
        Err(error) => {
            report(&mut input, failure(error));
            input.state.errors.drain(..).for_each(|e| diagnostics.report(e));
            None
        }
    }
}

fn item(input: &mut Input) -> Parsed<Item> {
    let word = next(input).and_then(|t| t.word()).unwrap_or("");
    match word {
        "model" => {
            keyword("model")(input)?;
            name("the name of the model")(input).map(Item::Model)
        }
        "dims" => {
            keyword("dims")(input)?;
            entries(input).map(Item::Dims)
        }
        "const" => {
            keyword("const")(input)?;
            entries(input).map(Item::Consts)
        }
        "size" => {
            keyword("size")(input)?;
            let name = name("the name of the size")(input)?;
            Ok(Item::Size(name, entries(input)?))
        }
        "require" => require(input).map(Item::Require),
        "block" => block(input),
        "graph" => graph(input),
        _ => Err(expected(input, "'model', 'dims', 'const', 'size', 'require', 'block' or 'graph'")),
    }
}

/// `{ … }` around what `rule` parses, again and again. `found` gets each result; of a failed one, the tokens lost.
fn braces<'t, T>(
    input: &mut Input<'t>,
    starts: impl Fn(&[Token], &Token) -> bool,
    mut rule: impl FnMut(&mut Input<'t>) -> Parsed<T>,
    mut found: impl FnMut(Result<T, &'t [Token]>),
) -> Parsed<()> {
    symbol("{")(input)?;
    loop {
        let start = position(input);
        let rest = &input.state.tokens[start..];
        if rest.first().is_some_and(|t| t.is("}")) {
            return symbol("}")(input).map(|_| ());
        }
        if rest.is_empty() || item_starts(rest) {
            let missing = failure(expected(input, "'}'"));
            report(input, missing);
            return Ok(());
        }
        match rule(input) {
            Ok(value) => found(Ok(value)),
            Err(error) => {
                let end = |rest: &[Token], previous: &Token| rest[0].is("}") || starts(rest, previous);
                recover(input, error, start, |rest, previous, depth| depth == 0 && end(rest, previous));
                found(Err(&input.state.tokens[start..position(input)]));
            }
        }
    }
}

/// `{ NAME = EXPR … }`
fn entries(input: &mut Input) -> Parsed<Entries> {
    let mut all = Entries::default();
    braces(input, entry_starts, entry, |found| match found {
        Ok((name, value)) => all.entries.push((name, Some(value))),
        Err([Token { tok: Tok::Word(text), span, .. }, ..]) => {
            all.entries.push((Ident { text: text.clone(), span: *span }, None));
        }
        Err(lost) => all.damaged |= lost.iter().any(|t| t.is("=")),
    })?;
    Ok(all)
}

fn entry(input: &mut Input) -> Parsed<(Ident, Expr)> {
    (name("NAME = value or '}'"), cut_err(symbol("=")), cut_err(expression)).map(|(n, _, v)| (n, v)).parse_next(input)
}

fn require(input: &mut Input) -> Parsed<Require> {
    let text = token("a message in quotes", |t| match &t.tok {
        Tok::Text(text) => Some(text.clone()),
        _ => None,
    });
    (keyword("require"), cut_err(expression), opt(text))
        .map(|(_, condition, message)| Require { condition, message })
        .parse_next(input)
}

fn block(input: &mut Input) -> Parsed<Item> {
    keyword("block")(input)?;
    let name = name("the name of the block")(input)?;
    symbol("(")(input)?;
    let (params, _) = list(input, ")", param)?;
    let arrow = opt(symbol("->")).parse_next(input)?;
    let returns = if arrow.is_some() { Some(separated(input, features)?) } else { None };
    Ok(Item::Block(Block { name, params, returns, body: body(input)? }))
}

fn param(input: &mut Input) -> Parsed<Param> {
    let name = name("the name of a parameter")(input)?;
    let colon = opt(symbol(":")).parse_next(input)?;
    let features = if colon.is_some() { Some(cut_err(features).parse_next(input)?) } else { None };
    Ok(Param { name, features })
}

fn graph(input: &mut Input) -> Parsed<Item> {
    let span = keyword("graph")(input)?;
    symbol("(")(input)?;
    let (inputs, _) = list(input, ")", name("the name of an input"))?;
    symbol("->")(input)?;
    let results = separated(input, name("the name of a result"))?;
    Ok(Item::Graph(GraphItem { span, inputs, results, body: body(input)? }))
}

/// One or more, with commas between.
fn separated<'t, T>(input: &mut Input<'t>, mut rule: impl FnMut(&mut Input<'t>) -> Parsed<T>) -> Parsed<Vec<T>> {
    let mut all = vec![cut_err(&mut rule).parse_next(input)?];
    while opt(symbol(",")).parse_next(input)?.is_some() {
        all.push(cut_err(&mut rule).parse_next(input)?);
    }
    Ok(all)
}

/// `{ STATEMENT … }`
fn body(input: &mut Input) -> Parsed<Body> {
    nested(input, |input| {
        let mut body = Body::default();
        braces(input, statement_starts, statement, |found| match found {
            Ok(statement) => body.statements.push(statement),
            Err(lost) => {
                body.statements.push(Statement::Damaged(assigned(lost)));
                body.damaged |= lost.iter().any(|t| t.word() == Some("return"));
            }
        })?;
        Ok(body)
    })
}

fn statement(input: &mut Input) -> Parsed<Statement> {
    match next(input).and_then(|t| t.word()).unwrap_or("") {
        "for" => repeat(input),
        "if" => condition(input),
        "require" if !next_but_one(input, "=") => require(input).map(Statement::Require),
        "return" => {
            keyword("return")(input)?;
            separated(input, expression).map(Statement::Return)
        }
        _ => {
            let first = name("a statement (NAME = …, for, if, require, return) or '}'")(input)?;
            let mut targets = vec![first];
            while cut_err(alt((symbol("=").value(false), symbol(",").value(true)))).parse_next(input)? {
                targets.push(cut_err(name("a name to assign")).parse_next(input)?);
            }
            let value = cut_err(expression).parse_next(input)?;
            Ok(Statement::Assign(targets, value))
        }
    }
}

fn next_but_one(input: &Input, symbol: &str) -> bool {
    input.state.tokens.get(position(input) + 1).is_some_and(|t| t.is(symbol))
}

/// `for i in FROM..TO { … }`
fn repeat(input: &mut Input) -> Parsed<Statement> {
    keyword("for")(input)?;
    let variable = name("the name of the loop variable")(input)?;
    keyword("in")(input)?;
    let from = expression(input)?;
    symbol("..")(input)?;
    let to = expression(input)?;
    Ok(Statement::For(Box::new(For { variable, from, to, body: body(input)? })))
}

/// `if COND { … } else if COND { … } else { … }`
fn condition(input: &mut Input) -> Parsed<Statement> {
    keyword("if")(input)?;
    let condition = expression(input)?;
    let yes = body(input)?;
    let no = match opt(keyword("else")).parse_next(input)? {
        None => Body::default(),
        Some(_) if next(input).is_some_and(|t| t.word() == Some("if")) => {
            let nested = nested(input, self::condition)?;
            Body { statements: vec![nested], damaged: false }
        }
        Some(_) => body(input)?,
    };
    Ok(Statement::If(condition, yes, no))
}
