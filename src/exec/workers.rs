//! Workers that walk a list of phases together.
//!
//! The tiles of a phase are split into one run per worker. A 64-bit word holds (end, next tile) of each run; claiming a tile is one
//! `fetch_add` on it. A worker claims from its own run first, so that it streams memory in order, then from the runs of others. A phase
//! ends when its last *tile* ends, not when every worker arrives: a worker whose core is busy elsewhere holds nobody up unless it holds a
//! tile. Whoever finishes the last tile opens the next phase. Waiting is spin, then park on a futex.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// A call's work: a sequence of phases, each a number of independent tiles.
pub trait Job: Sync {
    /// Number of phases.
    fn phases(&self) -> usize;
    /// Tiles of a phase; fewer than 2^31. Zero skips it.
    fn tiles(&self, phase: usize) -> usize;
    /// Runs one tile as worker `worker`.
    fn run(&self, phase: usize, tile: usize, worker: usize);
    /// Called by one worker when a phase has ended, before the next opens (for profiles).
    fn phase_done(&self, _phase: usize) {}
}

/// A run of tiles: `end << 32 | next`. Claims beyond the end, at most one a worker, count `next` on and mean nothing.
fn word(end: usize, next: usize) -> u64 {
    (end as u64) << 32 | next as u64
}

/// The next tile of a run, unless none is left.
fn next(word: u64) -> Option<usize> {
    let (end, next) = (word >> 32, word & u64::from(u32::MAX));
    (next < end).then_some(next as usize)
}

#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// One run of tiles for each worker.
    runs: Vec<Padded<AtomicU64>>,
    done: Padded<AtomicU32>,
    /// Tiles of the current phase.
    tiles: AtomicU32,
    phase: AtomicUsize,
    job: AtomicPtr<JobPointer>,
    finished: AtomicBool,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// Changes with every phase; what waiting workers park on.
    epoch: AtomicU32,
    sleepers: AtomicU32,
    /// Threads that are up.
    started: AtomicUsize,
    spins: u32,
}

/// A thin pointer target for the fat `dyn Job` reference.
struct JobPointer(*const dyn Job);

