// SPDX-License-Identifier: Apache-2.0
//! Making ext2, ext3 and ext4 filesystems and their external journals, with all that mke2fs can be told.

use super::change::change;
use super::mkfs::{type_name, wipe};
use super::numbers::not_negative;
use crate::devices::Device;
use crate::drivers::ext::{TYPES, check_label};
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Error, Result};
use guestfs_api::options;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Makes an ext2, ext3 or ext4 filesystem or an external journal.
pub(crate) fn mke2fs(s: &mut Session, device: Device, o: &options::Mke2fs<'_>) -> Result<()> {
    let mut args: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: &OsStr| args.extend([name.into(), value.to_owned()]);
    let numbers = [
        ("-b", "blocksize", o.blocksize),
        ("-g", "blockspergroup", o.blockspergroup),
        ("-G", "numberofgroups", o.numberofgroups),
        ("-i", "bytesperinode", o.bytesperinode),
        ("-I", "inodesize", o.inodesize),
        ("-N", "numberofinodes", o.numberofinodes),
        ("-m", "reservedblockspercentage", o.reservedblockspercentage.map(i64::from)),
    ];
    for (name, argument, value) in numbers {
        if let Some(value) = value {
            option(name, OsStr::new(&not_negative::<u64, _>(argument, value)?.to_string()));
        }
    }
    if let Some(size) = o.fragsize.filter(|size| o.blocksize != Some(*size)) {
        let why = "fragments are as large as blocks (blocksize) in ext2/3/4 filesystems";
        return Err(Error::not_supported(format!("fragsize: {size}: {why}")));
    }
    if let Some(label) = o.label {
        check_label(label)?;
    }
    let texts = [
        ("-L", o.label),
        ("-M", o.lastmounteddir),
        ("-o", o.creatoros),
        ("-t", o.fstype),
        ("-T", o.usagetype),
        ("-U", o.uuid),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            option(name, value);
        }
    }
    let mut journal: Vec<OsString> = Vec::new();
    if let Some(size) = o.journalsize {
        journal.push(format!("size={}", not_negative::<u64, _>("journalsize", size)?).into());
    }
    if let Some(name) = o.journaldevice {
        journal.push(journal_device(s, name)?);
    }
    let list = |items: &[OsString]| items.join(OsStr::new(","));
    if !journal.is_empty() {
        option("-J", &list(&journal));
    }
    let extended = extended_options(o)?;
    if !extended.is_empty() {
        option("-E", &list(&extended));
    }
    let features = features(o);
    if !features.is_empty() {
        option("-O", &list(&features));
    }
    let superblocks_only = o.writesbandgrouponly == Some(true);
    for (flag, given) in [("-F", o.forcecreate == Some(true)), ("-S", superblocks_only)] {
        if given {
            args.push(flag.into());
        }
    }
    let blocks = o.blockscount.map(|n| not_negative::<u64, _>("blockscount", n)).transpose()?;
    if !superblocks_only {
        wipe(&device)?;
    }
    let tool = Tool::new("mke2fs").args(args).arg("--").arg(device.path());
    change(s, &device, tool.args(blocks.map(|n| n.to_string())))
}

/// What mke2fs calls extended options. It wants them as one list: of several lists, the last counts.
fn extended_options(o: &options::Mke2fs<'_>) -> Result<Vec<OsString>> {
    let mut list: Vec<OsString> = Vec::new();
    let numbers = [
        ("mmp_update_interval", "mmpupdateinterval", o.mmpupdateinterval.map(i64::from)),
        ("stride", "stridesize", o.stridesize),
        ("stripe_width", "stripewidth", o.stripewidth),
        ("resize", "maxonlineresize", o.maxonlineresize),
    ];
    for (name, argument, value) in numbers {
        if let Some(value) = value {
            list.push(format!("{name}={}", not_negative::<u64, _>(argument, value)?).into());
        }
    }
    let switches =
        [("lazy_itable_init", o.lazyitableinit), ("lazy_journal_init", o.lazyjournalinit)];
    for (name, value) in switches {
        if let Some(value) = value {
            list.push(format!("{name}={}", u8::from(value)).into());
        }
    }
    if o.testfs == Some(true) {
        list.push("test_fs".into());
    }
    if let Some(discard) = o.discard {
        list.push(if discard { "discard" } else { "nodiscard" }.into());
    }
    // With the feature quota, for users and groups.
    if o.quotatype == Some(true) {
        list.push("quotatype=usrquota:grpquota".into());
    }
    Ok(list)
}

