//! Text to tokens.

use super::diagnostic::{Diagnostic, Diagnostics, Span};
use std::fmt;
use winnow::combinator::{alt, opt, repeat};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{any, literal, one_of, take_till, take_while};

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum Tok {
    /// A name or keyword.
    Word(String),
    /// `12`
    Int(i64),
    /// `1e-5`
    Float(f64),
    /// `"text"`
    Text(String),
    /// Punctuation.
    Symbol(&'static str),
    /// Something malformed, which is reported already.
    Damaged,
}

impl fmt::Display for Tok {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tok::Word(w) => write!(f, "'{w}'"),
            Tok::Int(i) => write!(f, "'{i}'"),
            Tok::Float(x) => write!(f, "'{x:?}'"),
            Tok::Text(t) => write!(f, "\"{t}\""),
            Tok::Symbol(s) => write!(f, "'{s}'"),
            Tok::Damaged => write!(f, "a malformed token"),
        }
    }
}

/// A token in its place.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub tok: Tok,
    /// Where it is.
    pub span: Span,
    /// Whether it is the first of its line.
    pub line_start: bool,
}

impl Token {
    /// Whether it is this punctuation.
    pub fn is(&self, symbol: &str) -> bool {
        matches!(&self.tok, Tok::Symbol(s) if *s == symbol)
    }

    /// The name, if it is one.
    pub fn word(&self) -> Option<&str> {
        match &self.tok {
            Tok::Word(w) => Some(w),
            _ => None,
        }
    }
}

/// Longest first.
const SYMBOLS: [&str; 27] = [
    "->", "..", "==", "!=", "<=", ">=", "&&", "||", "{", "}", "(", ")", "[", "]", ",", ":", "=", "+", "-", "*", "/",
    "%", "<", ">", "!", "?", ".",
];

type Input<'a> = LocatingSlice<&'a str>;

/// Splits `text` into tokens; what is malformed is reported and becomes [`Tok::Damaged`].
pub fn tokens(source: u32, text: &str, diagnostics: &mut Diagnostics) -> Vec<Token> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    let mut line_start = true;
    loop {
        line_start |= blank(&mut input);
        let start = input.current_token_start();
        if input.is_empty() {
            return tokens;
        }
        let result = token(&mut input);
        let span = Span { source, start: start as u32, end: input.current_token_start() as u32 };
        match result {
            Ok(tok) => tokens.push(Token { tok, span, line_start }),
            Err(message) => {
                diagnostics.report(Diagnostic::new(span, message));
                tokens.push(Token { tok: Tok::Damaged, span, line_start });
            }
        }
        line_start = false;
    }
}

/// Skips blanks and comments; whether a line ended.
fn blank(input: &mut Input) -> bool {
    let comment = ('#', take_till(0.., '\n')).void();
    let space = take_while(1.., char::is_whitespace).void();
    let skipped: ModalResult<&str> = repeat::<_, (), (), _, _>(0.., alt((space, comment))).take().parse_next(input);
    skipped.is_ok_and(|s| s.contains('\n'))
}

/// One token. On an error the offending text is consumed.
fn token(input: &mut Input) -> Result<Tok, String> {
    let result: ModalResult<Result<Tok, String>> =
        alt((word.map(Ok), number, text, single_quoted, symbol.map(Ok), any.map(unexpected))).parse_next(input);
    result.unwrap_or_else(|_| Err("expected a token".to_string()))
}

fn unexpected(c: char) -> Result<Tok, String> {
    let hint = match c {
        '&' => "; the operator is '&&'",
        '|' => "; the operator is '||'",
        _ => "",
    };
    Err(format!("unexpected character '{c}'{hint}"))
}

fn word(input: &mut Input) -> ModalResult<Tok> {
    let first = one_of(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = take_while(0.., |c: char| c.is_ascii_alphanumeric() || c == '_');
    (first, rest).take().map(|w: &str| Tok::Word(w.to_string())).parse_next(input)
}

fn digits<'a>(input: &mut Input<'a>) -> ModalResult<&'a str> {
    (one_of('0'..='9'), take_while(0.., |c: char| c.is_ascii_digit() || c == '_')).take().parse_next(input)
}

fn number(input: &mut Input) -> ModalResult<Result<Tok, String>> {
    let fraction = opt(('.', digits));
    let exponent = opt((one_of(['e', 'E']), opt(one_of(['+', '-'])), digits));
    let suffix = take_while(0.., |c: char| c.is_ascii_alphanumeric() || c == '_');
    let (written, suffix): (&str, &str) = ((digits, fraction, exponent).take(), suffix).parse_next(input)?;
    if !suffix.is_empty() {
        return Ok(Err(format!("'{written}{suffix}' is neither a number nor a name")));
    }
    let plain = written.replace('_', "");
    if plain.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(plain.parse().map(Tok::Int).map_err(|_| format!("the integer {written} does not fit in 64 bits")));
    }
    Ok(match plain.parse::<f64>() {
        Ok(x) if x.is_finite() => Ok(Tok::Float(x)),
        _ => Err(format!("the number {written} is too large")),
    })
}

fn text(input: &mut Input) -> ModalResult<Result<Tok, String>> {
    let inside = take_till(0.., ['"', '\n']);
    ('"', inside, opt('"'))
        .map(|(_, t, close): (char, &str, Option<char>)| match close {
            Some(_) => Ok(Tok::Text(t.to_string())),
            None => Err("this text has no closing '\"' on its line".to_string()),
        })
        .parse_next(input)
}

fn single_quoted(input: &mut Input) -> ModalResult<Result<Tok, String>> {
    ('\'', take_till(0.., ['\'', '\n']), '\'').value(Err("words are quoted with '\"'".to_string())).parse_next(input)
}

fn symbol(input: &mut Input) -> ModalResult<Tok> {
    for symbol in SYMBOLS {
        let found: ModalResult<&str> = literal(symbol).parse_next(input);
        if found.is_ok() {
            return Ok(Tok::Symbol(symbol));
        }
    }
    winnow::combinator::fail.parse_next(input)
}
