// SPDX-License-Identifier: Apache-2.0
//! Inspection: which operating systems are on the disks, and what they are.
//!
//! Every filesystem is mounted on the sysroot in turn, to be read only, and looked at: what its files say is
//! read by parsers that know nothing of files ([`release`], [`fstab`], [`registry`], [`architecture`]).
//! What is found is kept in the session, and answered from there. Nothing stays mounted, even after an error.

pub(crate) mod architecture;
pub(crate) mod distros;
pub(crate) mod fstab;
mod guest;
pub(crate) mod registry;
pub(crate) mod release;
mod sources;
#[cfg(test)]
mod tests;
mod unix;
mod windows;

use crate::error::{Error, Result};
use crate::mountable::{Mountable, MountableName};
use crate::procedures;
use crate::session::Session;
use guest::Guest;
use guestfs_api::Errno;
use release::Version;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
pub(crate) use windows::Windows;

/// An operating system that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Os {
    /// `linux`, `windows`, ...
    pub kind: &'static str,
    /// The distribution, where it is known.
    pub distro: Option<&'static str>,
    /// What people call it.
    pub product_name: Option<OsString>,
    /// Which kind of it.
    pub product_variant: Option<OsString>,
    /// Its version.
    pub version: Option<Version>,
    /// Its architecture.
    pub arch: Option<&'static str>,
    /// Its name in the network.
    pub hostname: Option<OsString>,
    /// Format of its packages.
    pub package_format: Option<&'static str>,
    /// What manages them.
    pub package_management: Option<&'static str>,
    /// Which build it is.
    pub build_id: Option<OsString>,
    /// What only Windows has.
    pub windows: Option<Windows>,
}

/// An operating system and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// Its root filesystem.
    pub(crate) name: MountableName,
    /// What it is.
    pub(crate) os: Os,
    /// Where it mounts what.
    pub(crate) mountpoints: Vec<(OsString, MountableName)>,
    /// All filesystems that belong to it, and its swap space.
    pub(crate) filesystems: Vec<MountableName>,
    /// Windows' letters, and the partitions that they lead to.
    pub(crate) drives: Vec<(String, PathBuf)>,
}

/// What was seen on the disks.
#[derive(Default)]
struct Seen {
    looked: Vec<Looked>,
    /// Why a filesystem could not be looked at: the first of them.
    failed: Option<Error>,
}

/// What the last inspection has found.
#[derive(Debug, Default)]
struct State {
    roots: Vec<Root>,
}

/// What a filesystem is.
struct Looked {
    name: MountableName,
    found: Found,
}

enum Found {
    Unix(unix::Found),
    Windows(Box<Os>),
}

/// Inspects all disks. Nothing is mounted afterwards.
pub(crate) fn inspect(s: &mut Session) -> Result<Vec<MountableName>> {
    if s.serves_machine() {
        return Err(Error::not_supported("not where the machine itself is served (-r)"));
    }
    s.state::<State>().roots.clear();
    s.unmount_all()?;
    let seen = look_at_all(s);
    let unmounted = s.unmount_all();
    let Seen { looked, failed } = seen?;
    let roots = assemble(s, looked);
    unmounted?;
    // Where nothing was found, what could not be looked at may be why.
    if let (Some(e), true) = (failed, roots.is_empty()) {
        return Err(e);
    }
    let names = roots.iter().map(|r| r.name.clone()).collect();
    s.state::<State>().roots = roots;
    Ok(names)
}

/// Roots that the last inspection has found.
pub(crate) fn roots(s: &mut Session) -> Vec<MountableName> {
    s.state::<State>().roots.iter().map(|r| r.name.clone()).collect()
}

/// The operating system with this root.
pub(crate) fn root<'s>(s: &'s mut Session, root: &Mountable) -> Result<&'s Root> {
    let name = MountableName::from(root);
    let state = s.state::<State>();
    if state.roots.is_empty() {
        return Err(Error::new(Errno::EINVAL, "no inspection data: call inspect-os first"));
    }
    state.roots.iter().find(|r| r.name == name).ok_or_else(|| {
        let why = "root device not found: only one that inspect-os returned";
        Error::argument("root", root, why)
    })
}

/// Mounts each filesystem and looks at it.
fn look_at_all(s: &mut Session) -> Result<Seen> {
    let mut seen = Seen::default();
    for (name, fstype) in procedures::list_filesystems(s)? {
        if matches!(fstype.as_str(), "swap" | "swsuspend" | "unknown") {
            continue;
        }
        let client = name.to_client(s.devices());
        let looked = look_at(s, &client, &fstype);
        s.unmount_all()?;
        match looked {
            Ok(found) => seen.looked.push(Looked { name, found }),
            Err(e) => {
                tracing::warn!(filesystem = ?client, error = %e, "not inspected");
                seen.failed.get_or_insert(e);
            }
        }
    }
    Ok(seen)
}

