//! Units of work, of which each worker gets some whole ones, and those that are left are split, so that workers end together.

use super::tiling::run_start;
use std::ops::Range;

/// How the units of a phase are shared: each worker's run of tiles begins with whole units, and the parts of those that are left follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    workers: usize,
    /// Whole units of each run; all of them in one run when none is split.
    whole: usize,
    tiles: usize,
}

/// What a tile computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All of this unit.
    Unit(usize),
    /// This part of all parts of the units that are split.
    Part(usize),
}

impl Shares {
    /// No unit is split.
    pub fn whole(units: usize) -> Self {
        Shares { workers: 1, whole: units, tiles: units }
    }

    /// `whole` whole units for each of `workers` workers; those that are left are split into `parts` parts each.
    ///
    /// # Panics
    /// When there are not so many units.
    pub fn split(units: usize, whole: usize, parts: usize, workers: usize) -> Self {
        let left = units.checked_sub(whole * workers).expect("workers share units that there are");
        Shares { workers, whole, tiles: whole * workers + left * parts }
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// Units that are not split, the first ones.
    pub fn unsplit(&self) -> usize {
        self.workers * self.whole
    }

    /// The number of the run that has tile `tile`.
    fn run_of(&self, tile: usize) -> usize {
        (0..self.workers).rposition(|run| self.run_start(run) <= tile).expect("the first run starts at 0")
    }

    fn run_start(&self, run: usize) -> usize {
        run_start(self.tiles, run, self.workers)
    }

    /// The tiles of the run that has tile `tile`.
    pub fn run(&self, tile: usize) -> Range<usize> {
        let run = self.run_of(tile);
        self.run_start(run)..self.run_start(run + 1)
    }

    /// What tile `tile` computes.
    pub fn piece(&self, tile: usize) -> Piece {
        let run = self.run_of(tile);
        let within = tile - self.run_start(run);
        if within < self.whole {
            Piece::Unit(run * self.whole + within)
        } else {
            Piece::Part(tile - (run + 1) * self.whole)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_computed_once() {
        for (units, whole, parts, workers) in [
            (3, 1, 16, 2),
            (3, 3, 2, 1),
            (6, 2, 4, 2),
            (5, 1, 8, 4),
            (7, 0, 4, 4),
            (1, 0, 16, 2),
            (7, 1, 3, 4),
            (9, 4, 12, 2),
        ] {
            let shares = Shares::split(units, whole, parts, workers);
            let runs: Vec<Range<usize>> = (0..shares.tiles()).map(|tile| shares.run(tile)).collect();
            assert!(runs.iter().enumerate().all(|(tile, run)| run.contains(&tile)), "{runs:?}");
            assert!(runs.windows(2).all(|two| two[0] == two[1] || two[0].end == two[1].start), "{runs:?}");
            let pieces: Vec<Piece> = (0..shares.tiles()).map(|tile| shares.piece(tile)).collect();
            let whole: Vec<usize> =
                pieces.iter().filter_map(|p| if let Piece::Unit(u) = p { Some(*u) } else { None }).collect();
            let split: Vec<usize> =
                pieces.iter().filter_map(|p| if let Piece::Part(n) = p { Some(*n) } else { None }).collect();
            assert_eq!(whole.len(), shares.unsplit());
            assert!(whole.iter().copied().eq(0..whole.len()), "{units} units on {workers}: {pieces:?}");
            assert!(
                split.iter().copied().eq(0..(units - whole.len()) * parts),
                "{units} units on {workers}: {pieces:?}"
            );
        }
    }

    #[test]
    fn units_that_are_not_split_are_the_tiles() {
        assert!((0..5).map(|tile| Shares::whole(5).piece(tile)).eq((0..5).map(Piece::Unit)));
    }
}
