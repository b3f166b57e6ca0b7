// SPDX-License-Identifier: Apache-2.0
//! Disks under the names that the client gives them.
//!
//! The kernel calls the first disk `loop3`, or `vda`; here it is sda, with sda1, ... for its
//! partitions: as nodes in /dev, as links in /dev/disk/by-path (their order is the client's) and in
//! /dev/disk/guestfs (its labels), in /sys/block, /sys/class/block and /sys/dev/block, and in
//! /proc/partitions. Unmodified programs see a machine with these disks and no others.
//!
//! Devices that are made of them and nothing else (device mapper, md) are shown as the kernel calls
//! them. The host's are not: one that has a foreign device below it stays unseen.

use super::{Kernel, confine, dev};
use crate::error::{Context, Result};
use crate::sys;
use probe::partition_table::{self, Geometry};
use rustix::fs::{FileType, makedev};
use rustix::mount::{MountFlags, mount, mount_bind};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Directories of /sys that name block devices.
const SYS: &[&str] = &["/sys/block", "/sys/class/block", "/sys/dev/block"];
/// Where the kernel has what is made of disks.
pub(super) const VIRTUAL: &str = "/sys/devices/virtual/block";
/// Directories of /dev with the disks in the client's order, and by label.
const BY_PATH: &str = "disk/by-path";
const BY_LABEL: &str = "disk/guestfs";
/// What /proc/partitions shows.
const PARTITIONS: &str = "/run/partitions";
/// Most partitions of a disk that Linux has minors for.
const MAX_PARTITIONS: usize = 256;
/// What is in a disk's directory of sysfs but says the kernel's name, or does not concern a disk.
const NOT_SHOWN: &[&str] = &["uevent", "device", "loop", "serial", "mq"];
/// What a disk says that it is.
const IDENTITY: &[(&str, &str)] =
    &[("vendor", "QEMU    "), ("model", "QEMU HARDDISK   "), ("type", "0"), ("timeout", "300")];

/// A disk of the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// What the kernel calls it.
    pub kernel: String,
    /// Its label.
    pub serial: Option<String>,
}

/// A block device as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    /// The disk's directory in sysfs.
    real: PathBuf,
    major: u32,
    minor: u32,
    sectors: u64,
    /// Index of the client's disk; none for what is made of disks.
    disk: Option<usize>,
    /// Number of the partition; none for whole disks.
    partition: Option<u32>,
}

/// What is shown, and what was shown before.
#[derive(Debug)]
pub(crate) struct View {
    /// Each with its directory in sysfs.
    disks: Vec<(Disk, PathBuf)>,
    shown: BTreeMap<String, Device>,
    /// Where nodes are made. Programs of the guest see the client's disks alone, and not what is made of
    /// them: that comes and goes, and its numbers may be the host's next.
    dev: &'static [(&'static str, Shown)],
}

/// What a directory of nodes has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    All,
    Disks,
}

const DEV: &[(&str, Shown)] = &[("/dev", Shown::All)];
const DEV_CONFINED: &[(&str, Shown)] = &[("/dev", Shown::All), (confine::DEV, Shown::Disks)];

