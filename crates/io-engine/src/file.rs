// SPDX-License-Identifier: Apache-2.0
//! A file that is read and written at offsets, on the shortest way there is.
//!
//! - Reads are first tried on the spot, without waiting (`RWF_NOWAIT`): what the page cache has
//!   comes back at once. The rest goes to the engine's driver. A file system that does not know
//!   `RWF_NOWAIT` is asked once; one that keeps its data in memory is read on the spot.
//! - Buffered writes are done on the spot while they are fast, see the module `pace`.
//! - Whatever waits for storage by its nature (`RWF_DSYNC`, fsync, fallocate) always goes to the
//!   driver.
//! - What goes to the driver needs memory that outlives every borrow. A list that has an owner
//!   ([`Sgl::share`]) is used as it is; another is copied, in pieces.
//!
//! # When a flush fails
//! The kernel reports that data could not be written to the storage once; then the pages count as
//! clean, and the next fsync(2) succeeds although the data is gone. So the first failure stays in
//! the [`File`]: every later flush fails with the same error until the file is opened anew.
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sgl::Sgl;

use crate::ofd;
use crate::op::{Code, Descriptor, Op, is_unsupported, now};
use crate::pace::Pace;

/// How reads are tried on the spot.
const NOWAIT: u8 = 0;
/// They are done on the spot: nothing is slower than memory here.
const MEMORY: u8 = 1;
/// They are not.
const NEVER: u8 = 2;

const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// An open file or block device.
#[derive(Debug)]
pub struct File {
    /// Shared with the operations that the kernel has.
    fd: Arc<Descriptor>,
    reads: AtomicU8,
    pace: Pace,
    /// The errno of the first flush that failed; 0 while none has.
    flush_error: AtomicI32,
}

impl File {
    /// Takes an open file. Its position is not used, but moved.
    pub fn new(fd: OwnedFd) -> Self {
        let in_memory = rustix::fs::fstatfs(&fd).is_ok_and(|fs| {
            // The field's type differs between architectures; the magic numbers have 32 bits.
            #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
            let kind = u64::from(fs.f_type as u32);
            kind == TMPFS_MAGIC || kind == RAMFS_MAGIC
        });
        let reads = AtomicU8::new(if in_memory { MEMORY } else { NOWAIT });
        File::with(Descriptor::Os(fd), reads)
    }