/// A pool of workers; the calling thread is worker 0.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// `count` workers in all (at least one), `count − 1` of them new threads.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn new(count: usize) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shared = Arc::new(Shared {
            runs: (0..count.max(1)).map(|_| Padded(AtomicU64::new(0))).collect(),
            done: Padded(AtomicU32::new(0)),
            tiles: AtomicU32::new(0),
            phase: AtomicUsize::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            finished: AtomicBool::new(true),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            started: AtomicUsize::new(0),
            // More workers than cores: spinning would take the core from the worker that holds a tile.
            spins: if count > cores { 0 } else { 20_000 },
        });
        let mut workers = Workers { shared, threads: Vec::new() };
        for worker in 1..count.max(1) {
            let shared = Arc::clone(&workers.shared);
            let body = move || {
                shared.started.fetch_add(1, Ordering::Release);
                shared.serve(worker);
            };
            workers.threads.push(std::thread::Builder::new().name(format!("worker-{worker}")).spawn(body)?);
        }
        // The system allocates while it starts a thread, which belongs to start-up and not to the first runs.
        while workers.shared.started.load(Ordering::Acquire) < workers.threads.len() {
            std::thread::yield_now();
        }
        Ok(workers)
    }

    /// Number of workers, the calling thread included.
    pub fn count(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs all phases of `job` in order and returns when the last tile has ended. Allocates nothing.
    ///
    /// # Panics
    /// When a tile panicked (a broken internal invariant).
    pub fn run(&self, job: &dyn Job) {
        let shared = &*self.shared;
        assert!(shared.finished.swap(false, Ordering::AcqRel), "the workers already run a job");
        // SAFETY: only the lifetime is erased. The pointer is used by a worker between claiming a tile and counting it as done; `finished`
        // is set after every tile is done, and this function does not return before that, so `job` outlives all uses.
        let pointer =
            JobPointer(unsafe { std::mem::transmute::<*const (dyn Job + '_), *const (dyn Job + 'static)>(job) });
        shared.job.store(std::ptr::from_ref(&pointer).cast_mut(), Ordering::Relaxed);
        shared.panicked.store(false, Ordering::Relaxed);
        shared.open(job, 0);
        let mut seen = 0;
        while !shared.finished.load(Ordering::Acquire) {
            shared.work(0);
            shared.wait(&mut seen);
        }
        shared.job.store(std::ptr::null_mut(), Ordering::Relaxed);
        assert!(!shared.panicked.load(Ordering::Relaxed), "a worker panicked");
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.advance_epoch();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Opens the first phase from `phase` on that has tiles, or ends the job.
    fn open(&self, job: &dyn Job, mut phase: usize) {
        while phase < job.phases() {
            let tiles = job.tiles(phase);
            if tiles > 0 {
                assert!(tiles < 1 << 31, "a phase has {tiles} tiles, more than a run counts");
                self.phase.store(phase, Ordering::Relaxed);
                self.done.0.store(0, Ordering::Relaxed);
                self.tiles.store(tiles as u32, Ordering::Relaxed);
                let start = |run: usize| run * tiles / self.runs.len();
                for (i, run) in self.runs.iter().enumerate() {
                    run.0.store(word(start(i + 1), start(i)), Ordering::Release);
                }
                self.advance_epoch();
                return;
            }
            job.phase_done(phase);
            phase += 1;
        }
        self.finished.store(true, Ordering::Release);
        self.advance_epoch();
    }

    fn advance_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            atomic_wait::wake_all(&self.epoch);
        }
    }

    /// A tile of the worker's own run, else of the first run after it that has one left.
    fn claim(&self, worker: usize) -> Option<usize> {
        let (before, after) = self.runs.split_at(worker);
        after.iter().chain(before).find_map(|run| {
            next(run.0.load(Ordering::Acquire))?;
            next(run.0.fetch_add(1, Ordering::AcqRel))
        })
    }

    /// Claims and runs tiles until the current phase has none left to claim. Phases that this worker opens itself are entered too.
    fn work(&self, worker: usize) {
        while let Some(tile) = self.claim(worker) {
            // The phase cannot end before this tile does, so phase and job stay what they are until `done` counts it.
            let phase = self.phase.load(Ordering::Relaxed);
            // SAFETY: `run` keeps the job and the pointer to it alive until every claimed tile is done (see there); the
            // acquiring claim above makes both visible.
            let job = unsafe { &*(*self.job.load(Ordering::Relaxed)).0 };
            if catch_unwind(AssertUnwindSafe(|| job.run(phase, tile, worker))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            // Read before the tile counts as done: after, another worker may open the next phase.
            let tiles = self.tiles.load(Ordering::Relaxed);
            if self.done.0.fetch_add(1, Ordering::AcqRel) + 1 == tiles {
                job.phase_done(phase);
                self.open(job, phase + 1);
            }
        }
    }

    /// Waits until the epoch differs from `seen`: spins first, then parks.
    fn wait(&self, seen: &mut u32) {
        for spin in 0..self.spins {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != *seen {
                *seen = epoch;
                return;
            }
            if spin % 1024 == 1023 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != *seen {
                *seen = epoch;
                break;
            }
            atomic_wait::wait(&self.epoch, epoch);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn serve(&self, worker: usize) {
        let mut seen = 0;
        while !self.stop.load(Ordering::Acquire) {
            self.work(worker);
            self.wait(&mut seen);
        }
    }
}

#[cfg(test)]
mod tests {
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
        fn run(&self, phase: usize, tile: usize, _worker: usize) {
            assert!(tile < self.sizes[phase]);
            if phase > 0 {
                assert_eq!(self.done[phase - 1].load(Ordering::Relaxed), self.sizes[phase - 1]);
            }
            self.done[phase].fetch_add(1, Ordering::Relaxed);
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

    struct Panicking;

    impl Job for Panicking {
        fn phases(&self) -> usize {
            3
        }
        fn tiles(&self, _phase: usize) -> usize {
            5
        }
        fn run(&self, phase: usize, tile: usize, _worker: usize) {
            assert!(phase != 1 || tile != 3, "broken on purpose");
        }
    }

    #[test]
    #[should_panic(expected = "a worker panicked")]
    fn a_panic_in_a_tile_reaches_the_caller() {
        Workers::new(3).expect("threads start").run(&Panicking);
    }
}
