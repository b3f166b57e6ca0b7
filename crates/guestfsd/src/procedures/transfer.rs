// SPDX-License-Identifier: Apache-2.0
//! Files and devices to and from the client, whole or in part.

use super::numbers::not_negative;
use crate::devices::Device;
use crate::mountable::DevOrPath;
use crate::session::Session;
use crate::transfer::{FileIn, FileOut};
use guest_error::{Calling, Context, Errno, Error, Result};
use guest_fs::paths::GuestPath;
use guestfs_api::frame::MAX_MESSAGE;
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom};

/// Most bytes that `pread` returns: a reply has a head as well.
const MAX_PREAD: usize = MAX_MESSAGE - 1024;

/// Stores the client's file in the guest or on a device.
pub(crate) fn upload(
    s: &mut Session,
    filename: &mut FileIn<'_>,
    remotefilename: DevOrPath<'_>,
) -> Result<()> {
    receive(s, filename, &remotefilename, OFlags::CREATE | OFlags::TRUNC, None)
}

/// Stores the client's file from an offset on, in a file or device that is there or is made.
pub(crate) fn upload_offset(
    s: &mut Session,
    filename: &mut FileIn<'_>,
    remotefilename: DevOrPath<'_>,
    offset: i64,
) -> Result<()> {
    let offset = not_negative("offset", offset)?;
    receive(s, filename, &remotefilename, OFlags::CREATE, Some(offset))
}

fn receive(
    s: &mut Session,
    file: &mut FileIn<'_>,
    to: &DevOrPath<'_>,
    how: OFlags,
    offset: Option<u64>,
) -> Result<()> {
    let target = open(s, to, OFlags::WRONLY | how)?;
    // Not every file has offsets: a FIFO or a character device is written as it comes.
    let offset = offset.or_else(|| is_seekable(&target).then_some(0));
    file.copy_to(&target, offset, to)?;
    if let DevOrPath::Device(_) = to {
        s.udev().changed();
        s.flushes().fsync(&target, to)?;
    }
    Ok(())
}

/// Sends a file of the guest or a device.
pub(crate) fn download(
    s: &mut Session,
    remotefilename: DevOrPath<'_>,
    filename: &mut FileOut<'_>,
) -> Result<()> {
    let source = open(s, &remotefilename, OFlags::RDONLY)?;
    refuse_directory(&source, &remotefilename)?;
    let size = size_of(&source).on(&remotefilename)?;
    if size > 0 {
        let sent = filename.copy_from(&source, 0, size, &remotefilename)?;
        if sent < size {
            return Ok(());
        }
    }
    // A file that grows meanwhile, and those that do not tell their size, such as those of /proc.
    send_rest(&source, size, filename, &remotefilename)
}

/// Sends `size` bytes of a file of the guest or a device from an offset on.
pub(crate) fn download_offset(
    s: &mut Session,
    remotefilename: DevOrPath<'_>,
    filename: &mut FileOut<'_>,
    offset: i64,
    size: i64,
) -> Result<()> {
    let offset = not_negative("offset", offset)?;
    let size = not_negative("size", size)?;
    let source = open(s, &remotefilename, OFlags::RDONLY)?;
    refuse_directory(&source, &remotefilename)?;
    filename.copy_from(&source, offset, size, &remotefilename).map(drop)
}

fn send_rest(source: &File, from: u64, out: &mut FileOut<'_>, name: &DevOrPath<'_>) -> Result<()> {
    if is_seekable(source) {
        return out.copy_from(source, from, u64::MAX - from, name).map(drop);
    }
    std::io::copy(&mut &*source, out).map(drop).map_err(|e| guest_error::from_io(e, name))
}

/// Up to `count` bytes of a file.
pub(crate) fn pread(
    s: &mut Session,
    path: GuestPath<'_>,
    count: i32,
    offset: i64,
) -> Result<Vec<u8>> {
    let file = s.open(path, OFlags::RDONLY).calling("open")?;
    pread_from(&file, count, offset, path)
}

