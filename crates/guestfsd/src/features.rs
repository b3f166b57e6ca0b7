// SPDX-License-Identifier: Apache-2.0
//! Optional groups: which of them this machine can serve, decided at run time.
//!
//! A group is there when all its procedures are done and what they need is there: programs, features
//! of the kernel, libraries. What was found out is kept.

use crate::kernel;
use crate::library::Library;
use crate::reach;
use crate::tool;
use guestfs_api::{PROCEDURES, Procedure};
use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;

/// What a group needs.
#[derive(Debug)]
enum Need {
    /// All of these programs.
    Programs(&'static [&'static str]),
    /// A file of the kernel, or else a module of this name.
    Kernel(&'static str, &'static str),
    /// A file of the kernel.
    File(&'static str),
    /// A library.
    Library(&'static CStr),
    /// A filesystem of the kernel, and these programs.
    Filesystem(&'static str, &'static [&'static str]),
}

/// What each group needs. A group that is not here needs nothing.
const NEEDS: &[(&str, &[Need])] = &[
    ("btrfs", &[Need::Filesystem("btrfs", &["btrfs", "mkfs.btrfs"])]),
    ("clevisluks", &[Need::Programs(&["clevis-luks-unlock"])]),
    ("extlinux", &[Need::Programs(&["extlinux"])]),
    ("f2fs", &[Need::Programs(&["resize.f2fs"])]),
    ("gdisk", &[Need::Programs(&["sgdisk"])]),
    ("grub", &[Need::Programs(&["grub-install"])]),
    (
        "ldm",
        &[Need::Programs(&["ldmtool"]), Need::Kernel("/sys/class/misc/device-mapper", "dm-mod")],
    ),
    (
        "luks",
        &[Need::Programs(&["cryptsetup"]), Need::Kernel("/sys/class/misc/device-mapper", "dm-mod")],
    ),
    ("libtsk", &[Need::Library(crate::tsk::LIBRARY)]),
    ("libyara", &[Need::Library(crate::yara::LIBRARY)]),
    ("lvm2", &[Need::Programs(&["lvm"]), Need::Kernel("/sys/class/misc/device-mapper", "dm-mod")]),
    ("mdadm", &[Need::Programs(&["mdadm"]), Need::Kernel("/proc/mdstat", "md-mod")]),
    ("ntfs3g", &[Need::Programs(&["ntfs-3g.probe"])]),
    ("ntfsprogs", &[Need::Programs(&["ntfsresize"])]),
    ("rsync", &[Need::Programs(&["rsync"])]),
    ("scrub", &[Need::Programs(&["scrub"])]),
    ("selinuxrelabel", &[Need::Programs(&["setfiles"])]),
    ("sleuthkit", &[Need::Programs(&["icat", "blkls"])]),
    ("squashfs", &[Need::Programs(&["mksquashfs"])]),
    ("syslinux", &[Need::Programs(&["syslinux"])]),
    ("wipefs", &[Need::Programs(&["wipefs"])]),
    ("xfs", &[Need::Filesystem("xfs", &["mkfs.xfs"])]),
    ("xz", &[Need::Programs(&["xz"])]),
    ("zerofree", &[Need::Programs(&["zerofree"])]),
    ("linuxmodules", &[Need::Programs(&["modprobe"]), Need::File("/proc/modules")]),
];

/// Groups that the table has no more, but older clients ask for, and the library that each needs.
const FORMER: &[(&str, Option<&CStr>)] = &[("augeas", Some(c"libaugeas.so.0")), ("realpath", None)];

/// Procedures that answer what is so even where their group is not there: that there are none.
const ALWAYS: &[&str] = &["lvs"];

include!(concat!(env!("OUT_DIR"), "/done.rs"));

/// Whether a procedure has its function.
pub(crate) fn is_done(number: u32) -> bool {
    DONE.binary_search(&number).is_ok()
}

/// Whether a group is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It is.
    Available,
    /// Not on this machine, or not yet done.
    Unavailable,
    /// There is no such group.
    Unknown,
}

/// What has been found out.
#[derive(Debug, Default)]
pub(crate) struct Features {
    /// The client may do what reaches outside of the guest.
    host_access: bool,
    known: HashMap<&'static str, bool>,
}

/// Names of all groups, in alphabetical order.
pub(crate) fn groups() -> BTreeSet<&'static str> {
    let former = FORMER.iter().map(|(name, _)| *name);
    PROCEDURES.iter().filter_map(|p| p.group).chain(former).collect()
}

impl Features {
    /// Nothing has been found out yet.
    pub(crate) fn new(host_access: bool) -> Self {
        Self { host_access, known: HashMap::new() }
    }

    /// Whether the group of this name is there.
    pub(crate) fn group(&mut self, name: &str) -> Availability {
        if let Some((_, library)) = FORMER.iter().find(|(former, _)| *former == name) {
            return match library.is_none_or(|library| Library::open(library).is_ok()) {
                true => Availability::Available,
                false => Availability::Unavailable,
            };
        }
        match PROCEDURES.iter().find_map(|p| p.group.filter(|g| *g == name)) {
            None => Availability::Unknown,
            Some(group) if self.has(group) => Availability::Available,
            Some(_) => Availability::Unavailable,
        }
    }

    /// Whether this procedure's group, if it has one, is there.
    pub(crate) fn allows(&mut self, procedure: &Procedure) -> bool {
        ALWAYS.contains(&procedure.name) || procedure.group.is_none_or(|group| self.has(group))
    }

    fn has(&mut self, group: &'static str) -> bool {
        *self.known.entry(group).or_insert_with(|| {
            let mut members = PROCEDURES.iter().filter(|p| p.group == Some(group));
            let needs = NEEDS.iter().find(|(name, _)| *name == group).map_or(&[][..], |(_, n)| n);
            let refused = !self.host_access && members.clone().all(|p| reach::outside(p).is_some());
            !refused && members.all(|p| is_done(p.number)) && needs.iter().all(Need::is_met)
        })
    }
}

impl Need {
    fn is_met(&self) -> bool {
        let programs = |list: &[&str]| list.iter().all(|p| tool::find(p).is_some());
        match self {
            Self::Programs(list) => programs(list),
            Self::Library(name) => Library::open(name).is_ok(),
            Self::File(file) => std::path::Path::new(file).exists(),
            Self::Kernel(file, module) => kernel::has(file, module),
            Self::Filesystem(name, list) => programs(list) && kernel::filesystem(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_is_that_of_a_group_in_the_table() {
        let groups = groups();
        for (name, _) in NEEDS {
            assert!(groups.contains(name), "{name}");
        }
    }

    #[test]
    fn a_group_of_an_older_table_is_there() {
        assert_eq!(Features::default().group("realpath"), Availability::Available);
        assert!(groups().contains("augeas"));
    }

    #[test]
    fn a_group_that_does_not_exist_is_unknown() {
        assert_eq!(Features::default().group("nonesuch"), Availability::Unknown);
    }
}
