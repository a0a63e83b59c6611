//! Workers whose core another process has taken.
//!
//! A scheduler takes a core away at any moment, so nearly always while a worker holds a tile, and all others then wait for a slice of several
//! milliseconds. A worker that has waited for long looks whether one that is awake does not run, and changes cores with it: what
//! is held up ends at once, and who has nothing to do takes its turn beside the other process. Only Linux tells and does what this takes.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

/// How long a worker waits before it looks after the others: longer than the workers of an undisturbed phase usually end apart.
pub const PATIENCE: Duration = Duration::from_micros(100);

/// Pauses in which a thread that runs has run for some time.
const LOOK: u32 = 64;

/// What others know of a worker.
#[derive(Default)]
pub struct Place {
    /// The number of its thread, 0 before it runs.
    thread: AtomicI32,
    /// The core it was last seen on.
    core: AtomicU32,
    /// Whether it waits for work asleep.
    asleep: AtomicBool,
}

impl Place {
    /// Called by the worker when it begins.
    pub fn enter(&self) {
        self.thread.store(os::this_thread(), Ordering::Relaxed);
        self.asleep.store(false, Ordering::Relaxed);
        self.here();
    }

    /// Called by the worker now and then.
    pub fn here(&self) {
        self.core.store(os::this_core(), Ordering::Relaxed);
    }

    /// Called by the worker before and after it sleeps.
    pub fn sleeps(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::Release);
    }
}

/// Called by worker `worker`, which has waited for long: changes cores with a worker that is neither asleep nor running. `waiting` tells
/// whether there still is something to wait for.
pub fn change(places: &[impl AsRef<Place>], worker: usize, waiting: impl Fn() -> bool) {
    for (other, place) in places.iter().map(AsRef::as_ref).enumerate() {
        if other == worker || place.asleep.load(Ordering::Acquire) {
            continue;
        }
        let thread = place.thread.load(Ordering::Relaxed);
        let before = os::time_run(thread);
        for _ in 0..LOOK {
            std::hint::spin_loop();
        }
        if before.is_some() && os::time_run(thread) == before && waiting() {
            let (here, seen) = (os::this_core(), place.core.load(Ordering::Relaxed));
            // Two workers on one core are as far apart as they can be on any other.
            let there = if seen == here { os::core_after(here) } else { seen };
            os::move_to(thread, here);
            os::move_to(os::this_thread(), there);
            return;
        }
    }
}

/// Threads go by the numbers that the kernel gives them, which may be asked for when the thread has ended: the kernel then says so.
#[cfg(target_os = "linux")]
mod os {
    use std::mem::MaybeUninit;

    pub fn this_thread() -> i32 {
        // SAFETY: without conditions.
        unsafe { libc::gettid() }
    }

    pub fn this_core() -> u32 {
        // SAFETY: without conditions.
        unsafe { libc::sched_getcpu() as u32 }
    }

    /// For how long thread `thread` has had a core, in seconds and nanoseconds; `None` when there is no such thread.
    pub fn time_run(thread: i32) -> Option<(i64, i64)> {
        // Linux numbers the clock of a thread's time on its cores so: the thread's number inverted, bit 2 for a thread and not its process,
        // 2 for time as the scheduler counts it.
        let clock = !thread << 3 | 4 | 2;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a valid pointer; the kernel refuses clocks that it has not.
        let known = thread != 0 && unsafe { libc::clock_gettime(clock, &mut time) } == 0;
        known.then_some((time.tv_sec, time.tv_nsec))
    }

    /// The core after `core` among those on which this thread may run.
    pub fn core_after(core: u32) -> u32 {
        let Some(allowed) = allowed(0) else { return core };
        let next = (1..CORES).map(|i| (core as usize + i) % CORES).find(|&i| contains(&allowed, i));
        next.map_or(core, |i| i as u32)
    }

    /// Moves thread `thread` to core `core` and lets it go wherever it could go before. Does nothing where that is not allowed.
    pub fn move_to(thread: i32, core: u32) {
        let Some(allowed) = allowed(thread).filter(|allowed| contains(allowed, core as usize)) else { return };
        // SAFETY: zeros are an empty set, and `core` is one of those that a set holds; the sets are of the size that is passed.
        unsafe {
            let mut only = MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init();
            libc::CPU_SET(core as usize, &mut only);
            if libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &only) == 0 {
                libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &allowed);
            }
        }
    }

    /// Cores that a set can hold.
    const CORES: usize = 8 * size_of::<libc::cpu_set_t>();

    /// The cores on which thread `thread` may run, 0 being this one; `None` when there is no such thread.
    fn allowed(thread: i32) -> Option<libc::cpu_set_t> {
        let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: a valid pointer to a set of the size that is passed; zeros are an empty set.
        unsafe {
            let known = libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) == 0;
            known.then(|| set.assume_init())
        }
    }

    fn contains(set: &libc::cpu_set_t, core: usize) -> bool {
        // SAFETY: the core is one of those that a set holds.
        core < CORES && unsafe { libc::CPU_ISSET(core, set) }
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    pub fn this_thread() -> i32 {
        0
    }

    pub fn this_core() -> u32 {
        0
    }

    pub fn time_run(_thread: i32) -> Option<(i64, i64)> {
        None
    }

    pub fn core_after(core: u32) -> u32 {
        core
    }

    pub fn move_to(_thread: i32, _core: u32) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_that_waits_does_not_run_and_one_that_spins_does() {
        let (send, receive) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let other = std::thread::spawn(move || {
            tell.send(os::this_thread()).expect("the test listens");
            receive.recv().expect("the test sends");
        });
        let thread = told.recv().expect("the thread tells");
        let asleep = || {
            let before = os::time_run(thread);
            std::thread::sleep(Duration::from_millis(2));
            before.is_some() && os::time_run(thread) == before
        };
        assert!((0..1000).any(|_| asleep()), "a thread that waits never seems to");
        let me = os::this_thread();
        let before = os::time_run(me);
        for _ in 0..LOOK {
            std::hint::spin_loop();
        }
        assert_ne!(os::time_run(me), before);
        send.send(()).expect("the thread listens");
        other.join().expect("the thread ends");
    }

    #[test]
    fn a_thread_that_was_moved_is_as_free_as_before() {
        let cores = || {
            let mut core = os::this_core();
            let first = core;
            let mut found = vec![first];
            loop {
                core = os::core_after(core);
                if found.contains(&core) {
                    found.sort_unstable();
                    return found;
                }
                found.push(core);
            }
        };
        let before = cores();
        for &core in &before {
            os::move_to(os::this_thread(), core);
            assert_eq!(cores(), before, "after a move to core {core}");
        }
        os::move_to(os::this_thread(), u32::MAX);
        assert_eq!(cores(), before, "after a move to no core");
    }
}
