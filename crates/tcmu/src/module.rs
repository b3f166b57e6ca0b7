// SPDX-License-Identifier: Apache-2.0
//! The kernel module `target_core_user`: whether it is there, loading it, its parameters.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Error;
use crate::uio::read_small;

/// The module's name.
pub const NAME: &str = "target_core_user";

/// A kernel module and its parameters.
#[derive(Clone, Debug)]
pub struct Module {
    name: String,
    dir: PathBuf,
}

impl Default for Module {
    fn default() -> Self {
        Module::new("/sys/module", NAME)
    }
}

impl Module {
    /// The module `name`, as `sysfs` (`/sys/module`) shows it.
    pub fn new(sysfs: impl Into<PathBuf>, name: &str) -> Self {
        Module { name: name.into(), dir: sysfs.into().join(name) }
    }

    /// Whether it is loaded, or part of the kernel.
    pub fn is_loaded(&self) -> bool {
        self.dir.exists()
    }

    /// Loads it with `modprobe`, unless it is there. This waits for modprobe.
    pub fn load(&self) -> Result<(), Error> {
        if self.is_loaded() {
            return Ok(());
        }
        let failed = |reason: String| Error::Module { module: self.name.clone(), reason };
        let run = Command::new("modprobe").arg("--").arg(&self.name).stdin(Stdio::null()).output();
        let output = run.map_err(|error| {
            failed(format!("it is not loaded, and modprobe cannot be run: {error}"))
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!("modprobe failed ({}): {}", output.status, said.trim())))
    }

    /// A parameter's value; `None` if this kernel does not have it.
    pub fn parameter(&self, name: &str) -> Result<Option<String>, Error> {
        let value = read_small(&self.dir.join("parameters").join(name))?;
        Ok(value.map(|value| value.trim_end().into()))
    }

    /// Sets a parameter; [`Error::Missing`] if this kernel does not have it.
    pub fn set_parameter(&self, name: &str, value: &str) -> Result<(), Error> {
        let path = self.dir.join("parameters").join(name);
        if !path.exists() {
            return Err(Error::Missing(path));
        }
        fs::write(&path, value).map_err(Error::io(format!("write '{value}'"), &path))
    }

    /// Megabytes that the data areas of all devices may take together.
    pub fn global_max_data_area_mb(&self) -> Result<Option<u64>, Error> {
        Ok(self.parameter("global_max_data_area_mb")?.and_then(|value| value.parse().ok()))
    }

    /// Ends the waits for netlink replies from a daemon that has died: writes to `enable` and the
    /// like, which would hang in D state forever, fail with EINTR. Call it when a daemon starts,
    /// before it listens. The kernel requires that new events are blocked first; they are unblocked
    /// in any case. Old kernels cannot do this; then nothing is done.
    pub fn reset_netlink(&self) -> Result<(), Error> {
        match self.set_parameter("block_netlink", "1") {
            Err(Error::Missing(path)) => {
                tracing::debug!("{}: not there; netlink is not reset", path.display());
                return Ok(());
            }
            blocked => blocked?,
        }
        let reset = self.set_parameter("reset_netlink", "1");
        let unblocked = self.set_parameter("block_netlink", "0");
        reset.and(unblocked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(parameters: &[&str]) -> (tempfile::TempDir, Module) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(NAME).join("parameters");
        fs::create_dir_all(&dir).unwrap();
        for name in parameters {
            fs::write(dir.join(name), "N\n").unwrap();
        }
        let module = Module::new(root.path(), NAME);
        (root, module)
    }

    #[test]
    fn a_netlink_reset_ends_unblocked() {
        let (_root, module) = module(&["block_netlink", "reset_netlink"]);
        module.reset_netlink().unwrap();
        assert_eq!(module.parameter("block_netlink").unwrap().unwrap(), "0");
        assert_eq!(module.parameter("reset_netlink").unwrap().unwrap(), "1");
    }

    #[test]
    fn netlink_is_unblocked_even_if_the_reset_fails() {
        let (_root, module) = module(&["block_netlink"]);
        assert!(module.reset_netlink().is_err());
        assert_eq!(module.parameter("block_netlink").unwrap().unwrap(), "0");
    }

    #[test]
    fn an_old_module_without_the_parameters_is_no_error() {
        let (_root, module) = module(&[]);
        module.reset_netlink().unwrap();
        assert_eq!(module.global_max_data_area_mb().unwrap(), None);
    }

    #[test]
    fn a_loaded_module_is_not_loaded_again() {
        let (_root, module) = module(&[]);
        assert!(module.is_loaded());
        module.load().unwrap();
    }
}
