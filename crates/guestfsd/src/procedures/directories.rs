//! What is in directories.

use crate::error::{Context, Result};
use crate::paths::GuestPath;
use crate::session::Session;
use crate::transfer::{FileOut, from_io};
use guestfs_api::xdr::Encoder;
use guestfs_api::{Wire, structs};
use rustix::fs::{Dir, DirEntry, FileType, Mode, OFlags};
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Names in a directory but `.` and `..`, each followed by NUL, sorted.
pub(crate) fn ls0(s: &mut Session, dir: GuestPath<'_>, filenames: &mut FileOut<'_>) -> Result<()> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for entry in read(s, dir)? {
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(entry.file_name().to_bytes_with_nul().to_vec());
        }
    }
    names.sort_unstable();
    names.iter().try_for_each(|name| filenames.write_all(name)).map_err(|e| from_io(e, dir))
}

/// Entries of a directory, `.` and `..` among them.
pub(crate) fn readdir(s: &mut Session, dir: GuestPath<'_>) -> Result<Vec<structs::Dirent>> {
    Ok(read(s, dir)?.iter().map(to_dirent).collect())
}

/// Entries of a directory, each as XDR.
pub(crate) fn internal_readdir(
    s: &mut Session,
    dir: GuestPath<'_>,
    filename: &mut FileOut<'_>,
) -> Result<()> {
    let mut bytes = Vec::new();
    for entry in read(s, dir)? {
        bytes.clear();
        to_dirent(&entry).encode(&mut Encoder::new(&mut bytes))?;
        filename.write_all(&bytes).map_err(|e| from_io(e, dir))?;
    }
    Ok(())
}

fn read(s: &Session, dir: GuestPath<'_>) -> Result<Vec<DirEntry>> {
    let open = s.open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
    Dir::new(open).on(dir)?.collect::<rustix::io::Result<_>>().on(dir)
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
    let mut path = Vec::new();
    find_in(top.into(), &mut path, files).map_err(|e| from_io(e, directory))
}

/// Directories that are open on the way down; deeper ones would need a longer path than there can be.
fn find_in(dir: OwnedFd, path: &mut Vec<u8>, out: &mut impl Write) -> std::io::Result<()> {
    /// A directory on the way down: what is left of it, and how long the path to it is.
    struct Level {
        fd: OwnedFd,
        entries: std::vec::IntoIter<DirEntry>,
        path: usize,
    }
    let level = |fd: OwnedFd, path: usize| -> std::io::Result<Level> {
        let mut entries: Vec<DirEntry> = Vec::new();
        for entry in Dir::read_from(&fd)? {
            entries.push(entry?);
        }
        Ok(Level { fd, entries: entries.into_iter(), path })
    };
    let mut stack = vec![level(dir, path.len())?];
    while let Some(top) = stack.last_mut() {
        let Some(entry) = top.entries.next() else {
            stack.pop();
            continue;
        };
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        path.truncate(top.path);
        path.extend_from_slice(name);
        path.push(0);
        out.write_all(path)?;
        if is_directory(&top.fd, &entry) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&top.fd, entry.file_name(), flags, Mode::empty()) {
                Ok(fd) => {
                    path.pop();
                    path.push(b'/');
                    let len = path.len();
                    stack.push(level(fd, len)?);
                }
                // Removed meanwhile, or replaced.
                Err(
                    rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP,
                ) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// Whether an entry is a directory; a filesystem need not say so in the entry.
fn is_directory(dir: &impl AsFd, entry: &DirEntry) -> bool {
    match entry.file_type() {
        FileType::Unknown => {
            rustix::fs::statat(dir, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
        }
        kind => kind.is_dir(),
    }
}
