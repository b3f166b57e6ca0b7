// SPDX-License-Identifier: Apache-2.0
//! The disk that all sessions use, and the files of the client: made once, in memory where there is
//! room, so that no disk of this machine is measured.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::library::Guestfs;
use super::rows::UNPACKED;
use crate::run;

/// The client's disk.
pub(crate) const DISK: &CStr = c"/dev/sda";
/// A second disk, on which there is nothing.
pub(crate) const SPARE: &CStr = c"/dev/sdb";
/// The first one's ext4 filesystem.
pub(crate) const EXT: &CStr = c"/dev/sda1";
/// A btrfs without subvolumes.
pub(crate) const BTRFS: &CStr = c"/dev/sda5";
/// The ext4's label.
pub(crate) const LABEL: &CStr = c"bench";
/// Its UUID.
pub(crate) const UUID: &CStr = c"d7a2c0de-50e1-4c5f-9d3b-1f2a6b7c8d9e";
/// A file of 100 bytes.
pub(crate) const SMALL: &CStr = c"/small";
/// Its content.
pub(crate) const HUNDRED: &[u8] = &[b'x'; 100];
/// A large file.
pub(crate) const BIG: &CStr = c"/big";
/// A tree as people have it.
pub(crate) const TREE: &CStr = c"/tree";
/// A tree of many small files.
pub(crate) const MANY: &CStr = c"/many";

/// Bytes of the disk, which is sparse.
const SIZE: u64 = 8 << 30;
const SPARE_SIZE: u64 = 64 << 20;
/// Partitions in MiB, and what is made on them.
const PARTITIONS: &[(i64, i64, Option<&CStr>)] = &[
    (1, 6144, Some(c"ext4")),
    (6144, 6208, Some(c"vfat")),
    (6208, 6720, Some(c"xfs")),
    (6720, 6784, None),
    (6784, 7296, Some(c"btrfs")),
];
/// Bytes of the large file, of which `--quick` takes an eighth.
const BIG_LEN: u64 = 256 << 20;
/// Files of the tree, of which `--quick` takes an eighth; 1 to 256 KiB.
const TREE_FILES: u64 = 4000;
const TREE_SIZES: u64 = 9;
/// Directories of the many small files, of which `--quick` takes an eighth.
const MANY_DIRS: u64 = 100;
const MANY_FILES: u64 = 500;
/// Free memory that all of it fits into, in bytes.
const ROOM: u64 = 6 << 30;

/// What clients take.
pub(crate) struct Inputs {
    /// The disk's image.
    pub(crate) image: CString,
    /// The second disk's.
    pub(crate) spare: CString,
    /// A large file.
    pub(crate) big: CString,
    /// An archive of a tree.
    pub(crate) tree: CString,
    /// An archive of many small files.
    pub(crate) many: CString,
}

impl Inputs {
    /// Those in this directory.
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        let file = |name| CString::new(dir.join(name).into_os_string().into_vec());
        Ok(Self {
            image: file("disk")?,
            spare: file("spare")?,
            big: file("big")?,
            tree: file("tree.tar")?,
            many: file("many.tar")?,
        })
    }

    /// Bytes of the large file.
    pub(crate) fn big_len(&self) -> u64 {
        len(&self.big)
    }

    /// Bytes of the tree's archive.
    pub(crate) fn tree_len(&self) -> u64 {
        len(&self.tree)
    }
}

fn len(path: &CStr) -> u64 {
    fs::metadata(path.to_string_lossy().as_ref()).map_or(0, |m| m.len())
}

/// A directory for all of it.
pub(crate) fn directory() -> Result<TempDir> {
    let shm = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(shm).is_ok_and(|s| s.f_bavail * s.f_frsize >= ROOM);
    let base = if room { shm.to_path_buf() } else { std::env::temp_dir() };
    let made = tempfile::Builder::new().prefix("bench-guestfs-").tempdir_in(&base);
    made.with_context(|| format!("cannot make a directory in {}", base.display()))
}

/// Makes the client's files and an empty disk.
pub(crate) fn make_files(dir: &Path, quick: bool) -> Result<()> {
    let part = if quick { 8 } else { 1 };
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    File::create(dir.join("disk"))?.set_len(SIZE)?;
    File::create(dir.join("spare"))?.set_len(SPARE_SIZE)?;
    noise.write(&dir.join("big"), BIG_LEN / part)?;
    let tree = dir.join("tree");
    for i in 0..TREE_FILES / part {
        let below = tree.join(format!("d{}", i / 100)).join(format!("e{}", i / 10 % 10));
        fs::create_dir_all(&below)?;
        noise.write(&below.join(format!("file{i}")), 1024 << (i % TREE_SIZES))?;
    }
    archive(&tree)?;
    let many = dir.join("many");
    for i in 0..MANY_DIRS / part {
        let below = many.join(format!("d{i:03}"));
        fs::create_dir_all(&below)?;
        for j in 0..MANY_FILES {
            fs::write(below.join(format!("file{j:03}")), "hello")?;
        }
    }
    archive(&many)
}

/// Replaces a tree by its archive.
pub(super) fn archive(tree: &Path) -> Result<()> {
    let tar = PathBuf::from(format!("{}.tar", tree.display()));
    run::run(Command::new("tar").arg("-cf").arg(tar).arg("-C").arg(tree).arg("."))?;
    Ok(fs::remove_dir_all(tree)?)
}

/// Makes the filesystems, and fills the first, in a session that has been launched.
pub(crate) fn fill(g: &Guestfs, inputs: &Inputs) -> Result<()> {
    const SECTORS: i64 = 2048;
    g.status2(g.f.part_init, DISK, c"gpt")?;
    for (number, &(from, to, kind)) in PARTITIONS.iter().enumerate() {
        g.part_add(DISK, from * SECTORS, to * SECTORS - 1)?;
        let device = CString::new(format!("{}{}", DISK.to_string_lossy(), number + 1))?;
        match kind {
            Some(kind) => g.status2(g.f.mkfs, kind, &device)?,
            None => g.status1(g.f.mkswap, &device).map(drop)?,
        }
    }
    g.status2(g.f.set_label, EXT, LABEL)?;
    g.status2(g.f.set_uuid, EXT, UUID)?;
    g.status2(g.f.mount, EXT, c"/")?;
    g.write(SMALL, HUNDRED)?;
    g.status2(g.f.upload, &inputs.big, BIG)?;
    for (tar, dir) in [(&inputs.tree, TREE), (&inputs.many, MANY)] {
        g.status1(g.f.mkdir, dir)?;
        g.status2(g.f.tar_in, tar, dir)?;
    }
    g.status1(g.f.mkdir, UNPACKED)?;
    g.status0(g.f.umount_all)?;
    g.status0(g.f.sync).map(drop)
}

/// Bytes that nothing can compress, the same in every run.
struct Noise(u64);

impl Noise {
    fn write(&mut self, path: &Path, len: u64) -> Result<()> {
        let mut file = File::create(path).with_context(|| format!("{}", path.display()))?;
        let mut left = usize::try_from(len)?;
        let mut block = Vec::new();
        while left > 0 {
            block.clear();
            while block.len() < left.min(1 << 20) {
                // Marsaglia's xorshift.
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                block.extend_from_slice(&self.0.to_le_bytes());
            }
            let n = block.len().min(left);
            file.write_all(&block[..n])?;
            left -= n;
        }
        Ok(())
    }
}
