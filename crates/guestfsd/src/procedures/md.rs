// SPDX-License-Identifier: Apache-2.0
//! Arrays of software RAID: made, stopped, and what they consist of. mdadm(8) does the former; the kernel's tables
//! answer the latter, as far as they can.

use super::numbers::not_negative;
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::{options, structs};
use probe::{mdstat, sysfs};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Levels that can be asked for.
const LEVELS: &[&str] = &[
    "linear", "raid0", "0", "stripe", "raid1", "1", "mirror", "raid4", "4", "raid5", "5", "raid6",
    "6", "raid10", "10",
];
const DEFAULT_LEVEL: &str = "raid1";
/// Chunks are whole numbers of so many bytes.
const CHUNK_UNIT: u64 = 1024;
const MDSTAT: &str = "/proc/mdstat";
/// How facts of one member are called, before its name.
const MEMBER: &str = "device_";
/// Fewest active devices.
const FEWEST: u64 = 2;

/// Makes an array.
pub(crate) fn md_create(
    s: &mut Session,
    name: &OsStr,
    devices: &[Device],
    options: &options::MdCreate,
) -> Result<()> {
    let plan = Plan::new(name, devices, options)?;
    let done = s.noting(|_| plan.tool(name).ok());
    s.udev().changed();
    done.map_err(|e| e.within(name))
}

/// An array to be made.
#[derive(Debug)]
struct Plan<'a> {
    level: &'a OsStr,
    active: u64,
    spare: u64,
    /// In KiB.
    chunk: Option<u64>,
    /// A device for each place, or none where one is missing.
    places: Vec<Option<&'a Path>>,
}

impl<'a> Plan<'a> {
    fn new(name: &OsStr, devices: &'a [Device], options: &options::MdCreate<'a>) -> Result<Self> {
        if name.is_empty() || name.as_bytes().starts_with(b"-") {
            return Err(Error::argument("name", name, "not the name of an array"));
        }
        // A bit of each place: the sign is one as well.
        let missing = options.missingbitmap.unwrap_or(0).cast_unsigned();
        let spare: u64 = not_negative("spare", options.spare.unwrap_or(0))?;
        let all = devices.len() as u64 + u64::from(missing.count_ones());
        let active = match options.nrdevices {
            Some(n) => not_negative("nrdevices", n)?,
            None => all,
        };
        if options.nrdevices.is_some() && active < FEWEST {
            let why = "an array has at least 2 active devices";
            return Err(Error::argument("nrdevices", active.to_string(), why));
        }
        if active + spare != all {
            let why = format!(
                "{active} active devices and {spare} spare ones are not the {} that are there and the \
                 {} that are missing",
                devices.len(),
                missing.count_ones()
            );
            return Err(Error::new(Errno::EINVAL, why));
        }
        let level = options.level.unwrap_or(OsStr::new(DEFAULT_LEVEL));
        if !LEVELS.iter().any(|known| level == *known) {
            return Err(Error::argument("level", level, "not a level of RAID that is known"));
        }
        let chunk = options.chunk.map(kibibytes).transpose()?;
        Ok(Self { level, active, spare, chunk, places: places(devices, missing) })
    }

    fn tool(&self, name: &OsStr) -> Tool {
        let mut tool = Tool::new("mdadm").args(["--create", "--run"]).arg(name);
        tool = tool.arg("--level").arg(self.level);
        tool = tool.arg("--raid-devices").arg(self.active.to_string());
        if self.spare > 0 {
            tool = tool.arg("--spare-devices").arg(self.spare.to_string());
        }
        if let Some(chunk) = self.chunk {
            tool = tool.arg("--chunk").arg(chunk.to_string());
        }
        tool.args(self.places.iter().map(|place| place.unwrap_or(Path::new("missing"))))
    }
}

fn kibibytes(chunk: i64) -> Result<u64> {
    match not_negative::<u64, _>("chunk", chunk)? {
        bytes if bytes % CHUNK_UNIT == 0 => Ok(bytes / CHUNK_UNIT),
        _ => {
            let why = "not a multiple of 1024 bytes";
            Err(Error::argument("chunk", chunk.to_string(), why))
        }
    }
}

/// What is in each place, the lowest bit being the first one's.
fn places(devices: &[Device], mut missing: u64) -> Vec<Option<&Path>> {
    let mut devices = devices.iter();
    let mut places = Vec::new();
    while missing != 0 || devices.len() > 0 {
        let is_missing = missing & 1 == 1;
        let place = if is_missing { None } else { devices.next().map(Device::path) };
        // Beyond the last device only what is missing has a place.
        if is_missing || place.is_some() {
            places.push(place);
        }
        missing >>= 1;
    }
    places
}

/// What is known of an array, by the names that mdadm has for it.
pub(crate) fn md_detail(s: &mut Session, md: Device) -> Result<Vec<(String, OsString)>> {
    array(&md)?;
    let output = Tool::new("mdadm").args(["--detail", "--export"]).arg(md.path()).output();
    let mut facts = output
        .map_err(|e| e.within(&md))?
        .split(|&b| b == b'\n')
        .filter_map(fact)
        .collect::<Vec<_>>();
    translate(&mut facts, |device| s.client_name(device));
    Ok(facts)
}

