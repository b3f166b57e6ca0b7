// SPDX-License-Identifier: Apache-2.0
//! Subvolumes: made, deleted, asked about.

use super::{VolArgs, call, name, read, read_write, text, write};
use rustix::io::Result;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

/// `struct btrfs_qgroup_inherit` with one group.
#[repr(C)]
struct Inherit {
    flags: u64,
    num_qgroups: u64,
    num_ref_copies: u64,
    num_excl_copies: u64,
    limits: [u64; 5],
    qgroup: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct SizedInherit {
    size: u64,
    inherit: *const Inherit,
}

#[repr(C)]
union InheritField {
    inherit: SizedInherit,
    unused: [u64; 4],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    inherit: InheritField,
    name: [u8; 4040],
}

const SUBVOL_RDONLY: u64 = 1 << 1;
const SUBVOL_QGROUP_INHERIT: u64 = 1 << 2;

/// Makes a subvolume of this name in a directory: a new one, or a snapshot of the one whose top directory `source`
/// is. The quotas of `qgroup` apply to it.
pub(crate) fn create(
    directory: impl AsFd,
    new: &OsStr,
    source: Option<&impl AsRawFd>,
    read_only: bool,
    qgroup: Option<u64>,
) -> Result<()> {
    let inherit = Inherit {
        flags: 0,
        num_qgroups: 1,
        num_ref_copies: 0,
        num_excl_copies: 0,
        limits: [0; 5],
        qgroup: qgroup.unwrap_or(0),
    };
    let mut args = VolArgsV2 {
        fd: source.map_or(0, |fd| fd.as_raw_fd().into()),
        transid: 0,
        flags: if read_only { SUBVOL_RDONLY } else { 0 },
        inherit: InheritField { unused: [0; 4] },
        name: name(new)?,
    };
    if qgroup.is_some() {
        args.flags |= SUBVOL_QGROUP_INHERIT;
        args.inherit.inherit =
            SizedInherit { size: size_of::<Inherit>() as u64, inherit: &raw const inherit };
    }
    match source {
        Some(_) => call::<{ write::<VolArgsV2>(23) }, _>(directory, &mut args).map(drop),
        None => call::<{ write::<VolArgsV2>(24) }, _>(directory, &mut args).map(drop),
    }
}

/// Deletes the subvolume of this name in a directory.
pub(crate) fn delete(directory: impl AsFd, named: &OsStr) -> Result<()> {
    call::<{ write::<VolArgs>(15) }, _>(directory, &mut VolArgs::named(named)?).map(drop)
}

/// Sets the subvolume that is mounted by default.
pub(crate) fn set_default(filesystem: impl AsFd, id: u64) -> Result<()> {
    call::<{ write::<u64>(19) }, _>(filesystem, &mut { id }).map(drop)
}

/// `struct btrfs_ioctl_timespec`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Timespec {
    /// Seconds since 1970.
    pub sec: u64,
    nsec: u32,
}

/// `struct btrfs_ioctl_get_subvol_info_args`.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Info {
    /// Its number.
    pub id: u64,
    name: [u8; 256],
    /// The number of the subvolume that it is in; 0 for the top one.
    pub parent_id: u64,
    dirid: u64,
    /// The last transaction that changed it.
    pub generation: u64,
    flags: u64,
    /// Its UUID; zeros where it has none.
    pub uuid: [u8; 16],
    /// That of the subvolume that it is a snapshot of.
    pub parent_uuid: [u8; 16],
    /// That of the subvolume that was sent.
    pub received_uuid: [u8; 16],
    ctransid: u64,
    /// The transaction that made it.
    pub otransid: u64,
    /// The transaction of which it was sent.
    pub stransid: u64,
    /// The transaction by which it was received.
    pub rtransid: u64,
    ctime: Timespec,
    /// When it was made.
    pub otime: Timespec,
    /// When it was sent.
    pub stime: Timespec,
    /// When it was received.
    pub rtime: Timespec,
    reserved: [u64; 8],
}

impl Info {
    /// Its name.
    pub(crate) fn name(&self) -> &OsStr {
        OsStr::from_bytes(text(&self.name))
    }

    /// Whether it is read only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// What is known of the subvolume that a file or directory is in.
pub(crate) fn info(file: impl AsFd) -> Result<Info> {
    let mut info = Info {
        id: 0,
        name: [0; 256],
        parent_id: 0,
        dirid: 0,
        generation: 0,
        flags: 0,
        uuid: [0; 16],
        parent_uuid: [0; 16],
        received_uuid: [0; 16],
        ctransid: 0,
        otransid: 0,
        stransid: 0,
        rtransid: 0,
        ctime: Timespec::default(),
        otime: Timespec::default(),
        stime: Timespec::default(),
        rtime: Timespec::default(),
        reserved: [0; 8],
    };
    call::<{ read::<Info>(60) }, _>(file, &mut info)?;
    Ok(info)
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InoLookup {
    tree: u64,
    inode: u64,
    name: [u8; 4080],
}

/// The path of a directory, by its inode, below the top directory of its subvolume; empty for that itself, else
/// it ends in `/`.
pub(crate) fn directory_path(filesystem: impl AsFd, tree: u64, inode: u64) -> Result<Vec<u8>> {
    let mut args = InoLookup { tree, inode, name: [0; 4080] };
    call::<{ read_write::<InoLookup>(18) }, _>(filesystem, &mut args)?;
    Ok(text(&args.name).to_vec())
}

/// The number of the subvolume that a file or directory is in.
pub(crate) fn of(file: impl AsFd) -> Result<u64> {
    // The inode of every top directory.
    let mut args = InoLookup { tree: 0, inode: 256, name: [0; 4080] };
    call::<{ read_write::<InoLookup>(18) }, _>(file, &mut args)?;
    Ok(args.tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_expects() {
        assert_eq!(size_of::<VolArgsV2>(), 4096);
        assert_eq!(size_of::<Inherit>(), 80);
        assert_eq!(size_of::<Info>(), 504);
        assert_eq!(size_of::<InoLookup>(), 4096);
    }
}
