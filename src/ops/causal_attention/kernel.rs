//! The kernel of attention: units of rows and heads, or of keys where there is a single row.

use super::Heads;
use super::shared_keys::{Call, SharedKeys, scratch_floats};
use crate::kernels::attention::{
    Around, AttentionInput, KEY_TILE, MERGED_HEADS, attention_forward_heads, attention_forward_scratch,
    attention_part_floats, attention_parts, merge_attention_parts, merge_scratch, query_rows, unit_heads,
};
use crate::kernels::vector::stored::Stored;
use crate::kernels::view::View;
use crate::ops::tiling::part;
use crate::ops::{Capacity, KeptRows, Kernel, NO_MEMORY, Operands, Scratch, Segment};
use std::ops::Range;

pub struct AttentionKernel {
    pub heads: Heads,
    /// Whether the log of the sum of e^score is an output.
    pub save: bool,
}

/// A unit of work: rows of one segment, adjacent key-value heads with their query heads.
struct Unit {
    segment: Segment,
    /// Rows in the flat list.
    rows: Range<usize>,
    kv_heads: Range<usize>,
}

/// What the tiles of a phase are.
enum Work {
    /// Blocks of rows and heads.
    Blocks(Range<usize>),
    /// Tiles of keys of the only row, and heads of tiles that are split.
    Keys(SharedKeys, Range<usize>),
}

impl AttentionKernel {
    /// Key-value heads of a unit. The result has the same bits.
    fn unit_kv_heads(&self, o: &dyn Operands) -> usize {
        let segments = o.rows().segments();
        let most_rows = segments.iter().map(|s| s.count).max().unwrap_or(0);
        unit_heads(most_rows, self.heads.group(), self.heads.kv_heads, o.workers().div_ceil(segments.len().max(1)))
    }

    fn block_rows(&self) -> usize {
        query_rows(self.heads.group())
    }

    fn unit(&self, o: &dyn Operands, tile: usize) -> Unit {
        let size = self.unit_kv_heads(o);
        let per_block = self.heads.kv_heads / size;
        let (mut block, part) = (tile / per_block, tile % per_block);
        let kv_heads = part * size..(part + 1) * size;
        for &segment in o.rows().segments() {
            let blocks = segment.count.div_ceil(self.block_rows());
            if block < blocks {
                let first = segment.start + late_and_early(block, blocks) * self.block_rows();
                let rows = first..(first + self.block_rows()).min(segment.start + segment.count);
                return Unit { segment, rows, kv_heads };
            }
            block -= blocks;
        }
        unreachable!("tile {tile} beyond the rows of the call")
    }
}

/// Where the slot of a segment is among all rows that are kept.
fn slot_rows(o: &dyn Operands, segment: Segment) -> Range<usize> {
    segment.slot * o.context()..(segment.slot + 1) * o.context()
}

/// The block of rows with place `at` in the order of work: every second one from the last on, then the others from the last of them on. Late
/// blocks see more keys and take longer; so either half of the list goes from long to short, and workers end together.
fn late_and_early(at: usize, blocks: usize) -> usize {
    let half = blocks.div_ceil(2);
    if at < half { blocks - 1 - 2 * at } else { blocks - 2 - 2 * (at - half) }
}

impl Kernel for AttentionKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        let floats = attention_forward_scratch(self.block_rows(), self.heads.group(), self.heads.head_dim)
            .max(merge_scratch(self.heads.head_dim));
        let shared = if self.save { 0 } else { scratch_floats(&self.heads, capacity.context) };
        Scratch { shared: 4 * shared, per_worker: 4 * floats }
    }

    fn phases(&self) -> usize {
        2
    }

    /// The second phase merges the parts of shared keys, some heads in each tile.
    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        match (self.shared_keys(o), phase) {
            (Some(keys), 0) => keys.tiles(),
            (Some(_), _) => self.heads.heads.div_ceil(MERGED_HEADS),
            (None, 0) => {
                let blocks: usize = o.rows().segments().iter().map(|s| s.count.div_ceil(self.block_rows())).sum();
                blocks * (self.heads.kv_heads / self.unit_kv_heads(o))
            }
            (None, _) => 0,
        }
    }

    fn memory_from(&self, o: &dyn Operands, phase: usize, tile: usize) -> Range<*const u8> {
        let Some(shared) = self.shared_keys(o).filter(|_| phase == 0) else { return NO_MEMORY };
        let first = slot_rows(o, o.rows().segments()[0]).start + shared.key_tile(tile) * KEY_TILE;
        o.kept_memory(1, first)..o.kept_memory(1, first + KEY_TILE)
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        self.run_tiles(o, phase, tile..tile + 1);
    }

    fn run_tiles(&self, o: &dyn Operands, phase: usize, tiles: Range<usize>) {
        let work = match self.shared_keys(o) {
            Some(keys) if phase == 1 => return tiles.for_each(|tile| self.merge(o, &keys, tile)),
            Some(keys) => Work::Keys(keys, tiles),
            None => Work::Blocks(tiles),
        };
        match (o.kept(1), o.kept(2)) {
            (KeptRows::F32(keys), KeptRows::F32(values)) => self.attend(o, work, keys, values),
            (KeptRows::F16(keys), KeptRows::F16(values)) => self.attend(o, work, keys, values),
            (KeptRows::Bf16(keys), KeptRows::Bf16(values)) => self.attend(o, work, keys, values),
            _ => panic!("keys and values of attention differ in type"),
        }
    }
}

