// SPDX-License-Identifier: Apache-2.0
//! An export as a store of `block`. Requests are made one after the other, and block the thread.

use super::Nbd;
use block::{Error, ErrorKind, Facts, Provisioning, Store};
use sgl::Sgl;
use std::io;

/// An export of an NBD server.
#[derive(Debug)]
pub(crate) struct NbdStore {
    server: Nbd,
    read_only: bool,
}

impl NbdStore {
    /// Takes a connection.
    pub(crate) fn new(server: Nbd, read_only: bool) -> Self {
        let read_only = read_only || server.read_only();
        Self { server, read_only }
    }

    fn error(&self, errno: i32, operation: impl Into<String>) -> Error {
        Error::new(io::Error::from_raw_os_error(errno), operation, self.server.name())
    }

    fn unsupported(&self, what: &str) -> Error {
        let why = "NBD servers do not offer it".to_owned();
        Error::new(ErrorKind::Unsupported(why), what, self.server.name())
    }
}

impl Store for NbdStore {
    fn facts(&self) -> Facts {
        Facts {
            size: self.server.size(),
            read_only: self.read_only,
            optimal_io: 4096,
            // Servers that want more than a sector are refused when they are connected to.
            request_alignment: 1,
            shared: true,
            compare_and_write: None,
            discard: None,
            write_zeroes: self.server.can_zero(),
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let mut buffer = vec![0; data.len()];
        let read = self.server.read(&mut buffer, offset);
        read.map_err(|e| self.error(e, format!("read {} bytes at {offset}", data.len())))?;
        data.write_at(0, &buffer);
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        let mut buffer = vec![0; data.len()];
        data.read_at(0, &mut buffer);
        let written = self.server.write(&buffer, offset);
        written.map_err(|e| self.error(e, format!("write {} bytes at {offset}", data.len())))?;
        if fua { self.flush().await } else { Ok(()) }
    }

    async fn flush(&self) -> Result<(), Error> {
        self.server.flush().map_err(|e| self.error(e, "flush"))
    }

    async fn discard(&self, _offset: u64, _len: u64) -> Result<(), Error> {
        Err(self.unsupported("discard"))
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        let zeroed = self.server.zero(offset, len, may_unmap);
        zeroed.map_err(|e| self.error(e, format!("write zeroes to {len} bytes at {offset}")))
    }

    async fn provisioning(&self, _offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        Ok((Provisioning::Mapped, len))
    }

    async fn resize(&self, _size: u64) -> Result<(), Error> {
        Err(self.error(libc::ENOSPC, "resize"))
    }

    async fn close(&self) -> Result<(), Error> {
        self.server.close();
        Ok(())
    }
}