impl View {
    /// Begins to show these disks. From here on the kernel's names are out of sight.
    pub(crate) fn new(disks: Vec<Disk>, kernel: Kernel) -> Result<Self> {
        let mut found = Vec::with_capacity(disks.len());
        for disk in disks {
            let link = Path::new("/sys/class/block").join(&disk.kernel);
            let real = fs::canonicalize(&link).on(link.display())?;
            found.push((disk, real));
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        for dir in SYS {
            mount("guestfs-novm", *dir, "tmpfs", flags, c"mode=755").on(dir)?;
        }
        let dev = if kernel == Kernel::Hosts { DEV_CONFINED } else { DEV };
        for (dev, _) in dev {
            for dir in [BY_PATH, BY_LABEL] {
                fs::create_dir_all(Path::new(dev).join(dir)).on(dir)?;
            }
        }
        fs::write(PARTITIONS, "").on(PARTITIONS)?;
        mount_bind(PARTITIONS, "/proc/partitions").on("/proc/partitions")?;
        let mut view = Self { disks: found, shown: BTreeMap::new(), dev };
        view.sync()?;
        Ok(view)
    }

    /// All that is shown, in /dev.
    pub(crate) fn devices(&self) -> Vec<PathBuf> {
        self.shown.keys().map(|name| Path::new("/dev").join(name)).collect()
    }

    /// Where sysfs has the client's disks.
    pub(crate) fn disks(&self) -> Vec<PathBuf> {
        self.disks.iter().map(|(_, real)| real.clone()).collect()
    }

    /// Shows what the kernel has now.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.show(self.scan())?;
        if self.add_partitions() {
            self.show(self.scan())?;
        }
        Ok(())
    }

    fn show(&mut self, now: BTreeMap<String, Device>) -> Result<()> {
        if now == self.shown {
            return Ok(());
        }
        let before = std::mem::take(&mut self.shown);
        for (name, device) in &before {
            if now.get(name).is_none_or(|d| d.number() != device.number() || d.real != device.real)
            {
                device.hide(name, self.dev);
            }
        }
        for (name, device) in &now {
            let same = |d: &Device| d.number() == device.number() && d.real == device.real;
            if !before.get(name).is_some_and(same) {
                device.show(name, self.dev)?;
            }
        }
        self.shown = now;
        for (dev, _) in self.dev {
            let dev = Path::new(dev);
            self.link(&dev.join(BY_PATH), "-part", |index, _| {
                Some(format!("pci-0000:00:02.0-scsi-0:0:{index}:0"))
            })?;
            self.link(&dev.join(BY_LABEL), "", |_, disk| disk.serial.clone())?;
        }
        let mut text = String::from("major minor  #blocks  name\n\n");
        for (name, d) in &self.shown {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:4}  {:7} {:10} {name}", d.major, d.minor, d.sectors / 2);
        }
        fs::write(PARTITIONS, text).on(PARTITIONS)
    }

    /// All devices that are to be shown.
    fn scan(&self) -> BTreeMap<String, Device> {
        let mut found = BTreeMap::new();
        let mut ours = BTreeSet::new();
        for (index, (_, real)) in self.disks.iter().enumerate() {
            let name = format!("sd{}", letters(index));
            ours.extend(real.file_name().map(OsString::from));
            if let Some(device) = Device::read(real, Some(index), None) {
                found.insert(name.clone(), device);
            }
            for entry in entries(real) {
                let dir = real.join(&entry);
                let number = read_number(&dir.join("partition"));
                if let Some(number) = number
                    && let Some(device) = Device::read(&dir, Some(index), Some(number))
                {
                    ours.insert(entry);
                    found.insert(format!("{name}{number}"), device);
                }
            }
        }
        // Devices on devices on ours: until there is nothing new.
        let above: Vec<OsString> = entries(VIRTUAL.as_ref())
            .filter(|n| {
                let name = n.to_string_lossy();
                name.starts_with("dm-") || name.starts_with("md")
            })
            .collect();
        let mut more = true;
        while more {
            more = false;
            for name in &above {
                let real = Path::new(VIRTUAL).join(name);
                let mut below = entries(&real.join("slaves")).peekable();
                if ours.contains(name)
                    || below.peek().is_none()
                    || !below.all(|s| ours.contains(&s))
                {
                    continue;
                }
                more |= ours.insert(name.clone());
                if let Some(device) = Device::read(&real, None, None) {
                    found.insert(name.to_string_lossy().into_owned(), device);
                }
                for entry in entries(&real) {
                    let dir = real.join(&entry);
                    let number = read_number(&dir.join("partition"));
                    if number.is_some()
                        && let Some(device) = Device::read(&dir, None, number)
                    {
                        found.insert(entry.to_string_lossy().into_owned(), device);
                        ours.insert(entry);
                    }
                }
            }
        }
        found
    }

    /// Tells the kernel of partitions that it has not found itself, because it was built without
    /// the format of their table. Whether there were any.
    fn add_partitions(&self) -> bool {
        let mut any = false;
        for (index, _) in self.disks.iter().enumerate() {
            let partitioned =
                self.shown.values().any(|d| d.disk == Some(index) && d.partition.is_some());
            let name = format!("sd{}", letters(index));
            let Some(device) = self.shown.get(&name).filter(|_| !partitioned) else { continue };
            let Ok(mut file) = File::open(Path::new("/dev").join(&name)) else { continue };
            let sector = read_number(&device.real.join("queue/logical_block_size"));
            let geometry =
                Geometry { sector: sector.unwrap_or(512).into(), size: device.sectors * 512 };
            let table = partition_table::read(&mut file, geometry).ok().flatten();
            let entries = table.map(|table| table.entries()).unwrap_or_default();
            for entry in entries.iter().take(MAX_PARTITIONS) {
                let Some((start, length)) = entry.shown(geometry) else { continue };
                match sys::add_partition(&file, entry.number(), start, length) {
                    Ok(()) => any = true,
                    Err(e) => tracing::debug!(disk = name, partition = entry.number(), "{e}"),
                }
            }
        }
        any
    }

    /// Makes the links of a directory of /dev/disk: for each disk that has a name there.
    fn link(
        &self,
        dir: &Path,
        separator: &str,
        name: impl Fn(usize, &Disk) -> Option<String>,
    ) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for (shown, device) in &self.shown {
            let disk = device.disk.and_then(|i| Some((i, &self.disks.get(i)?.0)));
            let Some(link) = disk.and_then(|(i, disk)| name(i, disk)) else { continue };
            // A label is any text from the client; only one that is a file name gets a link.
            if link.is_empty() || link.len() > 200 || link.contains('/') || link.starts_with('.') {
                continue;
            }
            let link = match device.partition {
                Some(number) => format!("{link}{separator}{number}"),
                None => link,
            };
            wanted.insert(link, format!("../../{shown}"));
        }
        for old in entries(dir) {
            if !old.to_str().is_some_and(|o| wanted.contains_key(o)) {
                fs::remove_file(dir.join(&old)).ok();
            }
        }
        for (link, target) in wanted {
            let path = dir.join(link);
            if fs::read_link(&path).is_ok_and(|there| there == Path::new(&target)) {
                continue;
            }
            fs::remove_file(&path).ok();
            symlink(target, &path).on(path.display())?;
        }
        Ok(())
    }
}

