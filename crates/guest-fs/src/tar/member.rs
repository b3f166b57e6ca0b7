// SPDX-License-Identifier: Apache-2.0
//! What a member is to be: its header, and what the archive says of it besides, with the names that this machine
//! knows and what the caller wants of it all.

use crate::acl;
use crate::tar::extra::Extra;
use crate::tar::fault::{invalid, unsigned};
use crate::tar::header::{Field, GID, GNAME, Header, MODE, MTIME, UID, UNAME};
use crate::tar::names::Names;
use crate::tar::{ACLS, Attributes, SELINUX};
use guest_error::Result;
use rustix::fs::{Mode, Timespec, Timestamps};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// What is set when a file's content is complete.
pub(super) struct Meta {
    pub(super) shown: OsString,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: Mode,
    pub(super) times: Timestamps,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is the same for all members.
pub(super) struct Common {
    users: Names,
    groups: Names,
    wanted: Attributes,
    /// Of pax global headers.
    pub(super) global: Extra,
}

impl Common {
    /// Before the first member; `wanted` is what of the members' attributes is set.
    pub(super) fn new(wanted: Attributes) -> Self {
        Self { users: Names::users(), groups: Names::groups(), wanted, global: Extra::default() }
    }

    /// What the member of this header and name is to be.
    pub(super) fn meta(&self, header: &Header, extra: &Extra, name: &[u8]) -> Result<Meta> {
        let id = |names: &Names,
                  given: &Option<Vec<u8>>,
                  field: Field,
                  value: Option<u32>,
                  number: Field| {
            let name = given.as_deref().unwrap_or(header.text(field));
            // This machine's number of the name, if it knows the name.
            let known = if name.is_empty() { None } else { names.id(name) };
            match known.or(value) {
                Some(id) => Ok(id),
                None => u32::try_from(unsigned(header.number(number), "owner")?)
                    .map_err(|_| invalid("owner")),
            }
        };
        let mtime = match extra.mtime.or(self.global.mtime) {
            Some(time) => time,
            None => Timespec {
                tv_sec: header.number(MTIME).ok_or_else(|| invalid("time"))?,
                tv_nsec: 0,
            },
        };
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let mode = unsigned(header.number(MODE), "mode")? & 0o7777;
        Ok(Meta {
            shown: OsString::from_vec(name.to_vec()),
            uid: id(&self.users, &extra.uname, UNAME, extra.uid.or(self.global.uid), UID)?,
            gid: id(&self.groups, &extra.gname, GNAME, extra.gid.or(self.global.gid), GID)?,
            mode: Mode::from_raw_mode(u32::try_from(mode).unwrap_or(0)),
            times: Timestamps { last_access: now, last_modification: mtime },
            xattrs: self.xattrs(extra)?,
        })
    }

    /// Extended attributes that are to be set.
    fn xattrs(&self, extra: &Extra) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let wanted = self.wanted;
        let mut found = Vec::new();
        for (key, value) in &extra.xattrs {
            let acl = ACLS.iter().find(|(_, k)| k.as_bytes() == key);
            if let Some((attribute, _)) = acl {
                let id = |user, name: &str| {
                    if user { &self.users } else { &self.groups }.id(name.as_bytes())
                };
                let list =
                    std::str::from_utf8(value).ok().and_then(|text| acl::from_text(text, id));
                match list {
                    Some(list) if wanted.acls => found.push((attribute.as_bytes().to_vec(), list)),
                    // As with owners: names that this machine does not know are ignored.
                    None if wanted.acls => tracing::warn!(?value, "access control list left out"),
                    _ => {}
                }
            } else if key == b"RHT.security.selinux" || key == b"SCHILY.xattr.security.selinux" {
                if wanted.selinux {
                    found.push((SELINUX.as_bytes().to_vec(), value.clone()));
                }
            } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                && wanted.xattrs
            {
                found.push((name.to_vec(), value.clone()));
            }
        }
        Ok(found)
    }
}

/// A member's path without what would lead out of the directory.
pub(super) fn inside(name: &[u8]) -> &[u8] {
    let mut begin = 0;
    let mut at = 0;
    for component in name.split(|&b| b == b'/') {
        at += component.len() + 1;
        if component == b".." {
            begin = at.min(name.len());
        }
    }
    let mut rest = &name[begin..];
    loop {
        rest = match rest {
            [b'/', after @ ..] | [b'.', b'/', after @ ..] => after,
            b"." => b"",
            rest => return rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_members_path_leads_out() {
        for (name, path) in [
            (&b"./a/b"[..], &b"a/b"[..]),
            (b"/a", b"a"),
            (b"///a/./b", b"a/./b"),
            (b"../../a", b"a"),
            (b"a/../../b/c", b"b/c"),
            (b"..", b""),
            (b".", b""),
            (b"a/..", b""),
            (b"..a/b..", b"..a/b.."),
        ] {
            assert_eq!(inside(name), path, "{}", String::from_utf8_lossy(name));
        }
    }
}
