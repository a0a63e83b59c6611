//! Options of `train` that decide how much memory a step takes.

use super::super::size;
use crate::train::Planning;
use clap::Args;

/// Options that decide how much memory a step takes, and no number; a resumed run may change them.
#[derive(Args)]
pub struct PlanningArgs {
    /// Update each parameter inside backward, as soon as its gradient is complete, and free the gradient at once (needs --clip 0 and no
    /// accumulation).
    #[arg(long)]
    fuse_optimizer: bool,
    /// Recompute what it takes to keep activations, gradients and scratch of a step within SIZE (1GiB, 500MiB, bytes).
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory_budget: Option<u64>,
}

impl PlanningArgs {
    /// What the options say; where they say nothing, as before.
    pub fn over(&self, before: Planning) -> Planning {
        Planning {
            fuse_optimizer: self.fuse_optimizer || before.fuse_optimizer,
            memory_budget: self.memory_budget.or(before.memory_budget),
        }
    }
}
