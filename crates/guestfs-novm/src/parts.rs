//! Partition tables, for kernels that are built without any: MBR with logical partitions, and GPT.
//!
//! Tables are a guest's, and hostile: what is outside of the disk or overlaps what it may not is left
//! out; chains and counts end.

use std::io;

/// Most partitions of a disk that Linux has minors for.
const MAX: usize = 256;
/// Most bytes of a GPT's entries that are read.
const MAX_ENTRIES: usize = 128 << 10;

/// A partition, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins.
    pub start: u64,
    /// Its length.
    pub length: u64,
}

/// What reads `buffer.len()` bytes at an offset.
type Read<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// The partitions of a disk with this many bytes and sectors of this size; none if it has no table.
pub fn read(read: Read<'_>, size: u64, sector: u64) -> io::Result<Vec<Partition>> {
    let mut head = vec![0; 512];
    if sector < 512 || size < sector * 4 {
        return Ok(Vec::new());
    }
    read(&mut head, 0)?;
    let Some(entries) = mbr_entries(&head) else { return Ok(Vec::new()) };
    let found = if entries.iter().any(|e| e.kind == 0xEE) {
        gpt(read, size, sector)?
    } else {
        mbr(read, &entries, sector)?
    };
    let inside = |p: &Partition| {
        p.length > 0 && p.start > 0 && p.start.checked_add(p.length).is_some_and(|end| end <= size)
    };
    Ok(found.into_iter().filter(inside).take(MAX).collect())
}

/// An entry of a master boot record, in sectors.
#[derive(Clone, Copy, Debug)]
struct Entry {
    kind: u8,
    start: u64,
    length: u64,
}

impl Entry {
    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0F | 0x85)
    }
}

/// The entries of a sector that is a master boot record, and no filesystem's boot sector.
fn mbr_entries(sector: &[u8]) -> Option<[Entry; 4]> {
    let table = sector.get(446..510)?;
    let plausible = table.chunks(16).all(|e| e[0] & 0x7F == 0);
    if sector.get(510..512)? != [0x55, 0xAA] || !plausible {
        return None;
    }
    let word = |at: usize| table.get(at..at + 4).map_or(0, |b| u64::from(le32(b)));
    Some([0, 16, 32, 48].map(|at| Entry {
        kind: table[at + 4],
        start: word(at + 8),
        length: word(at + 12),
    }))
}

fn mbr(read: Read<'_>, entries: &[Entry; 4], sector: u64) -> io::Result<Vec<Partition>> {
    let mut found = Vec::new();
    let mut logical = 5;
    for (number, entry) in (1..).zip(entries) {
        if entry.kind == 0 || entry.length == 0 {
            continue;
        }
        // The kernel shows two sectors of an extended partition, for boot loaders.
        let length = if entry.is_extended() { entry.length.min(2) } else { entry.length };
        let (start, length) = (entry.start * sector, length * sector);
        found.push(Partition { number, start, length });
        if entry.is_extended() && logical == 5 {
            let before = found.len();
            logical_partitions(read, *entry, sector, &mut found)?;
            logical += found.len() - before;
        }
    }
    found.sort_by_key(|p| p.number);
    Ok(found)
}

