//! Asynchronous file I/O and an executor for ONE thread: the thread of a device.
//!
//! An [`Engine`] runs one future ([`Engine::block_on`]); what that future awaits goes to io_uring,
//! or, where that may not be used (`kernel.io_uring_disabled`, a seccomp filter, an old kernel),
//! to epoll and a bounded pool of threads. Both look the same from here: [`File`] reads and
//! writes, [`Readiness`] waits for descriptors, [`sleep`] for time, [`unblock`] for code that can
//! only block, [`channel`] for other threads, and a [`TaskSet`] runs many futures as one.
//!
//! # What an I/O costs
//! Reads that the page cache answers and buffered writes while the storage is fast never leave
//! the first poll: one system call each, no allocation (see [`File`]). The rest is collected
//! while futures are polled and submitted together at the end of the turn, by the same
//! `io_uring_enter` that then sleeps. Slots for operations and wakers are reused. In user
//! instructions, libc's wrappers and the clock included (callgrind on `examples/cost.rs`): 300 a
//! cached read, 470 a buffered write, 540 a cached read as a task of a [`TaskSet`].
//!
//! # Memory under the kernel
//! The buffers of an operation are borrowed by its future, and the kernel writes to them as long
//! as the operation runs. So a future that is dropped first cancels its operation and *waits*
//! until the kernel has let go of the memory; this blocks the thread for as long as the storage
//! hangs. A caller that must not wait lets the future run to its end instead of dropping it.
//! A future whose buffers are borrowed must not be leaked (`mem::forget`) once polled and its
//! buffers then be freed: that is the one rule that the compiler does not check. A leaked future
//! keeps the engine's ring itself alive.
mod channel;
mod core;
mod engine;
mod file;
mod meter;
mod notify;
mod op;
mod pace;
mod poller;
mod pool;
mod readiness;
mod task_set;
mod timer;
mod unblock;
mod uring;

pub use channel::{Receiver, Sender, channel};
pub use engine::{Backend, Engine};
pub use file::File;
pub use readiness::Readiness;
pub use task_set::{Key, Started, TaskSet};
pub use timer::{Elapsed, Sleep, sleep, sleep_until, timeout};
pub use unblock::unblock;

#[cfg(test)]
mod tests;
