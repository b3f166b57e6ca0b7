// SPDX-License-Identifier: Apache-2.0
//! The geometry of an XFS, as xfs_info(8) shows it:
//!
//! ```text
//! meta-data=/dev/sda               isize=512    agcount=4, agsize=25600 blks
//!          =                       sectsz=512   attr=2, projid32bit=1
//! log      =internal log           bsize=4096   blocks=16384, version=2
//! ```
//!
//! A line belongs to the heading before its first `=`, or to that of the line above. Then comes what
//! the heading itself is, if anything, and at the end fields that have numbers, with or without
//! a unit. Here a field is named by its heading and its name, `log.bsize`.

use super::driver::unreadable;
use crate::devices::Device;
use crate::mountable::DevOrPath;
use crate::mounts;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result};
use rustix::fs::OFlags;
use std::path::{Path, PathBuf};

/// Headings and fields, in the order in which they are shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Geometry(pub(crate) Vec<(String, String)>);

impl Geometry {
    /// Reads what xfs_info prints.
    fn parse(text: &str) -> Self {
        let mut all = Vec::new();
        let mut heading = "";
        for line in text.lines() {
            let Some((before, after)) = line.split_once('=') else { continue };
            let starts = !before.trim().is_empty();
            if starts {
                heading = before.trim();
            }
            let (value, fields) = split_fields(after);
            if starts && !value.is_empty() {
                all.push((heading.to_owned(), value.to_owned()));
            }
            for (name, number) in fields {
                all.push((format!("{heading}.{name}"), number.to_owned()));
            }
        }
        Self(all)
    }

    /// What a heading or field says; its first, should there be several.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A field's number.
    pub(crate) fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        self.get(name)?.parse().ok()
    }
}

/// Separates the heading from the fields after it: these are found from the end, because a device's
/// name may look like anything.
fn split_fields(rest: &str) -> (&str, Vec<(&str, &str)>) {
    let mut fields = Vec::new();
    let mut left = rest.trim();
    loop {
        let without_unit = left.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        // A unit is a word of its own, after a field.
        let candidate = if without_unit.ends_with(' ') { without_unit.trim_end() } else { left };
        let start = candidate.rfind([' ', '\t']).map_or(0, |at| at + 1);
        let Some(field) = field(&candidate[start..]) else { break };
        fields.push(field);
        left = candidate[..start].trim_end_matches([' ', '\t', ',']);
    }
    fields.reverse();
    (left, fields)
}

/// Name and number of a field.
fn field(word: &str) -> Option<(&str, &str)> {
    let (name, number) = word.split_once('=')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let good = !name.is_empty() && name.chars().all(plain);
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (good && digits).then_some((name, number))
}

/// Asks the kernel where the filesystem is mounted, which knows best, and else the program that
/// reads the superblock.
pub(crate) fn geometry(s: &mut Session, of: &DevOrPath<'_>) -> Result<Geometry> {
    let output = match of {
        DevOrPath::Path(path) => {
            let dir = s.open(*path, OFlags::PATH)?;
            let at = guest_fs::paths::path_of(&dir).on(path)?;
            ask("xfs_spaceman", &[], &at)
        }
        DevOrPath::Device(device) => match mounted_at(s, device)? {
            Some(at) => ask("xfs_spaceman", &[], &at),
            // Without -f it would take a device for a file.
            None => ask("xfs_db", &["-r"], device.path()),
        },
    };
    let text = output.map_err(|e| e.within(of))?;
    let Geometry(mut all) = Geometry::parse(&text);
    if all.is_empty() {
        return Err(match of {
            DevOrPath::Path(_) => Error::new(Errno::EINVAL, "no XFS is mounted there").within(of),
            DevOrPath::Device(_) => unreadable("xfs_info", of),
        });
    }
    for (_, value) in &mut all {
        if value.starts_with("/dev/") {
            *value = s.devices().to_client(Path::new(value)).to_string_lossy().into_owned();
        }
    }
    Ok(Geometry(all))
}

fn ask(program: &str, options: &[&str], of: &Path) -> Result<String> {
    let tool = Tool::new(program).args(options).args(["-p", "xfs_info", "-c", "info"]);
    Ok(tool.arg(of).run()?.success()?.text())
}

/// Where the sysroot has this device mounted.
fn mounted_at(s: &Session, device: &Device) -> Result<Option<PathBuf>> {
    let all = mounts::below(s.sysroot())?;
    Ok(all.into_iter().rfind(|m| Path::new(&m.source) == device.path()).map(|m| m.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of xfsprogs 6.1, with an external log.
    const SHOWN: &str = "\
meta-data=/dev/mapper/a b=x      isize=512    agcount=4, agsize=25600 blks
         =                       sectsz=512   attr=2, projid32bit=1
         =                       reflink=1    bigtime=1 inobtcount=1 nrext64=0
data     =                       bsize=4096   blocks=102400, imaxpct=25
         =                       sunit=16     swidth=64 blks
naming   =version 2              bsize=4096   ascii-ci=0, ftype=1
log      =/dev/sdb               bsize=4096   blocks=16384, version=2
         =                       sectsz=512   sunit=0 blks, lazy-count=1
realtime =none                   extsz=4096   blocks=0, rtextents=0
         =                       rgcount=0    rgsize=0 extents
";

    #[test]
    fn fields_are_named_by_heading_and_name() {
        let all = Geometry::parse(SHOWN);
        let wanted = [
            ("meta-data.isize", "512"),
            ("meta-data.agsize", "25600"),
            ("meta-data.projid32bit", "1"),
            ("meta-data.nrext64", "0"),
            ("data.imaxpct", "25"),
            ("data.swidth", "64"),
            ("naming", "version 2"),
            ("log", "/dev/sdb"),
            ("log.version", "2"),
            ("log.sunit", "0"),
            ("log.lazy-count", "1"),
            ("realtime", "none"),
            ("realtime.rgsize", "0"),
        ];
        for (name, value) in wanted {
            assert_eq!(all.get(name), Some(value), "{name}");
        }
        assert_eq!(all.get("data"), None);
        assert_eq!(all.0.len(), 33);
    }

    #[test]
    fn a_device_may_be_called_anything_but_a_field() {
        assert_eq!(split_fields("/dev/a b=x  isize=1 blks"), ("/dev/a b=x", vec![("isize", "1")]));
        assert_eq!(split_fields("internal log"), ("internal log", vec![]));
        assert_eq!(split_fields("  "), ("", vec![]));
        assert_eq!(split_fields("a=1 b=-2"), ("a=1 b=-2", vec![]));
    }

    #[test]
    fn what_xfs_info_shows_of_a_real_filesystem_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(320 << 20).unwrap();
        let made = Tool::new("mkfs.xfs").args(["-q", "-d", "agcount=2"]).arg(file.path()).ok();
        made.expect("mkfs.xfs is needed (Debian package xfsprogs)");
        let text = ask("xfs_db", &["-r", "-f"], file.path()).unwrap();
        let all = Geometry::parse(&text);
        assert_eq!(all.get("meta-data"), file.path().to_str());
        assert_eq!(all.number::<u32>("meta-data.agcount"), Some(2));
        let size = all.number::<u64>("data.bsize").zip(all.number::<u64>("data.blocks"));
        assert_eq!(size.map(|(bytes, blocks)| bytes * blocks), Some(320 << 20));
        assert_eq!(all.get("naming"), Some("version 2"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[ a=1,\\n\\PC-]{0,200}") {
            Geometry::parse(&text);
        }
    }
}
