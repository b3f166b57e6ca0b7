// SPDX-License-Identifier: Apache-2.0
//! What is measured: each row of the table is a call of libguestfs, with what it is to reach and, where
//! it does not, what bounds it.

use std::ffi::CStr;

use anyhow::{Result, ensure};

use super::disk::{self, DISK, EXT, Inputs};
use super::library::Guestfs;

/// One row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Calls in each session.
    pub(crate) calls: u32,
    pub(crate) target: Target,
    /// What bounds it, measured: said where the target is not reached.
    pub(crate) bound: &'static str,
    /// The call that is timed.
    pub(crate) call: fn(&Guestfs, &Inputs) -> Result<()>,
    /// Undoes it, untimed.
    pub(crate) undo: Option<fn(&Guestfs) -> Result<()>>,
    /// Bytes that a call moves or reads.
    pub(crate) bytes: Option<fn(&Inputs) -> u64>,
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Only told.
    None,
    /// At most so many milliseconds.
    Milliseconds(f64),
    /// At most so many times as long as `ping_daemon`.
    Pings(f64),
    /// So many times as fast as the distribution's.
    Times(f64),
    /// So many times as fast, with at most half of its CPU time.
    TimesAtHalf(f64),
    /// At most so many times as long as the client itself computes, with at most half of the CPU time.
    ClientsAtHalf(f64),
    /// So many times as fast where the CPU has instructions for SHA-256, else as other checksums.
    Sha256(f64),
}

/// From nothing to the first answer.
pub(crate) const LAUNCH: &str = "launch to first answer";
/// What other calls are measured by.
pub(crate) const PING: &str = "ping_daemon";
/// Checksums without instructions of their own.
pub(crate) const CHECKSUMS: f64 = 1.3;

/// What a call that only touches files is to reach.
const FILES: Target = Target::Pings(1.4);
/// What a question about a device is to reach.
const DEVICES: Target = Target::Times(20.0);

const fn row(
    name: &'static str,
    calls: u32,
    target: Target,
    call: fn(&Guestfs, &Inputs) -> Result<()>,
) -> Row {
    Row { name, calls, target, bound: "", call, undo: None, bytes: None }
}

impl Row {
    /// With what bounds it.
    const fn bound_by(self, bound: &'static str) -> Self {
        Self { bound, ..self }
    }
}

const fn question(name: &'static str, call: fn(&Guestfs, &Inputs) -> Result<()>) -> Row {
    row(name, 50, DEVICES, call)
}

const fn moving(
    name: &'static str,
    target: Target,
    bytes: fn(&Inputs) -> u64,
    call: fn(&Guestfs, &Inputs) -> Result<()>,
) -> Row {
    Row { bytes: Some(bytes), ..row(name, 3, target, call) }
}

