// SPDX-License-Identifier: Apache-2.0
//! Archives, unpacked into the guest and made from it.

use crate::compression::{compressed, decompressed};
use crate::session::Session;
use crate::transfer::{FileIn, FileOut};
use guest_error::{Error, Result};
use guest_fs::cpio;
use guest_fs::glob::Pattern;
use guest_fs::paths::GuestPath;
use guest_fs::tar::{Attributes, create, extract};
use guestfs_api::options;
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Unpacks a tar archive into a directory.
pub(crate) fn tar_in(
    s: &mut Session,
    tarfile: &mut FileIn<'_>,
    directory: GuestPath<'_>,
    options: &options::TarIn<'_>,
) -> Result<()> {
    let how = extract::Options {
        attributes: Attributes {
            xattrs: options.xattrs == Some(true),
            selinux: options.selinux == Some(true),
            acls: options.acls == Some(true),
        },
        keep_directory_links: options.keepdirlink == Some(true),
    };
    unpack(s, tarfile, directory, options.compress, how)
}

/// Unpacks a tar archive that gzip has compressed.
pub(crate) fn tgz_in(
    s: &mut Session,
    tarball: &mut FileIn<'_>,
    directory: GuestPath<'_>,
) -> Result<()> {
    unpack(s, tarball, directory, Some(OsStr::new("gzip")), extract::Options::default())
}

/// Unpacks a tar archive that xz has compressed.
pub(crate) fn txz_in(
    s: &mut Session,
    tarball: &mut FileIn<'_>,
    directory: GuestPath<'_>,
) -> Result<()> {
    unpack(s, tarball, directory, Some(OsStr::new("xz")), extract::Options::default())
}

fn unpack(
    s: &Session,
    file: &mut FileIn<'_>,
    directory: GuestPath<'_>,
    compress: Option<&OsStr>,
    how: extract::Options,
) -> Result<()> {
    s.open(directory, OFlags::PATH | OFlags::DIRECTORY)?;
    let mut extractor = extract::Extractor::new(s.root()?, directory.bytes(), how);
    let read = decompressed(file, compress, &mut |piece| extractor.push(piece));
    extractor.finish(read)
}

/// Makes a tar archive of a directory.
pub(crate) fn tar_out(
    s: &mut Session,
    directory: &OsStr,
    tarfile: &mut FileOut<'_>,
    options: &options::TarOut<'_>,
) -> Result<()> {
    let directory = GuestPath::new("directory", directory)?;
    s.need_root()?;
    let excludes = options.excludes.as_deref().unwrap_or_default();
    let how = create::Options {
        numeric_owner: options.numericowner == Some(true),
        excludes: excludes.iter().map(|e| Pattern::new(e.as_bytes())).collect(),
        attributes: Attributes {
            xattrs: options.xattrs == Some(true),
            selinux: options.selinux == Some(true),
            acls: options.acls == Some(true),
        },
    };
    pack(s, directory, tarfile, options.compress, &how)
}

/// Makes a tar archive of a directory and has gzip compress it.
pub(crate) fn tgz_out(
    s: &mut Session,
    directory: GuestPath<'_>,
    tarball: &mut FileOut<'_>,
) -> Result<()> {
    pack(s, directory, tarball, Some(OsStr::new("gzip")), &create::Options::default())
}

/// Makes a tar archive of a directory and has xz compress it.
pub(crate) fn txz_out(
    s: &mut Session,
    directory: GuestPath<'_>,
    tarball: &mut FileOut<'_>,
) -> Result<()> {
    pack(s, directory, tarball, Some(OsStr::new("xz")), &create::Options::default())
}

/// Makes a cpio archive of a directory.
pub(crate) fn cpio_out(
    s: &mut Session,
    directory: &OsStr,
    cpiofile: &mut FileOut<'_>,
    options: &options::CpioOut<'_>,
) -> Result<()> {
    let directory = GuestPath::new("directory", directory)?;
    s.need_root()?;
    let format = match options.format.map(OsStr::as_bytes) {
        None | Some(b"newc") => cpio::write::Format::Newc,
        Some(b"crc") => cpio::write::Format::Crc,
        Some(other) => {
            let why = "must be 'newc' or 'crc'";
            return Err(Error::argument("format", OsStr::from_bytes(other), why));
        }
    };
    let dir = open_directory(s, directory)?;
    cpio::write::write(dir, format, cpiofile).map_err(|e| e.within(directory))
}

fn open_directory(s: &Session, directory: GuestPath<'_>) -> Result<OwnedFd> {
    s.open(directory, OFlags::RDONLY | OFlags::DIRECTORY).map(OwnedFd::from)
}

fn pack(
    s: &Session,
    directory: GuestPath<'_>,
    file: &mut FileOut<'_>,
    compress: Option<&OsStr>,
    how: &create::Options,
) -> Result<()> {
    let dir = open_directory(s, directory)?;
    compressed(file, compress, |out| create::write(dir, how, out))
        .map_err(|e: Error| e.within(directory))
}
