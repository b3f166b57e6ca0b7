// SPDX-License-Identifier: Apache-2.0
//! Extended attributes, and what is stored in them: access control lists and capabilities.

use crate::session::Session;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::acl;
use guest_fs::capabilities::{self, Capabilities};
use guest_fs::paths::GuestPath;
use guest_fs::xattr;
use guestfs_api::frame::MAX_MESSAGE;
use guestfs_api::structs;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno as Raw;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

/// What a path leads to.
const FOLLOW: OFlags = OFlags::PATH;
/// The last component itself.
const NOFOLLOW: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW);

/// The attribute that capabilities are in.
const CAPABILITY: &str = "security.capability";

/// All attributes, followed.
pub(crate) fn getxattrs(s: &mut Session, path: GuestPath<'_>) -> Result<Vec<structs::Xattr>> {
    all(s, path, FOLLOW)
}

/// All attributes, not followed.
pub(crate) fn lgetxattrs(s: &mut Session, path: GuestPath<'_>) -> Result<Vec<structs::Xattr>> {
    all(s, path, NOFOLLOW)
}

fn all(s: &Session, path: GuestPath<'_>, how: OFlags) -> Result<Vec<structs::Xattr>> {
    let file = s.open(path, how)?;
    let found = xattr::all(file.as_fd()).on(path)?.into_iter();
    Ok(found.map(|(attrname, attrval)| structs::Xattr { attrname, attrval }).collect())
}

/// An attribute's value, followed.
pub(crate) fn getxattr(s: &mut Session, path: GuestPath<'_>, name: &OsStr) -> Result<Vec<u8>> {
    xattr::get(s.open(path, FOLLOW)?.as_fd(), name).on(path)
}

/// An attribute's value, not followed.
pub(crate) fn lgetxattr(s: &mut Session, path: GuestPath<'_>, name: &OsStr) -> Result<Vec<u8>> {
    xattr::get(s.open(path, NOFOLLOW)?.as_fd(), name).on(path)
}

/// Sets an attribute, followed.
pub(crate) fn setxattr(
    s: &mut Session,
    name: &OsStr,
    val: &OsStr,
    vallen: i32,
    path: GuestPath<'_>,
) -> Result<()> {
    set(s, name, val, vallen, path, FOLLOW)
}

/// Sets an attribute, not followed.
pub(crate) fn lsetxattr(
    s: &mut Session,
    name: &OsStr,
    val: &OsStr,
    vallen: i32,
    path: GuestPath<'_>,
) -> Result<()> {
    set(s, name, val, vallen, path, NOFOLLOW)
}

fn set(
    s: &Session,
    name: &OsStr,
    val: &OsStr,
    vallen: i32,
    path: GuestPath<'_>,
    how: OFlags,
) -> Result<()> {
    let mut value = val.as_bytes().to_vec();
    // The NUL at the end may be meant.
    value.push(0);
    let len = usize::try_from(vallen).ok().filter(|n| *n <= value.len()).ok_or_else(|| {
        Error::argument("vallen", vallen.to_string(), "is no length of this value")
    })?;
    xattr::set(s.open(path, how)?.as_fd(), name, &value[..len]).on(path)
}

/// Removes an attribute, followed.
pub(crate) fn removexattr(s: &mut Session, name: &OsStr, path: GuestPath<'_>) -> Result<()> {
    xattr::remove(s.open(path, FOLLOW)?.as_fd(), name).on(path)
}

/// Removes an attribute, not followed.
pub(crate) fn lremovexattr(s: &mut Session, name: &OsStr, path: GuestPath<'_>) -> Result<()> {
    xattr::remove(s.open(path, NOFOLLOW)?.as_fd(), name).on(path)
}

/// All attributes of these names in a directory. For each there is one without a name, whose value is their
/// number as text (with NUL), or empty if they could not be read, and then they themselves.
pub(crate) fn internal_lxattrlist(
    s: &mut Session,
    path: GuestPath<'_>,
    names: &[&OsStr],
) -> Result<Vec<structs::Xattr>> {
    let dir = s.open(path, OFlags::PATH | OFlags::DIRECTORY);
    let flags = NOFOLLOW | OFlags::CLOEXEC;
    let mut list = Vec::new();
    let mut size = 0;
    for name in names {
        // A name, not a path: one with a slash in it could lead anywhere.
        let file = match &dir {
            Ok(dir) if !name.as_bytes().contains(&b'/') => {
                rustix::fs::openat(dir, *name, flags, Mode::empty())
            }
            _ => Err(Raw::NOENT),
        };
        let found = file.and_then(|file| xattr::all(file.as_fd()));
        let attrval = found.as_ref().map(|f| format!("{}\0", f.len()).into_bytes());
        list.push(structs::Xattr { attrname: "".into(), attrval: attrval.unwrap_or_default() });
        for (attrname, attrval) in found.unwrap_or_default() {
            size += attrname.len() + attrval.len();
            if size > MAX_MESSAGE {
                return Err(super::contents::too_long().within(path));
            }
            list.push(structs::Xattr { attrname, attrval });
        }
    }
    Ok(list)
}

/// The attribute of an access control list, by the type that clients name.
fn acl_attribute(acltype: &OsStr) -> Result<&'static str> {
    match acltype.as_bytes() {
        b"access" => Ok("system.posix_acl_access"),
        b"default" => Ok("system.posix_acl_default"),
        _ => Err(Error::argument("acltype", acltype, "expecting access or default")),
    }
}

