// SPDX-License-Identifier: Apache-2.0
//! Barriers: calls of sync that all who wait at the same time share. Syncs are numbered; what was
//! written when `started` was n is on stable storage once `done` is more than n.
//!
//! Rule: **a sync that failed is final.** Nothing that depends on it is reused, freed, or told to
//! be there.
//!
//! In a scratch image, which need not survive a loss of power, a barrier does nothing, and counts as
//! done. It never says of itself that it was closed, so that whoever opens it next looks at it.
use std::cell::Cell;

use crate::ErrorKind;
use crate::core::Core;
use crate::error::Result;
use crate::planted::Bug;
use crate::storage::Storage;
use crate::wait::Event;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Syncs {
    pub(crate) scratch: bool,
    pub(crate) started: Cell<u64>,
    pub(crate) done: Cell<u64>,
    running: Cell<bool>,
    /// The errno of the first that failed; 0 while none has.
    failed: Cell<i32>,
    ended: Event,
}

impl Syncs {
    pub(crate) fn new(scratch: bool) -> Self {
        Syncs { scratch, ..Syncs::default() }
    }
}

/// One that runs; when its future is dropped, somebody else begins another.
struct Running<'a>(&'a Syncs);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
        self.0.ended.notify();
    }
}

impl<S: Storage + 'static> Core<S> {
    /// Returns when all that has been written before is on stable storage.
    pub(crate) async fn barrier(&self) -> Result<()> {
        let syncs = &self.syncs;
        let needed = syncs.started.get() + 1;
        if syncs.scratch {
            syncs.started.set(needed);
            syncs.done.set(needed);
        }
        while syncs.done.get() < needed {
            if syncs.failed.get() != 0 {
                return Err(std::io::Error::from_raw_os_error(syncs.failed.get()).into());
            }
            if syncs.running.get() {
                self.jobs.wait(&syncs.ended).await;
                continue;
            }
            let number = syncs.started.get() + 1;
            syncs.started.set(number);
            syncs.running.set(true);
            let running = Running(syncs);
            let result = self.sync_all().await;
            match result {
                Ok(()) => syncs.done.set(number),
                Err(e) => {
                    // EIO, where the error has no number.
                    syncs.failed.set(e.raw_os_error().unwrap_or(5));
                    return Err(e.into());
                }
            }
            drop(running);
        }
        Ok(())
    }

    async fn sync_all(&self) -> std::io::Result<()> {
        if let Some(file) = &self.data_file
            && !self.has(Bug::FlushSkipsDataFile)
        {
            file.sync().await?;
        }
        self.storage.sync().await
    }

    /// Whether nothing has failed that is final.
    pub(crate) fn check_synced(&self) -> Result<()> {
        match self.syncs.failed.get() {
            0 => Ok(()),
            errno => Err(ErrorKind::Io(std::io::Error::from_raw_os_error(errno))),
        }
    }
}
