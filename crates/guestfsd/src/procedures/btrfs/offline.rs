// SPDX-License-Identifier: Apache-2.0
//! What is done to a filesystem that is not mounted: made, tuned, checked, rescued, copied.

use super::target::btrfs;
use crate::devices::Device;
use crate::procedures::change::change;
use crate::procedures::mkfs::wipe;
use crate::procedures::numbers::not_negative;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Error, Result, from_io};
use guest_fs::paths::GuestPath;
use guestfs_api::options;
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};

/// Ways to spread data or metadata.
const PROFILES: &[&str] =
    &["raid0", "raid1", "raid1c3", "raid1c4", "raid5", "raid6", "raid10", "dup", "single"];

/// Makes a filesystem on some devices.
pub(crate) fn mkfs_btrfs(
    s: &mut Session,
    devices: &[Device],
    o: &options::MkfsBtrfs<'_>,
) -> Result<()> {
    if devices.is_empty() {
        return Err(Error::argument("devices", "", "the list must hold at least one device"));
    }
    let mut tool = Tool::new("mkfs.btrfs").arg("-f");
    // `allocstart` has no meaning any more: the program has no such option.
    if let Some(bytes) = o.bytecount {
        let bytes = u64::try_from(bytes).ok().filter(|&bytes| bytes > 0);
        let bytes =
            bytes.ok_or_else(|| wrong("bytecount", o.bytecount, "must be larger than 0"))?;
        tool = tool.arg("--byte-count").arg(bytes.to_string());
    }
    for (option, name, value) in [("-d", "datatype", o.datatype), ("-m", "metadata", o.metadata)] {
        if let Some(value) = value {
            let known = PROFILES.iter().find(|profile| value == **profile);
            let known = known.ok_or_else(|| Error::argument(name, value, "not a profile"))?;
            tool = tool.arg(option).arg(known);
        }
    }
    if let Some(label) = o.label {
        tool = tool.arg("-L").arg(label);
    }
    tool = tool.args(sizes(o)?);
    // What is wiped is not looked at again; that a device is in use has to be found before any is.
    for device in devices {
        drop(device.open(OFlags::RDONLY | OFlags::EXCL)?);
    }
    for device in devices {
        wipe(device)?;
    }
    let done = tool.arg("--").args(devices.iter().map(Device::path)).ok();
    s.udev().changed();
    done.map_err(|e| e.within(&devices[0]))
}

/// The size of nodes, which is that of leaves as well, and of sectors: the options for those that are given.
fn sizes(o: &options::MkfsBtrfs<'_>) -> Result<Vec<String>> {
    let mut args = Vec::new();
    for (name, size) in
        [("leafsize", o.leafsize), ("nodesize", o.nodesize), ("sectorsize", o.sectorsize)]
    {
        let is_right = |size: i32| u32::try_from(size).is_ok_and(u32::is_power_of_two);
        if !size.is_none_or(is_right) {
            return Err(wrong(name, size, "must be a power of 2"));
        }
    }
    if o.leafsize.is_some() && o.nodesize.is_some_and(|size| o.leafsize != Some(size)) {
        return Err(wrong("leafsize", o.leafsize, "must be that of nodes"));
    }
    for (option, size) in [("-n", o.nodesize.or(o.leafsize)), ("-s", o.sectorsize)] {
        if let Some(size) = size {
            args.extend([option.to_owned(), size.to_string()]);
        }
    }
    Ok(args)
}

fn wrong(name: &str, value: Option<impl ToString>, why: &str) -> Error {
    Error::argument(name, value.map(|v| v.to_string()).unwrap_or_default(), why)
}

/// Makes a filesystem one that others can be begun from, which can only be read; or ends that.
pub(crate) fn btrfs_set_seeding(s: &mut Session, device: Device, seeding: bool) -> Result<()> {
    tune(s, &device, &["-f", "-S", if seeding { "1" } else { "0" }])
}

/// The same.
pub(crate) fn btrfstune_seeding(s: &mut Session, device: Device, seeding: bool) -> Result<()> {
    btrfs_set_seeding(s, device, seeding)
}

/// Has a file have more hard links in a directory.
pub(crate) fn btrfstune_enable_extended_inode_refs(s: &mut Session, device: Device) -> Result<()> {
    tune(s, &device, &["-r"])
}

/// Has metadata take less room.
pub(crate) fn btrfstune_enable_skinny_metadata_extent_refs(
    s: &mut Session,
    device: Device,
) -> Result<()> {
    tune(s, &device, &["-x"])
}

fn tune(s: &mut Session, device: &Device, options: &[&str]) -> Result<()> {
    change(s, device, Tool::new("btrfstune").args(options).arg("--").arg(device.path()))
}

/// Checks a filesystem, and repairs it if told to.
pub(crate) fn btrfs_fsck(s: &mut Session, device: Device, o: &options::BtrfsFsck) -> Result<()> {
    let mut tool = btrfs(&["check"]);
    if let Some(copy) = o.superblock {
        tool = tool.arg("--super").arg(not_negative::<u64, _>("superblock", copy)?.to_string());
    }
    if o.repair == Some(true) {
        // Without --force it waits for ten seconds whether somebody ends it. What --force does not look at,
        // whether it is mounted, is looked at here.
        drop(device.open(OFlags::RDONLY | OFlags::EXCL)?);
        tool = tool.args(["--repair", "--force"]);
    }
    change(s, &device, tool.arg("--").arg(device.path()))
}

/// Finds out again where what is, by reading all of the devices.
pub(crate) fn btrfs_rescue_chunk_recover(s: &mut Session, device: Device) -> Result<()> {
    change(s, &device, rescue("chunk-recover").arg(device.path()))
}

/// Writes bad superblocks anew from good copies.
pub(crate) fn btrfs_rescue_super_recover(s: &mut Session, device: Device) -> Result<()> {
    let output = rescue("super-recover").arg(device.path()).run()?;
    s.udev().changed();
    match output.code {
        // 2: some were bad, and have been recovered.
        0 | 2 => Ok(()),
        _ => Err(output.failure().within(device)),
    }
}

fn rescue(what: &str) -> Tool {
    btrfs(&["rescue", what, "-y", "--"])
}

/// Writes a copy of the metadata, without data, to a file.
pub(crate) fn btrfs_image(
    s: &mut Session,
    source: &[Device],
    image: GuestPath<'_>,
    o: &options::BtrfsImage,
) -> Result<()> {
    // One is enough for a filesystem on several: the program finds the others.
    let [source] = source else {
        let first = source.first().map_or(OsStr::new(""), AsRef::as_ref);
        return Err(Error::argument("source", first, "must be one device"));
    };
    let mut tool = Tool::new("btrfs-image");
    if let Some(level) = o.compresslevel {
        if !(0..=9).contains(&level) {
            let why = "must be from 0 to 9";
            return Err(Error::argument("compresslevel", level.to_string(), why));
        }
        tool = tool.arg("-c").arg(level.to_string());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let mut file = None;
    let tool = tool.arg("--").arg(source.path()).arg("-");
    let output = tool.stream(&mut io::empty(), &mut |piece| {
        // Not before there is something to write: what is no filesystem leaves no file.
        let file: &mut File = match &mut file {
            Some(file) => file,
            none => none.insert(s.open(image, flags)?),
        };
        file.write_all(piece).map_err(|e| from_io(e, image))
    })?;
    output.success().map_err(|e| e.within(source)).map(drop)
}
