//! What the terminal can show: its width, and colours.

use std::io::IsTerminal;

use clap::ValueEnum;
use staticgrad::graph::Section;
use staticgrad::plan::BufferKind;

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// When standard output is a terminal and NO_COLOR is not set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Width and colour of text output.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns to fit into; `None` where lines may be as long as they need (files, pipes).
    pub width: Option<usize>,
    /// Whether escape sequences may be written.
    pub color: bool,
}

impl Style {
    /// For standard output, or for a file when `to_file`.
    pub fn detect(choice: ColorChoice, to_file: bool) -> Style {
        let terminal = !to_file && std::io::stdout().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        let color = match choice {
            ColorChoice::Auto => terminal && !set("NO_COLOR") && !dumb,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        let measured = || terminal_size::terminal_size().map(|(w, _)| usize::from(w.0));
        let asked = || std::env::var("COLUMNS").ok().and_then(|v| v.parse().ok());
        let width = if terminal { measured().or_else(asked).or(Some(80)) } else { None };
        Style { width: width.map(|w| w.clamp(20, 400)), color }
    }

    /// `text` in an SGR colour (`31`, `38;5;208`).
    pub fn paint(&self, text: &str, code: &str) -> String {
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// A heading.
    pub fn bold(&self, text: &str) -> String {
        self.paint(text, "1")
    }

    /// Something secondary.
    pub fn dim(&self, text: &str) -> String {
        self.paint(text, "2")
    }
}

/// SGR colour of a kind of buffer.
pub fn kind_code(kind: BufferKind) -> &'static str {
    match kind {
        BufferKind::Input => "37",
        BufferKind::Parameter => "34",
        BufferKind::State => "38;5;67",
        BufferKind::Kept => "36",
        BufferKind::Activation => "32",
        BufferKind::Saved => "33",
        BufferKind::ActivationGradient => "35",
        BufferKind::ParameterGradient => "31",
        BufferKind::Recomputed => "38;5;208",
        BufferKind::Scratch => "90",
    }
}

/// Name, letter and SGR colour of a part of the training step.
pub fn section(section: Section) -> (&'static str, char, &'static str) {
    match section {
        Section::Forward => ("forward", 'f', "32"),
        Section::Backward => ("backward", 'b', "35"),
        Section::Update => ("optimiser", 'o', "34"),
    }
}
