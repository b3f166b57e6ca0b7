//! XFS: its geometry, growing, changing and repairing it.
//!
//! `xfs_admin` and `xfs_info` are scripts, the former of which gives what it is told to a shell: what they
//! start is started here directly.

use super::ext::{change, natural, unreadable};
use super::labels::check_length;
use crate::devices::Device;
use crate::error::{Context, Error, Result};
use crate::mountable::DevOrPath;
use crate::paths::{GuestPath, proc_path};
use crate::session::Session;
use crate::tool::{Output, Tool};
use guestfs_api::{Errno, options, structs};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that a label may have.
const MAX_LABEL: usize = 12;

/// What `xfs_info` shows, by heading and name: `data.bsize`.
struct Geometry(Vec<(String, String)>);

impl Geometry {
    /// Reads lines such as `data     =     bsize=4096   blocks=81920, imaxpct=25`.
    fn parse(text: &str) -> Self {
        let mut fields = Vec::new();
        let mut heading = String::new();
        for line in text.lines() {
            let Some((name, rest)) = line.split_once('=') else { continue };
            let mut rest = rest;
            if !name.trim().is_empty() {
                heading = name.trim().to_owned();
                // What the heading itself is, ends where the first field begins.
                let end = rest.split_once('=').map_or(rest.len(), |(before, _)| {
                    before.trim_end().rfind(char::is_whitespace).unwrap_or(0)
                });
                fields.push((heading.clone(), rest[..end].trim().to_owned()));
                rest = &rest[end..];
            }
            let mut words = rest.split([' ', ',', '\t']).filter(|w| !w.is_empty()).peekable();
            while let Some(word) = words.next() {
                let Some((name, value)) = word.split_once('=') else { continue };
                let mut value = value.to_owned();
                if let Some(unit) = words.next_if(|w| !w.contains('=')) {
                    value.push(' ');
                    value.push_str(unit);
                }
                fields.push((format!("{heading}.{name}"), value));
            }
        }
        Self(fields)
    }

    /// The kernel's name of the device is for the client another.
    fn with_device(mut self, s: &mut Session) -> Self {
        for (name, value) in &mut self.0 {
            if name == "meta-data" {
                *value = s.client_name(Path::new(value)).to_string_lossy().into_owned();
            }
        }
        self
    }
}

fn geometry(s: &mut Session, of: &DevOrPath<'_>) -> Result<Geometry> {
    let output = match of {
        DevOrPath::Device(device) => {
            // What is on the disk of a mounted filesystem is not what it is now.
            match mounted_at(s, device)? {
                Some(at) => info("xfs_spaceman", &[], &at)?,
                None => info("xfs_db", &["-r"], device.path())?,
            }
        }
        DevOrPath::Path(path) => {
            let at = s.open(*path, OFlags::PATH)?;
            let is_dir =
                rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&at).on(path)?.st_mode)
                    .is_dir();
            let file = proc_path(at.as_fd());
            match is_dir {
                true => info("xfs_spaceman", &[], &crate::paths::path_of(&at).on(path)?)?,
                // An image in the guest.
                false => info("xfs_db", &["-r", "-f"], &file)?,
            }
        }
    };
    let output = output.success().map_err(|e| e.within(of))?;
    let geometry = Geometry::parse(&output.text());
    if geometry.0.is_empty() {
        return Err(Error::new(Errno::EINVAL, "not an XFS filesystem").within(of));
    }
    Ok(geometry.with_device(s))
}

fn info(program: &str, options: &[&str], what: &Path) -> Result<Output> {
    let tool = Tool::new(program).args(options).args(["-p", "xfs_info", "-c", "info"]);
    tool.arg(what).run()
}

/// Where the sysroot has this device mounted.
fn mounted_at(s: &Session, device: &Device) -> Result<Option<std::path::PathBuf>> {
    let all = crate::mounts::below(s.sysroot())?;
    Ok(all.into_iter().rfind(|m| Path::new(&m.source) == device.path()).map(|m| m.at))
}

