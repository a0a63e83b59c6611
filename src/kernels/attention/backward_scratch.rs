//! The scratch that gradients of attention are computed in.

use super::tile::padded;

/// Keys of a tile, fewer than those of the forward pass, as there is more to keep in a cache; and query rows of a tile pair: as many, so that only
/// pairs on the diagonal are cut by causality.
pub const TILE: usize = 64;

/// Query blocks that are packed together and meet a key tile while it is packed, so that rows that lie far apart are read once
/// for many pairs; with heads of 64 all that is packed takes half a MiB of the second-level cache.
pub const SPAN_BLOCKS: usize = 8;

/// Floats of scratch that [`attention_backward`](super::attention_backward) needs.
pub const fn attention_backward_scratch(head_dim: usize) -> usize {
    2 * head_dim * TILE
        + 3 * TILE * padded(head_dim)
        + SPAN_BLOCKS * (3 * TILE * padded(head_dim) + 2 * TILE)
        + 2 * TILE * TILE
}

/// The scratch of one call, cut up. Row-major tiles have rows of padded(D); transposed ones rows of TILE. What belongs to query
/// rows holds [`SPAN_BLOCKS`] blocks.
#[derive(Clone, Copy)]
pub struct Parts {
    pub keys_transposed: *mut f32,
    pub values_transposed: *mut f32,
    /// Keys times scale.
    pub keys: *mut f32,
    pub d_keys: *mut f32,
    pub d_values: *mut f32,
    /// Queries times scale.
    pub q: *mut f32,
    pub d_out: *mut f32,
    pub d_q: *mut f32,
    pub probabilities: *mut f32,
    /// dP, then dS.
    pub d_scores: *mut f32,
    pub log_sum_exp: *mut f32,
    /// Σ d_out · out of each row.
    pub delta: *mut f32,
}

impl Parts {
    /// Cuts `scratch`, at least [`attention_backward_scratch`] floats, for heads of `d`.
    #[inline(always)]
    pub fn new(scratch: &mut [f32], d: usize) -> Self {
        assert!(scratch.len() >= attention_backward_scratch(d), "attention scratch of {} floats", scratch.len());
        let (across, along) = (d * TILE, TILE * padded(d));
        let mut rest = scratch.as_mut_ptr();
        let mut take = |len: usize| {
            let part = rest;
            rest = rest.wrapping_add(len);
            part
        };
        Parts {
            keys_transposed: take(across),
            values_transposed: take(across),
            keys: take(along),
            d_keys: take(along),
            d_values: take(along),
            q: take(SPAN_BLOCKS * along),
            d_out: take(SPAN_BLOCKS * along),
            d_q: take(SPAN_BLOCKS * along),
            probabilities: take(TILE * TILE),
            d_scores: take(TILE * TILE),
            log_sum_exp: take(SPAN_BLOCKS * TILE),
            delta: take(SPAN_BLOCKS * TILE),
        }
    }

    /// The parts with the query rows of block `slot` of the span.
    #[inline(always)]
    pub fn of_block(self, slot: usize, stride: usize) -> Self {
        let rows = slot * TILE;
        Parts {
            q: self.q.wrapping_add(rows * stride),
            d_out: self.d_out.wrapping_add(rows * stride),
            d_q: self.d_q.wrapping_add(rows * stride),
            log_sum_exp: self.log_sum_exp.wrapping_add(rows),
            delta: self.delta.wrapping_add(rows),
            ..self
        }
    }
}
