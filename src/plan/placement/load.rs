//! The load curve: bytes live at each step.

use super::Buffer;

/// Most bytes live at one step; saturates at `u64::MAX`. The lower bound of every arena. O(n log n).
pub fn max_load(buffers: &[Buffer]) -> u64 {
    peak(buffers).1
}

/// The first step of highest load, and that load in bytes. `(0, 0)` where nothing is ever live.
pub fn peak(buffers: &[Buffer]) -> (u64, u64) {
    let live = || buffers.iter().filter(|b| b.size > 0 && b.lower < b.upper);
    let mut starts: Vec<(u64, u64)> = live().map(|b| (b.lower, b.size)).collect();
    let mut ends: Vec<(u64, u64)> = live().map(|b| (b.upper, b.size)).collect();
    starts.sort_unstable();
    ends.sort_unstable();
    let mut ends = ends.into_iter().peekable();
    let (mut load, mut best) = (0u128, (0u64, 0u128));
    for (step, size) in starts {
        while let Some((_, freed)) = ends.next_if(|&(end, _)| end <= step) {
            load -= u128::from(freed);
        }
        load += u128::from(size);
        if load > best.1 {
            best = (step, load);
        }
    }
    (best.0, u64::try_from(best.1).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_lifespans_do_not_add_up() {
        let buffers = [Buffer::new(0, 4, 5), Buffer::new(4, 8, 7), Buffer::new(3, 5, 2)];
        assert_eq!(peak(&buffers), (4, 9));
        assert_eq!(max_load(&[]), 0);
        assert_eq!(max_load(&[Buffer::new(0, 1, u64::MAX), Buffer::new(0, 1, 1)]), u64::MAX);
    }
}
