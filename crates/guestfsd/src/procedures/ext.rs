// SPDX-License-Identifier: Apache-2.0
//! ext2, ext3 and ext4: checking, resizing and tuning them.

use super::change::change;
use super::mkfs::type_name;
use super::numbers::not_negative;
use crate::devices::Device;
use crate::drivers::{self, NewUuid};
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Error, Result};
use guestfs_api::options;
use rustix::fs::OFlags;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

/// Changes parameters of a filesystem.
pub(crate) fn tune2fs(s: &mut Session, device: Device, o: &options::Tune2fs<'_>) -> Result<()> {
    let mut tool = Tool::new("tune2fs");
    let mut given = false;
    if o.force == Some(true) {
        tool = tool.arg("-f");
    }
    if let Some(behavior) = o.errorbehavior {
        if !["continue", "remount-ro", "panic"].iter().any(|b| behavior == *b) {
            let why = "must be continue, remount-ro or panic";
            return Err(Error::argument("errorbehavior", behavior, why));
        }
        tool = tool.arg("-e").arg(behavior);
        given = true;
    }
    let numbers = [
        ("-c", "maxmountcount", o.maxmountcount.map(i64::from), ""),
        ("-C", "mountcount", o.mountcount.map(i64::from), ""),
        ("-g", "group", o.group, ""),
        ("-i", "intervalbetweenchecks", o.intervalbetweenchecks.map(i64::from), "s"),
        ("-m", "reservedblockspercentage", o.reservedblockspercentage.map(i64::from), ""),
        ("-r", "reservedblockscount", o.reservedblockscount, ""),
        ("-u", "user", o.user, ""),
    ];
    for (option, name, value, unit) in numbers {
        if let Some(value) = value {
            tool = tool.arg(option).arg(format!("{}{unit}", not_negative::<u64, _>(name, value)?));
            given = true;
        }
    }
    if let Some(directory) = o.lastmounteddirectory {
        tool = tool.arg("-M").arg(directory);
        given = true;
    }
    if !given {
        return Err(Error::argument("device", &device, "no parameter to change was given"));
    }
    change(s, &device, tool.arg(device.path()))
}

/// Contents of the superblock, as `tune2fs -l` names them.
pub(crate) fn tune2fs_l(_: &mut Session, device: Device) -> Result<Vec<(OsString, OsString)>> {
    let text = Tool::new("tune2fs").arg("-l").arg(device.path()).output();
    Ok(superblock_fields(&text.map_err(|e| e.within(&device))?))
}

fn superblock_fields(text: &[u8]) -> Vec<(OsString, OsString)> {
    let field = |line: &[u8]| {
        let colon = line.iter().position(|&b| b == b':')?;
        let value = line[colon + 1..].trim_ascii_start();
        let value = match value {
            b"<none>" | b"<not available>" => b"",
            value => value,
        };
        Some((OsString::from_vec(line[..colon].to_vec()), OsString::from_vec(value.to_vec())))
    };
    text.split(|&b| b == b'\n').filter_map(field).collect()
}

/// Sets the label.
pub(crate) fn set_e2label(s: &mut Session, device: Device, label: &OsStr) -> Result<()> {
    let done = drivers::ext::set_label(&device, label);
    s.udev().changed();
    done
}

/// The label.
pub(crate) fn get_e2label(_: &mut Session, device: Device) -> Result<OsString> {
    let found = crate::contents::of_device(&device)?;
    Ok(found.and_then(|c| c.label().map(OsStr::to_owned)).unwrap_or_default())
}

/// Sets the UUID: to one, or to what `clear`, `random` or `time` make.
pub(crate) fn set_e2uuid(s: &mut Session, device: Device, uuid: &OsStr) -> Result<()> {
    let done = drivers::ext::set_uuid(&device, NewUuid::To(uuid));
    s.udev().changed();
    done
}

/// The UUID.
pub(crate) fn get_e2uuid(_: &mut Session, device: Device) -> Result<OsString> {
    let found = crate::contents::of_device(&device)?;
    Ok(found.and_then(|c| c.uuid().map(OsStr::to_owned)).unwrap_or_default())
}

