//! Phases end before the next begins, every tile runs once, and panics reach the caller.

use super::*;

/// Phase p has `sizes[p]` tiles; each tile checks that the phase before is complete.
struct Counting {
    sizes: Vec<usize>,
    done: Vec<AtomicUsize>,
}

impl Job for Counting {
    fn phases(&self) -> usize {
        self.sizes.len()
    }
    fn tiles(&self, phase: usize) -> usize {
        self.sizes[phase]
    }
    fn run(&self, phase: usize, tiles: Range<usize>, _worker: usize) {
        assert!(!tiles.is_empty() && tiles.end <= self.sizes[phase]);
        if phase > 0 {
            assert_eq!(self.done[phase - 1].load(Ordering::Relaxed), self.sizes[phase - 1]);
        }
        self.done[phase].fetch_add(tiles.len(), Ordering::Relaxed);
    }
    fn soon(&self, phase: usize, _worker: usize) -> Range<*const u8> {
        // Not a place where anything is: hints may be anything.
        let at = std::ptr::without_provenance(64 * phase);
        at..at.wrapping_add(640)
    }
}

#[test]
fn every_tile_runs_once_and_phases_do_not_overlap() {
    for count in [1, 2, 3, 8] {
        let workers = Workers::new(count).expect("threads start");
        for round in 0..200 {
            let sizes: Vec<usize> = (0..40).map(|p| (p * 7 + round) % 23).collect();
            let done = sizes.iter().map(|_| AtomicUsize::new(0)).collect();
            let job = Counting { sizes, done };
            workers.run(&job);
            for (phase, n) in job.sizes.iter().enumerate() {
                assert_eq!(job.done[phase].load(Ordering::Relaxed), *n, "phase {phase}, {count} workers");
            }
        }
    }
}

/// The last tile of the second of three phases of so many tiles panics.
struct Panicking(usize);

impl Job for Panicking {
    fn phases(&self) -> usize {
        3
    }
    fn tiles(&self, _phase: usize) -> usize {
        self.0
    }
    fn run(&self, phase: usize, tiles: Range<usize>, _worker: usize) {
        assert!(phase != 1 || !tiles.contains(&(self.0 - 1)), "broken on purpose");
    }
}

#[test]
#[should_panic(expected = "a worker panicked")]
fn a_panic_in_a_tile_reaches_the_caller() {
    Workers::new(3).expect("threads start").run(&Panicking(5));
}

#[test]
#[should_panic(expected = "a worker panicked")]
fn a_panic_in_the_only_tile_of_a_phase_reaches_the_caller() {
    Workers::new(3).expect("threads start").run(&Panicking(1));
}
