// SPDX-License-Identifier: Apache-2.0
//! New content for a file, all of it or none, whatever happens: it is written beside the file and then renamed.
//!
//! The new file has the old one's owner, mode and extended attributes, those too that a filesystem does not list. A
//! file with several names is written in place, because renaming would leave the other names with the old content: it
//! may be torn by a loss of power.

use crate::copy::attributes;
use crate::paths::Entry;
use crate::xattr;
use guest_error::{Context, Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno as Raw;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Names that are tried for the new file.
const TRIES: u32 = 100;
/// Attributes of NTFS that are not listed: who may do what, and what kind of file Windows sees.
const UNLISTED: [&str; 4] =
    ["system.ntfs_acl", "system.ntfs_security", "system.ntfs_attrib", "system.dos_attrib"];

/// A file that goes away again unless it gets its name.
struct Temporary<'e> {
    entry: &'e Entry,
    name: OsString,
    file: File,
}

impl<'e> Temporary<'e> {
    fn new(entry: &'e Entry) -> rustix::io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        for n in 0..TRIES {
            let name = OsString::from(format!(".guestfsd-{}-{n}", std::process::id()));
            match rustix::fs::openat(&entry.dir, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(fd) => return Ok(Self { entry, name, file: fd.into() }),
                Err(Raw::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Raw::EXIST)
    }

    /// Gives it the name of the file that it is for.
    fn rename(mut self) -> rustix::io::Result<()> {
        let dir = &self.entry.dir;
        rustix::fs::renameat(dir, &self.name, dir, &self.entry.name)?;
        self.name.clear();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::fsync(rustix::fs::openat(dir, ".", flags, Mode::empty())?)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            rustix::fs::unlinkat(&self.entry.dir, &self.name, AtFlags::empty()).ok();
        }
    }
}

/// Gives a file, which is open and has this entry, another content.
pub fn content(entry: &Entry, old: &File, content: &[u8]) -> Result<()> {
    let name = &entry.name;
    let stat = rustix::fs::fstat(old).on(name)?;
    if stat.st_nlink > 1 {
        return in_place(entry, content);
    }
    let mut new = Temporary::new(entry).on(name)?;
    new.file.write_all(content).on(name)?;
    let (old, to) = (old.as_fd(), new.file.as_fd());
    attributes::copy(old, to, &stat).map_err(|fault| fault.error.within(name))?;
    for attribute in UNLISTED {
        if let Ok(value) = xattr::get(old, attribute) {
            xattr::set(to, attribute, &value).on(name).map_err(|e: Error| e.within(attribute))?;
        }
    }
    rustix::fs::fsync(&new.file).on(name)?;
    new.rename().on(name)
}

fn in_place(entry: &Entry, content: &[u8]) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&entry.dir, &entry.name, flags, Mode::empty());
    let file = File::from(file.on(&entry.name)?);
    let written = file.write_all_at(content, 0);
    written.and_then(|()| file.set_len(content.len() as u64)).on(&entry.name)?;
    rustix::fs::fsync(&file).on(&entry.name)
}

#[cfg(test)]
mod tests {
    use crate::paths::Sysroot;
    use std::ffi::OsStr;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    fn replace(dir: &Path, content: &[u8]) {
        let entry = Sysroot::new(dir).open().unwrap().entry(OsStr::new("/file")).unwrap();
        let old = File::open(dir.join("file")).unwrap();
        super::content(&entry, &old, content).unwrap();
        assert_eq!(fs::read(dir.join("file")).unwrap(), content);
    }

    #[test]
    fn new_content_keeps_the_mode_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "old and longer").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o2741)).unwrap();
        let before = fs::metadata(&file).unwrap();
        replace(dir.path(), b"new");
        let after = fs::metadata(&file).unwrap();
        assert_eq!(after.mode(), before.mode());
        assert_ne!(after.ino(), before.ino());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn all_names_of_a_file_get_its_new_content() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "old and longer").unwrap();
        fs::hard_link(dir.path().join("file"), dir.path().join("other")).unwrap();
        replace(dir.path(), b"new");
        assert_eq!(fs::read(dir.path().join("other")).unwrap(), b"new");
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "old").unwrap();
        let entry = Sysroot::new(dir.path()).open().unwrap().entry(OsStr::new("/file")).unwrap();
        let old = File::open(dir.path().join("file")).unwrap();
        for n in 0..super::TRIES {
            let name = format!(".guestfsd-{}-{n}", std::process::id());
            fs::write(dir.path().join(name), "").unwrap();
        }
        super::content(&entry, &old, b"new").unwrap_err();
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"old");
    }
}
