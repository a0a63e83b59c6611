//! Checks the input and reduces it to what the algorithms work on.
//!
//! Steps are compressed to *sections*: the steps at which the set of live buffers is maximal. Two buffers overlap if
//! and only if they share a section, and the load is highest in one, so nothing else of the time axis matters. Bytes are divided by
//! the greatest unit that every sum of sizes is a multiple of.

use crate::error::{Error, Result};

use super::Buffer;

/// A buffer in compressed coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// First section in which it is live.
    pub first: u32,
    /// One past the last section in which it is live.
    pub last: u32,
    /// Extent in units, at least 1.
    pub size: u64,
    /// Alignment in units, a power of two.
    pub align: u64,
    /// Pre-placed offset in units.
    pub fixed: Option<u64>,
}

impl Item {
    /// The lowest legal offset at or above `offset`, fixed offsets aside.
    pub fn align_up(&self, offset: u64) -> u64 {
        (offset + self.align - 1) & !(self.align - 1)
    }
}

/// A checked instance. Sums of sizes stay far below `u64::MAX`.
pub(super) struct Problem {
    /// The buffers of at least one byte.
    pub items: Vec<Item>,
    /// Position in the input of each item.
    pub source: Vec<u32>,
    /// Load of each section in units.
    pub load: Vec<u64>,
    /// Bytes per unit.
    pub unit: u64,
    /// Lower bound of the arena in units.
    pub bound: u64,
}

impl Problem {
    pub fn new(buffers: &[Buffer]) -> Result<Self> {
        check(buffers)?;
        let source: Vec<u32> = (0..buffers.len() as u32).filter(|&i| buffers[i as usize].size > 0).collect();
        let unit = unit(source.iter().map(|&i| &buffers[i as usize]));
        let mut items: Vec<Item> = source
            .iter()
            .map(|&i| {
                let b = &buffers[i as usize];
                let align = (b.align / gcd(b.align, unit)).max(1);
                Item { first: 0, last: 0, size: b.size / unit, align, fixed: b.fixed.map(|offset| offset / unit) }
            })
            .collect();
        let load = assign_sections(&mut items, |k| {
            let b = &buffers[source[k] as usize];
            (b.lower, b.upper)
        });
        let ends = items.iter().filter_map(|item| Some(item.fixed? + item.size)).max().unwrap_or(0);
        let bound = load.iter().copied().max().unwrap_or(0).max(ends);
        Ok(Self { items, source, load, unit, bound })
    }

    /// The height of a complete placement of the items, in units.
    pub fn height(&self, offsets: &[u64]) -> u64 {
        self.items.iter().zip(offsets).map(|(item, offset)| offset + item.size).max().unwrap_or(0)
    }
}

fn check(buffers: &[Buffer]) -> Result<()> {
    let plan = |text: String| Err(Error::Plan(text));
    if buffers.len() > u32::MAX as usize {
        return plan(format!("{} buffers: at most {} can be placed", buffers.len(), u32::MAX));
    }
    let (mut total, mut highest) = (0u128, 0u128);
    for (i, b) in buffers.iter().enumerate() {
        if b.upper <= b.lower {
            return plan(format!("buffer {i}: lifespan [{}, {}) is empty; upper must exceed lower", b.lower, b.upper));
        }
        if !b.align.is_power_of_two() {
            return plan(format!("buffer {i}: alignment {} is not a power of two", b.align));
        }
        total += u128::from(b.size) + u128::from(b.align - 1);
        if let Some(offset) = b.fixed {
            if offset % b.align != 0 {
                return plan(format!(
                    "buffer {i}: fixed offset {offset} is not a multiple of its alignment {}",
                    b.align
                ));
            }
            highest = highest.max(u128::from(offset) + u128::from(b.size));
        }
    }
    if total + highest > i64::MAX as u128 {
        return plan("sizes and fixed offsets add up to 2^63 bytes or more".to_string());
    }
    fixed_are_disjoint(buffers)
}

/// Sweeps the pre-placed buffers over time, keeping those live ordered by offset.
fn fixed_are_disjoint(buffers: &[Buffer]) -> Result<()> {
    let mut events: Vec<(u64, bool, u64, usize)> = Vec::new();
    for (i, b) in buffers.iter().enumerate() {
        if let (Some(offset), true) = (b.fixed, b.size > 0) {
            events.push((b.upper, false, offset, i));
            events.push((b.lower, true, offset, i));
        }
    }
    events.sort_unstable();
    let mut live: std::collections::BTreeMap<u64, usize> = std::collections::BTreeMap::new();
    for (_, starts, offset, i) in events {
        if !starts {
            live.remove(&offset);
            continue;
        }
        let end = offset + buffers[i].size;
        if let Some((_, &other)) = live.range(..end).next_back()
            && offset < buffers[other].fixed.unwrap_or(0) + buffers[other].size
        {
            return Err(Error::Plan(format!(
                "buffers {} and {}: fixed offsets overlap while both are live",
                other.min(i),
                other.max(i)
            )));
        }
        live.insert(offset, i);
    }
    Ok(())
}

