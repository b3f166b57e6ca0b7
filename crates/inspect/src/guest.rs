// SPDX-License-Identifier: Apache-2.0
//! Looking at the filesystem that is mounted: what is not there, or cannot be read, is none.

use super::architecture;
use guest_fs::casefold;
use guest_fs::paths::Root;
use rustix::fs::{Dir, FileType, Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Most bytes of a configuration file that are read.
const MAX_TEXT: u64 = 1 << 20;

/// The filesystem.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest<'s> {
    root: &'s Root,
}

impl<'s> Guest<'s> {
    /// What is in this directory.
    pub(super) fn at(root: &'s Root) -> Self {
        Self { root }
    }

    fn kind(&self, path: impl AsRef<OsStr>) -> Option<FileType> {
        let fd = self.root.open(path.as_ref(), OFlags::PATH, Mode::empty()).ok()?;
        Some(FileType::from_raw_mode(rustix::fs::fstat(&fd).ok()?.st_mode))
    }

    /// Whether there is a directory of this path.
    pub(super) fn is_dir(&self, path: impl AsRef<OsStr>) -> bool {
        self.kind(path).is_some_and(FileType::is_dir)
    }

    /// Whether there is a regular file of this path.
    pub(super) fn is_file(&self, path: impl AsRef<OsStr>) -> bool {
        self.kind(path).is_some_and(FileType::is_file)
    }

    /// Whether there is a link of this name, wherever it leads.
    pub(super) fn is_symlink(&self, path: &str) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let found = self.root.open(OsStr::new(path), flags, Mode::empty());
        let stat = found.and_then(rustix::fs::fstat);
        stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_symlink())
    }

    /// A regular file.
    pub(super) fn open(&self, path: impl AsRef<OsStr>) -> Option<File> {
        // Opening a device or a FIFO would do something.
        if !self.is_file(path.as_ref()) {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        self.root.open(path.as_ref(), flags, Mode::empty()).ok().map(File::from)
    }

    /// What is in a file of configuration.
    pub(super) fn read(&self, path: impl AsRef<OsStr>) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        self.open(path)?.take(MAX_TEXT).read_to_end(&mut text).ok()?;
        Some(text)
    }

    /// The architecture of a program.
    pub(super) fn architecture(&self, path: impl AsRef<OsStr>) -> Option<&'static str> {
        let mut head = Vec::new();
        self.open(path)?.take(architecture::HEAD as u64).read_to_end(&mut head).ok()?;
        architecture::of_head(&head)
    }

    /// The path as it is written on a filesystem on which upper and lower case do not matter to the guest.
    pub(super) fn case_sensitive(&self, path: &str) -> Option<OsString> {
        let mut found = Vec::new();
        for name in path.split('/').filter(|n| !n.is_empty()) {
            let dir = if found.is_empty() { OsStr::new("/") } else { OsStr::from_bytes(&found) };
            let open =
                self.root.open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).ok()?;
            let name = casefold::find(Dir::new(open).ok()?, name.as_bytes()).ok()??;
            found.push(b'/');
            found.extend(name);
        }
        Some(OsString::from_vec(found))
    }
}
