//! From settings to the plan that is trained.

use super::settings::{Adapters, Precision, Settings};
use crate::error::Result;
use crate::graph::Graph;
use crate::passes::lora::{self, Lora};
use crate::passes::{self, Mode, fuse_optimizer, storage};
use crate::plan::budget::{self, Choice, FuseOptimizer};
use crate::plan::{self, Plan};

/// A training plan.
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// With a budget: the choices there were, least arithmetic first, and the one that was taken.
    pub budget: Option<(Vec<Choice>, Choice)>,
}

/// The graph that is trained and that gives samples: the model's, with adapters where the settings say so.
///
/// # Errors
/// As [`Adapters::attach`].
pub fn adapted(graph: &Graph, settings: &Settings) -> Result<Graph> {
    settings.lora.as_ref().map_or_else(|| Ok(graph.clone()), |adapters| adapters.attach(graph))
}

impl Adapters {
    /// A model's graph with these adapters; its own parameters are frozen.
    ///
    /// # Errors
    /// Targets that are no linears of the model.
    pub fn attach(&self, graph: &Graph) -> Result<Graph> {
        let Adapters { rank, alpha, targets, base_type } = self.clone();
        let graph = lora::attach(graph, &Lora { rank, alpha, modules: targets })?;
        Ok(if base_type == Precision::Bf16 { storage::narrow_frozen(graph) } else { graph })
    }
}

/// Plans the training of a graph that gives logits, for `threads` threads. Adapters, which are for little memory, get a frugal plan unless a
/// budget says otherwise. With a budget the compiler also decides whether updates run
/// inside backward, where clipping and accumulation allow it.
///
/// # Errors
/// What a pass or the planner refuses; a budget that nothing fits.
pub fn plan(graph: &Graph, settings: &Settings, threads: usize) -> Result<Planned> {
    let graph = passes::train(graph, &settings.training())?;
    let (capacity, planning) = (settings.capacity(), &settings.planning);
    let Some(bytes) = planning.memory_budget else {
        let graph = if planning.fuse_optimizer { fuse_optimizer::run(graph)? } else { graph };
        let plan = match settings.lora {
            Some(_) => budget::frugal(&graph, capacity)?,
            None => plan::compile(graph, Mode::Train, capacity)?,
        };
        return Ok(Planned { plan, budget: None });
    };
    let fuse = match planning.fuse_optimizer {
        true => FuseOptimizer::Always,
        false if settings.clip > 0.0 || settings.accumulate > 1 => FuseOptimizer::Never,
        false => FuseOptimizer::WhereItHelps,
    };
    let fitted = budget::fit(graph, capacity, bytes, threads, fuse)?;
    Ok(Planned { plan: fitted.plan, budget: Some((fitted.curve, fitted.choice)) })
}
