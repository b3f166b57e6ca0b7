// SPDX-License-Identifier: Apache-2.0
//! Contents of one file into another, both open: shared, copied by the kernel, or read and written.

use super::fault::{At, Copied, Side};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno as Raw;
use std::fs::File;

/// Copies content: shared where the filesystem can, otherwise without its holes.
pub(super) fn copy(source: &File, copy: &File, stat: &Stat) -> Copied<()> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if !FileType::from_raw_mode(stat.st_mode).is_file() || size == 0 {
        // Devices, and files of /proc, which say that they are empty.
        return pump(source, copy, None);
    }
    if rustix::fs::ioctl_ficlone(copy, source).is_ok() {
        return Ok(());
    }
    let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
    let mut at = 0;
    while at < size {
        let end = match sparse.then(|| extent(source, at)) {
            Some(Ok((begin, end))) => {
                at = begin;
                end.min(size)
            }
            // Nothing but a hole is left.
            Some(Err(Raw::NXIO)) => break,
            _ => size,
        };
        if at >= end {
            break;
        }
        range(source, copy, at, end)?;
        at = end;
    }
    // A file that has shrunk meanwhile has not become longer for that.
    match rustix::fs::fstat(copy).at(Side::Target)?.st_size {
        len if sparse && u64::try_from(len).unwrap_or(0) < size => {
            rustix::fs::ftruncate(copy, size).at(Side::Target)
        }
        _ => Ok(()),
    }
}

/// The data from an offset on: where they begin and end.
fn extent(file: &File, at: u64) -> rustix::io::Result<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let begin = seek(file, SeekFrom::Data(at))?;
    Ok((begin, seek(file, SeekFrom::Hole(begin))?))
}

/// Copies a range, in the kernel where it can.
fn range(source: &File, copy: &File, begin: u64, end: u64) -> Copied<()> {
    /// Few enough at once that a request to end is noticed soon.
    const PIECE: u64 = 64 << 20;
    let (mut from, mut to) = (begin, begin);
    while from < end {
        let want = usize::try_from((end - from).min(PIECE)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut from), copy, Some(&mut to), want) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Raw::INTR) => {}
            Err(Raw::XDEV | Raw::INVAL | Raw::OPNOTSUPP | Raw::NOSYS | Raw::PERM) => {
                use rustix::fs::{SeekFrom, seek};
                seek(source, SeekFrom::Start(from)).at(Side::Source)?;
                seek(copy, SeekFrom::Start(to)).at(Side::Target)?;
                return pump(source, copy, Some(end - from));
            }
            // Only what is written needs room.
            Err(e @ (Raw::NOSPC | Raw::DQUOT | Raw::FBIG)) => return Err(e).at(Side::Target),
            Err(e) => return Err(e).at(Side::Both),
        }
        if crate::interrupt::requested() {
            return Err(Raw::INTR).at(Side::Both);
        }
    }
    Ok(())
}

/// Copies by reading and writing, to the end or so many bytes.
fn pump(source: &File, copy: &File, limit: Option<u64>) -> Copied<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let n = match rustix::io::read(source, &mut buffer[..want]) {
            Ok(0) => break,
            Ok(n) => n,
            Err(Raw::INTR) if !crate::interrupt::requested() => continue,
            Err(e) => return Err(e).at(Side::Source),
        };
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            match rustix::io::write(copy, rest) {
                Ok(n) => rest = &rest[n..],
                Err(Raw::INTR) if !crate::interrupt::requested() => {}
                Err(e) => return Err(e).at(Side::Target),
            }
        }
        left -= n as u64;
    }
    Ok(())
}
