// SPDX-License-Identifier: Apache-2.0
//! What the guest's fstab names, as the client's: a filesystem of this session.
//!
//! Tags are looked for on all devices. Names of disks are the guest's: the letter, or the number, says which
//! disk it is, in the order in which the client has added them.

use super::fstab::{Entry, Spec};
use super::machine::Machine;
use probe::device_mapper;
use probe::mountable::MountableName;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Filesystems of the guest's kernel, on nothing.
const VIRTUAL: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devfs",
    "devpts",
    "devtmpfs",
    "fdescfs",
    "hugetlbfs",
    "kernfs",
    "linprocfs",
    "mqueue",
    "nfs",
    "nfs4",
    "none",
    "overlay",
    "proc",
    "procfs",
    "ptyfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "usbfs",
];
/// Media that are not part of the guest.
const REMOVABLE: &[&[u8]] = &[b"/dev/fd", b"/dev/floppy", b"/dev/cdrom", b"/dev/cdrw", b"/dev/sr"];

/// The device of an entry; none if it is not on a disk, or not there.
pub(super) fn resolve(
    machine: &mut impl Machine,
    root: &MountableName,
    kind: &str,
    entry: &Entry,
) -> Option<MountableName> {
    if VIRTUAL.iter().any(|v| entry.fstype == *v) {
        return None;
    }
    let device = match &entry.spec {
        Spec::Tag(tag) => machine.find(tag)?,
        Spec::Path(path) => device(machine, root, kind, path)?,
    };
    let is_btrfs = entry.fstype == "btrfs" || (device == root.device && root.volume.is_some());
    let volume = entry.option("subvol").filter(|_| is_btrfs).map(|v| {
        let bytes = v.as_bytes();
        let begin = bytes.iter().position(|&b| b != b'/').unwrap_or(bytes.len());
        OsStr::from_bytes(&bytes[begin..]).to_owned()
    });
    Some(MountableName { device, volume: volume.filter(|v| !v.is_empty()) })
}

/// The device that the guest calls by this name.
fn device(
    machine: &mut impl Machine,
    root: &MountableName,
    kind: &str,
    path: &OsStr,
) -> Option<PathBuf> {
    let bytes = path.as_bytes();
    if bytes == b"/dev/root" {
        return Some(root.device.clone());
    }
    let leads_out = Path::new(path).components().any(|c| c == Component::ParentDir);
    let removable = REMOVABLE.iter().any(|r| bytes.starts_with(r));
    if !bytes.starts_with(b"/dev/") || leads_out || removable {
        return None;
    }
    if let Some(name) = bytes.strip_prefix(b"/dev/mapper/") {
        let map = device_mapper::all().into_iter().find(|map| map.name.as_bytes() == name);
        let known = map.map(|map| map.volume().map_or_else(|| map.path(), |v| v.path()));
        return Some(known.unwrap_or_else(|| PathBuf::from(path)));
    }
    let disks = machine.disks();
    let found = disk_of(bytes, kind).and_then(|(disk, partition)| {
        let disk = match disk {
            Disk::Number(index) => disks.get(index)?,
            // Which one cannot be told from the name: there has to be only one.
            Disk::Any => disks.first().filter(|_| disks.len() == 1)?,
        };
        Some(partition_of(disk, partition))
    });
    // What is not there is reported anyway, by the name that it would have, or that the guest has for it.
    let found = found.filter(|device| kind == "linux" || device.exists());
    Some(found.unwrap_or_else(|| PathBuf::from(path)))
}

/// Which disk a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// The nth.
    Number(usize),
    /// Its name does not say.
    Any,
}

/// The disk, and the number of the partition as Linux counts (0: the whole), of a guest's name for it.
fn disk_of(path: &[u8], kind: &str) -> Option<(Disk, u32)> {
    /// Letters for disks.
    const LETTERED: &[&[u8]] = &[b"sd", b"hd", b"vd", b"xvd", b"ubd"];
    let name = path.strip_prefix(b"/dev/")?;
    if let Some(link) = name.strip_prefix(b"disk/by-id/").or(name.strip_prefix(b"disk/by-path/")) {
        let at = link.windows(5).rposition(|w| w == b"-part");
        let number = at.map_or(Some(0), |at| whole_number(&link[at + 5..]))?;
        return Some((Disk::Any, number));
    }
    if !matches!(kind, "linux" | "unknown") {
        return bsd_disk(name, kind);
    }
    if let Some(rest) = name.strip_prefix(b"nvme").or(name.strip_prefix(b"mmcblk")) {
        // nvme0n1p2, mmcblk0p1
        let (disk, rest) = super::release::number(rest)?;
        let rest = rest.strip_prefix(b"n1").unwrap_or(rest);
        let number = match rest {
            [] => 0,
            [b'p', digits @ ..] => whole_number(digits)?,
            _ => return None,
        };
        return Some((Disk::Number(usize::try_from(disk).ok()?), number));
    }
    let rest = LETTERED.iter().find_map(|p| name.strip_prefix(*p))?;
    let end = rest.iter().position(|b| !b.is_ascii_lowercase()).unwrap_or(rest.len());
    let (letters, digits) = rest.split_at(end);
    if letters.is_empty() || letters.len() > 3 {
        return None;
    }
    let index = letters.iter().fold(0, |n, c| n * 26 + usize::from(c - b'a') + 1) - 1;
    let number = if digits.is_empty() { 0 } else { whole_number(digits)? };
    Some((Disk::Number(index), number))
}