/// The greatest number of bytes that divides every offset a bottom-justified placement can have.
///
/// Every such offset is a sum of sizes (and fixed offsets), rounded up to alignments. An alignment that divides all sizes
/// rounds nothing; one that does not must itself be a multiple of the unit.
fn unit<'a>(buffers: impl Iterator<Item = &'a Buffer> + Clone) -> u64 {
    let sums = buffers.clone().fold(0, |unit, b| gcd(gcd(unit, b.size), b.fixed.unwrap_or(0)));
    let rounding = buffers.filter(|b| sums % b.align != 0);
    rounding.fold(sums, |unit, b| gcd(unit, b.align)).max(1)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Sets `first` and `last` of each item from its lifespan and returns the load of each section.
fn assign_sections(items: &mut [Item], lifespan: impl Fn(usize) -> (u64, u64)) -> Vec<u64> {
    let n = items.len() as u32;
    let mut starts: Vec<(u64, u32)> = (0..n).map(|k| (lifespan(k as usize).0, k)).collect();
    let mut ends: Vec<(u64, u32)> = (0..n).map(|k| (lifespan(k as usize).1, k)).collect();
    starts.sort_unstable();
    ends.sort_unstable();
    let (mut sections, mut load) = (Vec::new(), 0u64);
    let mut e = 0;
    let mut s = 0;
    while e < ends.len() {
        // All starts before the next end join the open section; that end closes it.
        while s < starts.len() && starts[s].0 < ends[e].0 {
            let k = starts[s].1 as usize;
            items[k].first = sections.len() as u32;
            load += items[k].size;
            s += 1;
        }
        sections.push(load);
        let until = starts.get(s).map_or(u64::MAX, |start| start.0);
        while e < ends.len() && ends[e].0 <= until {
            let k = ends[e].1 as usize;
            items[k].last = sections.len() as u32;
            load -= items[k].size;
            e += 1;
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_the_maximal_live_sets() {
        let spans = [(0, 10), (1, 3), (2, 4), (3, 5), (20, 30)];
        let buffers: Vec<Buffer> = spans.iter().map(|&(l, u)| Buffer::new(l, u, 6)).collect();
        let p = Problem::new(&buffers).expect("valid");
        let ranges: Vec<(u32, u32)> = p.items.iter().map(|i| (i.first, i.last)).collect();
        assert_eq!(ranges, [(0, 2), (0, 1), (0, 2), (1, 2), (2, 3)]);
        assert_eq!((p.load.as_slice(), p.unit), (&[3, 3, 1][..], 6));
    }

    #[test]
    fn overlap_is_the_same_in_sections_and_in_steps() {
        let buffers: Vec<Buffer> = (0..200u64)
            .map(|i| {
                let lower = i * 7919 % 97;
                Buffer::new(lower, lower + 1 + i * 104729 % 13, 1)
            })
            .collect();
        let p = Problem::new(&buffers).expect("valid");
        for (a, i) in buffers.iter().zip(&p.items) {
            for (b, j) in buffers.iter().zip(&p.items) {
                assert_eq!(a.lower < b.upper && b.lower < a.upper, i.first < j.last && j.first < i.last);
            }
        }
    }

    #[test]
    fn the_unit_respects_alignments() {
        let of = |buffers: &[Buffer]| unit(buffers.iter());
        assert_eq!(of(&[Buffer::new(0, 1, 96).aligned(16), Buffer::new(0, 1, 48)]), 48);
        assert_eq!(of(&[Buffer::new(0, 1, 96).aligned(64), Buffer::new(0, 1, 48)]), 16);
        assert_eq!(of(&[Buffer::new(0, 1, 96), Buffer::new(0, 1, 48).at(40)]), 8);
    }

    #[test]
    fn what_cannot_be_placed_is_refused() {
        let refuse = |buffers: &[Buffer], what: &str| {
            let text = Problem::new(buffers).err().expect("refused").to_string();
            assert!(text.contains(what), "{text}");
        };
        refuse(&[Buffer::new(3, 3, 1)], "empty");
        refuse(&[Buffer::new(4, 3, 1)], "empty");
        refuse(&[Buffer::new(0, 1, 1).aligned(3)], "power of two");
        refuse(&[Buffer::new(0, 1, 1).aligned(0)], "power of two");
        refuse(&[Buffer::new(0, 1, 1).aligned(8).at(4)], "multiple");
        refuse(&[Buffer::new(0, 1, u64::MAX), Buffer::new(0, 1, 1)], "2^63");
        refuse(&[Buffer::new(0, 1, 1).at(u64::MAX)], "2^63");
        refuse(&[Buffer::new(0, 2, 4).at(0), Buffer::new(1, 3, 4).at(3)], "overlap");
    }
}
