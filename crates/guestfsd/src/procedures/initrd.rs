// SPDX-License-Identifier: Apache-2.0
//! Initramfs images of the guest: what is in them.

use crate::initramfs;
use crate::session::Session;
use guest_error::{Errno, Error, Result};
use guest_fs::cpio::read::{Member, Sink};
use guest_fs::paths::GuestPath;
use guestfs_api::frame::MAX_MESSAGE;
use rustix::fs::{FileType, OFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Most bytes of a file, or of all names, that a reply has room for.
const MAX_REPLY: usize = MAX_MESSAGE - 4096;
/// Names of what is in an image.
pub(crate) fn initrd_list(s: &mut Session, path: GuestPath<'_>) -> Result<Vec<Vec<u8>>> {
    let mut names = Names::default();
    read(s, path, &mut names)?;
    Ok(names.list)
}

/// A file of an image. Of several members of this name the last counts, as it does to the kernel.
pub(crate) fn initrd_cat(
    s: &mut Session,
    initrdpath: GuestPath<'_>,
    filename: &OsStr,
) -> Result<Vec<u8>> {
    let mut wanted = Wanted { name: filename.as_bytes(), found: Found::Nothing, taking: false };
    read(s, initrdpath, &mut wanted)?;
    let (errno, text) = match wanted.found {
        Found::Content(content) => return Ok(content),
        // Another name of the file was to have its content, and has none: it is empty.
        Found::Link(_) => return Ok(Vec::new()),
        Found::Nothing => (Errno::ENOENT, "No such file or directory"),
        Found::TooLong => (Errno::EFBIG, "is longer than a reply can be"),
        Found::Other(FileType::Directory) => (Errno::EISDIR, "is a directory"),
        Found::Other(FileType::Symlink) => (Errno::ENOENT, "is a symbolic link"),
        Found::Other(_) => (Errno::EINVAL, "is not a regular file"),
    };
    let what = [initrdpath.bytes(), b":", filename.as_bytes()].concat();
    Err(Error::new(errno, text).within(OsStr::from_bytes(&what)))
}

/// Gathers names.
#[derive(Default)]
struct Names {
    list: Vec<Vec<u8>>,
    len: usize,
}

impl Sink for Names {
    fn member(&mut self, member: Member) -> Result<()> {
        self.len += member.name.len() + 2 * size_of::<u32>();
        if self.len > MAX_REPLY {
            return Err(Error::new(Errno::EFBIG, "more names than a reply has room for"));
        }
        self.list.push(member.name);
        Ok(())
    }

    fn content(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Looks for one name.
struct Wanted<'n> {
    name: &'n [u8],
    found: Found,
    /// What comes is its content.
    taking: bool,
}

/// What the name is.
enum Found {
    Nothing,
    Content(Vec<u8>),
    /// One name of this file; the content comes with another.
    Link((u32, u32, u32)),
    TooLong,
    Other(FileType),
}

impl Sink for Wanted<'_> {
    fn member(&mut self, member: Member) -> Result<()> {
        let linked = matches!(self.found, Found::Link(file) if file == member.file);
        self.taking = false;
        if member.name != self.name && !(linked && member.size > 0) {
            return Ok(());
        }
        self.found = match FileType::from_raw_mode(member.mode) {
            FileType::RegularFile if member.size == 0 && member.links > 1 => {
                Found::Link(member.file)
            }
            FileType::RegularFile if member.size > MAX_REPLY as u64 => Found::TooLong,
            FileType::RegularFile => {
                self.taking = true;
                Found::Content(Vec::new())
            }
            other => Found::Other(other),
        };
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        if let Found::Content(content) = &mut self.found
            && self.taking
        {
            content.extend_from_slice(bytes);
        }
        Ok(())
    }
}

/// Reads an image of the guest from beginning to end.
fn read(s: &Session, path: GuestPath<'_>, sink: &mut dyn Sink) -> Result<()> {
    // Without NONBLOCK, opening a FIFO would wait for its other end.
    let mut file = s.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    initramfs::read(&mut file, sink).map_err(|e| e.within(path))
}