impl Device {
    fn read(real: &Path, disk: Option<usize>, partition: Option<u32>) -> Option<Self> {
        let number = fs::read_to_string(real.join("dev")).ok()?;
        let (major, minor) = number.trim().split_once(':')?;
        let sectors = fs::read_to_string(real.join("size")).ok()?.trim().parse().ok()?;
        Some(Self {
            real: real.to_owned(),
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            sectors,
            disk,
            partition,
        })
    }

    fn number(&self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// Its directory in /sys/block.
    fn directory(&self, name: &str) -> PathBuf {
        let disk = match self.partition {
            // `md127p1`: its disk's directory is the kernel's.
            Some(number) if self.disk.is_none() => {
                name.strip_suffix(&format!("p{number}")).unwrap_or(name)
            }
            Some(_) => name.trim_end_matches(|c: char| c.is_ascii_digit()),
            None => name,
        };
        let top = Path::new("/sys/block").join(disk);
        if self.partition.is_some() { top.join(name) } else { top }
    }

    fn links(&self, name: &str) -> [PathBuf; 2] {
        let (major, minor) = self.number();
        [
            Path::new("/sys/class/block").join(name),
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}")),
        ]
    }

    fn nodes(&self, name: &str, dev: &[(&str, Shown)]) -> impl Iterator<Item = PathBuf> {
        dev.iter()
            .filter(|(_, shown)| *shown == Shown::All || self.disk.is_some())
            .map(move |(dev, _)| Path::new(dev).join(name))
    }