/// Gives members the client's names, in `device_dev_sda_dev` and its like, too.
fn translate(facts: &mut [(String, OsString)], mut name: impl FnMut(&Path) -> OsString) {
    let own = |key: &str| Some(key.strip_prefix(MEMBER)?.strip_suffix("_dev")?.to_owned());
    let members: Vec<(String, OsString)> = facts
        .iter()
        .filter_map(|(key, device)| Some((own(key)?, name(Path::new(device)))))
        .collect();
    for (key, value) in facts {
        let Some((what, rest)) = members.iter().find_map(|(own, device)| {
            let rest = key.strip_prefix(MEMBER)?.strip_prefix(own.as_str())?;
            Some((device, rest.strip_prefix('_')?.to_owned()))
        }) else {
            continue;
        };
        if rest == "dev" {
            value.clone_from(what);
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let what = what.to_string_lossy();
        let what: String = what.trim_start_matches('/').chars().map(plain).collect();
        *key = format!("{MEMBER}{what}_{rest}");
    }
}

/// `MD_LEVEL=raid1` is (`level`, `raid1`).
fn fact(line: &[u8]) -> Option<(String, OsString)> {
    let at = line.iter().position(|&b| b == b'=')?;
    let key = String::from_utf8_lossy(&line[..at]).into_owned();
    let key = key.strip_prefix("MD_").unwrap_or(&key).to_ascii_lowercase();
    Some((key, OsString::from_vec(line[at + 1..].to_vec())))
}

/// Stops an array; what is on its devices stays.
pub(crate) fn md_stop(s: &mut Session, md: Device) -> Result<()> {
    s.udev().settle();
    let stopped = Tool::new("mdadm").arg("--stop").arg(md.path()).ok();
    s.udev().changed();
    stopped.map_err(|e| e.within(&md))
}

/// What an array consists of.
pub(crate) fn md_stat(s: &mut Session, md: Device) -> Result<Vec<structs::Mdstat>> {
    let array = array(&md)?;
    let table = std::fs::read_to_string(MDSTAT).on(MDSTAT)?;
    let members = mdstat::members(&table, &array.name)
        .ok_or_else(|| Error::new(Errno::EINVAL, "not an array that is in use").within(&md))?;
    let stat = |member: mdstat::Member<'_>| {
        let device = s.client_name(&array.member(member.name));
        structs::Mdstat {
            mdstat_device: device,
            mdstat_index: member.index,
            mdstat_flags: member.flags.into(),
        }
    };
    Ok(members.into_iter().map(stat).collect())
}

/// An array as sysfs has it.
struct Array {
    directory: PathBuf,
    name: String,
}

fn array(md: &Device) -> Result<Array> {
    let directory = std::fs::canonicalize(md.sysfs()?).on(md)?;
    if !directory.join("md").exists() {
        return Err(Error::new(Errno::EINVAL, "not an array of software RAID").within(md));
    }
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Array { directory, name })
}

impl Array {
    /// This machine's path of a member. The kernel may have another name for it than this machine's: its number tells.
    fn member(&self, kernel: &str) -> PathBuf {
        let entry = format!("md/dev-{}/block/dev", kernel.replace('/', "!"));
        let seen = std::fs::read_to_string(self.directory.join(entry)).ok().and_then(|number| {
            let (major, minor) = number.trim().split_once(':')?;
            let number = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
            let directory = std::fs::canonicalize(sysfs::directory(number)).ok()?;
            Some(directory.file_name()?.to_owned())
        });
        Path::new("/dev").join(seen.unwrap_or_else(|| kernel.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> options::MdCreate<'static> {
        options::MdCreate::default()
    }

    /// Any device will do.
    fn devices(number: usize) -> Vec<Device> {
        vec![Device::for_tests("/dev/null"); number]
    }

    #[test]
    fn what_is_missing_has_its_place() {
        let two = devices(2);
        let layout = |missing| -> String {
            let places = places(&two, missing);
            places.iter().map(|place| if place.is_some() { 'x' } else { '-' }).collect()
        };
        assert_eq!(layout(0), "xx");
        assert_eq!(layout(1), "-xx");
        assert_eq!(layout(0b101), "-x-x");
        assert_eq!(layout(0b1000), "xx-");
        assert_eq!(layout(1 << 63), "xx-");
    }

    #[test]
    fn an_array_that_makes_no_sense_is_refused_before_anything_is_written() {
        let two = devices(2);
        let refused = |name: &str, options: &options::MdCreate<'_>| {
            Plan::new(name.as_ref(), &two, options).map(drop).unwrap_err().errno()
        };
        for name in ["", "-x", "--stop"] {
            assert_eq!(refused(name, &options()), Errno::EINVAL, "{name}");
        }
        for wrong in [
            options::MdCreate { nrdevices: Some(3), ..options() },
            options::MdCreate { nrdevices: Some(1), spare: Some(1), ..options() },
            options::MdCreate { spare: Some(-1), ..options() },
            options::MdCreate { spare: Some(1), ..options() },
            options::MdCreate { missingbitmap: Some(-1), nrdevices: Some(2), ..options() },
            options::MdCreate { chunk: Some(1000), ..options() },
            options::MdCreate { chunk: Some(-1024), ..options() },
            options::MdCreate { level: Some("-x".as_ref()), ..options() },
        ] {
            assert_eq!(refused("r", &wrong), Errno::EINVAL, "{wrong:?}");
        }
    }

    #[test]
    fn members_have_the_clients_names() {
        let lines = [
            "MD_LEVEL=raid1",
            "MD_DEVICE_dev_vda1_ROLE=0",
            "MD_DEVICE_dev_vda1_DEV=/dev/vda1",
            "junk",
        ];
        let mut facts: Vec<_> = lines.iter().filter_map(|line| fact(line.as_bytes())).collect();
        translate(&mut facts, |device| {
            assert_eq!(device, Path::new("/dev/vda1"));
            "/dev/sdb1".into()
        });
        let facts: Vec<_> = facts.iter().map(|(k, v)| (k.as_str(), v.to_str().unwrap())).collect();
        let wanted = [
            ("level", "raid1"),
            ("device_dev_sdb1_role", "0"),
            ("device_dev_sdb1_dev", "/dev/sdb1"),
        ];
        assert_eq!(facts, wanted);
    }
}
