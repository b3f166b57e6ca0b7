// SPDX-License-Identifier: Apache-2.0
//! What a device's thread shows of itself to the others, who look without asking it: it may hang in
//! its storage.
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use block::exclusive::LockView;
use block::statistics::{Counter, Snapshot, Statistics};

/// Written by the device's thread, read by any.
#[derive(Debug, Default)]
pub struct Shown {
    statistics: Arc<Statistics>,
    under_way: AtomicU64,
    done: Counter,
    failed: Counter,
    slow: Mutex<Slow>,
}

/// What changes seldom.
#[derive(Debug, Default)]
struct Slow {
    files: Vec<PathBuf>,
    lock: Option<LockView>,
}

/// How a device does, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doing {
    /// Operations of its disk.
    pub operations: Snapshot,
    /// Commands that wait for its storage.
    pub under_way: u64,
    /// Commands that have been answered.
    pub done: u64,
    /// Those of them that ended in CHECK CONDITION, or were aborted.
    pub failed: u64,
    /// The files that it has open.
    pub files: Vec<PathBuf>,
    /// Who has the exclusive lock of its storage, where there is one.
    pub lock: Option<LockView>,
}

impl Shown {
    /// The counters of the disk.
    pub(super) fn statistics(&self) -> Arc<Statistics> {
        self.statistics.clone()
    }

    /// A command has been answered.
    #[inline]
    pub(super) fn count(&self, failed: bool) {
        self.done.add(1);
        self.failed.add(failed.into());
    }

    /// So many commands wait for the storage.
    #[inline]
    pub(super) fn set_under_way(&self, commands: usize) {
        self.under_way.store(commands as u64, Ordering::Relaxed);
    }

    /// Another image is open.
    pub(super) fn set_files(&self, files: Vec<PathBuf>) {
        self.slow(|slow| slow.files = files);
    }

    /// The lock as it is now; `None`: the image that is open has none.
    pub(super) fn set_lock(&self, lock: Option<LockView>) {
        self.slow(|slow| slow.lock = lock);
    }

    fn slow<T>(&self, change: impl FnOnce(&mut Slow) -> T) -> T {
        change(&mut self.slow.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All of it, as it is now.
    pub fn doing(&self) -> Doing {
        let (files, lock) = self.slow(|slow| (slow.files.clone(), slow.lock));
        Doing {
            operations: self.statistics.snapshot(),
            under_way: self.under_way.load(Ordering::Relaxed),
            done: self.done.get(),
            failed: self.failed.get(),
            files,
            lock,
        }
    }
}
