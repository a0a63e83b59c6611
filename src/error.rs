//! The one error type of the crate. Every message is one clear line: what, where, why, and what to do.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What a command can fail with. Panics are for broken internal invariants only.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One or more diagnostics of a graph spec, already rendered with file, line, column, source line and caret.
    #[error("{rendered}")]
    Spec {
        /// The full text for a terminal, several lines.
        rendered: String,
        /// How many independent errors it holds.
        count: usize,
    },
    /// An op refused its operands or attributes.
    #[error("{op} '{node}': {message}")]
    Shape {
        /// Keyword of the op.
        op: String,
        /// Name of the node in the graph.
        node: String,
        /// What is wrong; names both shapes where two disagree.
        message: String,
    },
    /// A memory plan that is broken, or that does not fit what it is asked to do.
    #[error("plan: {0}")]
    Plan(String),
    /// A file whose content is wrong.
    #[error("{}: {message}{}", path.display(), offset.map(|o| format!(" (at byte {o})")).unwrap_or_default())]
    File {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes, if that says something.
        offset: Option<u64>,
        /// What is wrong and what to do.
        message: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The verb: `open`, `read`, `write`, `map`, …
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A parameter of the model and a tensor of the checkpoint do not fit each other.
    #[error("weights: {0}")]
    Weights(String),
    /// Text that cannot be tokenised, or a tokenizer that cannot be built.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A request that the model or plan cannot serve (token out of range, prompt too long, slot full).
    #[error("{0}")]
    Request(String),
    /// The command line asks for things that exclude each other: exit code 2.
    #[error("{0}")]
    Usage(String),
}

/// Shorthand used everywhere.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A [`Error::File`] without a byte offset.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().to_path_buf(), offset: None, message: message.into() }
    }

    /// A [`Error::File`] at a byte offset.
    pub fn file_at(path: impl AsRef<Path>, offset: u64, message: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().to_path_buf(), offset: Some(offset), message: message.into() }
    }

    /// Wraps what the operating system said about `path`; `action` is a verb (`open`, `read`, …). The name of a temporary file that
    /// `source` brings is left out: it says nothing to who asked for `path`.
    pub fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        let source = match source.get_ref().and_then(|e| e.source()) {
            Some(cause) => std::io::Error::new(source.kind(), cause.to_string()),
            None => source,
        };
        let source = match source.kind() {
            ErrorKind::FileTooLarge => {
                std::io::Error::other(format!("{source}; `ulimit -f` shows how large files may become"))
            }
            _ => source,
        };
        Error::Io { path: path.as_ref().to_path_buf(), action, source }
    }

    /// Process exit code: 2 for usage errors, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Error::Usage(_)) { 2 } else { 1 }
    }
}
