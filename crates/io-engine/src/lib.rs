// SPDX-License-Identifier: Apache-2.0
//! Asynchronous file I/O and an executor for ONE thread: the thread of a device.
//!
//! An [`Engine`] runs one future ([`Engine::block_on`]); what that future awaits goes to io_uring,
//! or, where that may not be used (`kernel.io_uring_disabled`, a seccomp filter, an old kernel),
//! to epoll and a bounded pool of threads. Both look the same from here: [`File`] reads and
//! writes, [`Readiness`] waits for descriptors, [`sleep`] for time, [`unblock`] for code that can
//! only block, [`channel`] for other threads, [`external()`] for what a library's threads do, and a
//! [`TaskSet`] runs many futures as one.
//!
//! # What an I/O costs
//! Reads that the page cache answers and buffered writes while the storage is fast never leave
//! the first poll: one system call each, no allocation (see [`File`]). The rest is collected
//! while futures are polled and submitted together at the end of the turn, by the same
//! `io_uring_enter` that then sleeps. Slots for operations and wakers are reused. In user
//! instructions, libc's wrappers and the clock included (callgrind on `examples/io_cost.rs`): 300 a
//! cached read, 470 a buffered write, 540 a cached read as a task of a [`TaskSet`].
//!
//! # Memory under the kernel
//! The kernel reads and writes memory as long as an operation runs, whatever becomes of the future
//! that awaits it. So an operation that leaves the first poll has a share of its memory and of its
//! file, not a borrow: where the `Sgl` has an owner (`Sgl::zeroed`, the data area of a ring), the
//! memory itself; else a copy, at most 256 KiB at a time. A future that is leaked (`mem::forget`)
//! leaks these shares and the engine's ring; nothing is freed under the kernel.
//!
//! A future that is dropped cancels its operation and *waits* until the kernel has ended it, so
//! that nothing is written later; this blocks the thread for as long as the storage hangs. A
//! caller that must not wait lets the future run to its end instead.
mod channel;
mod core;
mod engine;
mod external;
mod file;
mod meter;
mod notify;
pub mod ofd;
mod op;
mod pace;
mod poller;
mod pool;
mod readiness;
mod signals;
#[cfg(feature = "sim")]
pub mod sim;
mod task_set;
mod timer;
mod unblock;
mod uring;

pub use channel::{Receiver, Sender, channel};
pub use engine::{Backend, Engine};
pub use external::{Completer, External, external};
pub use file::File;
pub use pace::{Begun, Pace};
pub use readiness::Readiness;
pub use signals::{Signals, unblock_all};
pub use task_set::{Key, Started, TaskSet};
pub use timer::{Elapsed, Sleep, sleep, sleep_until, timeout};
pub use unblock::unblock;

#[cfg(test)]
mod tests;
