// SPDX-License-Identifier: Apache-2.0
//! Opening an image: a regular file or a block device is looked up, opened, and locked. Used by
//! every store whose image is a file.
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use io_engine::File;
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, fstat, open as open_fd, seek};
use rustix::io::Errno;

use super::lock::{self, Locks};
use crate::{Error, ErrorKind};

/// How long an image that is in use is asked for. A process that was killed holds its files until
/// its last I/O has ended, and its successor is quick.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for a block device, which has no locks that could end before its last descriptor does;
/// a worker of the kernel's io_uring may keep that for 5 s.
const DEVICE_PATIENCE: Duration = Duration::from_secs(6);
/// The same while I/O waits for the image: longer than another program takes to find out that it
/// cannot have it.
const SHORT_PATIENCE: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(50);

/// Block devices that this process has closed, and when.
static CLOSED: Mutex<Vec<(Identity, Instant)>> = Mutex::new(Vec::new());

/// Tells files apart, whatever their names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Number of the file system's device, and of the inode.
    File(u64, u64),
    /// Number of the block device.
    Device(u64),
    /// The memory of this device, which has no name.
    Memory,
}

/// An image that has been looked up, but not opened. What it is cannot be exchanged any more.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    /// With O_PATH, which has no effect on a FIFO or a tape.
    fd: OwnedFd,
    identity: Identity,
}

impl Place {
    /// Looks up a path. Blocks.
    pub(crate) fn find(path: &Path) -> Result<Self, Error> {
        let fd = open_fd(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        Place::new(fd.map_err(|e| Error::new(e, "look up", path))?, path)
    }

    /// Takes a descriptor, open with O_PATH, of what `path` names.
    pub(crate) fn new(fd: OwnedFd, path: &Path) -> Result<Self, Error> {
        let stat = fstat(&fd).map_err(|e| Error::new(e, "look up", path))?;
        let identity = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Identity::File(stat.st_dev, stat.st_ino),
            FileType::BlockDevice => Identity::Device(stat.st_rdev),
            other => {
                let text = format!("it is neither a regular file nor a block device ({other:?})");
                return Err(Error::invalid(text, "open", path));
            }
        };
        Ok(Place { path: path.to_owned(), fd, identity })
    }

    /// The name by which it was found.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Opens it for reading, without locks. Blocks.
    pub(crate) fn open_to_look(&self) -> Result<(std::fs::File, u64), Error> {
        let opened = self.reopen(OFlags::RDONLY).and_then(|fd| {
            let len = seek(&fd, SeekFrom::End(0))?;
            Ok((fd.into(), len))
        });
        opened.map_err(|e| Error::new(e, "open", &self.path))
    }

    fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let link = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        open_fd(link, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
    }
}

/// An open image. Clones share the open file, and with it its locks.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) file: Arc<File>,
    /// In bytes.
    pub(crate) size: u64,
    identity: Identity,
    writable: bool,
    locks: Locks,
    /// Of a block device that is written.
    _claim: Option<Arc<Claim>>,
}

/// That a block device is ours alone (O_EXCL). Notes when it ends.
#[derive(Debug)]
struct Claim(Identity);

impl Drop for Claim {
    fn drop(&mut self) {
        let mut closed = CLOSED.lock().unwrap_or_else(PoisonError::into_inner);
        closed.retain(|(device, when)| *device != self.0 && when.elapsed() < DEVICE_PATIENCE);
        closed.push((self.0, Instant::now()));
    }
}

/// Whether this process has closed a block device so recently that the kernel may still hold it.
fn was_closed_recently(device: Identity) -> bool {
    let closed = CLOSED.lock().unwrap_or_else(PoisonError::into_inner);
    closed.iter().any(|(other, when)| *other == device && when.elapsed() < DEVICE_PATIENCE)
}

impl Image {
    fn new(file: File, size: u64, identity: Identity, writable: bool) -> Self {
        let file = Arc::new(file);
        Image { file, size, identity, writable, locks: Locks::None, _claim: None }
    }

    /// Takes memory of `size` bytes that looks like a file.
    pub(crate) fn memory(fd: OwnedFd, size: u64) -> Self {
        Image::new(File::new(fd), size, Identity::Memory, true)
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn is_block_device(&self) -> bool {
        matches!(self.identity, Identity::Device(_))
    }
}

/// The files that a store has open and locked. Who opens another store with them on the
/// same files takes the locks over: there is no moment in which another program gets an image.
#[derive(Clone, Debug, Default)]
pub struct Held(Vec<Image>);

impl Held {
    pub(crate) fn new(images: Vec<Image>) -> Self {
        Held(images)
    }

