// SPDX-License-Identifier: Apache-2.0
//! Searching the trees that a filesystem is made of.

use super::{call, read_write};
use rustix::io::{Errno, Result};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;

/// `struct btrfs_ioctl_search_key`.
#[derive(Clone, Debug)]
#[repr(C)]
struct Key {
    tree: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_kind: u32,
    max_kind: u32,
    items: u32,
    unused: [u32; 9],
}

/// `struct btrfs_ioctl_search_args_v2` without its buffer.
#[repr(C)]
struct Head {
    key: Key,
    size: u64,
}

/// Bytes of the buffer.
const ROOM: usize = 64 << 10;

#[repr(C)]
struct Arguments {
    head: Head,
    found: [u8; ROOM],
}

/// Bytes of what precedes each item: `struct btrfs_ioctl_search_header`.
const HEADER: usize = 32;

/// An item of a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    /// First part of its key.
    pub objectid: u64,
    /// Second part of its key.
    pub kind: u32,
    /// Third part of its key.
    pub offset: u64,
    /// What it says.
    pub data: &'a [u8],
}

/// Calls `visit` for the items of a tree whose keys' first two parts are in these ranges, in the order of their
/// keys.
pub(crate) fn items(
    filesystem: impl AsFd,
    tree: u64,
    objectids: RangeInclusive<u64>,
    kinds: RangeInclusive<u32>,
    mut visit: impl FnMut(Item<'_>) -> Result<()>,
) -> Result<()> {
    let mut key = Key {
        tree,
        min_objectid: *objectids.start(),
        max_objectid: *objectids.end(),
        min_offset: 0,
        max_offset: u64::MAX,
        min_transid: 0,
        max_transid: u64::MAX,
        min_kind: *kinds.start(),
        max_kind: *kinds.end(),
        items: 0,
        unused: [0; 9],
    };
    let head = Head { key: key.clone(), size: 0 };
    let mut arguments = Box::new(Arguments { head, found: [0; ROOM] });
    loop {
        key.items = u32::MAX;
        arguments.head = Head { key: key.clone(), size: ROOM as u64 };
        call::<{ read_write::<Head>(17) }, _>(&filesystem, &mut *arguments)?;
        let mut rest = &arguments.found[..];
        let mut last = None;
        for _ in 0..arguments.head.key.items {
            let (item, next) = first(rest).ok_or(Errno::IO)?;
            // The range is one of whole keys: there are other kinds between.
            if kinds.contains(&item.kind) {
                visit(item)?;
            }
            last = Some((item.objectid, item.kind, item.offset));
            rest = next;
        }
        match last.and_then(after) {
            Some(next) if next.0 <= key.max_objectid => {
                (key.min_objectid, key.min_kind, key.min_offset) = next;
            }
            _ => return Ok(()),
        }
    }
}

/// The first item of those that were found, and the others.
fn first(found: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let (header, rest) = found.split_first_chunk::<HEADER>()?;
    let number = |at: usize| {
        header[at..].first_chunk().map_or(0, |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes))
    };
    let half = |at: usize| {
        header[at..].first_chunk().map_or(0, |bytes: &[u8; 4]| u32::from_ne_bytes(*bytes))
    };
    let len = usize::try_from(half(28)).ok()?;
    let (data, rest) = rest.split_at_checked(len)?;
    Some((Item { objectid: number(8), offset: number(16), kind: half(24), data }, rest))
}

/// The key that follows one.
fn after((objectid, kind, offset): (u64, u32, u64)) -> Option<(u64, u32, u64)> {
    if let Some(offset) = offset.checked_add(1) {
        return Some((objectid, kind, offset));
    }
    // Kinds are of one byte.
    match kind {
        0..255 => Some((objectid, kind + 1, 0)),
        _ => objectid.checked_add(1).map(|objectid| (objectid, 0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_expects() {
        assert_eq!(size_of::<Head>(), 112);
    }

    #[test]
    fn what_was_found_is_taken_apart_and_never_read_beyond_its_end() {
        let mut found = Vec::new();
        for number in [0u64, 257, 5] {
            found.extend(number.to_ne_bytes());
        }
        found.extend(144u32.to_ne_bytes());
        found.extend(3u32.to_ne_bytes());
        found.extend(b"abcrest");
        let (item, rest) = first(&found).unwrap();
        assert_eq!((item.objectid, item.kind, item.offset, item.data), (257, 144, 5, &b"abc"[..]));
        assert_eq!(rest, b"rest");
        for cut in 0..HEADER + 3 {
            assert!(first(&found[..cut]).is_none(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_or_refused(found in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &found[..];
            while let Some((_, next)) = first(rest) {
                assert!(next.len() < rest.len());
                rest = next;
            }
        }
    }

    #[test]
    fn keys_follow_each_other_until_the_last() {
        assert_eq!(after((1, 2, 3)), Some((1, 2, 4)));
        assert_eq!(after((1, 2, u64::MAX)), Some((1, 3, 0)));
        assert_eq!(after((1, 255, u64::MAX)), Some((2, 0, 0)));
        assert_eq!(after((u64::MAX, 255, u64::MAX)), None);
    }
}
