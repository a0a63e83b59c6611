//! Workers whose core another process has taken.
//!
//! A scheduler takes a core away at any moment, so nearly always while a worker holds a tile, and all others then wait for a slice of several
//! milliseconds. A worker that has waited for long looks whether one that is awake does not run, and changes cores with it: what
//! is held up ends at once, and who has nothing to do takes its turn beside the other process. Only Linux tells and does what this takes.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// How long a worker waits before it looks after the others: longer than the workers of an undisturbed phase usually end apart.
pub const PATIENCE: Duration = Duration::from_micros(100);

/// Pauses in which a thread that runs has run for some time.
const LOOK: u32 = 64;

/// What others know of a worker.
#[derive(Default)]
pub struct Place {
    /// Its thread as the system names it, 0 before it runs.
    thread: AtomicUsize,
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

#[cfg(target_os = "linux")]
mod os {
    use std::mem::MaybeUninit;

    pub fn this_thread() -> usize {
        // SAFETY: without conditions.
        unsafe { libc::pthread_self() as usize }
    }

    pub fn this_core() -> u32 {
        // SAFETY: without conditions.
        unsafe { libc::sched_getcpu() as u32 }
    }

    /// For how long thread `thread` has had a core, in seconds and nanoseconds; a worker of this pool, so it lives.
    pub fn time_run(thread: usize) -> Option<(i64, i64)> {
        if thread == 0 {
            return None;
        }
        let mut clock: libc::clockid_t = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the thread lives while its pool runs a job (see `Workers::run` and `Drop`), and both pointers are valid.
        unsafe {
            if libc::pthread_getcpuclockid(thread as libc::pthread_t, &mut clock) != 0
                || libc::clock_gettime(clock, &mut time) != 0
            {
                return None;
            }
        }
        Some((time.tv_sec, time.tv_nsec))
    }

    /// The core after `core` among those on which this thread may run.
    pub fn core_after(core: u32) -> u32 {
        let bits = 8 * size_of::<libc::cpu_set_t>();
        let mut allowed = MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: a valid pointer to a set of the size that is passed; zeros are an empty set; the cores asked for are below the number of bits.
        unsafe {
            libc::pthread_getaffinity_np(libc::pthread_self(), bits / 8, allowed.as_mut_ptr());
            let allowed = allowed.assume_init();
            let next = (1..bits).map(|i| (core as usize + i) % bits).find(|&i| libc::CPU_ISSET(i, &allowed));
            next.map_or(core, |i| i as u32)
        }
    }

    /// Moves thread `thread` to core `core` and lets it go wherever it could go before. Does nothing where that is not allowed.
    pub fn move_to(thread: usize, core: u32) {
        let size = size_of::<libc::cpu_set_t>();
        let mut allowed = MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: the thread lives (see `time_run`); the sets are of the size that is passed, and zeros are an empty set; a core that is set
        // is below the number of bits.
        unsafe {
            let thread = thread as libc::pthread_t;
            if libc::pthread_getaffinity_np(thread, size, allowed.as_mut_ptr()) != 0 {
                return;
            }
            let allowed = allowed.assume_init();
            if core as usize >= 8 * size || !libc::CPU_ISSET(core as usize, &allowed) {
                return;
            }
            let mut only = MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init();
            libc::CPU_SET(core as usize, &mut only);
            if libc::pthread_setaffinity_np(thread, size, &only) == 0 {
                libc::pthread_setaffinity_np(thread, size, &allowed);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    pub fn this_thread() -> usize {
        0
    }

    pub fn this_core() -> u32 {
        0
    }

    pub fn time_run(_thread: usize) -> Option<(i64, i64)> {
        None
    }

    pub fn core_after(core: u32) -> u32 {
        core
    }

    pub fn move_to(_thread: usize, _core: u32) {}
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
