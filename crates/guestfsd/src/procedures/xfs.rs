// SPDX-License-Identifier: Apache-2.0
//! XFS: its geometry, growing, changing and repairing it.
//!
//! `xfs_admin` and `xfs_info` are scripts, the former of which gives what it is told to a shell: what they
//! start is started here directly.

mod geometry;

pub(crate) use geometry::{xfs_info, xfs_info2};

use super::ext::{change, natural, unreadable};
use super::labels::check_length;
use crate::devices::Device;
use crate::error::{Context, Error, Result};
use crate::mountable::DevOrPath;
use crate::paths::{GuestPath, proc_path};
use crate::session::Session;
use crate::tool::{Output, Tool};
use guestfs_api::{Errno, options};
use rustix::fs::OFlags;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that a label may have.
const MAX_LABEL: usize = 12;

/// Where the sysroot has this device mounted.
fn mounted_at(s: &Session, device: &Device) -> Result<Option<std::path::PathBuf>> {
    let all = crate::mounts::below(s.sysroot())?;
    Ok(all.into_iter().rfind(|m| Path::new(&m.source) == device.path()).map(|m| m.at))
}

/// Makes a mounted filesystem larger.
pub(crate) fn xfs_growfs(
    s: &mut Session,
    path: GuestPath<'_>,
    o: &options::XfsGrowfs,
) -> Result<()> {
    let mut tool = Tool::new("xfs_growfs");
    for (option, given) in [("-d", o.datasec), ("-l", o.logsec), ("-r", o.rtsec)] {
        if given == Some(true) {
            tool = tool.arg(option);
        }
    }
    let numbers = [
        ("-D", "datasize", o.datasize),
        ("-L", "logsize", o.logsize),
        ("-R", "rtsize", o.rtsize),
        ("-e", "rtextsize", o.rtextsize),
        ("-m", "maxpct", o.maxpct.map(i64::from)),
    ];
    for (option, name, value) in numbers {
        if let Some(value) = value {
            tool = tool.arg(option).arg(natural(name, value)?.to_string());
        }
    }
    let at = s.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
    // It looks for the path among those of what is mounted.
    let mountpoint = crate::paths::path_of(&at).on(path)?;
    tool.arg(mountpoint).ok().map_err(|e| e.within(path))
}

/// Changes parameters of a filesystem that is not mounted.
pub(crate) fn xfs_admin(s: &mut Session, device: Device, o: &options::XfsAdmin<'_>) -> Result<()> {
    let mut commands: Vec<OsString> = Vec::new();
    let versions = [("extflg", o.extunwritten), ("log2", o.v2log), ("projid32bit", o.projid32bit)];
    for (name, given) in versions {
        if given == Some(true) {
            commands.push(format!("version {name}").into());
        }
    }
    // Of these it says whether it has done it in its output only.
    let mut expected = Vec::new();
    if let Some(label) = o.label {
        commands.push(label_command(label)?);
        expected.push("new label =");
    }
    if let Some(uuid) = o.uuid {
        commands.push(uuid_command(uuid)?);
        expected.push("UUID");
    }
    if !commands.is_empty() {
        let file = (o.imgfile == Some(true)).then_some("-f");
        let mut tool = expert().args(file);
        for command in commands {
            tool = tool.arg("-c").arg(command);
        }
        let output = tool.arg(device.path()).run();
        s.udev().changed();
        done(output?, &expected).map_err(|e| e.within(&device))?;
    }
    if let Some(lazy) = o.lazycounter {
        let tool = Tool::new("xfs_repair").arg("-c");
        let tool = tool.arg(format!("lazycount={}", u8::from(lazy))).arg(device.path());
        change(s, &device, tool)?;
    }
    Ok(())
}

/// `xfs_db`, as `xfs_admin` starts it.
fn expert() -> Tool {
    Tool::new("xfs_db").args(["-x", "-p", "xfs_admin"])
}

fn done(output: Output, expected: &[&str]) -> Result<()> {
    let output = output.success()?;
    let text = output.text();
    if expected.iter().all(|e| text.contains(e)) {
        return Ok(());
    }
    let said = format!("{}{}", text, output.stderr);
    Err(Error::new(Errno::EINVAL, said.trim()))
}

