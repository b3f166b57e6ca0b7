// SPDX-License-Identifier: Apache-2.0
//! Images: what format they have, and which of them can be served.
//!
//! A raw image becomes a loop device as it is. `block` serves one of another format, and a raw one
//! that needs a watch: its length is no whole number of sectors, or nobody has said that it is raw.
//! Formats that `block` does not know are refused.
//!
//! Rule: an image that was only taken to be raw never looks like one of another format, at any
//! moment: such an image names files of the host, and whoever opens it next would read them. So
//! each of its writes goes through `block`, which judges those of the first sector before it makes
//! them.

use crate::error::{Context, Error, Result};
use crate::nbd::Server;
use crate::overlay;
use crate::qemu::Drive;
use block::{Locking, Locks};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes of the smallest sector.
pub const SECTOR: u64 = 512;

/// An image that can be served.
#[derive(Debug)]
pub struct Image {
    /// Its absolute path; of what an NBD server has, its name.
    pub path: PathBuf,
    /// The NBD server that has it.
    pub server: Option<Server>,
    /// Bytes of the disk's sectors.
    pub sector: u32,
    /// How it is served.
    pub kind: Kind,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Which of its files are locked.
    pub locking: Locking,
    /// Nobody has said that it is raw: it only looks like it.
    pub probed: bool,
    /// Nobody wants its content after a loss of power.
    pub scratch: bool,
}

/// How an image is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The file is the disk, and a loop device can lie on it.
    Raw,
    /// The file is the disk, and `block` has to serve it: its last sector is not whole, or what is
    /// written to its first one has to be judged.
    Watched,
    /// The disk is in an image of this format, which `block` knows.
    Format(&'static str),
    /// An NBD server has it.
    Nbd,
}

impl Image {
    /// Looks at the images of all drives.
    pub fn find_all(drives: &[Drive]) -> Result<Vec<Self>> {
        let images: Vec<Self> = drives.iter().map(Self::find).collect::<Result<_>>()?;
        for (n, image) in images.iter().enumerate() {
            let mut others = images.iter().take(n);
            if let Some(first) = others.find(|other| image.excludes(other)) {
                let why = format!(
                    "it was added twice (as {}): a disk that is written can be added once; add it \
                     once, or each time read-only (--ro)",
                    first.path.display()
                );
                return Err(Error::image(&image.path, why));
            }
        }
        Ok(images)
    }

    /// Whether this and another one are the same file, and the lock of one would exclude the other.
    fn excludes(&self, other: &Self) -> bool {
        let file = |image: &Self| {
            let locked = image.server.is_none() && image.locking != Locking::None;
            locked.then(|| std::fs::metadata(&image.path).ok()).flatten()
        };
        let (Some(one), Some(two)) = (file(self), file(other)) else { return false };
        let same = (one.dev(), one.ino()) == (two.dev(), two.ino());
        same && !(self.read_only && other.read_only)
    }

    /// Looks at the image of a drive.
    pub fn find(drive: &Drive) -> Result<Self> {
        let sector = drive.sector.unwrap_or(512);
        let (read_only, locking, scratch) = (drive.read_only, drive.locking, drive.scratch);
        if let Some(server) = drive.server.clone() {
            let path = PathBuf::from(server.to_string());
            if let Some(other) = drive.format.as_deref().filter(|format| *format != "raw") {
                let why = format!("format {other} is not served from NBD servers, only raw is");
                return Err(Error::image(path, why));
            }
            let server = Some(server);
            return Ok(Self {
                path,
                server,
                sector,
                kind: Kind::Nbd,
                read_only,
                locking,
                probed: false,
                scratch,
            });
        }
        let path = std::path::absolute(&drive.file).on(drive.file.display())?;
        let file = open(&path, true)?;
        let kind = match drive.format.as_deref() {
            Some(format) => kind_of(format, &path)?,
            // As QEMU does where the client has not said it.
            None => kind_of(block::probe(&block::head(&file).on(path.display())?), &path)?,
        };
        // That backing files may be in use is what libguestfs says of overlays of its own.
        if kind == Kind::Format("qcow2") && !read_only && locking == Locking::Image {
            overlay::correct(&path, &file)?;
        }
        let metadata = file.metadata().on(path.display())?;
        let device = metadata.file_type().is_block_device();
        if !device && !metadata.is_file() {
            return Err(Error::image(path, "neither a file nor a block device"));
        }
        if let Kind::Format(name) = kind
            && !read_only
            && block::image_format(name).is_some_and(|format| !format.writable)
        {
            let why = format!("images of format {name} can only be read: add it read-only (--ro)");
            return Err(Error::image(path, why));
        }
        let probed = drive.format.is_none();
        let ragged = !device && metadata.len() % SECTOR != 0;
        let watched = kind == Kind::Raw && (ragged || probed && !read_only);
        let kind = if watched { Kind::Watched } else { kind };
        Ok(Self { path, server: None, sector, kind, read_only, locking, probed, scratch })
    }