    fn with(fd: Descriptor, reads: AtomicU8) -> Self {
        File { fd: Arc::new(fd), reads, pace: Pace::default(), flush_error: AtomicI32::new(0) }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated(fd: Descriptor) -> Self {
        File::with(fd, AtomicU8::new(NOWAIT))
    }

    /// Reads into all of `data`; returns how many bytes there were, fewer only at the end of the
    /// file.
    pub async fn read_at(&self, data: &Sgl<'_>, offset: u64) -> io::Result<usize> {
        let fd = &self.fd;
        let flags = match self.reads.load(Ordering::Relaxed) {
            NOWAIT => libc::RWF_NOWAIT,
            MEMORY => 0,
            _ => return read_on(fd, data, offset, 0).await,
        };
        match now(fd, Code::Read(flags), data, offset) {
            Ok(n) if n == data.len() => Ok(n),
            Ok(0) => Ok(0),
            // A part was in the cache, or the end of the file is near.
            Ok(n) => read_on(fd, data, offset, n).await,
            Err(e) if Errno::from_io_error(&e) == Some(Errno::AGAIN) => {
                read_on(fd, data, offset, 0).await
            }
            Err(e) if is_unsupported(&e) && flags != 0 => {
                self.reads.store(NEVER, Ordering::Relaxed);
                read_on(fd, data, offset, 0).await
            }
            Err(e) => Err(e),
        }
    }

    /// Writes all of `data`. With `dsync` it is on stable storage on return.
    ///
    /// # Errors
    /// A part may have been written then. With `dsync` also when a flush failed earlier.
    pub async fn write_at(&self, data: &Sgl<'_>, offset: u64, dsync: bool) -> io::Result<()> {
        let fd = &self.fd;
        if dsync {
            return self.write_durably(data, offset).await;
        }
        #[cfg(feature = "sim")]
        if fd.is_simulated() {
            let done = match now(fd, Code::Write(0), data, offset) {
                Err(e) if Errno::from_io_error(&e) == Some(Errno::AGAIN) => 0,
                done => done?,
            };
            return write_on(fd, data, offset, done, 0).await;
        }
        let Some(begun) = self.pace.begin() else {
            return write_on(fd, data, offset, 0, 0).await;
        };
        let written = now(fd, Code::Write(0), data, offset);
        self.pace.end(begun);
        match written? {
            n if n == data.len() => Ok(()),
            n => write_on(fd, data, offset, n, 0).await,
        }
    }

    /// Writes all of `data` to stable storage.
    async fn write_durably(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        self.check_flushed()?;
        let fd = &self.fd;
        match write_on(fd, data, offset, 0, libc::RWF_DSYNC).await {
            Ok(()) => self.check_flushed(),
            Err(e) if keeps_data(&e) => Err(e),
            // The write itself or its flush failed (ENOSPC may be either): a write that is refused
            // without flushing, too, has lost nothing.
            Err(e) => match write_on(fd, data, offset, 0, 0).await {
                Ok(()) => Err(self.flush_failed(e)),
                Err(e) => Err(e),
            },
        }
    }

    /// Brings what was written to stable storage; with `data_only` only as much metadata as is
    /// needed to read it back (fdatasync).
    ///
    /// # Errors
    /// Also when a flush failed earlier.
    pub async fn sync(&self, data_only: bool) -> io::Result<()> {
        self.check_flushed()?;
        match Op::control(&self.fd, Code::Sync { data_only }, 0).await {
            // One that ran beside this one may have been told of our data.
            Ok(_) => self.check_flushed(),
            Err(e) => Err(self.flush_failed(e)),
        }
    }

    /// The error of the first flush that failed.
    ///
    /// # Errors
    /// That one.
    pub fn check_flushed(&self) -> io::Result<()> {
        match self.flush_error.load(Ordering::Relaxed) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Takes the error of a flush, and keeps it where data may be lost.
    fn flush_failed(&self, e: io::Error) -> io::Error {
        if !keeps_data(&e) {
            let errno = e.raw_os_error().unwrap_or(libc::EIO);
            let _ =
                self.flush_error.compare_exchange(0, errno, Ordering::Relaxed, Ordering::Relaxed);
        }
        e
    }

    /// Its length in bytes; of a block device, too.
    ///
    /// # Errors
    /// Those of lseek(2).
    #[allow(clippy::len_without_is_empty, reason = "nobody asks whether it is empty")]
    pub fn len(&self) -> io::Result<u64> {
        #[cfg(feature = "sim")]
        if self.fd.is_simulated() {
            return crate::sim::len(&self.fd);
        }
        Ok(rustix::fs::seek(&self.fd, SeekFrom::End(0))?)
    }

    /// Cuts it, or makes it longer by a hole (ftruncate).
    ///
    /// # Errors
    /// EINVAL for a block device; EFBIG beyond the file system's limit.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if self.fd.is_simulated() {
            return crate::sim::set_len(&self.fd, len);
        }
        Ok(rustix::fs::ftruncate(&self.fd, len)?)
    }

