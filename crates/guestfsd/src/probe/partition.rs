//! The partition of a table that a device is: what its type, UUID and name are.
//!
//! Tables are the two that matter: MBR with its logical partitions, and GPT.

use super::medium::{Medium, le32, le64};
use super::utf16;
use crate::error::{Context, Result};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Logical partitions that are followed.
const MAX_LOGICAL: u32 = 1024;
/// Entries of a GPT that are looked at.
const MAX_ENTRIES: u32 = 16384;

/// What a partition table says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of an MBR.
    Mbr {
        /// Type of the partition.
        kind: u8,
        /// Signature of the disk.
        disk: u32,
        /// 0x80 where it is to be booted from.
        flags: u64,
    },
    /// Of a GPT.
    Gpt {
        /// GUID of the type.
        kind: String,
        /// GUID of the partition.
        guid: String,
        /// Name of the partition.
        name: String,
        /// Its attributes.
        flags: u64,
    },
}

impl Entry {
    /// Whether a filesystem can be there: not in an extended partition, and not where dynamic disks of Windows
    /// keep their data.
    pub fn may_hold_filesystem(&self) -> bool {
        /// Microsoft reserved; logical disk manager: metadata; data.
        const GUIDS: &[&str] = &[
            "e3c9e316-0b5c-4db8-817d-f92df00215ae",
            "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3",
            "af9b60a0-1431-4f62-bc68-3311714a69ad",
        ];
        match self {
            Self::Mbr { kind, .. } => !is_extended(*kind) && *kind != 0x42,
            Self::Gpt { kind, .. } => !GUIDS.contains(&kind.as_str()),
        }
    }

    /// The UUID of the partition, as `PARTUUID` has it.
    pub fn uuid(&self, number: u32) -> String {
        match self {
            Self::Mbr { disk, .. } => format!("{disk:08x}-{number:02x}"),
            Self::Gpt { guid, .. } => guid.clone(),
        }
    }

    /// The name of the partition, empty where it has none.
    pub fn name(&self) -> &str {
        match self {
            Self::Mbr { .. } => "",
            Self::Gpt { name, .. } => name,
        }
    }
}

/// A device's partition number, and the disk that it is on; none if it is not a partition.
pub fn of_device(partition: &Path) -> Option<(PathBuf, u32)> {
    let stat = rustix::fs::stat(partition).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let sysfs = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let number = std::fs::read_to_string(sysfs.join("partition")).ok()?.trim().parse().ok()?;
    // ../../devices/DISK/PARTITION
    let directory = std::fs::read_link(sysfs).ok()?;
    Some((Path::new("/dev").join(directory.parent()?.file_name()?), number))
}

/// The entry of this number in the table of a disk; none without such a table or entry.
pub fn entry(disk: &Path, number: u32) -> Result<Option<Entry>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(disk, flags, Mode::empty()).map(File::from).on(disk)?;
    Ok(find(&Medium::of_table(&file).on(disk)?, number))
}

fn find(m: &Medium<'_>, number: u32) -> Option<Entry> {
    // Sectors of a disk with a GPT are as large as the header says by where it is.
    if let Some(sector) = [512u64, 4096].into_iter().find(|s| m.has(*s, b"EFI PART")) {
        return gpt(m, sector, number);
    }
    mbr(m, number)
}

fn gpt(m: &Medium<'_>, sector: u64, number: u32) -> Option<Entry> {
    let header = m.array::<92>(sector)?;
    let (entries, size) = (le32(&header, 80), le32(&header, 84));
    if number == 0 || number > entries.min(MAX_ENTRIES) || size < 128 {
        return None;
    }
    let table = le64(&header, 72).checked_mul(sector)?;
    let at = table.checked_add(u64::from(number - 1) * u64::from(size))?;
    let entry = m.array::<128>(at)?;
    if entry[..16] == [0; 16] {
        return None;
    }
    let (kind, guid) = (guid(&entry[..16]), guid(&entry[16..32]));
    Some(Entry::Gpt { kind, guid, name: utf16(&entry[56..128]), flags: le64(&entry, 48) })
}

/// A GUID as text: its first three fields are little endian.
fn guid(b: &[u8]) -> String {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut out = String::with_capacity(36);
    for (i, at) in order.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{:02x}", b[at]));
    }
    out
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

