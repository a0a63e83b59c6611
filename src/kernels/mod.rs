//! Numeric code on views: no graph types. Each kernel has a portable version beside its SIMD ones.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(
        dead_code,
        unused_imports,
        unused_mut,
        unused_variables,
        reason = "what kernels of x86 alone use is written once for all"
    )
)]

pub mod activation;
pub mod adamw;
pub mod attention;
pub mod dropout;
pub mod elementwise;
pub mod gemm;
mod interleave;
pub mod isa;
pub mod linear;
pub mod low_rank;
pub mod narrow;
pub mod norm;
pub mod norm_backward;
pub mod param;
pub mod philox;
pub mod quant;
pub mod reduce;
pub mod roofline;
pub mod rope;
pub mod softmax;
pub mod square_sum;
pub(crate) mod stream;
#[cfg(target_arch = "x86_64")]
mod tiles;
pub mod vector;
pub mod view;
