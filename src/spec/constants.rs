//! Dimensions and constants: defaults, the chosen size, overrides, and evaluation in any order.

mod kind;

use super::ast::{Arg, Ast, BinaryOp, Entries, Expr, ExprKind, Ident, Item, Require};
use super::diagnostic::{Diagnostic, Span, did_you_mean};
use super::evaluate::{Context, Session, Stop, condition, deeper, evaluate};
use super::parse::parse_value;
use super::value::Value;
pub use kind::MAX_SIZE;
use kind::{Kind, kind_of, typed};
use std::collections::BTreeMap;

/// The values of all names of a spec.
#[derive(Default)]
pub struct Constants {
    /// By name; [`Value::Poison`] for those in error.
    pub values: BTreeMap<String, Value>,
    /// Whether definitions were lost, so that an unknown name is no error.
    pub damaged: bool,
}

struct Definition {
    kind: Kind,
    /// Where it is declared.
    declared: Span,
    /// What sets it: the default, a size or an override.
    value: Option<Expr>,
}

/// Evaluates the dims and consts of `ast` with one of its sizes and `overrides`.
///
/// # Errors
/// When evaluation reached a limit. All other errors are recorded.
pub fn resolve(
    ast: &Ast,
    overrides: &[(String, String)],
    size: Option<&str>,
    session: &mut Session,
) -> Result<Constants, Stop> {
    let mut resolver =
        Resolver { definitions: BTreeMap::new(), order: Vec::new(), results: Constants::default(), session };
    resolver.declare(ast);
    resolver.sizes(ast, overrides, size);
    resolver.overrides(overrides);
    let names: Vec<String> = resolver.definitions.keys().cloned().collect();
    for name in names {
        resolver.resolve(&name)?;
    }
    for item in &ast.items {
        if let Item::Require(require) = item {
            check(&mut resolver, require)?;
        }
    }
    Ok(resolver.results)
}

/// Reports a condition that does not hold.
///
/// # Errors
/// When evaluation reached a limit.
pub fn check<C: Context>(context: &mut C, require: &Require) -> Result<(), Stop> {
    if condition(context, &require.condition)? != Some(false) {
        return Ok(());
    }
    let mut names = Vec::new();
    names_in(&require.condition, &mut names);
    let mut values = Vec::new();
    for name in names {
        if let Some(attr) = context.name(&name, require.condition.span)?.attr() {
            values.push(format!("{name} = {attr}"));
        }
    }
    let message = require.message.as_deref().unwrap_or("this requirement does not hold");
    let mut error = Diagnostic::new(require.condition.span, message);
    if !values.is_empty() {
        error = error.note(format!("here {}", values.join(", ")));
    }
    context.session().report(error);
    Ok(())
}

/// Names in an expression made of operators, each once.
fn names_in(expr: &Expr, names: &mut Vec<String>) {
    match &expr.kind {
        ExprKind::Name(n) if !names.contains(n) => names.push(n.clone()),
        ExprKind::Unary(_, a) => names_in(a, names),
        ExprKind::Binary(_, a, b) => [a, b].into_iter().for_each(|e| names_in(e, names)),
        ExprKind::Choice(a, b, c) => [a, b, c].into_iter().for_each(|e| names_in(e, names)),
        _ => {}
    }
}

struct Resolver<'s> {
    definitions: BTreeMap<String, Definition>,
    /// Names being evaluated, outermost first.
    order: Vec<String>,
    results: Constants,
    session: &'s mut Session,
}

