// SPDX-License-Identifier: Apache-2.0
//! Quota groups: their numbers, and what each uses.

use super::fields::le64;
use super::ioctl::search::items;
use guest_error::{Error, Result};
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::AsFd;

/// The tree of quotas.
const QUOTAS: u64 = 8;
/// Kinds of items.
const QGROUP_INFO: u32 = 242;
const QGROUP_LIMIT: u32 = 244;
/// Bits of the number at its level.
const ID_BITS: u32 = 48;

/// The number of a qgroup: its level, and its number there. At level 0 that is a subvolume's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QgroupId(pub u64);

impl QgroupId {
    /// `LEVEL/ID`; `argument` is what errors say.
    pub(crate) fn parse(argument: &str, text: &OsStr) -> Result<Self> {
        let number = |text: &str| {
            text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
        };
        let parse = |text: &str| {
            let (level, id) = text.split_once('/')?;
            let level = number(level).filter(|&level| level <= u64::from(u16::MAX))?;
            let id = number(id).filter(|&id| id >> ID_BITS == 0)?;
            Some(Self(level << ID_BITS | id))
        };
        let why = "not a qgroup, LEVEL/ID";
        text.to_str().and_then(parse).ok_or_else(|| Error::argument(argument, text, why))
    }

    /// That of a subvolume itself.
    pub(crate) fn of_subvolume(id: u64) -> Self {
        Self(id & ((1 << ID_BITS) - 1))
    }
}

impl fmt::Display for QgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0 >> ID_BITS, self.0 & ((1 << ID_BITS) - 1))
    }
}

/// What a qgroup uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The qgroup.
    pub id: QgroupId,
    /// Bytes that it refers to.
    pub referenced: u64,
    /// Bytes of them that nothing else refers to.
    pub exclusive: u64,
}

/// All qgroups, by level and number; an error (ENOENT) if quotas are not enabled.
pub(crate) fn list(filesystem: impl AsFd) -> rustix::io::Result<Vec<Usage>> {
    let mut found = Vec::new();
    items(filesystem, QUOTAS, 0..=0, QGROUP_INFO..=QGROUP_INFO, |item| {
        let (Some(referenced), Some(exclusive)) = (le64(item.data, 8), le64(item.data, 24)) else {
            return Err(rustix::io::Errno::IO);
        };
        found.push(Usage { id: QgroupId(item.offset), referenced, exclusive });
        Ok(())
    })?;
    Ok(found)
}

/// Limits of a qgroup in bytes, of what it refers to and of what nothing else does; none where it has none.
pub(crate) fn limits(
    filesystem: impl AsFd,
    qgroup: QgroupId,
) -> rustix::io::Result<[Option<u64>; 2]> {
    let mut found = [None; 2];
    items(filesystem, QUOTAS, 0..=0, QGROUP_LIMIT..=QGROUP_LIMIT, |item| {
        if item.offset == qgroup.0 {
            let flags = le64(item.data, 0).unwrap_or(0);
            let limit = |bit: u64, at| le64(item.data, at).filter(|_| flags & bit != 0);
            found = [limit(1, 8), limit(2, 16)];
        }
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qgroup_has_a_level_and_a_number() {
        let parse = |text: &str| QgroupId::parse("qgroupid", OsStr::new(text));
        assert_eq!(parse("0/257").unwrap().to_string(), "0/257");
        assert_eq!(parse("1/100").unwrap().to_string(), "1/100");
        assert_eq!(parse("65535/281474976710655").unwrap().0, u64::MAX);
        for bad in [
            "",
            "257",
            "/",
            "1/",
            "/1",
            "-1/2",
            "+1/2",
            "65536/0",
            "0/281474976710656",
            "/sub",
            "1/2/3",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(QgroupId::of_subvolume(257).to_string(), "0/257");
    }
}
