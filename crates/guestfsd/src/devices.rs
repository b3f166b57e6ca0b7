// SPDX-License-Identifier: Apache-2.0
//! Names of block devices, both ways.
//!
//! Clients name disks /dev/sda, /dev/sdb, ... (or hd, vd) in the order in which they added them. Which
//! devices of this machine these are, /dev/disk/by-path says: the Nth of its whole disks in version
//! order is the Nth of the client's. Without by-path it is the order of the kernel's names. The disks
//! that `/` is on are not shown. Devices that are no such disks (/dev/mapper/x, /dev/md0, /dev/loop0)
//! have the same name on both sides.

mod numbers;
mod root;

use guest_error::{Context, Errno, Error, Result, shown};
use probe::sysfs;
use rustix::fs::{FileType, Mode, OFlags};
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Prefixes of the kernel's names of disks.
const DISKS: &[&str] = &["sd", "hd", "vd", "ubd", "xvd", "nvme", "mmcblk"];
/// Prefixes under which a client may name a disk by its letter.
const CLIENT: &[&str] = &["sd", "hd", "vd"];

/// A block device that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    path: PathBuf,
    name: OsString,
}

impl Device {
    /// One that need not be there.
    #[cfg(test)]
    pub(crate) fn for_tests(name: &str) -> Self {
        Self { path: name.into(), name: name.into() }
    }

    /// Its path on this machine: for programs and system calls.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its name as the client gave it: for errors.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Opens it; errors say the client's name.
    pub(crate) fn open(&self, flags: OFlags) -> Result<File> {
        rustix::fs::open(&self.path, flags | OFlags::CLOEXEC, Mode::empty())
            .map(File::from)
            .on(&self.name)
    }

    /// Its directory in /sys/block (for a partition: in that of its disk).
    pub(crate) fn sysfs(&self) -> Result<PathBuf> {
        let stat = rustix::fs::stat(&self.path).on(&self.name)?;
        Ok(sysfs::directory(stat.st_rdev))
    }
}

impl AsRef<OsStr> for Device {
    fn as_ref(&self) -> &OsStr {
        &self.name
    }
}

/// What is known of this machine's disks.
#[derive(Debug)]
pub(crate) struct Devices {
    /// Whether names are translated at all: not where `/` itself is served (`-r`).
    translate: bool,
    /// Whole disks in the client's order; none before they were looked for.
    disks: Option<Vec<PathBuf>>,
    /// Those of the daemon itself.
    root: BTreeSet<u64>,
    /// The client's numbers of devices, by this machine's.
    numbers: HashMap<u64, u64>,
}

#[allow(clippy::wrong_self_convention)] // Disks are looked for when their names are first needed.
impl Devices {
    /// Nothing is known yet.
    pub(crate) fn new(translate: bool) -> Self {
        Self { translate, disks: None, root: root::disks(), numbers: HashMap::new() }
    }

    /// Forgets what is known, because devices came or went.
    pub(crate) fn forget(&mut self) {
        self.disks = None;
        self.numbers.clear();
    }

    /// Whole disks of this machine in the client's order, without the daemon's own.
    pub(crate) fn disks(&mut self) -> &[PathBuf] {
        let own = &self.root;
        self.disks.get_or_insert_with(|| {
            let disks = by_path().filter(|d| !d.is_empty()).unwrap_or_else(by_name);
            disks.into_iter().filter(|disk| !is_on(disk, own)).collect()
        })
    }

    /// Whether a device is on a disk of the daemon's own.
    pub(crate) fn is_own(&self, device: &Path) -> bool {
        is_on(device, &self.root)
    }

    /// Whole disks and optical drives that can be opened, in the client's order.
    pub(crate) fn list(&mut self) -> Vec<PathBuf> {
        let mut found = self.disks().to_vec();
        let mut optical: Vec<PathBuf> =
            block_names("sr").map(|n| Path::new("/dev").join(n)).collect();
        optical.sort_by(|a, b| by_version(a.as_os_str().as_bytes(), b.as_os_str().as_bytes()));
        found.extend(optical);
        // A drive without a medium cannot be opened, and is not a disk to anyone.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        found.retain(|d| rustix::fs::open(d, flags, Mode::empty()).is_ok());
        found
    }

    /// This machine's name for a device of the client.
    pub(crate) fn to_machine(&mut self, name: &OsStr) -> PathBuf {
        if self.translate
            && let Some((index, partition)) = client_name(name.as_bytes())
            && let Some(disk) = self.disks().get(index)
        {
            return partition_of(disk, partition);
        }
        PathBuf::from(name)
    }

    /// The client's name for a device of this machine.
    pub(crate) fn to_client(&mut self, path: &Path) -> OsString {
        if self.translate {
            for (index, disk) in self.disks().iter().enumerate() {
                if let Some(partition) = partition_number(disk, path) {
                    let mut name = format!("/dev/sd{}", letters(index)).into_bytes();
                    name.extend_from_slice(partition);
                    return OsString::from_vec(name);
                }
            }
        }
        path.as_os_str().to_owned()
    }

