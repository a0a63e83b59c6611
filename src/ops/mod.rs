//! Ops: everything about one op in one file. This file holds the contract and the registry.
//!
//! Adding an op is one new file and one line in [`registry`]; the parser, every pass, the gradient check and the
//! documentation find it there.

pub mod build;
pub mod run;

mod adamw;
mod add;
mod attention_gradient;
mod block_norms;
mod causal_attention;
mod cross_entropy_head;
mod dropout;
mod embedding;
mod gelu;
mod grad_norm;
pub mod hyper;
mod linear;
mod low_rank;
mod merge_gradients;
mod mul;
mod narrow;
mod norm;
mod pointwise;
mod position_embedding;
mod product;
mod rope;
mod rule;
mod scale;
mod shares;
mod silu;
mod silu_mul;
mod tiling;

use crate::graph::{Attrs, Init, Layout};
use crate::tensor::{Shape, TensorType};
pub use build::{Call, GradBuilder};
pub use cross_entropy_head::head_chunk_rows;
use norm::NormKind;
pub use run::{Capacity, HalfRows, KeptRows, Kernel, NO_MEMORY, Operands, RowSet, Scratch, Segment, Weight};
pub use tiling::run_start;

/// Rows of the fixed tiles in which reductions over rows run; chunks and micro-batches are multiples of it.
pub const ROW_TILE: usize = crate::kernels::reduce::ROW_TILE;

/// Which rows of an operand an output row needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowDep {
    /// Output row t needs input row t. (Also parameters and scalars, which have no rows.)
    PerRow,
    /// Output row t needs rows 0..=t of its slot: the operand is kept between calls.
    Prefix,
    /// Every output needs all rows (reductions over rows).
    AllRows,
}

/// A parameter that a call of an op creates, or shares when its name exists already.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Appended to the call's path: `weight` makes `h.0.ln_1.weight`.
    pub suffix: &'static str,
    /// The whole shape, as the checkpoint stores it.
    pub shape: Shape,
    /// Initial value.
    pub init: Init,
    /// Whether weight decay applies (by default to tensors with two or more dimensions).
    pub decay: bool,
    /// How a matrix is stored.
    pub layout: Layout,
}

/// Arithmetic and traffic of a node, for profiles and for choosing what to recompute.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Cost {
    /// Floating-point operations (a fused multiply-add counts two).
    pub flops: f64,
    /// Bytes of operands and results that cross memory at least once, parameters excluded.
    pub bytes: f64,
}

/// Types and attributes of a node: all that shape rules, costs and kernels may depend on.
#[derive(Clone, Debug)]
pub struct Signature {
    /// Attributes.
    pub attrs: Attrs,
    /// Types of the operands (inputs, then parameters).
    pub operands: Vec<TensorType>,
    /// Types of the outputs.
    pub outputs: Vec<TensorType>,
}

/// An operand or result of a reference computation: rows of values. A fixed tensor has its last dimension as width.
#[derive(Clone, Debug, PartialEq)]
pub struct RefTensor {
    /// Number of rows.
    pub rows: usize,
    /// Values in one row.
    pub width: usize,
    /// Row by row.
    pub data: Vec<f64>,
}

/// One test case of an op: the registry-wide tests (reference, gradient check, split invariance) run every case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Short name, unique within the op.
    pub name: &'static str,
    /// Attributes of the call.
    pub attrs: Attrs,
    /// Types of the inputs (parameters follow from [`Op::params`]).
    pub inputs: Vec<TensorType>,
    /// Sequences.
    pub slots: usize,
    /// Rows of each sequence.
    pub rows: usize,
    /// For integer inputs: values are drawn from `0..limit` (vocabulary).
    pub int_limit: i32,
}

/// The contract of an op. Implementations are stateless; what a node carries is in its [`Signature`].
pub trait Op: Sync {
    /// Name in specs and dumps, unique in the registry.
    fn keyword(&self) -> &'static str;

    /// Formula, shapes and derivative, in a few lines.
    fn doc(&self) -> &'static str;

    /// Parameters of a call with these attributes and inputs. Ops without parameters keep the default.
    fn params(&self, _attrs: &Attrs, _inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        Ok(Vec::new())
    }