impl Resolver<'_> {
    fn declare(&mut self, ast: &Ast) {
        for item in &ast.items {
            let (entries, dims) = match item {
                Item::Dims(e) => (e, true),
                Item::Consts(e) => (e, false),
                Item::Damaged(keyword, _) if ["dims", "const", ""].contains(&keyword.as_str()) => {
                    self.results.damaged = true;
                    continue;
                }
                _ => continue,
            };
            self.results.damaged |= entries.damaged;
            for (name, value) in &entries.entries {
                let kind = if dims { Kind::Dim } else { kind_of(value.as_ref()) };
                let definition = Definition { kind, declared: name.span, value: value.clone() };
                if let Some(first) = self.definitions.get(&name.text) {
                    let error = Diagnostic::new(name.span, format!("'{}' is declared twice", name.text));
                    self.session.report(error.label(first.declared, "first here"));
                } else {
                    self.definitions.insert(name.text.clone(), definition);
                }
            }
        }
    }

    /// Applies the chosen size, and checks the names in all of them.
    fn sizes(&mut self, ast: &Ast, overrides: &[(String, String)], size: Option<&str>) {
        let sizes: Vec<(&Ident, &Entries)> =
            ast.items.iter().filter_map(|i| if let Item::Size(n, e) = i { Some((n, e)) } else { None }).collect();
        let set = overrides.iter().find(|(n, _)| n == "size" && !self.definitions.contains_key("size"));
        let set = set.map(|(_, v)| v.trim());
        let lost = ast.items.iter().any(|i| matches!(i, Item::Damaged(k, _) if k == "size" || k.is_empty()));
        for (name, option) in [(size, "--size "), (set, "--set size=")] {
            let Some(name) = name.filter(|n| !lost && !sizes.iter().any(|(s, _)| s.text == *n)) else { continue };
            let known: Vec<&str> = sizes.iter().map(|(s, _)| s.text.as_str()).collect();
            let hint = did_you_mean(name, known.iter().copied());
            let list = if known.is_empty() {
                "this spec has no sizes".into()
            } else {
                format!("the sizes are {}", known.join(", "))
            };
            self.outside(option, name, |span| {
                Diagnostic::new(span, format!("there is no size '{name}'{hint}")).note(list)
            });
        }
        if let (Some(a), Some(b)) = (size, set)
            && a != b
        {
            self.outside("--set size=", b, |span| {
                Diagnostic::new(span, format!("size '{b}' is set beside --size {a}; leave one out"))
            });
        }
        for (i, (name, entries)) in sizes.iter().enumerate() {
            if let Some((first, _)) = sizes[..i].iter().find(|(n, _)| n.text == name.text) {
                let error = Diagnostic::new(name.span, format!("size '{}' is declared twice", name.text));
                self.session.report(error.label(first.span, "first here"));
            }
            let chosen = size.or(set) == Some(name.text.as_str());
            self.results.damaged |= entries.damaged;
            for (key, value) in &entries.entries {
                if !self.definitions.contains_key(&key.text) {
                    let error = self.undeclared(&key.text, key.span);
                    self.session.report(error);
                } else if let Some(definition) = self.definitions.get_mut(&key.text).filter(|_| chosen) {
                    definition.value = value.clone();
                }
            }
        }
    }

    fn overrides(&mut self, overrides: &[(String, String)]) {
        for (name, text) in overrides {
            if name == "size" && !self.definitions.contains_key("size") {
                continue;
            }
            let source = self.session.diagnostics.add_source(format!("--set {name}={text}"), text);
            let whole = Span { source, start: 0, end: text.len() as u32 };
            let Some(kind) = self.definitions.get(name).map(|d| d.kind) else {
                let error = self.undeclared(name, whole);
                self.session.report(error);
                continue;
            };
            let mut value = parse_value(source, text, &mut self.session.diagnostics);
            if let Some(Expr { kind: expr @ ExprKind::Name(_), .. }) = value.as_mut().filter(|_| kind == Kind::Word) {
                *expr = ExprKind::Word(text.trim().to_string());
            }
            if let Some(definition) = self.definitions.get_mut(name) {
                definition.value = value;
            }
        }
    }

    /// Reports an error in an option of the command line.
    fn outside(&mut self, option: &str, text: &str, error: impl FnOnce(Span) -> Diagnostic) {
        let source = self.session.diagnostics.add_source(format!("{option}{text}"), text);
        self.session.report(error(Span { source, start: 0, end: text.len() as u32 }));
    }

    /// A name set from a size or from outside that no dims or const declares.
    fn undeclared(&self, name: &str, span: Span) -> Diagnostic {
        let hint = self.suggestion(name);
        let known = self.definitions.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        Diagnostic::new(span, format!("'{name}' is not a dimension or constant of this spec{hint}"))
            .note(format!("it has {known}"))
    }

    fn resolve(&mut self, name: &str) -> Result<Value, Stop> {
        if let Some(value) = self.results.values.get(name) {
            return Ok(value.clone());
        }
        let definition = &self.definitions[name];
        let (kind, declared) = (definition.kind, definition.declared);
        let Some(expr) = definition.value.clone() else {
            return Ok(self.settle(name, Value::Poison));
        };
        if let Some(start) = self.order.iter().position(|n| n == name) {
            let cycle = [&self.order[start..], &[name.to_string()]].concat().join(" → ");
            let value = self.session.fail(declared, format!("'{name}' is defined by itself: {cycle}"));
            return Ok(self.settle(name, value));
        }
        self.order.push(name.to_string());
        let value = deeper(self, expr.span, |s| evaluate(s, &expr));
        self.order.pop();
        let value = value?;
        if self.results.values.contains_key(name) {
            // A cycle that goes through this name is settled already.
            return Ok(Value::Poison);
        }
        let value = match typed(kind, value) {
            Ok(value) => value,
            Err(message) => {
                let mut error = Diagnostic::new(expr.span, format!("{name}: {message}"));
                if expr.span.source != declared.source {
                    error = error.label(declared, format!("'{name}' is declared here"));
                }
                self.session.report(error);
                Value::Poison
            }
        };
        Ok(self.settle(name, value))
    }

    fn settle(&mut self, name: &str, value: Value) -> Value {
        self.results.values.insert(name.to_string(), value.clone());
        value
    }
}

impl Context for Resolver<'_> {
    fn session(&mut self) -> &mut Session {
        self.session
    }

    fn suggestion(&self, name: &str) -> String {
        did_you_mean(name, self.definitions.keys().map(String::as_str))
    }

    fn name(&mut self, name: &str, span: Span) -> Result<Value, Stop> {
        if self.definitions.contains_key(name) {
            return self.resolve(name);
        }
        if self.results.damaged {
            return Ok(Value::Poison);
        }
        let hint = self.suggestion(name);
        Ok(self.session.fail(span, format!("undefined name '{name}'{hint}")))
    }

    fn call(&mut self, callee: &Ident, _args: &[Arg], _span: Span) -> Result<Value, Stop> {
        let message = format!("'{}' cannot be called here; constants may use sqrt, min and max", callee.text);
        Ok(self.session.fail(callee.span, message))
    }

    fn operator(&mut self, op: BinaryOp, _operands: [(&Expr, Value); 2], span: Span) -> Result<Value, Stop> {
        Ok(self.session.fail(span, format!("'{}' needs constants here", op.symbol())))
    }
}