    /// The client's number for a device of this machine: for what a filesystem is on. It is the same in every
    /// session that has the disk in the same place. Devices that are no disks of the client's keep theirs.
    pub(crate) fn number_to_client(&mut self, number: u64) -> u64 {
        // No device at all: an overlay, btrfs.
        if !self.translate || rustix::fs::major(number) == 0 {
            return number;
        }
        if let Some(known) = self.numbers.get(&number) {
            return *known;
        }
        let found = self.scsi_number(number).unwrap_or(number);
        self.numbers.insert(number, found);
        found
    }

    /// The number that a disk of this machine, or a partition of one, has as a SCSI disk.
    fn scsi_number(&mut self, number: u64) -> Option<u64> {
        let kernel = std::fs::canonicalize(sysfs::directory(number)).ok()?;
        let name = self.to_client(&Path::new("/dev").join(kernel.file_name()?));
        let (disk, partition) = client_name(name.as_bytes())?;
        let partition = match partition {
            [] => 0,
            digits => std::str::from_utf8(digits).ok()?.parse().ok()?,
        };
        Some(numbers::of_scsi_disk(disk.try_into().ok()?, partition))
    }

    /// The device of this name, if there is one; `argument` is what errors say.
    pub(crate) fn find(&mut self, argument: &str, name: &OsStr) -> Result<Device> {
        if !name.as_bytes().starts_with(b"/dev/") {
            let why = "expecting a device name";
            let message = format!("{argument}: {}: {why}", shown(name));
            return Err(Error::new(Errno::ENOENT, message));
        }
        let path = self.to_machine(name);
        let stat = rustix::fs::stat(&path).on(name)?;
        if !FileType::from_raw_mode(stat.st_mode).is_block_device() {
            return Err(Error::new(
                Errno::ENOTBLK,
                format!("{argument}: {}: expecting a device name", name.to_string_lossy()),
            ));
        }
        if self.translate && root::is_on(stat.st_rdev, &self.root) {
            return Err(Error::new(Errno::ENOENT, Errno::ENOENT.describe()).within(name));
        }
        Ok(Device { path, name: name.to_owned() })
    }
}

/// Whether a name is one that only a disk of the client's can have.
pub(crate) fn is_disk_name(name: &OsStr) -> bool {
    client_name(name.as_bytes()).is_some()
}

/// `/dev/sdb3` is (1, "3").
fn client_name(name: &[u8]) -> Option<(usize, &[u8])> {
    let name = name.strip_prefix(b"/dev/")?;
    let rest = CLIENT.iter().find_map(|p| name.strip_prefix(p.as_bytes()))?;
    let end = rest.iter().position(|c| !c.is_ascii_lowercase()).unwrap_or(rest.len());
    let (letters, digits) = rest.split_at(end);
    if letters.is_empty() || letters.len() > 4 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let index = letters.iter().fold(0, |n, c| n * 26 + usize::from(c - b'a') + 1) - 1;
    Some((index, digits))
}

/// 0 is `a`, 25 is `z`, 26 is `aa`.
fn letters(index: usize) -> String {
    let mut reversed = Vec::new();
    let mut n = index + 1;
    while n > 0 {
        n -= 1;
        reversed.push(b'a' + u8::try_from(n % 26).unwrap_or(0));
        n /= 26;
    }
    reversed.iter().rev().map(|&c| char::from(c)).collect()
}

fn partition_of(disk: &Path, partition: &[u8]) -> PathBuf {
    let mut name = disk.as_os_str().as_bytes().to_vec();
    if !partition.is_empty() && name.last().is_some_and(u8::is_ascii_digit) {
        name.push(b'p');
    }
    name.extend_from_slice(partition);
    PathBuf::from(OsString::from_vec(name))
}

/// The digits of a partition of this disk, empty for the disk itself, none for any other device.
fn partition_number<'p>(disk: &Path, path: &'p Path) -> Option<&'p [u8]> {
    let disk = disk.as_os_str().as_bytes();
    let rest = path.as_os_str().as_bytes().strip_prefix(disk)?;
    let digits = match (rest, disk.last()?.is_ascii_digit()) {
        ([], _) => return Some(rest),
        ([b'p', digits @ ..], true) => digits,
        (digits, false) => digits,
        _ => return None,
    };
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(digits)
}

/// Whole disks in the order of /dev/disk/by-path.
fn by_path() -> Option<Vec<PathBuf>> {
    let mut links: Vec<OsString> = std::fs::read_dir("/dev/disk/by-path")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| !is_partition_link(name.as_bytes()))
        .collect();
    links.sort_by(|a, b| by_version(a.as_bytes(), b.as_bytes()));
    let mut disks: Vec<PathBuf> = Vec::new();
    for link in links {
        let Ok(disk) = std::fs::canonicalize(Path::new("/dev/disk/by-path").join(link)) else {
            continue;
        };
        let optical = disk.as_os_str().as_bytes().starts_with(b"/dev/sr");
        if !optical && !disks.contains(&disk) {
            disks.push(disk);
        }
    }
    Some(disks)
}

