// SPDX-License-Identifier: Apache-2.0
//! Names in a directory, read before they are needed: many with one system call, and what is left of a
//! directory before it is closed.

use rustix::fs::{FileType, RawDir};
use rustix::io::{Errno as Raw, Result};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

/// What the kernel writes entries to.
pub(super) type Buffer = [MaybeUninit<u8>];

/// Names that are still to be gone through.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of each its type, a byte, and the name followed by NUL.
    bytes: Vec<u8>,
    /// Where the next one begins.
    next: usize,
    /// The directory has no more than these.
    complete: bool,
}

impl Names {
    /// The next one, of those that have been read.
    pub(super) fn next(&mut self) -> Option<(FileType, &[u8])> {
        let (kind, rest) = self.bytes.get(self.next..)?.split_first()?;
        let len = rest.iter().position(|&b| b == 0)?;
        self.next += len + 2;
        Some((FileType::from_raw_mode(u32::from(*kind) << TYPE_SHIFT), &rest[..len]))
    }

    /// Reads some more; false if there are no more.
    pub(super) fn read(&mut self, dir: BorrowedFd<'_>, buffer: &mut Buffer) -> Result<bool> {
        if self.complete {
            return Ok(false);
        }
        if self.next == self.bytes.len() {
            self.bytes.clear();
            self.next = 0;
        }
        let mut entries = RawDir::new(dir, buffer);
        loop {
            match entries.next() {
                Some(Ok(entry)) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    // Kernels before 5.5 show whatever a broken filesystem has.
                    name if name.is_empty() || name.contains(&b'/') => return Err(Raw::IO),
                    name => {
                        let kind = entry.file_type().as_raw_mode() >> TYPE_SHIFT;
                        self.bytes.push(u8::try_from(kind).unwrap_or(0));
                        self.bytes.extend_from_slice(name);
                        self.bytes.push(0);
                    }
                },
                Some(Err(Raw::INTR)) => continue,
                // A directory that has been removed has none.
                None | Some(Err(Raw::NOENT)) => {
                    self.complete = true;
                    return Ok(false);
                }
                Some(Err(e)) => return Err(e),
            }
            if entries.is_buffer_empty() {
                return Ok(true);
            }
        }
    }

    /// Reads all that is left, unless that would be more than so many bytes. Whether the directory can be closed.
    pub(super) fn read_rest(
        &mut self,
        dir: BorrowedFd<'_>,
        buffer: &mut Buffer,
        most: usize,
    ) -> bool {
        self.bytes.drain(..self.next);
        self.next = 0;
        loop {
            // What cannot be read is an error when the walk comes to it.
            match self.read(dir, buffer) {
                Ok(true) if self.bytes.len() <= most => {}
                Ok(more) => {
                    self.bytes.shrink_to_fit();
                    return !more && self.bytes.len() <= most;
                }
                Err(_) => return false,
            }
        }
    }

    /// Nothing more is read.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }

    /// Bytes that are kept.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Types are the upper bits of a mode.
const TYPE_SHIFT: u32 = 12;
