// SPDX-License-Identifier: Apache-2.0
//! UIO discovery: the devices that the kernel's target has made for user space, from
//! `/sys/class/uio/uioN`. Devices of other drivers, and names that are not TCM-User's, are
//! skipped silently.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::Error;

/// What the kernel calls a device: `tcm-user/HBA/NAME/CONFIG`, the same in sysfs and in netlink
/// messages. Bytes that are not UTF-8 are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceName {
    /// Number of the HBA: `user_HBA` in configfs.
    pub hba: u32,
    /// Name of the device in configfs.
    pub name: String,
    /// The configuration string (`file//path`) as it was when the device was enabled.
    pub config: String,
}

impl DeviceName {
    /// Takes the name apart; `None` if it is not one of TCM-User.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("tcm-user/")?.splitn(3, '/');
        let hba = parts.next()?.parse().ok()?;
        let name = parts.next().filter(|name| is_file_name(name))?;
        let config = parts.next().unwrap_or_default();
        Some(DeviceName { hba, name: name.into(), config: config.into() })
    }

    /// The part of the configuration that says which handler it is for.
    pub fn subtype(&self) -> &str {
        self.config.split('/').next().unwrap_or_default()
    }
}

/// Whether `name` can be one component of a path.
pub(crate) fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// A device that waits to be served, or is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UioDevice {
    /// N of `uioN`, as netlink messages have it.
    pub minor: u32,
    /// Its name and configuration.
    pub name: DeviceName,
    /// Length of the shared memory in bytes.
    pub size: usize,
    /// The device node.
    pub path: PathBuf,
}

/// Where UIO devices are looked for.
#[derive(Clone, Debug)]
pub struct Sysfs {
    class: PathBuf,
    dev: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Sysfs::new("/sys/class/uio", "/dev")
    }
}

impl Sysfs {
    /// Looks in `class` for the devices and in `dev` for their nodes.
    pub fn new(class: impl Into<PathBuf>, dev: impl Into<PathBuf>) -> Self {
        Sysfs { class: class.into(), dev: dev.into() }
    }

    /// All TCM-User devices, by minor. Without the UIO class there are none. A device that goes
    /// while it is looked at, or whose files make no sense, is left out with a warning.
    pub fn scan(&self) -> Result<Vec<UioDevice>, Error> {
        let entries = match fs::read_dir(&self.class) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", &self.class)(error)),
        };
        let mut devices = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &self.class))?;
            let minor =
                entry.file_name().to_str().and_then(|name| name.strip_prefix("uio")?.parse().ok());
            let Some(minor) = minor else { continue };
            match self.device(minor) {
                Ok(device) => devices.extend(device),
                Err(error) => tracing::warn!("a UIO device is skipped: {error}"),
            }
        }
        devices.sort_by_key(|device| device.minor);
        Ok(devices)
    }

    /// The device of one minor; `None` if it is gone or not TCM-User's.
    pub fn device(&self, minor: u32) -> Result<Option<UioDevice>, Error> {
        let dir = self.class.join(format!("uio{minor}"));
        let Some(name) = read_small(&dir.join("name"))? else { return Ok(None) };
        let Some(name) = DeviceName::parse(name.trim_end_matches('\n')) else { return Ok(None) };
        let size_file = dir.join("maps/map0/size");
        let Some(size) = read_small(&size_file)? else { return Ok(None) };
        let digits = size.trim();
        let size = digits.strip_prefix("0x").and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let Some(size) = size else {
            return Err(Error::Unexpected { path: size_file, content: digits.into() });
        };
        let path = self.dev.join(format!("uio{minor}"));
        Ok(Some(UioDevice { minor, name, size, path }))
    }
}

/// Reads a small file of the kernel: at most 64 KiB, bytes that are not UTF-8 replaced. `None` if
/// it does not exist.
pub(crate) fn read_small(path: &Path) -> Result<Option<String>, Error> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    match file.take(64 << 10).read_to_end(&mut bytes) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_at_the_first_three_slashes() {
        let name = DeviceName::parse("tcm-user/7/disk/file//a/b").unwrap();
        assert_eq!((name.hba, &*name.name, &*name.config), (7, "disk", "file//a/b"));
        assert_eq!(name.subtype(), "file");
        assert_eq!(DeviceName::parse("tcm-user/0/bare").unwrap().config, "");
    }

    #[test]
    fn names_of_others_are_not_taken() {
        for name in [
            "",
            "uio_pci",
            "tcm-user/",
            "tcm-user/x/d/c",
            "tcm-user/-1/d/c",
            "tcm-user/1//c",
            "tcm-user/1/../c",
        ] {
            assert_eq!(DeviceName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_scan_finds_our_devices_among_others() {
        let root = tempfile::tempdir().unwrap();
        for (minor, name, size) in [
            ("uio3", "tcm-user/0/b/file//b\n", "0x0000000040010000\n"),
            ("uio1", "tcm-user/0/a/qcow//a\n", "0x10000\n"),
            ("uio2", "hv_vmbus\n", "0x10000\n"),
            ("uio4", "tcm-user/0/c/file//c\n", "many\n"),
            ("other", "tcm-user/0/d/file//d\n", "0x10000\n"),
        ] {
            let dir = root.path().join(minor);
            fs::create_dir_all(dir.join("maps/map0")).unwrap();
            fs::write(dir.join("name"), name).unwrap();
            fs::write(dir.join("maps/map0/size"), size).unwrap();
        }
        fs::create_dir(root.path().join("uio5")).unwrap();
        let found = Sysfs::new(root.path(), "/nodes").scan().unwrap();
        let found: Vec<_> = found.iter().map(|d| (d.minor, &*d.name.config, d.size)).collect();
        assert_eq!(found, [(1, "qcow//a", 0x10000), (3, "file//b", 0x4001_0000)]);
    }

    #[test]
    fn without_the_uio_class_there_are_no_devices() {
        assert_eq!(Sysfs::new("/nonexistent", "/dev").scan().unwrap(), []);
    }
}