    /// The shape rule: output types from attributes and operands (inputs, then parameters).
    ///
    /// # Errors
    /// What does not fit, with both shapes. Must refuse unknown attributes' values, wrong operand counts and types: it is also
    /// what checks a graph read from a file.
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String>;

    /// Names of the attributes that a call may carry.
    fn attributes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Which rows of `operand` a row of the output needs.
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::PerRow
    }

    /// Whether the output may be written over the operand when nothing reads the operand later.
    fn may_alias(&self, _sig: &Signature, _operand: usize, _output: usize) -> bool {
        false
    }

    /// The operand that the output must share its memory with (an accumulating gradient), if any.
    fn must_alias(&self, _sig: &Signature, _output: usize) -> Option<usize> {
        None
    }

    /// Whether the node updates this operand in place (the optimiser's parameters and moments).
    fn mutates(&self, _sig: &Signature, _operand: usize) -> bool {
        false
    }

    /// Whether the op is a loss: differentiation starts at its nodes, and [`Op::grad`] finds no gradient of the outputs.
    fn is_loss(&self) -> bool {
        false
    }

    /// Emits the nodes that compute the gradients of the operands; one entry per operand (`None`: no gradient flows).
    ///
    /// # Errors
    /// When the op has no derivative.
    fn grad(&self, _builder: &mut GradBuilder) -> Result<Vec<Option<crate::graph::TensorId>>, String> {
        Err(format!("{} has no derivative", self.keyword()))
    }

    /// Arithmetic and traffic for `rows` live rows in sequences of `context` rows.
    fn cost(&self, sig: &Signature, rows: usize, context: usize) -> Cost;

    /// Refuses live sizes that the op cannot serve (more rows than a table of positions has).
    ///
    /// # Errors
    /// What does not fit, and what to lower.
    fn check_capacity(&self, _sig: &Signature, _capacity: &Capacity) -> Result<(), String> {
        Ok(())
    }

    /// The executable form.
    ///
    /// # Errors
    /// Only what [`Op::infer`] would refuse too.
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String>;

    /// The plain computation in f64, rows ordered slot by slot. Operands as in [`Signature::operands`].
    fn reference(&self, _sig: &Signature, _case: &Case, _operands: &[RefTensor]) -> Option<Vec<RefTensor>> {
        None
    }

    /// Test cases.
    fn cases(&self) -> Vec<Case> {
        Vec::new()
    }
}

/// Every op, in the order in which the documentation lists them.
pub fn registry() -> &'static [&'static dyn Op] {
    static REGISTRY: &[&dyn Op] = &[
        &embedding::Embedding,
        &embedding::EmbeddingDTable,
        &position_embedding::PositionEmbedding,
        &position_embedding::PositionEmbeddingDTable,
        &norm::Norm(NormKind::Layer),
        &norm::NormDInput(NormKind::Layer),
        &norm::NormDWeight(NormKind::Layer),
        &norm::Norm(NormKind::Rms),
        &norm::NormDInput(NormKind::Rms),
        &norm::NormDWeight(NormKind::Rms),
        &linear::Linear,
        &linear::LinearDInput,
        &linear::LinearDWeight,
        &linear::LinearDBias,
        &low_rank::LowRankDown,
        &low_rank::LowRankDInput,
        &low_rank::LowRankUp,
        &low_rank::LowRankDLow,
        &low_rank::LowRankDWeight,
        &rope::RopeOp,
        &narrow::Narrow,
        &causal_attention::CausalAttention,
        &attention_gradient::CausalAttentionDInputs,
        &gelu::Gelu,
        &gelu::GeluTable,
        &gelu::GeluDInput,
        &silu::Silu,
        &silu::SiluDInput,
        &silu_mul::SiluMul,
        &silu_mul::SiluMulDInputs,
        &mul::Mul,
        &add::Add,
        &scale::Scale,
        &dropout::DropoutOp,
        &cross_entropy_head::CrossEntropyHead,
        &merge_gradients::MergeGradients,
        &block_norms::BlockNorms,
        &grad_norm::GradNorm,
        &adamw::AdamWOp,
    ];
    REGISTRY
}

/// The op called `keyword`.
pub fn find(keyword: &str) -> Option<&'static dyn Op> {
    registry().iter().copied().find(|op| op.keyword() == keyword)
}
