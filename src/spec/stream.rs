//! The token stream that the grammar reads, and what every rule of it needs: failures, tokens, lists, nesting.

use super::ast::Ident;
use super::diagnostic::{Diagnostic, Span};
use super::lexer::Token;
use winnow::combinator::{alt, cut_err, opt, peek};
use winnow::error::{ErrMode, ParserError};
use winnow::prelude::*;
use winnow::stream::{Stateful, Stream, TokenSlice};
use winnow::token::any;

/// Levels of nesting that an expression or a body may have.
pub const MAX_NESTING: usize = 64;

/// Names that cannot be assigned or declared.
pub const KEYWORDS: [&str; 7] = ["for", "in", "if", "else", "return", "true", "false"];

/// Tokens being parsed.
pub type Input<'t> = Stateful<TokenSlice<'t, Token>, State<'t>>;

/// What the grammar keeps beside the tokens.
#[derive(Debug)]
pub struct State<'t> {
    /// All tokens, for looking back and skipping.
    pub tokens: &'t [Token],
    /// Just after the last token.
    pub end: Span,
    /// Levels of nesting entered.
    pub nesting: usize,
    /// Errors recovered from.
    pub errors: Vec<Diagnostic>,
}

/// The stream over `tokens` of one source.
pub fn input(tokens: &[Token], source: u32) -> Input<'_> {
    let at = tokens.last().map_or(0, |t| t.span.end);
    let state = State { tokens, end: Span { source, start: at, end: at }, nesting: 0, errors: Vec::new() };
    Stateful { input: TokenSlice::new(tokens), state }
}

/// What was expected where.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Tokens left: less is further into the text.
    left: usize,
    /// Alternatives, in words.
    expected: Vec<String>,
    /// Said instead of "expected …".
    message: Option<String>,
}

/// Result of a grammar rule. `Cut` means that no alternative can help.
pub type Parsed<T> = Result<T, ErrMode<Failure>>;

impl<'t> ParserError<Input<'t>> for Failure {
    type Inner = Failure;

    fn from_input(input: &Input<'t>) -> Self {
        Failure { left: input.eof_offset(), expected: Vec::new(), message: None }
    }

    /// Keeps what got further; alternatives at the same place are listed together.
    fn or(mut self, other: Self) -> Self {
        if self.left != other.left {
            return if self.left < other.left { self } else { other };
        }
        self.expected.extend(other.expected);
        self.message = self.message.or(other.message);
        self
    }

    fn into_inner(self) -> Result<Self::Inner, Self> {
        Ok(self)
    }
}

impl Failure {
    /// The error as text, at the token it is about.
    pub fn diagnostic(mut self, input: &Input) -> Diagnostic {
        let found = input.state.tokens.get(self.position(input));
        let span = found.map_or(input.state.end, |t| t.span);
        if let Some(message) = self.message {
            return Diagnostic::new(span, message);
        }
        self.expected.dedup();
        let found = found.map_or("the end of the text".to_string(), |t| t.tok.to_string());
        let expected = match self.expected.split_last() {
            None => "something else".to_string(),
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        };
        Diagnostic::new(span, format!("expected {expected}, found {found}"))
    }

    /// Index of the token that does not fit.
    pub fn position(&self, input: &Input) -> usize {
        input.state.tokens.len() - self.left
    }
}

/// Fails here: this was expected.
pub fn expected(input: &Input, what: &str) -> ErrMode<Failure> {
    ErrMode::Backtrack(Failure { left: input.eof_offset(), expected: vec![what.to_string()], message: None })
}

/// Fails here for good with a message of its own.
pub fn refused(input: &Input, message: String) -> ErrMode<Failure> {
    ErrMode::Cut(Failure { left: input.eof_offset(), expected: Vec::new(), message: Some(message) })
}

/// Index of the next token.
pub fn position(input: &Input) -> usize {
    input.state.tokens.len() - input.eof_offset()
}

/// The next token, not consumed.
pub fn next<'t>(input: &Input<'t>) -> Option<&'t Token> {
    input.state.tokens.get(position(input))
}

/// Runs `rule` one level deeper, or refuses when that is too deep.
pub fn nested<'t, T>(input: &mut Input<'t>, mut rule: impl FnMut(&mut Input<'t>) -> Parsed<T>) -> Parsed<T> {
    if input.state.nesting >= MAX_NESTING {
        return Err(refused(input, format!("nested more than {MAX_NESTING} levels deep")));
    }
    input.state.nesting += 1;
    let result = rule(input);
    input.state.nesting -= 1;
    result
}

/// A token that `pick` accepts; `what` says what it is.
pub fn token<'t, T>(what: &'static str, pick: impl Fn(&'t Token) -> Option<T>) -> impl Fn(&mut Input<'t>) -> Parsed<T> {
    move |input| match next(input).and_then(&pick) {
        Some(value) => {
            any.parse_next(input)?;
            Ok(value)
        }
        None => Err(expected(input, what)),
    }
}

/// This punctuation.
pub fn symbol<'t>(symbol: &'static str) -> impl Fn(&mut Input<'t>) -> Parsed<Span> {
    move |input| match next(input) {
        Some(t) if t.is(symbol) => {
            any.parse_next(input)?;
            Ok(t.span)
        }
        _ => Err(expected(input, &format!("'{symbol}'"))),
    }
}

/// This keyword.
pub fn keyword<'t>(word: &'static str) -> impl Fn(&mut Input<'t>) -> Parsed<Span> {
    move |input| match next(input) {
        Some(t) if t.word() == Some(word) => {
            any.parse_next(input)?;
            Ok(t.span)
        }
        _ => Err(expected(input, &format!("'{word}'"))),
    }
}

/// A name that is not a keyword.
pub fn name<'t>(what: &'static str) -> impl Fn(&mut Input<'t>) -> Parsed<Ident> {
    token(what, |t| t.word().filter(|w| !KEYWORDS.contains(w)).map(|w| Ident { text: w.to_string(), span: t.span }))
}

/// Any name, keywords included.
pub fn any_word<'t>(what: &'static str) -> impl Fn(&mut Input<'t>) -> Parsed<Ident> {
    token(what, |t| t.word().map(|w| Ident { text: w.to_string(), span: t.span }))
}

/// `item, item, …` up to and including `close`; a comma may follow the last one.
pub fn list<'t, T>(
    input: &mut Input<'t>,
    close: &'static str,
    mut item: impl FnMut(&mut Input<'t>) -> Parsed<T>,
) -> Parsed<(Vec<T>, Span)> {
    let mut items = Vec::new();
    loop {
        let closed = opt(symbol(close)).parse_next(input)?;
        if let Some(span) = closed {
            return Ok((items, span));
        }
        items.push(cut_err(&mut item).parse_next(input)?);
        cut_err(alt((symbol(",").void(), peek(symbol(close)).void()))).parse_next(input)?;
    }
}
