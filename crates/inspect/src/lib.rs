// SPDX-License-Identifier: Apache-2.0
//! Inspection: which operating systems are on the disks, and what they are.
//!
//! A [`Machine`] comes in, the roots of operating systems go out ([`inspect()`]). Every filesystem is mounted in turn, to
//! be read only, and looked at: what its files say is read by parsers that know nothing of files (`release`, `fstab`,
//! [`hive`], [`architecture`]). Nothing stays mounted, even after an error.

pub mod architecture;
mod distros;
mod fstab;
#[doc(hidden)]
pub mod fuzz;
mod guest;
mod machine;
mod os;
mod release;
mod sources;
#[cfg(test)]
mod tests;
mod unix;
mod windows;

use guest::Guest;
use guest_error::{Error, Result};
pub use machine::{Machine, Tag};
pub use os::{Os, Windows};
use probe::mountable::MountableName;
use std::ffi::OsString;
use std::path::PathBuf;

/// An operating system and where it is.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its root filesystem.
    pub name: MountableName,
    /// What it is.
    pub os: Os,
    /// Where it mounts what.
    pub mountpoints: Vec<(OsString, MountableName)>,
    /// All filesystems that belong to it, and its swap space.
    pub filesystems: Vec<MountableName>,
    /// Windows' letters, and the partitions that they lead to.
    pub drives: Vec<(String, PathBuf)>,
}

/// What was seen on the disks.
#[derive(Default)]
struct Seen {
    looked: Vec<Looked>,
    /// Why a filesystem could not be looked at: the first of them.
    failed: Option<Error>,
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
pub fn inspect(machine: &mut impl Machine) -> Result<Vec<Root>> {
    machine.unmount()?;
    let seen = look_at_all(machine);
    let unmounted = machine.unmount();
    let Seen { looked, failed } = seen?;
    let roots = assemble(machine, looked);
    unmounted?;
    // Where nothing was found, what could not be looked at may be why.
    match roots.is_empty().then(|| failed.or_else(|| machine.unusable())).flatten() {
        Some(e) => Err(e),
        None => Ok(roots),
    }
}

/// Mounts each filesystem and looks at it.
fn look_at_all(machine: &mut impl Machine) -> Result<Seen> {
    let mut seen = Seen::default();
    for (name, fstype) in machine.filesystems()? {
        if matches!(fstype.as_str(), "swap" | "swsuspend" | "unknown") {
            continue;
        }
        let looked = machine.mount(&name, &fstype).map(|()| look_at(machine));
        machine.unmount()?;
        match looked {
            Ok(found) => seen.looked.push(Looked { name, found }),
            Err(e) => {
                seen.failed.get_or_insert(e);
            }
        }
    }
    Ok(seen)
}

/// Looks at what is mounted.
fn look_at(machine: &impl Machine) -> Found {
    let Ok(root) = machine.root() else { return Found::Unix(unix::Found::Nothing) };
    let guest = Guest::at(root);
    match windows::look(&guest) {
        Some(os) => Found::Windows(Box::new(os)),
        None => Found::Unix(unix::look(&guest)),
    }
}

/// Puts together what belongs together.
fn assemble(machine: &mut impl Machine, looked: Vec<Looked>) -> Vec<Root> {
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
                false => sources::resolve(machine, &name, os.kind, entry),
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
        let drives = windows::drives(machine, &os);
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
