//! Named attributes of a node.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attr {
    /// `true` or `false`.
    Bool(bool),
    /// An integer (sizes, counts).
    Int(i64),
    /// A real number (epsilons, scales).
    Float(f64),
    /// A word (layouts, activations).
    Str(String),
    /// A list of integers (column splits).
    Ints(Vec<i64>),
}

impl Attr {
    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Attr::Bool(_) => "a boolean",
            Attr::Int(_) => "an integer",
            Attr::Float(_) => "a number",
            Attr::Str(_) => "a word",
            Attr::Ints(_) => "a list of integers",
        }
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Bool(b) => write!(f, "{b}"),
            Attr::Int(i) => write!(f, "{i}"),
            Attr::Float(x) => write!(f, "{x:?}"),
            Attr::Str(s) => write!(f, "\"{s}\""),
            Attr::Ints(v) => write!(f, "{v:?}"),
        }
    }
}

/// Attributes by name, in alphabetical order. Getters report a missing or mistyped attribute in words.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attrs(pub BTreeMap<String, Attr>);

impl Attrs {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `name = value` added or replaced.
    pub fn with(mut self, name: &str, value: Attr) -> Self {
        self.set(name, value);
        self
    }

    /// Adds or replaces `name`.
    pub fn set(&mut self, name: &str, value: Attr) {
        self.0.insert(name.to_string(), value);
    }

    /// The value of `name`, if it is there.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.get(name)
    }

    /// A non-negative size; an error when missing, of another kind or negative.
    pub fn size(&self, name: &str) -> Result<usize, String> {
        match self.get(name) {
            Some(Attr::Int(i)) => usize::try_from(*i).map_err(|_| format!("attribute {name} = {i} is negative")),
            Some(other) => Err(format!("attribute {name} must be an integer, not {} ({other})", other.kind())),
            None => Err(format!("attribute {name} is missing; write {name} = …")),
        }
    }

    /// A size, or `default` when missing.
    pub fn size_or(&self, name: &str, default: usize) -> Result<usize, String> {
        if self.get(name).is_none() { Ok(default) } else { self.size(name) }
    }

    /// A real number (integers are accepted).
    pub fn float(&self, name: &str) -> Result<f64, String> {
        match self.get(name) {
            Some(Attr::Float(x)) => Ok(*x),
            Some(Attr::Int(i)) => Ok(*i as f64),
            Some(other) => Err(format!("attribute {name} must be a number, not {} ({other})", other.kind())),
            None => Err(format!("attribute {name} is missing; write {name} = …")),
        }
    }

    /// A real number, or `default` when missing.
    pub fn float_or(&self, name: &str, default: f64) -> Result<f64, String> {
        if self.get(name).is_none() { Ok(default) } else { self.float(name) }
    }

    /// A boolean, or `default` when missing.
    pub fn bool_or(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.get(name) {
            None => Ok(default),
            Some(Attr::Bool(b)) => Ok(*b),
            Some(other) => Err(format!("attribute {name} must be true or false, not {} ({other})", other.kind())),
        }
    }

    /// A word, or `default` when missing.
    pub fn str_or<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str, String> {
        match self.get(name) {
            None => Ok(default),
            Some(Attr::Str(s)) => Ok(s),
            Some(other) => Err(format!("attribute {name} must be a word in quotes, not {} ({other})", other.kind())),
        }
    }

    /// A list of sizes, or an empty one when missing.
    pub fn sizes(&self, name: &str) -> Result<Vec<usize>, String> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Attr::Ints(v)) => v
                .iter()
                .map(|i| usize::try_from(*i).map_err(|_| format!("attribute {name} has a negative entry {i}")))
                .collect(),
            Some(other) => {
                Err(format!("attribute {name} must be a list like [C, C, C], not {} ({other})", other.kind()))
            }
        }
    }
}
