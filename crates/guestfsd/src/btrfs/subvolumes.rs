// SPDX-License-Identifier: Apache-2.0
//! Which subvolumes a filesystem has.

use super::fields::{le16, le64};
use super::ioctl::search::{Item, items};
use super::ioctl::subvolumes::directory_path;
use rustix::io::{Errno, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

/// The tree that has an item for each other tree.
const ROOTS: u64 = 1;
/// The top subvolume's number.
pub(crate) const TOP: u64 = 5;
/// Numbers of all others, and of the inode of each one's top directory: the first one.
pub(crate) const FIRST: u64 = 256;
const LAST: u64 = 0_u64.wrapping_sub(256);
/// Kinds of items.
const DIR_ITEM: u32 = 84;
const ROOT_ITEM: u32 = 132;
const ROOT_BACKREF: u32 = 144;
/// The directory in the tree of trees that names the default subvolume.
const ROOT_DIRECTORY: u64 = 6;
/// Bytes of all paths: more would not fit into a reply.
const MAX_PATHS: usize = guestfs_api::frame::MAX_MESSAGE;

/// A subvolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subvolume {
    /// Its number.
    pub id: u64,
    /// The number of the one that it is in.
    pub parent: u64,
    /// Its path.
    pub path: OsString,
}

/// Where a subvolume is: in which other one, and its path there.
#[derive(Debug)]
struct Place {
    parent: u64,
    path: Vec<u8>,
}

/// All but the top one, by number. Paths begin at the top one; those of what is in `base`, at that.
pub(crate) fn list(filesystem: impl AsFd, base: u64) -> Result<Vec<Subvolume>> {
    let mut places = BTreeMap::new();
    let mut bytes = 0;
    items(&filesystem, ROOTS, FIRST..=LAST, ROOT_BACKREF..=ROOT_BACKREF, |item| {
        let (directory, name) = backref(item.data).ok_or(Errno::IO)?;
        let mut path = match directory {
            FIRST => Vec::new(),
            _ => directory_path(&filesystem, item.offset, directory)?,
        };
        path.extend_from_slice(name);
        grow(&mut bytes, path.len())?;
        places.insert(item.objectid, Place { parent: item.offset, path });
        Ok(())
    })?;
    let mut bytes = 0;
    let mut found = Vec::with_capacity(places.len());
    for (&id, place) in &places {
        let path = full_path(&places, id, base)?;
        grow(&mut bytes, path.len())?;
        found.push(Subvolume { id, parent: place.parent, path });
    }
    Ok(found)
}

fn grow(bytes: &mut usize, by: usize) -> Result<()> {
    *bytes += by;
    if *bytes > MAX_PATHS { Err(Errno::FBIG) } else { Ok(()) }
}

/// The number of a directory and the name in it that a `struct btrfs_root_ref` has.
fn backref(data: &[u8]) -> Option<(u64, &[u8])> {
    let len = usize::from(le16(data, 16)?);
    Some((le64(data, 0)?, data.get(18..)?.get(..len)?))
}

/// The path of a subvolume below the top one, or below `base` if it is in that.
fn full_path(places: &BTreeMap<u64, Place>, id: u64, base: u64) -> Result<OsString> {
    let mut parts = Vec::new();
    let mut at = id;
    let mut len = 0;
    while let Some(place) = places.get(&at) {
        // What is in itself has no path.
        if parts.len() > places.len() {
            return Err(Errno::LOOP);
        }
        parts.push(place.path.as_slice());
        grow(&mut len, place.path.len() + 1)?;
        at = place.parent;
        if at == base {
            break;
        }
    }
    parts.reverse();
    Ok(OsString::from_vec(parts.join(&b'/')))
}

/// The number of the subvolume that is mounted if none is named.
pub(crate) fn default(filesystem: impl AsFd) -> Result<u64> {
    let mut found = TOP;
    items(filesystem, ROOTS, ROOT_DIRECTORY..=ROOT_DIRECTORY, DIR_ITEM..=DIR_ITEM, |item| {
        if let Some(id) = default_entry(item.data) {
            found = id;
        }
        Ok(())
    })?;
    Ok(found)
}

/// The number in the `struct btrfs_dir_item` whose name is `default`: names of the same hash are in one item.
fn default_entry(mut data: &[u8]) -> Option<u64> {
    loop {
        let (data_len, name_len) = (usize::from(le16(data, 25)?), usize::from(le16(data, 27)?));
        let rest = data.get(30..)?;
        if rest.get(..name_len)? == b"default" {
            return le64(data, 0);
        }
        data = rest.get(name_len + data_len..)?;
    }
}

/// Numbers of the snapshots of the subvolume with this UUID.
pub(crate) fn snapshots(filesystem: impl AsFd, uuid: &[u8; 16]) -> Result<Vec<u64>> {
    /// Where the UUID of what it was made of is in a `struct btrfs_root_item`.
    const PARENT_UUID: usize = 263;
    let mut found = Vec::new();
    if *uuid == [0; 16] {
        return Ok(found);
    }
    items(filesystem, ROOTS, FIRST..=LAST, ROOT_ITEM..=ROOT_ITEM, |item: Item<'_>| {
        if item.data.get(PARENT_UUID..PARENT_UUID + 16) == Some(uuid) {
            found.push(item.objectid);
        }
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(all: &[(u64, u64, &str)]) -> BTreeMap<u64, Place> {
        let place = |parent, path: &str| Place { parent, path: path.as_bytes().to_vec() };
        all.iter().map(|&(id, parent, path)| (id, place(parent, path))).collect()
    }

    #[test]
    fn a_path_leads_from_the_top_or_from_the_base() {
        let all = places(&[(256, 5, "root"), (257, 256, "var/lib"), (258, 257, "x")]);
        let path = |id, base| full_path(&all, id, base).unwrap();
        assert_eq!(path(258, TOP), "root/var/lib/x");
        assert_eq!(path(258, 256), "var/lib/x");
        assert_eq!(path(256, 257), "root");
        assert_eq!(path(257, 257), "root/var/lib");
    }

    #[test]
    fn subvolumes_that_are_in_each_other_are_an_error() {
        let all = places(&[(256, 257, "a"), (257, 256, "b")]);
        assert_eq!(full_path(&all, 256, TOP), Err(Errno::LOOP));
    }

    #[test]
    fn paths_that_would_fill_the_memory_are_an_error() {
        let long = "x".repeat(60_000);
        let all: Vec<_> =
            (256..400).map(|id| (id, if id == 256 { 5 } else { id - 1 }, long.as_str())).collect();
        assert_eq!(full_path(&places(&all), 399, TOP), Err(Errno::FBIG));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            backref(&data);
            default_entry(&data);
        }
    }

    #[test]
    fn items_that_end_too_early_say_nothing() {
        let mut data = Vec::new();
        data.extend(256u64.to_le_bytes());
        data.extend(3u64.to_le_bytes());
        data.extend(4u16.to_le_bytes());
        data.extend(b"name");
        assert_eq!(backref(&data), Some((256, &b"name"[..])));
        for cut in 0..data.len() {
            assert_eq!(backref(&data[..cut]), None);
        }
        let mut entry = vec![0; 30];
        entry[0] = 7;
        entry[27] = 7;
        entry.extend(b"default");
        assert_eq!(default_entry(&entry), Some(7));
        for cut in 0..entry.len() {
            assert_eq!(default_entry(&entry[..cut]), None);
        }
    }
}
