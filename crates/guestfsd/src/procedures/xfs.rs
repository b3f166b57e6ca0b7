// SPDX-License-Identifier: Apache-2.0
//! XFS: its geometry, growing, changing and repairing it.
//!
//! `xfs_admin` and `xfs_info` are scripts, the former of which gives what it is told to a shell: what they
//! start is started here directly.

use super::change::change;
use super::numbers::not_negative;
use crate::devices::Device;
use crate::drivers::xfs::{done, expert, label_command, uuid_command};
use crate::drivers::xfs_geometry::geometry;
use crate::mountable::DevOrPath;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Result};
use guest_fs::paths::GuestPath;
use guestfs_api::{options, structs};
use rustix::fs::OFlags;
use std::ffi::OsString;

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
            tool = tool.arg(option).arg(not_negative::<u64, _>(name, value)?.to_string());
        }
    }
    let at = s.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
    // It looks for the path among those of what is mounted.
    let mountpoint = guest_fs::paths::path_of(&at).on(path)?;
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
        tool = tool.arg("-m").arg(not_negative::<u64, _>("maxmem", megabytes)?.to_string());
    }
    let numbers = [
        ("ihash", "ihashsize", o.ihashsize),
        ("bhash", "bhashsize", o.bhashsize),
        ("ag_stride", "agstride", o.agstride),
    ];
    for (option, name, value) in numbers {
        if let Some(value) = value {
            tool = tool.arg("-o").arg(format!("{option}={}", not_negative::<u64, _>(name, value)?));
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
            tool.arg("-f").file(&image, path).run()?
        }
    };
    s.udev().changed();
    match output.code {
        -1 => Err(output.failure().within(&device)),
        status => Ok(status),
    }
}

/// Geometry of a filesystem.
pub(crate) fn xfs_info(s: &mut Session, pathordevice: DevOrPath<'_>) -> Result<structs::Xfsinfo> {
    let all = geometry(s, &pathordevice)?;
    // As documented: what is missing is -1, or an empty text.
    let text = |name: &str| all.get(name).unwrap_or_default();
    let number = |name: &str| all.number(name).unwrap_or(u32::MAX);
    let large = |name: &str| all.number(name).unwrap_or(u64::MAX);
    let naming = all.get("naming").and_then(|value| value.strip_prefix("version "));
    Ok(structs::Xfsinfo {
        xfs_mntpoint: text("meta-data").into(),
        xfs_inodesize: number("meta-data.isize"),
        xfs_agcount: number("meta-data.agcount"),
        xfs_agsize: number("meta-data.agsize"),
        xfs_sectsize: number("meta-data.sectsz"),
        xfs_attr: number("meta-data.attr"),
        xfs_blocksize: number("data.bsize"),
        xfs_datablocks: large("data.blocks"),
        xfs_imaxpct: number("data.imaxpct"),
        xfs_sunit: number("data.sunit"),
        xfs_swidth: number("data.swidth"),
        xfs_dirversion: naming.and_then(|version| version.parse().ok()).unwrap_or(u32::MAX),
        xfs_dirblocksize: number("naming.bsize"),
        xfs_cimode: number("naming.ascii-ci"),
        // "internal log", or a device.
        xfs_logname: text("log").trim_end_matches(" log").into(),
        xfs_logblocksize: number("log.bsize"),
        xfs_logblocks: number("log.blocks"),
        xfs_logversion: number("log.version"),
        xfs_logsectsize: number("log.sectsz"),
        xfs_logsunit: number("log.sunit"),
        xfs_lazycount: number("log.lazy-count"),
        xfs_rtname: text("realtime").into(),
        xfs_rtextsize: number("realtime.extsz"),
        xfs_rtblocks: large("realtime.blocks"),
        xfs_rtextents: large("realtime.rtextents"),
    })
}

/// The same, with all that this version of xfs_info shows.
pub(crate) fn xfs_info2(
    s: &mut Session,
    pathordevice: DevOrPath<'_>,
) -> Result<Vec<(String, String)>> {
    Ok(geometry(s, &pathordevice)?.0)
}
