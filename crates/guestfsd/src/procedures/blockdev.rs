// SPDX-License-Identifier: Apache-2.0
//! What block devices are, and what wipes them.

use super::files::only_zeroes;
use super::numbers::not_negative;
use crate::block;
use crate::devices::Device;
use crate::lvm;
use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::Progress;
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::options;
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes that `zero` wipes: the superblock of any filesystem and any partition table are in them.
const FIRST_BLOCKS: u64 = 128 << 10;
/// Bytes that are read at once when a device is wiped.
const PIECE: usize = 1 << 20;
/// Of these, the unit that is left alone where it is zero already.
const UNIT: usize = 4096;

/// Devices that the session has made read only. They become writable when it ends: a loop device would keep
/// its state for whoever uses it next.
#[derive(Debug, Default)]
struct MadeReadOnly {
    devices: Vec<Device>,
}

impl Drop for MadeReadOnly {
    fn drop(&mut self) {
        for device in &self.devices {
            if let Err(e) = set_read_only(device, false) {
                tracing::warn!(error = %e, "making writable again");
            }
        }
    }
}

fn set_read_only(device: &Device, read_only: bool) -> Result<()> {
    block::set_read_only(&device.open(OFlags::RDONLY)?, read_only).on(device)
}

/// Makes a device read only.
pub(crate) fn blockdev_setro(s: &mut Session, device: Device) -> Result<()> {
    if block::is_read_only(&device.open(OFlags::RDONLY)?).on(&device)? {
        return Ok(());
    }
    set_read_only(&device, true)?;
    if !s.config().serves_machine() {
        s.state::<MadeReadOnly>().devices.push(device);
    }
    Ok(())
}

/// Makes a device writable.
pub(crate) fn blockdev_setrw(s: &mut Session, device: Device) -> Result<()> {
    set_read_only(&device, false)?;
    s.state::<MadeReadOnly>().devices.retain(|d| d.path() != device.path());
    Ok(())
}

/// Whether a device is read only.
pub(crate) fn blockdev_getro(_: &mut Session, device: Device) -> Result<bool> {
    block::is_read_only(&device.open(OFlags::RDONLY)?).on(&device)
}

/// Size of a sector.
pub(crate) fn blockdev_getss(_: &mut Session, device: Device) -> Result<i32> {
    block::sector_size(&device.open(OFlags::RDONLY)?).on(&device)
}

/// Size of a block of the page cache.
pub(crate) fn blockdev_getbsz(_: &mut Session, device: Device) -> Result<i32> {
    block::block_size(&device.open(OFlags::RDONLY)?).on(&device)
}

/// Does nothing: the kernel forgets the size when the device is closed.
pub(crate) fn blockdev_setbsz(_: &mut Session, _: Device, _blocksize: i32) -> Result<()> {
    Ok(())
}

/// Size in units of 512 bytes, whatever the device's sectors are.
pub(crate) fn blockdev_getsz(_: &mut Session, device: Device) -> Result<i64> {
    Ok(size(&device)? / 512)
}

/// Size in bytes; of a volume that is not active, that which it would have.
pub(crate) fn blockdev_getsize64(s: &mut Session, device: &OsStr) -> Result<i64> {
    match s.device("device", device) {
        Err(e) if e.errno() == Errno::ENODEV => {
            let bytes = lvm::field_of_inactive(s, device, "lv_size");
            bytes.and_then(|bytes| bytes.parse().ok()).ok_or(e)
        }
        found => size(&found?),
    }
}

fn size(device: &Device) -> Result<i64> {
    let size = block::size(&device.open(OFlags::RDONLY)?).on(device)?;
    i64::try_from(size)
        .map_err(|_| Error::new(Errno::EOVERFLOW, "is larger than a reply can say").within(device))
}

/// Writes what the kernel keeps of a device, and forgets it.
pub(crate) fn blockdev_flushbufs(_: &mut Session, device: Device) -> Result<()> {
    block::flush(&device.open(OFlags::RDONLY)?).on(&device)
}

/// Has the kernel read the partition table again.
pub(crate) fn blockdev_rereadpt(s: &mut Session, device: Device) -> Result<()> {
    s.udev().changed();
    block::reread_partitions(&device.open(OFlags::RDONLY)?).on(&device)
}

/// Sets how far is read ahead, in sectors of 512 bytes.
pub(crate) fn blockdev_setra(_: &mut Session, device: Device, sectors: i32) -> Result<()> {
    let sectors = not_negative("sectors", sectors)?;
    block::set_readahead(&device.open(OFlags::RDONLY)?, sectors).on(&device)
}

/// Wipes the first blocks.
pub(crate) fn zero(s: &mut Session, device: Device, progress: &mut Progress<'_>) -> Result<()> {
    wipe(s, &device, FIRST_BLOCKS, progress)
}

