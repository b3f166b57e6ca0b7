// SPDX-License-Identifier: Apache-2.0
//! The directories in which backing files may be: the configuration file sets them, opening an image and
//! checking a configuration string ask for them.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// One list, for all who ask. Nothing is allowed until it is set.
#[derive(Clone, Debug)]
pub struct BackingDirs(Arc<Mutex<Option<Vec<PathBuf>>>>);

impl Default for BackingDirs {
    fn default() -> Self {
        BackingDirs(Arc::new(Mutex::new(Some(Vec::new()))))
    }
}

impl BackingDirs {
    /// Whoever asks from now on is told these; `None`: any.
    pub fn set(&self, dirs: Option<Vec<PathBuf>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = dirs;
    }

    /// What they are now.
    pub fn get(&self) -> Option<Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
