// SPDX-License-Identifier: Apache-2.0
//! VHDX images whose last user died: what is in their log counts, and the file is not written.
use std::fs;
use std::path::PathBuf;

use block::Store;

use super::common::{Dir, MIB, compare, disk, on_engine, open_image, qemu_img, read, refusal};

const GUID: [u8; 16] = *b"a log of a test.";
const SECTOR: usize = 4096;

fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(sum).unwrap().to_le_bytes()
}

/// What an entry of the log writes.
enum Write {
    Sector(u64, Vec<u8>),
    Zeroes(u64, u64),
}

/// An entry of the log.
fn entry(sequence: u64, tail: u32, writes: &[Write], file_len: u64) -> Vec<u8> {
    let first = (64 + writes.len() * 32).div_ceil(SECTOR);
    let sectors = writes.iter().filter(|write| matches!(write, Write::Sector(..))).count();
    let mut bytes = vec![0; (first + sectors) * SECTOR];
    let len = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(b"loge");
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..16].copy_from_slice(&tail.to_le_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
    bytes[24..28].copy_from_slice(&u32::try_from(writes.len()).unwrap().to_le_bytes());
    bytes[32..48].copy_from_slice(&GUID);
    bytes[48..56].copy_from_slice(&file_len.to_le_bytes());
    bytes[56..64].copy_from_slice(&file_len.to_le_bytes());
    let mut data = first * SECTOR;
    for (i, write) in writes.iter().enumerate() {
        let at = 64 + i * 32;
        let offset = match write {
            Write::Sector(offset, content) => {
                bytes[at..at + 4].copy_from_slice(b"desc");
                bytes[at + 4..at + 8].copy_from_slice(&content[4092..]);
                bytes[at + 8..at + 16].copy_from_slice(&content[..8]);
                bytes[data..data + 4].copy_from_slice(b"data");
                let (high, low) = (u32::try_from(sequence >> 32).unwrap(), sequence & 0xffff_ffff);
                bytes[data + 4..data + 8].copy_from_slice(&high.to_le_bytes());
                bytes[data + 8..data + 4092].copy_from_slice(&content[8..4092]);
                let low = u32::try_from(low).unwrap();
                bytes[data + 4092..data + 4096].copy_from_slice(&low.to_le_bytes());
                data += SECTOR;
                offset
            }
            Write::Zeroes(offset, len) => {
                bytes[at..at + 4].copy_from_slice(b"zero");
                bytes[at + 8..at + 16].copy_from_slice(&len.to_le_bytes());
                offset
            }
        };
        bytes[at + 16..at + 24].copy_from_slice(&offset.to_le_bytes());
        bytes[at + 24..at + 32].copy_from_slice(&sequence.to_le_bytes());
    }
    let sum = crc32c(&bytes);
    bytes[4..8].copy_from_slice(&sum);
    bytes
}

/// A VHDX file in memory.
struct Vhdx {
    dir: Dir,
    bytes: Vec<u8>,
}

