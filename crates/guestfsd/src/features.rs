// SPDX-License-Identifier: Apache-2.0
//! Optional groups and their procedures: which of them this machine can serve, decided at run time.
//!
//! A procedure is there when what it needs is: programs, features of the kernel. Most procedures
//! need what stands beside their group ([`NEEDS`]); those that need something else have a row of their own ([`OWN`]),
//! so that a program that is missing takes its own procedures away and no others. A group is there when what it needs
//! is, and one of its procedures can be called. What was found out is kept.

use crate::kernel;
use crate::library::Library;
use crate::reach;
use crate::tool;
use guest_error::{Error, Result};
use guestfs_api::{PROCEDURES, Procedure};
use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::path::Path;

/// Something that procedures need.
#[derive(Debug)]
enum Need {
    /// A program.
    Program(&'static str),
    /// A file of the kernel, or else a module of this name.
    Kernel(&'static str, &'static str),
    /// The kernel's device mapper.
    DeviceMapper,
    /// A file of the kernel.
    File(&'static str),
    /// A library.
    Library(&'static CStr),
    /// A filesystem of the kernel.
    Filesystem(&'static str),
}

/// What the procedures of each group need. Those of a group that is not here need nothing.
#[rustfmt::skip]
const NEEDS: &[(&str, &[Need])] = &[
    ("btrfs", &[Need::Filesystem("btrfs"), Need::Program("btrfs")]),
    ("clevisluks", &[Need::Program("clevis-luks-unlock")]),
    ("extlinux", &[Need::Program("extlinux")]),
    ("f2fs", &[Need::Program("resize.f2fs")]),
    ("gdisk", &[Need::Program("sgdisk")]),
    ("grub", &[Need::Program("grub-install")]),
    ("ldm", &[Need::Program("ldmtool"), Need::DeviceMapper]),
    ("luks", &[Need::Program("cryptsetup"), Need::DeviceMapper]),
    ("libtsk", &[Need::Library(crate::tsk::LIBRARY)]),
    ("libyara", &[Need::Library(crate::yara::LIBRARY)]),
    ("lvm2", &[Need::Program("lvm"), Need::DeviceMapper]),
    ("mdadm", &[Need::Program("mdadm"), Need::Kernel("/proc/mdstat", "md-mod")]),
    ("ntfs3g", &[Need::Program("ntfs-3g.probe")]),
    ("ntfsprogs", &[Need::Program("ntfsresize")]),
    ("rsync", &[Need::Program("rsync")]),
    ("scrub", &[Need::Program("scrub")]),
    ("selinuxrelabel", &[Need::Program("setfiles")]),
    ("sleuthkit", &[Need::Program("icat")]),
    ("squashfs", &[Need::Program("mksquashfs")]),
    ("syslinux", &[Need::Program("syslinux")]),
    ("wipefs", &[Need::Program("wipefs")]),
    ("xfs", &[Need::Filesystem("xfs"), Need::Program("mkfs.xfs")]),
    ("xz", &[Need::Program("xz")]),
    ("zerofree", &[Need::Program("zerofree")]),
    ("linuxmodules", &[Need::Program("modprobe"), Need::File("/proc/modules")]),
];

/// Procedures that need something else than their group does. Questions need nothing: where there is no LVM, there are
/// no volumes, and that is the answer.
#[rustfmt::skip]
const OWN: &[(&[&str], &[Need])] = &[
    (&["pvs", "vgs", "lvs", "pvs_full", "vgs_full", "lvs_full"], &[]),
    (&["lvm_remove_all", "lvm_set_filter", "pvchange_uuid_all", "vgchange_uuid_all"], &[]),
    (&["vg_activate", "vg_activate_all"], &[]),
    // They change what is on devices, without the kernel's help.
    (&["pvcreate", "pvremove", "pvresize", "pvresize_size", "pvchange_uuid"], &[Need::Program("lvm")]),
    (&["vgcreate", "vgremove", "vgchange_uuid", "vgmeta"], &[Need::Program("lvm")]),
    (&["list_ldm_volumes", "list_ldm_partitions", "ldmtool_create_all", "ldmtool_remove_all"], &[]),
    (&["ldmtool_scan", "ldmtool_scan_devices"], &[Need::Program("ldmtool")]),
    (&["ldmtool_diskgroup_name", "ldmtool_diskgroup_volumes", "ldmtool_diskgroup_disks"], &[Need::Program("ldmtool")]),
    (&["ldmtool_volume_type", "ldmtool_volume_hint", "ldmtool_volume_partitions"], &[Need::Program("ldmtool")]),
    (&["luks_uuid"], &[]),
    (&["luks_format", "luks_format_cipher", "luks_add_key", "luks_kill_slot"], &[Need::Program("cryptsetup")]),
    (&["download_blocks"], &[Need::Program("blkls")]),
    (&["mkfs_btrfs"], &[Need::Program("mkfs.btrfs")]),
    (&["ntfsclone_in", "ntfsclone_out"], &[Need::Program("ntfsclone")]),
    (&["ntfsfix"], &[Need::Program("ntfsfix")]),
    (&["ntfs_chmod"], &[Need::Program("ntfssecaudit")]),
    (&["xfs_admin"], &[Need::Program("xfs_db")]),
    (&["xfs_growfs"], &[Need::Filesystem("xfs"), Need::Program("xfs_growfs")]),
    (&["xfs_repair"], &[Need::Program("xfs_repair")]),
];

/// Groups that the table has no more, but older clients ask for, and the library that each needs.
const FORMER: &[(&str, Option<&CStr>)] = &[("augeas", Some(c"libaugeas.so.0")), ("realpath", None)];

/// Whether a group is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It is.
    Available,
    /// Not on this machine.
    Unavailable,
    /// There is no such group.
    Unknown,
}

/// What has been found out.
#[derive(Debug, Default)]
pub(crate) struct Features {
    /// The client may do what reaches outside of the guest.
    host_access: bool,
    groups: HashMap<&'static str, bool>,
    /// Procedures that have all that they need, by their number.
    procedures: HashMap<u32, bool>,
}

/// Names of all groups, in alphabetical order.
pub(crate) fn groups() -> BTreeSet<&'static str> {
    let former = FORMER.iter().map(|(name, _)| *name);
    PROCEDURES.iter().filter_map(|p| p.group).chain(former).collect()
}

impl Features {
    /// Nothing has been found out yet.
    pub(crate) fn new(host_access: bool) -> Self {
        Self { host_access, ..Self::default() }
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

    /// An error if this procedure, or what it needs, is not there.
    pub(crate) fn check(&mut self, procedure: &Procedure) -> Result<()> {
        let Some(group) = procedure.group else { return Ok(()) };
        let needs = own_needs(procedure).unwrap_or_else(|| group_needs(group));
        let all = || needs.iter().all(Need::is_met);
        if *self.procedures.entry(procedure.number).or_insert_with(all) {
            return Ok(());
        }
        let missing = needs.iter().find(|need| !need.is_met()).map(Need::what).unwrap_or_default();
        Err(self.refused(
            procedure,
            &format!("{} needs {missing}, which is not on this machine", procedure.name),
        ))
    }

    /// Clients know the text that says that a whole group is missing.
    fn refused(&mut self, procedure: &Procedure, why: &str) -> Error {
        Error::not_supported(match procedure.group {
            Some(group) if !self.has(group) => format!(
                "feature '{group}' is not available in this\nbuild of libguestfs.  Read \
                 'AVAILABILITY' in the guestfs(3) man page for\nhow to check for the availability \
                 of features.\n{why}"
            ),
            _ => why.to_owned(),
        })
    }

    fn has(&mut self, group: &'static str) -> bool {
        let host_access = self.host_access;
        *self.groups.entry(group).or_insert_with(|| {
            let mut members = PROCEDURES.iter().filter(|p| p.group == Some(group));
            let is_callable = |p: &Procedure| host_access || reach::outside(p).is_none();
            members.any(is_callable) && group_needs(group).iter().all(Need::is_met)
        })
    }
}

fn group_needs(group: &str) -> &'static [Need] {
    NEEDS.iter().find(|(name, _)| *name == group).map_or(&[], |(_, needs)| needs)
}

fn own_needs(procedure: &Procedure) -> Option<&'static [Need]> {
    OWN.iter().find(|(names, _)| names.contains(&procedure.name)).map(|(_, needs)| *needs)
}

impl Need {
    fn is_met(&self) -> bool {
        match self {
            Self::Library(name) => Library::open(name).is_ok(),
            Self::Program(program) => tool::find(program).is_some(),
            Self::DeviceMapper => kernel::has_device_mapper(),
            Self::File(file) => Path::new(file).exists(),
            Self::Kernel(file, module) => kernel::has(file, module),
            Self::Filesystem(name) => kernel::filesystem(name),
        }
    }

