//! Whether the cores of the workers have a cache in common.
//!
//! A ball goes to and fro between worker 0 and each other worker: how long that takes tells, and nothing else does. Virtual machines describe
//! caches that they do not have, and move between cores while they run: on an AMD EPYC with two cores a trip there and back takes 50 to 70 ns
//! for seconds and then 300 ns for others.

use super::workers::{Job, Workers};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nanoseconds: a trip there and back takes less between cores that have a cache in common.
const FAR: u64 = 150;
/// Trips that are timed together, and how often: the fastest counts.
const TRIPS: u32 = 8;
const TIMES: u32 = 4;
/// How long one waits for the ball before it gives up: a worker may have to wake, or have lost its core.
const PATIENCE: Duration = Duration::from_micros(100);
/// Looks at the ball between two looks at the clock.
const LOOKS: u32 = 256;
/// In place of a ball: one has given up.
const LOST: u32 = u32::MAX;

/// In place of nanoseconds.
const UNKNOWN: u64 = u64::MAX;

/// A ball on a cache line of its own. Odd numbers are thrown by worker 0, even ones by the other.
#[repr(align(128))]
#[derive(Default)]
struct Ball(AtomicU32);

impl Ball {
    /// Waits until the ball is `number`; whether it came.
    fn caught(&self, number: u32) -> bool {
        let mut since = None;
        loop {
            // Pauses between two looks would be a part of what is measured.
            for _ in 0..LOOKS {
                match self.0.load(Ordering::Acquire) {
                    LOST => return false,
                    now if now == number => return true,
                    _ => {}
                }
            }
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                self.lose();
                return false;
            }
        }
    }

    fn lose(&self) {
        self.0.store(LOST, Ordering::Release);
    }

    /// Throws the ball and waits for it [`TRIPS`] times, the first of which is trip `first`; nanoseconds of one.
    fn trips(&self, first: u32) -> Option<u64> {
        if self.0.load(Ordering::Acquire) == LOST {
            return None;
        }
        let start = Instant::now();
        for trip in first..first + TRIPS {
            self.0.store(2 * trip + 1, Ordering::Release);
            if !self.caught(2 * trip + 2) {
                return None;
            }
        }
        Some(start.elapsed().as_nanos() as u64 / u64::from(TRIPS))
    }

    fn throw(&self) -> Option<u64> {
        let mut shortest = u64::MAX;
        for time in 0..TIMES {
            shortest = shortest.min(self.trips(time * TRIPS)?);
        }
        Some(shortest)
    }

    fn throw_back(&self) {
        for trip in 0..TIMES * TRIPS {
            if !self.caught(2 * trip + 1) {
                return;
            }
            self.0.store(2 * trip + 2, Ordering::Release);
        }
    }
}

/// The distance between the cores of some workers, as it was measured last.
pub(super) struct Distance {
    /// One for each worker but the first; none when nothing is to be measured.
    balls: Vec<Ball>,
    /// Nanoseconds of a trip to a worker that is far, or to the farthest, and back; [`UNKNOWN`] when a ball was lost.
    farthest: AtomicU64,
    /// Whether some worker is far from worker 0, and so from another.
    far: bool,
}

impl Distance {
    /// Between so many workers, near until it is measured. It never is when there are more of them than cores, who wait for each other.
    pub fn between(workers: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let balls = if workers <= cores { (1..workers).map(|_| Ball::default()).collect() } else { Vec::new() };
        Distance { balls, farthest: AtomicU64::new(UNKNOWN), far: false }
    }

    /// Not to be measured.
    pub fn assumed(far: bool) -> Self {
        Distance { balls: Vec::new(), farthest: AtomicU64::new(UNKNOWN), far }
    }

    /// Whether two workers are on cores without a common cache.
    pub fn is_far(&self) -> bool {
        self.far
    }

    /// Measures the distance between `workers`; when one of them does not answer, it stays as it was. Allocates nothing.
    pub fn measure(&mut self, workers: &Workers) {
        if self.balls.is_empty() {
            return;
        }
        self.balls.iter_mut().for_each(|ball| *ball.0.get_mut() = 0);
        *self.farthest.get_mut() = UNKNOWN;
        workers.run(self);
        self.conclude();
    }

    fn conclude(&mut self) {
        match *self.farthest.get_mut() {
            UNKNOWN => {}
            trip => self.far = trip > FAR,
        }
    }

    /// Throws every ball until one comes from afar, which decides it; `None` when one does not come.
    fn throw(&self) -> Option<u64> {
        let mut farthest = 0;
        for ball in &self.balls {
            farthest = ball.throw()?.max(farthest);
            if farthest > FAR {
                break;
            }
        }
        Some(farthest)
    }
}

impl Job for Distance {
    fn phases(&self) -> usize {
        1
    }

    /// One for each worker.
    fn tiles(&self, _phase: usize) -> usize {
        self.balls.len() + 1
    }

    /// A worker that comes to the tile of another tells nothing about that one's core: the ball is lost.
    fn run(&self, _phase: usize, tiles: Range<usize>, worker: usize) {
        for tile in tiles {
            match tile.checked_sub(1) {
                None => {
                    let farthest = if worker == 0 { self.throw() } else { None };
                    self.farthest.store(farthest.unwrap_or(UNKNOWN), Ordering::Release);
                    // Nobody waits for a ball that will not be thrown.
                    self.balls.iter().for_each(Ball::lose);
                }
                Some(other) if tile == worker => self.balls[other].throw_back(),
                Some(other) => self.balls[other].lose(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_answer_each_other() {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        for count in 2..=cores.min(4) {
            let workers = Workers::new(count).expect("threads start");
            let mut distance = Distance::between(count);
            // Whoever has lost its core does not answer.
            let measured = (0..10_000).any(|_| {
                distance.measure(&workers);
                *distance.farthest.get_mut() != UNKNOWN
            });
            assert!(measured && *distance.farthest.get_mut() > 0, "{count} workers");
        }
        assert!(Distance::between(cores + 1).balls.is_empty());
    }

    #[test]
    fn long_trips_are_far_and_lost_balls_change_nothing() {
        let mut distance = Distance::assumed(false);
        for (trip, far) in [(FAR + 1, true), (UNKNOWN, true), (FAR, false), (UNKNOWN, false)] {
            *distance.farthest.get_mut() = trip;
            distance.conclude();
            assert_eq!(distance.is_far(), far, "{trip} ns");
        }
        let ball = Ball::default();
        assert!(ball.throw().is_none() && ball.0.load(Ordering::Relaxed) == LOST);
        assert!(ball.throw().is_none());
        ball.throw_back();
        // One worker runs all tiles, one after the other.
        let workers = Workers::new(1).expect("threads start");
        let balls = vec![Ball::default(), Ball::default()];
        let mut distance = Distance { far: true, balls, ..Distance::assumed(false) };
        distance.measure(&workers);
        assert!(distance.is_far() && distance.balls.iter_mut().all(|ball| *ball.0.get_mut() == LOST));
    }
}