impl Vhdx {
    fn new(content: &[u8]) -> Self {
        let dir = Dir::new();
        let raw = dir.raw("raw", content);
        let bytes = fs::read(dir.convert(&raw, "vhdx", "block_size=1M")).unwrap();
        Vhdx { dir, bytes }
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    /// The offset of the header that counts.
    fn header(&self) -> usize {
        let headers = [64 << 10, 128 << 10];
        headers.into_iter().max_by_key(|at| self.u64_at(at + 8)).unwrap()
    }

    /// Writes entries at an offset of the log, and makes the headers say that there are some.
    fn with_log(mut self, entries: &[(usize, Vec<u8>)]) -> Self {
        let header = self.header();
        let log = usize::try_from(self.u64_at(header + 72)).unwrap();
        let len = u32::from_le_bytes(self.bytes[header + 68..header + 72].try_into().unwrap());
        let len = usize::try_from(len).unwrap();
        for (at, entry) in entries {
            for (i, sector) in entry.chunks(SECTOR).enumerate() {
                let at = log + (at + i * SECTOR) % len;
                self.bytes[at..at + SECTOR].copy_from_slice(sector);
            }
        }
        self.bytes[header + 48..header + 64].copy_from_slice(&GUID);
        self.bytes[header + 4..header + 8].fill(0);
        let sum = crc32c(&self.bytes[header..header + SECTOR]);
        self.bytes[header + 4..header + 8].copy_from_slice(&sum);
        self
    }

    /// Offset of the BAT.
    fn bat(&self) -> u64 {
        let table = 192 << 10;
        let bat = [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0, 0x42];
        let at = (table + 16..table + 80).step_by(32).find(|at| self.bytes[*at..*at + 8] == bat);
        self.u64_at(at.unwrap() + 16)
    }

    /// The sector of the BAT with its first entries.
    fn bat_sector(&self) -> Vec<u8> {
        let at = usize::try_from(self.bat()).unwrap();
        self.bytes[at..at + SECTOR].to_vec()
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn save(&self) -> PathBuf {
        self.dir.raw("dirty.vhdx", &self.bytes)
    }
}

fn content() -> Vec<u8> {
    let mut content = disk(4 * MIB, 2);
    // Every block is there.
    content.iter_mut().step_by(4096).for_each(|byte| *byte = 7);
    content
}

#[test]
fn the_log_of_a_dirty_image_is_replayed_in_memory_as_qemu_replays_it_in_the_file() {
    let mut content = content();
    let vhdx = Vhdx::new(&content);
    let (bat, len) = (vhdx.bat(), vhdx.len());
    let block = vhdx.u64_at(usize::try_from(bat).unwrap()) >> 20 << 20;
    // The BAT loses blocks 1 and 2; of block 0 a sector is written, and others are zeroed.
    let mut table = vhdx.bat_sector();
    table[8..24].fill(0);
    let sector: Vec<u8> = (0..SECTOR).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let first = entry(5, 0, &[Write::Sector(block + 8192, vec![9; SECTOR])], len);
    let second = [
        Write::Sector(bat, table),
        Write::Zeroes(block, 12288),
        Write::Sector(block + 4096, sector.clone()),
    ];
    let second = entry(6, 0, &second, len);
    let vhdx = vhdx.with_log(&[(0, first.clone()), (first.len(), second)]);
    content[..12288].fill(0);
    content[4096..8192].copy_from_slice(&sector);
    content[1 << 20..3 << 20].fill(0);
    let image = vhdx.save();
    on_engine(async {
        let store = open_image("vhdx", &image).await;
        compare(&store, &content, 5, "replayed").await;
    });
    assert!(fs::read(&image).unwrap() == vhdx.bytes, "the file is as it was");
    // QEMU replays it in the file.
    qemu_img(&["check", "-q", "-f", "vhdx", "-r", "all", image.to_str().unwrap()]);
    let raw = vhdx.dir.path("replayed");
    qemu_img(&[
        "convert",
        "-f",
        "vhdx",
        "-O",
        "raw",
        image.to_str().unwrap(),
        raw.to_str().unwrap(),
    ]);
    assert!(fs::read(raw).unwrap() == content, "as QEMU replays it");
}

#[test]
fn the_newest_sequence_counts_wherever_in_the_ring_it_is() {
    let content = content();
    let vhdx = Vhdx::new(&content);
    let (bat, len) = (vhdx.bat(), vhdx.len());
    let block = vhdx.u64_at(usize::try_from(bat).unwrap()) >> 20 << 20;
    let write = |byte: u8| [Write::Sector(block, vec![byte; SECTOR])];
    let end = (1 << 20) - SECTOR;
    let tail = u32::try_from(end).unwrap();
    let log = [
        // An old one.
        (64 * SECTOR, entry(20, 64 * 4096, &write(1), len)),
        // Over the end of the ring, of two entries.
        (end, entry(30, tail, &write(2), len)),
        (SECTOR, entry(31, tail, &write(3), len)),
        // Its number does not follow.
        (3 * SECTOR, entry(33, tail, &write(4), len)),
    ];
    let vhdx = vhdx.with_log(&log);
    let image = vhdx.save();
    on_engine(async {
        let store = open_image("vhdx", &image).await;
        assert_eq!(read(&store, 0, SECTOR).await.unwrap(), vec![3; SECTOR]);
    });
}

#[test]
fn a_torn_entry_ends_the_log() {
    let content = content();
    let vhdx = Vhdx::new(&content);
    let (bat, len) = (vhdx.bat(), vhdx.len());
    let block = vhdx.u64_at(usize::try_from(bat).unwrap()) >> 20 << 20;
    let first = entry(5, 0, &[Write::Sector(block, vec![1; SECTOR])], len);
    let mut second = entry(6, 0, &[Write::Sector(block, vec![2; SECTOR])], len);
    second[SECTOR + 100] ^= 1;
    let vhdx = vhdx.with_log(&[(0, first.clone()), (first.len(), second)]);
    let image = vhdx.save();
    on_engine(async {
        let store = open_image("vhdx", &image).await;
        assert_eq!(read(&store, 0, SECTOR).await.unwrap(), vec![1; SECTOR]);
        assert_eq!(store.facts().size, 4 * MIB);
    });
}

#[test]
fn a_log_that_cannot_be_replayed_is_refused() {
    let content = content();
    let none = Vhdx::new(&content).with_log(&[]);
    let e = refusal("vhdx", &none.save());
    assert!(e.contains("holds no valid entry"), "{e}");
    let vhdx = Vhdx::new(&content);
    let log = entry(5, 0, &[Write::Zeroes(4096, 4096)], vhdx.len() + (1 << 20));
    let vhdx = vhdx.with_log(&[(0, log)]);
    let e = refusal("vhdx", &vhdx.save());
    assert!(e.contains("length of the file in the log") && e.contains("cut off"), "{e}");
    let vhdx = Vhdx::new(&content);
    let log = entry(5, 0, &[Write::Zeroes(4097, 4096)], vhdx.len());
    let vhdx = vhdx.with_log(&[(0, log)]);
    let e = refusal("vhdx", &vhdx.save());
    assert!(e.contains("offset of a log descriptor is 4097"), "{e}");
}
