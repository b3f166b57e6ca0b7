// SPDX-License-Identifier: Apache-2.0
//! configfs: what the kernel's target knows of a device, under `/sys/kernel/config/target`, and
//! the switches that it offers. All of it is probed: a file that this kernel (or this fabric) does
//! not have reads as `None`; writing to it is [`Error::Missing`]. Reads are bounded.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;
use crate::uio::{is_file_name, read_small};

mod alua;
pub use alua::{AluaGroup, Port, PortName};

/// The tree.
#[derive(Clone, Debug)]
pub struct Configfs {
    root: PathBuf,
}

impl Default for Configfs {
    fn default() -> Self {
        Configfs::new("/sys/kernel/config/target")
    }
}

impl Configfs {
    /// The tree at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Configfs { root: root.into() }
    }

    /// Whether it is there: configfs mounted, the target's core loaded.
    pub fn exists(&self) -> bool {
        self.root.join("core").is_dir()
    }

    /// The device `name` of `user_HBA`. It need not exist; if not, its attributes are `None`.
    pub fn device(&self, hba: u32, name: &str) -> Result<Device, Error> {
        if !is_file_name(name) {
            return Err(Error::Name(name.into()));
        }
        let dir = self.root.join("core").join(format!("user_{hba}")).join(name);
        Ok(Device { root: self.root.clone(), dir })
    }
}

/// How the kernel ends the commands of a ring that is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetRing {
    /// With BUSY: initiators send them again.
    Retry,
    /// With CHECK CONDITION: they fail.
    Fail,
}

/// One device of the target's core.
#[derive(Clone, Debug)]
pub struct Device {
    root: PathBuf,
    dir: PathBuf,
}

impl Device {
    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// The content of `attrib/NAME`, without the line's end.
    pub fn attribute(&self, name: &str) -> Result<Option<String>, Error> {
        read_line(&self.dir.join("attrib").join(name))
    }

