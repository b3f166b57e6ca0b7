// SPDX-License-Identifier: Apache-2.0
//! Making filesystems of any type: `mkfs.TYPE` with what the type calls its options.

use crate::devices::Device;
use crate::drivers::{self, Block, Maker};
use crate::session::Session;
use crate::tool::{self, Tool};
use guest_error::{Context, Error, Result};
use guestfs_api::options;
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Makes a filesystem.
pub(crate) fn mkfs(
    s: &mut Session,
    fstype: &OsStr,
    device: Device,
    options: &options::Mkfs<'_>,
) -> Result<()> {
    let made = make(fstype, &device, options);
    s.udev().changed();
    made
}

/// Makes a filesystem with blocks of this size.
pub(crate) fn mkfs_b(
    s: &mut Session,
    fstype: &OsStr,
    blocksize: i32,
    device: Device,
) -> Result<()> {
    let options = options::Mkfs { blocksize: Some(blocksize), ..options::Mkfs::default() };
    mkfs(s, fstype, device, &options)
}

fn make(fstype: &OsStr, device: &Device, options: &options::Mkfs<'_>) -> Result<()> {
    let name = type_name(fstype)?;
    let maker = drivers::of(name).map_or(&Maker::USUAL, |driver| &driver.maker);
    let (program, mut args) = match maker.program {
        Some(program) => (program.to_owned(), vec!["-t".to_owned(), name.to_owned()]),
        None => (format!("mkfs.{name}"), Vec::new()),
    };
    args.extend(maker.always.iter().map(|&a| a.to_owned()));
    if let Some(size) = options.blocksize {
        let size = u32::try_from(size).ok().filter(|size| size.is_power_of_two());
        let size =
            size.ok_or_else(|| wrong("blocksize", options.blocksize, "must be a power of 2"))?;
        match maker.block {
            Block::Bytes(option) => args.extend([option.to_owned(), size.to_string()]),
            Block::Named => args.extend(["-b".to_owned(), format!("size={size}")]),
            Block::Sectors => {
                let sectors = size / sector_size(device)?;
                if !(1..=128).contains(&sectors) {
                    let why = "must be from 1 to 128 sectors";
                    return Err(wrong("blocksize", options.blocksize, why));
                }
                args.extend(["-s".to_owned(), sectors.to_string()]);
            }
            Block::No(why) => return Err(wrong("blocksize", options.blocksize, why)),
        }
    }
    if let Some(size) = options.inode {
        let option = maker.inode.ok_or_else(|| {
            wrong("inode", options.inode, "can only be set on ext2/3/4 filesystems")
        })?;
        args.extend([option.to_owned(), positive("inode", size)?]);
    }
    if let Some(size) = options.sectorsize {
        let option = maker.sector.ok_or_else(|| {
            wrong("sectorsize", options.sectorsize, "can only be set on ufs filesystems")
        })?;
        args.extend([option.to_owned(), positive("sectorsize", size)?]);
    }
    let mut tool = Tool::new(&program).args(args).explains_on_stdout();
    if let Some(features) = options.features {
        if !maker.features {
            let why = "features cannot be set on gfs filesystems";
            return Err(Error::argument("features", features, why));
        }
        tool = tool.arg("-O").arg(features);
    }
    if let Some(label) = options.label {
        let option = maker.label.ok_or_else(|| {
            Error::argument("label", label, &format!("not when {name} filesystems are made"))
        })?;
        (maker.check_label)(label)?;
        tool = tool.arg(option).arg(label);
    }
    if tool::find(&program).is_none() {
        let why = format!("fstype: {name}: there is no program {program}");
        return Err(Error::not_supported(why));
    }
    if maker.fake_mbr && has_fake_mbr(&program) {
        tool = tool.arg("--mbr=n");
    }
    wipe(device)?;
    tool.arg(device.path()).ok().map_err(|e| e.within(device))
}

/// Removes signatures of what was on a device: with two of them it would be unclear which one is right.
pub(super) fn wipe(device: &Device) -> Result<()> {
    if tool::find("wipefs").is_none() {
        return Ok(());
    }
    let tool = Tool::new("wipefs").args(["-q", "-a", "--force", "--"]);
    tool.arg(device.path()).ok().map_err(|e| e.within(device))
}

/// A type's name as it may be part of that of a program.
pub(super) fn type_name(fstype: &OsStr) -> Result<&str> {
    let name = fstype.to_str().filter(|name| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-+.".contains(&c))
    });
    name.ok_or_else(|| Error::argument("fstype", fstype, "not the name of a filesystem type"))
}

/// Whether this mkfs.fat writes a partition table of its own unless told not to (since dosfstools 4.2).
fn has_fake_mbr(program: &str) -> bool {
    let usage = Tool::new(program).arg("--help").run();
    usage.is_ok_and(|o| o.text().contains("--mbr") || o.stderr.contains("--mbr"))
}

fn sector_size(device: &Device) -> Result<u32> {
    let file = device.open(OFlags::RDONLY)?;
    rustix::fs::ioctl_blksszget(&file).on(device)
}

fn positive(name: &str, value: i32) -> Result<String> {
    if value > 0 {
        return Ok(value.to_string());
    }
    Err(wrong(name, Some(value), "must be larger than zero"))
}

fn wrong(name: &str, value: Option<i32>, why: &str) -> Error {
    let value = value.unwrap_or_default().to_string();
    Error::argument(name, OsStr::from_bytes(value.as_bytes()), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_types_name_is_no_path_and_no_option() {
        for good in ["ext4", "hfs+", "nilfs2", "fuse.ntfs-3g"] {
            assert_eq!(type_name(OsStr::new(good)).unwrap(), good);
        }
        for bad in ["", "-t", "../x", "a/b", ".x", "a b", "ä"] {
            assert!(type_name(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
