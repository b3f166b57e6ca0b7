// SPDX-License-Identifier: Apache-2.0
//! Filling files and directories, and names that nobody has yet.

use super::numbers::not_negative;
use crate::session::Session;
use crate::transfer::Progress;
use guest_error::{Calling, Context, Error, Result};
use guest_fs::paths::GuestPath;
use guestfs_api::options;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno as Raw;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Bytes that are written at once, at least.
const PIECE: usize = 256 << 10;

/// Makes a file of so many bytes of one value.
pub(crate) fn fill(
    s: &mut Session,
    c: i32,
    len: i32,
    path: GuestPath<'_>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let byte = u8::try_from(c)
        .map_err(|_| Error::argument("c", c.to_string(), "expecting a byte, 0 to 255"))?;
    repeat(s, &[byte], len, path, progress)
}

/// Makes a file of so many bytes of a pattern that repeats.
pub(crate) fn fill_pattern(
    s: &mut Session,
    pattern: &OsStr,
    len: i32,
    path: GuestPath<'_>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    if pattern.is_empty() {
        return Err(Error::argument("pattern", pattern, "must not be empty"));
    }
    repeat(s, pattern.as_bytes(), len, path, progress)
}

fn repeat(
    s: &Session,
    pattern: &[u8],
    len: i32,
    path: GuestPath<'_>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let len: u64 = not_negative("len", len)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let mut file = s.open(path, flags).calling("open")?;
    let piece = pattern.repeat(PIECE.div_ceil(pattern.len()));
    let mut done = 0;
    while done < len {
        let n = usize::try_from(len - done).unwrap_or(usize::MAX).min(piece.len());
        file.write_all(&piece[..n]).on(path).calling("write")?;
        done += n as u64;
        progress.at(done, len);
    }
    Ok(())
}

/// Makes so many empty files, named by their numbers from 00000000 on.
pub(crate) fn fill_dir(s: &mut Session, dir: GuestPath<'_>, nr: i32) -> Result<()> {
    let nr: u64 = not_negative("nr", nr)?;
    let open = s.open(dir, OFlags::PATH | OFlags::DIRECTORY)?;
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for n in 0..nr {
        let name = format!("{n:08}");
        rustix::fs::openat(&open, &*name, flags, Mode::from_raw_mode(0o666))
            .on(name)
            .map_err(|e| e.within(dir))?;
    }
    Ok(())
}

/// Makes a directory of a name that nobody has yet.
pub(crate) fn mkdtemp(s: &mut Session, tmpl: GuestPath<'_>) -> Result<OsString> {
    unique(s, tmpl, b"", |dir, name| rustix::fs::mkdirat(dir, name, Mode::RWXU))
}

/// Makes a file of a name that nobody has yet.
pub(crate) fn mktemp(
    s: &mut Session,
    tmpl: GuestPath<'_>,
    options: &options::Mktemp<'_>,
) -> Result<OsString> {
    let suffix = options.suffix.unwrap_or_default();
    if suffix.as_bytes().contains(&b'/') {
        return Err(Error::argument("suffix", suffix, "must not have a slash in it"));
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    unique(s, tmpl, suffix.as_bytes(), |dir, name| {
        rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(drop)
    })
}

/// What the template's end stands for.
const PLACES: &[u8] = b"XXXXXX";
const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

fn unique(
    s: &Session,
    tmpl: GuestPath<'_>,
    suffix: &[u8],
    make: impl Fn(&std::os::fd::OwnedFd, &OsStr) -> rustix::io::Result<()>,
) -> Result<OsString> {
    let Some(stem) = tmpl.bytes().strip_suffix(PLACES) else {
        return Err(Error::argument("tmpl", tmpl, "must end in XXXXXX"));
    };
    let entry = s.entry(tmpl)?;
    let name = entry.name.as_bytes();
    let head = &name[..name.len() - PLACES.len()];
    for _ in 0..100 {
        let mut random = RandomState::new().build_hasher().finish();
        let letters: Vec<u8> = PLACES
            .iter()
            .map(|_| {
                let letter = LETTERS[usize::try_from(random % 62).unwrap_or_default()];
                random /= 62;
                letter
            })
            .collect();
        let name = OsString::from_vec([head, &letters, suffix].concat());
        match make(&entry.dir, &name) {
            Err(Raw::EXIST) => {}
            made => {
                made.on(tmpl)?;
                return Ok(OsString::from_vec([stem, &letters, suffix].concat()));
            }
        }
    }
    Err(Raw::EXIST).on(tmpl)
}