/// Follows the chain of boot records in an extended partition.
fn logical_partitions(
    read: Read<'_>,
    extended: Entry,
    sector: u64,
    found: &mut Vec<Partition>,
) -> io::Result<()> {
    let end = extended.start + extended.length;
    let mut at = extended.start;
    let mut record = vec![0; 512];
    for number in 5..(5 + MAX) {
        if read(&mut record, at * sector).is_err() {
            return Ok(());
        }
        let Some(entries) = mbr_entries(&record) else { return Ok(()) };
        let data = entries.iter().find(|e| e.kind != 0 && !e.is_extended() && e.length > 0);
        let Some(data) = data else { return Ok(()) };
        let start = at + data.start;
        if start + data.length <= end {
            found.push(Partition {
                number: u32::try_from(number).unwrap_or(u32::MAX),
                start: start * sector,
                length: data.length * sector,
            });
        }
        match entries.iter().find(|e| e.is_extended() && e.length > 0) {
            Some(next) if next.start > 0 && extended.start + next.start < end => {
                at = extended.start + next.start;
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn gpt(read: Read<'_>, size: u64, sector: u64) -> io::Result<Vec<Partition>> {
    for at in [1, size / sector - 1] {
        if let Some(found) = gpt_at(read, at, sector)? {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The partitions of the GPT whose header is at this sector, if its checksums are right.
fn gpt_at(read: Read<'_>, at: u64, sector: u64) -> io::Result<Option<Vec<Partition>>> {
    let mut header = vec![0; 512];
    read(&mut header, at * sector)?;
    let header_len = le32(&header[12..]) as usize;
    if !header.starts_with(b"EFI PART")
        || !(92..=512).contains(&header_len)
        || le64(&header[24..]) != at
    {
        return Ok(None);
    }
    let sum = le32(&header[16..]);
    header[16..20].fill(0);
    let (count, entry_len) = (le32(&header[80..]) as usize, le32(&header[84..]) as usize);
    let bytes = count.checked_mul(entry_len).filter(|b| *b > 0 && *b <= MAX_ENTRIES);
    let (Some(bytes), true) = (bytes, entry_len >= 128 && crc32(&header[..header_len]) == sum)
    else {
        return Ok(None);
    };
    let Some(offset) = le64(&header[72..]).checked_mul(sector) else { return Ok(None) };
    let mut entries = vec![0; bytes];
    if read(&mut entries, offset).is_err() || crc32(&entries) != le32(&header[88..]) {
        return Ok(None);
    }
    let partitions = (1..).zip(entries.chunks_exact(entry_len)).filter_map(|(number, entry)| {
        let (first, last) = (le64(&entry[32..]), le64(&entry[40..]));
        let used = entry[..16].iter().any(|b| *b != 0);
        let length = last.checked_sub(first)?.checked_add(1)?.checked_mul(sector)?;
        used.then_some(Partition { number, start: first.checked_mul(sector)?, length })
    });
    Ok(Some(partitions.collect()))
}

fn le32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

fn le64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

/// The CRC of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8)
            .fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xEDB8_8320 & (c & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    fn from_bytes(disk: &[u8], sector: u64) -> Vec<Partition> {
        let at = |buffer: &mut [u8], offset: u64| {
            let from = usize::try_from(offset).map_err(io::Error::other)?;
            let there = from.checked_add(buffer.len()).and_then(|end| disk.get(from..end));
            buffer.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        };
        read(&at, disk.len() as u64, sector).unwrap()
    }

    fn sfdisk(script: &str) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 << 20).unwrap();
        let mut child = Command::new("/usr/sbin/sfdisk")
            .args(["-q", "--no-tell-kernel"])
            .arg(file.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("sfdisk is needed (Debian package fdisk)");
        io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        std::fs::read(file.path()).unwrap()
    }

    fn numbers_and_starts(disk: &[u8]) -> Vec<(u32, u64, u64)> {
        let sectors = |p: Partition| (p.number, p.start / 512, p.length / 512);
        from_bytes(disk, 512).into_iter().map(sectors).collect()
    }

    #[test]
    fn primary_and_logical_partitions_are_found() {
        let disk = sfdisk(
            "label: dos\nstart=2048,size=4096\nstart=8192,size=40960,type=5\n\
             start=10240,size=2048\nstart=20480,size=2048\n",
        );
        assert_eq!(
            numbers_and_starts(&disk),
            [(1, 2048, 4096), (2, 8192, 2), (5, 10240, 2048), (6, 20480, 2048)]
        );
    }

    #[test]
    fn a_gpt_is_read_and_its_copy_where_the_first_is_damaged() {
        let mut disk = sfdisk("label: gpt\nstart=2048,size=4096\nstart=8192,size=4096\n");
        let want = [(1, 2048, 4096), (2, 8192, 4096)];
        assert_eq!(numbers_and_starts(&disk), want);
        disk[512 + 40] ^= 1;
        assert_eq!(numbers_and_starts(&disk), want);
    }

    #[test]
    fn a_chain_that_goes_round_ends() {
        let mut disk = sfdisk("label: dos\nstart=2048,size=8192,type=5\nstart=4096,size=16\n");
        // The next record of the chain is the same again.
        let record = 2048 * 512;
        disk[record + 462 + 4] = 5;
        disk[record + 462 + 8] = 0;
        disk[record + 462 + 12] = 1;
        assert!(from_bytes(&disk, 512).len() < 4);
        disk[record + 462 + 8] = 1;
        disk.copy_within(record..record + 512, record + 512);
        assert!(from_bytes(&disk, 512).len() <= MAX);
    }

    #[test]
    fn boot_sectors_of_filesystems_are_no_tables() {
        let mut sector = vec![0; 4096];
        sector[510..512].copy_from_slice(&[0x55, 0xAA]);
        sector[446..510].fill(0x41);
        assert_eq!(from_bytes(&sector, 512), []);
        assert_eq!(from_bytes(&[0; 4096], 512), []);
        assert_eq!(from_bytes(&[0; 100], 512), []);
    }

    proptest! {
        #[test]
        fn any_table_gives_partitions_inside_the_disk(
            table in proptest::collection::vec(any::<u8>(), 64),
            kinds in proptest::collection::vec(prop_oneof![Just(5u8), Just(0xEE), Just(0x83), Just(0)], 4),
            tail in proptest::collection::vec(any::<u8>(), 2048),
        ) {
            let mut disk = vec![0; 446];
            disk.extend(table);
            disk.extend([0x55, 0xAA]);
            disk.extend(tail);
            for (n, kind) in kinds.into_iter().enumerate() {
                disk[446 + n * 16] = 0;
                disk[446 + n * 16 + 4] = kind;
            }
            for p in from_bytes(&disk, 512) {
                prop_assert!(p.start + p.length <= disk.len() as u64);
            }
        }
    }
}
