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
                self.0.store(LOST, Ordering::Release);
                return false;
            }
        }
    }

    /// Throws the ball and waits for it [`TRIPS`] times, the first of which is trip `first`; nanoseconds of one.
    fn trips(&self, first: u32) -> Option<u64> {
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
    /// One for each worker but the first.
    balls: Vec<Ball>,
    /// Nanoseconds of a trip to the farthest worker and back; [`UNKNOWN`] when a ball was lost.
    farthest: AtomicU64,
    far: bool,
}

/// In place of nanoseconds.
const UNKNOWN: u64 = u64::MAX;

impl Distance {
    /// Between so many workers, near until it is measured.
    pub fn between(workers: usize) -> Self {
        let balls = (1..workers).map(|_| Ball::default()).collect();
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
        match *self.farthest.get_mut() {
            UNKNOWN => {}
            trip => self.far = trip > FAR,
        }
    }
}

impl Job for Distance {
    fn phases(&self) -> usize {
        1
    }

    /// Each worker begins with the tile of its number. One that runs the tile of another as well waits in vain, and that is all.
    fn tiles(&self, _phase: usize) -> usize {
        self.balls.len() + 1
    }

    fn run(&self, _phase: usize, tiles: Range<usize>, _worker: usize) {
        for tile in tiles {
            match tile.checked_sub(1) {
                None => {
                    let farthest = self.balls.iter().try_fold(0, |farthest, ball| Some(ball.throw()?.max(farthest)));
                    self.farthest.store(farthest.unwrap_or(UNKNOWN), Ordering::Release);
                }
                Some(other) => self.balls[other].throw_back(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_answer_each_other() {
        for count in [2, 3] {
            let workers = Workers::new(count).expect("threads start");
            let mut distance = Distance::between(count);
            // Whoever has lost its core does not answer.
            let measured = (0..10_000).any(|_| {
                distance.measure(&workers);
                *distance.farthest.get_mut() != UNKNOWN
            });
            assert!(measured, "{count} workers");
            let trip = *distance.farthest.get_mut();
            assert!(trip > 0 && distance.is_far() == (trip > FAR), "{trip} ns");
        }
    }

    #[test]
    fn a_lost_ball_changes_nothing() {
        let ball = Ball::default();
        assert!(ball.throw().is_none() && ball.0.load(Ordering::Relaxed) == LOST);
        ball.throw_back();
        let workers = Workers::new(1).expect("threads start");
        // One worker runs both tiles, one after the other.
        let mut distance = Distance { far: true, ..Distance::between(2) };
        distance.measure(&workers);
        assert!(distance.is_far());
        distance.balls.clear();
        distance.measure(&workers);
        assert!(distance.is_far());
        assert!(!Distance::between(1).is_far() && Distance::assumed(true).is_far());
    }
}
