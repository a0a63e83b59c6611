//! Errors of a spec: collected while compiling, rendered with source line and caret at the end.

use crate::error::Error;
use crate::ops::build::edit_distance;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::collections::{BTreeSet, HashSet};
use std::io::IsTerminal;
use std::ops::Range;

/// Errors shown in full; the rest is only counted.
const SHOWN: usize = 20;

/// Reports, repeated ones included, after which looking for more errors is pointless.
const ENOUGH: usize = 2000;

/// Names that a suggestion is chosen from.
const CANDIDATES: usize = 500;

/// Bytes of one of the sources: the spec itself (0) or the text of a `--set` value (1, 2, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Which source.
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// As a range of bytes.
    pub fn bytes(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// From the start of `self` to the end of `other`.
    pub fn to(self, other: Span) -> Span {
        Span { source: self.source, start: self.start, end: other.end.max(self.end) }
    }
}

/// One error. The message says what was found and what was expected.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Where the caret points.
    pub span: Span,
    /// One line.
    pub message: String,
    /// Other places worth showing, with what is there.
    pub labels: Vec<(Span, String)>,
    /// What to do, or how evaluation got here; one line each.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Diagnostic { span, message: message.into(), labels: Vec::new(), notes: Vec::new() }
    }

    /// Adds a line of advice.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Points out another place.
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push((span, text.into()));
        self
    }
}

/// The sources and the errors found in them so far.
pub struct Diagnostics {
    sources: Vec<(String, String)>,
    errors: Vec<Diagnostic>,
    seen: HashSet<Span>,
    reports: usize,
}

impl Diagnostics {
    /// No errors in the spec `text`, which messages call `name`.
    pub fn new(name: &str, text: &str) -> Self {
        Diagnostics {
            sources: vec![(name.to_string(), text.to_string())],
            errors: Vec::new(),
            seen: HashSet::new(),
            reports: 0,
        }
    }

    /// Adds another source and returns its number.
    pub fn add_source(&mut self, name: String, text: &str) -> u32 {
        self.sources.push((name, text.to_string()));
        self.sources.len() as u32 - 1
    }

    /// The end of the spec.
    pub fn end(&self) -> Span {
        let at = self.sources[0].1.trim_end().len() as u32;
        Span { source: 0, start: at, end: at }
    }

    /// Records an error, unless one was recorded at the same place (a loop body is evaluated many times).
    pub fn report(&mut self, error: Diagnostic) {
        self.reports += 1;
        if self.seen.insert(error.span) {
            self.errors.push(error);
        }
    }

    /// Whether so much went wrong that looking for more is pointless.
    pub fn is_full(&self) -> bool {
        self.reports >= ENOUGH
    }

    /// Whether nothing went wrong.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// `file:line:column` of a place, both counted from 1, columns in characters.
    pub fn position(&self, span: Span) -> String {
        let (name, text) = &self.sources[span.source as usize];
        let before = &text[..(span.start as usize).min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{name}:{line}:{column}")
    }

    /// All errors as text: for each the message, file, line, column, source line and caret. Colours only when standard
    /// error is a terminal and `NO_COLOR` is not set.
    pub fn into_error(self) -> Error {
        let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Error::Spec { count: self.errors.len(), rendered: self.render(color) }
    }

    fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut errors: Vec<&Diagnostic> = self.errors.iter().collect();
        errors.sort_by_key(|e| e.span);
        let mut shown: Vec<String> = errors.iter().take(SHOWN).map(|e| self.render_one(&renderer, e)).collect();
        if errors.len() > SHOWN {
            shown.push(format!("and {} more errors", errors.len() - SHOWN));
        }
        let lines = |text: String| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        shown.into_iter().map(lines).collect::<Vec<_>>().join("\n\n")
    }

    fn render_one(&self, renderer: &Renderer, error: &Diagnostic) -> String {
        let snippet = |source: u32| {
            let (name, text) = &self.sources[source as usize];
            let labels = error.labels.iter().filter(move |(span, _)| span.source == source);
            let labels = labels.map(|(span, label)| AnnotationKind::Context.span(span.bytes()).label(label.as_str()));
            Snippet::source(text.as_str()).path(name.as_str()).annotations(labels)
        };
        let primary = AnnotationKind::Primary.span(error.span.bytes());
        let mut group =
            Level::ERROR.primary_title(&error.message).element(snippet(error.span.source).annotation(primary));
        let others: BTreeSet<u32> = error.labels.iter().map(|(span, _)| span.source).collect();
        for source in others.into_iter().filter(|&s| s != error.span.source) {
            group = group.element(snippet(source));
        }
        for note in &error.notes {
            group = group.element(Level::NOTE.message(note));
        }
        renderer.render(&[group])
    }
}

/// The candidate most like `name`, when one is like enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, best) = candidates.into_iter().take(CANDIDATES).map(|c| (distance(name, c), c)).min()?;
    let length = name.chars().count();
    (distance <= length.max(3) / 3 && distance < length.max(best.len())).then_some(best)
}

/// `; did you mean 'x'?` or nothing.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or(String::new(), |n| format!("; did you mean '{n}'?"))
}

/// Edit distance of the first 64 characters. Case does not count, and leaving out the end counts as one.
fn distance(name: &str, candidate: &str) -> usize {
    let head = |s: &str| s.chars().take(64).collect::<String>().to_lowercase();
    let (name, candidate) = (head(name), head(candidate));
    let distance = edit_distance(&name, &candidate);
    if name.len() > 2 && candidate.starts_with(&name) { distance.min(1) } else { distance }
}
