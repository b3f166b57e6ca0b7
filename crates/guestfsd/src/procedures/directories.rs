// SPDX-License-Identifier: Apache-2.0
//! What is in directories.

use crate::session::Session;
use crate::transfer::FileOut;
use guest_error::{Calling, Context, Error, Result, from_io};
use guest_fs::paths::GuestPath;
use guest_fs::tree::{Step, Walk};
use guestfs_api::frame::MAX_MESSAGE;
use guestfs_api::xdr::Encoder;
use guestfs_api::{Wire, structs};
use rustix::fs::{Dir, DirEntry, FileType, OFlags};
use rustix::io::Errno as Raw;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// Names in a directory but `.` and `..`, each followed by NUL.
pub(crate) fn ls0(s: &mut Session, dir: GuestPath<'_>, filenames: &mut FileOut<'_>) -> Result<()> {
    for entry in read(s, dir)? {
        let entry = entry.on(dir)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let bytes = name.to_bytes_with_nul();
            filenames.write_all(bytes).map_err(|e| from_io(e, dir))?;
        }
    }
    Ok(())
}

/// Entries of a directory, `.` and `..` among them.
pub(crate) fn readdir(s: &mut Session, dir: GuestPath<'_>) -> Result<Vec<structs::Dirent>> {
    let mut entries = Vec::new();
    let mut size = 0;
    for entry in read(s, dir)? {
        let entry = entry.on(dir)?;
        size += DIRENT + entry.file_name().to_bytes().len();
        if size > MAX_MESSAGE {
            return Err(super::contents::too_long().within(dir));
        }
        entries.push(to_dirent(&entry));
    }
    Ok(entries)
}

/// Least bytes of an entry in a reply: inode number, type and the length of the name.
const DIRENT: usize = 16;

/// Entries of a directory, each as XDR.
pub(crate) fn internal_readdir(
    s: &mut Session,
    dir: GuestPath<'_>,
    filename: &mut FileOut<'_>,
) -> Result<()> {
    let mut bytes = Vec::new();
    for entry in read(s, dir)? {
        bytes.clear();
        to_dirent(&entry.on(dir)?).encode(&mut Encoder::new(&mut bytes)).map_err(Error::invalid)?;
        filename.write_all(&bytes).map_err(|e| from_io(e, dir))?;
    }
    Ok(())
}

fn read(s: &Session, dir: GuestPath<'_>) -> Result<Dir> {
    let open = s.open(dir, OFlags::RDONLY | OFlags::DIRECTORY);
    open.and_then(|open| Dir::new(open).on(dir)).calling("opendir")
}

#[allow(clippy::cast_possible_wrap)] // The protocol's inode numbers are signed.
fn to_dirent(entry: &DirEntry) -> structs::Dirent {
    let ftyp = match entry.file_type() {
        FileType::BlockDevice => b'b',
        FileType::CharacterDevice => b'c',
        FileType::Directory => b'd',
        FileType::Fifo => b'f',
        FileType::Symlink => b'l',
        FileType::RegularFile => b'r',
        FileType::Socket => b's',
        FileType::Unknown => b'u',
    };
    let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
    structs::Dirent { ino: entry.ino() as i64, ftyp, name }
}

/// Paths of everything below a directory, without it, each followed by NUL.
pub(crate) fn find0(
    s: &mut Session,
    directory: GuestPath<'_>,
    files: &mut FileOut<'_>,
) -> Result<()> {
    let top = s.open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut walk = Walk::new(&top).on(directory)?;
    let mut line = Vec::new();
    while let Some(step) = walk.step().on(directory)? {
        if step == Step::Left {
            continue;
        }
        line.clear();
        line.extend_from_slice(walk.path());
        line.push(0);
        files.write_all(&line).map_err(|e| from_io(e, directory))?;
        if walk.kind().is_dir() {
            match walk.enter() {
                // Removed meanwhile, or replaced.
                Err(Raw::NOENT | Raw::NOTDIR | Raw::LOOP) => {}
                entered => entered.on(OsStr::from_bytes(walk.path()))?,
            }
        }
    }
    Ok(())
}
