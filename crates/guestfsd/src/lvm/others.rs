// SPDX-License-Identifier: Apache-2.0
//! Volumes that the kernel has of others than the session, where it shares the kernel with its host: the host's, and
//! those of other sessions. The kernel has each name and each UUID once. To LVM a group with the UUID of another one is
//! that one, and it would change its volumes.

use super::command;
use super::report::Report;
use crate::session::Session;
use guest_error::{Errno, Error, Result};
use probe::device_mapper::{self, Map};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Groups that LVM sees in the session.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Those that are the session's alone.
    pub(crate) free: Vec<OsString>,
    /// Why the first one of the rest is not.
    pub(crate) taken: Option<Error>,
}

/// Which of these groups, or of all if none is named, are the session's alone; none if nothing in the kernel is
/// another's.
pub(crate) fn groups_apart(s: &mut Session, names: &[&OsStr]) -> Result<Option<Groups>> {
    let others = device_mapper::hidden();
    if others.is_empty() {
        return Ok(None);
    }
    let mut groups = Groups::default();
    for (name, id) in groups_and_ids(s, names)? {
        match others.iter().find(|map| map.is_of_group(&name, &id)) {
            Some(map) if groups.taken.is_none() => groups.taken = Some(taken(&name, map)),
            Some(_) => {}
            None => groups.free.push(name.into()),
        }
    }
    Ok(Some(groups))
}

/// An error where LVM sees a group that it takes for another's, because one was copied from the other.
pub(crate) fn check_copies(s: &mut Session) -> Result<()> {
    let others: Vec<Map> = device_mapper::hidden().into_iter().filter(Map::is_of_lvm).collect();
    if others.is_empty() {
        return Ok(());
    }
    for (name, id) in groups_and_ids(s, &[])? {
        if let Some(map) = others.iter().find(|map| map.has_id_of(&id)) {
            return Err(taken(&name, map));
        }
    }
    Ok(())
}

fn groups_and_ids(s: &mut Session, names: &[&OsStr]) -> Result<Vec<(String, String)>> {
    let report = Report::run(command(s, "vgs")?, &["vg_name", "vg_uuid"], names)?;
    let pair = |row: super::Row<'_>| {
        Ok((row.text("vg_name")?.to_owned(), row.text("vg_uuid")?.to_owned()))
    };
    report.rows().map(pair).collect()
}

fn taken(group: &str, map: &Map) -> Error {
    let device = Path::new("/dev/mapper").join(&map.name);
    let why = format!(
        "the host's kernel has {} of a volume group with the same name or UUID, which is the host's or another \
         session's; guestfs-novm --uml brings a kernel of its own",
        device.display()
    );
    Error::new(Errno::EBUSY, why).within(group)
}
