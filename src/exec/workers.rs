//! Workers that walk a list of phases together.
//!
//! The tiles of a phase are split into one run per worker ([`runs`](super::runs)). A worker claims from its own run first, so that it streams
//! memory in order, then from the runs of others; it counts what it did of its own run once, as a counter that all workers write is far away from
//! most of them. A phase ends when its last *tile* ends, not when every worker arrives: a worker whose core is busy elsewhere holds nobody up
//! unless it holds tiles. Whoever finishes the last tile opens the next phase, or runs it where it is a single tile. Waiting is spin, then park on
//! a futex; a worker that spins fetches what it will read next, so that memory is never idle, and looks after workers that have lost their core
//! ([`cores`]).
#![allow(unsafe_code)]

use super::cores::{self, Place};
pub use super::job::{CLAIMS, Job};
use super::runs::{claim, word};
use crate::kernels::linear::prefetch_line;
use crate::ops::NO_MEMORY;
pub use crate::ops::run_start;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Cache lines fetched between two looks at the epoch.
const LINES: usize = 4;
/// How long a worker waits awake when there are cores for all.
const AWAKE: Duration = Duration::from_millis(1);
/// Pauses between two looks at the clock; how long a pause takes differs tenfold between CPUs.
const PAUSES: u32 = 64;

#[repr(align(128))]
struct Padded<T>(T);

impl<T> AsRef<T> for Padded<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}

struct Shared {
    /// One run of tiles for each worker.
    runs: Vec<Padded<AtomicU64>>,
    places: Vec<Padded<Place>>,
    done: Padded<AtomicU32>,
    /// [`Job::claims`] of the job.
    claims: AtomicUsize,
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
    awake: Duration,
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
            places: (0..count.max(1)).map(|_| Padded(Place::default())).collect(),
            done: Padded(AtomicU32::new(0)),
            claims: AtomicUsize::new(CLAIMS),
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
            awake: if count > cores { Duration::ZERO } else { AWAKE },
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
        // SAFETY: only the lifetime is erased. The pointer is used by a worker between claiming a tile and counting it as done, and by the one that
        // opens phases until it sets `finished`, when every tile is done; and this function does not return before that, so `job` outlives all
        // uses.
        let pointer =
            JobPointer(unsafe { std::mem::transmute::<*const (dyn Job + '_), *const (dyn Job + 'static)>(job) });
        shared.job.store(std::ptr::from_ref(&pointer).cast_mut(), Ordering::Relaxed);
        shared.panicked.store(false, Ordering::Relaxed);
        shared.claims.store(job.claims().max(1), Ordering::Relaxed);
        shared.places[0].0.enter();
        shared.open(job, 0, 0);
        let (mut seen, mut soon) = (0, NO_MEMORY);
        while !shared.finished.load(Ordering::Acquire) {
            shared.work(0, &mut soon);
            shared.wait(0, &mut seen, &mut soon);
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
    /// Opens the first phase from `phase` on that has several tiles, or ends the job. Phases of one tile before it are run here and now: no
    /// other worker has to learn of them.
    fn open(&self, job: &dyn Job, mut phase: usize, worker: usize) {
        while phase < job.phases() {
            let tiles = job.tiles(phase);
            if tiles == 1 {
                self.attempt(|| job.run(phase, 0..1, worker));
                job.phase_done(phase);
            } else if tiles > 1 {
                assert!(tiles < 1 << 31, "a phase has {tiles} tiles, more than a run counts");
                self.phase.store(phase, Ordering::Relaxed);
                self.done.0.store(0, Ordering::Relaxed);
                self.tiles.store(tiles as u32, Ordering::Relaxed);
                let start = |run: usize| run_start(tiles, run, self.runs.len());
                for (i, run) in self.runs.iter().enumerate() {
                    run.0.store(word(start(i + 1), start(i)), Ordering::Release);
                }
                self.advance_epoch();
                return;
            }
            phase += 1;
        }
        self.finished.store(true, Ordering::Release);
        self.advance_epoch();
    }

    /// Runs tiles, whose panic the caller of the job gets to see.
    fn attempt(&self, tiles: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(tiles)).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    fn advance_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            atomic_wait::wake_all(&self.epoch);
        }
    }

    /// Claims and runs tiles until the current phase has none left to claim. Phases that this worker opens itself are entered too.
    /// `soon` becomes what the worker reads first after its own run.
    fn work(&self, worker: usize, soon: &mut Range<*const u8>) {
        let (before, others) = self.runs.split_at(worker);
        let (mine, after) = others.split_first().expect("every worker has a run");
        // Tiles of the own run that are done and not counted.
        let mut uncounted = 0;
        loop {
            let claims = self.claims.load(Ordering::Relaxed);
            let own = claim(&mine.0, claims);
            let tiles = match &own {
                Some(tiles) => tiles.clone(),
                None if uncounted > 0 => 0..0,
                None => match after.iter().chain(before).find_map(|run| claim(&run.0, claims)) {
                    Some(tiles) => tiles,
                    None => return,
                },
            };
            // The phase cannot end before the tiles of this worker are counted, so phase and job stay what they are until then.
            let phase = self.phase.load(Ordering::Relaxed);
            // SAFETY: `run` keeps the job and the pointer to it alive until every claimed tile is counted (see there), and this worker
            // has claimed some; the acquiring claim above makes both visible.
            let job = unsafe { &*(*self.job.load(Ordering::Relaxed)).0 };
            uncounted += tiles.len();
            self.attempt(|| match tiles.is_empty() {
                true => *soon = job.soon(phase, worker),
                false => job.run(phase, tiles, worker),
            });
            if own.is_some() {
                continue;
            }
            // Read before the tiles are counted: after, another worker may open the next phase.
            let all = self.tiles.load(Ordering::Relaxed) as usize;
            if self.done.0.fetch_add(uncounted as u32, Ordering::AcqRel) as usize + uncounted == all {
                job.phase_done(phase);
                self.open(job, phase + 1, worker);
            }
            uncounted = 0;
        }
    }

    /// Waits until the epoch differs from `seen`: spins first, fetching `soon`, then parks. Whoever waits for long looks after the others.
    fn wait(&self, worker: usize, seen: &mut u32, soon: &mut Range<*const u8>) {
        let place = &self.places[worker].0;
        place.here();
        let (mut pauses, mut patience) = (0, cores::PATIENCE);
        let mut since: Option<Instant> = None;
        while !self.awake.is_zero() {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != *seen {
                *seen = epoch;
                return;
            }
            if soon.start < soon.end {
                for _ in 0..LINES {
                    prefetch_line(soon.start);
                    soon.start = soon.start.wrapping_add(64);
                }
                continue;
            }
            pauses += 1;
            if pauses % PAUSES == 0 {
                let waited = since.get_or_insert_with(Instant::now).elapsed();
                if waited >= self.awake {
                    break;
                }
                if waited >= patience && !self.finished.load(Ordering::Acquire) {
                    cores::change(&self.places, worker, || self.epoch.load(Ordering::Acquire) == *seen);
                    patience += cores::PATIENCE;
                }
            }
            std::hint::spin_loop();
        }
        place.sleeps(true);
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
        place.sleeps(false);
    }

    fn serve(&self, worker: usize) {
        self.places[worker].0.enter();
        let (mut seen, mut soon) = (0, NO_MEMORY);
        while !self.stop.load(Ordering::Acquire) {
            self.work(worker, &mut soon);
            self.wait(worker, &mut seen, &mut soon);
        }
    }
}

#[cfg(test)]
mod tests;
