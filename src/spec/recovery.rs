//! Where parsing goes on after an error: the next statement, the end of the body, or the next item.

use super::lexer::{Tok, Token};
use super::stream::{Failure, Input, position};
use winnow::error::ErrMode;
use winnow::stream::Stream;

/// Whether an item starts at the head of `tokens`: a keyword that begins a line, followed by what it needs.
pub fn item_starts(tokens: &[Token]) -> bool {
    let [first, second, ..] = tokens else { return false };
    first.line_start
        && match first.word() {
            Some("model" | "size" | "block") => second.word().is_some(),
            Some("dims" | "const") => second.is("{"),
            Some("graph") => second.is("("),
            _ => false,
        }
}

/// Whether something that is meant as an item starts at the head of `tokens`, seen from between items.
pub fn item_resumes(tokens: &[Token]) -> bool {
    matches!(tokens, [first, second, ..] if first.line_start
        && (first.word() == Some("require") || first.word().is_some() && second.is("{")))
}

/// Whether a statement starts at the head of `tokens`, seen from within one that failed.
pub fn statement_starts(tokens: &[Token], previous: &Token) -> bool {
    let Some(first) = tokens.first().filter(|t| t.line_start) else { return false };
    let inside_list = [",", "(", "["].iter().any(|s| previous.is(s));
    match first.word() {
        Some("for" | "if" | "return" | "require") => true,
        Some(_) => !inside_list && tokens.get(1).is_some_and(|t| t.is("=") || t.is(",")),
        None => false,
    }
}

/// Whether a `NAME = …` entry starts at the head of `tokens`.
pub fn entry_starts(tokens: &[Token], _previous: &Token) -> bool {
    matches!(tokens, [first, second, ..] if first.word().is_some() && second.is("="))
}

/// The names that lost statements may have assigned: those before a `=`, with the ones that commas join to them.
pub fn assigned(lost: &[Token]) -> Vec<String> {
    let mut names = Vec::new();
    let mut joined = false;
    for pair in lost.windows(2).rev() {
        joined = match pair[0].word() {
            Some(name) if pair[1].is("=") || (joined && pair[1].is(",")) => {
                names.push(name.to_string());
                true
            }
            // Between joined names stands a comma.
            _ => joined && pair[0].is(","),
        };
    }
    names
}

/// The failure behind an error of the grammar.
pub fn failure(error: ErrMode<Failure>) -> Failure {
    error.into_inner().unwrap_or_else(|_| unreachable!("the tokens are complete, so nothing waits for more"))
}

/// Records a failure, unless the token it is about is reported already.
pub fn report(input: &mut Input, error: Failure) {
    if input.state.tokens.get(error.position(input)).is_none_or(|t| t.tok != Tok::Damaged) {
        let diagnostic = error.diagnostic(input);
        input.state.errors.push(diagnostic);
    }
}

/// Records `error` of the rule that began at token `start`, and skips to the first place after `start`, at or after the
/// error, where an item starts or `resume` holds of the rest, the token before it, and the braces opened since `start`.
pub fn recover(
    input: &mut Input,
    error: ErrMode<Failure>,
    start: usize,
    resume: impl Fn(&[Token], &Token, usize) -> bool,
) {
    let error = failure(error);
    let tokens = input.state.tokens;
    let mut stop = error.position(input).max(start + 1).min(tokens.len());
    report(input, error);
    let mut depth = tokens[start..stop].iter().fold(0, after);
    while let Some(t) = tokens.get(stop) {
        let rest = &tokens[stop..];
        if item_starts(rest) || resume(rest, &tokens[stop - 1], depth) {
            break;
        }
        depth = after(depth, t);
        stop += 1;
    }
    seek(input, stop);
}

/// Brace depth after a token.
fn after(depth: usize, t: &Token) -> usize {
    if t.is("{") { depth + 1 } else { depth.saturating_sub(usize::from(t.is("}"))) }
}

/// Moves to token number `target`.
fn seek(input: &mut Input, target: usize) {
    if position(input) > target {
        input.input.reset_to_start();
    }
    let forward = target - position(input);
    input.next_slice(forward);
}
