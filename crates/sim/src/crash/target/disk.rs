// SPDX-License-Identifier: Apache-2.0
//! What an image of the simulation lies on: files of the world, with a bug in between where one is
//! planted, or another image that is only read.
use std::io;

use io_engine::File;
use qcow2::{Extent, Image, Storage};
use sgl::Sgl;

use crate::crash::planted::Bug;

/// EOPNOTSUPP of Linux, which is what the world simulates.
const UNSUPPORTED: i32 = 95;
/// Most zeroes that are written at once.
const PIECE: usize = 64 << 10;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Disk(Place);

#[derive(Debug)]
enum Place {
    File { file: File, bug: Option<Bug>, is_data: bool },
    Image(Box<Image<Disk>>),
}

impl Disk {
    /// A file, with a bug.
    pub(crate) fn new(file: File, bug: Option<Bug>, is_data: bool) -> Self {
        Disk(Place::File { file, bug, is_data })
    }

    /// Another image.
    pub(crate) fn image(image: Image<Disk>) -> Self {
        Disk(Place::Image(Box::new(image)))
    }

    /// The file, the bug, and whether it is the data file.
    fn file(&self) -> io::Result<(&File, Option<Bug>, bool)> {
        match &self.0 {
            Place::File { file, bug, is_data } => Ok((file, *bug, *is_data)),
            Place::Image(_) => Err(io::Error::other("what is below an image is only read")),
        }
    }
}

impl Storage for Disk {
    async fn length(&self) -> io::Result<u64> {
        match &self.0 {
            Place::File { file, .. } => file.length().await,
            Place::Image(image) => Ok(image.size()),
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        match &self.0 {
            Place::File { file, .. } => Storage::read(file, data, offset).await,
            Place::Image(image) => {
                let inside = image.size().saturating_sub(offset);
                let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(data.len());
                data.fill(inside..data.len(), 0);
                let part = data.slice(0..inside);
                Box::pin(image.read(&part, offset)).await.map_err(io::Error::other)
            }
        }
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let (file, bug, _) = self.file()?;
        match bug {
            Some(Bug::TornWrite) if data.len() > 512 => {
                let part = data.slice(0..data.len() - 512);
                Storage::write(file, &part, offset).await
            }
            Some(Bug::EarlyAcknowledgement) => {
                // What comes to an end at once is written; the rest is given up.
                let write = Storage::write(file, data, offset);
                let _ = io_engine::timeout(std::time::Duration::from_nanos(20_000), write).await;
                Ok(())
            }
            _ => Storage::write(file, data, offset).await,
        }
    }

    async fn zero(&self, offset: u64, len: u64, punch: bool) -> io::Result<()> {
        let (file, bug, _) = self.file()?;
        if bug == Some(Bug::NoPunch) {
            return Ok(());
        }
        match Storage::zero(file, offset, len, punch).await {
            Err(e) if e.raw_os_error() == Some(UNSUPPORTED) => {}
            done => return done,
        }
        // As a store does that knows no holes.
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let piece = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            Storage::write(file, &Sgl::zeroed(piece), at).await?;
            at += piece as u64;
        }
        Ok(())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        Storage::set_len(self.file()?.0, len).await
    }

    async fn sync(&self) -> io::Result<()> {
        let (file, bug, is_data) = self.file()?;
        match (bug, is_data) {
            (Some(Bug::NoSync), _)
            | (Some(Bug::NoImageSync), false)
            | (Some(Bug::NoDataSync), true) => Ok(()),
            _ => Storage::sync(file).await,
        }
    }

    async fn map(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        match &self.0 {
            Place::File { file, .. } => Storage::map(file, offset, len).await,
            // Nothing is known of it.
            Place::Image(_) => Ok((Extent::Data, len)),
        }
    }
}