/// All of them, in the order in which they run, after the launch.
pub(crate) const ROWS: &[Row] = &[
    row(PING, 3000, Target::None, |g, _| g.status0(g.f.ping_daemon).map(drop)),
    row("exists", 3000, FILES, |g, _| {
        ensure!(g.status1(g.f.exists, disk::SMALL)? == 1, "there is no {:?}", disk::SMALL);
        Ok(())
    })
    .bound_by(FILE_BOUND),
    row("statns", 3000, FILES, |g, _| g.struct1(g.f.statns, g.f.free_statns, disk::SMALL))
        .bound_by(FILE_BOUND),
    row("pread of 100 bytes", 3000, FILES, |g, _| g.pread(disk::SMALL, 100)).bound_by(FILE_BOUND),
    row("write of 100 bytes", 3000, FILES, |g, _| g.write(disk::SMALL, disk::HUNDRED))
        .bound_by(FILE_BOUND),
    row("cat of 100 bytes", 50, DEVICES, |g, _| g.text1(g.f.cat, disk::SMALL).map(drop)),
    question("list_devices", |g, _| some(g.list0(g.f.list_devices)?)),
    question("list_partitions", |g, _| some(g.list0(g.f.list_partitions)?)),
    question("list_filesystems", |g, _| some(g.list0(g.f.list_filesystems)?)).bound_by(
        "the kernel drops the cached pages of a partition when nobody has it open any more, so that the \
         superblocks of three of the four partitions are read from the image each time (strace -T: 0.7 to \
         2.8 ms for each).",
    ),
    question("vfs_type", |g, _| g.text1(g.f.vfs_type, EXT).map(drop)),
    question("vfs_label", |g, _| g.text1(g.f.vfs_label, EXT).map(drop)),
    question("vfs_uuid", |g, _| g.text1(g.f.vfs_uuid, EXT).map(drop)),
    question("blkid", |g, _| some(g.list1(g.f.blkid, EXT)?)),
    question("findfs_label", |g, _| g.text1(g.f.findfs_label, disk::LABEL).map(drop)),
    question("findfs_uuid", |g, _| g.text1(g.f.findfs_uuid, disk::UUID).map(drop)),
    question("part_list", |g, _| g.struct1(g.f.part_list, g.f.free_partition_list, DISK)),
    question("part_get_parttype", |g, _| g.text1(g.f.part_get_parttype, DISK).map(drop)),
    question("part_get_name", |g, _| g.numbered(g.f.part_get_name, DISK, 1)),
    question("part_to_dev", |g, _| g.text1(g.f.part_to_dev, EXT).map(drop)),
    question("part_to_partnum", |g, _| g.status1(g.f.part_to_partnum, EXT).map(drop)),
    question("blockdev_getsize64", |g, _| g.number1(g.f.blockdev_getsize64, EXT)),
    question("blockdev_getss", |g, _| g.status1(g.f.blockdev_getss, EXT).map(drop)),
    question("blockdev_getro", |g, _| g.status1(g.f.blockdev_getro, EXT).map(drop)),
    question("lvs", |g, _| none(g.list0(g.f.lvs)?)),
    question("vgs", |g, _| none(g.list0(g.f.vgs)?)),
    question("pvs", |g, _| none(g.list0(g.f.pvs)?)),
    question("list_md_devices", |g, _| none(g.list0(g.f.list_md_devices)?)).bound_by(
        "the distribution's daemon runs no program to answer this one: with both it takes little more than \
         `ping_daemon`.",
    ),
    question("btrfs_filesystem_show", |g, _| some(g.list1(g.f.btrfs_filesystem_show, disk::BTRFS)?)),
    question("btrfs_subvolume_list", |g, _| {
        g.struct1(g.f.btrfs_subvolume_list, g.f.free_btrfssubvolume_list, disk::BTRFS)
    })
    .bound_by(
        "the filesystem is not mounted: nearly all of the time the kernel mounts it and takes it down again (strace \
         -r), which the distribution's daemon waits for as well.",
    ),
    row("part_disk", 10, Target::Times(1.0), |g, _| g.status2(g.f.part_disk, disk::SPARE, c"gpt")),
    Row {
        undo: Some(|g| g.status1(g.f.rm, UPLOADED).map(drop)),
        ..moving("upload", Target::ClientsAtHalf(1.15), Inputs::big_len, |g, inputs| {
            g.status2(g.f.upload, &inputs.big, UPLOADED)
        })
        .bound_by(UPLOAD_BOUND)
    },
    moving("download", Target::ClientsAtHalf(1.15), Inputs::big_len, |g, _| {
        g.status2(g.f.download, disk::BIG, NOWHERE)
    })
    .bound_by(DOWNLOAD_BOUND),
    Row {
        undo: Some(|g| {
            g.status1(g.f.rm_rf, UNPACKED)?;
            g.status1(g.f.mkdir, UNPACKED).map(drop)
        }),
        ..moving("tar_in", Target::TimesAtHalf(1.5), Inputs::tree_len, |g, inputs| {
            g.status2(g.f.tar_in, &inputs.tree, UNPACKED)
        })
        .bound_by(TAR_IN_BOUND)
    },
    Row {
        undo: Some(|g| {
            g.status1(g.f.rm_rf, UNPACKED)?;
            g.status1(g.f.mkdir, UNPACKED).map(drop)
        }),
        ..row("tar_in of 50,000 files", 2, Target::Times(1.5), |g, inputs| {
            g.status2(g.f.tar_in, &inputs.many, UNPACKED)
        })
        .bound_by(TAR_IN_BOUND)
    },
    moving("tar_out", Target::TimesAtHalf(1.5), Inputs::tree_len, |g, _| {
        g.status2(g.f.tar_out, disk::TREE, NOWHERE)
    })
    .bound_by(TAR_OUT_BOUND),
    row("find over 50,000 entries", 5, Target::TimesAtHalf(1.5), |g, _| {
        some(g.list1(g.f.find, disk::MANY)?)
    }),
    moving("checksum sha256", Target::Sha256(4.0), Inputs::big_len, |g, _| checksum(g, c"sha256")),
    moving("checksum md5", Target::Times(CHECKSUMS), Inputs::big_len, |g, _| checksum(g, c"md5"))
        .bound_by(MD5_BOUND),
    moving("checksum crc", Target::Times(CHECKSUMS), Inputs::big_len, |g, _| checksum(g, c"crc")),
];

/// Of `strace`.
const FILE_BOUND: &str = "the kernel: beside the two system calls of ping_daemon the daemon makes three on the file \
    (openat2, one that looks at it or reads it, close; to write, four), and no others (strace).";
/// Of the daemon's samples (perf record -e cpu-clock).
const UPLOAD_BOUND: &str = "the kernel: of the daemon's CPU time 46 % is receiving from the socket, of whose \
    buffer the client fills a chunk of 8 KiB at a time, and nearly all of the rest is ext4 and the page \
    cache; the daemon's own code and the C library's are 4 % (perf).";
const DOWNLOAD_BOUND: &str = "the client, which reads each chunk of 8 KiB with two system calls, while the daemon \
    waits for room in the socket's buffer: 3 system calls for 128 KiB (perf stat).";
const TAR_IN_BOUND: &str = "the kernel: making the files, and receiving from the socket a chunk of 8 KiB at a \
    time; the daemon's own code is 4 % of its CPU time (perf).";
const TAR_OUT_BOUND: &str =
    "the client, whose own CPU time is 95 % of what it takes (the column client CPU).";
const MD5_BOUND: &str = "each step of MD5 waits for the one before, and a file cannot be split: what the compiler \
    makes of the crate md-5 computes 520 MB/s here, cksum's twin md5sum 620 MB/s, and the best that was \
    tried, steps ordered by hand, 560 MB/s; both read the same way.";
const NOWHERE: &CStr = c"/dev/null";
const UPLOADED: &CStr = c"/uploaded";
/// Is there, and empty.
pub(crate) const UNPACKED: &CStr = c"/unpacked";

fn checksum(g: &Guestfs, kind: &CStr) -> Result<()> {
    g.text2(g.f.checksum, kind, disk::BIG)
}

fn none(n: usize) -> Result<()> {
    ensure!(n == 0, "there are {n}");
    Ok(())
}

fn some(n: usize) -> Result<()> {
    ensure!(n > 0, "the list is empty");
    Ok(())
}
