//! Numeric code on views: no graph types. Each kernel has a portable version beside its SIMD ones.

pub mod isa;
pub mod philox;
pub mod quant;
pub mod view;
