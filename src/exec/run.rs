//! Some of an executor's phases as a job of the workers, and phases that run as one.

use super::Executor;
use super::workers::{self, Job};
use crate::ops::NO_MEMORY;
use std::ops::Range;

/// Phases that run as one (see [`super::bind::runs`]): their tiles follow each other.
#[derive(Clone)]
pub(super) struct Together {
    pub phases: Range<usize>,
    /// Where the tiles of this phase are among those of all; empty for a phase that runs alone, whose tiles may depend on the rows.
    pub tiles: Range<usize>,
}

impl Together {
    /// Phases that run alone.
    pub fn alone(phases: usize) -> Vec<Together> {
        (0..phases).map(|p| Together { phases: p..p + 1, tiles: 0..0 }).collect()
    }
}

/// Phases after a phase among which what is read next is looked for: between two products lie attention, of two phases, and the preparation of
/// rows.
const PHASES_AHEAD: usize = 5;
/// Rows of a step up to which reading weights takes longer than the arithmetic.
const MOST_ROWS_OF_SHORT_PHASES: usize = 4;
/// Most bytes that a waiting worker fetches: what its second-level cache holds beside the rest.
const SOON_BYTES: usize = 256 << 10;

/// Some of an executor's phases, as the workers see them.
pub(super) struct Run<'a, 'w> {
    pub exec: &'a Executor<'w>,
    /// The first phase, and how many.
    pub first: usize,
    pub count: usize,
}

impl Run<'_, '_> {
    /// Those of the job's phases that run together with phase `phase`, as the executor numbers them.
    fn together(&self, phase: usize) -> Range<usize> {
        let all = &self.exec.together[self.first + phase].phases;
        all.start.max(self.first)..all.end.min(self.first + self.count)
    }

    fn run_phase(&self, phase: usize, tiles: Range<usize>, worker: usize) {
        let (node, phase) = self.exec.phases[phase];
        self.exec.kernels[node as usize].run_tiles(&self.exec.operands(node as usize, worker), phase as usize, tiles);
    }
}

impl Job for Run<'_, '_> {
    fn phases(&self) -> usize {
        self.count
    }

    /// Of phases that run together the first has the tiles of all.
    fn tiles(&self, phase: usize) -> usize {
        let (phase, phases) = (self.first + phase, self.together(phase));
        if phases.len() == 1 {
            let (node, phase) = self.exec.phases[phase];
            return self.exec.kernels[node as usize].tiles(&self.exec.operands(node as usize, 0), phase as usize);
        }
        let tiles = |p: usize| &self.exec.together[p].tiles;
        if phases.start == phase { tiles(phases.end - 1).end - tiles(phase).start } else { 0 }
    }

    fn run(&self, phase: usize, tiles: Range<usize>, worker: usize) {
        let phases = self.together(phase);
        if phases.len() == 1 {
            return self.run_phase(phases.start, tiles, worker);
        }
        let together = &self.exec.together[phases.clone()];
        let first = together[0].tiles.start;
        let tiles = first + tiles.start..first + tiles.end;
        let skipped = together.partition_point(|t| t.tiles.end <= tiles.start);
        for (p, t) in phases.zip(together).skip(skipped) {
            if t.tiles.start >= tiles.end {
                return;
            }
            let here = tiles.start.max(t.tiles.start)..tiles.end.min(t.tiles.end);
            self.run_phase(p, here.start - t.tiles.start..here.end - t.tiles.start, worker);
        }
    }

    /// A step of few rows has phases of microseconds, in which claims take a part of the time.
    fn claims(&self) -> usize {
        if self.exec.rows.new.len() <= MOST_ROWS_OF_SHORT_PHASES { 2 } else { workers::CLAIMS }
    }

    /// What the next of the phases that say so reads first; after the last comes the first, as the next call is probably alike.
    fn soon(&self, phase: usize, worker: usize) -> Range<*const u8> {
        let memory = |ahead| {
            let (node, phase) = self.exec.phases[self.first + (phase + ahead) % self.count];
            let (kernel, o) = (&self.exec.kernels[node as usize], self.exec.operands(node as usize, worker));
            let first = workers::run_start(kernel.tiles(&o, phase as usize), worker, self.exec.threads());
            let memory = kernel.memory_from(&o, phase as usize, first);
            memory.start..memory.end.min(memory.start.wrapping_add(SOON_BYTES))
        };
        (1..=PHASES_AHEAD).map(memory).find(|m| m.start < m.end).unwrap_or(NO_MEMORY)
    }

    fn phase_done(&self, phase: usize) {
        if let Some(profile) = &self.exec.profile {
            profile.add(self.exec.phases[self.first + phase].0 as usize);
        }
    }
}