    pub(crate) fn into_images(self) -> Vec<Image> {
        self.0
    }

    /// The names of the files as the kernel has them now: " (deleted)" follows the name of one that is
    /// gone. Memory has none.
    pub fn paths(&self) -> Vec<PathBuf> {
        let files = self.0.iter().filter(|image| image.identity != Identity::Memory);
        let link = |image: &Image| format!("/proc/self/fd/{}", image.file.as_fd().as_raw_fd());
        files.filter_map(|image| std::fs::read_link(link(image)).ok()).collect()
    }

    /// Whether there is a file in both.
    pub fn overlaps(&self, other: &Held) -> bool {
        self.0.iter().any(|image| other.find(image.identity).is_some())
    }

    /// Whether a flush of one of them has failed.
    pub(crate) fn has_lost_data(&self) -> bool {
        self.0.iter().any(|image| image.file.check_flushed().is_err())
    }

    /// The memory among them.
    pub(crate) fn memory(&self) -> Option<&Image> {
        self.find(Identity::Memory)
    }

    fn find(&self, identity: Identity) -> Option<&Image> {
        self.0.iter().find(|image| image.identity == identity)
    }
}

/// Opens and locks an image.
///
/// # Errors
/// [`ErrorKind::InUse`] when somebody else has it. An image that may not be written is refused unless `read_only`: a logical unit that silently
/// is read-only is found out too late.
pub(crate) async fn open(
    place: &Place,
    read_only: bool,
    locked: bool,
    predecessor: Option<&Held>,
) -> Result<Image, Error> {
    let path = place.path();
    let patience = match (place.identity, predecessor) {
        (Identity::Device(_), None) => DEVICE_PATIENCE,
        (_, None) => PATIENCE,
        (device, Some(_)) if was_closed_recently(device) => DEVICE_PATIENCE,
        (_, Some(_)) => SHORT_PATIENCE,
    };
    let mut waited = Duration::ZERO;
    loop {
        let image = open_once(place, read_only, locked, predecessor);
        match image {
            Ok(Some(image)) => return Ok(image),
            Ok(None) if waited < patience => {}
            Ok(None) => return Err(Error::new(ErrorKind::InUse, "lock", path)),
            Err(e @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) if !read_only => {
                // The errno reaches whoever enables the device.
                let kind = ErrorKind::Io(io::Error::from(e));
                return Err(Error::new(kind, "open for writing, which the daemon needs", path));
            }
            Err(e) => return Err(Error::new(e, "open", path)),
        }
        io_engine::sleep(PAUSE).await;
        waited += PAUSE;
    }
}

/// `None`: it is in use.
pub(super) fn open_once(
    place: &Place,
    read_only: bool,
    locked: bool,
    predecessor: Option<&Held>,
) -> Result<Option<Image>, Errno> {
    let old = predecessor.and_then(|held| held.find(place.identity));
    // A block device can only be claimed anew when the old claim has ended.
    if let Some(old) = old
        && old.writable != read_only
    {
        return Ok(Some(Image { size: seek(&*old.file, SeekFrom::End(0))?, ..old.clone() }));
    }
    let mut flags = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let claims = matches!(place.identity, Identity::Device(_)) && !read_only;
    if claims {
        // As the kernel's own block store: not beside a mounted file system.
        flags |= OFlags::EXCL;
    }
    let fd = match place.reopen(flags) {
        Ok(fd) => fd,
        Err(Errno::BUSY) if claims => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut locks = Locks::of(read_only, locked);
    let locked = match old {
        Some(old) => lock::take_over(fd.as_fd(), locks, (old.file.as_fd(), old.locks)),
        None => lock::lock(fd.as_fd(), locks),
    };
    match locked {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(e) => {
            tracing::warn!("{}: cannot be locked, go on without: {e}", place.path.display());
            locks = Locks::None;
        }
    }
    let _claim = claims.then(|| Arc::new(Claim(place.identity)));
    let size = seek(&fd, SeekFrom::End(0))?;
    let image = Image::new(File::new(fd), size, place.identity, !read_only);
    Ok(Some(Image { locks, _claim, ..image }))
}
