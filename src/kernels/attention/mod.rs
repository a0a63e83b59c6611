//! Causal attention in tiles of [`KEY_TILE`] keys at absolute positions: no [T, T] matrix.
//!
//! A unit of work is a block of query rows and one key-value head with its group of query heads (multi-head attention is a
//! group of one). Softmax is the online one of Milakov and Gimelshein (2018), tiled as in FlashAttention (Dao et al., 2022).
//!
//! A row has the same bits alone, in any block, and for any number of workers. A score is a fixed number of chains over the head's elements
//! ([`chains`]; over bf16 pairs one). A tile's part of a result is one chain over its keys in ascending order, its exponentials refer to the
//! tile's own maximum, and parts are merged in the order of tiles ([`running`]), as they come or by whoever has them all ([`parts`]).
//!
//! Keys and values in f16 and bf16 are widened to f32. Where [`Isa::uses_bf16_dots`](super::isa::Isa::uses_bf16_dots), the products over those in
//! bf16 are dot products of pairs with f32 sums instead: queries and probabilities are rounded to bf16, and the softmax stays in f32.

mod ahead;
mod backward;
mod backward_rows;
mod backward_scratch;
mod call;
mod chains;
mod direct;
mod direct_pairs;
mod forward;
mod load;
mod online_softmax;
mod pairs;
mod parts;
mod query_rows;
mod running;
mod tile;

pub use backward::{AttentionPart, AttentionSaved, attention_backward};
pub use backward_scratch::{TILE as GRADIENT_TILE, attention_backward_scratch};
pub use call::{AttentionInput, attention_forward, attention_forward_heads, attention_forward_scratch};
pub use forward::Around;
pub use parts::{
    MERGED_HEADS, attention_part_floats, attention_parts, merge_attention_parts, merge_scratch, parts_heads,
};
pub use tile::KEY_TILE;

/// Query rows of a unit of work that make a good size, whose vectors share each tile that is brought into the layouts of products, for `group`
/// query heads per key-value head.
pub const fn query_rows(group: usize) -> usize {
    match group {
        0..=1 => 128,
        2..=4 => 64,
        _ => 32,
    }
}

/// Adjacent key-value heads of a unit of work of `rows` query rows of a sequence, so that its `kv_heads` make at least `units` units if they can.
///
/// With many rows it is one, so that its scratch stays in the cache; with so few that reading keys and values takes the time as many as
/// possible, since their parts of a row lie together. Either way the scratch of [`query_rows`] rows of one head is enough.
pub fn unit_heads(rows: usize, group: usize, kv_heads: usize, units: usize) -> usize {
    let vectors = (rows * group).max(1);
    if vectors > tile::BLOCK_ROWS {
        return 1;
    }
    let most = (kv_heads / units.max(1)).clamp(1, tile::SPAN / vectors);
    (1..=most).rev().find(|heads| kv_heads.is_multiple_of(*heads)).expect("1 divides everything")
}

#[cfg(test)]
mod backward_tests;
#[cfg(test)]
mod tests;