    /// Opens a raw image and locks it, if it is to be locked, for as long as the file is open
    /// anywhere, against programs that lock images as QEMU does.
    pub fn open_locked(&self) -> Result<File> {
        let file = open(&self.path, self.read_only)?;
        let locks = Locks::of(self.read_only, self.locking != Locking::None);
        match block::lock_image(file.as_fd(), locks) {
            Ok(true) => Ok(file),
            Ok(false) => Err(Error::image(
                &self.path,
                "it is in use by another program (a VM?); read-only use beside it: guestfish --ro",
            )),
            // The filesystem has no locks.
            Err(e) => {
                tracing::debug!(path = %self.path.display(), "not locked: {e}");
                Ok(file)
            }
        }
    }
}

fn open(path: &Path, read_only: bool) -> Result<File> {
    let mode = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    // NONBLOCK: a FIFO is found out without waiting for a writer.
    let flags = mode | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from).on(path.display())
}

fn kind_of(format: &str, path: &Path) -> Result<Kind> {
    match format {
        "raw" | "host_device" | "file" => Ok(Kind::Raw),
        other => match block::image_format(other) {
            Some(format) => Ok(Kind::Format(format.name)),
            None => Err(Error::image(path, block::format_refusal(other))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn find(content: &[u8], format: Option<&str>) -> Result<Kind> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let format = format.map(str::to_owned);
        let drive = Drive { file: file.path().into(), format, ..Drive::default() };
        Image::find(&drive).map(|i| i.kind)
    }

    #[test]
    fn a_format_that_is_not_said_is_looked_for() {
        let sector = |head: &[u8]| [head, &vec![0; 512 - head.len()]].concat();
        assert_eq!(find(&sector(b""), Some("raw")).unwrap(), Kind::Raw);
        assert_eq!(find(&sector(b""), None).unwrap(), Kind::Watched);
        assert_eq!(find(&sector(b"QFI\xfb\0\0\0\x03"), None).unwrap(), Kind::Format("qcow2"));
        assert_eq!(find(&sector(b"QFI\xfb\0\0\0\x03"), Some("raw")).unwrap(), Kind::Raw);
        assert_eq!(find(b"short", Some("raw")).unwrap(), Kind::Watched);
        assert_eq!(find(b"", Some("raw")).unwrap(), Kind::Raw);
    }

    #[test]
    fn formats_that_are_only_read_are_refused_to_those_who_write() {
        for (content, format, name) in [
            (&b"KDMV"[..], None, "vmdk"),
            (b"conectix", None, "vpc"),
            (b"x", Some("vdi"), "vdi"),
            (b"x", Some("xz"), "xz"),
            (b"\xfd7zXZ\0", None, "xz"),
            (b"\x28\xb5\x2f\xfd", None, "zst"),
            (b"\x1f\x8b\x08", None, "gz"),
        ] {
            let e = find(content, format).unwrap_err().to_string();
            assert!(e.contains(&format!("format {name} can only be read")), "{e}");
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content).unwrap();
            let (path, format) = (file.path().into(), format.map(str::to_owned));
            let drive = Drive { file: path, format, read_only: true, ..Drive::default() };
            assert_eq!(Image::find(&drive).unwrap().kind, Kind::Format(name));
        }
    }

    #[test]
    fn other_formats_are_refused_with_a_way_out() {
        for (content, format, name) in [
            (&b"QED\0"[..], None, "qed"),
            (b"LUKS\xba\xbe", None, "luks"),
            (b"x", Some("dmg"), "dmg"),
        ] {
            let e = find(content, format).unwrap_err().to_string();
            assert!(e.contains(&format!("format {name} ")) && e.contains("qemu-img"), "{e}");
        }
    }

    #[test]
    fn a_format_that_can_only_be_read_is_refused_for_writing() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"QFI\xfb\0\0\0\x01").unwrap();
        let drive = Drive { file: file.path().into(), ..Drive::default() };
        let e = Image::find(&drive).unwrap_err().to_string();
        assert!(e.contains("format qcow can only be read: add it read-only"), "{e}");
        let image = Image::find(&Drive { read_only: true, ..drive }).unwrap();
        assert_eq!(image.kind, Kind::Format("qcow"));
    }

    #[test]
    fn a_disk_that_is_written_is_added_once() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&file, [0; 512]).unwrap();
        std::fs::hard_link(&file, &link).unwrap();
        let drive = |path: &Path, read_only, locking| Drive {
            file: path.into(),
            read_only,
            locking,
            ..Drive::default()
        };
        let two = |one: bool, two: bool, locking| {
            Image::find_all(&[drive(&file, one, Locking::All), drive(&link, two, locking)])
        };
        for (one, other) in [(false, false), (true, false), (false, true)] {
            let e = two(one, other, Locking::All).unwrap_err().to_string();
            assert!(e.contains("b: it was added twice (as ") && e.contains("--ro"), "{e}");
        }
        assert_eq!(two(true, true, Locking::All).unwrap().len(), 2);
        assert_eq!(two(false, true, Locking::None).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        for path in ["/dev/null", "/", "/nonexistent/x"] {
            let drive = Drive { file: path.into(), ..Drive::default() };
            assert!(Image::find(&drive).unwrap_err().to_string().starts_with(path), "{path}");
        }
    }
}
