//! Attention of a block of query rows over the keys before each: what a call gets, and what it has to fit.

use super::forward::{Around, Forward, Output};
use super::running::{part_floats, running_floats};
use super::tile::{KEY_TILE, SPAN, padded};
use crate::kernels::isa::Isa;
use crate::kernels::vector::stored::Stored;
use crate::kernels::view::{View, ViewMut};

/// Floats of scratch that [`attention_forward`] needs for up to `rows` query rows of `group` heads.
pub const fn attention_forward_scratch(rows: usize, group: usize, head_dim: usize) -> usize {
    let vectors = rows * group;
    vectors * (head_dim + running_floats(head_dim))
        + KEY_TILE * (head_dim + padded(head_dim))
        + SPAN * (KEY_TILE + part_floats(head_dim))
        + padded(head_dim)
}

/// What [`attention_forward_heads`] reads.
#[derive(Clone, Copy)]
pub struct AttentionInput<'a, E> {
    /// Rows of `heads · group · D`: for each key-value head its group of query heads, side by side.
    pub q: View<'a, f32>,
    /// Position of each query row in its slot.
    pub positions: &'a [u32],
    /// Rows of `heads · D`; row p belongs to position p.
    pub keys: View<'a, E>,
    /// Rows of `heads · D`; row p belongs to position p.
    pub values: View<'a, E>,
    /// D
    pub head_dim: usize,
    /// Factor on the scores, 1/√D.
    pub scale: f32,
}

/// Attention of query rows over one or more adjacent key-value heads.
///
/// Key and value rows after a query's position are never used: they may be uninitialised or NaN. `out` has the shape of `q`;
/// `log_sum_exp`, rows of one value per query head, saves the log of the sum of e^score for the backward pass. `scratch` has
/// [`attention_forward_scratch`] floats, of any content.
///
/// With few rows, reading keys and values from memory is what takes the time, and several heads in a call are faster than
/// one by one: their parts of a row lie together. With many rows one head a call keeps the scratch in the cache.
///
/// # Panics
/// When a shape does not fit, or a position has no key row.
pub fn attention_forward_heads<E: Stored>(
    isa: Isa,
    input: &AttentionInput<E>,
    out: &mut ViewMut<f32>,
    log_sum_exp: Option<&mut ViewMut<f32>>,
    scratch: &mut [f32],
) {
    let (kv_heads, group) = input.heads();
    let rows = input.q.rows();
    assert!(out.rows() == rows && out.width() == input.q.width(), "attention rows differ");
    assert!(
        log_sum_exp.as_ref().is_none_or(|l| l.rows() == rows && l.width() == kv_heads * group),
        "log-sum-exp shape"
    );
    let keys_needed = input.keys_needed();
    let (tiles, output) = (0..keys_needed.div_ceil(KEY_TILE), Output::Rows(out, log_sum_exp));
    let around = Around { begins: true, then: None };
    Forward { input, scratch, kv_heads, group, keys_needed, tiles, around, output }.dispatch(isa);
}

impl<E: Stored> AttentionInput<'_, E> {
    /// Key-value heads, and query heads of each.
    ///
    /// # Panics
    /// When shapes do not fit.
    pub(super) fn heads(&self) -> (usize, usize) {
        let (d, width, queries) = (self.head_dim, self.keys.width(), self.q.width());
        assert!(d > 0 && width > 0 && width.is_multiple_of(d), "attention keys of {width} elements for heads of {d}");
        assert!(
            queries > 0 && queries.is_multiple_of(width),
            "attention queries of {queries} elements for keys of {width}"
        );
        assert!(self.values.width() == width, "attention keys and values differ in width");
        assert!(self.positions.len() == self.q.rows(), "attention rows differ");
        (width / d, queries / width)
    }

    /// Keys up to the last position.
    ///
    /// # Panics
    /// When there are not as many.
    pub(super) fn keys_needed(&self) -> usize {
        let needed = self.positions.iter().max().map_or(0, |&p| p as usize + 1);
        assert!(needed <= self.keys.rows() && needed <= self.values.rows(), "attention to {needed} keys");
        needed
    }
}

/// [`attention_forward_heads`] over one key-value head: `keys` and `values` are as wide as a head.
///
/// # Panics
/// As [`attention_forward_heads`].
#[expect(clippy::too_many_arguments, reason = "the operands of one node")]
pub fn attention_forward<E: Stored>(
    isa: Isa,
    q: &View<f32>,
    positions: &[u32],
    keys: &View<E>,
    values: &View<E>,
    scale: f32,
    out: &mut ViewMut<f32>,
    log_sum_exp: Option<&mut ViewMut<f32>>,
    scratch: &mut [f32],
) {
    let input = AttentionInput { q: *q, positions, keys: *keys, values: *values, head_dim: keys.width(), scale };
    attention_forward_heads(isa, &input, out, log_sum_exp, scratch);
}