/// An access control list as text. Without one, that for access is what the mode says, the default is empty.
pub(crate) fn acl_get_file(
    s: &mut Session,
    path: GuestPath<'_>,
    acltype: &OsStr,
) -> Result<String> {
    let attribute = acl_attribute(acltype)?;
    let file = s.open(path, FOLLOW)?;
    let stat = rustix::fs::fstat(&file).on(path)?;
    match xattr::get(file.as_fd(), attribute) {
        Ok(value) => {
            let text = acl::to_text(&value);
            let text = text.ok_or_else(|| Error::new(Errno::EIO, "not a list").within(path))?;
            Ok(with_effective(&text))
        }
        Err(Raw::NODATA) if acltype == "access" => Ok(from_mode(stat.st_mode)),
        Err(Raw::NODATA) if FileType::from_raw_mode(stat.st_mode).is_dir() => Ok(String::new()),
        Err(Raw::NODATA) => {
            let why = "only a directory has a default list";
            Err(Error::new(Errno::EACCES, why).within(path))
        }
        Err(e) => Err(e).on(path),
    }
}

fn from_mode(mode: u32) -> String {
    ["user", "group", "other"]
        .iter()
        .zip([6, 3, 0])
        .map(|(who, shift)| format!("{who}::{}\n", letters(mode >> shift)))
        .collect()
}

fn letters(bits: u32) -> String {
    [(4, 'r'), (2, 'w'), (1, 'x')]
        .iter()
        .map(|(bit, letter)| if bits & bit != 0 { *letter } else { '-' })
        .collect()
}

/// The text of a list in which entries that the mask restricts say what is left of them.
fn with_effective(text: &str) -> String {
    let mask = text.lines().find_map(|line| line.strip_prefix("mask::"));
    let mut out = String::new();
    for line in text.lines() {
        out.push_str(line);
        let restricted = line.starts_with("group:")
            || (line.starts_with("user:") && !line.starts_with("user::"));
        if let (Some(mask), Some((_, permissions))) = (mask, line.rsplit_once(':'))
            && restricted
        {
            let left: String = permissions
                .chars()
                .zip(mask.chars())
                .map(|(p, m)| if p == m { p } else { '-' })
                .collect();
            if left != permissions {
                out.push_str("\t#effective:");
                out.push_str(&left);
            }
        }
        out.push('\n');
    }
    out
}

/// Sets an access control list; an empty one removes it.
pub(crate) fn acl_set_file(
    s: &mut Session,
    path: GuestPath<'_>,
    acltype: &OsStr,
    acl: &OsStr,
) -> Result<()> {
    let attribute = acl_attribute(acltype)?;
    let file = s.open(path, FOLLOW)?;
    let text = acl.to_string_lossy();
    if text.trim().is_empty() {
        return remove_acl(&file, attribute, path);
    }
    let value = acl::from_text(&text, |_, _| None).ok_or_else(|| {
        Error::argument("acl", acl, "not an access control list with numbers of users and groups")
    })?;
    xattr::set(file.as_fd(), attribute, &value).on(path)
}

/// Removes a directory's default access control list.
pub(crate) fn acl_delete_def_file(s: &mut Session, dir: GuestPath<'_>) -> Result<()> {
    remove_acl(&s.open(dir, FOLLOW)?, acl_attribute(OsStr::new("default"))?, dir)
}

fn remove_acl(file: &File, attribute: &str, path: GuestPath<'_>) -> Result<()> {
    match xattr::remove(file.as_fd(), attribute) {
        Err(Raw::NODATA) => Ok(()),
        done => done.on(path),
    }
}

/// A file's capabilities as text; empty if it has none.
pub(crate) fn cap_get_file(s: &mut Session, path: GuestPath<'_>) -> Result<String> {
    match xattr::get(s.open(path, FOLLOW)?.as_fd(), CAPABILITY) {
        Err(Raw::NODATA) => Ok(String::new()),
        Err(e) => Err(e).on(path),
        Ok(value) => {
            Capabilities::from_xattr(&value).map(|c| c.to_text(capabilities::known())).ok_or_else(
                || Error::new(Errno::EINVAL, "capabilities of an unknown form").within(path),
            )
        }
    }
}

/// Sets a regular file's capabilities.
pub(crate) fn cap_set_file(s: &mut Session, path: GuestPath<'_>, cap: &OsStr) -> Result<()> {
    let text = cap.to_string_lossy();
    let parsed = Capabilities::from_text(&text, capabilities::known()).ok_or_else(|| {
        Error::argument("cap", cap, "not capabilities as cap_from_text(3) reads them")
    })?;
    let value = parsed.to_xattr().ok_or_else(|| {
        let why = "for a file, either all capabilities are effective (e) or none";
        Error::argument("cap", cap, why)
    })?;
    let file = s.open(path, NOFOLLOW)?;
    let stat = rustix::fs::fstat(&file).on(path)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        let why = "only a regular file has capabilities";
        return Err(Error::new(Errno::EINVAL, why).within(path));
    }
    xattr::set(file.as_fd(), CAPABILITY, &value).on(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_the_mask_restricts_say_what_is_left() {
        let text = "user::rwx\nuser:5:r-x\ngroup::r-x\ngroup:7:r--\nmask::r--\nother::rwx\n";
        let expected = "user::rwx\nuser:5:r-x\t#effective:r--\ngroup::r-x\t#effective:r--\n\
                        group:7:r--\nmask::r--\nother::rwx\n";
        assert_eq!(with_effective(text), expected);
        let plain = from_mode(0o100_751);
        assert_eq!(plain, "user::rwx\ngroup::r-x\nother::--x\n");
        assert_eq!(with_effective(&plain), plain);
    }
}
