// SPDX-License-Identifier: Apache-2.0
//! Copying, moving and removing files and trees.

use crate::session::Session;
use guest_error::{Context, Errno, Error, Result, shown};
use guest_fs::copy::{Copier, Names};
use guest_fs::paths::{Entry, GuestPath};
use guest_fs::remove;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno as Raw;
use std::ffi::OsStr;
use std::os::fd::AsFd;

/// Removes what is there with everything below it; it need not be there.
pub(crate) fn rm_rf(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let entry = match s.root()?.entry(path.as_os_str()) {
        Err(Raw::NOENT | Raw::NOTDIR) => return Ok(()),
        entry => entry.on(path)?,
    };
    if entry.name == "." {
        return Err(Error::argument("path", path, "this directory cannot be removed"));
    }
    match remove::tree(entry.dir.as_fd(), &entry.name) {
        Err(Raw::NOENT) => Ok(()),
        // It also does not matter that what is not there could not be removed.
        Err(Raw::ROFS) if matches!(entry.lstat(), Err(Raw::NOENT)) => Ok(()),
        done => done.on(path),
    }
}

/// Copies a file; links are followed.
pub(crate) fn cp(s: &mut Session, src: GuestPath<'_>, dest: GuestPath<'_>) -> Result<()> {
    let source = s.open(src, OFlags::RDONLY)?;
    let stat = rustix::fs::fstat(&source).on(src)?;
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        let why = "is a directory, which cp_a and cp_r copy";
        return Err(Error::new(Errno::EISDIR, format!("src: {why}")).within(src));
    }
    let (to, names) = target(s, &s.entry(src)?.name, src, dest)?;
    if dest.bytes().ends_with(b"/") && to.lstat().is_err() && !is_directory(s, dest) {
        return Err(Error::new(Errno::ENOTDIR, Errno::ENOTDIR.describe()).within(dest));
    }
    Copier::new(s.root()?, s.sysroot(), names, false).file(&source, to.dir.as_fd(), &to.name)
}

/// Copies a file or tree with owners, modes, times, links and attributes.
pub(crate) fn cp_a(s: &mut Session, src: GuestPath<'_>, dest: GuestPath<'_>) -> Result<()> {
    copy_tree(s, src, dest, true)
}

/// Copies a file or tree; links are copied as links.
pub(crate) fn cp_r(s: &mut Session, src: GuestPath<'_>, dest: GuestPath<'_>) -> Result<()> {
    copy_tree(s, src, dest, false)
}

fn copy_tree(s: &Session, src: GuestPath<'_>, dest: GuestPath<'_>, preserve: bool) -> Result<()> {
    let from = s.entry(src)?;
    from.lstat().on(src)?;
    let (to, names) = target(s, &from.name, src, dest)?;
    Copier::new(s.root()?, s.sysroot(), names, preserve).tree(&from, &to)
}

/// Moves a file or tree, to another filesystem too.
pub(crate) fn mv(s: &mut Session, src: GuestPath<'_>, dest: GuestPath<'_>) -> Result<()> {
    let from = s.entry(src)?;
    let stat = from.lstat().on(src)?;
    let (to, names) = target(s, &from.name, src, dest)?;
    if let Ok(there) = to.lstat()
        && (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)
    {
        let (one, two) =
            (rustix::fs::fstat(&from.dir).on(src)?, rustix::fs::fstat(&to.dir).on(dest)?);
        if from.name == to.name && (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino) {
            let e = Error::new(Errno::EINVAL, "source and destination are the same file");
            return Err(e.within(both(src, dest)));
        }
        // Two names of one file: renaming one to the other would leave both.
        return rustix::fs::unlinkat(&from.dir, &*from.name, AtFlags::empty()).on(src);
    }
    match rustix::fs::renameat(&from.dir, &*from.name, &to.dir, &*to.name) {
        Err(Raw::XDEV) => {}
        done => return done.on(both(src, dest)),
    }
    // Another filesystem. What is in its place goes first, as it would have gone by renaming.
    let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
    let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(&to.dir, &*to.name, flags) {
        Err(Raw::NOENT) => {}
        done => done.on(dest)?,
    }
    Copier::new(s.root()?, s.sysroot(), names, true).tree(&from, &to)?;
    remove::tree(from.dir.as_fd(), &from.name).on(src)
}

/// What an error is about that takes two names.
fn both(src: GuestPath<'_>, dest: GuestPath<'_>) -> String {
    format!("{} to {}", shown(src.as_os_str()), shown(dest.as_os_str()))
}

fn is_directory(s: &Session, path: GuestPath<'_>) -> bool {
    s.open(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
}

/// Where a copy goes: into `dest` under its own name if that is a directory, else it is `dest`. With what is copied
/// and to where, for errors.
fn target(
    s: &Session,
    name: &OsStr,
    src: GuestPath<'_>,
    dest: GuestPath<'_>,
) -> Result<(Entry, Names)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut names =
        Names { source: src.as_os_str().to_owned(), target: dest.as_os_str().to_owned() };
    match s.root()?.open(dest.as_os_str(), flags, Mode::empty()) {
        Ok(dir) => {
            if !dest.bytes().ends_with(b"/") {
                names.target.push("/");
            }
            names.target.push(name);
            Ok((Entry { dir, name: name.to_owned() }, names))
        }
        Err(Raw::NOENT | Raw::NOTDIR) => Ok((s.entry(dest)?, names)),
        Err(e) => Err(e).on(dest),
    }
}
