// SPDX-License-Identifier: Apache-2.0
//! LVM in a session: the program `lvm`, what it is to see ([`config`]), and what it reports ([`report`]). Which volumes,
//! groups and physical volumes there are its metadata says as well ([`direct`]), and where that is beyond doubt, the
//! program is not run. Why a volume that there is has no device, says [`mod@inactive`]; what the kernel has that is not the
//! session's, [`others`].
//!
//! LVM looks at all devices of a machine unless it is told otherwise, and a machine may have more than the session's:
//! those of the host, or of other sessions. So it gets a filter with the session's disks, their partitions and what is
//! made of them, but for what the daemon's own `/` is on; a client may narrow it ([`narrow`]).

mod config;
mod direct;
mod inactive;
mod others;
pub(crate) mod report;

use crate::devices::Device;
use crate::listing;
use crate::session::Session;
use crate::tool::{self, Tool};
use config::Config;
use guest_error::{Error, Result};
pub(crate) use inactive::{NO_DEVICE_MAPPER, field_of_inactive, inactive, without_device};
pub(crate) use others::{Groups, check_copies, groups_apart};
use probe::device_mapper::{self, Volume};
use probe::lvm::{Doubt, Known, is_physical_volume};
use report::{Report, Row};
use rustix::fs::{Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What LVM calls a physical volume whose device is not there.
const MISSING: &str = "[unknown]";
/// The volumes that people see.
const PUBLIC: &str = "lv_role=public && lv_skip_activation!=yes";

/// What a session keeps of LVM.
#[derive(Debug, Default)]
struct State {
    /// The devices that the client has LVM see; none: all of the session's.
    chosen: Option<Vec<PathBuf>>,
    config: Option<Config>,
    /// Whether the machine's configuration leaves what matters to answers as it is by default; none before that was
    /// looked at.
    plain: Option<bool>,
}

/// Has LVM see these devices only, and their partitions; or all of the session's again.
pub(crate) fn narrow(s: &mut Session, to: Option<Vec<PathBuf>>) {
    s.state::<State>().chosen = to;
}

/// A command of `lvm`, which sees what it is to see.
pub(crate) fn command(s: &mut Session, command: &str) -> Result<Tool> {
    let tool = Tool::new("lvm").arg(command);
    let Some(mut devices) = visible(s) else { return Ok(tool) };
    // LVM may know those of the device mapper by the kernel's names only.
    let maps = device_mapper::all().into_iter().filter(|map| devices.contains(&map.path()));
    let nodes: Vec<PathBuf> = maps.map(|map| map.node()).collect();
    devices.extend(nodes);
    let state = s.state::<State>();
    if state.config.is_none() {
        state.config = Some(Config::new()?);
    }
    match &mut state.config {
        Some(config) => Ok(tool.env(config::VARIABLE, config.directory(&devices)?)),
        None => Ok(tool),
    }
}

/// Whether there is anything for LVM to see: a physical volume, or a volume that was made of some. Most machines have
/// none, and to say so the program need not be run.
pub(crate) fn is_in_use(s: &mut Session) -> bool {
    !device_mapper::volumes().is_empty() || labelled(s).next().is_some()
}

/// Devices that are physical volumes, whatever LVM thinks of them.
pub(crate) fn labelled(s: &mut Session) -> impl Iterator<Item = PathBuf> + use<> {
    visible(s).unwrap_or_else(everything).into_iter().filter(|d| is_labelled(d))
}

/// What there is, as its metadata says, if it is certain that `lvm` would say the same.
fn known(s: &mut Session) -> Option<Known> {
    // LVM on a machine that is itself served has that machine's settings, which may be anything.
    let devices = visible(s)?;
    let plain = *s.state::<State>().plain.get_or_insert_with(config::is_plain);
    let answer = match plain {
        true => direct::known(&devices),
        false => Err(Doubt("the machine's lvm.conf has settings")),
    };
    answer.inspect_err(|doubt| tracing::debug!(%doubt, "lvm is asked")).ok()
}

/// Devices that are physical volumes.
pub(crate) fn physical_volumes(s: &mut Session) -> Result<Vec<PathBuf>> {
    let names = match known(s) {
        Some(known) => return Ok(known.physical),
        None => column(s, "pvs", "pv_name")?,
    };
    Ok(names.into_iter().filter(|name| name != MISSING).map(PathBuf::from).collect())
}

/// Names of groups.
pub(crate) fn groups(s: &mut Session) -> Result<Vec<String>> {
    match known(s) {
        Some(known) => Ok(known.groups),
        None => column(s, "vgs", "vg_name"),
    }
}

/// The volumes that people see, active or not, in LVM's order.
pub(crate) fn volumes(s: &mut Session) -> Result<Vec<PathBuf>> {
    if let Some(known) = known(s) {
        return Ok(known.volumes.iter().map(Volume::path).collect());
    }
    if !is_in_use(s) {
        return Ok(Vec::new());
    }
    let lvs = command(s, "lvs")?.args(["--select", PUBLIC]);
    let path =
        |row: Row<'_>| Ok(Path::new("/dev").join(row.text("vg_name")?).join(row.text("lv_name")?));
    Report::run(lvs, &["vg_name", "lv_name"], &[])?.rows().map(path).collect()
}

/// One field of what a command reports.
fn column(s: &mut Session, command: &str, field: &str) -> Result<Vec<String>> {
    if !is_in_use(s) {
        return Ok(Vec::new());
    }
    need_program()?;
    Report::run(self::command(s, command)?, &[field], &[])?.column(field)
}

/// An error where there is something for LVM to tell of, but no program that could.
pub(crate) fn need_program() -> Result<()> {
    match tool::find("lvm") {
        Some(_) => Ok(()),
        None => Err(Error::not_supported(
            "there are physical volumes, but the program lvm is not on this machine",
        )),
    }
}

/// The devices that LVM is to see; none: all of the machine's, which is itself served.
fn visible(s: &mut Session) -> Option<Vec<PathBuf>> {
    if let Some(chosen) = s.state::<State>().chosen.clone() {
        let parts = chosen.iter().flat_map(|d| listing::partitions_of(d)).collect::<Vec<_>>();
        return Some([chosen, parts].concat());
    }
    if s.config().serves_machine() {
        return None;
    }
    let devices = s.settled_devices();
    let mut all = listing::all(devices);
    all.retain(|device| !devices.is_own(device));
    Some(all)
}

/// All devices of the machine. A floppy drive takes seconds to answer, and LVM does not look there either.
fn everything() -> Vec<PathBuf> {
    std::fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with("fd"))
        .map(|name| Path::new("/dev").join(name.replace('!', "/")))
        .collect()
}

fn is_labelled(device: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(device, flags, Mode::empty()).is_ok_and(is_physical_volume)
}

/// What `lvm` calls a volume: by whichever of its names the client does, LVM does not know all of them.
pub(crate) fn volume_argument(device: &Device) -> OsString {
    let volume = device_mapper::of_device(device.path()).and_then(|map| map.volume());
    volume.map_or_else(|| device.path().into(), |v| format!("{}/{}", v.group, v.volume).into())
}

/// An error for a name that `lvm` would take for all groups: an empty one.
pub(crate) fn check_group(argument: &str, name: &OsStr) -> Result<()> {
    match name.is_empty() {
        true => Err(Error::argument(argument, name, "not the name of a volume group")),
        false => Ok(()),
    }
}