fn mbr(m: &Medium<'_>, number: u32) -> Option<Entry> {
    let table = m.array::<512>(0).filter(|t| t[510..] == [0x55, 0xaa])?;
    let disk = le32(&table, 440);
    let entry = |table: &[u8; 512], n: usize| -> (u8, u32) {
        let at = 446 + 16 * n;
        (table[at + 4], le32(table, at + 8))
    };
    let flags = |table: &[u8; 512], n: usize| u64::from(table[446 + 16 * n]);
    if let Some(n) = (1..=4).position(|n| n == number) {
        let (kind, _) = entry(&table, n);
        return (kind != 0).then_some(Entry::Mbr { kind, disk, flags: flags(&table, n) });
    }
    // Logical partitions are a chain: each link says one, and where the next link is.
    let (_, extended) = (0..4).map(|n| entry(&table, n)).find(|(kind, _)| is_extended(*kind))?;
    let mut link = u64::from(extended);
    let mut at = 5;
    for _ in 0..MAX_LOGICAL {
        let table = m.array::<512>(link * 512).filter(|t| t[510..] == [0x55, 0xaa])?;
        let parts: Vec<(u8, u32)> = (0..4).map(|n| entry(&table, n)).collect();
        if let Some(n) = parts.iter().position(|(kind, _)| *kind != 0 && !is_extended(*kind)) {
            if at == number {
                return Some(Entry::Mbr { kind: parts[n].0, disk, flags: flags(&table, n) });
            }
            at += 1;
        }
        let (_, next) = parts.iter().find(|(kind, _)| is_extended(*kind))?;
        link = u64::from(extended) + u64::from(*next);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    fn partitioned(script: &str) -> Vec<u8> {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(32 << 20).unwrap();
        let mut sfdisk = Command::new("sfdisk")
            .args(["-q", "--no-reread"])
            .arg(&path)
            .env("PATH", crate::tool::PATH)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sfdisk: please install fdisk");
        sfdisk.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(sfdisk.wait().unwrap().success());
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn partitions_of_an_mbr_are_found_the_logical_ones_too() {
        let disk = partitioned(
            "label: dos\nlabel-id: 0x12345678\n,2M,7\n,10M,5\n,2M,42\n,1M,83\n,2M,82\n,2M,8e\n",
        );
        let m = Medium::of_bytes(&disk);
        let kinds = [(1, 7), (2, 5), (3, 0x42), (4, 0x83), (5, 0x82), (6, 0x8e)];
        for (number, kind) in kinds {
            let entry = find(&m, number).unwrap();
            assert_eq!(entry, Entry::Mbr { kind, disk: 0x1234_5678, flags: 0 }, "{number}");
            assert_eq!(entry.may_hold_filesystem(), !matches!(number, 2 | 3));
        }
        assert_eq!((find(&m, 7), find(&m, 0)), (None, None));
        assert_eq!(find(&m, 6).unwrap().uuid(6), "12345678-06");
    }

    #[test]
    fn partitions_of_a_gpt_are_found() {
        let disk = partitioned(
            "label: gpt\nsize=2M, name=hällo, uuid=BF79CD28-9F35-0D4A-B1AE-449D12322DF4\n\
             size=2M, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n",
        );
        let m = Medium::of_bytes(&disk);
        let first = find(&m, 1).unwrap();
        assert_eq!((first.name(), first.may_hold_filesystem()), ("hällo", true));
        assert_eq!(first.uuid(1), "bf79cd28-9f35-0d4a-b1ae-449d12322df4");
        assert!(!find(&m, 2).unwrap().may_hold_filesystem());
        assert_eq!(find(&m, 3), None);
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic_or_go_round_forever(
            head in prop::collection::vec(any::<u8>(), 2048), number in 0u32..300, gpt: bool,
        ) {
            let mut disk = head;
            disk[510..512].copy_from_slice(&[0x55, 0xaa]);
            disk[450] = 5;
            disk[454..458].copy_from_slice(&1u32.to_le_bytes());
            if gpt {
                disk[512..520].copy_from_slice(b"EFI PART");
            }
            let _ = find(&Medium::of_bytes(&disk), number);
        }
    }
}
