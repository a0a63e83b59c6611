//! What can be said about a spec before it is evaluated: items missing or declared twice, calls of what does not exist, names
//! that hide others.

use super::ast::{Ast, Block, Body, Expr, ExprKind, Features, Ident, Item, Statement};
use super::diagnostic::{Diagnostic, Diagnostics, Span, did_you_mean};
use super::value::FUNCTIONS;
use crate::ops;
use std::collections::{BTreeMap, BTreeSet};

/// The blocks of a spec by name, and what was lost to syntax errors.
#[derive(Default)]
pub struct Blocks<'a> {
    /// Definitions.
    pub by_name: BTreeMap<&'a str, &'a Block>,
    /// Names of blocks that could not be parsed.
    lost: BTreeSet<&'a str>,
    /// Whether a block was lost whose name is not known.
    damaged: bool,
}

impl Blocks<'_> {
    /// Whether a call of `name` has to be let through because its definition was lost.
    pub fn is_lost(&self, name: &str) -> bool {
        self.damaged || self.lost.contains(name)
    }
}

/// Ops that a spec can call.
pub fn ops_in_specs() -> impl Iterator<Item = &'static str> {
    ops::registry().iter().map(|op| op.keyword()).filter(|k| !k.contains('.'))
}

/// Checks `ast` and collects its blocks.
pub fn check<'a>(ast: &'a Ast, diagnostics: &mut Diagnostics) -> Blocks<'a> {
    let mut checker = Checker { constants: BTreeSet::new(), blocks: Blocks::default(), diagnostics };
    checker.once(ast);
    for item in &ast.items {
        match item {
            Item::Dims(e) | Item::Consts(e) => checker.constants.extend(e.entries.iter().map(|(n, _)| n.text.as_str())),
            Item::Block(block) => checker.declare(block),
            Item::Damaged(keyword, name) if keyword == "block" => match name {
                Some(name) => drop(checker.blocks.lost.insert(name)),
                None => checker.blocks.damaged = true,
            },
            Item::Damaged(keyword, _) => {
                checker.blocks.damaged |= !["graph", "model", "size"].contains(&keyword.as_str())
            }
            _ => {}
        }
    }
    for item in &ast.items {
        match item {
            Item::Block(block) => {
                for param in &block.params {
                    checker.shadowing(&param.name);
                    param.features.iter().for_each(|f| checker.features(f));
                }
                block.returns.iter().flatten().for_each(|f| checker.features(f));
                checker.body(&block.body);
            }
            Item::Graph(graph) => {
                graph.inputs.iter().for_each(|n| checker.shadowing(n));
                checker.body(&graph.body);
            }
            _ => {}
        }
    }
    checker.blocks
}

struct Checker<'a, 'd> {
    constants: BTreeSet<&'a str>,
    blocks: Blocks<'a>,
    diagnostics: &'d mut Diagnostics,
}

impl<'a> Checker<'a, '_> {
    /// One `model` and one `graph`.
    fn once(&mut self, ast: &Ast) {
        let start = Span { source: 0, start: 0, end: 0 };
        let end = self.diagnostics.end();
        for (keyword, form, place) in [("model", "model NAME", start), ("graph", "graph(tokens) -> logits { … }", end)]
        {
            let places: Vec<Span> = ast
                .items
                .iter()
                .filter_map(|item| match item {
                    Item::Model(name) if keyword == "model" => Some(name.span),
                    Item::Graph(graph) if keyword == "graph" => Some(graph.span),
                    _ => None,
                })
                .collect();
            let lost = ast.items.iter().any(|i| matches!(i, Item::Damaged(k, _) if k == keyword || k.is_empty()));
            match places.as_slice() {
                [] if !lost => {
                    self.diagnostics
                        .report(Diagnostic::new(place, format!("expected one '{form}' in the spec, found none")));
                }
                [first, rest @ ..] => {
                    for span in rest {
                        let error = Diagnostic::new(*span, format!("a spec has one '{keyword}', and this is another"));
                        self.diagnostics.report(error.label(*first, "first here"));
                    }
                }
                [] => {}
            }
        }
    }

    fn declare(&mut self, block: &'a Block) {
        let name = block.name.text.as_str();
        if ops_in_specs().any(|k| k == name) || FUNCTIONS.contains(&name) {
            self.report(block.name.span, format!("'{name}' is the name of an op or function; a block needs another"));
        }
        if let Some(first) = self.blocks.by_name.get(name) {
            let error = Diagnostic::new(block.name.span, format!("block '{name}' is declared twice"));
            self.diagnostics.report(error.label(first.name.span, "first here"));
        } else {
            self.blocks.by_name.insert(name, block);
        }
        for (i, param) in block.params.iter().enumerate() {
            if block.params[..i].iter().any(|p| p.name.text == param.name.text) {
                self.report(param.name.span, format!("block '{name}' has two parameters '{}'", param.name.text));
            }
        }
    }

    fn report(&mut self, span: Span, message: String) {
        self.diagnostics.report(Diagnostic::new(span, message));
    }

    fn shadowing(&mut self, name: &Ident) {
        if self.constants.contains(name.text.as_str()) {
            let message = format!("'{}' is a dimension or constant; use another name here", name.text);
            self.report(name.span, message);
        }
    }

    fn body(&mut self, body: &Body) {
        for statement in &body.statements {
            match statement {
                Statement::Assign(targets, value) => {
                    targets.iter().for_each(|t| self.shadowing(t));
                    self.expr(value);
                }
                Statement::For(repeat) => {
                    self.shadowing(&repeat.variable);
                    self.expr(&repeat.from);
                    self.expr(&repeat.to);
                    self.body(&repeat.body);
                }
                Statement::If(condition, yes, no) => {
                    self.expr(condition);
                    self.body(yes);
                    self.body(no);
                }
                Statement::Require(require) => self.expr(&require.condition),
                Statement::Return(values) => values.iter().for_each(|v| self.expr(v)),
                Statement::Damaged(_) => {}
            }
        }
    }

    fn features(&mut self, features: &Features) {
        features.sizes.iter().for_each(|e| self.expr(e));
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Call(callee, args) => {
                self.callee(callee);
                args.iter().for_each(|a| self.expr(&a.value));
            }
            ExprKind::Field(a, _) | ExprKind::Unary(_, a) => self.expr(a),
            ExprKind::Index(a, b) | ExprKind::Binary(_, a, b) => [a, b].into_iter().for_each(|e| self.expr(e)),
            ExprKind::Choice(a, b, c) => [a, b, c].into_iter().for_each(|e| self.expr(e)),
            ExprKind::List(items) => items.iter().for_each(|e| self.expr(e)),
            _ => {}
        }
    }

    fn callee(&mut self, callee: &Ident) {
        let name = callee.text.as_str();
        let known = || ops_in_specs().chain(FUNCTIONS);
        if self.diagnostics.is_full() {
            return;
        }
        if !self.blocks.by_name.contains_key(name) && !known().any(|k| k == name) && !self.blocks.is_lost(name) {
            let mut candidates: Vec<&str> = self.blocks.by_name.keys().copied().collect();
            for keyword in known() {
                candidates.push(keyword);
            }
            let hint = did_you_mean(name, candidates);
            let message = format!("unknown op or block '{name}'{hint}");
            let list = format!("the ops are {}", ops_in_specs().collect::<Vec<_>>().join(", "));
            self.diagnostics.report(Diagnostic::new(callee.span, message).note(list));
        }
    }
}