    fn show(&self, name: &str, dev: &[(&str, Shown)]) -> Result<()> {
        let (major, minor) = self.number();
        for node in self.nodes(name, dev) {
            dev::node(&node, FileType::BlockDevice, 0o660, makedev(major, minor))?;
        }
        let dir = self.directory(name);
        if self.disk.is_some() {
            self.describe(name, &dir)?;
        } else if self.partition.is_none() {
            // The link of an array may be there already ([`super::mdadm`]).
            fs::remove_file(&dir).ok();
            symlink(&self.real, &dir).on(dir.display())?;
        }
        for link in self.links(name) {
            let target = Path::new("../..").join(dir.strip_prefix("/sys").unwrap_or(&dir));
            fs::remove_file(&link).ok();
            symlink(target, &link).on(link.display())?;
        }
        Ok(())
    }

    /// A directory as sysfs has it, of links to what the kernel says.
    fn describe(&self, name: &str, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).on(dir.display())?;
        let own = self.real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for entry in entries(&self.real) {
            let text = entry.to_string_lossy();
            if !text.starts_with(&own) && !NOT_SHOWN.contains(&text.as_ref()) {
                symlink(self.real.join(&entry), dir.join(&entry)).on(dir.display())?;
            }
        }
        let (major, minor) = self.number();
        let kind = if self.partition.is_some() { "partition" } else { "disk" };
        let mut uevent = format!("MAJOR={major}\nMINOR={minor}\nDEVNAME={name}\nDEVTYPE={kind}\n");
        if let Some(number) = self.partition {
            let _ = writeln!(uevent, "PARTN={number}");
        } else {
            let device = dir.join("device");
            fs::create_dir_all(&device).on(device.display())?;
            for (file, text) in IDENTITY {
                fs::write(device.join(file), format!("{text}\n")).on(device.display())?;
            }
        }
        fs::write(dir.join("uevent"), uevent).on(dir.display())
    }

    fn hide(&self, name: &str, dev: &[(&str, Shown)]) {
        // What is not there any more need not be removed.
        for node in self.nodes(name, dev) {
            fs::remove_file(node).ok();
        }
        for link in self.links(name) {
            fs::remove_file(link).ok();
        }
        let dir = self.directory(name);
        if self.disk.is_some() {
            fs::remove_dir_all(dir).ok();
        } else if self.partition.is_none() {
            fs::remove_file(dir).ok();
        }
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = OsString> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name())
}

fn read_number(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// 0 is `a`, 25 is `z`, 26 is `aa`.
fn letters(index: usize) -> String {
    let mut name = String::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        let letter = u8::try_from(rest % 26).unwrap_or(0);
        name.insert(0, char::from(b'a' + letter));
        rest /= 26;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(disk: Option<usize>, partition: Option<u32>) -> Device {
        Device { real: "/sys/x".into(), major: 7, minor: 3, sectors: 8, disk, partition }
    }

    #[test]
    fn disks_are_named_by_letters() {
        let names: Vec<_> = [0, 1, 25, 26, 27, 701, 702].map(letters).into();
        assert_eq!(names, ["a", "b", "z", "aa", "ab", "zz", "aaa"]);
    }

    #[test]
    fn a_partition_is_below_its_disk() {
        let at = |d: Device, name| d.directory(name).display().to_string();
        assert_eq!(at(device(Some(0), None), "sda"), "/sys/block/sda");
        assert_eq!(at(device(Some(1), Some(12)), "sdb12"), "/sys/block/sdb/sdb12");
        assert_eq!(at(device(None, None), "dm-0"), "/sys/block/dm-0");
        assert_eq!(at(device(None, Some(2)), "md127p2"), "/sys/block/md127/md127p2");
    }
}