fn look_at(s: &mut Session, client: &OsStr, fstype: &str) -> Result<Found> {
    let mountable = s.mountable("filesystem", client)?;
    let at = OsStr::new("/");
    if fstype == "ufs" {
        // The kernel does not tell the kinds of UFS apart.
        let as_type = |kind: &str, s: &mut Session, m| {
            let options = format!("ro,ufstype={kind}");
            procedures::mount_vfs(s, options.as_ref(), "ufs".as_ref(), m, at)
        };
        as_type("ufs2", s, mountable.clone()).or_else(|_| as_type("44bsd", s, mountable))?;
    } else {
        procedures::mount_ro(s, mountable, at)?;
    }
    s.release_root();
    let looked = match Guest::of(s) {
        Some(guest) => match windows::look(&guest) {
            Some(os) => Found::Windows(Box::new(os)),
            None => Found::Unix(unix::look(&guest)),
        },
        None => Found::Unix(unix::Found::Nothing),
    };
    s.release_root();
    Ok(looked)
}

/// Puts together what belongs together.
fn assemble(s: &mut Session, looked: Vec<Looked>) -> Vec<Root> {
    let mut usr = Vec::new();
    let mut roots = Vec::new();
    for Looked { name, found } in looked {
        match found {
            Found::Windows(os) => roots.push((name, *os, Vec::new())),
            Found::Unix(unix::Found::Root(os, entries)) => roots.push((name, *os, entries)),
            Found::Unix(unix::Found::Usr(found)) => usr.push((name, found)),
            Found::Unix(unix::Found::Nothing) => {}
        }
    }
    let alone = roots.len() == 1;
    let mut out: Vec<Root> = Vec::new();
    for (name, mut os, entries) in roots {
        let mut mountpoints: Vec<(OsString, MountableName)> = Vec::new();
        let mut filesystems = Vec::new();
        for entry in &entries {
            // The root is where it was found, whatever its own fstab calls it.
            let source = match entry.mountpoint == "/" {
                true => Some(name.clone()),
                false => sources::resolve(s, &name, os.kind, entry),
            };
            let Some(source) = source else { continue };
            let at = &entry.mountpoint;
            if !entry.is_swap()
                && at.as_encoded_bytes().starts_with(b"/")
                && !mountpoints.iter().any(|(other, _)| other == at)
            {
                mountpoints.push((at.clone(), source.clone()));
            }
            if !filesystems.contains(&source) {
                filesystems.push(source);
            }
        }
        if !mountpoints.iter().any(|(at, _)| at == "/") {
            mountpoints.insert(0, ("/".into(), name.clone()));
        }
        if !filesystems.contains(&name) {
            filesystems.insert(0, name.clone());
        }
        // The last line first: what is mounted below something comes before it.
        mountpoints.reverse();
        filesystems.reverse();
        if let Some(usr) = usr_of(&mountpoints, &usr, alone) {
            os.take_usr(usr);
        }
        let drives = windows::drives(s, &os);
        out.push(Root { name, os, mountpoints, filesystems, drives });
    }
    without_copies(out)
}

/// The filesystem that a root has mounted on /usr. If it does not say which, and is `alone`, it is the only one that
/// there is.
fn usr_of<'u>(
    mountpoints: &[(OsString, MountableName)],
    found: &'u [(MountableName, unix::Usr)],
    alone: bool,
) -> Option<&'u unix::Usr> {
    let named = mountpoints.iter().find(|(at, _)| at == "/usr").map(|(_, source)| source);
    match (named, found) {
        (Some(source), _) => found.iter().find(|(name, _)| name == source).map(|(_, usr)| usr),
        (None, [(_, only)]) if alone => Some(only),
        (None, _) => None,
    }
}

/// A btrfs root that is found both as the default subvolume and by its name is one.
fn without_copies(roots: Vec<Root>) -> Vec<Root> {
    let is_copy = |root: &Root| {
        root.name.volume.is_some()
            && roots.iter().any(|other| {
                other.name.volume.is_none()
                    && other.name.device == root.name.device
                    && other.os == root.os
                    && other.filesystems.len() == root.filesystems.len()
            })
    };
    let copies: Vec<bool> = roots.iter().map(is_copy).collect();
    roots.iter().zip(copies).filter(|(_, copy)| !copy).map(|(root, _)| root.clone()).collect()
}
