// SPDX-License-Identifier: Apache-2.0
//! Attributes and generations of files, as `lsattr` and `chattr` know them.

use crate::session::Session;
use guest_error::{Context, Error, Result};
use guest_fs::inode;
use guest_fs::paths::{GuestPath, proc_path};
use guestfs_api::options;
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

/// An attribute: its letter, its flag, and whether it can be changed.
struct Attribute(u8, u32, bool);

/// In the order of their letters.
const ATTRIBUTES: &[Attribute] = &[
    Attribute(b'A', 0x80, true),
    Attribute(b'C', 0x80_0000, true),
    Attribute(b'D', DIRSYNC, true),
    Attribute(b'E', 0x800, false),
    Attribute(b'F', 0x4000_0000, true),
    Attribute(b'I', 0x1000, false),
    Attribute(b'N', 0x1000_0000, false),
    Attribute(b'P', 0x2000_0000, true),
    Attribute(b'S', 0x8, true),
    Attribute(b'T', 0x2_0000, true),
    Attribute(b'V', 0x10_0000, false),
    Attribute(b'Z', 0x100, false),
    Attribute(b'a', 0x20, true),
    Attribute(b'c', 0x4, true),
    Attribute(b'd', 0x40, true),
    Attribute(b'e', 0x8_0000, true),
    Attribute(b'h', 0x4_0000, false),
    Attribute(b'i', 0x10, true),
    Attribute(b'j', 0x4000, true),
    Attribute(b'm', 0x400, true),
    Attribute(b's', 0x1, true),
    Attribute(b't', 0x8000, true),
    Attribute(b'u', 0x2, true),
    Attribute(b'x', 0x200_0000, true),
];
/// For directories only.
const DIRSYNC: u32 = 0x1_0000;

/// The file that has the attributes, and whether it is a directory. Others than these two kinds have none: what is
/// asked of a device would be asked of its driver.
fn open(s: &Session, path: GuestPath<'_>) -> Result<(File, bool)> {
    let found = s.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = rustix::fs::fstat(&found).on(path)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !kind.is_file() && !kind.is_dir() {
        return Err(Error::not_supported("neither a file nor a directory").within(path));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(proc_path(found.as_fd()), flags, Mode::empty()).on(path)?;
    Ok((File::from(file), kind.is_dir()))
}

/// Letters of the attributes that a file has.
pub(crate) fn get_e2attrs(s: &mut Session, file: GuestPath<'_>) -> Result<Vec<u8>> {
    let (open, _) = open(s, file)?;
    let flags = inode::flags(&open).on(file)?;
    Ok(ATTRIBUTES.iter().filter(|a| flags & a.1 != 0).map(|a| a.0).collect())
}

/// Sets or clears attributes; the others stay.
pub(crate) fn set_e2attrs(
    s: &mut Session,
    file: GuestPath<'_>,
    attrs: &OsStr,
    options: &options::SetE2attrs,
) -> Result<()> {
    let change = flags_of(attrs)?;
    let (open, is_dir) = open(s, file)?;
    let before = inode::flags(&open).on(file)?;
    let mut after = match options.clear {
        Some(true) => before & !change,
        _ => before | change,
    };
    if !is_dir {
        after &= !DIRSYNC;
    }
    if after == before {
        return Ok(());
    }
    inode::set_flags(&open, after).on(file)
}

fn flags_of(attrs: &OsStr) -> Result<u32> {
    let mut flags = 0;
    for letter in attrs.as_bytes() {
        let why = match ATTRIBUTES.iter().find(|a| a.0 == *letter) {
            Some(a) if flags & a.1 != 0 => "an attribute is given twice",
            Some(a) if a.2 => {
                flags |= a.1;
                continue;
            }
            Some(_) => "an attribute that cannot be changed",
            None => "an attribute that is not known",
        };
        return Err(Error::argument("attrs", attrs, why));
    }
    Ok(flags)
}

/// Generation of a file.
pub(crate) fn get_e2generation(s: &mut Session, file: GuestPath<'_>) -> Result<i64> {
    let (open, _) = open(s, file)?;
    inode::generation(&open).map(i64::from).on(file)
}

/// Sets the generation of a file.
pub(crate) fn set_e2generation(
    s: &mut Session,
    file: GuestPath<'_>,
    generation: i64,
) -> Result<()> {
    let value = u32::try_from(generation).map_err(|_| {
        Error::argument("generation", generation.to_string(), "must be from 0 to 4294967295")
    })?;
    let (open, _) = open(s, file)?;
    inode::set_generation(&open, value).on(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_in_the_order_of_their_letters() {
        assert!(ATTRIBUTES.is_sorted_by_key(|a| a.0));
    }

    #[test]
    fn letters_that_make_no_sense_are_refused() {
        assert_eq!(flags_of(OsStr::new("ai")).unwrap(), 0x30);
        for bad in ["aa", "E", "0", "ä", "a-"] {
            assert!(flags_of(OsStr::new(bad)).unwrap_err().message().starts_with("attrs: "));
        }
    }
}