    /// The first range of bytes at or after `offset` that may hold something else than zeroes;
    /// `None` when there is none up to the end.
    ///
    /// # Errors
    /// EINVAL from what knows no holes, as block devices.
    pub fn data_extent(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        #[cfg(feature = "sim")]
        if self.fd.is_simulated() {
            return crate::sim::data_extent(&self.fd, offset);
        }
        let start = match rustix::fs::seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        match rustix::fs::seek(&self.fd, SeekFrom::Hole(start)) {
            Ok(end) => Ok(Some(start..end.max(start + 1))),
            // It was cut in between.
            Err(Errno::NXIO) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// fallocate(2) of a range in bytes; `mode` is made of `libc::FALLOC_FL_*`.
    pub async fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        Op::control(&self.fd, Code::Fallocate { mode, len }, offset).await.map(drop)
    }
}

impl Drop for File {
    /// Ends the locks of the open file description. Closing it would, too, but the kernel may keep
    /// it for some 5 s more: that long a worker of io_uring sleeps before it puts away what it held
    /// last (seen on 6.18), and whoever opens the image next would find it in use.
    fn drop(&mut self) {
        #[cfg(feature = "sim")]
        if self.fd.is_simulated() {
            return;
        }
        // Without locks it does nothing; an error leaves it to closing.
        let _ = ofd::unlock_all(self.fd.as_fd());
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> Self {
        File::new(file.into())
    }
}

/// Whether the error of a flush only says that it was not done: dirty pages stay dirty.
fn keeps_data(e: &io::Error) -> bool {
    let not_done = [Errno::INTR, Errno::AGAIN, Errno::CANCELED, Errno::BADF];
    is_unsupported(e) || Errno::from_io_error(e).is_some_and(|errno| not_done.contains(&errno))
}

/// Reads, after the first `done` bytes, through the driver.
async fn read_on(
    fd: &Arc<Descriptor>,
    data: &Sgl<'_>,
    offset: u64,
    mut done: usize,
) -> io::Result<usize> {
    if done == 0 {
        done = Op::transfer(fd, Code::Read(0), data, offset).await?;
        if done == 0 {
            return Ok(0);
        }
    }
    while done < data.len() {
        let rest = data.slice(done..data.len());
        match Op::transfer(fd, Code::Read(0), &rest, offset + done as u64).await? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Writes, after the first `done` bytes, through the driver.
async fn write_on(
    fd: &Arc<Descriptor>,
    data: &Sgl<'_>,
    offset: u64,
    mut done: usize,
    flags: i32,
) -> io::Result<()> {
    while done < data.len() {
        let rest = data.slice(done..data.len());
        match Op::transfer(fd, Code::Write(flags), &rest, offset + done as u64).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => done += n,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::pace::{Begun, Start};
    use crate::{Backend, Engine};

    fn is_pending(work: impl Future<Output = io::Result<()>>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        std::pin::pin!(work).poll(&mut cx).is_pending()
    }

    #[test]
    fn writes_are_inline_until_one_was_slow_and_durable_ones_never_are() {
        for backend in [Backend::IoUring, Backend::Pool] {
            let work = async {
                let file = File::from(tempfile::tempfile().unwrap());
                let mut buf = [0; 512];
                let data = Sgl::from_slice(&mut buf);
                assert!(!is_pending(file.write_at(&data, 0, false)));
                assert!(is_pending(file.write_at(&data, 0, true)));
                file.pace.end(Begun(Start::Exactly(0, -1)));
                assert!(is_pending(file.write_at(&data, 0, false)));
                file.write_at(&data, 0, false).await.unwrap();
            };
            Engine::new(backend).unwrap().block_on(work).unwrap();
        }
    }

    #[test]
    fn a_file_tells_its_length_and_where_it_has_data() {
        let work = async {
            let file = File::from(tempfile::tempfile().unwrap());
            assert_eq!((file.len().unwrap(), file.data_extent(0).unwrap()), (0, None));
            file.set_len(1 << 20).unwrap();
            assert_eq!((file.len().unwrap(), file.data_extent(5).unwrap()), (1 << 20, None));
            let mut buf = [1; 4096];
            file.write_at(&Sgl::from_slice(&mut buf), 256 << 10, false).await.unwrap();
            let data = file.data_extent(0).unwrap().unwrap();
            assert!(data.contains(&(256 << 10)) && data.end >= (256 << 10) + 4096);
            assert_eq!(file.data_extent(256 << 10).unwrap().unwrap().start, 256 << 10);
            file.set_len(100).unwrap();
            assert_eq!((file.len().unwrap(), file.data_extent(100).unwrap()), (100, None));
        };
        Engine::new(Backend::Auto).unwrap().block_on(work).unwrap();
    }

    #[test]
    fn borrowed_memory_of_any_length_is_transferred_through_the_driver() {
        for backend in [Backend::IoUring, Backend::Pool] {
            let work = async {
                let file = File::from(tempfile::tempfile().unwrap());
                file.reads.store(NEVER, Ordering::Relaxed);
                let mut out: Vec<u8> = (0..1_000_001u32).map(|i| (i % 251) as u8).collect();
                let (a, b) = out.split_at_mut(333_333);
                file.write_at(&Sgl::from_slices([a, b]), 5, true).await.unwrap();
                let mut back = vec![0; out.len() + 10];
                let (a, b) = back.split_at_mut(700_001);
                let n = file.read_at(&Sgl::from_slices([a, b]), 5).await.unwrap();
                assert_eq!(n, out.len());
                assert_eq!(back[..n], out);
            };
            Engine::new(backend).unwrap().block_on(work).unwrap();
        }
    }

    /// `tests/vm/faults.sh` has a device that really fails.
    #[test]
    fn a_flush_that_failed_fails_until_the_file_is_opened_anew() {
        let work = async {
            let temp = tempfile::NamedTempFile::new().unwrap();
            let file = File::from(temp.reopen().unwrap());
            file.sync(true).await.unwrap();
            for harmless in [libc::EINTR, libc::EINVAL, libc::EOPNOTSUPP] {
                let e = file.flush_failed(io::Error::from_raw_os_error(harmless));
                assert_eq!(e.raw_os_error(), Some(harmless));
                file.sync(true).await.unwrap();
            }
            for (errno, kept) in [(libc::EIO, libc::EIO), (libc::ENOSPC, libc::EIO)] {
                let _ = file.flush_failed(io::Error::from_raw_os_error(errno));
                let mut buf = [1; 512];
                let data = Sgl::from_slice(&mut buf);
                for result in [
                    file.sync(true).await,
                    file.sync(false).await,
                    file.write_at(&data, 0, true).await,
                ] {
                    assert_eq!(result.unwrap_err().raw_os_error(), Some(kept));
                }
                file.write_at(&data, 0, false).await.unwrap();
            }
            File::from(temp.reopen().unwrap()).sync(true).await.unwrap();
        };
        Engine::new(Backend::Auto).unwrap().block_on(work).unwrap();
    }

    /// As on a full disk, which is no reason to fail what comes when there is space again.
    #[test]
    fn a_durable_write_that_is_refused_is_no_failed_flush() {
        let work = async {
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            let file = File::from(full);
            let mut buf = [1; 512];
            let e = file.write_at(&Sgl::from_slice(&mut buf), 0, true).await.unwrap_err();
            assert_eq!(e.raw_os_error(), Some(libc::ENOSPC));
            file.check_flushed().unwrap();
        };
        Engine::new(Backend::Auto).unwrap().block_on(work).unwrap();
    }

    #[test]
    fn a_file_system_that_cannot_read_without_waiting_is_asked_once() {
        let work = async {
            // procfs has no RWF_NOWAIT.
            let file = File::from(std::fs::File::open("/proc/self/status").unwrap());
            let mut buf = [0; 64];
            assert_eq!(file.read_at(&Sgl::from_slice(&mut buf), 0).await.unwrap(), 64);
            assert_eq!(file.reads.load(Ordering::Relaxed), NEVER);
            assert_eq!(&buf[..5], b"Name:");
            assert_eq!(file.read_at(&Sgl::from_slice(&mut buf), 0).await.unwrap(), 64);
        };
        Engine::new(Backend::Auto).unwrap().block_on(work).unwrap();
    }
}
