// SPDX-License-Identifier: Apache-2.0
//! Extended attributes of files that are open for nothing but their place (`O_PATH`): of any type, links too.

use crate::paths::proc_path;
use rustix::fs::XattrFlags;
use rustix::io::{Errno as Raw, Result};
use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

/// Longest list of names and longest value (the kernel's own limits).
const MAX: usize = 64 << 10;
/// What most fit into.
const USUAL: usize = 512;

// The calls for descriptors do not take those of O_PATH; the descriptor's link in /proc leads to the file, and
// if that is a symbolic link itself, not further.

/// Names of all attributes, sorted.
pub fn names(fd: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let path = proc_path(fd);
    let list = read(|buffer| rustix::fs::listxattr(&path, buffer))?;
    let names = list.split(|&b| b == 0).filter(|name| !name.is_empty());
    let mut names: Vec<OsString> = names.map(|name| OsStr::from_bytes(name).to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The value of an attribute.
pub fn get(fd: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> Result<Vec<u8>> {
    let path = proc_path(fd);
    read(|buffer| rustix::fs::getxattr(&path, name.as_ref(), buffer))
}

fn read(call: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; USUAL];
    let n = match call(&mut buffer) {
        Err(Raw::RANGE) => {
            buffer.resize(MAX, 0);
            call(&mut buffer)?
        }
        n => n?,
    };
    buffer.truncate(n);
    Ok(buffer)
}

/// Sets an attribute.
pub fn set(fd: BorrowedFd<'_>, name: impl AsRef<OsStr>, value: &[u8]) -> Result<()> {
    rustix::fs::setxattr(proc_path(fd), name.as_ref(), value, XattrFlags::empty())
}

/// Removes an attribute.
pub fn remove(fd: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> Result<()> {
    rustix::fs::removexattr(proc_path(fd), name.as_ref())
}

/// All attributes with their values, sorted by name; one that goes meanwhile is left out.
pub fn all(fd: BorrowedFd<'_>) -> Result<Vec<(OsString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in names(fd)? {
        match get(fd, &name) {
            Err(Raw::NODATA) => {}
            value => found.push((name, value?)),
        }
    }
    Ok(found)
}
