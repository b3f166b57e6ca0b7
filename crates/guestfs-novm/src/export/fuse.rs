// SPDX-License-Identifier: Apache-2.0
//! The filesystem: a directory with one file, whose contents the image's executor has.

use super::NAME;
use super::store::Request;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, WriteFlags,
};
use io_engine::Sender;
use std::ffi::OsStr;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

const FILE: INodeNo = INodeNo(2);
/// Attributes never change.
const FOREVER: Duration = Duration::from_secs(1 << 30);
/// Bytes of the largest request.
const MAX_REQUEST: u32 = 1 << 20;
/// Requests that may be under way.
const MAX_BACKGROUND: u16 = 64;

pub(super) struct Files {
    size: u64,
    requests: Sender<Request>,
}

impl Files {
    pub(super) fn new(size: u64, requests: Sender<Request>) -> Self {
        Self { size, requests }
    }

    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let root = ino == INodeNo::ROOT;
        FileAttr {
            ino,
            size: if root { 0 } else { self.size },
            blocks: if root { 0 } else { self.size.div_ceil(512) },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if root { FileType::Directory } else { FileType::RegularFile },
            perm: if root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Hands a request on. When nobody serves any more, it is dropped, and its reply is EIO.
    fn send(&self, request: Request) {
        drop(self.requests.send(request));
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each fails with the limit of the kernel, which then applies.
        config.set_max_write(MAX_REQUEST).ok();
        config.set_max_readahead(MAX_REQUEST).ok();
        config.set_max_background(MAX_BACKGROUND).ok();
        Ok(())
    }

    fn lookup(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&FOREVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &fuser::Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(ino));
    }

    fn open(&self, _: &fuser::Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.size.saturating_sub(offset);
        let len = u32::try_from(left).unwrap_or(u32::MAX).min(len);
        self.send(Request::Read { offset, len, reply });
    }

    fn write(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.send(Request::Write { offset, data: data.to_vec(), reply });
    }

    fn flush(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Writes are not held back in the page cache. With this answer it is not asked again.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.send(Request::Flush { reply });
    }

    fn fallocate(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        let may_unmap = match mode {
            PUNCH => true,
            ZERO => false,
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        self.send(Request::Zero { offset, len, may_unmap, reply });
    }
}
