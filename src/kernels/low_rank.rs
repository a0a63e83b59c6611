//! Products with a thin matrix of few rows, the rank of an adapter: nothing is packed, each operand is read where it is.
//!
//! | product | what | reads |
//! | --- | --- | --- |
//! | [`project`] | `out[t, j] = factor · Σ_k x[t, k] · a[j, k]` | both along their rows |
//! | [`add_product`] | `y[t, c] += Σ_j factor · low[t, j] · b[j, c]` | b along its rows |
//! | [`outer_sums`] | `out[j, c] (+)= Σ_t factor · low[t, j] · x[t, c]` | x along its rows |
//!
//! **Order of accumulation.** `project`: one chain for each lane over ascending k, then the lanes by halving. The others: one chain over
//! ascending j or t. An element has the same bits in any block, tile or call.

mod add_product;
mod blocks;
mod outer_sums;
mod project;

pub use add_product::add_product;
pub use outer_sums::{COLUMNS, outer_sums};
pub use project::project;

/// Thin rows that are multiplied side by side.
const THIN: usize = 8;

#[cfg(test)]
mod tests;