/// Geometry of a filesystem.
pub(crate) fn xfs_info(s: &mut Session, pathordevice: DevOrPath<'_>) -> Result<structs::Xfsinfo> {
    let Geometry(fields) = geometry(s, &pathordevice)?;
    let fields: HashMap<&str, &str> =
        fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    // What is missing is -1, or empty.
    let number = |name: &str| -> Option<u64> {
        let value = fields.get(name)?;
        value.trim_start_matches("version ").split(' ').next()?.parse().ok()
    };
    let small = |name: &str| number(name).and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX);
    let large = |name: &str| number(name).unwrap_or(u64::MAX);
    let text = |name: &str| {
        let value = fields.get(name).copied().unwrap_or_default();
        OsString::from(value)
    };
    let first = |name: &str| {
        let value = fields.get(name).copied().unwrap_or_default();
        OsString::from(value.split(' ').next().unwrap_or_default())
    };
    Ok(structs::Xfsinfo {
        xfs_mntpoint: text("meta-data"),
        xfs_inodesize: small("meta-data.isize"),
        xfs_agcount: small("meta-data.agcount"),
        xfs_agsize: small("meta-data.agsize"),
        xfs_sectsize: small("meta-data.sectsz"),
        xfs_attr: small("meta-data.attr"),
        xfs_blocksize: small("data.bsize"),
        xfs_datablocks: large("data.blocks"),
        xfs_imaxpct: small("data.imaxpct"),
        xfs_sunit: small("data.sunit"),
        xfs_swidth: small("data.swidth"),
        xfs_dirversion: small("naming"),
        xfs_dirblocksize: small("naming.bsize"),
        xfs_cimode: small("naming.ascii-ci"),
        xfs_logname: first("log"),
        xfs_logblocksize: small("log.bsize"),
        xfs_logblocks: small("log.blocks"),
        xfs_logversion: small("log.version"),
        xfs_logsectsize: small("log.sectsz"),
        xfs_logsunit: small("log.sunit"),
        xfs_lazycount: small("log.lazy-count"),
        xfs_rtname: text("realtime"),
        xfs_rtextsize: small("realtime.extsz"),
        xfs_rtblocks: large("realtime.blocks"),
        xfs_rtextents: large("realtime.rtextents"),
    })
}

/// Geometry of a filesystem, by the names that `xfs_info` has for it: `data.bsize`.
pub(crate) fn xfs_info2(
    s: &mut Session,
    pathordevice: DevOrPath<'_>,
) -> Result<Vec<(String, String)>> {
    Ok(geometry(s, &pathordevice)?.0)
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
    let Geometry(fields) = geometry(s, &DevOrPath::Device(device.clone()))?;
    let number = |name: &str| {
        let (_, value) = fields.iter().find(|(n, _)| n == name)?;
        value.parse::<i64>().ok()
    };
    number("data.bsize")
        .zip(number("data.blocks"))
        .and_then(|(size, blocks)| size.checked_mul(blocks))
        .ok_or_else(|| unreadable("xfs_info", device))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "\
meta-data=/dev/sdb               isize=512    agcount=4, agsize=20480 blks
         =                       sectsz=512   attr=2, projid32bit=1
data     =                       bsize=4096   blocks=81920, imaxpct=25
         =                       sunit=0      swidth=0 blks
naming   =version 2              bsize=4096   ascii-ci=0, ftype=1
log      =internal log           bsize=4096   blocks=16384, version=2
         =                       sectsz=512   sunit=0 blks, lazy-count=1
realtime =none                   extsz=4096   blocks=0, rtextents=0
";

    #[test]
    fn what_xfs_info_shows_is_read_by_heading_and_name() {
        let Geometry(fields) = Geometry::parse(INFO);
        let of = |name: &str| fields.iter().find(|(n, _)| n == name).unwrap().1.as_str();
        assert_eq!(of("meta-data"), "/dev/sdb");
        assert_eq!(of("meta-data.agsize"), "20480 blks");
        assert_eq!(of("meta-data.attr"), "2");
        assert_eq!((of("data"), of("data.imaxpct"), of("data.swidth")), ("", "25", "0 blks"));
        assert_eq!((of("naming"), of("naming.ftype")), ("version 2", "1"));
        assert_eq!(
            (of("log"), of("log.sunit"), of("log.lazy-count")),
            ("internal log", "0 blks", "1")
        );
        assert_eq!((of("realtime"), of("realtime.extsz")), ("none", "4096"));
    }

    #[test]
    fn nonsense_is_no_geometry_and_no_panic() {
        for text in ["", "=", "a=", "=b=", "x =y z= =", "\n\n=\n", "é=é é=é"] {
            Geometry::parse(text);
        }
    }

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