/// Checks a filesystem of any type; returns the exit status of `fsck`.
pub(crate) fn fsck(s: &mut Session, fstype: &OsStr, device: Device) -> Result<i32> {
    let tool = Tool::new("fsck").args(["-a", "-t", type_name(fstype)?]).explains_on_stdout();
    let output = tool.arg(device.path()).run()?;
    s.udev().changed();
    match output.code {
        -1 => Err(output.failure().within(&device)),
        status => Ok(status),
    }
}

/// Checks a filesystem, and repairs it as far as it is told to.
pub(crate) fn e2fsck(s: &mut Session, device: Device, o: &options::E2fsck) -> Result<()> {
    let modes: &[(&str, Option<bool>)] =
        &[("-p", o.correct), ("-y", o.forceall), ("-n", o.forceno)];
    let given: Vec<&str> =
        modes.iter().filter(|(_, v)| *v == Some(true)).map(|(option, _)| *option).collect();
    if given.len() > 1 {
        let why = "only one of correct and forceall may be given";
        return Err(Error::argument("correct", "true", why));
    }
    check(s, &device, &given)
}

/// Checks a filesystem even if it seems clean, and repairs what can be safely repaired.
pub(crate) fn e2fsck_f(s: &mut Session, device: Device) -> Result<()> {
    check(s, &device, &["-p"])
}

fn check(s: &mut Session, device: &Device, mode: &[&str]) -> Result<()> {
    let tool = Tool::new("e2fsck").arg("-f").args(mode).explains_on_stdout();
    let output = tool.arg(device.path()).run()?;
    s.udev().changed();
    // 1: errors have been corrected; 2: so that the machine should be rebooted, if it is its own.
    match output.code {
        0..=2 => Ok(()),
        _ => Err(output.failure().within(device)),
    }
}

/// Makes a filesystem as large as its device.
pub(crate) fn resize2fs(s: &mut Session, device: Device) -> Result<()> {
    resize(s, &device, &[], None)
}

/// Makes a filesystem as large as this many bytes.
pub(crate) fn resize2fs_size(s: &mut Session, device: Device, size: i64) -> Result<()> {
    let whole = u64::try_from(size).ok().filter(|size| *size > 0 && size.is_multiple_of(1024));
    let Some(size) = whole else {
        return Err(Error::argument(
            "size",
            size.to_string(),
            "must be a round number of kilobytes",
        ));
    };
    resize(s, &device, &[], Some(format!("{}K", size / 1024)))
}

/// Makes a filesystem as small as it can be.
pub(crate) fn resize2fs_m(s: &mut Session, device: Device) -> Result<()> {
    resize(s, &device, &["-M"], None)
}

fn resize(s: &mut Session, device: &Device, options: &[&str], size: Option<String>) -> Result<()> {
    // resize2fs wants a filesystem that is not mounted to have been checked just before.
    if device.open(OFlags::RDONLY | OFlags::EXCL).is_ok() {
        check(s, device, &["-y"])?;
    }
    let tool = Tool::new("resize2fs").args(options).explains_on_stdout();
    change(s, device, tool.arg(device.path()).args(size))
}

/// Writes zeros where no file has its data.
pub(crate) fn zerofree(s: &mut Session, device: Device) -> Result<()> {
    change(s, &device, Tool::new("zerofree").arg(device.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_superblock_have_no_placeholders_for_nothing() {
        let text = b"tune2fs 1.47.0 (5-Feb-2023)\nFilesystem volume name:   <none>\n\
            Last mounted on:          <not available>\nFilesystem flags:         a b \n\
            Filesystem created:       Sun Nov 22 10:24:11 2026\n";
        let fields = superblock_fields(text);
        let of = |name: &str| fields.iter().find(|(n, _)| n == name).unwrap().1.to_str().unwrap();
        assert_eq!((of("Filesystem volume name"), of("Last mounted on")), ("", ""));
        assert_eq!(of("Filesystem flags"), "a b ");
        assert_eq!(of("Filesystem created"), "Sun Nov 22 10:24:11 2026");
        assert_eq!(fields.len(), 4);
    }
}