/// Names of other systems: `ada0p2`, `ad0s1a`, `wd0a`, `hd0s1`, `c0d0p0s0`.
fn bsd_disk(name: &[u8], kind: &str) -> Option<(Disk, u32)> {
    /// Kinds of disks, whose number follows.
    const DISKS: &[&[u8]] =
        &[b"ada", b"ad", b"da", b"vtbd", b"vtblk", b"nvd", b"nda", b"wd", b"sd", b"ld", b"hd"];
    let rest = match name.strip_prefix(b"c0d") {
        Some(rest) if kind == "minix" => rest,
        _ => DISKS.iter().find_map(|p| name.strip_prefix(*p))?,
    };
    let (disk, rest) = super::release::number(rest)?;
    let disk = Disk::Number(usize::try_from(disk).ok()?);
    let number = match rest {
        [] => 0,
        // A partition of a GPT; MINIX counts from 0 and divides each again.
        [b'p', digits @ ..] if kind == "minix" => {
            u32::try_from(super::release::number(digits)?.0).ok()? + 1
        }
        [b'p', digits @ ..] => whole_number(digits)?,
        [b's', slice @ ..] => {
            let (number, rest) = super::release::number(slice)?;
            match rest {
                [] => u32::try_from(number).ok()?,
                [letter] => labelled(*letter)?,
                _ => return None,
            }
        }
        [letter] => labelled(*letter)?,
        _ => return None,
    };
    Some((disk, number))
}

/// Linux counts the partitions of a disklabel from 5 on, without `c`, which is the whole.
fn labelled(letter: u8) -> Option<u32> {
    match letter {
        b'a' | b'b' => Some(5 + u32::from(letter - b'a')),
        b'd'..=b'h' => Some(4 + u32::from(letter - b'a')),
        _ => None,
    }
}

fn whole_number(digits: &[u8]) -> Option<u32> {
    let (number, rest) = super::release::number(digits)?;
    rest.is_empty().then(|| u32::try_from(number).ok()).flatten()
}

/// This machine's name of a disk's partition.
fn partition_of(disk: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(disk);
    if number > 0 {
        let p = disk.as_os_str().as_bytes().last().is_some_and(u8::is_ascii_digit);
        name.push(if p { format!("p{number}") } else { number.to_string() });
    }
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_disks_say_which_disk_and_partition() {
        for (kind, name, expected) in [
            ("linux", "/dev/sda1", Some((Disk::Number(0), 1))),
            ("linux", "/dev/xvdab12", Some((Disk::Number(27), 12))),
            ("linux", "/dev/hdc", Some((Disk::Number(2), 0))),
            ("linux", "/dev/nvme1n1p3", Some((Disk::Number(1), 3))),
            ("linux", "/dev/mmcblk0p2", Some((Disk::Number(0), 2))),
            ("linux", "/dev/disk/by-id/ata-QEMU_x-part3", Some((Disk::Any, 3))),
            ("linux", "/dev/sda1x", None),
            ("linux", "/dev/vg/lv", None),
            ("freebsd", "/dev/ada0p2", Some((Disk::Number(0), 2))),
            ("freebsd", "/dev/ad1s1a", Some((Disk::Number(1), 5))),
            ("freebsd", "/dev/da0s2", Some((Disk::Number(0), 2))),
            ("netbsd", "/dev/wd0e", Some((Disk::Number(0), 8))),
            ("openbsd", "/dev/sd0a", Some((Disk::Number(0), 5))),
            ("hurd", "/dev/hd0s1", Some((Disk::Number(0), 1))),
            ("minix", "/dev/c0d0p0s1", Some((Disk::Number(0), 1))),
            ("minix", "/dev/c0d0p1", Some((Disk::Number(0), 2))),
        ] {
            let found = disk_of(name.as_bytes(), kind);
            assert_eq!(found, expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_of_any_kind_do_no_harm(name in "/dev/[a-z0-9/-]{0,24}", n in 0..5_usize) {
            let kind = ["linux", "freebsd", "netbsd", "minix", "hurd"][n];
            disk_of(name.as_bytes(), kind);
        }
    }
}
