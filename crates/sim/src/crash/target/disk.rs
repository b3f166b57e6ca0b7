// SPDX-License-Identifier: Apache-2.0
//! What an image of the simulation lies on: files of the world, with a bug in between where one is
//! planted.
use std::io;

use io_engine::File;
use qcow2::{Extent, Storage};
use sgl::Sgl;

use crate::crash::planted::Bug;

/// EOPNOTSUPP of Linux, which is what the world simulates.
const UNSUPPORTED: i32 = 95;
/// Most zeroes that are written at once.
const PIECE: usize = 64 << 10;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Disk {
    file: std::rc::Rc<File>,
    bug: Option<Bug>,
    is_data: bool,
}

impl Disk {
    /// A file, with a bug.
    pub(crate) fn new(file: File, bug: Option<Bug>, is_data: bool) -> Self {
        Disk { file: std::rc::Rc::new(file), bug, is_data }
    }
}

impl Storage for Disk {
    async fn length(&self) -> io::Result<u64> {
        self.file.length().await
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        Storage::read(&*self.file, data, offset).await
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        match self.bug {
            Some(Bug::TornWrite) if data.len() > 512 => {
                let part = data.slice(0..data.len() - 512);
                Storage::write(&*self.file, &part, offset).await
            }
            Some(Bug::EarlyAcknowledgement) => {
                // What comes to an end at once is written; the rest is given up.
                let write = Storage::write(&*self.file, data, offset);
                let _ = io_engine::timeout(std::time::Duration::from_nanos(20_000), write).await;
                Ok(())
            }
            _ => Storage::write(&*self.file, data, offset).await,
        }
    }

    async fn zero(&self, offset: u64, len: u64, punch: bool) -> io::Result<()> {
        if self.bug == Some(Bug::NoPunch) {
            return Ok(());
        }
        match Storage::zero(&*self.file, offset, len, punch).await {
            Err(e) if e.raw_os_error() == Some(UNSUPPORTED) => {}
            done => return done,
        }
        // As a store does that knows no holes.
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let piece = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            Storage::write(&*self.file, &Sgl::zeroed(piece), at).await?;
            at += piece as u64;
        }
        Ok(())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        Storage::set_len(&*self.file, len).await
    }

    async fn sync(&self) -> io::Result<()> {
        match (self.bug, self.is_data) {
            (Some(Bug::NoSync), _)
            | (Some(Bug::NoImageSync), false)
            | (Some(Bug::NoDataSync), true) => Ok(()),
            _ => Storage::sync(&*self.file).await,
        }
    }

    async fn map(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        Storage::map(&*self.file, offset, len).await
    }
}