/// Wipes all of a device.
pub(crate) fn zero_device(
    s: &mut Session,
    device: Device,
    progress: &mut Progress<'_>,
) -> Result<()> {
    wipe(s, &device, u64::MAX, progress)
}

/// Has the first `len` bytes of a device, or all that it has, read as zeroes. What is zero already is not
/// written, so that what is sparse below stays so.
fn wipe(s: &mut Session, device: &Device, len: u64, progress: &mut Progress<'_>) -> Result<()> {
    let file = device.open(OFlags::RDWR)?;
    s.udev().changed();
    let len = len.min(block::size(&file).on(device)?);
    wipe_file(&file, len, |done| progress.at(done, len)).on(device)?;
    file.sync_data().on(device)
}

fn wipe_file(file: &File, len: u64, mut at: impl FnMut(u64)) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let zeroes = vec![0; PIECE];
    let mut offset = 0;
    while offset < len {
        let want = usize::try_from(len - offset).unwrap_or(PIECE).min(PIECE);
        file.read_exact_at(&mut buffer[..want], offset)?;
        // Runs of units that are not zero.
        let dirty: Vec<bool> =
            buffer[..want].chunks(UNIT).map(|unit| unit.iter().any(|&b| b != 0)).collect();
        let mut begin = 0;
        for run in dirty.chunk_by(|a, b| a == b) {
            let end = begin + run.len();
            if run[0] {
                let bytes = (end * UNIT).min(want) - begin * UNIT;
                file.write_all_at(&zeroes[..bytes], offset + (begin * UNIT) as u64)?;
            }
            begin = end;
        }
        offset += want as u64;
        at(offset);
        if guest_fs::interrupt::requested() {
            return Err(rustix::io::Errno::INTR.into());
        }
    }
    Ok(())
}

/// Whether a device has nothing but zeroes on it.
pub(crate) fn is_zero_device(_: &mut Session, device: Device) -> Result<bool> {
    only_zeroes(&mut device.open(OFlags::RDONLY)?).on(&device)
}

/// Writes patterns over a device.
pub(crate) fn scrub_device(s: &mut Session, device: Device) -> Result<()> {
    s.udev().changed();
    // -f: even if it carries scrub's own mark of an earlier run.
    Tool::new("scrub").arg("-f").arg(device.path()).ok().map_err(|e| e.within(&device))
}

/// Erases the signatures that filesystems, RAID and partition tables are known by.
pub(crate) fn wipefs(s: &mut Session, device: Device) -> Result<()> {
    s.udev().changed();
    // --force: a partition table is erased too while the kernel knows its partitions.
    let tool = Tool::new("wipefs").args(["--all", "--force", "--"]).arg(device.path());
    tool.ok().map_err(|e| e.within(&device))
}

/// Gives all blocks of a device back.
pub(crate) fn blkdiscard(s: &mut Session, device: Device) -> Result<()> {
    let file = device.open(OFlags::WRONLY | OFlags::EXCL)?;
    s.udev().changed();
    let size = block::size(&file).on(&device)?;
    block::discard(&file, 0, size).on(&device)
}

/// Whether blocks that were given back read as zeroes.
pub(crate) fn blkdiscardzeroes(_: &mut Session, device: Device) -> Result<bool> {
    block::discard_zeroes(&device.open(OFlags::RDONLY)?).on(&device)
}

/// Mounts nothing: an error, as documented.
pub(crate) fn mount_9p(
    _: &mut Session,
    mounttag: &OsStr,
    _mountpoint: &OsStr,
    _: &options::Mount9p,
) -> Result<()> {
    Err(Error::not_supported("9p support was removed in libguestfs 1.48").within(mounttag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_zero_already_is_not_written() {
        let file = tempfile::tempfile().unwrap();
        let len = 3 * PIECE as u64 + 1000;
        file.set_len(len).unwrap();
        file.write_all_at(b"x", PIECE as u64 + 8191).unwrap();
        file.write_all_at(b"y", len - 1).unwrap();
        let mut told = Vec::new();
        wipe_file(&file, len, |at| told.push(at)).unwrap();
        let mut all = vec![1; 3 * PIECE + 1000];
        file.read_exact_at(&mut all, 0).unwrap();
        assert!(all.iter().all(|&b| b == 0));
        assert!(file.metadata().unwrap().blocks() <= 4 * UNIT as u64 / 512);
        assert_eq!(told.last(), Some(&len));
    }

    #[test]
    fn bytes_after_those_to_be_wiped_stay() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 3 * UNIT], 0).unwrap();
        wipe_file(&file, 2 * UNIT as u64 - 10, |_| ()).unwrap();
        let mut all = vec![1; 3 * UNIT];
        file.read_exact_at(&mut all, 0).unwrap();
        assert!(all[..2 * UNIT - 10].iter().all(|&b| b == 0));
        assert!(all[2 * UNIT - 10..].iter().all(|&b| b == 7));
    }
}
