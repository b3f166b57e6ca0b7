// SPDX-License-Identifier: Apache-2.0
//! Scrubbing: reading and verifying all that is on a device.

use super::{MAGIC, call, read_write, tell};
use rustix::io::Result;
use rustix::ioctl::opcode;
use std::os::fd::AsFd;

/// `struct btrfs_scrub_progress`: what was read, and what was wrong with it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Progress {
    /// Extents of data.
    pub data_extents_scrubbed: u64,
    /// Extents of metadata.
    pub tree_extents_scrubbed: u64,
    /// Bytes of data.
    pub data_bytes_scrubbed: u64,
    /// Bytes of metadata.
    pub tree_bytes_scrubbed: u64,
    /// What could not be read.
    pub read_errors: u64,
    /// Checksums that were wrong.
    pub csum_errors: u64,
    /// Metadata that was not as expected.
    pub verify_errors: u64,
    /// Blocks of data without a checksum.
    pub no_csum: u64,
    /// Checksums without data.
    pub csum_discards: u64,
    /// Superblocks that were bad.
    pub super_errors: u64,
    /// Times that the kernel had no memory.
    pub malloc_errors: u64,
    /// Errors without a good copy.
    pub uncorrectable_errors: u64,
    /// Errors that were corrected.
    pub corrected_errors: u64,
    /// The last place on the device.
    pub last_physical: u64,
    /// Errors that were gone at the second reading.
    pub unverified_errors: u64,
}

impl Progress {
    /// Both together; the last place is that of the second.
    pub(crate) fn and(self, next: Self) -> Self {
        let sum = u64::saturating_add;
        Self {
            data_extents_scrubbed: sum(self.data_extents_scrubbed, next.data_extents_scrubbed),
            tree_extents_scrubbed: sum(self.tree_extents_scrubbed, next.tree_extents_scrubbed),
            data_bytes_scrubbed: sum(self.data_bytes_scrubbed, next.data_bytes_scrubbed),
            tree_bytes_scrubbed: sum(self.tree_bytes_scrubbed, next.tree_bytes_scrubbed),
            read_errors: sum(self.read_errors, next.read_errors),
            csum_errors: sum(self.csum_errors, next.csum_errors),
            verify_errors: sum(self.verify_errors, next.verify_errors),
            no_csum: sum(self.no_csum, next.no_csum),
            csum_discards: sum(self.csum_discards, next.csum_discards),
            super_errors: sum(self.super_errors, next.super_errors),
            malloc_errors: sum(self.malloc_errors, next.malloc_errors),
            uncorrectable_errors: sum(self.uncorrectable_errors, next.uncorrectable_errors),
            corrected_errors: sum(self.corrected_errors, next.corrected_errors),
            last_physical: next.last_physical,
            unverified_errors: sum(self.unverified_errors, next.unverified_errors),
        }
    }
}

/// `struct btrfs_ioctl_scrub_args`.
#[repr(C)]
struct Arguments {
    device: u64,
    start: u64,
    end: u64,
    flags: u64,
    progress: Progress,
    unused: [u64; 109],
}

impl Arguments {
    fn new(device: u64, start: u64, read_only: bool) -> Self {
        Self {
            device,
            start,
            end: u64::MAX,
            flags: u64::from(read_only),
            progress: Progress::default(),
            unused: [0; 109],
        }
    }
}

/// Reads and verifies all that is on a device from this offset on, until it is done or cancelled. How far it came
/// is told in any case.
pub(crate) fn run(
    filesystem: impl AsFd,
    device: u64,
    start: u64,
    read_only: bool,
) -> (Result<()>, Progress) {
    let mut args = Arguments::new(device, start, read_only);
    let done = call::<{ read_write::<Arguments>(27) }, _>(filesystem, &mut args).map(drop);
    (done, args.progress)
}

/// How far that has come; an error if it is not running.
pub(crate) fn progress(filesystem: impl AsFd, device: u64) -> Result<Progress> {
    let mut args = Arguments::new(device, 0, false);
    call::<{ read_write::<Arguments>(29) }, _>(filesystem, &mut args)?;
    Ok(args.progress)
}

/// Ends it on all devices, and waits for that.
pub(crate) fn cancel(filesystem: impl AsFd) -> Result<()> {
    tell::<{ opcode::none(MAGIC, 28) }>(filesystem, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_expects() {
        assert_eq!(size_of::<Arguments>(), 1024);
    }
}
