// SPDX-License-Identifier: Apache-2.0
//! The blocks of a device that superblocks are in.

use rustix::buffer::spare_capacity;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::borrow::Cow;
use std::fs::File;
use std::io;

/// Bytes from the beginning on that are read at once: they hold every superblock but those at the end.
const HEAD: usize = 264 << 10;
/// Bytes at the end that are read at once.
const TAIL: usize = 72 << 10;

/// A device as superblocks are looked for on it. Whatever is out of its bounds or cannot be read is not there.
#[derive(Debug)]
pub(crate) struct Medium<'f> {
    head: Cow<'f, [u8]>,
    tail: Cow<'f, [u8]>,
    size: u64,
    source: Source<'f>,
}

#[derive(Debug)]
enum Source<'f> {
    File(&'f File),
    Bytes(&'f [u8]),
}

impl<'f> Medium<'f> {
    /// A file, or a block device.
    pub(crate) fn of_file(file: &'f File) -> io::Result<Self> {
        let size = rustix::fs::seek(file, SeekFrom::End(0))?;
        let head = read(file, 0, HEAD.min(usize::try_from(size).unwrap_or(HEAD)))?;
        let begin = size.saturating_sub(TAIL as u64).max(head.len() as u64);
        let tail = read(file, begin, usize::try_from(size - begin).unwrap_or(0))?;
        Ok(Self { head: head.into(), tail: tail.into(), size, source: Source::File(file) })
    }

    pub(crate) fn of_bytes(bytes: &'f [u8]) -> Self {
        let head = &bytes[..bytes.len().min(HEAD)];
        let tail = &bytes[bytes.len().saturating_sub(TAIL).max(head.len())..];
        let size = bytes.len() as u64;
        Self { head: head.into(), tail: tail.into(), size, source: Source::Bytes(bytes) }
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes at an offset.
    pub(crate) fn at(&self, offset: u64, len: usize) -> Option<Cow<'_, [u8]>> {
        offset.checked_add(len as u64).filter(|&end| end <= self.size)?;
        let inside = |part: &'_ [u8], begin: u64| -> Option<(usize, usize)> {
            let from = usize::try_from(offset.checked_sub(begin)?).ok()?;
            (from + len <= part.len()).then_some((from, from + len))
        };
        if let Some((from, to)) = inside(&self.head, 0) {
            return Some(Cow::Borrowed(&self.head[from..to]));
        }
        if let Some((from, to)) = inside(&self.tail, self.size - self.tail.len() as u64) {
            return Some(Cow::Borrowed(&self.tail[from..to]));
        }
        match self.source {
            Source::File(file) => {
                read(file, offset, len).ok().filter(|b| b.len() == len).map(Cow::Owned)
            }
            Source::Bytes(b) => {
                let begin = usize::try_from(offset).ok()?;
                Some(Cow::Borrowed(b.get(begin..begin + len)?))
            }
        }
    }

    /// Bytes at an offset, as many as the array has.
    pub(crate) fn array<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        self.at(offset, N)?.as_ref().try_into().ok()
    }

    /// Whether these bytes are at an offset.
    pub(crate) fn has(&self, offset: u64, magic: &[u8]) -> bool {
        self.at(offset, magic.len()).is_some_and(|b| *b == *magic)
    }

    /// Whether it is all zeros where superblocks could be.
    pub(crate) fn is_blank(&self) -> bool {
        let zeros = |part: &[u8]| part.chunks(64).all(|c| c.iter().all(|&b| b == 0));
        zeros(&self.head) && zeros(&self.tail)
    }
}

/// Reads so many bytes, or up to the end.
fn read(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    // Not filled with zeros before: that would take as long as reading.
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    // There may have been room for more.
    bytes.truncate(len);
    Ok(bytes)
}
