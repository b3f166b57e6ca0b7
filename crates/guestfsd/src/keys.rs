// SPDX-License-Identifier: Apache-2.0
//! A key on its way to a program that reads it from a path: a pipe, of which nothing gets to any disk, nor into swap
//! space. Where nothing is in it, it is an empty file: of a pipe, cryptsetup takes that for an error.

use guest_fs::paths::proc_path;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Most bytes of a key: what a pipe holds for any user.
const MAX: usize = 1 << 20;
/// Bytes that a pipe holds without being told to hold more.
const USUAL: usize = 64 << 10;

/// A pipe in which the key is, to its end. The path is of use as long as this value lives.
#[derive(Debug)]
pub(crate) struct KeyPipe(OwnedFd);

impl KeyPipe {
    /// Puts the key into a pipe. One that is longer than 1 MiB is an error.
    pub(crate) fn new(key: &[u8]) -> io::Result<Self> {
        if key.is_empty() {
            return Ok(Self(memfd_create("key", MemfdFlags::CLOEXEC)?));
        }
        if key.len() > MAX {
            return Err(rustix::io::Errno::FBIG.into());
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        if key.len() > USUAL {
            fcntl_setpipe_size(&write, key.len())?;
        }
        std::fs::File::from(write).write_all(key)?;
        Ok(Self(read))
    }

    /// Where a program reads it.
    pub(crate) fn path(&self) -> PathBuf {
        proc_path(self.0.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::Tool;

    #[test]
    fn a_program_reads_the_whole_key_by_its_path() {
        for key in [&b""[..], b"two\nlines\n", &[0xa5; 100_000]] {
            let pipe = KeyPipe::new(key).unwrap();
            assert_eq!(Tool::new("cat").arg(pipe.path()).output().unwrap(), key);
        }
    }

    #[test]
    fn a_key_that_no_pipe_holds_is_refused() {
        KeyPipe::new(&vec![1; MAX]).unwrap();
        KeyPipe::new(&vec![1; MAX + 1]).unwrap_err();
    }
}
