// SPDX-License-Identifier: Apache-2.0
//! The architecture that a file of the guest is for: a program, kernel or module, or an initramfs image of programs.

use crate::compression;
use crate::initramfs;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result, from_io};
use guest_fs::cpio::{self, read::Reader};
use guest_fs::paths::GuestPath;
use inspect::architecture::{self, FirstProgram, HEAD, enough};
use rustix::fs::{FileType, OFlags};
use std::fs::File;
use std::io::{Read, Seek};

/// The architecture that a file is for.
pub(crate) fn file_architecture(s: &mut Session, filename: GuestPath<'_>) -> Result<&'static str> {
    let path = s.open(filename, OFlags::PATH)?;
    let stat = rustix::fs::fstat(&path).on(filename)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Error::argument("filename", filename, "not a regular file"));
    }
    let mut file = s.open(filename, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let found = architecture_of(&mut file).map_err(|e| e.within(filename))?;
    found.ok_or_else(|| {
        let why =
            "not a file whose architecture is known: not a program, library, module or initrd";
        Error::argument("filename", filename, why)
    })
}

fn architecture_of(file: &mut File) -> Result<Option<&'static str>> {
    let mut head = Vec::new();
    file.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(|e| from_io(e, "read"))?;
    if let Some(found) = architecture::of_head(&head) {
        return Ok(Some(found));
    }
    file.rewind().map_err(|e| from_io(e, "seek"))?;
    match compression::of_head(&head) {
        Some(program) => in_stream(program, file),
        None if cpio::is_archive(&head) => in_image(file),
        None => Ok(None),
    }
}

/// An initramfs image that begins with an archive that is not compressed.
fn in_image(file: &mut File) -> Result<Option<&'static str>> {
    let mut first = FirstProgram::default();
    let read = initramfs::read(file, &mut first);
    match (first.architecture(), read) {
        (Some(found), _) => Ok(Some(found)),
        // It is no image after all, or no longer.
        (None, Err(e)) if e.errno() != Errno::EINVAL => Err(e),
        (None, _) => Ok(None),
    }
}

/// A stream that is compressed: a program, or an image.
fn in_stream(program: &str, file: &mut File) -> Result<Option<&'static str>> {
    /// Most bytes that are looked through: what is compressed may be without end.
    const MOST: u64 = 2 << 30;
    let mut first = FirstProgram::default();
    let mut reader = Reader::new(&mut first);
    let (mut head, mut whole, mut seen, mut is_archive) = (Vec::new(), None, 0, true);
    let streamed = Tool::new(program).arg("-dc").stream(file, &mut |piece| {
        seen += piece.len() as u64;
        head.extend_from_slice(&piece[..piece.len().min(HEAD - head.len())]);
        whole = architecture::of_head(&head);
        if is_archive {
            is_archive = match reader.push(piece) {
                Ok(taken) => taken == piece.len(),
                Err(e) if e.errno() == Errno::EINVAL => false,
                Err(e) => return Err(e),
            };
        }
        let over = whole.is_some() || seen > MOST || (!is_archive && head.len() == HEAD);
        if over { Err(enough()) } else { Ok(()) }
    });
    match (whole.or(first.architecture()), streamed) {
        (Some(found), _) => Ok(Some(found)),
        (None, Ok(output)) => output.success().map(|_| None),
        (None, Err(e)) if e.errno() == Errno::ECANCELED => Ok(None),
        (None, Err(e)) => Err(e),
    }
}