    /// What it is, for errors.
    fn what(&self) -> String {
        match self {
            Self::Program(name) => format!("the program {name}"),
            Self::Library(name) => format!("the library {}", name.to_string_lossy()),
            Self::DeviceMapper => "the kernel's device mapper (dm_mod)".to_owned(),
            Self::File(name) => (*name).to_owned(),
            Self::Kernel(_, name) => format!("the kernel's {name}"),
            Self::Filesystem(name) => format!("the kernel's filesystem {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn procedure(name: &str) -> &'static Procedure {
        PROCEDURES.iter().find(|p| p.name == name).unwrap()
    }

    #[test]
    fn every_need_is_that_of_a_group_or_procedure_in_the_table() {
        let groups = groups();
        for (name, _) in NEEDS {
            assert!(groups.contains(name), "{name}");
        }
        let mut names: Vec<&str> = OWN.iter().flat_map(|(names, _)| *names).copied().collect();
        for name in &names {
            assert!(procedure(name).group.is_some(), "{name}");
        }
        let rows = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows, "a procedure has two rows");
    }

    #[test]
    fn a_question_about_volumes_is_answered_on_every_machine() {
        for name in ["pvs", "vgs", "lvs", "vgs_full", "lvm_remove_all", "list_ldm_volumes"] {
            Features::default().check(procedure(name)).unwrap();
        }
    }

    #[test]
    fn what_is_missing_takes_its_own_procedures_away_and_no_others() {
        let mut features = Features::default();
        let scrub = procedure("scrub_file");
        features.procedures.insert(scrub.number, false);
        features.groups.insert("scrub", true);
        let e = features.check(scrub).unwrap_err();
        assert!(e.message().starts_with("scrub_file needs "), "{e}");
        assert_eq!(features.group("scrub"), Availability::Available);
        features.groups.insert("scrub", false);
        let e = features.check(scrub).unwrap_err();
        assert!(e.message().starts_with("feature 'scrub' is not available"), "{e}");
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
