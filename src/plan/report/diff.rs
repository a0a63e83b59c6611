//! What changed from one plan to another.

use super::{BufferRow, Report};
use serde::Serialize;
use std::collections::BTreeMap;

/// A buffer that both plans have, in another size or at another place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BufferChange {
    /// Its id.
    pub id: String,
    /// Bytes before and after.
    pub bytes: (u64, u64),
    /// Offsets before and after.
    pub offset: (u64, u64),
    /// Lifespans before and after.
    pub lifespan: ((u32, u32), (u32, u32)),
}

/// Differences from plan A to plan B. Buffers are matched by id.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Buffers only in B, with their bytes.
    pub new: Vec<(String, u64)>,
    /// Buffers only in A, with their bytes.
    pub gone: Vec<(String, u64)>,
    /// Buffers of another size.
    pub resized: Vec<BufferChange>,
    /// Buffers of the same size at another offset.
    pub moved: Vec<BufferChange>,
    /// Buffers of the same size and offset with another lifespan.
    pub retimed: Vec<BufferChange>,
    /// Highest transient load, before and after.
    pub max_load: (u64, u64),
    /// Transient region, before and after.
    pub transient: (u64, u64),
    /// Persistent region, before and after.
    pub persistent: (u64, u64),
    /// Scratch per worker, before and after.
    pub scratch_per_worker: (u64, u64),
    /// Arena with one worker, before and after.
    pub arena: (u64, u64),
    /// Floating-point operations of one call, before and after.
    pub flops: (f64, f64),
    /// Steps, before and after.
    pub steps: (u32, u32),
}

impl Diff {
    /// Compares two reports.
    pub fn between(a: &Report, b: &Report) -> Diff {
        let before: BTreeMap<&str, &BufferRow> = a.buffers.iter().map(|x| (x.id.as_str(), x)).collect();
        let after: BTreeMap<&str, &BufferRow> = b.buffers.iter().map(|x| (x.id.as_str(), x)).collect();
        let only = |mine: &[BufferRow], other: &BTreeMap<&str, &BufferRow>| {
            let missing = mine.iter().filter(|x| !other.contains_key(x.id.as_str()));
            missing.map(|x| (x.id.clone(), x.bytes)).collect()
        };
        let (mut resized, mut moved, mut retimed) = (Vec::new(), Vec::new(), Vec::new());
        for y in &b.buffers {
            let Some(x) = before.get(y.id.as_str()) else { continue };
            let change = BufferChange {
                id: y.id.clone(),
                bytes: (x.bytes, y.bytes),
                offset: (x.offset, y.offset),
                lifespan: ((x.lower, x.upper), (y.lower, y.upper)),
            };
            if x.bytes != y.bytes {
                resized.push(change);
            } else if x.offset != y.offset {
                moved.push(change);
            } else if (x.lower, x.upper) != (y.lower, y.upper) {
                retimed.push(change);
            }
        }
        Diff {
            new: only(&b.buffers, &before),
            gone: only(&a.buffers, &after),
            resized,
            moved,
            retimed,
            max_load: (a.totals.max_load, b.totals.max_load),
            transient: (a.totals.transient, b.totals.transient),
            persistent: (a.totals.persistent, b.totals.persistent),
            scratch_per_worker: (a.totals.scratch_per_worker, b.totals.scratch_per_worker),
            arena: (a.totals.arena(1), b.totals.arena(1)),
            flops: (a.flops, b.flops),
            steps: (a.steps, b.steps),
        }
    }

    /// Whether B needs more memory than A: a higher load or a larger arena.
    pub fn peak_grew(&self) -> bool {
        self.max_load.1 > self.max_load.0 || self.arena.1 > self.arena.0
    }

    /// Whether the plans have the same buffers, sizes and arithmetic.
    pub fn is_empty(&self) -> bool {
        let lists = self.new.is_empty() && self.gone.is_empty() && self.resized.is_empty();
        lists && self.moved.is_empty() && self.retimed.is_empty() && self.arena.0 == self.arena.1 && {
            self.flops.0 == self.flops.1 && self.steps.0 == self.steps.1 && self.max_load.0 == self.max_load.1
        }
    }
}
