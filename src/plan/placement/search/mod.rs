//! Exact branch and bound: is there a placement of at most a given height?
//!
//! Items are stacked upward, as in the skyline methods of rectangle packing; positions in time being given, only the
//! order of stacking is open. A *valley* is a run of sections at one floor between higher ones. In a bottom-justified
//! placement, and any can be made so, the lowest item still to come over a section of a valley either lies inside the valley and on its
//! floor, or is above something that will lie there beside the section. So one branches over one section of one valley:
//! each item that fits inside the valley over it, and last none of them, which lifts the floor of the section. The
//! section with the fewest branches is taken, most often one without room to spare, where nothing may be wasted.
//!
//! * Propagation ([`state`]) infers floors of sections from lowest offsets of items and back, with undo by trail.
//! * Where no unplaced item crosses a boundary between sections, both sides are solved on their own.
//! * What failed is remembered by unplaced items and floors ([`memo`]), across strategies, since a failure is a proof.
//! * Items equal in lifespan, size and alignment are placed in input order.
//! * Restarts over several [`strategy`]s make up for the heavy tail of depth-first search.
//!
//! Ideas from MiniMalloc (Moffitt, 2023: section inference, canonical order, decomposition) and OmniMalloc's
//! SuperMalloc (symmetry, restarts over orders).

mod branch;
mod memo;
mod model;
mod state;
mod strategy;

use super::clock::Clock;
use super::problem::Problem;
use branch::{Brancher, Outcome};
use memo::Memo;
use model::Model;
use state::State;
use strategy::Strategy;

/// The answer of one run.
pub(super) enum Answer {
    /// Offsets of a placement within the height.
    Placed(Vec<u64>),
    /// Proof that there is none.
    Impossible,
    /// Not found within the limit.
    Unknown,
}

/// Items up to which the search is worth its quadratic tables.
pub(super) const MOST_ITEMS: usize = 4000;
/// Items up to which a node costs one unit of effort; twice as many make it twice as dear.
const NODE_ITEMS: u64 = 256;

/// The search over one problem; keeps what it learns between runs.
pub(super) struct Search {
    model: Model,
    memo: Memo,
    node_cost: u64,
    /// Branches that failed at once, by the section that overflowed.
    pub failures: Vec<u64>,
}

impl Search {
    pub fn new(problem: &Problem) -> Self {
        let node_cost = (problem.items.len() as u64 / NODE_ITEMS).max(1);
        Self { model: Model::new(problem), memo: Memo::new(), node_cost, failures: vec![0; problem.load.len()] }
    }

    /// Looks for a placement of at most `height` in at most `limit` nodes.
    pub fn run(&mut self, height: u64, strategy: u64, limit: u64, clock: &mut Clock) -> Answer {
        let Ok(state) = State::new(&self.model, height) else { return Answer::Impossible };
        let strategy = Strategy::new(&self.model, strategy, &self.failures);
        let limit = limit.min(clock.left.div_ceil(self.node_cost));
        let mut brancher = Brancher::new(state, &strategy, &mut self.memo, &mut self.failures, limit);
        let outcome = brancher.run(clock);
        clock.charge(brancher.nodes, self.node_cost);
        match outcome {
            Outcome::Placed => Answer::Placed(brancher.into_offsets()),
            Outcome::Impossible => Answer::Impossible,
            Outcome::Stopped => Answer::Unknown,
        }
    }
}
