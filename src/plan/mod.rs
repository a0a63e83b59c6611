//! From a scheduled graph to offsets in one arena.

pub mod placement;
