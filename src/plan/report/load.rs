//! The load curve: transient bytes live at each step, its peak, and what lives there.

use super::{BufferRow, NodeRow, Region};
use serde::Serialize;
use std::cmp::Reverse;

/// Transient bytes live at each step, sizes rounded up to the alignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// One value per step; at least one.
    pub bytes: Vec<u64>,
}

/// Where the load is highest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// The first step of highest load.
    pub step: u32,
    /// Node of that step; none in an empty schedule.
    pub node: Option<String>,
    /// Transient bytes live then.
    pub bytes: u64,
    /// Transient buffers live then, largest first, and of equal ones those first that were born first.
    pub buffers: Vec<PeakBuffer>,
}

/// A buffer that is live at the peak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeakBuffer {
    /// Its id.
    pub id: String,
    /// Bytes, rounded up to the alignment.
    pub bytes: u64,
    /// Highest load if this buffer were not there.
    pub without: u64,
}

impl Load {
    /// The curve of a table of buffers over `steps` steps.
    pub fn of(buffers: &[BufferRow], steps: usize) -> Load {
        let mut change = vec![0i128; steps.max(1) + 1];
        for b in buffers.iter().filter(|b| b.region == Region::Transient) {
            change[b.lower as usize] += i128::from(b.padded());
            change[b.upper as usize] -= i128::from(b.padded());
        }
        let mut live = 0i128;
        let bytes = change[..steps.max(1)].iter().map(|c| {
            live += c;
            live as u64
        });
        Load { bytes: bytes.collect() }
    }

    /// First step of highest load, and that load.
    pub fn highest(&self) -> (u32, u64) {
        let best = self.bytes.iter().enumerate().max_by_key(|&(step, &bytes)| (bytes, std::cmp::Reverse(step)));
        best.map_or((0, 0), |(step, &bytes)| (step as u32, bytes))
    }

    /// Highest load if `b` were not there.
    pub fn without(&self, b: &BufferRow) -> u64 {
        let mine = |step: usize| if b.region == Region::Transient && b.live_at(step as u32) { b.padded() } else { 0 };
        self.bytes.iter().enumerate().map(|(step, &bytes)| bytes - mine(step)).max().unwrap_or(0)
    }

    /// The peak, with the buffers that are live there.
    pub fn peak(&self, buffers: &[BufferRow], nodes: &[NodeRow]) -> Peak {
        let (step, bytes) = self.highest();
        // Highest load before and from each step on, so that `without` need not walk the curve for every buffer.
        let running = |best: &mut u64, &bytes: &u64| {
            let before = *best;
            *best = before.max(bytes);
            Some(before)
        };
        let before: Vec<u64> = self.bytes.iter().scan(0, running).collect();
        let mut after: Vec<u64> = self.bytes.iter().rev().scan(0, running).collect();
        after.reverse();
        let live = buffers.iter().filter(|b| b.region == Region::Transient && b.live_at(step) && b.bytes > 0);
        let mut live: Vec<&BufferRow> = live.collect();
        live.sort_by_key(|b| (Reverse(b.padded()), b.lower, b.offset));
        let live = live
            .into_iter()
            .map(|b| {
                let outside = before[b.lower as usize].max(after[b.upper as usize - 1]);
                PeakBuffer { id: b.id.clone(), bytes: b.padded(), without: outside.max(bytes - b.padded()) }
            })
            .collect();
        Peak { step, node: nodes.get(step as usize).map(|n| n.name.clone()), bytes, buffers: live }
    }
}
