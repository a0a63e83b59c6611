//! Syntax tree of a spec. Parts that could not be parsed stay as `Damaged`, so that what depends on them is not reported too.

use super::diagnostic::Span;

/// A name and where it stands.
#[derive(Clone, Debug)]
pub struct Ident {
    /// The name.
    pub text: String,
    /// Its place.
    pub span: Span,
}

/// A whole spec, item by item.
#[derive(Clone, Debug, Default)]
pub struct Ast {
    /// In source order.
    pub items: Vec<Item>,
}

/// What stands at the top level.
#[derive(Clone, Debug)]
pub enum Item {
    /// `model NAME`
    Model(Ident),
    /// `dims { … }`
    Dims(Entries),
    /// `const { … }`
    Consts(Entries),
    /// `size NAME { … }`
    Size(Ident, Entries),
    /// `require COND "message"`
    Require(Require),
    /// `block NAME(…) -> … { … }`
    Block(Block),
    /// `graph(tokens) -> logits { … }`
    Graph(GraphItem),
    /// An item that could not be parsed: its keyword, and its name if one was seen.
    Damaged(String, Option<String>),
}

/// `NAME = EXPR` lines.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// The lines; those without a value could not be parsed.
    pub entries: Vec<(Ident, Option<Expr>)>,
    /// Whether a line was lost whose name is not known.
    pub damaged: bool,
}

/// A condition that must hold.
#[derive(Clone, Debug)]
pub struct Require {
    /// The condition.
    pub condition: Expr,
    /// What to say when it does not hold.
    pub message: Option<String>,
}

/// A block definition.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its name.
    pub name: Ident,
    /// Parameters.
    pub params: Vec<Param>,
    /// Features of each returned tensor, if declared.
    pub returns: Option<Vec<Features>>,
    /// Statements.
    pub body: Body,
}

/// A parameter of a block: a tensor when features are declared, else anything.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name.
    pub name: Ident,
    /// Declared features.
    pub features: Option<Features>,
}

/// A feature list `[C]`.
#[derive(Clone, Debug)]
pub struct Features {
    /// Sizes, outermost first.
    pub sizes: Vec<Expr>,
    /// With the brackets.
    pub span: Span,
}

/// The graph itself.
#[derive(Clone, Debug)]
pub struct GraphItem {
    /// The keyword.
    pub span: Span,
    /// Inputs.
    pub inputs: Vec<Ident>,
    /// Results: names assigned in the body.
    pub results: Vec<Ident>,
    /// Statements.
    pub body: Body,
}

/// Statements between braces.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// In source order.
    pub statements: Vec<Statement>,
    /// Whether a statement was lost whose targets are not known.
    pub damaged: bool,
}

/// One statement.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `a, b = EXPR`
    Assign(Vec<Ident>, Expr),
    /// `for i in FROM..TO { … }`
    For(Box<For>),
    /// `if COND { … } else { … }`
    If(Expr, Body, Body),
    /// `require COND "message"`
    Require(Require),
    /// `return a, b`
    Return(Vec<Expr>),
    /// A statement that could not be parsed, and the names it would have assigned.
    Damaged(Vec<String>),
}

/// A repeat.
#[derive(Clone, Debug)]
pub struct For {
    /// Loop variable.
    pub variable: Ident,
    /// First value.
    pub from: Expr,
    /// One past the last value.
    pub to: Expr,
    /// Repeated statements.
    pub body: Body,
}

/// An expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Its place.
    pub span: Span,
    /// Levels of nesting, kept below a limit so that walking the tree needs little stack.
    pub depth: usize,
}

/// Kinds of expressions.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// `12`
    Int(i64),
    /// `1e-5`
    Float(f64),
    /// `true`
    Bool(bool),
    /// `"in_out"`
    Word(String),
    /// `C`
    Name(String),
    /// `p.ln_1`
    Field(Box<Expr>, Ident),
    /// `h[i]`
    Index(Box<Expr>, Box<Expr>),
    /// `linear(x, p, out = C)`
    Call(Ident, Vec<Arg>),
    /// `[C, C, C]`
    List(Vec<Expr>),
    /// `-x`, `!x`
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// A token that is reported already.
    Damaged,
    /// `c ? a : b`
    Choice(Box<Expr>, Box<Expr>, Box<Expr>),
}

/// An argument of a call.
#[derive(Clone, Debug)]
pub struct Arg {
    /// `name =`, if written.
    pub name: Option<Ident>,
    /// Its value.
    pub value: Expr,
}

/// Prefix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-`
    Negate,
    /// `!`
    Not,
}

/// Infix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `&&`
    And,
    /// `||`
    Or,
}

impl BinaryOp {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Subtract => "-",
            BinaryOp::Multiply => "*",
            BinaryOp::Divide => "/",
            BinaryOp::Remainder => "%",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Less => "<",
            BinaryOp::LessOrEqual => "<=",
            BinaryOp::Greater => ">",
            BinaryOp::GreaterOrEqual => ">=",
            BinaryOp::And => "&&",
            BinaryOp::Or => "||",
        }
    }
}
