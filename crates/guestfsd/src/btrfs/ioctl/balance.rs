// SPDX-License-Identifier: Apache-2.0
//! Balancing: how it goes on, and controlling it.

use super::{call, read, tell, write};
use rustix::io::Result;
use std::ffi::c_int;
use std::os::fd::AsFd;

/// What is done about a balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Pauses it.
    Pause = 1,
    /// Ends it.
    Cancel = 2,
}

/// Pauses or ends a balance, and waits for that.
pub(crate) fn control(filesystem: impl AsFd, control: Control) -> Result<()> {
    tell::<{ write::<c_int>(33) }>(filesystem, control as usize)
}

/// How far a balance has come.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Progress {
    /// Chunks that it is expected to move.
    pub expected: u64,
    /// Chunks that it has looked at.
    pub considered: u64,
    /// Chunks that it has moved.
    pub completed: u64,
}

/// What goes on with a balance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State(u64);

impl State {
    /// It is running, and not paused.
    pub(crate) fn is_running(self) -> bool {
        self.0 & 1 != 0
    }

    /// It was told to pause.
    pub(crate) fn is_to_pause(self) -> bool {
        self.0 & 2 != 0
    }

    /// It was told to end.
    pub(crate) fn is_to_end(self) -> bool {
        self.0 & 4 != 0
    }
}

/// `struct btrfs_ioctl_balance_args`.
#[repr(C)]
struct Arguments {
    flags: u64,
    state: u64,
    /// What is balanced, of data, metadata and system chunks.
    which: [[u64; 17]; 3],
    progress: Progress,
    unused: [u64; 72],
}

/// The state of a balance; an error if there is none.
pub(crate) fn state(filesystem: impl AsFd) -> Result<(State, Progress)> {
    let mut args = Arguments {
        flags: 0,
        state: 0,
        which: [[0; 17]; 3],
        progress: Progress::default(),
        unused: [0; 72],
    };
    call::<{ read::<Arguments>(34) }, _>(filesystem, &mut args)?;
    Ok((State(args.state), args.progress))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_expects() {
        assert_eq!(size_of::<Arguments>(), 1024);
    }
}
