// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` for clock_gettime and getrusage, which cost too much or go wrong
//! under valgrind through the libraries that wrap them.
//!
//! What is measured on the way of an I/O: time, and whether this thread had to wait.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// A clock in nanoseconds since boot.
fn read(clock: libc::clockid_t, of: unsafe extern "C" fn(i32, *mut libc::timespec) -> i32) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel, or libc, writes one `timespec`. The monotonic clocks always exist.
    unsafe { of(clock, &mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// The coarse clock, in nanoseconds: a few instructions on every clock source (the exact one is a
/// system call where the TSC cannot be used, as in many VMs), but it advances in [`tick`]s. Never
/// ahead of [`now`].
pub(crate) fn coarse() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE, libc::clock_gettime)
}

/// The exact clock, in nanoseconds.
pub(crate) fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC, libc::clock_gettime)
}

/// The tick of the coarse clock, in nanoseconds: 1 to 10 ms.
pub(crate) fn tick() -> u64 {
    static TICK: OnceLock<u64> = OnceLock::new();
    *TICK.get_or_init(|| read(libc::CLOCK_MONOTONIC_COARSE, libc::clock_getres).max(1))
}

/// How often this thread has gone to sleep in the kernel by itself: not because another took its
/// CPU.
pub(crate) fn waits() -> libc::c_long {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one `rusage`; all zeroes is a value of it too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nvcsw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_follows_the_exact_one() {
        let tick = tick();
        assert!((500_000..=20_000_000).contains(&tick), "{tick}");
        for _ in 0..10 {
            let (coarse_before, exact) = (coarse(), now());
            assert!(coarse_before <= exact);
            // On a busy machine ticks come late.
            let follows = (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_nanos(tick));
                coarse() >= exact
            });
            assert!(follows);
        }
    }

    #[test]
    fn sleeping_is_counted_and_computing_is_not() {
        let before = waits();
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(waits() > before);
        // A page fault can be a wait; it does not happen each time.
        let computed_without = (0..100).any(|_| {
            let before = waits();
            for i in 0..100_000u64 {
                std::hint::black_box(i);
            }
            waits() == before
        });
        assert!(computed_without);
    }
}