fn features(o: &options::Mke2fs<'_>) -> Vec<OsString> {
    let all = [
        ("extent", o.extent),
        ("filetype", o.filetype),
        ("flex_bg", o.flexbg),
        ("has_journal", o.hasjournal),
        ("journal_dev", o.journaldev),
        ("large_file", o.largefile),
        ("quota", o.quota),
        ("resize_inode", o.resizeinode),
        ("sparse_super", o.sparsesuper),
        ("uninit_bg", o.uninitbg),
    ];
    let given = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
    given.map(|(name, on)| format!("{}{name}", if on { "" } else { "^" }).into()).collect()
}

/// The option for an external journal: a device, `UUID=...` or `LABEL=...`.
fn journal_device(s: &mut Session, name: &OsStr) -> Result<OsString> {
    let mut option = OsString::from("device=");
    match name.as_bytes().starts_with(b"/dev/") {
        true => option.push(s.device("journaldevice", name)?.path()),
        false => option.push(name),
    }
    Ok(option)
}

fn journal(
    s: &mut Session,
    blocksize: i32,
    id: Option<(&str, &OsStr)>,
    device: &Device,
) -> Result<()> {
    let blocksize: u64 = not_negative("blocksize", blocksize)?;
    wipe(device)?;
    let mut tool = Tool::new("mke2fs").args(["-F", "-O", "journal_dev", "-b"]);
    tool = tool.arg(blocksize.to_string());
    if let Some((option, value)) = id {
        tool = tool.arg(option).arg(value);
    }
    change(s, device, tool.arg("--").arg(device.path()))
}

/// Makes an external journal.
pub(crate) fn mke2journal(s: &mut Session, blocksize: i32, device: Device) -> Result<()> {
    journal(s, blocksize, None, &device)
}

/// Makes an external journal with a label.
pub(crate) fn mke2journal_l(
    s: &mut Session,
    blocksize: i32,
    label: &OsStr,
    device: Device,
) -> Result<()> {
    check_label(label)?;
    journal(s, blocksize, Some(("-L", label)), &device)
}

/// Makes an external journal with this UUID.
pub(crate) fn mke2journal_u(
    s: &mut Session,
    blocksize: i32,
    uuid: &OsStr,
    device: Device,
) -> Result<()> {
    journal(s, blocksize, Some(("-U", uuid)), &device)
}

fn with_journal(
    s: &mut Session,
    fstype: &OsStr,
    blocksize: i32,
    device: &Device,
    journal: OsString,
) -> Result<()> {
    if !TYPES.contains(&type_name(fstype)?) {
        return Err(Error::argument("fstype", fstype, "not an ext2, ext3 or ext4 filesystem"));
    }
    let blocksize: u64 = not_negative("blocksize", blocksize)?;
    wipe(device)?;
    let mut option = OsString::from("device=");
    option.push(journal);
    let tool = Tool::new("mke2fs").args(["-F", "-t"]).arg(fstype).arg("-J").arg(option);
    change(s, device, tool.arg("-b").arg(blocksize.to_string()).arg("--").arg(device.path()))
}

/// Makes a filesystem with its journal on another device.
pub(crate) fn mke2fs_j(
    s: &mut Session,
    fstype: &OsStr,
    blocksize: i32,
    device: Device,
    journal: Device,
) -> Result<()> {
    with_journal(s, fstype, blocksize, &device, journal.path().into())
}

/// Makes a filesystem with its journal where this label is.
pub(crate) fn mke2fs_j_l(
    s: &mut Session,
    fstype: &OsStr,
    blocksize: i32,
    device: Device,
    label: &OsStr,
) -> Result<()> {
    check_label(label)?;
    with_journal(s, fstype, blocksize, &device, tagged("LABEL=", label))
}

/// Makes a filesystem with its journal where this UUID is.
pub(crate) fn mke2fs_j_u(
    s: &mut Session,
    fstype: &OsStr,
    blocksize: i32,
    device: Device,
    uuid: &OsStr,
) -> Result<()> {
    with_journal(s, fstype, blocksize, &device, tagged("UUID=", uuid))
}

fn tagged(tag: &str, value: &OsStr) -> OsString {
    let mut out = OsString::from(tag);
    out.push(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_mke2fs_become_one_list_each() {
        let o = options::Mke2fs {
            stridesize: Some(4),
            lazyitableinit: Some(false),
            discard: Some(false),
            testfs: Some(true),
            flexbg: Some(true),
            quota: Some(false),
            ..Default::default()
        };
        assert_eq!(
            extended_options(&o).unwrap(),
            ["stride=4", "lazy_itable_init=0", "test_fs", "nodiscard"]
        );
        assert_eq!(features(&o), ["flex_bg", "^quota"]);
        let o = options::Mke2fs { stridesize: Some(-1), ..Default::default() };
        assert_eq!(
            extended_options(&o).unwrap_err().message(),
            "stridesize: -1: must not be negative"
        );
    }
}
