//! Opening an image: a regular file or a block device, locked, and what can be told of it. Used
//! by every backstore whose image is a file.
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, fstat, seek, stat};
use rustix::io::Errno;

use super::lock;
use crate::{Error, ErrorKind};

/// How long an image that is in use is asked for. A process that was killed holds its files until
/// its last I/O has ended, and its successor is quick.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for a block device, which has no locks that could end before its last descriptor does;
/// a worker of the kernel's io_uring may keep that for 5 s.
const DEVICE_PATIENCE: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(50);

/// An open image.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) fd: OwnedFd,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) is_block_device: bool,
}

/// Whether there is an image of a kind that can be opened. Blocks.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    is_block_device(path).map(drop)
}

fn is_block_device(path: &Path) -> Result<bool, Error> {
    let stat = stat(path).map_err(|e| Error::new(e, "look up", path))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(false),
        FileType::BlockDevice => Ok(true),
        other => {
            let text = format!("it is neither a regular file nor a block device ({other:?})");
            Err(Error::invalid(text, "open", path))
        }
    }
}

/// Opens and locks an image.
///
/// # Errors
/// An image that may not be written is refused unless `read_only`: a logical unit that silently
/// is read-only is found out too late.
pub(crate) async fn open(path: &Path, read_only: bool) -> Result<Image, Error> {
    let failed = |e: Errno| Error::new(e, "open", path);
    // Before opening, which has effects on a FIFO or a tape.
    let patience = if is_block_device(path)? { DEVICE_PATIENCE } else { PATIENCE };
    let mut waited = Duration::ZERO;
    loop {
        let image = open_once(path, read_only);
        match image {
            Ok(Some(image)) => return Ok(image),
            Ok(None) if waited < patience => {}
            Ok(None) => {
                let text = "it is in use: another device, QEMU or qemu-img has it open";
                return Err(Error::invalid(text, "lock", path));
            }
            Err(e @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) if !read_only => {
                // The errno reaches whoever enables the device.
                let kind = ErrorKind::Io(io::Error::from(e));
                return Err(Error::new(kind, "open for writing, which the daemon needs", path));
            }
            Err(e) => return Err(failed(e)),
        }
        io_engine::sleep(PAUSE).await;
        waited += PAUSE;
    }
}

/// `None`: it is in use.
pub(super) fn open_once(path: &Path, read_only: bool) -> Result<Option<Image>, Errno> {
    let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let stat = stat(path)?;
    let is_block_device = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    let mut flags = access | OFlags::CLOEXEC | OFlags::NOCTTY;
    if is_block_device && !read_only {
        // As the kernel's own block backstore: not beside a mounted file system.
        flags |= OFlags::EXCL;
    }
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::BUSY) if is_block_device => return Ok(None),
        Err(e) => return Err(e),
    };
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::from_raw_mode(stat.st_mode) {
        // Exchanged between the two calls.
        return Err(Errno::AGAIN);
    }
    match lock::lock(fd.as_fd(), read_only) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(e) => {
            tracing::warn!("{}: cannot be locked, go on without: {e}", path.display());
        }
    }
    let size = seek(&fd, SeekFrom::End(0))?;
    Ok(Some(Image { fd, size, is_block_device }))
}
