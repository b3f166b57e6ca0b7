// SPDX-License-Identifier: Apache-2.0
//! An image that takes long to open, since all of it has to be read (`.gz`), and whoever waits for it: how far
//! it is goes out, and that nobody waits any more comes in.
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;

/// Follows one opening, from any thread.
#[derive(Debug, Default)]
pub struct OpenWatch {
    steps: AtomicU64,
    given_up: AtomicBool,
}

impl OpenWatch {
    /// Grows while a pass through the image goes on.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Nobody waits any more: a pass that is under way ends with `ECANCELED`.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// A pass has come further.
    ///
    /// # Errors
    /// `ECANCELED` once nobody waits any more.
    pub fn step(&self) -> io::Result<()> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        match self.given_up.load(Ordering::Relaxed) {
            true => Err(Errno::CANCELED.into()),
            false => Ok(()),
        }
    }
}
