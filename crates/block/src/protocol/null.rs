// SPDX-License-Identifier: Apache-2.0
//! `null/`: reads as zeroes and discards what is written. For benchmarks of everything else.
use std::cell::Cell;

use sgl::Sgl;

use crate::{Config, Discard, Error, Facts, OpenOptions, Provisioning, Store};

/// A store without content.
#[derive(Debug)]
pub struct NullStore {
    size: Cell<u64>,
}

pub(crate) fn check(config: &Config<'_>) -> Result<(), Error> {
    if config.rest.trim_start_matches('/').is_empty() {
        return Ok(());
    }
    let whole = format!("{}/{}", config.subtype, config.rest);
    Err(Error::invalid("it takes nothing after null/", "configuration string", whole))
}

/// The size is that of the logical unit.
pub(crate) fn open(config: &Config<'_>, options: &OpenOptions) -> Result<NullStore, Error> {
    check(config)?;
    Ok(NullStore { size: Cell::new(options.size.unwrap_or(1 << 30)) })
}

impl Store for NullStore {
    fn facts(&self) -> Facts {
        Facts {
            size: self.size.get(),
            read_only: false,
            optimal_io: 4096,
            request_alignment: 1,
            shared: false,
            compare_and_write: None,
            discard: Some(Discard { granularity: 512, zeroes: true }),
            write_zeroes: true,
        }
    }

    async fn read(&self, data: &Sgl<'_>, _offset: u64) -> Result<(), Error> {
        data.fill(0..data.len(), 0);
        Ok(())
    }

    async fn write(&self, _data: &Sgl<'_>, _offset: u64, _fua: bool) -> Result<(), Error> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn discard(&self, _offset: u64, _len: u64) -> Result<(), Error> {
        Ok(())
    }

    async fn write_zeroes(&self, _offset: u64, _len: u64, _may_unmap: bool) -> Result<(), Error> {
        Ok(())
    }

    async fn provisioning(&self, _offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        Ok((Provisioning::Deallocated, len))
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        self.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
