//! The stream that an optimiser is measured beside: on the threads of the trainer, cut up as the optimiser's own work.

use crate::exec::Executor;
use crate::exec::workers::Job;
use crate::kernels::isa::Isa;
use crate::kernels::roofline::{Streams, UpdatePart};
use std::ops::Range;
use std::time::Instant;

/// Elements of a tile: as many as one of the optimiser's.
const TILE: usize = 1 << 13;
/// Passes over the arrays that one measurement takes the mean of.
const PASSES: usize = 3;

/// Passes over arrays of which four are read and three written.
pub struct UpdateStream<'s> {
    parts: Vec<UpdatePart<'s>>,
    isa: Isa,
}

impl<'s> UpdateStream<'s> {
    /// A stream through the arrays of `streams`.
    pub fn new(streams: &'s mut Streams) -> Self {
        UpdateStream { parts: streams.update_parts(TILE), isa: Isa::current() }
    }

    /// Bytes a second that the executor's workers stream now, the mean of some passes.
    pub fn bandwidth(&self, executor: &Executor) -> f64 {
        let start = Instant::now();
        executor.run_job(self);
        (PASSES * Streams::UPDATE_BYTES) as f64 / start.elapsed().as_secs_f64()
    }
}

impl Job for UpdateStream<'_> {
    fn phases(&self) -> usize {
        PASSES
    }

    fn tiles(&self, _phase: usize) -> usize {
        self.parts.len()
    }

    fn run(&self, _phase: usize, tiles: Range<usize>, _worker: usize) {
        self.parts[tiles].iter().for_each(|part| part.update(self.isa));
    }
}
