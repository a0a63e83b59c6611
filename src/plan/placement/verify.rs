//! Whether a placement is legal: written on its own, so that it shares no mistake with what made the placement.

use std::collections::BTreeMap;
use std::fmt;

use super::Buffer;

/// What is wrong with a placement. Buffers are named by their position in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Another number of offsets than of buffers.
    WrongCount { buffers: usize, offsets: usize },
    /// A lifespan without a step.
    EmptyLifespan { buffer: usize },
    /// An alignment that is not a power of two.
    BadAlignment { buffer: usize, align: u64 },
    /// Offset plus size is not a 64-bit number.
    Overflow { buffer: usize, offset: u64 },
    /// The offset is no multiple of the alignment.
    Misaligned { buffer: usize, offset: u64, align: u64 },
    /// A pre-placed buffer is somewhere else.
    FixedMoved { buffer: usize, offset: u64, fixed: u64 },
    /// The buffer ends above the arena.
    BeyondArena { buffer: usize, end: u64, arena: u64 },
    /// Two buffers share a byte at a step; `first < second`.
    Overlap { first: usize, second: usize },
}

impl Violation {
    /// The class of the violation, for reports and tests.
    pub fn name(&self) -> &'static str {
        match self {
            Violation::WrongCount { .. } => "wrong count",
            Violation::EmptyLifespan { .. } => "empty lifespan",
            Violation::BadAlignment { .. } => "bad alignment",
            Violation::Overflow { .. } => "overflow",
            Violation::Misaligned { .. } => "misaligned",
            Violation::FixedMoved { .. } => "fixed moved",
            Violation::BeyondArena { .. } => "beyond arena",
            Violation::Overlap { .. } => "overlap",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Violation::WrongCount { buffers, offsets } => write!(f, "{buffers} buffers but {offsets} offsets"),
            Violation::EmptyLifespan { buffer } => write!(f, "buffer {buffer} is live at no step"),
            Violation::BadAlignment { buffer, align } => {
                write!(f, "buffer {buffer} asks for alignment {align}, not a power of two")
            }
            Violation::Overflow { buffer, offset } => write!(f, "buffer {buffer} at offset {offset} ends beyond 2^64"),
            Violation::Misaligned { buffer, offset, align } => {
                write!(f, "buffer {buffer} at offset {offset} is not aligned to {align}")
            }
            Violation::FixedMoved { buffer, offset, fixed } => {
                write!(f, "buffer {buffer} is at offset {offset} but fixed at {fixed}")
            }
            Violation::BeyondArena { buffer, end, arena } => {
                write!(f, "buffer {buffer} ends at byte {end} of an arena of {arena}")
            }
            Violation::Overlap { first, second } => {
                write!(f, "buffers {first} and {second} share bytes while both are live")
            }
        }
    }
}

impl std::error::Error for Violation {}

/// Checks that every buffer has a legal offset within `arena` bytes and that no two share a byte while both are live. O(n log n).
///
/// # Errors
/// The first violation found: those of a single buffer in input order, then overlaps in order of time.
pub fn verify(buffers: &[Buffer], offsets: &[u64], arena: u64) -> Result<(), Violation> {
    each_alone(buffers, offsets, arena)?;
    // Sweep over time; at equal steps deaths come before births. Those live are disjoint, hence ordered by offset.
    let mut events = Vec::with_capacity(2 * buffers.len());
    for (i, b) in buffers.iter().enumerate().filter(|(_, b)| b.size > 0) {
        events.push((b.lower, true, i));
        events.push((b.upper, false, i));
    }
    events.sort_unstable();
    let mut live: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, born, i) in events {
        let (start, end) = (offsets[i], offsets[i] + buffers[i].size);
        if !born {
            live.remove(&start);
            continue;
        }
        // The highest buffer that starts below our end is the only one that can reach into us.
        if let Some((&below, &other)) = live.range(..end).next_back()
            && below + buffers[other].size > start
        {
            return Err(Violation::Overlap { first: i.min(other), second: i.max(other) });
        }
        live.insert(start, i);
    }
    Ok(())
}