impl AttentionKernel {
    fn shared_keys(&self, o: &dyn Operands) -> Option<SharedKeys> {
        if self.save { None } else { SharedKeys::of(&self.heads, o.rows(), o.workers()) }
    }

    fn attend<E: Stored>(&self, o: &dyn Operands, work: Work, keys: View<E>, values: View<E>) {
        let (d, group) = (self.heads.head_dim, self.heads.group());
        let mut scratch = o.scratch();
        let scratch = scratch.row_mut(0);
        let input = |unit: &Unit| {
            let (heads, kv_heads) = (unit.heads(group), unit.kv_heads.clone());
            let slot = slot_rows(o, unit.segment);
            AttentionInput {
                q: o.input(0).slice_rows(unit.rows.clone()).columns(heads.start * d, heads.len() * d),
                positions: &o.rows().positions()[unit.rows.clone()],
                keys: keys.slice_rows(slot.clone()).columns(kv_heads.start * d, kv_heads.len() * d),
                values: values.slice_rows(slot).columns(kv_heads.start * d, kv_heads.len() * d),
                head_dim: d,
                scale: 1.0 / (d as f32).sqrt(),
            }
        };
        match work {
            Work::Blocks(tiles) => {
                for unit in tiles.map(|tile| self.unit(o, tile)) {
                    let (rows, heads) = (unit.rows.clone(), unit.heads(group));
                    let mut out = o.fresh_output(0, rows.clone(), heads.start * d..heads.end * d);
                    let mut log_sum_exp = self.save.then(|| o.output(1, rows, heads));
                    attention_forward_heads(o.isa(), &input(&unit), &mut out, log_sum_exp.as_mut(), scratch);
                }
            }
            Work::Keys(shared, tiles) => {
                let segment = o.rows().segments()[0];
                let slot = slot_rows(o, segment);
                shared.for_each_call(tiles, |Call { tiles, heads: kv_heads }, around| {
                    let unit = Unit { segment, rows: segment.start..segment.start + 1, kv_heads };
                    let then = around.then.map(|call| {
                        let first = slot.start + call.tiles.start * KEY_TILE;
                        keys.slice_rows(first..slot.end.min(first + KEY_TILE))
                            .columns(call.heads.start * d, call.heads.len() * d)
                    });
                    let (heads, floats) = (unit.heads(group), attention_part_floats(1, d));
                    let columns = heads.start * floats..heads.end * floats;
                    let mut parts = o.shared_block(0, self.heads.heads * floats, tiles.clone(), columns);
                    let around = Around { begins: around.begins, then };
                    attention_parts(o.isa(), &input(&unit), tiles, around, &mut parts, scratch);
                });
            }
        }
    }

    fn merge(&self, o: &dyn Operands, keys: &SharedKeys, tile: usize) {
        let Heads { heads, head_dim: d, .. } = self.heads;
        let (mine, floats) = (part(tile, heads.div_ceil(MERGED_HEADS), heads), attention_part_floats(1, d));
        let parts =
            o.shared_rows(0, keys.key_tiles(), heads * floats).columns(mine.start * floats, mine.len() * floats);
        let mut out = o.fresh_output(0, 0..1, mine.start * d..mine.end * d);
        merge_attention_parts(o.isa(), &parts, d, &mut out, o.scratch().row_mut(0));
    }
}

impl Unit {
    fn heads(&self, group: usize) -> Range<usize> {
        self.kv_heads.start * group..self.kv_heads.end * group
    }
}

#[cfg(test)]
mod tests {
    use super::late_and_early;

    #[test]
    fn every_block_has_one_place_and_halves_go_from_late_to_early() {
        assert_eq!((0..5).map(|at| late_and_early(at, 5)).collect::<Vec<_>>(), [4, 2, 0, 3, 1]);
        for blocks in 1..40 {
            let mut order: Vec<usize> = (0..blocks).map(|at| late_and_early(at, blocks)).collect();
            let half = blocks.div_ceil(2);
            assert!(order[..half].is_sorted_by(|a, b| a > b) && order[half..].is_sorted_by(|a, b| a > b), "{order:?}");
            order.sort_unstable();
            assert_eq!(order, (0..blocks).collect::<Vec<_>>());
        }
    }
}