/// Up to `count` bytes of a device.
pub(crate) fn pread_device(
    _: &mut Session,
    device: Device,
    count: i32,
    offset: i64,
) -> Result<Vec<u8>> {
    let file = device.open(OFlags::RDONLY)?;
    pread_from(&file, count, offset, &device)
}

fn pread_from(file: &File, count: i32, offset: i64, name: impl AsRef<OsStr>) -> Result<Vec<u8>> {
    let count: usize = not_negative("count", count)?;
    let offset = not_negative("offset", offset)?;
    if count >= MAX_PREAD {
        let why = "is more than fits into a reply: read in smaller pieces";
        return Err(Error::argument("count", count.to_string(), why));
    }
    let mut data = vec![0; count];
    let n = rustix::io::pread(file, &mut data[..], offset).on(name).calling("pread")?;
    data.truncate(n);
    Ok(data)
}

/// Writes into a file that is there; returns how many bytes it took.
pub(crate) fn pwrite(
    s: &mut Session,
    path: GuestPath<'_>,
    content: &[u8],
    offset: i64,
) -> Result<i32> {
    let file = s.open(path, OFlags::WRONLY).calling("open")?;
    pwrite_to(&file, content, offset, path)
}

/// Writes onto a device; returns how many bytes it took.
pub(crate) fn pwrite_device(
    s: &mut Session,
    device: Device,
    content: &[u8],
    offset: i64,
) -> Result<i32> {
    let file = device.open(OFlags::WRONLY)?;
    let written = pwrite_to(&file, content, offset, &device);
    s.udev().changed();
    written
}

fn pwrite_to(file: &File, content: &[u8], offset: i64, name: impl AsRef<OsStr>) -> Result<i32> {
    let offset = not_negative("offset", offset)?;
    let n = rustix::io::pwrite(file, content, offset).on(name).calling("pwrite")?;
    i32::try_from(n).map_err(|_| Error::argument("content", n.to_string(), "too long"))
}

/// Stores the client's file in the daemon's own filesystem: only what the client library itself needs.
pub(crate) fn internal_upload(
    _: &mut Session,
    filename: &mut FileIn<'_>,
    tmpname: &OsStr,
    mode: i32,
) -> Result<()> {
    store_for_daemon(filename, tmpname, mode)
}

/// As `internal_upload`, for tests.
pub(crate) fn debug_upload(
    _: &mut Session,
    filename: &mut FileIn<'_>,
    tmpname: &OsStr,
    mode: i32,
) -> Result<()> {
    store_for_daemon(filename, tmpname, mode)
}

fn store_for_daemon(file: &mut FileIn<'_>, name: &OsStr, mode: i32) -> Result<()> {
    let mode = u32::try_from(mode)
        .ok()
        .filter(|m| *m <= 0o7777)
        .ok_or_else(|| Error::argument("mode", mode.to_string(), "is no mode of a file"))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let target = File::from(rustix::fs::open(name, flags, Mode::from_raw_mode(mode)).on(name)?);
    file.copy_to(&target, Some(0), name).map(drop)
}

/// Opens what is named; a file that is made gets mode 0666 less the umask.
pub(super) fn open(s: &Session, what: &DevOrPath<'_>, flags: OFlags) -> Result<File> {
    match what {
        DevOrPath::Device(device) => device.open(flags.difference(OFlags::CREATE | OFlags::TRUNC)),
        DevOrPath::Path(path) => s.open(*path, flags),
    }
}

/// Reading a directory would fail later and less clearly.
pub(super) fn refuse_directory(file: &File, name: impl AsRef<OsStr>) -> Result<()> {
    let stat = rustix::fs::fstat(file).on(&name)?;
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(Error::new(Errno::EISDIR, Errno::EISDIR.describe()).within(name));
    }
    Ok(())
}

/// The bytes of a file or device, as far as it tells.
pub(super) fn size_of(file: &File) -> std::io::Result<u64> {
    let metadata = file.metadata()?;
    if FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode).is_block_device() {
        let mut file = file;
        return file.seek(SeekFrom::End(0));
    }
    Ok(metadata.len())
}

fn is_seekable(file: &File) -> bool {
    rustix::fs::tell(file).is_ok()
}
