// SPDX-License-Identifier: Apache-2.0
//! Directories of the daemon's own, for what has to have a path for a moment.

use guest_error::{Context, Result};
use rustix::fs::Mode;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A new directory that only we use. It goes with this value, and with it the links and directories that were made in
/// it; should anything else be there, or be mounted there, it stays.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    links: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Scratch {
    /// Makes one.
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = PathBuf::from(format!("/tmp/guestfsd-{}-{number}", std::process::id()));
            match rustix::fs::mkdir(&path, Mode::RWXU) {
                Ok(()) => {
                    return Ok(Self { path, links: Vec::new(), directories: Vec::new() });
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e).on(&path),
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a symbolic link in it; returns its path.
    pub(crate) fn link(&mut self, name: impl AsRef<OsStr>, target: &Path) -> Result<PathBuf> {
        let path = self.path.join(name.as_ref());
        std::os::unix::fs::symlink(target, &path).on(&path)?;
        self.links.push(path.clone());
        Ok(path)
    }

    /// Makes a directory in it, for programs that leave files; all that is in it goes. Nothing may be mounted there.
    pub(crate) fn directory(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        rustix::fs::mkdir(&path, Mode::RWXU).on(&path)?;
        self.directories.push(path.clone());
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for link in &self.links {
            std::fs::remove_file(link).ok();
        }
        for directory in &self.directories {
            std::fs::remove_dir_all(directory).ok();
        }
        std::fs::remove_dir(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_what_was_made_in_it_and_stays_with_anything_else() {
        let mut scratch = Scratch::new().unwrap();
        let link = scratch.link("name", Path::new("/etc/passwd")).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("/etc/passwd"));
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists() && Path::new("/etc/passwd").exists());
        let mut scratch = Scratch::new().unwrap();
        let (path, directory) = (scratch.path().to_owned(), scratch.directory("d").unwrap());
        std::fs::write(directory.join("file"), "").unwrap();
        drop(scratch);
        assert!(!path.exists());
        let scratch = Scratch::new().unwrap();
        let (path, file) = (scratch.path().to_owned(), scratch.path().join("file"));
        std::fs::write(&file, "").unwrap();
        drop(scratch);
        assert!(file.exists());
        std::fs::remove_dir_all(path).unwrap();
    }
}
