// SPDX-License-Identifier: Apache-2.0
//! Directories of our own for programs that read or write files and nothing else.

use crate::mounts::make_directory;
use guest_error::Result;
use std::path::{Path, PathBuf};

/// A directory that nobody else can look into, and that is removed with this value.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    pub(crate) fn new() -> Result<Self> {
        make_directory().map(Self)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = ?self.0, error = %e, "is not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_all_that_is_in_it() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        std::fs::create_dir(path.join("sub")).unwrap();
        std::fs::write(path.join("sub/file"), "text").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