/// Whether a link ends in `-partN`.
fn is_partition_link(name: &[u8]) -> bool {
    let digits = name.iter().rev().take_while(|c| c.is_ascii_digit()).count();
    digits > 0 && name[..name.len() - digits].ends_with(b"-part")
}

/// Whole disks in the order of the kernel's names.
fn by_name() -> Vec<PathBuf> {
    let mut names: Vec<OsString> = DISKS.iter().flat_map(|prefix| block_names(prefix)).collect();
    names.sort_by(|a, b| {
        let key = |n: &OsStr| {
            (n.as_bytes().iter().filter(|c| c.is_ascii_lowercase()).count(), n.to_owned())
        };
        key(a).cmp(&key(b))
    });
    names.iter().map(|name| Path::new("/dev").join(name)).collect()
}

/// Names in /sys/block that begin so.
fn block_names(prefix: &str) -> impl Iterator<Item = OsString> {
    std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(move |name| name.as_bytes().starts_with(prefix.as_bytes()))
}

fn is_on(device: &Path, own: &BTreeSet<u64>) -> bool {
    !own.is_empty() && rustix::fs::stat(device).is_ok_and(|stat| root::is_on(stat.st_rdev, own))
}

/// Compares with numbers in their own order, as `ls -v` does.
pub(crate) fn by_version(a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let digits = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
        let (da, db) = (digits(a), digits(b));
        let order = if da > 0 && db > 0 {
            let number = |s: &[u8], n: usize| {
                let zeros = s[..n].iter().take_while(|&&c| c == b'0').count();
                (n - zeros, s[zeros..n].to_vec())
            };
            let order = number(a, da).cmp(&number(b, db));
            (a, b) = (&a[da..], &b[db..]);
            order
        } else {
            match (a.split_first(), b.split_first()) {
                (None, None) => return Ordering::Equal,
                (Some((x, ra)), Some((y, rb))) => {
                    (a, b) = (ra, rb);
                    x.cmp(y)
                }
                (x, y) => return x.is_some().cmp(&y.is_some()),
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(disks: &[&str]) -> Devices {
        let disks = Some(disks.iter().map(PathBuf::from).collect());
        Devices { disks, ..Devices::new(true) }
    }

    #[test]
    fn the_nth_disk_of_the_client_is_the_nth_of_the_machine() {
        let mut d = devices(&["/dev/ubdb", "/dev/ubda", "/dev/loop3"]);
        for (client, machine) in [
            ("/dev/sda", "/dev/ubdb"),
            ("/dev/vdb12", "/dev/ubda12"),
            ("/dev/sdc1", "/dev/loop3p1"),
            ("/dev/sdd", "/dev/sdd"),
            ("/dev/mapper/x", "/dev/mapper/x"),
            ("/dev/sda/x", "/dev/sda/x"),
        ] {
            assert_eq!(d.to_machine(OsStr::new(client)), Path::new(machine));
        }
    }

    #[test]
    fn the_clients_names_come_back() {
        let mut d = devices(&["/dev/ubdb", "/dev/ubda", "/dev/loop3"]);
        for (machine, client) in [
            ("/dev/ubda1", "/dev/sdb1"),
            ("/dev/loop3p2", "/dev/sdc2"),
            ("/dev/loop3", "/dev/sdc"),
            ("/dev/loop35", "/dev/loop35"),
            ("/dev/md0", "/dev/md0"),
        ] {
            assert_eq!(d.to_client(Path::new(machine)), client);
        }
    }

    #[test]
    fn where_the_machine_itself_is_served_names_stay() {
        let mut d = Devices { translate: false, ..devices(&["/dev/nvme0n1"]) };
        assert_eq!(d.to_machine(OsStr::new("/dev/sda")), Path::new("/dev/sda"));
        assert_eq!(d.to_client(Path::new("/dev/nvme0n1")), "/dev/nvme0n1");
    }

    #[test]
    fn letters_go_on_after_z() {
        for (index, name) in [(0, "a"), (25, "z"), (26, "aa"), (701, "zz"), (702, "aaa")] {
            assert_eq!(letters(index), name);
            let device = format!("/dev/sd{name}7");
            assert_eq!(client_name(device.as_bytes()), Some((index, &b"7"[..])));
        }
    }

    #[test]
    fn by_path_is_in_version_order_without_partitions() {
        let mut names = ["x-scsi-0:0:10:0", "x-scsi-0:0:2:0", "x-scsi-0:0:1:0"];
        names.sort_by(|a, b| by_version(a.as_bytes(), b.as_bytes()));
        assert_eq!(names, ["x-scsi-0:0:1:0", "x-scsi-0:0:2:0", "x-scsi-0:0:10:0"]);
        assert!(is_partition_link(b"x-scsi-0:0:2:0-part12"));
        assert!(!is_partition_link(b"x-part-0:0:2:0"));
    }

    #[test]
    fn what_is_not_below_dev_is_no_device() {
        let e = devices(&[]).find("device", OsStr::new("sda")).unwrap_err();
        assert_eq!(e.message(), "device: sda: expecting a device name");
        assert_eq!(
            devices(&[]).find("device", OsStr::new("/dev/null")).unwrap_err().errno(),
            Errno::ENOTBLK
        );
    }
}