    /// `attrib/NAME` as a number.
    pub fn attribute_number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        read_number(&self.dir.join("attrib").join(name))
    }

    /// Sets `attrib/NAME`.
    pub fn set_attribute(&self, name: &str, value: &str) -> Result<(), Error> {
        write(&self.dir.join("attrib").join(name), value)
    }

    /// Capacity in bytes, as configured.
    pub fn dev_size(&self) -> Result<Option<u64>, Error> {
        self.attribute_number("dev_size")
    }

    /// The configuration string.
    pub fn dev_config(&self) -> Result<Option<String>, Error> {
        self.attribute("dev_config")
    }

    /// Seconds after which the kernel fails a command; 0: never.
    pub fn cmd_time_out(&self) -> Result<Option<u32>, Error> {
        self.attribute_number("cmd_time_out")
    }

    /// Whether the device announces a volatile write cache.
    pub fn emulate_write_cache(&self) -> Result<Option<bool>, Error> {
        Ok(self.attribute_number::<u8>("emulate_write_cache")?.map(|value| value != 0))
    }

    /// Announces a volatile write cache, or none. Of a device that is enabled the kernel asks its
    /// daemon first (RECONFIG).
    pub fn set_emulate_write_cache(&self, on: bool) -> Result<(), Error> {
        self.set_attribute("emulate_write_cache", if on { "1" } else { "0" })
    }

    /// Bytes of a logical block.
    pub fn hw_block_size(&self) -> Result<Option<u32>, Error> {
        self.attribute_number("hw_block_size")
    }

    /// The most blocks of one command.
    pub fn hw_max_sectors(&self) -> Result<Option<u32>, Error> {
        self.attribute_number("hw_max_sectors")
    }

    /// Whether the kernel waits for our netlink replies for this device: positive if so, negative
    /// if it must not, 0 as nobody has said.
    pub fn nl_reply_supported(&self) -> Result<Option<i8>, Error> {
        self.attribute_number("nl_reply_supported")
    }

    /// Has the kernel wait for our netlink replies for this device.
    pub fn set_nl_reply_supported(&self) -> Result<(), Error> {
        self.set_attribute("nl_reply_supported", "1")
    }

    /// Asks for [`crate::Tmr`] entries; false if this kernel has none.
    pub fn enable_tmr_notification(&self) -> Result<bool, Error> {
        match self.set_attribute("tmr_notification", "1") {
            Err(Error::Missing(_)) => Ok(false),
            set => set.map(|()| true),
        }
    }

    /// Whether the device is configured and enabled.
    pub fn enabled(&self) -> Result<Option<bool>, Error> {
        Ok(read_number::<u8>(&self.dir.join("enable"))?.map(|value| value != 0))
    }

    /// The kernel's description of the device and its state.
    pub fn info(&self) -> Result<Option<String>, Error> {
        read_small(&self.dir.join("info"))
    }

    /// The unit serial number (VPD page 80h), if one was set.
    pub fn unit_serial(&self) -> Result<Option<String>, Error> {
        let line = read_line(&self.dir.join("wwn/vpd_unit_serial"))?;
        // "T10 VPD Unit Serial Number: VALUE"
        let value = line.as_deref().and_then(|line| Some(line.split_once(": ")?.1.trim()));
        Ok(value.filter(|value| !value.is_empty()).map(Into::into))
    }

    /// Whether the ring can be reset, which completing out of order depends on.
    pub fn can_reset_ring(&self) -> bool {
        ["block_dev", "reset_ring"]
            .iter()
            .all(|action| self.dir.join("action").join(action).exists())
    }

    /// Makes new commands wait in the kernel.
    pub fn block(&self) -> Result<(), Error> {
        self.act("block_dev", "1")
    }

    /// Lets commands come again.
    pub fn unblock(&self) -> Result<(), Error> {
        self.act("block_dev", "0")
    }

    /// Ends all commands in the ring and empties it; to be done while the device is blocked.
    /// [`crate::Ring::reset`] does all of it.
    pub fn reset_ring(&self, how: ResetRing) -> Result<(), Error> {
        let level = match how {
            ResetRing::Retry => "1",
            ResetRing::Fail => "2",
        };
        self.act("reset_ring", level)
    }

    /// Frees the data area of a completed command that was kept with `KEEP_BUF`.
    pub fn free_kept_buf(&self, id: u16) -> Result<(), Error> {
        self.act("free_kept_buf", &id.to_string())
    }

    fn act(&self, action: &str, value: &str) -> Result<(), Error> {
        write(&self.dir.join("action").join(action), value)
    }
}

/// The first line of a file, without its end; `None` if there is no file or it cannot be read in
/// the device's present state.
fn read_line(path: &Path) -> Result<Option<String>, Error> {
    let text = match read_small(path) {
        Err(Error::Io { source, .. }) if not_now(&source) => None,
        text => text?,
    };
    Ok(text.map(|text| text.lines().next().unwrap_or_default().into()))
}

/// Errors with which the kernel says that an attribute has no value for this device.
fn not_now(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENODEV | libc::EINVAL | libc::ENOSYS | libc::ENOENT)
    )
}

fn read_number<T: FromStr>(path: &Path) -> Result<Option<T>, Error> {
    let Some(line) = read_line(path)? else { return Ok(None) };
    match line.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Error::Unexpected { path: path.into(), content: line }),
    }
}

fn write(path: &Path, value: &str) -> Result<(), Error> {
    use io::Write;
    let mut file = match fs::OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Missing(path.into()));
        }
        file => file.map_err(Error::io("open", path))?,
    };
    // One write: configfs takes each as a whole value.
    let written = file.write(value.as_bytes()).map_err(Error::io(format!("write '{value}'"), path));
    match written? {
        n if n == value.len() => Ok(()),
        n => Err(Error::io(format!("write '{value}'"), path)(io::Error::new(
            io::ErrorKind::WriteZero,
            format!("{n} bytes were taken"),
        ))),
    }
}

/// The names in a folder, sorted; none if there is no folder.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