/// `xfs_db` has no way to quote.
fn label_command(label: &OsStr) -> Result<OsString> {
    check_length("label", label, MAX_LABEL, "xfs")?;
    if label.is_empty() {
        return Ok("label --".into());
    }
    let fits = |b: &u8| (b.is_ascii_graphic() || *b >= 0x80) && !b"\"'\\;".contains(b);
    if !label.as_bytes().iter().all(fits) {
        let why = "spaces, quotes and backslashes cannot be set in xfs labels";
        return Err(Error::argument("label", label, why));
    }
    let mut command = OsString::from("label ");
    command.push(label);
    Ok(command)
}

/// A UUID, or what xfs_admin(8) has instead: `generate`, `nil`, `restore`, `rewrite`.
fn uuid_command(uuid: &OsStr) -> Result<OsString> {
    if ["generate", "nil", "restore", "rewrite"].iter().all(|word| uuid != *word) {
        super::labels::check_uuid(uuid)?;
    }
    let mut command = OsString::from("uuid ");
    command.push(uuid);
    Ok(command)
}

/// Sets the label.
pub(super) fn change_label(device: &Device, label: &OsStr) -> Result<()> {
    let output = expert().arg("-c").arg(label_command(label)?).arg(device.path()).run()?;
    done(output, &["new label ="]).map_err(|e| e.within(device))
}

/// Sets the UUID.
pub(super) fn change_uuid(device: &Device, uuid: &OsStr) -> Result<()> {
    let output = expert().arg("-c").arg(uuid_command(uuid)?).arg(device.path()).run()?;
    done(output, &["UUID"]).map_err(|e| e.within(device))
}

/// Repairs a filesystem: the exit status is 1 if it was corrupt.
pub(crate) fn xfs_repair(
    s: &mut Session,
    device: DevOrPath<'_>,
    o: &options::XfsRepair<'_>,
) -> Result<i32> {
    let mut tool = Tool::new("xfs_repair");
    let switches = [("-L", o.forcelogzero), ("-n", o.nomodify), ("-P", o.noprefetch)];
    for (option, given) in switches {
        if given == Some(true) {
            tool = tool.arg(option);
        }
    }
    if o.forcegeometry == Some(true) {
        tool = tool.args(["-o", "force_geometry"]);
    }
    if let Some(megabytes) = o.maxmem {
        tool = tool.arg("-m").arg(natural("maxmem", megabytes)?.to_string());
    }
    let numbers = [
        ("ihash", "ihashsize", o.ihashsize),
        ("bhash", "bhashsize", o.bhashsize),
        ("ag_stride", "agstride", o.agstride),
    ];
    for (option, name, value) in numbers {
        if let Some(value) = value {
            tool = tool.arg("-o").arg(format!("{option}={}", natural(name, value)?));
        }
    }
    for (option, name, value) in [("-l", "logdev", o.logdev), ("-r", "rtdev", o.rtdev)] {
        if let Some(value) = value {
            tool = tool.arg(option).arg(s.device(name, value)?.path());
        }
    }
    let output = match &device {
        DevOrPath::Device(device) => tool.arg(device.path()).run()?,
        DevOrPath::Path(path) => {
            let image = s.open(*path, OFlags::PATH)?;
            tool.arg("-f").arg(proc_path(image.as_fd())).run()?
        }
    };
    s.udev().changed();
    match output.code {
        -1 => Err(output.failure().within(&device)),
        status => Ok(status),
    }
}

/// The size in bytes that a filesystem can be made smaller to: XFS cannot be made smaller.
pub(super) fn minimum_size(s: &mut Session, device: &Device) -> Result<i64> {
    let all = geometry::geometry(s, &DevOrPath::Device(device.clone()))?;
    all.number::<i64>("data.bsize")
        .zip(all.number("data.blocks"))
        .and_then(|(size, blocks)| size.checked_mul(blocks))
        .ok_or_else(|| unreadable("xfs_info", device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_another_command_is_no_label() {
        assert_eq!(label_command(OsStr::new("root")).unwrap(), "label root");
        assert_eq!(label_command(OsStr::new("")).unwrap(), "label --");
        for bad in ["a b", "a\"b", "a'b", "a;b", "a\nb", "1234567890123"] {
            assert!(label_command(OsStr::new(bad)).is_err(), "{bad}");
        }
        assert!(uuid_command(OsStr::new("generate")).is_ok());
        assert!(uuid_command(OsStr::new("xx")).is_err());
    }
}
