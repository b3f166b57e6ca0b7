// SPDX-License-Identifier: Apache-2.0
//! Directories that an archive has made, until their modes and times are set: when nothing more is made in them.

use crate::tar::fault::Failures;
use crate::tar::member::Meta;
use guest_error::{Context, Result};
use rustix::fs::{Mode, Timestamps};
use std::ffi::OsString;
use std::os::fd::OwnedFd;

/// Most of them that are open.
const OPEN: usize = 256;

/// A directory that was made, and what is set when nothing more is made in it.
struct Made {
    fd: OwnedFd,
    /// Its member's path, ending in a slash unless it is empty.
    path: Vec<u8>,
    mode: Mode,
    times: Timestamps,
    shown: OsString,
}

impl Made {
    fn complete(self) -> Result<()> {
        let mode = rustix::fs::fchmod(&self.fd, self.mode).on(&self.shown);
        mode.and(rustix::fs::futimens(&self.fd, &self.times).on(&self.shown))
    }
}

/// Directories whose modes and times are to be set at the end.
#[derive(Default)]
pub(super) struct Directories(Vec<Made>);

impl Directories {
    /// Remembers a directory for the end. Descriptors are few: one that the archive has left, or else the one of
    /// longest ago, is closed, and what was to be set is set now, mode first.
    pub(super) fn add(
        &mut self,
        fd: OwnedFd,
        path: &[u8],
        mode: Mode,
        meta: &Meta,
        failures: &mut Failures,
    ) -> Result<()> {
        if self.0.len() == OPEN {
            let left = self.0.iter().position(|d| !path.starts_with(&d.path));
            let completed = self.0.remove(left.unwrap_or(0)).complete();
            failures.defer(completed)?;
        }
        let mut path = path.to_vec();
        if path.last().is_some_and(|b| *b != b'/') {
            path.push(b'/');
        }
        let (times, shown) = (meta.times.clone(), meta.shown.clone());
        self.0.push(Made { fd, path, mode, times, shown });
        Ok(())
    }

    /// Sets what was left to the end.
    pub(super) fn finish(mut self, failures: &mut Failures) -> Result<()> {
        // Those inside first: setting times does not change what is above.
        while let Some(directory) = self.0.pop() {
            failures.defer(directory.complete())?;
        }
        Ok(())
    }
}
