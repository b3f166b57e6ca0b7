// SPDX-License-Identifier: Apache-2.0
//! The session's machine as inspection asks for it ([`inspect::Machine`]).

use crate::session::Session;
use crate::{filesystems, listing, lvm, mountable, mounting, reach};
use guest_error::{Error, Result};
use guest_fs::paths::Root;
use inspect::{Machine, Tag};
use probe::mountable::MountableName;
use std::ffi::OsStr;
use std::path::PathBuf;

impl Machine for Session {
    fn filesystems(&mut self) -> Result<Vec<(MountableName, String)>> {
        filesystems::all(self)
    }

    fn unusable(&mut self) -> Option<Error> {
        lvm::inactive(self)
    }

    fn mount(&mut self, filesystem: &MountableName, fstype: &str) -> Result<()> {
        let client = mountable::to_client(filesystem, self.devices());
        mount(self, &client, fstype)
            .inspect_err(|e| tracing::warn!(filesystem = ?client, error = %e, "not inspected"))
    }

    fn root(&self) -> Result<&Root> {
        Session::root(self)
    }

    fn unmount(&mut self) -> Result<()> {
        self.unmount_all()
    }

    fn find(&mut self, tag: &Tag) -> Option<PathBuf> {
        let devices = self.settled_devices();
        let found = match tag {
            Tag::Uuid(uuid) => filesystems::of_uuid(devices, uuid),
            Tag::Label(label) => filesystems::of_label(devices, label),
            Tag::PartUuid(uuid) => filesystems::partition_of_uuid(devices, uuid),
            Tag::PartLabel(label) => filesystems::partition_of_label(devices, label),
        };
        found.ok()
    }

    fn disks(&mut self) -> Vec<PathBuf> {
        self.settled_devices().list()
    }

    fn partitions(&mut self) -> Vec<PathBuf> {
        listing::partitions(self.settled_devices()).unwrap_or_default()
    }
}

fn mount(s: &mut Session, client: &OsStr, fstype: &str) -> Result<()> {
    let mountable = s.mountable("filesystem", client)?;
    if fstype == "ufs" {
        reach::check_filesystem(s.config(), OsStr::new(fstype))?;
    }
    let mut mount = |options: &str, fstype: Option<&OsStr>| {
        mounting::mount(s, Some(options.as_ref()), fstype, &mountable, OsStr::new("/"))
    };
    if fstype != "ufs" {
        return mount("ro", None);
    }
    // The kernel does not tell the kinds of UFS apart.
    let ufs = Some(OsStr::new(fstype));
    mount("ro,ufstype=ufs2", ufs).or_else(|_| mount("ro,ufstype=44bsd", ufs))
}