/// What can be said of each buffer without looking at the others.
fn each_alone(buffers: &[Buffer], offsets: &[u64], arena: u64) -> Result<(), Violation> {
    if buffers.len() != offsets.len() {
        return Err(Violation::WrongCount { buffers: buffers.len(), offsets: offsets.len() });
    }
    for (buffer, (b, &offset)) in buffers.iter().zip(offsets).enumerate() {
        if b.lower >= b.upper {
            return Err(Violation::EmptyLifespan { buffer });
        }
        if !b.align.is_power_of_two() {
            return Err(Violation::BadAlignment { buffer, align: b.align });
        }
        let Some(end) = offset.checked_add(b.size) else { return Err(Violation::Overflow { buffer, offset }) };
        if offset & (b.align - 1) != 0 {
            return Err(Violation::Misaligned { buffer, offset, align: b.align });
        }
        if let Some(fixed) = b.fixed.filter(|&fixed| fixed != offset) {
            return Err(Violation::FixedMoved { buffer, offset, fixed });
        }
        if end > arena {
            return Err(Violation::BeyondArena { buffer, end, arena });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, pair by pair.
    fn verify_pairs(buffers: &[Buffer], offsets: &[u64], arena: u64) -> Result<(), Violation> {
        each_alone(buffers, offsets, arena)?;
        for first in 0..buffers.len() {
            for second in first + 1..buffers.len() {
                let (a, b) = (&buffers[first], &buffers[second]);
                let (x, y) = (offsets[first], offsets[second]);
                let shares_step = a.lower.max(b.lower) < a.upper.min(b.upper);
                let shares_byte = x.max(y) < (x + a.size).min(y + b.size);
                if shares_step && shares_byte {
                    return Err(Violation::Overlap { first, second });
                }
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_sweep_agrees_with_all_pairs(
            spans in prop::collection::vec((0u64..12, 1u64..6, 0u64..5, 0u64..14), 0..9),
        ) {
            let buffers: Vec<Buffer> = spans.iter().map(|&(l, d, size, _)| Buffer::new(l, l + d, size)).collect();
            let offsets: Vec<u64> = spans.iter().map(|&(.., offset)| offset).collect();
            let name = |r: Result<(), Violation>| r.err().map(|v| v.name());
            prop_assert_eq!(name(verify(&buffers, &offsets, 15)), name(verify_pairs(&buffers, &offsets, 15)));
        }
    }

    fn legal() -> (Vec<Buffer>, Vec<u64>, u64) {
        let buffers = vec![
            Buffer::new(0, 4, 64).aligned(64),
            Buffer::new(2, 6, 32),
            Buffer::new(4, 8, 64).aligned(64),
            Buffer::new(5, 9, 16).at(112),
            Buffer::new(0, 9, 0),
        ];
        (buffers, vec![0, 64, 0, 112, 0], 128)
    }

    /// Each way to break a plan is caught by name.
    #[test]
    fn every_mutation_is_named() {
        type Mutation = fn(&mut Vec<Buffer>, &mut Vec<u64>, &mut u64);
        let mutations: [(&str, Mutation); 10] = [
            ("wrong count", |_, offsets, _| offsets.truncate(4)),
            ("empty lifespan", |b, _, _| b[1].upper = b[1].lower),
            ("bad alignment", |b, _, _| b[1].align = 24),
            ("overflow", |_, offsets, _| offsets[1] = u64::MAX - 3),
            ("misaligned", |_, offsets, _| offsets[2] = 32),
            ("fixed moved", |_, offsets, _| offsets[3] = 96),
            ("beyond arena", |_, _, arena| *arena = 127),
            ("beyond arena", |_, offsets, _| offsets[1] = 97),
            ("overlap", |_, offsets, _| offsets[1] = 63),
            ("overlap", |b, _, _| b[0].upper = 5),
        ];
        let (buffers, offsets, arena) = legal();
        assert_eq!(verify(&buffers, &offsets, arena), Ok(()));
        for (name, mutate) in mutations {
            let (mut buffers, mut offsets, mut arena) = legal();
            mutate(&mut buffers, &mut offsets, &mut arena);
            let violation = verify(&buffers, &offsets, arena).expect_err(name);
            assert_eq!(violation.name(), name);
            assert!(violation.to_string().starts_with(name));
        }
    }
}
