// SPDX-License-Identifier: Apache-2.0
//! Inspection of a machine that is made up: what it asks of one, and what it makes of the answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

use guest_error::{Errno, Error, Result};
use guest_fs::paths::{Root, Sysroot};
use inspect::{Machine, Tag};
use probe::mountable::MountableName;
use std::path::PathBuf;

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, contents) in files {
        let file = dir.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, contents).unwrap();
    }
    dir
}

/// A machine whose filesystems are directories; one without a directory cannot be mounted.
struct Fake {
    filesystems: Vec<(PathBuf, Option<tempfile::TempDir>)>,
    mounted: Option<Root>,
    unusable: bool,
}

impl Fake {
    fn new(filesystems: Vec<(&str, Option<tempfile::TempDir>)>) -> Self {
        let filesystems = filesystems.into_iter().map(|(device, dir)| (device.into(), dir));
        Self { filesystems: filesystems.collect(), mounted: None, unusable: false }
    }
}

impl Machine for Fake {
    fn filesystems(&mut self) -> Result<Vec<(MountableName, String)>> {
        let all = self.filesystems.iter();
        Ok(all.map(|(device, _)| (device.clone().into(), "ext4".to_owned())).collect())
    }

    fn unusable(&mut self) -> Option<Error> {
        self.unusable.then(|| Error::new(Errno::ENODEV, "no device mapper"))
    }

    fn mount(&mut self, filesystem: &MountableName, _: &str) -> Result<()> {
        assert!(self.mounted.is_none(), "one at a time");
        let (_, dir) = self.filesystems.iter().find(|(d, _)| *d == filesystem.device).unwrap();
        let dir = dir.as_ref().ok_or_else(|| Error::new(Errno::EUCLEAN, "damaged"))?;
        self.mounted = Some(Sysroot::new(dir.path()).open()?);
        Ok(())
    }

    fn root(&self) -> Result<&Root> {
        self.mounted.as_ref().ok_or_else(|| Error::new(Errno::EINVAL, "nothing is mounted"))
    }

    fn unmount(&mut self) -> Result<()> {
        self.mounted = None;
        Ok(())
    }

    fn find(&mut self, tag: &Tag) -> Option<PathBuf> {
        (*tag == Tag::Label("home".into())).then(|| "/dev/sdb".into())
    }

    fn disks(&mut self) -> Vec<PathBuf> {
        vec!["/dev/sda".into(), "/dev/sdb".into()]
    }

    fn partitions(&mut self) -> Vec<PathBuf> {
        Vec::new()
    }
}

#[test]
fn filesystems_of_a_root_are_those_that_its_fstab_names() {
    let fstab = b"/dev/vda1 / ext4 rw 0 1\nLABEL=home /home ext4 rw\nLABEL=none /srv ext4 rw\n";
    let root =
        directory(&[("bin/x", b""), ("etc/fstab", fstab), ("etc/os-release", b"ID=debian\n")]);
    let home = directory(&[("user/x", b"")]);
    let mut machine =
        Fake::new(vec![("/dev/sda1", Some(root)), ("/dev/sdb", Some(home)), ("/dev/sdc", None)]);
    let roots = inspect::inspect(&mut machine).unwrap();
    assert!(machine.mounted.is_none(), "nothing stays mounted");
    let [root] = &roots[..] else { panic!("one root, and not {roots:?}") };
    let (sda1, sdb) = (PathBuf::from("/dev/sda1").into(), PathBuf::from("/dev/sdb").into());
    assert_eq!((&root.name, root.os.distro), (&sda1, Some("debian")));
    assert_eq!(root.mountpoints, [("/home".into(), sdb), ("/".into(), sda1)]);
}

#[test]
fn where_nothing_was_found_what_could_not_be_looked_at_may_be_why() {
    let mut machine = Fake::new(vec![("/dev/sda1", Some(directory(&[]))), ("/dev/sdb", None)]);
    let e = inspect::inspect(&mut machine).unwrap_err();
    assert_eq!((e.errno(), e.message()), (Errno::EUCLEAN, "damaged"));
    assert!(inspect::inspect(&mut Fake::new(Vec::new())).unwrap().is_empty());
    let mut machine = Fake::new(vec![("/dev/sda1", Some(directory(&[])))]);
    machine.unusable = true;
    assert_eq!(inspect::inspect(&mut machine).unwrap_err().message(), "no device mapper");
}
