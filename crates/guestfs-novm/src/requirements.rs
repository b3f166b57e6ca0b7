// SPDX-License-Identifier: Apache-2.0
//! What of the host is needed, and what for: `--check`.

use crate::daemon;
use crate::mode::Mode;
use crate::uml;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// How bad it is when something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// There is no session.
    Needed,
    /// Something cannot be done.
    Useful,
}

/// How to tell that something is there.
#[derive(Clone, Copy, Debug)]
enum Sign {
    File(&'static str),
    Program(&'static str),
    Root,
    Daemon,
    UmlKernel,
    UmlModules,
    UmlMemory,
    /// A module of the host's kernel, loaded, built in, or to be loaded.
    Module(&'static str),
}

/// Something that may be missing.
#[derive(Debug)]
struct Need {
    sign: Sign,
    /// The mode that needs it; none: both.
    mode: Option<Mode>,
    weight: Weight,
    /// What for, and where it comes from.
    text: &'static str,
}

const fn needed(sign: Sign, mode: Option<Mode>, text: &'static str) -> Need {
    Need { sign, mode, weight: Weight::Needed, text }
}

const fn useful(sign: Sign, mode: Option<Mode>, text: &'static str) -> Need {
    Need { sign, mode, weight: Weight::Useful, text }
}

const INSTANT: Option<Mode> = Some(Mode::Instant);
const UML: Option<Mode> = Some(Mode::Uml);

/// All that is looked at.
#[rustfmt::skip]
const NEEDS: &[Need] = &[
    needed(Sign::Daemon,                   None,    "the daemon"),
    needed(Sign::Root,                     INSTANT, "loop devices and mounts are root's; --uml is for others"),
    needed(Sign::File("/dev/loop-control"), INSTANT, "disks become loop devices: module loop"),
    useful(Sign::File("/dev/fuse"),        INSTANT, "images that are not raw or of no given format, NTFS: module fuse"),
    needed(Sign::UmlKernel,                UML,     "the kernel: package user-mode-linux"),
    needed(Sign::UmlModules,               UML,     "the kernel's modules: package user-mode-linux"),
    needed(Sign::UmlMemory,                UML,     "room for 1280 MiB in /dev/shm, /tmp or /var/tmp, not mounted noexec"),
    useful(Sign::Module("dm_mod"),         INSTANT, "LVM, LUKS, dynamic disks of Windows: a module of the kernel; --uml has it"),
    useful(Sign::Module("md_mod"),         INSTANT, "Linux RAID: a module of the kernel; --uml has it"),
    useful(Sign::Module("ext4"),           INSTANT, "ext2, ext3, ext4: a module of the kernel; --uml has it"),
    useful(Sign::Module("xfs"),            INSTANT, "XFS: a module of the kernel; --uml has it"),
    useful(Sign::Module("btrfs"),          INSTANT, "btrfs: a module of the kernel; --uml has it"),
    useful(Sign::Module("vfat"),           INSTANT, "FAT: a module of the kernel; --uml has it"),
    useful(Sign::Program("modprobe"),      UML,     "modules for filesystems and LVM: package kmod"),
    needed(Sign::Program("mount"),         None,    "mounting: package mount (util-linux)"),
    useful(Sign::Program("blkid"),         None,    "some questions about devices: package util-linux"),
    useful(Sign::Program("parted"),        None,    "changing partitions: package parted"),
    useful(Sign::Program("sfdisk"),        None,    "changing partitions: package fdisk"),
    useful(Sign::Program("sgdisk"),        None,    "changing GPT partitions: package gdisk"),
    useful(Sign::Program("mke2fs"),        None,    "ext2, ext3, ext4: package e2fsprogs"),
    useful(Sign::Program("mkfs.xfs"),      None,    "XFS: package xfsprogs"),
    useful(Sign::Program("btrfs"),         None,    "btrfs: package btrfs-progs"),
    useful(Sign::Program("mkfs.vfat"),     None,    "FAT: package dosfstools"),
    useful(Sign::Program("ntfs-3g"),       None,    "NTFS: package ntfs-3g"),
    useful(Sign::Program("lvm"),           None,    "LVM: package lvm2"),
    useful(Sign::Program("ldmtool"),       None,    "dynamic disks of Windows: package ldmtool"),
    useful(Sign::Program("cryptsetup"),    None,    "LUKS: package cryptsetup-bin"),
    useful(Sign::Program("mdadm"),         None,    "Linux RAID: package mdadm"),
    useful(Sign::Program("qemu-img"),      None,    "libguestfs itself makes overlays with it: package qemu-utils"),
];

impl Sign {
    fn is_there(self) -> bool {
        match self {
            Self::File(path) => Path::new(path).exists(),
            Self::Program(name) => {
                ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"]
                    .iter()
                    .any(|dir| Path::new(dir).join(name).exists())
            }
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Daemon => daemon::find(None).is_ok(),
            Self::UmlKernel => uml::kernel().is_ok(),
            Self::UmlModules => uml::modules_dir().is_dir(),
            Self::UmlMemory => uml::memory::has_memory(),
            Self::Module(name) => has_module(name),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::File(name) | Self::Program(name) => name,
            Self::Root => "being root",
            Self::Daemon => "guestfsd",
            Self::UmlKernel => "linux.uml",
            Self::UmlModules => "modules of User-Mode Linux",
            Self::UmlMemory => "memory of User-Mode Linux",
            Self::Module(name) => name,
        }
    }
}

/// Whether the running kernel has a module, or can load it.
fn has_module(name: &str) -> bool {
    let filesystem = |line: &str| line.split_whitespace().last() == Some(name);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let modules = Path::new("/lib/modules").join(release.trim_end());
    // Names of modules have underscores, those of their files may have hyphens.
    let file = |line: &str| {
        let file = line.split([':', ' ']).next().and_then(|path| path.rsplit('/').next());
        file.and_then(|file| file.split('.').next()).is_some_and(|n| n.replace('-', "_") == name)
    };
    let listed = |list: &str| {
        fs::read_to_string(modules.join(list)).is_ok_and(|text| text.lines().any(file))
    };
    Path::new("/sys/module").join(name).exists()
        || fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.lines().any(filesystem))
        || listed("modules.builtin")
        || listed("modules.dep")
}

/// Says what is missing for a mode; whether a session is possible at all.
pub(crate) fn check(mode: Mode, out: &mut impl Write) -> io::Result<bool> {
    let mut possible = true;
    let mut complete = true;
    for need in NEEDS {
        if need.mode.is_some_and(|m| m != mode) || need.sign.is_there() {
            continue;
        }
        complete = false;
        let weight = match need.weight {
            Weight::Needed => "missing, and needed",
            Weight::Useful => "missing",
        };
        possible &= need.weight == Weight::Useful;
        writeln!(out, "{weight}: {}: {}", need.sign.name(), need.text)?;
    }
    if complete {
        writeln!(out, "mode {}: everything is there", mode.name())?;
    }
    Ok(possible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let mut out = Vec::new();
        check(Mode::Instant, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in text.lines().filter(|l| l.starts_with("missing")) {
            assert!(line.splitn(3, ": ").count() == 3, "{line}");
        }
        assert!(!text.contains("linux.uml"));
        assert!(!Sign::Program("no-such-program").is_there());
        assert!(!Sign::Module("no_such_module").is_there());
        assert!(Sign::Module("ext4").is_there());
    }
}
