// SPDX-License-Identifier: Apache-2.0
//! Scans of the guest's files by rules of YARA, in processes apart.

use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::{FileIn, FileOut};
use crate::yara::MAX_RULES;
use guest_error::{Calling, Context, Errno, Error, Result, from_io};
use guest_fs::paths::{GuestPath, proc_path};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

/// The session's rules, compiled.
#[derive(Debug, Default)]
struct State(Option<File>);

fn no_rules() -> Error {
    Error::new(Errno::EINVAL, "no yara rules loaded: call 'yara-load' first")
}

/// Loads rules, as text or compiled, in place of those that were loaded.
pub(crate) fn yara_load(s: &mut Session, filename: &mut FileIn<'_>) -> Result<()> {
    s.state::<State>().0 = None;
    let mut rules = File::from(memfd_create("yara", MemfdFlags::CLOEXEC).on("memfd")?);
    let mut len = 0;
    let output = Tool::helper("yara-compile").stream(filename, &mut |piece| {
        len += piece.len() as u64;
        if len > MAX_RULES {
            return Err(Error::new(Errno::EFBIG, "more than 256 MiB of compiled rules"));
        }
        rules.write_all(piece).on("memfd")
    })?;
    output.success()?;
    s.state::<State>().0 = Some(rules);
    Ok(())
}

/// Forgets the rules.
pub(crate) fn yara_destroy(s: &mut Session) -> Result<()> {
    s.state::<State>().0.take().map(drop).ok_or_else(no_rules)
}

/// Sends the rules that a file matches.
pub(crate) fn internal_yara_scan(
    s: &mut Session,
    path: GuestPath<'_>,
    filename: &mut FileOut<'_>,
) -> Result<()> {
    s.state::<State>().0.as_ref().ok_or_else(no_rules)?;
    let file = s.open(path, OFlags::RDONLY).calling("open")?;
    if !file.metadata().on(path)?.is_file() {
        return Err(Error::argument("path", path, "not a regular file"));
    }
    let rules = s.state::<State>().0.as_ref().ok_or_else(no_rules)?;
    let mut request = Vec::new();
    for descriptor in [rules.as_fd(), file.as_fd()] {
        request.extend_from_slice(proc_path(descriptor).as_os_str().as_bytes());
        request.push(0);
    }
    request.extend_from_slice(path.bytes());
    let send = &mut |piece: &[u8]| filename.write_all(piece).map_err(|e| from_io(e, path));
    Tool::helper("yara-scan").stream(&mut &*request, send)?.success().map(drop)
}
